//! Spans as Zipkin's API v2 has them in JSON, field by field as OpenTelemetry's transformation says:
//! <https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/zipkin/>.
//!
//! Where it leaves a choice: attributes of the resource are tags too, `tracestate` and links are not sent.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

use crate::telemetry::span::{Kind, Span, Value};

/// A list of spans, as far as it has been written.
#[derive(Debug, Default)]
pub(super) struct List(Vec<u8>);

impl List {
    /// One more, of this resource.
    pub(super) fn add(&mut self, resource: &BTreeMap<String, String>, span: &Span<'_>) {
        self.0.push(if self.0.is_empty() { b'[' } else { b',' });
        let written = serde_json::to_writer(&mut self.0, &ZipkinSpan { resource, span });
        written.expect("a span has only text keys and goes to memory");
    }

    /// All of it.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(if self.0.is_empty() { b"[]" } else { b"]" });
        self.0
    }
}

struct ZipkinSpan<'a> {
    resource: &'a BTreeMap<String, String>,
    span: &'a Span<'a>,
}

impl Serialize for ZipkinSpan<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { resource, span } = self;
        let mut json = serializer.serialize_struct("Span", 9)?;
        json.serialize_field("traceId", &Text(span.trace_id))?;
        json.serialize_field("id", &Text(span.id))?;
        match span.parent {
            Some(parent) => json.serialize_field("parentId", &Text(parent))?,
            None => json.skip_field("parentId")?,
        }
        json.serialize_field("name", &Text(span.name))?;
        match span.kind {
            Kind::Server => json.serialize_field("kind", "SERVER")?,
            Kind::Client => json.serialize_field("kind", "CLIENT")?,
            Kind::Internal => json.skip_field("kind")?,
        }
        json.serialize_field("timestamp", &microseconds(span.start))?;
        // zero would be no duration
        json.serialize_field("duration", &microseconds(span.end.saturating_sub(span.start)).max(1))?;
        let service = resource.get("service.name").map(String::as_str);
        json.serialize_field("localEndpoint", &Endpoint { service, address: None, port: None })?;
        match remote(span) {
            Some(remote) => json.serialize_field("remoteEndpoint", &remote)?,
            None => json.skip_field("remoteEndpoint")?,
        }
        json.serialize_field("tags", &Tags(self))?;
        json.end()
    }
}

/// Whom a CLIENT span called: the service's name, else the server's, and the address at the other end.
fn remote<'a>(span: &'a Span<'_>) -> Option<Endpoint<'a>> {
    if span.kind != Kind::Client {
        return None;
    }
    let port = span.attributes.iter().find_map(|(key, value)| match value {
        Value::Integer(port) if *key == "network.peer.port" => u16::try_from(*port).ok(),
        _ => None,
    });
    let address = span.text("network.peer.address").and_then(|address| address.parse().ok());
    let service = span.text("peer.service").or_else(|| span.text("server.address"));
    let known = service.is_some() || address.is_some();
    known.then(|| Endpoint { service, address, port: address.and(port) })
}

struct Endpoint<'a> {
    service: Option<&'a str>,
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl Serialize for Endpoint<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut json = serializer.serialize_map(None)?;
        if let Some(service) = self.service {
            json.serialize_entry("serviceName", service)?;
        }
        match self.address {
            Some(IpAddr::V4(address)) => json.serialize_entry("ipv4", &address)?,
            Some(IpAddr::V6(address)) => json.serialize_entry("ipv6", &address)?,
            None => {}
        }
        if let Some(port) = self.port {
            json.serialize_entry("port", &port)?;
        }
        json.end()
    }
}

/// Attributes of span and resource, scope and status: all as text.
struct Tags<'a>(&'a ZipkinSpan<'a>);

impl Serialize for Tags<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ZipkinSpan { resource, span } = self.0;
        let mut json = serializer.serialize_map(None)?;
        for (key, value) in &span.attributes {
            json.serialize_entry(key, &Text(value))?;
        }
        let is_of_span = |key: &str| span.attributes.iter().any(|(known, _)| *known == key);
        for (key, value) in *resource {
            if key != "service.name" && !is_of_span(key) {
                json.serialize_entry(key, value)?;
            }
        }
        json.serialize_entry("otel.scope.name", "tracegate")?;
        json.serialize_entry("otel.scope.version", env!("CARGO_PKG_VERSION"))?;
        if span.error {
            json.serialize_entry("otel.status_code", "ERROR")?;
            // the description, which there is none of; Zipkin goes by the tag
            json.serialize_entry("error", "")?;
        }
        json.end()
    }
}

/// Something as the text that it is displayed as.
struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

