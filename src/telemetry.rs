//! The one seam between the gateway's work and what is said about it: operations go in, signals come out.
//!
//! A protocol starts an [`Operation`] and states facts through its [`Handle`]. When the operation drops, the
//! [`Recorder`] hands the finished [`Record`] to each [`Sink`]: spans, metrics, access log, error records. Telemetry knows
//! no protocol's library.

pub mod access_log;
pub mod attribute;
mod backlog;
pub mod balance;
pub mod context;
pub mod diagnostics;
pub mod errors;
pub mod exchange;
pub mod exemplar;
pub mod file;
pub mod hour;
pub mod metrics;
pub mod operation;
pub mod outcome;
pub mod privacy;
pub mod push;
pub mod receivers;
pub mod recent;
pub mod recorder;
pub mod resource;
pub mod retry;
pub mod sampling;
pub mod series;
pub mod settings;
pub mod span;
pub mod spans;
pub mod sticky;
#[cfg(test)]
mod testing;
pub(crate) mod trouble;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use access_log::AccessLog;
use balance::{ErrorSums, SpanSums};
use errors::Errors;
use hour::Hour;
use metrics::Metrics;
pub use operation::{Attempt, AttemptRecord, Handle, Operation, Passed, Question, Record, Sink, Start};
use push::Push;
use receivers::Receiver;
use receivers::otlp::OtlpReceiver;
use receivers::zipkin::ZipkinReceiver;
use recent::Recent;
pub use recorder::Recorder;
use settings::Settings;
use spans::delivery::Delivery;
use spans::{OFF, Spans};

/// All telemetry of one gateway: the recorder, its sinks, and the threads behind them. The threads end when
/// it drops, whoever still holds the recorder: after [`Telemetry::shutdown`] with nothing left to do, without
/// it at the cost of the spans that wait.
#[derive(Debug)]
pub struct Telemetry {
    recorder: Arc<Recorder>,
    metrics: Arc<Metrics>,
    spans: Arc<Spans>,
    access_log: Option<Arc<AccessLog>>,
    errors: Option<Arc<Errors>>,
    push: Option<Push>,
    recent: Arc<Recent>,
    hour: Arc<Hour>,
}

impl Telemetry {
    /// Starts every sink that is configured, and these besides.
    pub fn start(settings: &Settings, extra: Vec<Arc<dyn Sink>>) -> Result<Self, StartError> {
        let resource = resource::attributes(settings);
        let metrics = Metrics::new(&settings.metrics);
        metrics.target_info(resource.iter().map(|(key, value)| (&**key, &**value)));

        let privacy = settings.privacy.clone();
        let spans = Arc::new(start_spans(settings, &resource, &metrics)?);

        let file = settings.access_log.file.clone();
        let place = file.as_ref().map_or("standard output".to_owned(), |file| file.display().to_string());
        let access_log = settings
            .access_log
            .enabled
            .then(|| AccessLog::start(file, privacy, metrics.line_balance()).map(Arc::new))
            .transpose()
            .map_err(|error| StartError::new(format!("the access log {place}"), error))?;

        let errors = settings.logstash.as_ref().map(|logstash| {
            let resource = resource.iter().map(|(key, value)| (&**key, &**value));
            Errors::start(logstash, resource, settings.privacy.clone(), metrics.error_balance())
                .map(Arc::new)
                .map_err(|error| StartError::new("the error records", error))
        });
        let errors = errors.transpose()?;

        let mut sinks: Vec<Arc<dyn Sink>> = vec![Arc::clone(&metrics) as _, Arc::clone(&spans) as _];
        sinks.extend(access_log.clone().map(|log| log as Arc<dyn Sink>));
        sinks.extend(errors.clone().map(|errors| errors as Arc<dyn Sink>));
        let recent = Recent::start(&settings.recent, settings.privacy.clone(), metrics.recent())
            .map_err(|error| StartError::new("recent exchanges", error))?;
        let recent = Arc::new(recent);
        sinks.push(Arc::clone(&recent) as _);
        let hour = Arc::new(Hour::new(&settings.metrics, settings.recent.routes));
        sinks.extend(extra);
        let (stream_after, privacy) = (settings.metrics.stream_after, settings.privacy.clone());
        let recorder = Recorder::new(settings.sampling.clone(), stream_after, privacy, sinks);
        let push = start_push(settings, &resource, &metrics)?;
        Ok(Self { recorder, metrics, spans, access_log, errors, push, recent, hour })
    }

