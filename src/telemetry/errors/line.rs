//! One error record as a line: nested objects of the Elastic Common Schema, and nothing that names a person.
//!
//! Every text in it is of a closed vocabulary or of the configuration; of the client there are the business
//! attributes that a route names and what [`Privacy`] allows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::failure::{Blame, Detail, Reason};
use crate::telemetry::operation::Record;
use crate::telemetry::outcome::{ErrorType, logged_status};
use crate::telemetry::privacy::{Disclosed, HEADER};
use crate::telemetry::settings::Privacy;

/// A record that is to become a line.
pub(super) struct Line<'a> {
    pub(super) record: &'a Record,
    pub(super) service: &'a Service,
    pub(super) privacy: &'a Privacy,
}

/// Whose records they are.
#[derive(Debug, Default)]
pub(super) struct Service {
    name: String,
    version: String,
    environment: Option<String>,
    node: Option<String>,
}

impl Service {
    /// What the resource's attributes say.
    pub(super) fn of<'a>(resource: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut service = Self::default();
        for (key, value) in resource {
            match key {
                "service.name" => value.clone_into(&mut service.name),
                "service.version" => value.clone_into(&mut service.version),
                "deployment.environment.name" => service.environment = Some(value.to_owned()),
                "service.instance.id" => service.node = Some(value.to_owned()),
                _ => {}
            }
        }
        service
    }
}

impl Line<'_> {
    /// The line, with its line break.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text =
            serde_json::to_vec(&self.document()).expect("a line has only text keys and goes to memory");
        text.push(b'\n');
        text
    }

    fn document(&self) -> Document<'_> {
        let Self { record, service, privacy } = self;
        let route = record.route_labels();
        // an answer from 400 to 499 that is passed on has no reason: it fails the attempt, not the exchange
        let (reason, detail) = record.failure().unwrap_or((Reason::UpstreamStatus, None));
        let status = logged_status(record);
        let last = record.attempts().last();
        let start = record.started_at.max(UNIX_EPOCH);
        let (trace_id, span_id) = (record.context.trace_id.to_string(), record.context.span_id.to_string());
        Document {
            timestamp: time(start),
            ecs: Ecs { version: ECS_VERSION },
            message: message(record, status, reason, detail),
            log: Log { level: level(record) },
            event: About {
                id: format!("{trace_id}-{span_id}"),
                kind: "event",
                category: ["web"],
                r#type: ["access", "error"],
                dataset: "tracegate.error",
                reason: reason.word(),
                outcome: "failure",
                duration: u64::try_from(record.duration().as_nanos()).unwrap_or(u64::MAX),
                start: time(start),
                end: time(start + record.duration()),
            },
            trace: Id { id: trace_id },
            transaction: Id { id: span_id.clone() },
            span: Id { id: span_id },
            http: Http {
                version: record.exchange.version.word(),
                request: Message {
                    method: Some(record.exchange.method.word()),
                    status_code: None,
                    body: Body { bytes: record.request_body_bytes() },
                },
                response: Message {
                    method: None,
                    status_code: status,
                    body: Body { bytes: record.response_body_bytes() },
                },
            },
            url: Url {
                path: route.map_or("REDACTED", |route| &route.template),
                query: record.disclosed().and_then(Disclosed::query),
            },
            error: Error { r#type: error_type(record, reason, status).word(), message: reason.meaning() },
            service: Services {
                name: &service.name,
                version: &service.version,
                environment: service.environment.as_deref(),
                node: service.node.as_deref().map(|name| Named { name }),
                target: route.and_then(|route| route.upstream()).map(|name| Named { name }),
            },
            destination: last.map(|attempt| Destination {
                address: &attempt.endpoint.address,
                port: attempt.endpoint.port,
            }),
            client: privacy.client_address(&record.client).map(|address| Client { address }),
            labels: labels(record),
        }
    }
}

