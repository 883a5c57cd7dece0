//! What the admin address shows and cannot know itself.

use serde_json::Value;

use crate::telemetry::metrics::Format;

/// The gateway, as the admin address sees it.
pub trait Control: Send + Sync {
    /// Whether new requests are welcome; `false` from the moment the gateway begins to drain.
    fn ready(&self) -> bool;

    /// The metrics page. May take long: it is called where blocking is allowed.
    fn metrics(&self, format: Format) -> String;

    /// Listeners, routes, upstreams and telemetry, as an object; shown beside version and uptime.
    fn status(&self) -> Value;
}
