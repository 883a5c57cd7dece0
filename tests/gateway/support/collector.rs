//! A receiver of spans in process: OTLP over gRPC and over HTTP/protobuf, and Zipkin's JSON, on one port. It
//! can be away, silent, slow and choosy.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1 as proto;
use prost::Message;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::body::{self, Body};
use super::{own_ip, within};

/// What the collector makes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Takes it.
    Accept,
    /// Takes it and never says so.
    Stall,
    /// Takes it and says so this much later.
    Slow(Duration),
    /// Answers that it is unavailable for now.
    Unavailable,
    /// Answers that it has too much to do, and when to come again, in whole seconds.
    Busy(Duration),
    /// Answers that it is not to be sent again.
    Refuse,
    /// Takes it, but says that so many spans were rejected. Zipkin has no word for that.
    Partial(i64),
}

/// How spans are sent to a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP by gRPC.
    Grpc,
    /// OTLP by HTTP/protobuf.
    Http,
    /// Zipkin's JSON v2.
    Zipkin,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::Grpc, Self::Http, Self::Zipkin];

    /// What the gateway calls such a receiver.
    pub fn receiver(self) -> &'static str {
        if self == Self::Zipkin { "zipkin" } else { "otlp" }
    }
}

/// A collector. It ends when it drops.
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    tls: Option<TlsAcceptor>,
    task: JoinHandle<()>,
}

struct State {
    mode: watch::Sender<Mode>,
    spans: watch::Sender<Vec<Span>>,
    zipkin: watch::Sender<Vec<Value>>,
    batches: watch::Sender<Vec<Batch>>,
    metrics: watch::Sender<Vec<Metric>>,
    accepted: AtomicU64,
}

/// One export.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The header of the request.
    pub headers: HeaderMap,
    /// How it came.
    pub protocol: Protocol,
    /// When it had come.
    pub at: Instant,
}