/// Flat texts: a label's key has no dots.
fn labels(record: &Record) -> BTreeMap<Cow<'_, str>, Cow<'_, str>> {
    let mut labels = BTreeMap::new();
    for (key, value) in record.attributes() {
        labels.insert(key.replace('.', "_").into(), value.into());
    }
    for (key, value) in record.disclosed().into_iter().flat_map(Disclosed::headers) {
        let name = key.strip_prefix(HEADER).unwrap_or(key).replace(['.', '-'], "_");
        labels.insert(format!("header_{name}").into(), value.into());
    }
    let blame = record.failure().map(|(reason, _)| reason.blame());
    let detail = record.failure().and_then(|(_, detail)| detail);
    let attempt = record.attempts().last().map(|attempt| (1 + attempt.resend_count).to_string());
    let route = record.route_labels();
    let passed = record.passed_by();
    let own: [(&str, Option<Cow<'_, str>>); 12] = [
        ("route", route.map(|route| (&*route.route).into())),
        ("operation", route.and_then(|route| route.operation.as_deref()).map(Into::into)),
        ("attempt", attempt.map(Into::into)),
        ("blame", blame.map(|blame| blame.word().into())),
        ("detail", detail.map(|detail| detail.word().into())),
        ("not_retried", record.why_not_retried().map(|why| why.word().into())),
        ("rule", record.rule().map(|rule| (&**rule).into())),
        ("role", record.client_role.as_deref().map(Into::into)),
        ("auth_rule", passed.map(|passed| (&*passed.rule).into())),
        ("auth_method", passed.map(|passed| passed.method.into())),
        ("auth_unverified", passed.and_then(|passed| passed.unverified).map(|why| why.word().into())),
        ("sticky", record.stickiness().map(|went| went.word().into())),
    ];
    let own = own.into_iter().filter_map(|(key, value)| Some((key.into(), value?)));
    labels.extend(own);
    labels
}

/// What a person reads first.
fn message(record: &Record, status: Option<u16>, reason: Reason, detail: Option<Detail>) -> String {
    let method = record.exchange.method.in_span_name();
    let path = record.route_labels().map_or("(no route)", |route| &route.template);
    let status = status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    let detail = detail.map(|detail| format!(" ({})", detail.word())).unwrap_or_default();
    format!("{method} {path}: {status} {}{detail}", reason.word())
}

/// What the client did wrong, or chose to, is no error of this system.
fn level(record: &Record) -> &'static str {
    match record.failure().map(|(reason, _)| reason.blame()) {
        Some(Blame::Gateway | Blame::Upstream) => "error",
        Some(Blame::Client) | None => "warn",
    }
}

/// As on the span, if that is an error: else the refusal's reason, or the status that was passed on.
fn error_type(record: &Record, reason: Reason, status: Option<u16>) -> ErrorType {
    let error = ErrorType::of_operation(record);
    error.unwrap_or(match status {
        Some(status) if reason == Reason::UpstreamStatus => ErrorType::Status(status),
        _ => ErrorType::Reason(reason),
    })
}

/// RFC 3339, UTC, nanoseconds.
fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_nanos(time).to_string()
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: String,
    ecs: Ecs,
    message: String,
    log: Log,
    event: About,
    trace: Id,
    span: Id,
    transaction: Id,
    http: Http,
    url: Url<'a>,
    error: Error<'a>,
    service: Services<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<Destination<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Client>,
    labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

#[derive(Serialize)]
struct Ecs {
    version: &'static str,
}

#[derive(Serialize)]
struct Log {
    level: &'static str,
}

#[derive(Serialize)]
struct About {
    id: String,
    kind: &'static str,
    category: [&'static str; 1],
    r#type: [&'static str; 2],
    dataset: &'static str,
    reason: &'static str,
    outcome: &'static str,
    /// In nanoseconds.
    duration: u64,
    start: String,
    end: String,
}

#[derive(Serialize)]
struct Id {
    id: String,
}

#[derive(Serialize)]
struct Http {
    version: &'static str,
    request: Message,
    response: Message,
}

#[derive(Serialize)]
struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    body: Body,
}

#[derive(Serialize)]
struct Body {
    bytes: u64,
}

#[derive(Serialize)]
struct Url<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
}

#[derive(Serialize)]
struct Error<'a> {
    r#type: Cow<'a, str>,
    message: &'static str,
}

