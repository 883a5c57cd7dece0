//! The OTLP receiver, over gRPC and over HTTP/protobuf: <https://opentelemetry.io/docs/specs/otlp/>.
//!
//! gRPC is one unary call here: a message with five bytes before it, posted by HTTP/2, and a status in the
//! trailers (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

pub mod answer;
mod encode;
mod metrics;
mod protobuf;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use self::encode::Encoder;
pub use self::metrics::Times;
use self::protobuf::Enclosing;
use super::client::{Client, Version};
use super::{Answer, Receiver};
use crate::net::gzip::gzip;
use crate::telemetry::settings::{Otlp, OtlpProtocol};
use crate::telemetry::span::Span;

/// A receiver that speaks OTLP.
#[derive(Debug)]
pub struct OtlpReceiver {
    encoder: Encoder,
    /// The spans that wait for others, as far as they have been written.
    batch: Option<Enclosing>,
    protocol: OtlpProtocol,
    gzip: bool,
    client: Client,
}

impl OtlpReceiver {
    /// A receiver by these settings for spans of this resource. It connects when there is something to send.
    pub fn new(settings: &Otlp, resource: &BTreeMap<String, String>) -> Result<Self, http::Error> {
        Self::at(settings, resource, GRPC_PATH, None)
    }

    /// The same for metrics: beside the path of spans.
    pub fn of_metrics(settings: &Otlp, resource: &BTreeMap<String, String>) -> Result<Self, http::Error> {
        let url: Uri = settings.receiver.endpoint.parse()?;
        let base = url.path().strip_suffix("/v1/traces").unwrap_or(url.path()).trim_end_matches('/');
        let path = format!("{base}/v1/metrics").parse()?;
        Self::at(settings, resource, GRPC_METRICS_PATH, Some(path))
    }

    fn at(
        settings: &Otlp,
        resource: &BTreeMap<String, String>,
        grpc_path: &'static str,
        http_path: Option<PathAndQuery>,
    ) -> Result<Self, http::Error> {
        let mut fields = HeaderMap::new();
        let (version, path) = match settings.protocol {
            OtlpProtocol::Grpc => {
                fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                fields.insert(TE, HeaderValue::from_static("trailers"));
                (Version::Http2, Some(PathAndQuery::from_static(grpc_path)))
            }
            OtlpProtocol::Http => {
                fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
                (Version::Http1, http_path)
            }
        };
        if settings.receiver.gzip {
            let encoding = match settings.protocol {
                OtlpProtocol::Grpc => HeaderName::from_static("grpc-encoding"),
                OtlpProtocol::Http => CONTENT_ENCODING,
            };
            fields.insert(encoding, HeaderValue::from_static("gzip"));
        }
        Ok(Self {
            encoder: Encoder::new(resource),
            batch: None,
            protocol: settings.protocol,
            gzip: settings.receiver.gzip,
            client: Client::new(&settings.receiver, version, path, fields)?,
        })
    }

    /// The metrics of an OpenMetrics page, as they are sent.
    pub fn encode_metrics(&self, page: &str, times: Times) -> Bytes {
        let mut request = self.encoder.begin();
        metrics::write(request.content(), page, times);
        self.packed(self.encoder.end(request))
    }

    /// An `ExportTraceServiceRequest` that somebody has encoded, as it is sent.
    pub fn pack(&self, message: Vec<u8>) -> Bytes {
        let message = if self.gzip { gzip(&message) } else { message };
        match self.protocol {
            OtlpProtocol::Http => message.into(),
            OtlpProtocol::Grpc => [&grpc_prefix(self.gzip, message.len()), &message[..]].concat().into(),
        }
    }

    /// What has just been encoded, as it is sent.
    fn packed(&self, mut message: Enclosing) -> Bytes {
        if self.gzip {
            return self.pack(message.into_bytes().into());
        }
        if self.protocol == OtlpProtocol::Grpc {
            message.prepend(&grpc_prefix(false, message.length()));
        }
        message.into_bytes()
    }

    async fn post(&mut self, batch: Bytes) -> Answer {
        match self.client.post(batch).await {
            Err(why) => Answer::Later { wait: None, why },
            Ok(reply) => match self.protocol {
                OtlpProtocol::Grpc => answer::grpc(&reply),
                OtlpProtocol::Http => answer::http(&reply),
            },
        }
    }
}