    /// What operations are started with.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// The metrics: the page, and series that others count in.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The recent exchanges.
    pub fn recent(&self) -> &Arc<Recent> {
        &self.recent
    }

    /// The last hour of each route.
    pub fn hour(&self) -> &Arc<Hour> {
        &self.hour
    }

    /// Opens the access log's file anew, if it has one.
    pub fn reopen_access_log(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
    }

    /// Exports and writes what waits until the deadline, counts what is left as dropped, and says what became
    /// of everything. To be called once the last operation has dropped.
    pub async fn shutdown(&self, deadline: Instant) {
        let lines = async {
            if let Some(log) = &self.access_log {
                log.shutdown(deadline).await;
            }
        };
        let errors = async {
            if let Some(errors) = &self.errors {
                errors.shutdown(deadline).await;
            }
        };
        tokio::join!(lines, errors, self.spans.shutdown(deadline));
        // last, so that what became of the spans is in it
        if let Some(push) = &self.push {
            push.shutdown(deadline).await;
        }
        self.tell_balance();
    }

    /// The balance, for `/status`.
    pub fn status(&self) -> Status {
        let lines = self.access_log.as_ref().map(|log| log.balance());
        Status {
            spans_made: self.spans.made(),
            spans: self.spans.sums().collect(),
            access_records_written: lines.map_or(0, |lines| lines.written.get()),
            access_records_dropped: lines.map_or(0, |lines| lines.dropped.get()),
            error_records: self.errors.as_ref().map(|errors| errors.balance().sums()).unwrap_or_default(),
        }
    }

    /// The balance, and whether it adds up. What is counted right now may stand on one side only, so it is read again
    /// where it does not.
    pub fn balanced(&self) -> (Status, bool) {
        let mut status = self.status();
        for _ in 0..BALANCE_READ {
            if status.adds_up() {
                return (status, true);
            }
            std::thread::yield_now();
            status = self.status();
        }
        let adds_up = status.adds_up();
        (status, adds_up)
    }

    fn tell_balance(&self) {
        let status = self.status();
        for (receiver, sums) in &status.spans {
            let (unsampled, dropped) = (sums.all_unsampled(), sums.all_dropped());
            let SpanSums { exported, queued, .. } = *sums;
            tracing::info!(receiver, made = status.spans_made, exported, unsampled, dropped, queued, "spans");
        }
        let (written, dropped) = (status.access_records_written, status.access_records_dropped);
        tracing::info!(written, dropped, "access records");
    }
}

/// The sink of spans, with every receiver that is configured.
fn start_spans(
    settings: &Settings,
    resource: &BTreeMap<String, String>,
    metrics: &Metrics,
) -> Result<Spans, StartError> {
    let mut deliveries = Vec::new();
    if let Some(otlp) = &settings.otlp {
        let receiver = OtlpReceiver::new(otlp, resource);
        deliveries.push(start_delivery(receiver, &otlp.receiver, settings, metrics)?);
    }
    if let Some(zipkin) = &settings.zipkin {
        let receiver = ZipkinReceiver::new(zipkin, resource);
        deliveries.push(start_delivery(receiver, zipkin, settings, metrics)?);
    }
    Ok(Spans::new(metrics.spans_made(), deliveries, || metrics.span_balance(OFF)))
}

fn start_push(
    settings: &Settings,
    resource: &BTreeMap<String, String>,
    metrics: &Arc<Metrics>,
) -> Result<Option<Push>, StartError> {
    let Some((otlp, interval)) = settings.otlp.as_ref().and_then(|otlp| Some((otlp, otlp.metrics?))) else {
        return Ok(None);
    };
    let place = || format!("the push of metrics to {}", otlp.receiver.endpoint);
    let receiver =
        OtlpReceiver::of_metrics(otlp, resource).map_err(|error| StartError::new(place(), error))?;
    Push::start(metrics, receiver, interval).map(Some).map_err(|error| StartError::new(place(), error))
}