impl Collector {
    /// A collector that accepts.
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    /// The same by TLS.
    pub async fn start_tls(config: Arc<rustls::ServerConfig>) -> Self {
        Self::listen(Some(config.into())).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((own_ip(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            mode: watch::Sender::new(Mode::Accept),
            spans: watch::Sender::new(Vec::new()),
            zipkin: watch::Sender::new(Vec::new()),
            batches: watch::Sender::new(Vec::new()),
            metrics: watch::Sender::new(Vec::new()),
            accepted: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(listener, tls.clone(), Arc::clone(&state)));
        Self { address, state, tls, task }
    }

    /// The table that makes it a gateway's receiver.
    pub fn table(&self, protocol: Protocol) -> String {
        let (address, scheme) = (self.address, if self.tls.is_some() { "https" } else { "http" });
        match protocol {
            Protocol::Grpc => {
                format!("[telemetry.otlp]\nendpoint = '{scheme}://{address}'\nprotocol = 'grpc'\n")
            }
            Protocol::Http => {
                format!("[telemetry.otlp]\nendpoint = '{scheme}://{address}'\nprotocol = 'http/protobuf'\n")
            }
            Protocol::Zipkin => format!("[telemetry.zipkin]\nendpoint = '{scheme}://{address}'\n"),
        }
    }

    /// `[telemetry.otlp]` towards this collector by gRPC.
    pub fn grpc(&self) -> String {
        self.table(Protocol::Grpc)
    }

    /// `[telemetry.otlp]` towards this collector by HTTP/protobuf.
    pub fn http(&self) -> String {
        self.table(Protocol::Http)
    }

    /// Behaves so from now on; batches that are being stalled go on.
    pub fn mode(&self, mode: Mode) {
        self.state.mode.send_replace(mode);
    }

    /// Closes every connection and listens no more.
    pub async fn kill(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Listens again where it did.
    pub async fn revive(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.task = tokio::spawn(accept(listener, self.tls.clone(), Arc::clone(&self.state)));
    }

    /// All spans of OTLP so far.
    pub fn spans(&self) -> Vec<Span> {
        self.state.spans.borrow().clone()
    }

    /// Begins anew with the spans.
    pub fn forget(&self) {
        self.state.spans.send_modify(Vec::clear);
    }

    /// How many spans it has said that it took.
    pub fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::Relaxed)
    }

    /// All batches so far.
    pub fn batches(&self) -> Vec<Batch> {
        self.state.batches.borrow().clone()
    }

    /// The metrics that were pushed last, once they satisfy this.
    pub async fn metrics_when(&self, what: &str, satisfied: impl Fn(&[Metric]) -> bool) -> Vec<Metric> {
        let mut metrics = self.state.metrics.subscribe();
        within(what, metrics.wait_for(|metrics| satisfied(metrics))).await.unwrap().clone()
    }

    /// All spans of OTLP, once there are this many.
    pub async fn wait_for_spans(&self, count: usize) -> Vec<Span> {
        let mut spans = self.state.spans.subscribe();
        let what = format!("{count} spans at the collector");
        within(&what, spans.wait_for(|spans| spans.len() >= count)).await.unwrap().clone()
    }

    /// All spans of Zipkin, once there are this many.
    pub async fn wait_for_zipkin(&self, count: usize) -> Vec<Value> {
        let mut spans = self.state.zipkin.subscribe();
        let what = format!("{count} spans of Zipkin");
        within(&what, spans.wait_for(|spans| spans.len() >= count)).await.unwrap().clone()
    }

    /// The spans of one trace, once there are this many, in the order of their start, parents first.
    pub async fn trace(&self, trace_id: &str, count: usize) -> Vec<Span> {
        let of_trace = |spans: &[Span]| -> Vec<Span> {
            spans.iter().filter(|span| span.trace_id == trace_id).cloned().collect()
        };
        let mut spans = self.state.spans.subscribe();
        let what = format!("{count} spans of trace {trace_id}");
        let found = within(&what, spans.wait_for(|spans| of_trace(spans).len() >= count)).await.unwrap();
        let mut found = of_trace(&found);
        found.sort_by_key(|span| (span.start, span.kind != Kind::Server));
        found
    }

    /// Comes back when this many batches have come.
    pub async fn wait_for_batches(&self, count: usize) {
        let mut batches = self.state.batches.subscribe();
        within("a batch", batches.wait_for(|batches| batches.len() >= count)).await.unwrap();
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A span's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An exchange with a client.
    Server,
    /// An attempt at an endpoint.
    Client,
    /// Anything else.
    Other,
}

/// A span as received; ids in hex, attribute values as text.
#[derive(Debug, Clone)]
pub struct Span {
    /// The name.
    pub name: String,
    /// The kind.
    pub kind: Kind,
    /// The trace.
    pub trace_id: String,
    /// The span.
    pub id: String,
    /// Its parent, empty for none.
    pub parent: String,
    /// The trace's `tracestate`.
    pub trace_state: String,
    /// The trace and the span of each link.
    pub links: Vec<(String, String)>,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// Whether the status is Error.
    pub error: bool,
    /// The attributes.
    pub attributes: BTreeMap<String, String>,
    /// The attributes of the resource.
    pub resource: Arc<BTreeMap<String, String>>,
}

impl Span {
    /// An attribute's value.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.get(key).map(String::as_str)
    }

    fn new(span: proto::Span, resource: &Arc<BTreeMap<String, String>>) -> Self {
        let kind = match span.kind() {
            proto::span::SpanKind::Server => Kind::Server,
            proto::span::SpanKind::Client => Kind::Client,
            _ => Kind::Other,
        };
        let error = span.status.as_ref().is_some_and(|s| s.code() == proto::status::StatusCode::Error);
        Self {
            kind,
            error,
            trace_id: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            start: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            name: span.name,
            trace_state: span.trace_state,
            links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
            attributes: attributes(span.attributes),
            resource: Arc::clone(resource),
        }
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        connections.spawn(async move {
            let service = service_fn(move |request| receive(Arc::clone(&state), request));
            let builder = auto::Builder::new(TokioExecutor::new());
            // an exporter may leave in the middle of anything
            match tls {
                None => drop(builder.serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    drop(builder.serve_connection(TokioIo::new(stream), service).await);
                }
            }
        });
    }
}

const GRPC_METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const HTTP_METRICS: &str = "/v1/metrics";

async fn receive(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path();
    let protocol = match path {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" | GRPC_METRICS => Protocol::Grpc,
        "/v1/traces" | HTTP_METRICS => Protocol::Http,
        "/api/v2/spans" => Protocol::Zipkin,
        _ => return Ok(answer(404, body::empty())),
    };
    let Ok(bytes) = incoming.collect().await.map(http_body_util::Collected::to_bytes) else {
        return Ok(answer(400, body::empty()));
    };
    let message = message(protocol, &parts.headers, &bytes);
    if matches!(path, GRPC_METRICS | HTTP_METRICS) {
        let metrics = ExportMetricsServiceRequest::decode(&message[..]).expect("OTLP").resource_metrics;
        let metrics = metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        state.metrics.send_replace(metrics.flat_map(|scope| scope.metrics).collect());
        return Ok(accepted(protocol, Mode::Accept));
    }
    let mode = *state.mode.borrow();
    if !matches!(mode, Mode::Unavailable | Mode::Busy(_) | Mode::Refuse) {
        let count = state.keep(protocol, &message);
        match mode {
            Mode::Stall => {
                state.batch(parts.headers, protocol);
                let _ = state.mode.subscribe().wait_for(|mode| *mode != Mode::Stall).await;
                state.accepted.fetch_add(count, Ordering::Relaxed);
                return Ok(accepted(protocol, Mode::Accept));
            }
            Mode::Slow(wait) => tokio::time::sleep(wait).await,
            _ => {}
        }
        let rejected = match mode {
            Mode::Partial(rejected) if protocol != Protocol::Zipkin => rejected.unsigned_abs(),
            _ => 0,
        };
        state.accepted.fetch_add(count - rejected.min(count), Ordering::Relaxed);
    }
    state.batch(parts.headers, protocol);
    Ok(match mode {
        Mode::Unavailable => refused(protocol, 503, None),
        Mode::Busy(wait) => refused(protocol, 429, Some(wait)),
        Mode::Refuse => refused(protocol, 400, None),
        mode => accepted(protocol, mode),
    })
}

impl State {
    /// Keeps the spans of a message, and says how many there are.
    fn keep(&self, protocol: Protocol, message: &[u8]) -> u64 {
        if protocol == Protocol::Zipkin {
            let spans: Vec<Value> = serde_json::from_slice(message).expect("JSON of Zipkin");
            let count = spans.len() as u64;
            self.zipkin.send_modify(|all| all.extend(spans));
            return count;
        }
        let spans = spans(ExportTraceServiceRequest::decode(message).expect("OTLP"));
        let count = spans.len() as u64;
        self.spans.send_modify(|all| all.extend(spans));
        count
    }

