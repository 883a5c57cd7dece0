//! The whole configuration as used: what the files mean once they have been checked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::gateway::configuration::Configuration;
use crate::{admin, http, listener, net, telemetry, upstream};

/// The whole configuration as used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// At least one.
    pub listeners: Vec<listener::Settings>,
    /// The admin address.
    pub admin: admin::Settings,
    /// How names are resolved.
    pub dns: net::DnsSettings,
    /// What is recorded and where it goes.
    pub telemetry: telemetry::settings::Settings,
    /// What several gateways share, sorted by name.
    pub redis: Vec<http::rate_limit::store::Settings>,
    /// Sorted by name. Each names a Redis that is there, if any.
    pub rate_limits: Vec<http::rate_limit::Settings>,
    /// Sorted by name.
    pub auth: Vec<http::auth::Settings>,
    /// Sorted by name.
    pub upstreams: Vec<upstream::Settings>,
    /// Sorted by name. Each names an upstream that is there, and no two tie.
    pub routes: Vec<Arc<http::route::Settings>>,
    /// What they were checked against.
    pub checked: Checked,
    /// How the gateway goes down.
    pub shutdown: Shutdown,
    /// When and how the configuration is read again.
    pub reload: Reload,
    /// The most requests in flight; `None` is no bound.
    pub in_flight: Option<usize>,
    /// Threads that serve; `None` takes `TOKIO_WORKER_THREADS`, else what the CPU limit allows.
    pub workers: Option<usize>,
    /// What all of this was made of.
    pub configuration: Configuration,
}

/// What the check of the routes went by, beside their own values.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// The names that they may refer to.
    pub known: http::file::Known,
    /// The routes whose check looked at files or variables.
    pub looked: BTreeSet<Box<str>>,
}

/// When and how the configuration is read again.
#[derive(Debug, Clone, Copy)]
pub struct Reload {
    /// How often files are looked at; `None` reloads only when told to.
    pub watch: Option<Duration>,
    /// How long a file may go on changing before it is read as it is.
    pub max_wait: Duration,
    /// How long streams on a route that has been removed may go on; `None` is as long as they like.
    pub grace: Option<Duration>,
}

/// How the gateway goes down.
#[derive(Debug, Clone, Copy)]
pub struct Shutdown {
    /// How long it still accepts after `/readyz` has turned 503.
    pub drain_delay: Duration,
    /// How long requests in flight may take after that.
    pub deadline: Duration,
    /// How long telemetry may take to be flushed after that.
    pub flush: Duration,
}