impl Receiver for OtlpReceiver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&mut self, spans: &mut dyn Iterator<Item = Span<'_>>) {
        let batch = self.batch.get_or_insert_with(|| self.encoder.begin());
        spans.for_each(|span| encode::add(batch.content(), &span));
    }

    fn batch(&mut self) -> Bytes {
        let batch = self.batch.take().unwrap_or_else(|| self.encoder.begin());
        self.packed(self.encoder.end(batch))
    }

    fn send(&mut self, batch: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(self.post(batch))
    }
}

/// What stands before a message of this length in gRPC.
fn grpc_prefix(compressed: bool, length: usize) -> [u8; 5] {
    let [a, b, c, d] = u32::try_from(length).expect("a batch has less than 4 GiB").to_be_bytes();
    [u8::from(compressed), a, b, c, d]
}

/// The word for this receiver in labels and logs.
pub const NAME: &str = "otlp";

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const GRPC_METRICS_PATH: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::service::TowerToHyperService;
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
        TraceService, TraceServiceServer,
    };
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    };
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tonic::codec::CompressionEncoding;
    use tonic::{Code, Status, async_trait};

    use super::OtlpReceiver;
    use crate::telemetry::receivers::{Answer, Receiver as _};
    use crate::telemetry::settings::{Otlp, OtlpProtocol, Receiver};
    use crate::telemetry::testing;

    type Result = std::result::Result<ExportTraceServiceResponse, Status>;

    /// A service as gRPC's own library for Rust has it.
    struct Service {
        answer: Box<dyn Fn() -> Result + Send + Sync>,
        received: mpsc::UnboundedSender<ExportTraceServiceRequest>,
    }

    #[async_trait]
    impl TraceService for Service {
        async fn export(
            &self,
            request: tonic::Request<ExportTraceServiceRequest>,
        ) -> std::result::Result<tonic::Response<ExportTraceServiceResponse>, Status> {
            let _ = self.received.send(request.into_inner());
            (self.answer)().map(tonic::Response::new)
        }
    }

    /// What the receiver makes of this answer to the same batch twice, plain and compressed.
    async fn exchange(answer: impl Fn() -> Result + Send + Sync + 'static) -> Answer {
        let (sender, mut requests) = mpsc::unbounded_channel();
        let service =
            TraceServiceServer::from_arc(Arc::new(Service { answer: Box::new(answer), received: sender }))
                .accept_compressed(CompressionEncoding::Gzip);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let service = TowerToHyperService::new(service.clone());
                tokio::spawn(async move {
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        let mut answers = Vec::new();
        for gzip in [false, true] {
            let receiver = Receiver { gzip, ..testing::receiver(&endpoint) };
            let settings = Otlp { protocol: OtlpProtocol::Grpc, receiver, metrics: None };
            let mut receiver = OtlpReceiver::new(&settings, &BTreeMap::new()).unwrap();
            let batch = receiver.batch();
            for _ in 0..2 {
                answers.push(receiver.send(batch.clone()).await);
                assert_eq!(requests.recv().await.unwrap().resource_spans[0].scope_spans.len(), 1);
            }
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    #[tokio::test]
    async fn a_server_of_another_make_is_understood() {
        let accepted = exchange(|| Ok(ExportTraceServiceResponse::default())).await;
        assert_eq!(accepted, Answer::Accepted);
        let partial = exchange(|| {
            let partial =
                ExportTracePartialSuccess { rejected_spans: 3, error_message: "too old".to_owned() };
            Ok(ExportTraceServiceResponse { partial_success: Some(partial) })
        });
        assert_eq!(partial.await, Answer::Partly { rejected: 3, why: "too old".to_owned() });
        let refused = exchange(|| Err(Status::invalid_argument("no such tenant: ü")));
        assert_eq!(refused.await, Answer::Refused("INVALID_ARGUMENT: no such tenant: ü".to_owned()));
    }

    #[tokio::test]
    async fn the_wait_that_a_server_of_another_make_asks_for_is_understood() {
        // google.rpc.Status with a RetryInfo of five seconds
        let delay = [0x0a, 2, 0x08, 5];
        let mut details = vec![0x1a, 46, 0x0a, 40];
        details.extend(b"type.googleapis.com/google.rpc.RetryInfo");
        details.extend([0x12, 4]);
        details.extend(delay);
        details[1] = u8::try_from(details.len() - 2).unwrap();
        let exhausted = exchange(move || {
            Err(Status::with_details(Code::ResourceExhausted, "later", details.clone().into()))
        });
        let wait = Some(Duration::from_secs(5));
        assert_eq!(exhausted.await, Answer::Later { wait, why: "RESOURCE_EXHAUSTED: later".to_owned() });
    }
}
