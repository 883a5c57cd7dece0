//! An OpenTelemetry collector in process: OTLP over gRPC and over HTTP/protobuf on one port.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as proto;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::body::{self, Body};
use super::{own_ip, within};

/// What the collector makes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Takes it.
    Accept,
    /// Takes it and never says so.
    Stall,
    /// Answers that it is unavailable for now.
    Unavailable,
    /// Takes it, but says that so many spans were rejected.
    Partial(i64),
}

/// A collector. It ends when it drops.
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    mode: watch::Sender<Mode>,
    spans: watch::Sender<Vec<Span>>,
    batches: watch::Sender<Vec<Batch>>,
}

/// One export.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The header of the request.
    pub headers: HeaderMap,
    /// Whether it came by gRPC.
    pub grpc: bool,
}

impl Collector {
    /// A collector that accepts.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((own_ip(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            mode: watch::Sender::new(Mode::Accept),
            spans: watch::Sender::new(Vec::new()),
            batches: watch::Sender::new(Vec::new()),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// `[telemetry.otlp]` towards this collector by gRPC.
    pub fn grpc(&self) -> String {
        format!("[telemetry.otlp]\nendpoint = 'http://{}'\nprotocol = 'grpc'\n", self.address)
    }

    /// `[telemetry.otlp]` towards this collector by HTTP/protobuf.
    pub fn http(&self) -> String {
        format!("[telemetry.otlp]\nendpoint = 'http://{}'\nprotocol = 'http/protobuf'\n", self.address)
    }

    /// Behaves so from now on; batches that are being stalled go on.
    pub fn mode(&self, mode: Mode) {
        self.state.mode.send_replace(mode);
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.state.spans.borrow().clone()
    }

    /// Begins anew with the spans.
    pub fn forget(&self) {
        self.state.spans.send_modify(Vec::clear);
    }

    /// All batches so far.
    pub fn batches(&self) -> Vec<Batch> {
        self.state.batches.borrow().clone()
    }

    /// All spans, once there are this many.
    pub async fn wait_for_spans(&self, count: usize) -> Vec<Span> {
        let mut spans = self.state.spans.subscribe();
        let what = format!("{count} spans at the collector");
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

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| receive(Arc::clone(&state), request));
            let builder = auto::Builder::new(TokioExecutor::new());
            // an exporter may leave in the middle of anything
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn receive(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, incoming) = request.into_parts();
    let grpc = match parts.uri.path() {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => true,
        "/v1/traces" => false,
        _ => return Ok(answer(404, body::empty())),
    };
    let Ok(bytes) = incoming.collect().await.map(http_body_util::Collected::to_bytes) else {
        return Ok(answer(400, body::empty()));
    };
    let compressed = parts.headers.get("grpc-encoding").or_else(|| parts.headers.get("content-encoding"));
    assert!(
        compressed.is_none_or(|encoding| encoding == "identity"),
        "this collector reads no {compressed:?}"
    );
    let message = if grpc { bytes.slice(5..) } else { bytes };
    let mode = *state.mode.borrow();
    if mode == Mode::Unavailable {
        state.batches.send_modify(|all| all.push(Batch { headers: parts.headers, grpc }));
        return Ok(if grpc { trailers_only("14") } else { answer(503, body::empty()) });
    }
    let spans = spans(ExportTraceServiceRequest::decode(message).expect("OTLP"));
    state.batches.send_modify(|all| all.push(Batch { headers: parts.headers, grpc }));
    state.spans.send_modify(|all| all.extend(spans));
    let _ = state.mode.subscribe().wait_for(|mode| *mode != Mode::Stall).await;
    let partial_success = match mode {
        Mode::Partial(rejected_spans) => {
            Some(ExportTracePartialSuccess { rejected_spans, error_message: "too many".to_owned() })
        }
        _ => None,
    };
    let message = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    Ok(if grpc { grpc_answer(&message) } else { protobuf(answer(200, body::full(message))) })
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