fn start_delivery(
    receiver: Result<impl Receiver + 'static, http::Error>,
    own: &settings::Receiver,
    settings: &Settings,
    metrics: &Metrics,
) -> Result<Delivery, StartError> {
    let place = || format!("the receiver of spans {}", own.endpoint);
    let receiver = receiver.map_err(|error| StartError::new(place(), error))?;
    let balance = metrics.span_balance(receiver.name());
    Delivery::start(receiver, own, settings.privacy.clone(), balance)
        .map_err(|error| StartError::new(place(), error))
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // not left to the sinks: a record that waits holds its recorder, and so the sink in whose queue it is
        self.spans.abandon();
        if let Some(log) = &self.access_log {
            log.close();
        }
        if let Some(errors) = &self.errors {
            errors.abandon();
        }
        self.recent.close();
    }
}

/// The balance of telemetry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Spans of operations and attempts that have ended, sampled or not.
    pub spans_made: u64,
    /// What became of them, for each receiver.
    pub spans: BTreeMap<&'static str, SpanSums>,
    /// Lines of the access log that were written.
    pub access_records_written: u64,
    /// Lines of the access log that were lost.
    pub access_records_dropped: u64,
    /// What became of the error records.
    pub error_records: ErrorSums,
}

impl Status {
    /// Whether every span that was made is accounted for, with each receiver.
    pub fn adds_up(&self) -> bool {
        let sum = |sums: &SpanSums| sums.exported + sums.all_unsampled() + sums.all_dropped() + sums.queued;
        self.spans.values().all(|sums| sum(sums) == self.spans_made)
    }
}

/// How often a balance is read that does not add up.
const BALANCE_READ: usize = 20;

/// What could not be started, and why.
#[derive(Debug)]
pub struct StartError {
    what: String,
    source: Box<dyn Error + Send + Sync>,
}

impl StartError {
    fn new(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: source.into() }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot start {}: {}", self.what, self.source)
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use bytes::{BufMut as _, Bytes, BytesMut};
    use http::{HeaderMap, HeaderName, Request, Response};
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::{Frame, Incoming};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message as _;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::Telemetry;
    use super::sampling::Sampling;
    use super::settings;
    use super::settings::{AccessLog, Otlp, OtlpProtocol, Privacy, Receiver, Settings};
    use super::testing::{self, Bench};
    use crate::setting::Secret;

    /// A collector for one connection, over HTTP/1.1 or gRPC, which answers `grpc-status` if that is spoken.
    async fn collector(
        grpc_status: u16,
    ) -> (String, mpsc::UnboundedReceiver<(HeaderMap, ExportTraceServiceRequest)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |request: Request<Incoming>| {
                let sender = sender.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let is_grpc = head.uri.path().ends_with("/Export");
                    let message = body.slice(if is_grpc { 5.. } else { 0.. });
                    let spans = ExportTraceServiceRequest::decode(message).unwrap();
                    let _ = sender.send((head.headers, spans));
                    let mut trailers = HeaderMap::new();
                    trailers.insert(HeaderName::from_static("grpc-status"), grpc_status.into());
                    let mut empty = BytesMut::new();
                    empty.put_bytes(0, 5);
                    let frames = if is_grpc {
                        vec![Frame::data(empty.freeze()), Frame::trailers(trailers)]
                    } else {
                        vec![Frame::data(Bytes::new())]
                    };
                    let frames = frames.into_iter().map(Ok::<_, std::convert::Infallible>);
                    let body = StreamBody::new(futures_util::stream::iter(frames));
                    let content_type = if is_grpc { "application/grpc" } else { "application/x-protobuf" };
                    Response::builder().header("content-type", content_type).body(body)
                }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
        (format!("http://{address}"), received)
    }