#[derive(Serialize)]
struct Services<'a> {
    name: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Named<'a>>,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Destination<'a> {
    address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[derive(Serialize)]
struct Client {
    address: IpAddr,
}

/// The version of the Elastic Common Schema whose fields these are.
const ECS_VERSION: &str = "8.17.0";

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::{Line, Service};
    use crate::failure::{Detail, Failure, Reason};
    use crate::telemetry::operation::{Attempt, Operation, Record, Sink};
    use crate::telemetry::settings::Privacy;
    use crate::telemetry::testing::{self, Bench};

    struct Lines(Mutex<Vec<String>>);

    impl Sink for Lines {
        fn operation_ended(&self, record: &Arc<Record>) {
            let resource = [
                ("deployment.environment.name", "test"),
                ("service.instance.id", "node-1"),
                ("service.name", "api-gateway"),
                ("service.version", "1.2.3"),
                ("telemetry.sdk.name", "opentelemetry"),
            ];
            let service = Service::of(resource);
            let line = Line { record, service: &service, privacy: &Privacy::default() };
            self.0.lock().unwrap().push(String::from_utf8(line.text()).unwrap());
        }
    }

    fn line(exchange: impl FnOnce(&Bench, Operation)) -> Value {
        let lines = Arc::new(Lines(Mutex::default()));
        let bench = Bench::new(Arc::clone(&lines) as _);
        exchange(&bench, bench.start("GET"));
        let text = lines.0.lock().unwrap().pop().unwrap();
        assert_eq!(text.find('\n'), Some(text.len() - 1), "one line");
        serde_json::from_str(&text).unwrap()
    }

    fn take(line: &mut Value, pointer: &str) -> Value {
        std::mem::take(line.pointer_mut(pointer).unwrap())
    }

    #[test]
    fn a_line_has_the_objects_of_the_common_schema() {
        let mut line = line(|bench, operation| {
            let handle = operation.handle().clone();
            handle.route(&bench.route);
            handle.attribute(0, b"4711");
            for reason in [Reason::ConnectRefused, Reason::UpstreamReset] {
                let mut attempt = Attempt::start(&handle, &bench.endpoint);
                attempt.fail(&reason.into());
            }
            let secret = "what the endpoint said";
            handle.fail(&Failure::new(Reason::UpstreamReset).detail(Detail::StreamReset).because(secret));
            handle.request_bytes(10);
            handle.response_bytes(20);
            testing::answer(operation, 502);
        });
        let (trace, span) = (take(&mut line, "/trace/id"), take(&mut line, "/span/id"));
        let (trace, span) = (trace.as_str().unwrap(), span.as_str().unwrap());
        assert_eq!((trace.len(), span.len()), (32, 16));
        assert_eq!(take(&mut line, "/transaction/id"), span);
        assert_eq!(take(&mut line, "/event/id"), format!("{trace}-{span}"));
        let start = take(&mut line, "/event/start");
        assert_eq!(take(&mut line, "/@timestamp"), start);
        let time = |text: &Value| humantime::parse_rfc3339(text.as_str().unwrap()).unwrap();
        let took = time(&take(&mut line, "/event/end")).duration_since(time(&start)).unwrap();
        assert_eq!(take(&mut line, "/event/duration"), json!(u64::try_from(took.as_nanos()).unwrap()));
        assert_eq!(
            line,
            json!({
                "@timestamp": null,
                "ecs": { "version": "8.17.0" },
                "message": "GET /shop/orders/{order_id}: 502 upstream_reset (stream_reset)",
                "log": { "level": "error" },
                "event": {
                    "id": null, "kind": "event", "category": ["web"], "type": ["access", "error"],
                    "dataset": "tracegate.error", "reason": "upstream_reset", "outcome": "failure",
                    "duration": null, "start": null, "end": null,
                },
                "trace": { "id": null },
                "span": { "id": null },
                "transaction": { "id": null },
                "http": {
                    "version": "1.1",
                    "request": { "method": "GET", "body": { "bytes": 10 } },
                    "response": { "status_code": 502, "body": { "bytes": 20 } },
                },
                "url": { "path": "/shop/orders/{order_id}" },
                "error": {
                    "type": "upstream_reset",
                    "message": "The endpoint broke the connection before its answer.",
                },
                "service": {
                    "name": "api-gateway", "version": "1.2.3", "environment": "test",
                    "node": { "name": "node-1" }, "target": { "name": "shop" },
                },
                "destination": { "address": "shop.internal", "port": 9001 },
                "labels": {
                    "route": "order_read", "operation": "order.read", "order_id": "4711", "attempt": "2",
                    "blame": "upstream", "detail": "stream_reset",
                },
            })
        );
    }

    #[test]
    fn what_is_said_depends_on_whose_fault_it_is() {
        /// Reason stated, status sent; then level, reason, `error.type` and the beginning of the message.
        type Case = (Option<Reason>, Option<u16>, [&'static str; 4]);
        let cases: [Case; 5] = [
            (
                Some(Reason::NoRoute),
                Some(404),
                ["warn", "no_route", "no_route", "GET (no route): 404 no_route"],
            ),
            (
                Some(Reason::ClientGone),
                None,
                ["warn", "client_gone", "client_gone", "GET (no route): 499 client_gone"],
            ),
            (
                Some(Reason::UpstreamStatus),
                Some(503),
                ["error", "upstream_status", "503", "GET (no route): 503 upstream_status"],
            ),
            (None, Some(409), ["warn", "upstream_status", "409", "GET (no route): 409 upstream_status"]),
            (Some(Reason::Panic), Some(500), ["error", "panic", "panic", "GET (no route): 500 panic"]),
        ];
        for (reason, status, expected) in cases {
            let line = line(|_, operation| {
                if let Some(reason) = reason {
                    operation.handle().fail(&reason.into());
                }
                match status {
                    Some(status) => testing::answer(operation, status),
                    None => drop(operation),
                }
            });
            let said = ["/log/level", "/event/reason", "/error/type", "/message"];
            assert_eq!(said.map(|pointer| line.pointer(pointer).unwrap().as_str().unwrap()), expected);
            let blame = reason.map(|reason| json!(reason.blame().word()));
            assert_eq!(line["labels"].get("blame"), blame.as_ref(), "{expected:?}");
            assert!(line.get("destination").is_none() && line.get("client").is_none());
            assert_eq!(line["url"]["path"], "REDACTED");
        }
    }
}
