//! The spans of an operation that has ended: one SERVER span, and one CLIENT span an attempt.
//!
//! A stream has one more, which is exported when it opens: `stream opened`, INTERNAL, under the SERVER span. An
//! event would be seen only with its span, hours later; the SERVER span sent twice would be two spans to most
//! receivers. So whoever looks for a stream that is open finds its trace, with a parent that is still to come.

use std::borrow::Cow;
use std::iter;
use std::time::{Duration, SystemTime};

use crate::failure::{Detail, Reason};
use crate::telemetry::context::SpanId;
use crate::telemetry::operation::{AttemptRecord, Record};
use crate::telemetry::outcome::ErrorType;
use crate::telemetry::retry::NotRetried;
use crate::telemetry::sampling::Decision;
use crate::telemetry::settings::Privacy;
use crate::telemetry::span::{Kind, Span, Value};
use crate::telemetry::sticky::Sticky;

/// The spans of an operation, the SERVER span first.
pub(super) fn assemble<'a>(record: &'a Record, privacy: &Privacy) -> impl Iterator<Item = Span<'a>> {
    let first = match record.opening {
        Some(id) => opened(record, id),
        None => server(record, privacy),
    };
    iter::once(first).chain(record.calls().map(|attempt| client(record, attempt)))
}

fn opened(record: &Record, id: SpanId) -> Span<'_> {
    let mut attributes = Attributes::default();
    attributes.add("http.request.method", record.exchange.method.word());
    attributes.add_some("http.response.status_code", record.status());
    if let Some(route) = record.route_labels() {
        attributes.add("http.route", &*route.template);
        attributes.add("tracegate.route", &*route.route);
        attributes.add_some("tracegate.upstream", route.upstream());
    }
    attributes.add_business(record);
    let own = Own {
        id,
        parent: Some(record.context.span_id),
        kind: Kind::Internal,
        name: "stream opened".into(),
        start: Duration::ZERO,
        end: record.duration(),
    };
    span(record, own, attributes)
}

fn server<'a>(record: &'a Record, privacy: &Privacy) -> Span<'a> {
    let route = record.route_labels();
    let exchange = record.exchange;
    let mut attributes = Attributes::default();
    attributes.add("http.request.method", exchange.method.word());
    attributes.add("url.scheme", exchange.scheme.word());
    attributes.add("url.path", route.map_or("REDACTED", |route| &route.template));
    attributes.add_some("http.route", route.map(|route| &*route.template));
    attributes.add_some("http.response.status_code", record.status());
    attributes.add("network.protocol.version", exchange.version.word());
    if let Some(address) = route.and_then(|route| route.server.as_deref()) {
        attributes.add("server.address", address);
        attributes.add_some("server.port", record.port);
    }
    attributes.add_some("network.transport", record.port.is_none().then_some("unix"));
    let client = privacy.client_address(record.client);
    attributes.add_some("client.address", client.map(|address| address.to_string()));
    attributes.add_some("tracegate.client_role", record.client_role.as_deref());
    if let Some(passed) = record.passed_by() {
        attributes.add("tracegate.auth_rule", &*passed.rule);
        attributes.add("tracegate.auth_method", passed.method);
        attributes.add_some("tracegate.auth_unverified", passed.unverified.map(Detail::word));
    }
    if let Some(route) = route {
        attributes.add("tracegate.route", &*route.route);
        attributes.add_some("tracegate.upstream", route.upstream());
        attributes.add_some("tracegate.operation", route.operation.as_deref());
    }
    if let Decision::Sampled { because, .. } = record.verdict() {
        attributes.add("tracegate.sampled_because", because.word());
    }
    attributes.add_some("tracegate.stream", record.is_stream().then_some("true"));
    attributes.add_grpc(record.grpc());
    if let Some((side, code)) = record.websocket_close() {
        attributes.add("tracegate.websocket.close_code", code);
        attributes.add("tracegate.websocket.closed_by", side.word());
    }
    attributes.add_some("tracegate.sticky", record.stickiness().map(Sticky::word));
    attributes.add_some("tracegate.not_retried", record.why_not_retried().map(NotRetried::word));
    attributes.add_failure(record.failure());
    attributes.add_some("tracegate.rule", record.rule().map(|rule| &**rule));
    let error = attributes.add_error(ErrorType::of_operation(record));
    attributes.add_business(record);
    attributes.add_disclosed(record);

    let name = exchange.method.in_span_name();
    let parent = record.context.parent.as_ref();
    let own = Own {
        id: record.context.span_id,
        parent: parent.map(|parent| parent.span_id),
        kind: Kind::Server,
        name: route.map_or(name.into(), |route| format!("{name} {}", route.template).into()),
        start: Duration::ZERO,
        end: record.duration(),
    };
    let links = record.context.link.into_iter().collect();
    Span { parent_is_remote: parent.is_some(), error, links, ..span(record, own, attributes) }
}

