//! What an embedded service needs to be seen in a trace: spans with the caller's context, sent by OTLP/HTTP.
//!
//! It stands for the OpenTelemetry SDK of a real service, and is as small as the demo allows.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::Full;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::otlp::{
    AnyValue, ExportTraceServiceRequest, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, SpanKind,
    Status, StatusCode, Value,
};
use crate::net::once;
use crate::telemetry::context::{Context, Flags, SpanId, TraceId, traceparent};

/// Starts spans of one service.
#[derive(Debug, Clone)]
pub(super) struct Tracer {
    finished: mpsc::Sender<Span>,
}

/// A span that goes on; it ends, and is sent, when it drops.
#[derive(Debug)]
pub(super) struct ActiveSpan {
    tracer: Tracer,
    trace_id: TraceId,
    id: SpanId,
    span: Span,
    started: Instant,
    /// Whether the end was seen; a span that drops before was cut off.
    ended: bool,
}

impl Tracer {
    /// A tracer for this service. The task ends when the tracer, its clones and its spans are gone and the
    /// last span has been sent.
    pub(super) fn start(service: &'static str, collector: SocketAddr) -> (Self, JoinHandle<()>) {
        let (finished, spans) = mpsc::channel(QUEUE);
        (Self { finished }, tokio::spawn(export(service, collector, spans)))
    }

    /// The span of a request that this service got, under the caller's.
    pub(super) fn server(&self, headers: &HeaderMap, name: &str) -> ActiveSpan {
        let values = |name| headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
        let context = Context::from_headers(values("traceparent"), values("tracestate"));
        let parent = context.parent.map(|parent| parent.span_id);
        self.span(context.trace_id, parent, SpanKind::Server, name)
    }

    fn span(&self, trace_id: TraceId, parent: Option<SpanId>, kind: SpanKind, name: &str) -> ActiveSpan {
        let id = SpanId::random();
        let span = Span {
            trace_id: trace_id.0.to_vec(),
            span_id: id.0.to_vec(),
            parent_span_id: parent.map(|parent| parent.0.to_vec()).unwrap_or_default(),
            name: name.to_owned(),
            kind: kind.into(),
            start_time_unix_nano: nanoseconds(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()),
            ..Span::default()
        };
        ActiveSpan { tracer: self.clone(), trace_id, id, span, started: Instant::now(), ended: false }
    }
}

impl ActiveSpan {
    /// A span under this one.
    pub(super) fn child(&self, kind: SpanKind, name: &str) -> Self {
        self.tracer.span(self.trace_id, Some(self.id), kind, name)
    }

    /// The value of `traceparent` that makes the called service's span stand under this one.
    pub(super) fn traceparent(&self) -> String {
        let flags = Flags(Flags::RANDOM).with_sampled(true);
        String::from_utf8_lossy(&traceparent::write(self.trace_id, self.id, flags)).into_owned()
    }

    /// Gives the span its final name, once it is known.
    pub(super) fn rename(&mut self, name: String) {
        self.span.name = name;
    }

    /// States an attribute.
    pub(super) fn set(&mut self, key: &str, value: &str) {
        self.push(key, Value::String(value.to_owned()));
    }

    /// States an attribute that is a number.
    pub(super) fn set_number(&mut self, key: &str, value: impl Into<i64>) {
        self.push(key, Value::Int(value.into()));
    }

    /// Ends the span: it did what it should.
    pub(super) fn end(mut self) {
        self.ended = true;
    }

    /// Ends the span as failed, with the value of `error.type`.
    pub(super) fn fail(mut self, error_type: &str) {
        self.ended = true;
        self.failed(error_type);
    }

    fn failed(&mut self, error_type: &str) {
        self.set("error.type", error_type);
        self.span.status = Some(Status { code: StatusCode::Error.into() });
    }

    fn push(&mut self, key: &str, value: Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.span.attributes.push(KeyValue { key: key.to_owned(), value });
    }
}

impl Drop for ActiveSpan {
    fn drop(&mut self) {
        if !self.ended {
            self.failed("cancelled");
        }
        let mut span = std::mem::take(&mut self.span);
        span.end_time_unix_nano =
            span.start_time_unix_nano.saturating_add(nanoseconds(self.started.elapsed()));
        // a full queue loses the span, and the balance at the end tells
        let _ = self.tracer.finished.try_send(span);
    }
}

async fn export(service: &'static str, collector: SocketAddr, mut finished: mpsc::Receiver<Span>) {
    let mut spans = Vec::new();
    while finished.recv_many(&mut spans, BATCH).await > 0 {
        let name = Value::String(service.to_owned());
        let name = AnyValue { value: Some(name) };
        let attributes = vec![KeyValue { key: "service.name".into(), value: Some(name) }];
        let batch = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource { attributes }),
                scope_spans: vec![ScopeSpans { spans: std::mem::take(&mut spans) }],
            }],
        };
        let request = Request::post("/v1/traces").header(CONTENT_TYPE, "application/x-protobuf");
        let request = request.body(Full::from(batch.encode_to_vec())).expect("the head is fixed and valid");
        if let Err(error) = once::send(collector, request, TIMEOUT).await {
            tracing::warn!(service, %error, "spans were lost");
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Finished spans that wait to be sent.
const QUEUE: usize = 4096;
/// Spans of one export.
const BATCH: usize = 512;
/// For one export.
const TIMEOUT: Duration = Duration::from_secs(5);
