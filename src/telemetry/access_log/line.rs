//! One line of the access log: what it says of an operation, and nothing that names a person.
//!
//! Not in it, because it is the client's text: the path, the query, header values, `X-Request-Id`. Keys of the
//! query, header fields and the client's address are there only if [`Privacy`] allows them.

use std::time::{Duration, UNIX_EPOCH};

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::failure::{Detail, Reason};
use crate::telemetry::operation::{AttemptRecord, Record};
use crate::telemetry::outcome::logged_status;
use crate::telemetry::privacy::{Disclosed, HEADER};
use crate::telemetry::retry::NotRetried;
use crate::telemetry::settings::Privacy;
use crate::telemetry::sticky::Sticky;

/// A line, as JSON. What is not known is left out.
pub(super) struct Line<'a> {
    pub(super) record: &'a Record,
    pub(super) privacy: &'a Privacy,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { record, privacy } = self;
        let route = record.route_labels();
        let reason = record.failure().map(|(reason, _)| reason);
        let last = record.attempts().last();
        let attempts: Vec<&AttemptRecord> = record.attempts().collect();
        let upstream = attempts.iter().map(|attempt| attempt.duration()).sum();
        let asking = record.questions().map(AttemptRecord::duration).sum();

        let mut line = Fields(serializer.serialize_map(None)?);
        line.add("time", &time(record))?;
        line.add("trace_id", &record.context.trace_id.to_string())?;
        line.add("span_id", &record.context.span_id.to_string())?;
        line.add("listener", &*record.listener)?;
        line.add_some("route", route.map(|route| &*route.route))?;
        line.add_some("operation", route.and_then(|route| route.operation.as_deref()))?;
        line.add_some("upstream", route.and_then(|route| route.upstream()).map(|upstream| &**upstream))?;
        line.add_some("endpoint", last.map(|attempt| &*attempt.endpoint.endpoint))?;
        line.add("attempts", &attempts.len())?;
        line.add("method", record.exchange.method.word())?;
        line.add_some("template", route.map(|route| &*route.template))?;
        line.add_some("status", logged_status(record))?;
        line.add_some("reason", reason.map(Reason::word))?;
        line.add_some("blame", reason.map(|reason| reason.blame().word()))?;
        line.add_some("detail", record.failure().and_then(|(_, detail)| detail).map(Detail::word))?;
        line.add_some("rule", record.rule().map(|rule| &**rule))?;
        if let Some(passed) = record.passed_by() {
            line.add("auth_rule", &*passed.rule)?;
            line.add("auth_method", passed.method)?;
            line.add_some("auth_unverified", passed.unverified.map(Detail::word))?;
        }
        line.add_some("sticky", record.stickiness().map(Sticky::word))?;
        line.add_some("grpc_status", record.grpc())?;
        let close = record.websocket_close();
        line.add_some("close_code", close.map(|(_, code)| code))?;
        line.add_some("closed_by", close.map(|(side, _)| side.word()))?;
        line.add_some("not_retried", record.why_not_retried().map(NotRetried::word))?;
        line.add("duration_ms", &milliseconds(record.duration()))?;
        line.add_some("upstream_ms", (!attempts.is_empty()).then(|| milliseconds(upstream)))?;
        line.add_some("auth_ms", record.questions().next().map(|_| milliseconds(asking)))?;
        line.add_some("first_byte_ms", record.time_to_first_byte().map(milliseconds))?;
        line.add("request_bytes", &record.request_body_bytes())?;
        line.add("response_bytes", &record.response_body_bytes())?;
        line.add("protocol", record.exchange.version.word())?;
        line.add("scheme", record.exchange.scheme.word())?;
        line.add("sampled", &record.verdict().sampled())?;
        line.add_some("query", record.disclosed().and_then(Disclosed::query))?;
        line.add_some("client", privacy.client_address(&record.client))?;
        line.add_some("client_role", record.client_role.as_deref())?;
        let attributes = Attributes(record);
        line.add_some("attributes", record.attributes().next().map(|_| attributes))?;
        let headers = record.disclosed().filter(|disclosed| disclosed.headers().next().is_some());
        line.add_some("headers", headers.map(Headers))?;
        line.0.end()
    }
}

struct Fields<M>(M);

