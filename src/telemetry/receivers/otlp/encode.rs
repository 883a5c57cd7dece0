//! Spans as OTLP has them in protobuf, written straight into the bytes of one export: what a library would
//! first build as messages costs many times as much.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::protobuf::{Enclosing, Field, MOST_OF_A_FIELD, Writer};
use crate::telemetry::context::Link;
use crate::telemetry::span::{Kind, Span, Value};

/// Writes exports of one resource.
#[derive(Debug)]
pub(super) struct Encoder {
    /// The fields of `ResourceSpans` before its spans' scope.
    resource: Vec<u8>,
    /// The fields of `ScopeSpans` before its spans.
    scope: Vec<u8>,
    /// How long the last request was: the next one will be about as long.
    length: AtomicUsize,
}

impl Encoder {
    /// An encoder for spans of this resource.
    pub(super) fn new(resource: &BTreeMap<String, String>) -> Self {
        let (mut of_resource, mut of_scope) = (Writer::default(), Writer::default());
        of_resource.message(1, |message| {
            for (key, value) in resource {
                attribute(message, 1, key, &value.as_str().into());
            }
        });
        of_scope.message(1, |message| {
            message.text(1, "tracegate");
            message.text(2, env!("CARGO_PKG_VERSION"));
        });
        let (resource, scope) = (of_resource.into_bytes(), of_scope.into_bytes());
        Self { resource, scope, length: AtomicUsize::new(0) }
    }

    /// A request, of which what goes into the scope is to be written: those for spans and for metrics are alike. There
    /// is room before it for [`ROOM`] bytes more.
    pub(super) fn begin(&self) -> Enclosing {
        let room = ROOM + 2 * MOST_OF_A_FIELD + self.resource.len() + self.scope.len();
        let last = self.length.load(Ordering::Relaxed);
        Enclosing::new(room, last + last / 8)
    }

    /// All of the request, when what goes into the scope has been written.
    pub(super) fn end(&self, mut request: Enclosing) -> Enclosing {
        request.prepend(&self.scope);
        request.enclose(2);
        request.prepend(&self.resource);
        request.enclose(1);
        self.length.store(request.length(), Ordering::Relaxed);
        request
    }
}

/// Writes a span into its scope.
pub(super) fn add(of_scope: &mut Writer, span: &Span<'_>) {
    of_scope.message(2, |message| write(message, span));
}

fn write(message: &mut Writer, span: &Span<'_>) {
    message.bytes(1, &span.trace_id.0);
    message.bytes(2, &span.id.0);
    message.text(3, &span.state);
    if let Some(parent) = span.parent {
        message.bytes(4, &parent.0);
    }
    if !span.name.is_empty() {
        message.texts(5, span.name.texts());
    }
    message.unsigned(
        6,
        match span.kind {
            Kind::Internal => 1,
            Kind::Server => 2,
            Kind::Client => 3,
        },
    );
    message.fixed64(7, span.start);
    message.fixed64(8, span.end);
    for (key, value) in &span.attributes {
        attribute(message, 9, key, value);
    }
    for link in &span.links {
        message.message(13, |message| write_link(message, link));
    }
    message.message(15, |status| {
        if span.error {
            status.unsigned(3, STATUS_CODE_ERROR);
        }
    });
    let remote = if span.parent_is_remote { FLAGS_REMOTE_KNOWN | FLAGS_REMOTE } else { FLAGS_REMOTE_KNOWN };
    message.fixed32(16, u32::from(span.flags.0) | remote);
}

fn write_link(message: &mut Writer, link: &Link) {
    message.bytes(1, &link.trace_id.0);
    message.bytes(2, &link.span_id.0);
    message.fixed32(6, u32::from(link.flags.0) | FLAGS_REMOTE_KNOWN | FLAGS_REMOTE);
}

pub(super) fn attribute(message: &mut Writer, field: u32, key: &str, value: &Value<'_>) {
    // one of several: written even if it is empty or zero
    let mut write = |any| message.entry(field, key, any);
    match value {
        Value::Text(text) => write(Field::Texts(1, &[text.as_ref()])),
        Value::Joined(joined) => write(Field::Texts(1, joined.texts())),
        Value::Integer(number) => write(Field::Signed(3, *number)),
        Value::Double(number) => write(Field::Fixed64(4, number.to_bits())),
    }
}

/// Room before a request for what its protocol puts there.
pub(super) const ROOM: usize = 8;