    fn batch(&self, headers: HeaderMap, protocol: Protocol) {
        self.batches.send_modify(|all| all.push(Batch { headers, protocol, at: Instant::now() }));
    }
}

/// The message of a request, without what the protocol puts around it.
fn message(protocol: Protocol, headers: &HeaderMap, body: &Bytes) -> Vec<u8> {
    let name = if protocol == Protocol::Grpc { "grpc-encoding" } else { "content-encoding" };
    let compressed = headers.get(name).is_some_and(|encoding| encoding == "gzip");
    let message = if protocol == Protocol::Grpc {
        let (prefix, message) = body.split_first_chunk::<5>().expect("a message of gRPC");
        let [flag, length @ ..] = *prefix;
        assert_eq!((flag, u32::from_be_bytes(length) as usize), (u8::from(compressed), message.len()));
        message
    } else {
        &body[..]
    };
    let mut plain = Vec::new();
    if compressed {
        GzDecoder::new(message).read_to_end(&mut plain).expect("gzip");
    } else {
        plain.extend_from_slice(message);
    }
    plain
}

fn accepted(protocol: Protocol, mode: Mode) -> Response<Body> {
    let partial_success = match mode {
        Mode::Partial(rejected_spans) => {
            Some(ExportTracePartialSuccess { rejected_spans, error_message: "too many".to_owned() })
        }
        _ => None,
    };
    let message = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    match protocol {
        Protocol::Grpc => grpc_answer(&message),
        Protocol::Http => protobuf(answer(200, body::full(message))),
        Protocol::Zipkin => answer(202, body::empty()),
    }
}

/// The answer of this status, or its like in gRPC.
fn refused(protocol: Protocol, status: u16, wait: Option<Duration>) -> Response<Body> {
    if protocol != Protocol::Grpc {
        let mut response = answer(status, body::empty());
        if let Some(wait) = wait {
            response.headers_mut().insert("retry-after", wait.as_secs().into());
        }
        return response;
    }
    let mut response = trailers_only(match status {
        400 => "3",
        429 => "8",
        _ => "14",
    });
    if let Some(wait) = wait {
        response.headers_mut().insert("grpc-status-details-bin", retry_info(wait));
    }
    response
}

/// A `google.rpc.Status` with a `RetryInfo`, as gRPC sends it.
fn retry_info(wait: Duration) -> HeaderValue {
    let seconds = u8::try_from(wait.as_secs()).expect("a short wait");
    assert!(seconds < 128, "a short wait");
    let type_url = b"type.googleapis.com/google.rpc.RetryInfo";
    let mut any = vec![0x0a, 40];
    any.extend(type_url);
    any.extend([0x12, 4, 0x0a, 2, 0x08, seconds]);
    let status = [vec![0x1a, u8::try_from(any.len()).expect("a short message")], any].concat();
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(status).parse().expect("base64")
}

fn spans(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut all = Vec::new();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.map(|resource| attributes(resource.attributes));
        let resource = Arc::new(resource.unwrap_or_default());
        let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        all.extend(spans.map(|span| Span::new(span, &resource)));
    }
    all
}

fn attributes(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes.into_iter().map(|entry| (entry.key, text(entry.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]));
    bytes.iter().flat_map(digits).collect()
}

fn answer(status: u16, body: Body) -> Response<Body> {
    Response::builder().status(status).body(body).expect("a plain answer")
}

fn protobuf(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/x-protobuf"));
    response
}

fn trailers_only(status: &'static str) -> Response<Body> {
    let mut response = answer(200, body::empty());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response.headers_mut().insert("grpc-status", HeaderValue::from_static(status));
    response
}

fn grpc_answer(message: &[u8]) -> Response<Body> {
    let mut data = BytesMut::new();
    data.put_u8(0);
    data.put_u32(u32::try_from(message.len()).expect("a short message"));
    data.put_slice(message);
    let trailers =
        HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
    let frames = vec![Frame::data(Bytes::from(data)), Frame::trailers(trailers)];
    let mut response = answer(200, body::frames(frames));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}
