//! All that serves requests, built whole from the settings: upstreams, their pools, each listener's routes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::gateway::settings::Settings;
use crate::http::forward::{Forward, Plan};
use crate::http::policy;
use crate::http::pool::Pool;
use crate::http::route::{Route, Settings as RouteSettings};
use crate::http::routes::Routes;
use crate::http::timers::Timers;
use crate::net::Resolver;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Settings as UpstreamSettings, Upstream};

/// Immutable: a reload builds another one.
#[derive(Debug)]
pub struct Snapshot {
    /// The routes of each listener, by its key.
    pub routes: BTreeMap<Arc<str>, Arc<Routes>>,
    /// The upstreams, by key.
    pub upstreams: BTreeMap<Box<str>, Connected>,
}

/// An upstream and the pools of its endpoints, in their order.
#[derive(Debug, Clone)]
pub struct Connected {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// One pool an endpoint.
    pub pools: Arc<[Arc<Pool>]>,
}

impl Snapshot {
    /// Builds everything. Checked settings cannot fail to build.
    pub fn new(settings: &Settings, resolver: &Resolver, metrics: &Arc<Metrics>) -> Self {
        let upstreams: BTreeMap<Box<str>, Connected> = settings
            .upstreams
            .iter()
            .map(|settings| (settings.name.clone(), connected(settings, resolver, metrics)))
            .collect();
        let routes: Vec<(Arc<Route>, &RouteSettings)> = settings
            .routes
            .iter()
            .map(|settings| {
                let upstream = upstreams.get(&settings.upstream).expect("a route's upstream is checked");
                (route(settings, upstream), settings)
            })
            .collect();
        let on = |listener: &Arc<str>| {
            let serves = |settings: &RouteSettings| {
                settings.listeners.as_ref().is_none_or(|named| named.contains(listener))
            };
            let own = routes.iter().filter(|(_, settings)| serves(settings));
            Arc::new(Routes::new(own.map(|(route, _)| Arc::clone(route))))
        };
        let routes = settings
            .listeners
            .iter()
            .map(|listener| (Arc::clone(&listener.name), on(&listener.name)))
            .collect();
        Self { routes, upstreams }
    }
}

fn connected(settings: &UpstreamSettings, resolver: &Resolver, metrics: &Arc<Metrics>) -> Connected {
    let upstream = Upstream::new(settings, resolver);
    let pools = upstream.endpoints().iter().map(|endpoint| Pool::new(endpoint, settings, metrics)).collect();
    Connected { upstream, pools }
}

fn route(settings: &RouteSettings, connected: &Connected) -> Arc<Route> {
    let forward = Forward::new(Plan {
        upstream: Arc::clone(&connected.upstream),
        pools: Arc::clone(&connected.pools),
        host: settings.host,
        attempt_timeout: settings.timeouts.attempt,
        stream_idle: settings.timeouts.stream_idle,
        timers: Timers::default(),
    });
    Arc::new(Route {
        matches: settings.matches.clone(),
        labels: Arc::new(Route::labels(settings)),
        stack: policy::stack(settings, forward),
        reads_parameters: policy::reads_parameters(settings),
        request_timeout: settings.timeouts.request,
    })
}
