//! What the admin address shows and cannot know itself.

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::telemetry::metrics::Format;

/// The gateway, as the admin address sees it.
pub trait Control: Send + Sync {
    /// Whether new requests are welcome; `false` from the moment the gateway begins to drain.
    fn ready(&self) -> bool;

    /// The metrics page. May take long: it is called where blocking is allowed.
    fn metrics(&self, format: Format) -> String;

    /// Takes an endpoint, `host:port`, of an upstream out of use or back in; `false` if there is none like that.
    fn set_in_use(&self, upstream: &str, endpoint: &str, in_use: bool) -> bool;

    /// Puts a route in maintenance or takes it out of it; `None` leaves it to the file. `false`: there is none of
    /// this name.
    fn set_maintenance(&self, route: &str, wanted: Option<bool>) -> bool;

    /// Listeners, routes, upstreams and telemetry, as an object; shown beside version and uptime.
    fn status(&self) -> Value;

    /// Reads the configuration again and puts it in force, or refuses it. Takes milliseconds, on another thread.
    fn reload(&self) -> BoxFuture<'static, Reloaded>;
}

/// What a reload came to.
#[derive(Debug)]
pub struct Reloaded {
    /// Whether what was read is in force now.
    pub accepted: bool,
    /// What has changed, or what is wrong.
    pub report: Value,
}
