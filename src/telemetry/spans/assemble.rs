//! The spans of an operation that has ended: one SERVER span, and one CLIENT span an attempt.

use std::iter;
use std::sync::LazyLock;
use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, Key, KeyValue, SpanId, TraceId, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::failure::{Detail, Reason};
use crate::telemetry::operation::{AttemptRecord, Record};
use crate::telemetry::outcome::ErrorType;
use crate::telemetry::settings::Privacy;

/// The spans of an operation, the SERVER span first.
pub(super) fn assemble(record: &Record, privacy: &Privacy) -> impl Iterator<Item = SpanData> {
    iter::once(server(record, privacy)).chain(record.attempts().map(|attempt| client(record, attempt)))
}

fn server(record: &Record, privacy: &Privacy) -> SpanData {
    let route = record.route_labels();
    let exchange = record.exchange;
    let mut attributes = Attributes::default();
    attributes.add("http.request.method", exchange.method.word());
    attributes.add("url.scheme", exchange.scheme.word());
    attributes.add("url.path", route.map_or("REDACTED".into(), |route| text(&route.template)));
    attributes.add_some("http.route", route.map(|route| text(&route.template)));
    attributes.add_some("http.response.status_code", record.status().map(i64::from));
    attributes.add("network.protocol.version", exchange.version.word());
    if let Some(address) = route.and_then(|route| route.server.as_ref()) {
        attributes.add("server.address", text(address));
        attributes.add("server.port", i64::from(record.port));
    }
    let client = privacy.client_address(record.client);
    attributes.add_some("client.address", client.map(|address| address.to_string()));
    if let Some(route) = route {
        attributes.add("tracegate.route", text(&route.route));
        attributes.add("tracegate.upstream", text(&route.upstream));
        attributes.add_some("tracegate.operation", route.operation.as_deref().map(text));
    }
    attributes.add("tracegate.sampled_because", record.decide().because.word());
    attributes.add_failure(record.failure());
    let status = attributes.add_error(ErrorType::of_operation(record));
    attributes.add_business(record);
    attributes.add_disclosed(record);

    let name = exchange.method.in_span_name();
    let parent = record.context.parent.as_ref();
    Span {
        id: record.context.span_id.0,
        parent: parent.map_or([0; 8], |parent| parent.span_id.0),
        parent_is_remote: parent.is_some(),
        kind: SpanKind::Server,
        name: route.map_or(name.to_owned(), |route| format!("{name} {}", route.template)),
        start: Duration::ZERO,
        end: record.duration(),
        attributes,
        status,
    }
    .of(record)
}

fn client(record: &Record, attempt: &AttemptRecord) -> SpanData {
    let route = record.route_labels();
    let template = route.map_or("", |route| &route.upstream_template);
    let endpoint = &attempt.endpoint;
    let mut attributes = Attributes::default();
    attributes.add("http.request.method", record.exchange.method.word());
    attributes.add("url.template", text(template));
    attributes.add("url.full", format!("{}{template}", endpoint.origin));
    attributes.add("server.address", text(&endpoint.address));
    attributes.add("server.port", i64::from(endpoint.port));
    attributes.add_some("http.response.status_code", attempt.status.map(i64::from));
    if attempt.resend_count > 0 {
        attributes.add("http.request.resend_count", i64::from(attempt.resend_count));
    }
    if let Some(service) = endpoint.service.as_deref() {
        attributes.add("service.peer.name", text(service));
        attributes.add("peer.service", text(service));
    }
    if let Some(connection) = attempt.connection {
        if let Some(peer) = connection.peer {
            attributes.add("network.peer.address", peer.ip().to_string());
            attributes.add("network.peer.port", i64::from(peer.port()));
        }
        attributes.add("tracegate.connection", if connection.reused { "reused" } else { "new" });
        attributes.add_some("tracegate.wait_ms", connection.waited.map(milliseconds));
        attributes.add_some("tracegate.resolve_ms", connection.resolve.map(milliseconds));
        attributes.add_some("tracegate.connect_ms", connection.connect.map(milliseconds));
        attributes.add_some("tracegate.handshake_ms", connection.handshake.map(milliseconds));
    }
    let first_byte = attempt.first_byte.map(|at| at.saturating_sub(attempt.started));
    attributes.add_some("tracegate.first_byte_ms", first_byte.map(milliseconds));
    attributes.add("tracegate.upstream", text(&endpoint.upstream));
    attributes.add_failure(attempt.failure);
    let status = attributes.add_error(ErrorType::of_attempt(attempt));
    attributes.add_business(record);

    let name = record.exchange.method.in_span_name();
    Span {
        id: attempt.span_id.0,
        parent: record.context.span_id.0,
        parent_is_remote: false,
        kind: SpanKind::Client,
        name: route.map_or(name.to_owned(), |_| format!("{name} {template}")),
        start: attempt.started,
        end: attempt.ended,
        attributes,
        status,
    }
    .of(record)
}

