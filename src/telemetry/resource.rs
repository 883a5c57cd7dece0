//! The resource: what the telemetry is of.

use std::collections::BTreeMap;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{ResourceDetector as _, TelemetryResourceDetector};

use super::settings::Settings;

/// The resource's attributes, sorted by key. What is configured has the last word.
pub fn attributes(settings: &Settings) -> BTreeMap<String, String> {
    let library = TelemetryResourceDetector.detect();
    let mut attributes: BTreeMap<String, String> =
        library.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    attributes.insert("service.name".to_owned(), settings.service_name.to_string());
    attributes.insert("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    attributes.insert("service.instance.id".to_owned(), instance_id());
    attributes.extend(settings.resource.iter().map(|(key, value)| (key.to_string(), value.to_string())));
    attributes
}

/// The same as opentelemetry has it.
pub(super) fn resource(attributes: &BTreeMap<String, String>) -> Resource {
    let attributes = attributes.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty().with_attributes(attributes).build()
}

/// A random UUID (RFC 9562 section 5.4), new at every start.
fn instance_id() -> String {
    let random = rand::random::<u128>() & !(0xf << 76) & !(0b11 << 62) | 0x4 << 76 | 0b10 << 62;
    let hex = format!("{random:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
