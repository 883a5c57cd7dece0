//! A span as the collector received it: what the tree and the balance read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::otlp::{self, AnyValue, ExportTraceServiceRequest, KeyValue, SpanKind, StatusCode, Value};
use crate::telemetry::context::{SpanId, TraceId};

/// One received span.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) service: Arc<str>,
    pub(super) trace_id: TraceId,
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Nanoseconds since 1970.
    pub(super) start: u64,
    /// Nanoseconds since 1970.
    pub(super) end: u64,
    /// Whether its status is Error.
    pub(super) error: bool,
    pub(super) attributes: BTreeMap<String, String>,
}

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Server,
    Client,
    Internal,
}

impl Kind {
    /// The word in the tree.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Server => "SERVER",
            Self::Client => "CLIENT",
            Self::Internal => "INTERNAL",
        }
    }
}

impl Span {
    /// The value of an attribute.
    pub(super) fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.get(key).map(String::as_str)
    }

    /// From start to end.
    pub(super) fn duration(&self) -> Duration {
        Duration::from_nanos(self.end.saturating_sub(self.start))
    }

    /// The spans of an export. Those without valid ids are none (OTLP: receivers ignore them).
    pub(super) fn received(export: ExportTraceServiceRequest) -> Vec<Self> {
        let mut spans = Vec::new();
        for from_resource in export.resource_spans {
            let resource = from_resource.resource.map(|resource| attributes(resource.attributes));
            let service = resource.and_then(|mut resource| resource.remove("service.name"));
            let service: Arc<str> = service.unwrap_or_else(|| "unknown_service".into()).into();
            let sent = from_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(sent.filter_map(|span| Self::new(&service, span)));
        }
        spans
    }

    fn new(service: &Arc<str>, span: otlp::Span) -> Option<Self> {
        let kind = match span.kind() {
            SpanKind::Server | SpanKind::Consumer => Kind::Server,
            SpanKind::Client | SpanKind::Producer => Kind::Client,
            SpanKind::Internal | SpanKind::Unspecified => Kind::Internal,
        };
        let parent = match &span.parent_span_id[..] {
            [] => None,
            id => Some(SpanId(id.try_into().ok()?)).filter(|id| id.0 != [0; 8]),
        };
        Some(Self {
            service: Arc::clone(service),
            trace_id: Some(TraceId(span.trace_id.try_into().ok()?)).filter(|id| id.0 != [0; 16])?,
            id: Some(SpanId(span.span_id.try_into().ok()?)).filter(|id| id.0 != [0; 8])?,
            parent,
            name: span.name,
            kind,
            start: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            error: span.status.is_some_and(|status| status.code() == StatusCode::Error),
            attributes: attributes(span.attributes),
        })
    }
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs.into_iter().filter_map(|pair| Some((pair.key, text(pair.value?)?))).collect()
}

fn text(value: AnyValue) -> Option<String> {
    match value.value? {
        Value::String(text) => Some(text),
        Value::Int(number) => Some(number.to_string()),
        Value::Double(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
    }
}