/// What the two kinds of spans differ in.
struct Span {
    id: [u8; 8],
    parent: [u8; 8],
    parent_is_remote: bool,
    kind: SpanKind,
    name: String,
    start: Duration,
    end: Duration,
    attributes: Attributes,
    status: Status,
}

impl Span {
    fn of(self, record: &Record) -> SpanData {
        let trace_id = TraceId::from_bytes(record.context.trace_id.0);
        let flags = TraceFlags::new(record.context.flags(true).0);
        // the tracestate belongs to others: it is forwarded, never exported
        let state = TraceState::default();
        SpanData {
            span_context: SpanContext::new(trace_id, SpanId::from_bytes(self.id), flags, false, state),
            parent_span_id: SpanId::from_bytes(self.parent),
            parent_span_is_remote: self.parent_is_remote,
            span_kind: self.kind,
            name: self.name.into(),
            start_time: record.started_at + self.start,
            end_time: record.started_at + self.end,
            attributes: self.attributes.0,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: self.status,
            instrumentation_scope: SCOPE.clone(),
        }
    }
}

static SCOPE: LazyLock<InstrumentationScope> = LazyLock::new(|| {
    InstrumentationScope::builder("tracegate").with_version(env!("CARGO_PKG_VERSION")).build()
});

struct Attributes(Vec<KeyValue>);

impl Default for Attributes {
    fn default() -> Self {
        Self(Vec::with_capacity(24))
    }
}

impl Attributes {
    fn add(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(key, value));
    }

    fn add_some(&mut self, key: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    fn add_failure(&mut self, failure: Option<(Reason, Option<Detail>)>) {
        if let Some((reason, detail)) = failure {
            self.add("tracegate.reason", reason.word());
            self.add("tracegate.blame", reason.blame().word());
            self.add_some("tracegate.detail", detail.map(Detail::word));
        }
    }

    /// The span's status. It has no description: `error.type` says it all (OpenTelemetry HTTP conventions).
    fn add_error(&mut self, error: Option<ErrorType>) -> Status {
        match error {
            None => return Status::Unset,
            Some(ErrorType::Reason(reason)) => self.add("error.type", reason.word()),
            Some(ErrorType::Status(status)) => self.add("error.type", status.to_string()),
        }
        Status::error("")
    }

    fn add_business(&mut self, record: &Record) {
        let business = record.attributes();
        self.0.extend(business.map(|(key, value)| KeyValue::new(Key::new(key.to_owned()), text(value))));
    }

    fn add_disclosed(&mut self, record: &Record) {
        let Some(disclosed) = record.disclosed() else { return };
        self.add_some("url.query", disclosed.query().map(text));
        let headers = disclosed.headers();
        self.0.extend(headers.map(|(key, value)| KeyValue::new(Key::new(key.to_owned()), text(value))));
    }
}