    fn settings(endpoint: &str, protocol: OtlpProtocol) -> Settings {
        Settings {
            service_name: "api-gateway".into(),
            resource: vec![("deployment.environment.name".into(), "test".into())],
            otlp: Some(Otlp {
                protocol,
                metrics: None,
                receiver: Receiver {
                    headers: vec![(HeaderName::from_static("x-key"), Secret::new("opensesame"))],
                    ..testing::receiver(endpoint)
                },
            }),
            zipkin: None,
            logstash: None,
            sampling: Sampling::default(),
            privacy: Privacy::default(),
            access_log: AccessLog { enabled: false, file: None },
            metrics: settings::Metrics::default(),
            recent: settings::Recent::default(),
        }
    }

    #[tokio::test]
    async fn spans_reach_a_collector_over_grpc_and_over_http() {
        for protocol in [OtlpProtocol::Grpc, OtlpProtocol::Http] {
            let (endpoint, mut received) = collector(0).await;
            let path = if protocol == OtlpProtocol::Http { "/v1/traces" } else { "" };
            let telemetry =
                Telemetry::start(&settings(&format!("{endpoint}{path}"), protocol), Vec::new()).unwrap();
            let bench = Bench::with(telemetry.recorder());
            testing::answer(bench.start("GET"), 200);
            telemetry.shutdown(Instant::now() + Duration::from_secs(10)).await;

            let (headers, message) = received.recv().await.unwrap();
            assert_eq!(headers["x-key"], "opensesame");
            let resource = message.resource_spans[0].resource.as_ref().unwrap();
            let keys: Vec<&str> = resource.attributes.iter().map(|attribute| &*attribute.key).collect();
            for key in
                ["service.name", "service.instance.id", "telemetry.sdk.name", "deployment.environment.name"]
            {
                assert!(keys.contains(&key), "{keys:?}");
            }
            let spans = &message.resource_spans[0].scope_spans[0].spans;
            assert_eq!((spans.len(), &*spans[0].name), (1, "GET"));
            let status = telemetry.status();
            assert_eq!((status.spans_made, status.spans["otlp"].exported), (1, 1), "{protocol:?}");
        }
    }

    #[tokio::test]
    async fn spans_that_a_collector_refuses_are_not_called_exported() {
        const INVALID_ARGUMENT: u16 = 3;
        let (endpoint, _received) = collector(INVALID_ARGUMENT).await;
        let telemetry = Telemetry::start(&settings(&endpoint, OtlpProtocol::Grpc), Vec::new()).unwrap();
        testing::answer(Bench::with(telemetry.recorder()).start("GET"), 200);
        telemetry.shutdown(Instant::now() + Duration::from_secs(10)).await;
        let sums = &telemetry.status().spans["otlp"];
        assert_eq!((sums.exported, sums.dropped["rejected"], sums.queued), (0, 1, 0));
    }

    #[test]
    fn its_threads_end_with_it_even_if_it_was_not_shut_down() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        // nobody is there; and the batch does not fill
        let mut settings = settings("http://127.0.0.1:1", OtlpProtocol::Grpc);
        settings.access_log = AccessLog { enabled: true, file: Some(path.clone()) };
        let telemetry = Telemetry::start(&settings, Vec::new()).unwrap();
        testing::answer(Bench::with(telemetry.recorder()).start("GET"), 200);
        assert_eq!(telemetry.status().spans["otlp"].queued, 1);
        let metrics = Arc::downgrade(telemetry.metrics());
        let page = Arc::clone(telemetry.metrics());
        drop(telemetry);
        // each thread holds what it has not written, and that its sinks
        let lost = r#"outcome="dropped",reason="shutdown"} 1"#;
        let deadline = Instant::now() + Duration::from_secs(10);
        while metrics.strong_count() > 1 || !page.render().contains(lost) {
            assert!(Instant::now() < deadline, "{} holders\n{}", metrics.strong_count(), page.render());
            std::thread::yield_now();
        }
        assert!(page.render().contains(r#"tracegate_access_records_total{outcome="written"} 1"#));
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings("", OtlpProtocol::Grpc);
        settings.otlp = None;
        settings.access_log = AccessLog { enabled: true, file: Some(directory.path().join("no/such/file")) };
        let error = Telemetry::start(&settings, Vec::new()).unwrap_err().to_string();
        assert!(error.contains("no/such/file"), "{error}");
    }
}