const STATUS_CODE_ERROR: u64 = 2;
/// It is said whether the parent, or the linked span, is another process's.
const FLAGS_REMOTE_KNOWN: u32 = 0x100;
/// It is another process's.
const FLAGS_REMOTE: u32 = 0x200;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, OnceLock};
    use std::time::{Duration, SystemTime};

    use async_trait::async_trait;
    use bytes::Bytes;
    use http::{Request, Response};
    use opentelemetry::trace::{
        Link as SdkLink, SpanContext, SpanId as SdkSpanId, SpanKind, Status, TraceFlags,
        TraceId as SdkTraceId, TraceState,
    };
    use opentelemetry::{InstrumentationScope, KeyValue};
    use opentelemetry_http::{HttpClient, HttpError};
    use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
    use prost::Message as _;

    use super::Encoder;
    use crate::telemetry::context::Link;
    use crate::telemetry::context::{Flags, SpanId, TraceId};
    use crate::telemetry::span::{Joined, Kind, Span, Value};

    fn ours() -> [Span<'static>; 2] {
        let server = Span {
            trace_id: TraceId([0xab; 16]),
            id: SpanId([1; 8]),
            parent: Some(SpanId([2; 8])),
            parent_is_remote: true,
            flags: Flags(3),
            state: "ot=th:8".into(),
            kind: Kind::Server,
            name: "GET /shop/orders/{order_id}".into(),
            start: 1_700_000_000_000_000_001,
            end: 1_700_000_000_000_000_500,
            attributes: vec![
                ("http.route", "/shop/orders/{order_id}".into()),
                ("url.full", Joined::from(["http://127.0.0.1:9001", "/orders"]).into()),
                ("empty", "".into()),
                ("long", "x".repeat(20_000).into()),
                ("zero", Value::Integer(0)),
                ("negative", Value::Integer(-1)),
                ("http.response.status_code", 200_u16.into()),
                ("tracegate.wait_ms", 0.25.into()),
            ],
            links: vec![Link { trace_id: TraceId([9; 16]), span_id: SpanId([8; 8]), flags: Flags(1) }],
            error: false,
        };
        let client = Span {
            id: SpanId([3; 8]),
            parent: None,
            parent_is_remote: false,
            state: "".into(),
            kind: Kind::Client,
            name: "".into(),
            attributes: Vec::new(),
            links: Vec::new(),
            error: true,
            ..server.clone()
        };
        [server, client]
    }

    /// The same span as OpenTelemetry's library has it.
    fn theirs(span: &Span<'_>) -> SpanData {
        let at = |nanoseconds| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds);
        let context = |trace_id: TraceId, span_id: SpanId, flags: Flags, remote, state| {
            let (trace_id, span_id) = (SdkTraceId::from_bytes(trace_id.0), SdkSpanId::from_bytes(span_id.0));
            SpanContext::new(trace_id, span_id, TraceFlags::new(flags.0), remote, state)
        };
        let attribute = |(key, value): &(&str, Value<'_>)| match value {
            Value::Text(text) => KeyValue::new((*key).to_owned(), text.to_string()),
            Value::Joined(joined) => KeyValue::new((*key).to_owned(), joined.to_string()),
            Value::Integer(number) => KeyValue::new((*key).to_owned(), *number),
            Value::Double(number) => KeyValue::new((*key).to_owned(), *number),
        };
        let mut links = SpanLinks::default();
        links.links = span
            .links
            .iter()
            .map(|link| {
                let state = TraceState::default();
                SdkLink::with_context(context(link.trace_id, link.span_id, link.flags, true, state))
            })
            .collect();
        SpanData {
            span_context: context(span.trace_id, span.id, span.flags, false, span.state.parse().unwrap()),
            parent_span_id: SdkSpanId::from_bytes(span.parent.map_or([0; 8], |parent| parent.0)),
            parent_span_is_remote: span.parent_is_remote,
            span_kind: if span.kind == Kind::Server { SpanKind::Server } else { SpanKind::Client },
            name: span.name.to_string().into(),
            start_time: at(span.start),
            end_time: at(span.end),
            attributes: span.attributes.iter().map(attribute).collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: if span.error { Status::error("") } else { Status::Unset },
            instrumentation_scope: InstrumentationScope::builder("tracegate")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }

    /// Takes what is sent, instead of a collector.
    #[derive(Debug, Clone, Default)]
    struct Taken(Arc<OnceLock<Bytes>>);

    #[async_trait]
    impl HttpClient for Taken {
        async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            self.0.set(request.into_body()).unwrap();
            Ok(Response::default())
        }
    }

    #[tokio::test]
    async fn it_is_what_opentelemetry_otlp_sends_of_equal_spans() {
        let resource = [("service.name", "api-gateway"), ("service.version", "1")];
        let (ours, of_resource) = (ours(), resource.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let encoder = Encoder::new(&BTreeMap::from(of_resource));
        let mut request = encoder.begin();
        for span in &ours {
            super::add(request.content(), span);
        }
        let written = encoder.end(request).into_bytes();

        let attributes = resource.map(|(key, value)| KeyValue::new(key, value));
        let of_resource = Resource::builder_empty().with_attributes(attributes).build();
        let sent = Taken::default();
        let mut exporter =
            SpanExporter::builder().with_http().with_http_client(sent.clone()).build().unwrap();
        exporter.set_resource(&of_resource);
        exporter.export(ours.iter().map(theirs).collect()).await.unwrap();
        let mut expected = ExportTraceServiceRequest::decode(&sent.0.get().unwrap()[..]).unwrap();
        let sort = |request: &mut ExportTraceServiceRequest| {
            let resource = request.resource_spans[0].resource.as_mut().unwrap();
            resource.attributes.sort_by(|one, other| one.key.cmp(&other.key));
        };
        sort(&mut expected);
        let mut read = ExportTraceServiceRequest::decode(&written[..]).unwrap();
        sort(&mut read);
        assert_eq!(read, expected);
        // and no longer than it need be
        assert_eq!(written.len(), expected.encoded_len());
    }
}