fn client<'a>(record: &'a Record, attempt: &'a AttemptRecord) -> Span<'a> {
    let route = record.route_labels();
    let question = attempt.question.as_deref();
    let template = match question {
        None => route.map_or("", |route| &route.upstream_template),
        Some(question) => &question.template,
    };
    let (method, endpoint) = (attempt.method(record), &attempt.endpoint);
    let mut attributes = Attributes::default();
    attributes.add("http.request.method", method.word());
    attributes.add("url.template", template);
    attributes.add("url.full", format!("{}{template}", endpoint.origin));
    attributes.add("server.address", &*endpoint.address);
    attributes.add_some("server.port", endpoint.port);
    if endpoint.port.is_none() {
        attributes.add("network.transport", "unix");
        attributes.add("network.peer.address", &*endpoint.address);
    }
    attributes.add_some("http.response.status_code", attempt.status);
    attributes.add_grpc(attempt.grpc);
    if attempt.resend_count > 0 {
        attributes.add("http.request.resend_count", u16::from(attempt.resend_count));
    }
    if let Some(service) = endpoint.service.as_deref() {
        attributes.add("service.peer.name", service);
        attributes.add("peer.service", service);
    }
    if let Some(connection) = attempt.connection {
        if let Some(peer) = connection.peer {
            attributes.add("network.peer.address", peer.ip().to_string());
            attributes.add("network.peer.port", peer.port());
        }
        attributes.add("tracegate.connection", if connection.reused { "reused" } else { "new" });
        attributes.add_some("tracegate.wait_ms", connection.waited.map(milliseconds));
        attributes.add_some("tracegate.resolve_ms", connection.resolve.map(milliseconds));
        attributes.add_some("tracegate.connect_ms", connection.connect.map(milliseconds));
        attributes.add_some("tracegate.handshake_ms", connection.handshake.map(milliseconds));
    }
    let since_start = |at: Duration| milliseconds(at.saturating_sub(attempt.started));
    attributes.add_some("tracegate.request_sent_ms", attempt.request_sent.map(since_start));
    attributes.add_some("tracegate.first_byte_ms", attempt.first_byte.map(since_start));
    attributes.add_some("tracegate.last_byte_ms", attempt.last_byte.map(since_start));
    attributes.add("http.request.body.size", size(attempt.request_bytes));
    attributes.add("http.response.body.size", size(attempt.response_bytes));
    attributes.add("tracegate.upstream", &*endpoint.upstream);
    attributes.add_some("tracegate.rule", question.map(|question| &*question.rule));
    attributes.add_failure(attempt.failure);
    let error = attributes.add_error(ErrorType::of_attempt(attempt));
    attributes.add_business(record);

    let name = method.in_span_name();
    let own = Own {
        id: attempt.span_id,
        parent: Some(record.context.span_id),
        kind: Kind::Client,
        name: route.map_or(name.into(), |_| format!("{name} {template}").into()),
        start: attempt.started,
        end: attempt.ended,
    };
    Span { error, ..span(record, own, attributes) }
}

/// What the spans of one operation differ in.
struct Own<'a> {
    id: SpanId,
    parent: Option<SpanId>,
    kind: Kind,
    name: Cow<'a, str>,
    /// From the operation's start on, as `end`.
    start: Duration,
    end: Duration,
}

fn span<'a>(record: &'a Record, own: Own<'a>, attributes: Attributes<'a>) -> Span<'a> {
    let started = record.started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Span {
        trace_id: record.context.trace_id,
        id: own.id,
        parent: own.parent,
        parent_is_remote: false,
        flags: record.context.flags(true),
        // how likely the span was to be exported, and no more: the rest of the tracestate belongs to others
        state: record.context.state.exported(record.verdict().threshold()).into(),
        kind: own.kind,
        name: own.name,
        start: nanoseconds(started + own.start),
        end: nanoseconds(started + own.end),
        attributes: attributes.0,
        links: Vec::new(),
        error: false,
    }
}

