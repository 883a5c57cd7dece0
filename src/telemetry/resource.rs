//! The resource: what the telemetry is of.

use std::collections::BTreeMap;

use super::settings::Settings;

/// The resource's attributes, sorted by key. What is configured has the last word.
pub fn attributes(settings: &Settings) -> BTreeMap<String, String> {
    let own = [
        ("service.name", &*settings.service_name),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", &*instance_id()),
        // our own: "opentelemetry" is the name of the official libraries alone
        ("telemetry.sdk.name", "tracegate"),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    let configured = settings.resource.iter().map(|(key, value)| (&**key, &**value));
    own.into_iter().chain(configured).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A random UUID (RFC 9562 section 5.4), new at every start.
fn instance_id() -> String {
    let random = rand::random::<u128>() & !(0xf << 76) & !(0b11 << 62) | 0x4 << 76 | 0b10 << 62;
    let hex = format!("{random:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
