//! What the admin address shows and cannot know itself.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;

use crate::telemetry::hour::Hour;
use crate::telemetry::metrics::Format;
use crate::telemetry::recent::Recent;

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

    /// Lets the gateway's own diagnostics have this level, until the next reload that changes something; `None`
    /// leaves it to what it was started with. `false`: nobody can change it here.
    fn set_log_level(&self, level: Option<LogLevel>) -> bool;

    /// Exports this share of new traces whose route does not say otherwise, until the next reload that changes
    /// something; `None` leaves it to the file.
    fn set_sampling(&self, ratio: Option<f64>);

    /// Listeners, routes, upstreams and telemetry, as an object; shown beside version and uptime.
    fn status(&self) -> Value;

    /// Reads the configuration again and puts it in force, or refuses it. Takes milliseconds, on another thread.
    fn reload(&self) -> BoxFuture<'static, Reloaded>;

    /// The recent exchanges.
    fn recent(&self) -> Arc<Recent>;

    /// The last hour of each route.
    fn hour(&self) -> Arc<Hour>;

    /// The routes in force, by name.
    fn routes(&self) -> Vec<RouteFacts>;

    /// The upstreams with their endpoints, as a list.
    fn upstreams(&self) -> Value;

    /// The listeners' certificates and when they expire, as a list.
    fn certificates(&self) -> Value;

    /// Which configuration is in force, what was changed at run time, and the last reloads.
    fn reloads(&self) -> Value;

    /// What became of all telemetry, and whether it adds up.
    fn telemetry(&self) -> Value;
}

/// What a reload came to.
#[derive(Debug)]
pub struct Reloaded {
    /// Whether what was read is in force now.
    pub accepted: bool,
    /// What has changed, or what is wrong.
    pub report: Value,
}

/// A level of diagnostics.
pub type LogLevel = tracing::level_filters::LevelFilter;

/// What is configured of a route.
#[derive(Debug, Clone, Serialize)]
pub struct RouteFacts {
    /// Its key.
    pub name: String,
    /// Its path template.
    pub template: String,
    /// Its methods; none is any.
    pub methods: Vec<String>,
    /// Its upstreams; none if it answers itself.
    pub upstreams: Vec<String>,
    /// Its business operation.
    pub operation: Option<String>,
    /// Whether it is in maintenance now.
    pub maintenance: bool,
    /// From when on its exchanges are slow, in milliseconds.
    pub slow_after_ms: Option<f64>,
}