struct Attributes<'a>(Vec<(&'a str, Value<'a>)>);

impl Default for Attributes<'_> {
    fn default() -> Self {
        Self(Vec::with_capacity(24))
    }
}

impl<'a> Attributes<'a> {
    fn add(&mut self, key: &'static str, value: impl Into<Value<'a>>) {
        self.0.push((key, value.into()));
    }

    fn add_some(&mut self, key: &'static str, value: Option<impl Into<Value<'a>>>) {
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

    fn add_grpc(&mut self, status: Option<u8>) {
        if let Some(status) = status {
            self.add("rpc.system", "grpc");
            self.add("rpc.grpc.status_code", u16::from(status));
        }
    }

    /// States the error, if there is one, and tells whether.
    fn add_error(&mut self, error: Option<ErrorType>) -> bool {
        match error {
            None => return false,
            Some(ErrorType::Reason(reason)) => self.add("error.type", reason.word()),
            Some(ErrorType::Status(status)) => self.add("error.type", status.to_string()),
        }
        true
    }

    fn add_business(&mut self, record: &'a Record) {
        self.0.extend(record.attributes().map(|(key, value)| (key, value.into())));
    }

    fn add_disclosed(&mut self, record: &'a Record) {
        let Some(disclosed) = record.disclosed() else { return };
        self.add_some("url.query", disclosed.query());
        let headers = disclosed.headers();
        self.0.extend(headers.map(|(key, value)| (key, value.into())));
    }
}

fn size(bytes: u64) -> Value<'static> {
    Value::Integer(bytes.try_into().unwrap_or(i64::MAX))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn nanoseconds(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::assemble;
    use crate::failure::{Detail, Failure, Reason};
    use crate::telemetry::operation::{Attempt, ConnectionFacts, Record, Sink};
    use crate::telemetry::settings::{ClientAddress, Privacy};
    use crate::telemetry::span::{Kind, Span};
    use crate::telemetry::testing::{self, Bench};

    /// Keeps the records that have ended.
    #[derive(Default)]
    struct Ended(Mutex<Vec<Arc<Record>>>);

    impl Sink for Ended {
        fn operation_ended(&self, record: &Arc<Record>) {
            self.0.lock().unwrap().push(Arc::clone(record));
        }
    }

    fn set() -> (Arc<Ended>, Bench) {
        let ended = Arc::new(Ended::default());
        (Arc::clone(&ended), Bench::new(ended))
    }

    impl Ended {
        /// The only record.
        fn take(&self) -> Arc<Record> {
            self.0.lock().unwrap().pop().unwrap()
        }
    }

    fn spans(record: &Record) -> Vec<Span<'_>> {
        assemble(record, &Privacy::default()).collect()
    }

    /// The attributes as `key=value` lines, sorted, without those that tell the time.
    fn attributes(span: &Span<'_>) -> String {
        let mut lines: Vec<String> =
            span.attributes.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        lines.retain(|line| !line.contains("_ms="));
        lines.sort();
        lines.concat()
    }

