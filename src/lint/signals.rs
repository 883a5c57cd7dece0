//! Telemetry taken to pieces: every text in it with the field that it stands in. Nothing is taken for granted of
//! what the gateway's own encoders write: fields that nobody knows are looked at as well.

use serde_json::Value;

use super::search::Field;

/// The texts of an OTLP export, from its bytes.
pub(super) fn otlp(signal: &'static str, message: &[u8]) -> Vec<Field> {
    let mut found = Vec::new();
    walk(message, &mut Vec::new(), None, &mut found);
    found.into_iter().map(|(name, text)| Field { signal, name, text }).collect()
}

/// The texts of lines of JSON, or of one document.
pub(super) fn json(signal: &'static str, text: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    for line in text.lines() {
        match serde_json::from_str(line) {
            Ok(value) => in_value(signal, String::new(), &value, &mut fields),
            Err(_) => fields.push(Field { signal, name: "a line".to_owned(), text: line.to_owned() }),
        }
    }
    fields
}

/// The lines of a text, each by the word it begins with.
pub(super) fn lines(signal: &'static str, text: &str) -> Vec<Field> {
    let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    text.lines().map(|line| Field { signal, name: name(line), text: line.to_owned() }).collect()
}

fn in_value(signal: &'static str, name: String, value: &Value, fields: &mut Vec<Field>) {
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(key, value)| in_value(signal, below(key), value, fields));
        }
        Value::Array(values) => values.iter().for_each(|value| in_value(signal, below("[]"), value, fields)),
        Value::String(text) => fields.push(Field { signal, name, text: text.clone() }),
        other => fields.push(Field { signal, name, text: other.to_string() }),
    }
}

/// The texts of a protobuf message (<https://protobuf.dev/programming-guides/encoding/>). What has a length may
/// be text or a message or both, so it is taken for both. `key` is the attribute that a value belongs to.
fn walk(
    message: &[u8],
    path: &mut Vec<u64>,
    key: Option<&str>,
    found: &mut Vec<(String, String)>,
) -> Option<()> {
    let members = members(message)?;
    let own = members.iter().find(|(number, _)| *number == 1).and_then(|(_, bytes)| as_text(bytes));
    for (number, bytes) in &members {
        path.push(*number);
        let beside = own.filter(|_| *number != 1).or(key);
        if let Some(text) = as_text(bytes) {
            found.push((named(path, beside), text.to_owned()));
        }
        walk(bytes, path, beside, found);
        path.pop();
    }
    Some(())
}

/// The members of a message that have a length; `None` if it is no message.
fn members(mut rest: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut members = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let length = match key & 7 {
            0 => {
                varint(&mut rest)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (bytes, after) = rest.split_at_checked(length)?;
        rest = after;
        if key & 7 == 2 {
            members.push((key >> 3, bytes));
        }
    }
    Some(members)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let length = rest.iter().take(MAX_VARINT).position(|byte| byte & 0x80 == 0)? + 1;
    let (digits, after) = rest.split_at(length);
    *rest = after;
    Some(digits.iter().rev().fold(0, |number, digit| number << 7 | u64::from(digit & 0x7f)))
}

fn as_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

/// What OpenTelemetry calls the member at the end of this path.
fn named(path: &[u64], key: Option<&str>) -> String {
    let part = match path {
        [1, 1, ..] => "resource attribute",
        [1, 2, 1, ..] => "scope",
        [1, 2, 2, 3] => "tracestate",
        [1, 2, 2, 5] => "name",
        [1, 2, 2, 9, ..] => "attribute",
        [1, 2, 2, 11, ..] => "event",
        [1, 2, 2, 13, ..] => "link",
        [1, 2, 2, 15, ..] => "status",
        _ => "member",
    };
    key.map_or_else(|| part.to_owned(), |key| format!("{part} {key}"))
}

const MAX_VARINT: usize = 10;

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
    use prost::Message;

    use super::{json, lines, otlp};

    fn attribute(key: &str, value: &str) -> KeyValue {
        let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
        KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
    }

    #[test]
    fn every_text_of_a_span_is_seen_under_its_name() {
        let span = Span {
            trace_id: vec![0xff; 16],
            name: "GET /x".into(),
            trace_state: "ot=th:0".into(),
            attributes: vec![attribute("a.key", "one")],
            events: vec![Event {
                name: "happened".into(),
                attributes: vec![attribute("b.key", "two")],
                ..Event::default()
            }],
            links: vec![Link { trace_state: "three=3".into(), ..Link::default() }],
            status: Some(Status { message: "four".into(), ..Status::default() }),
            ..Span::default()
        };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let export = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }],
        };
        let found = otlp("spans", &export.encode_to_vec());
        for (name, text) in [
            ("name", "GET /x"),
            ("tracestate", "ot=th:0"),
            ("attribute", "a.key"),
            ("attribute a.key", "one"),
            ("event", "b.key"),
            ("event b.key", "two"),
            ("link", "three=3"),
            ("status", "four"),
        ] {
            let there = found.iter().any(|field| field.name.starts_with(name) && field.text == text);
            assert!(there, "{name}: {text} in {found:#?}");
        }
    }

    #[test]
    fn every_text_of_json_and_every_line_of_text_is_seen() {
        let found = json("access log", "{\"a\":{\"b\":[\"x\",1]},\"c\":true}\nno JSON\n");
        let found: Vec<_> = found.iter().map(|field| (field.name.as_str(), field.text.as_str())).collect();
        assert_eq!(found, [("a.b.[]", "x"), ("a.b.[]", "1"), ("c", "true"), ("a line", "no JSON")]);
        assert_eq!(lines("metrics", "a_total{x=\"y\"} 1\n")[0].name, "a_total");
    }
}