fn microseconds(nanoseconds: u64) -> u64 {
    nanoseconds / 1000
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value as Json, json};

    use super::List;
    use crate::telemetry::context::{Flags, SpanId, TraceId};
    use crate::telemetry::span::{Kind, Span, Value};

    fn span(kind: Kind, attributes: Vec<(&'static str, Value<'static>)>) -> Span<'static> {
        Span {
            trace_id: TraceId([0xab; 16]),
            id: SpanId([1; 8]),
            parent: Some(SpanId([2; 8])),
            parent_is_remote: true,
            flags: Flags(3),
            state: "".into(),
            kind,
            name: "GET /shop".into(),
            start: 1_700_000_000_123_456_789,
            end: 1_700_000_000_123_456_789 + 1_234_567,
            attributes,
            links: Vec::new(),
            error: false,
        }
    }

    fn encoded_all(spans: &[Span<'_>]) -> Vec<Json> {
        let resource = [("service.name", "api-gateway"), ("deployment.environment.name", "test")];
        let resource = BTreeMap::from(resource.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let mut list = List::default();
        for span in spans {
            list.add(&resource, span);
        }
        serde_json::from_slice(&list.end()).unwrap()
    }

    fn encoded(span: &Span<'_>) -> Json {
        encoded_all(std::slice::from_ref(span)).remove(0)
    }

    #[test]
    fn a_list_has_as_many_as_were_added() {
        let spans = [Kind::Server, Kind::Client, Kind::Internal].map(|kind| span(kind, Vec::new()));
        for count in 0..=3 {
            let each: Vec<_> = spans[..count].iter().map(encoded).collect();
            assert_eq!(encoded_all(&spans[..count]), each);
        }
    }

    #[test]
    fn a_server_span_has_every_field() {
        let attributes = vec![
            ("http.response.status_code", 200_u16.into()),
            ("order.id", "o-1".into()),
            ("a", 0.5.into()),
        ];
        assert_eq!(
            encoded(&span(Kind::Server, attributes)),
            json!({
                "traceId": "abababababababababababababababab",
                "id": "0101010101010101",
                "parentId": "0202020202020202",
                "name": "GET /shop",
                "kind": "SERVER",
                "timestamp": 1_700_000_000_123_456_u64,
                "duration": 1234,
                "localEndpoint": { "serviceName": "api-gateway" },
                "tags": {
                    "http.response.status_code": "200",
                    "order.id": "o-1",
                    "a": "0.5",
                    "deployment.environment.name": "test",
                    "otel.scope.name": "tracegate",
                    "otel.scope.version": env!("CARGO_PKG_VERSION"),
                },
            })
        );
    }

    #[test]
    fn a_client_span_names_whom_it_called() {
        let server = ("server.address", Value::from("shop.internal"));
        let peer = ("network.peer.address", Value::from("10.0.0.7"));
        let peer6 = ("network.peer.address", Value::from("2001:db8::7"));
        let port = ("network.peer.port", Value::from(9001_u16));
        for (attributes, expected) in [
            (
                vec![server.clone(), ("peer.service", "shop-api".into()), peer.clone(), port.clone()],
                json!({ "serviceName": "shop-api", "ipv4": "10.0.0.7", "port": 9001 }),
            ),
            (
                vec![server.clone(), peer6, port.clone()],
                json!({ "serviceName": "shop.internal", "ipv6": "2001:db8::7", "port": 9001 }),
            ),
            (vec![server, port], json!({ "serviceName": "shop.internal" })),
            (vec![peer], json!({ "ipv4": "10.0.0.7" })),
        ] {
            assert_eq!(encoded(&span(Kind::Client, attributes))["remoteEndpoint"], expected);
        }
    }

    #[test]
    fn an_error_is_two_tags_and_what_is_not_there_is_left_out() {
        let root = Span { parent: None, error: true, ..span(Kind::Server, Vec::new()) };
        let json = encoded(&Span { end: root.start, ..root });
        assert_eq!(
            (&json["tags"]["otel.status_code"], &json["tags"]["error"]),
            (&json!("ERROR"), &json!(""))
        );
        assert_eq!(json["duration"], 1);
        let fields = json.as_object().unwrap();
        assert!(!fields.contains_key("parentId") && !fields.contains_key("remoteEndpoint"), "{json}");
    }

    #[test]
    fn an_attribute_of_the_span_wins_over_one_of_the_resource() {
        let attributes = vec![("deployment.environment.name", "span".into())];
        assert_eq!(encoded(&span(Kind::Server, attributes))["tags"]["deployment.environment.name"], "span");
    }
}