    #[test]
    fn a_success_is_a_server_span_and_a_client_span_below_it() {
        const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let (ended, bench) = set();
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

        let record = ended.take();
        let [server, client] = &spans(&record)[..] else { panic!("two spans") };
        assert_eq!((&*server.name, server.kind), ("GET /shop/orders/{order_id}", Kind::Server));
        assert_eq!(server.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(server.parent.unwrap().to_string(), "b7ad6b7169203331");
        assert!(server.parent_is_remote && server.flags.sampled());
        assert!(!server.error);
        assert_eq!(
            attributes(server),
            "http.request.method=GET\nhttp.response.status_code=200\nhttp.route=/shop/orders/{order_id}\n\
             network.protocol.version=1.1\norder.id=4711\nserver.address=shop.example\nserver.port=443\n\
             tracegate.operation=order.read\ntracegate.route=order_read\ntracegate.sampled_because=parent\n\
             tracegate.upstream=shop\nurl.path=/shop/orders/{order_id}\nurl.scheme=http\n"
        );

        assert_eq!((&*client.name, client.kind), ("GET /orders/{order_id}", Kind::Client));
        assert_eq!(client.id, sent);
        assert_eq!(client.parent, Some(server.id));
        assert!(!client.parent_is_remote);
        assert!(!client.error);
        assert!(server.start <= client.start && client.end <= server.end);
        assert_eq!(
            attributes(client),
            "http.request.body.size=0\nhttp.request.method=GET\nhttp.response.body.size=0\n\
             http.response.status_code=200\nnetwork.peer.address=10.0.0.7\n\
             network.peer.port=9001\norder.id=4711\npeer.service=shop-api\nserver.address=shop.internal\n\
             server.port=9001\nservice.peer.name=shop-api\ntracegate.connection=new\ntracegate.upstream=shop\n\
             url.full=http://shop.internal:9001/orders/{order_id}\nurl.template=/orders/{order_id}\n"
        );
        let timed = |key| client.attributes.iter().any(|(known, _)| *known == key);
        assert!(timed("tracegate.connect_ms") && timed("tracegate.first_byte_ms"));
    }

    #[test]
    fn a_retry_that_succeeds_leaves_the_server_span_without_an_error() {
        let (ended, bench) = set();
        let operation = bench.start("PUT");
        operation.handle().route(&bench.route);
        let mut first = Attempt::start(operation.handle(), &bench.endpoint);
        first.fail(&Failure::new(Reason::TlsFailed).detail(Detail::Expired));
        drop(first);
        let mut second = Attempt::start(operation.handle(), &bench.endpoint);
        testing::answered(&mut second, 404);
        drop(second);
        testing::answer(operation, 404);

        let record = ended.take();
        let [server, first, second] = &spans(&record)[..] else { panic!("three spans") };
        assert!(!server.error);
        assert!(!attributes(server).contains("tracegate.reason"));
        for part in ["error.type=tls_failed\n", "tracegate.blame=upstream\n", "tracegate.detail=expired\n"] {
            assert!(attributes(first).contains(part), "{}", attributes(first));
        }
        assert!(!attributes(first).contains("resend_count"));
        assert!(second.error);
        for part in
            ["error.type=404\n", "http.request.resend_count=1\n", "tracegate.reason=upstream_status\n"]
        {
            assert!(attributes(second).contains(part), "{}", attributes(second));
        }
        assert_ne!(first.id, second.id);
    }

    #[test]
    fn a_request_without_a_route_shows_nothing_of_its_path() {
        let (ended, bench) = set();
        let operation = bench.start("BREW");
        operation.handle().fail(&Failure::new(Reason::NoRoute));
        testing::answer(operation, 404);
        let record = ended.take();
        let [server] = &spans(&record)[..] else { panic!("one span") };
        assert_eq!((&*server.name, server.error), ("HTTP", false));
        assert_eq!(
            attributes(server),
            "http.request.method=_OTHER\nhttp.response.status_code=404\nnetwork.protocol.version=1.1\n\
             tracegate.blame=client\ntracegate.reason=no_route\ntracegate.sampled_because=ratio\n\
             url.path=REDACTED\nurl.scheme=http\n"
        );
        assert_eq!(server.flags.0, 3);
    }

    #[test]
    fn a_client_that_leaves_is_an_error_on_both_spans() {
        let (ended, bench) = set();
        let operation = bench.start("GET");
        operation.handle().route(&bench.route);
        drop(Attempt::start(operation.handle(), &bench.endpoint));
        drop(operation);
        for span in spans(&ended.take()) {
            assert!(span.error);
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
        let (ended, bench) = set();
        let operation = bench.start("GET");
        operation.handle().route(&bench.route);
        let mut attempt = Attempt::start(operation.handle(), &bench.endpoint);
        testing::answered(&mut attempt, 503);
        drop(attempt);
        operation.handle().fail(&Failure::new(Reason::UpstreamStatus));
        testing::answer(operation, 503);
        for span in spans(&ended.take()) {
            assert!(attributes(&span).contains("error.type=503\n"), "{}", attributes(&span));
            assert!(attributes(&span).contains("tracegate.reason=upstream_status\n"));
        }
    }

    #[test]
    fn the_clients_address_leaves_only_if_allowed() {
        let (ended, bench) = set();
        testing::answer(bench.start("GET"), 200);
        let record = ended.take();
        for (client_address, expected) in
            [(ClientAddress::Off, None), (ClientAddress::Truncated, Some("192.0.2.0"))]
        {
            let span = assemble(&record, &Privacy { client_address, ..Privacy::default() }).next().unwrap();
            assert_eq!(span.text("client.address"), expected);
        }
    }
}
