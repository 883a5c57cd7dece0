//! The spans of an operation that has ended: one SERVER span, and one CLIENT span an attempt.
//!
//! A stream has one more, which is exported when it opens: `stream opened`, INTERNAL, under the SERVER span. An
//! event would be seen only with its span, hours later; the SERVER span sent twice would be two spans to most
//! receivers. So whoever looks for a stream that is open finds its trace, with a parent that is still to come.

use std::iter;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::failure::{Detail, Reason};
use crate::telemetry::attribute::{self, Key, Word};
use crate::telemetry::context::SpanId;
use crate::telemetry::operation::{AttemptRecord, Record};
use crate::telemetry::outcome::ErrorType;
use crate::telemetry::retry::NotRetried;
use crate::telemetry::sampling::Decision;
use crate::telemetry::settings::Privacy;
use crate::telemetry::span::{Joined, Kind, Span, Value};
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
    attributes.add(attribute::HTTP_REQUEST_METHOD, record.exchange.method.word());
    attributes.add_some(attribute::HTTP_RESPONSE_STATUS_CODE, record.status().map(Word::number));
    if let Some(route) = record.route_labels() {
        attributes.add(attribute::HTTP_ROUTE, &route.template);
        attributes.add(attribute::TRACEGATE_ROUTE, &route.route);
        attributes.add_some(attribute::TRACEGATE_UPSTREAM, route.upstream());
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
    attributes.add(attribute::HTTP_REQUEST_METHOD, exchange.method.word());
    attributes.add(attribute::URL_SCHEME, exchange.scheme.word());
    attributes.add(attribute::URL_PATH, route.map_or("REDACTED".into(), |route| Word::from(&route.template)));
    attributes.add_some(attribute::HTTP_ROUTE, route.map(|route| &route.template));
    attributes.add_some(attribute::HTTP_RESPONSE_STATUS_CODE, record.status().map(Word::number));
    attributes.add(attribute::NETWORK_PROTOCOL_VERSION, exchange.version.word());
    if let Some(address) = route.and_then(|route| route.server.as_ref()) {
        attributes.add(attribute::SERVER_ADDRESS, address);
        attributes.add_some(attribute::SERVER_PORT, record.port.map(Word::number));
    }
    attributes.add_some(attribute::NETWORK_TRANSPORT, record.port.is_none().then_some("unix"));
    let client = privacy.client_address(&record.client);
    attributes.add_some(attribute::CLIENT_ADDRESS, client.map(|address| address.to_string()));
    attributes.add_some(attribute::TRACEGATE_CLIENT_ROLE, record.client_role.as_ref());
    if let Some(passed) = record.passed_by() {
        attributes.add(attribute::TRACEGATE_AUTH_RULE, &passed.rule);
        attributes.add(attribute::TRACEGATE_AUTH_METHOD, passed.method);
        attributes.add_some(attribute::TRACEGATE_AUTH_UNVERIFIED, passed.unverified.map(Detail::word));
    }
    if let Some(route) = route {
        attributes.add(attribute::TRACEGATE_ROUTE, &route.route);
        attributes.add_some(attribute::TRACEGATE_UPSTREAM, route.upstream());
        attributes.add_some(attribute::TRACEGATE_OPERATION, route.operation.as_ref());
    }
    if let Decision::Sampled { because, .. } = record.verdict() {
        attributes.add(attribute::TRACEGATE_SAMPLED_BECAUSE, because.word());
    }
    attributes.add_some(attribute::TRACEGATE_STREAM, record.is_stream().then_some("true"));
    attributes.add_grpc(record.grpc());
    if let Some((side, code)) = record.websocket_close() {
        attributes.add(attribute::TRACEGATE_WEBSOCKET_CLOSE_CODE, code);
        attributes.add(attribute::TRACEGATE_WEBSOCKET_CLOSED_BY, side.word());
    }
    attributes.add_some(attribute::TRACEGATE_STICKY, record.stickiness().map(Sticky::word));
    attributes.add_some(attribute::TRACEGATE_NOT_RETRIED, record.why_not_retried().map(NotRetried::word));
    attributes.add_failure(record.failure());
    attributes.add_some(attribute::TRACEGATE_RULE, record.rule());
    let error = attributes.add_error(ErrorType::of_operation(record));
    attributes.add_business(record);
    attributes.add_disclosed(record);

    let name = exchange.method.in_span_name();
    let parent = record.context.parent.as_ref();
    let own = Own {
        id: record.context.span_id,
        parent: parent.map(|parent| parent.span_id),
        kind: Kind::Server,
        name: route.map_or(name.into(), |route| [name, " ", &*route.template].into()),
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
        None => route.map(|route| &route.upstream_template),
        Some(question) => Some(&question.template),
    };
    let path = template.map_or("", |template| template);
    let (method, endpoint) = (attempt.method(record), &attempt.endpoint);
    let mut attributes = Attributes::default();
    attributes.add(attribute::HTTP_REQUEST_METHOD, method.word());
    attributes.add(attribute::URL_TEMPLATE, template.map_or("".into(), Word::from));
    attributes.add(attribute::URL_FULL, Joined::from([&*endpoint.origin, path]));
    attributes.add(attribute::SERVER_ADDRESS, &endpoint.address);
    attributes.add_some(attribute::SERVER_PORT, endpoint.port.map(Word::number));
    if endpoint.port.is_none() {
        attributes.add(attribute::NETWORK_TRANSPORT, "unix");
        attributes.add(attribute::NETWORK_PEER_ADDRESS, &*endpoint.address);
    }
    attributes.add_some(attribute::HTTP_RESPONSE_STATUS_CODE, attempt.status.map(Word::number));
    attributes.add_grpc(attempt.grpc);
    if attempt.resend_count > 0 {
        attributes.add(attribute::HTTP_REQUEST_RESEND_COUNT, Word::number(attempt.resend_count.into()));
    }
    if let Some(service) = endpoint.service.as_ref() {
        attributes.add(attribute::SERVICE_PEER_NAME, service);
        attributes.add(attribute::PEER_SERVICE, service);
    }
    let connection = attempt.connection;
    if let Some(peer) = connection.peer {
        attributes.add(attribute::NETWORK_PEER_ADDRESS, text(peer.ip()));
        attributes.add(attribute::NETWORK_PEER_PORT, peer.port());
    }
    if attempt.connected {
        attributes.add(attribute::TRACEGATE_CONNECTION, if connection.reused { "reused" } else { "new" });
    }
    attributes.add_some(attribute::TRACEGATE_WAIT_MS, connection.waited.map(milliseconds));
    attributes.add_some(attribute::TRACEGATE_RESOLVE_MS, connection.resolve.map(milliseconds));
    attributes.add_some(attribute::TRACEGATE_CONNECT_MS, connection.connect.map(milliseconds));
    attributes.add_some(attribute::TRACEGATE_HANDSHAKE_MS, connection.handshake.map(milliseconds));
    let since_start = |at: Duration| milliseconds(at.saturating_sub(attempt.started));
    attributes.add_some(attribute::TRACEGATE_REQUEST_SENT_MS, attempt.request_sent.map(since_start));
    attributes.add_some(attribute::TRACEGATE_FIRST_BYTE_MS, attempt.first_byte.map(since_start));
    attributes.add_some(attribute::TRACEGATE_LAST_BYTE_MS, attempt.last_byte.map(since_start));
    attributes.add(attribute::HTTP_REQUEST_BODY_SIZE, size(attempt.request_bytes));
    attributes.add(attribute::HTTP_RESPONSE_BODY_SIZE, size(attempt.response_bytes));
    attributes.add(attribute::TRACEGATE_UPSTREAM, &endpoint.upstream);
    attributes.add_some(attribute::TRACEGATE_RULE, question.map(|question| &question.rule));
    attributes.add_failure(attempt.failure);
    let error = attributes.add_error(ErrorType::of_attempt(attempt));
    attributes.add_business(record);

    let name = method.in_span_name();
    let own = Own {
        id: attempt.span_id,
        parent: Some(record.context.span_id),
        kind: Kind::Client,
        name: route.map_or(name.into(), |_| [name, " ", path].into()),
        start: attempt.started,
        end: attempt.ended,
    };
    Span { error, ..span(record, own, attributes) }
}