fn text(text: &str) -> Value {
    text.to_owned().into()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use opentelemetry::trace::{SpanKind, Status};
    use opentelemetry_sdk::trace::SpanData;

    use super::assemble;
    use crate::failure::{Detail, Failure, Reason};
    use crate::telemetry::operation::{Attempt, ConnectionFacts, Record, Sink};
    use crate::telemetry::settings::{ClientAddress, Privacy};
    use crate::telemetry::testing::{self, Bench};

    #[derive(Default)]
    struct Spans(Mutex<Vec<SpanData>>);

    impl Sink for Spans {
        fn operation_ended(&self, record: &Arc<Record>) {
            self.0.lock().unwrap().extend(assemble(record, &Privacy::default()));
        }
    }

    fn set() -> (Arc<Spans>, Bench) {
        let spans = Arc::new(Spans::default());
        (Arc::clone(&spans), Bench::new(spans))
    }

    impl Spans {
        fn take(&self) -> Vec<SpanData> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    /// The attributes as `key=value` lines, sorted, without those that tell the time.
    fn attributes(span: &SpanData) -> String {
        let mut lines: Vec<String> = span
            .attributes
            .iter()
            .map(|attribute| format!("{}={}\n", attribute.key, attribute.value))
            .collect();
        lines.retain(|line| !line.contains("_ms="));
        lines.sort();
        lines.concat()
    }

    #[test]
    fn a_success_is_a_server_span_and_a_client_span_below_it() {
        const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let (spans, bench) = set();
        let operation = bench.start_with("GET", &[PARENT]);
        let handle = operation.handle().clone();
        handle.route(&bench.route);
        handle.attribute(0, b"4711");
        let mut attempt = Attempt::start(&handle, &bench.endpoint);
        let sent = attempt.span_id();
        attempt.connected(ConnectionFacts {
            peer: Some("10.0.0.7:9001".parse().unwrap()),
            connect: Some(Duration::from_micros(1500)),
            ..ConnectionFacts::default()
        });
        testing::answered(&mut attempt, 200);
        drop(attempt);
        testing::answer(operation, 200);

        let [server, client] = &spans.take()[..] else { panic!("two spans") };
        assert_eq!((&*server.name, &server.span_kind), ("GET /shop/orders/{order_id}", &SpanKind::Server));
        assert_eq!(server.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(server.parent_span_id.to_string(), "b7ad6b7169203331");
        assert!(server.parent_span_is_remote && server.span_context.is_sampled());
        assert_eq!(server.status, Status::Unset);
        assert_eq!(
            attributes(server),
            "http.request.method=GET\nhttp.response.status_code=200\nhttp.route=/shop/orders/{order_id}\n\
             network.protocol.version=1.1\norder.id=4711\nserver.address=shop.example\nserver.port=443\n\
             tracegate.operation=order.read\ntracegate.route=order_read\ntracegate.sampled_because=parent\n\
             tracegate.upstream=shop\nurl.path=/shop/orders/{order_id}\nurl.scheme=http\n"
        );

        assert_eq!((&*client.name, &client.span_kind), ("GET /orders/{order_id}", &SpanKind::Client));
        assert_eq!(client.span_context.span_id().to_bytes(), sent.0);
        assert_eq!(client.parent_span_id, server.span_context.span_id());
        assert!(!client.parent_span_is_remote);
        assert_eq!(client.status, Status::Unset);
        assert!(server.start_time <= client.start_time && client.end_time <= server.end_time);
        assert_eq!(
            attributes(client),
            "http.request.method=GET\nhttp.response.status_code=200\nnetwork.peer.address=10.0.0.7\n\
             network.peer.port=9001\norder.id=4711\npeer.service=shop-api\nserver.address=shop.internal\n\
             server.port=9001\nservice.peer.name=shop-api\ntracegate.connection=new\ntracegate.upstream=shop\n\
             url.full=http://shop.internal:9001/orders/{order_id}\nurl.template=/orders/{order_id}\n"
        );
        let timed = |key| client.attributes.iter().any(|attribute| attribute.key.as_str() == key);
        assert!(timed("tracegate.connect_ms") && timed("tracegate.first_byte_ms"));
    }

    #[test]
    fn a_retry_that_succeeds_leaves_the_server_span_without_an_error() {
        let (spans, bench) = set();
        let operation = bench.start("PUT");
        operation.handle().route(&bench.route);
        let mut first = Attempt::start(operation.handle(), &bench.endpoint);
        first.fail(&Failure::new(Reason::TlsFailed).detail(Detail::Expired));
        drop(first);
        let mut second = Attempt::start(operation.handle(), &bench.endpoint);
        testing::answered(&mut second, 404);
        drop(second);
        testing::answer(operation, 404);

        let [server, first, second] = &spans.take()[..] else { panic!("three spans") };
        assert_eq!(server.status, Status::Unset);
        assert!(!attributes(server).contains("tracegate.reason"));
        for part in ["error.type=tls_failed\n", "tracegate.blame=upstream\n", "tracegate.detail=expired\n"] {
            assert!(attributes(first).contains(part), "{}", attributes(first));
        }
        assert!(!attributes(first).contains("resend_count"));
        assert_eq!(second.status, Status::error(""));
        for part in
            ["error.type=404\n", "http.request.resend_count=1\n", "tracegate.reason=upstream_status\n"]
        {
            assert!(attributes(second).contains(part), "{}", attributes(second));
        }
        assert_ne!(first.span_context.span_id(), second.span_context.span_id());
    }

    #[test]
    fn a_request_without_a_route_shows_nothing_of_its_path() {
        let (spans, bench) = set();
        let operation = bench.start("BREW");
        operation.handle().fail(&Failure::new(Reason::NoRoute));
        testing::answer(operation, 404);
        let [server] = &spans.take()[..] else { panic!("one span") };
        assert_eq!((&*server.name, &server.status), ("HTTP", &Status::Unset));
        assert_eq!(
            attributes(server),
            "http.request.method=_OTHER\nhttp.response.status_code=404\nnetwork.protocol.version=1.1\n\
             tracegate.blame=client\ntracegate.reason=no_route\ntracegate.sampled_because=ratio\n\
             url.path=REDACTED\nurl.scheme=http\n"
        );
        assert_eq!(server.span_context.trace_flags().to_u8(), 3);
    }

    #[test]
    fn a_client_that_leaves_is_an_error_on_both_spans() {
        let (spans, bench) = set();
        let operation = bench.start("GET");
        operation.handle().route(&bench.route);
        drop(Attempt::start(operation.handle(), &bench.endpoint));
        drop(operation);
        for span in spans.take() {
            assert_eq!(span.status, Status::error(""));
            let attributes = attributes(&span);
            assert!(!attributes.contains("status_code"), "{attributes}");
            for part in
                ["error.type=client_gone\n", "tracegate.reason=client_gone\n", "tracegate.blame=client\n"]
            {
                assert!(attributes.contains(part), "{attributes}");
            }
        }
    }

    #[test]
    fn an_upstreams_failure_that_is_passed_on_is_named_by_its_status() {
        let (spans, bench) = set();
        let operation = bench.start("GET");
        operation.handle().route(&bench.route);
        let mut attempt = Attempt::start(operation.handle(), &bench.endpoint);
        testing::answered(&mut attempt, 503);
        drop(attempt);
        operation.handle().fail(&Failure::new(Reason::UpstreamStatus));
        testing::answer(operation, 503);
        for span in spans.take() {
            assert!(attributes(&span).contains("error.type=503\n"), "{}", attributes(&span));
            assert!(attributes(&span).contains("tracegate.reason=upstream_status\n"));
        }
    }

    #[test]
    fn the_clients_address_leaves_only_if_allowed() {
        struct Addresses(Mutex<Vec<Option<String>>>);
        impl Sink for Addresses {
            fn operation_ended(&self, record: &Arc<Record>) {
                for client_address in [ClientAddress::Off, ClientAddress::Truncated] {
                    let span =
                        assemble(record, &Privacy { client_address, ..Privacy::default() }).next().unwrap();
                    let mut found =
                        span.attributes.iter().filter(|found| found.key.as_str() == "client.address");
                    self.0.lock().unwrap().push(found.next().map(|found| found.value.to_string()));
                }
            }
        }
        let addresses = Arc::new(Addresses(Mutex::default()));
        testing::answer(Bench::new(Arc::clone(&addresses) as _).start("GET"), 200);
        assert_eq!(*addresses.0.lock().unwrap(), [None, Some("192.0.2.0".to_owned())]);
    }
}