impl<M: SerializeMap> Fields<M> {
    fn add<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), M::Error> {
        self.0.serialize_entry(key, value)
    }

    fn add_some(&mut self, key: &'static str, value: Option<impl Serialize>) -> Result<(), M::Error> {
        value.map_or(Ok(()), |value| self.add(key, &value))
    }
}

/// The business attributes, as an object.
struct Attributes<'a>(&'a Record);

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.attributes())
    }
}

/// The listed header fields of the request, as an object.
struct Headers<'a>(&'a Disclosed);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let headers = self.0.headers();
        serializer.collect_map(headers.map(|(key, value)| (key.strip_prefix(HEADER).unwrap_or(key), value)))
    }
}

/// When it began: RFC 3339, UTC, microseconds.
fn time(record: &Record) -> String {
    humantime::format_rfc3339_micros(record.started_at.max(UNIX_EPOCH)).to_string()
}

/// To the microsecond, which is all that a reader can use.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::Line;
    use crate::failure::{Detail, Failure, Reason};
    use crate::telemetry::operation::{Attempt, Operation, Record, Sink};
    use crate::telemetry::settings::{ClientAddress, Privacy};
    use crate::telemetry::testing::{self, Bench};

    struct Lines(Mutex<Vec<Value>>, Privacy);

    impl Sink for Lines {
        fn operation_ended(&self, record: &Arc<Record>) {
            let line = serde_json::to_value(Line { record, privacy: &self.1 }).unwrap();
            self.0.lock().unwrap().push(line);
        }
    }

    fn line(client_address: ClientAddress, exchange: impl FnOnce(&Bench, Operation)) -> Value {
        let lines = Arc::new(Lines(Mutex::default(), Privacy { client_address, ..Privacy::default() }));
        let bench = Bench::new(Arc::clone(&lines) as _);
        exchange(&bench, bench.start("GET"));
        lines.0.lock().unwrap().pop().unwrap()
    }

    #[test]
    fn a_line_tells_what_happened_and_where() {
        let mut line = line(ClientAddress::Off, |bench, operation| {
            let handle = operation.handle().clone();
            handle.route(&bench.route);
            handle.attribute(0, b"4711");
            let mut attempt = Attempt::start(&handle, &bench.endpoint);
            attempt.fail(&Failure::new(Reason::UpstreamReset).detail(Detail::StreamReset));
            drop(attempt);
            handle.fail(&Failure::new(Reason::UpstreamReset).detail(Detail::StreamReset));
            handle.request_bytes(10);
            handle.response_bytes(20);
            testing::answer(operation, 502);
        });
        let fields = line.as_object_mut().unwrap();
        let time = fields.remove("time").unwrap();
        let time = time.as_str().unwrap();
        assert!(time.len() == "2025-01-01T00:00:00.000000Z".len() && time.ends_with('Z'), "{time}");
        assert_eq!(fields.remove("trace_id").unwrap().as_str().unwrap().len(), 32);
        assert_eq!(fields.remove("span_id").unwrap().as_str().unwrap().len(), 16);
        for duration in ["duration_ms", "upstream_ms", "first_byte_ms"] {
            assert!(fields.remove(duration).unwrap().is_f64(), "{duration}");
        }
        assert_eq!(
            line,
            json!({
                "listener": "public", "route": "order_read", "operation": "order.read", "upstream": "shop",
                "endpoint": "shop.internal:9001", "attempts": 1, "method": "GET",
                "template": "/shop/orders/{order_id}", "status": 502, "reason": "upstream_reset",
                "blame": "upstream", "detail": "stream_reset", "request_bytes": 10, "response_bytes": 20,
                "protocol": "1.1", "scheme": "http", "sampled": true, "attributes": { "order.id": "4711" },
            })
        );
    }

    #[test]
    fn a_client_that_leaves_before_the_answer_is_logged_as_499() {
        let line = line(ClientAddress::Off, |_, operation| drop(operation));
        assert_eq!((&line["status"], &line["reason"]), (&json!(499), &json!("client_gone")));
        assert!(line.get("route").is_none() && line.get("attributes").is_none());
        assert!(line.get("client").is_none());
    }

    #[test]
    fn a_client_that_leaves_in_the_answer_keeps_the_status_it_was_sent() {
        let line = line(ClientAddress::Full, |_, operation| operation.handle().head(200));
        assert_eq!((&line["status"], &line["reason"]), (&json!(200), &json!("client_gone")));
        assert_eq!(line["client"], json!("192.0.2.77"));
    }
}