/// What the spans of one operation differ in.
#[derive(Clone, Copy)]
struct Own<'a> {
    id: SpanId,
    parent: Option<SpanId>,
    kind: Kind,
    name: Joined<'a>,
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
        state: record.context.state.exported(record.verdict().threshold()),
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
    fn add<K: Key>(&mut self, key: K, value: impl Into<K::Value<'a>>) {
        self.0.push((key.attribute(), value.into().into()));
    }

    fn add_some<K: Key>(&mut self, key: K, value: Option<impl Into<K::Value<'a>>>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    fn add_failure(&mut self, failure: Option<(Reason, Option<Detail>)>) {
        if let Some((reason, detail)) = failure {
            self.add(attribute::TRACEGATE_REASON, reason.word());
            self.add(attribute::TRACEGATE_BLAME, reason.blame().word());
            self.add_some(attribute::TRACEGATE_DETAIL, detail.map(Detail::word));
        }
    }

    fn add_grpc(&mut self, status: Option<u8>) {
        if let Some(status) = status {
            self.add(attribute::RPC_SYSTEM, "grpc");
            self.add(attribute::RPC_GRPC_STATUS_CODE, Word::number(status.into()));
        }
    }

    /// States the error, if there is one, and tells whether.
    fn add_error(&mut self, error: Option<ErrorType>) -> bool {
        match error {
            None => return false,
            Some(ErrorType::Reason(reason)) => self.add(attribute::ERROR_TYPE, reason.word()),
            Some(ErrorType::Status(status)) => self.add(attribute::ERROR_TYPE, Word::digits(status)),
        }
        true
    }

    fn add_business(&mut self, record: &'a Record) {
        self.0.extend(record.attributes().map(|(key, value)| (key, value.into())));
    }

    fn add_disclosed(&mut self, record: &'a Record) {
        let Some(disclosed) = record.disclosed() else { return };
        self.add_some(attribute::URL_QUERY, disclosed.query());
        let headers = disclosed.headers();
        self.0.extend(headers.map(|(key, value)| (key, value.into())));
    }
}

/// An address as it is written; IPv4 without the formatting, which costs ten times as much.
fn text(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push('.');
        }
        for (least, divisor) in [(100, 100), (10, 10), (0, 1)] {
            if octet >= least {
                text.push(char::from(b'0' + octet / divisor % 10));
            }
        }
    }
    text
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
    use std::net::IpAddr;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::{assemble, text};
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
    fn an_address_is_written_as_it_is_displayed() {
        for octet in 0..=255 {
            let address = IpAddr::from([octet, 0, 255, octet]);
            assert_eq!(text(address), address.to_string());
        }
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(text(address), "2001:db8::1");
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
        assert_eq!((server.name, server.kind), ("GET /shop/orders/{order_id}".into(), Kind::Server));
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

        assert_eq!((client.name, client.kind), ("GET /orders/{order_id}".into(), Kind::Client));
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
        assert_eq!((server.name, server.error), ("HTTP".into(), false));
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
