//! All that serves requests, built whole from the settings: upstreams, their pools, each listener's routes.
//!
//! A reload builds another one beside the one in force. What has state and a name ([`Kept`]) is carried over while
//! its settings are equal: the new snapshot holds the same `Arc`, so pools, health, counters, caches and whatever is
//! under way go on. A route is carried over where its settings were, and all components that it is made of.
//! Everything else is built anew.
//!
//! # A component of your own
//!
//! 1. Its settings as used derive `PartialEq`. Certificates, keys and secrets are compared by what is in the files
//!    (as [`crate::net::tls::Client`] does), or a changed file would not count.
//! 2. A field here: `pub limiters: Kept<limit::Settings, Limiter>`, and a line in [`Snapshot::new`] that builds it
//!    from the settings and the previous one's field. `build` gets the component that bore the name before, with its
//!    settings, where they are no longer equal: take from it what is still true, as [`Upstream::new`] does.
//! 3. Routes get it from [`route`], as they get their upstream. State that a single route has is kept here as well,
//!    under the route's name: a stack does not survive a reload that changes something about it. What a route is made
//!    of is compared in [`Snapshot::same`].
//! 4. What has to be told that it is gone is told in [`Snapshot::retire`]; a task of its own ends with the drop of the
//!    component (an `AbortOnDropHandle`). Snapshots are built where the runtime has been entered: `tokio::spawn` works.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use http::HeaderName;

use crate::gateway::kept::Kept;
use crate::gateway::settings::Settings;
use crate::http::auth::{self, Access, Rule, Rules};
use crate::http::face::Face;
use crate::http::forward::Forward;
use crate::http::in_flight::{Bound, Bounds};
use crate::http::maintenance::Switched;
use crate::http::plan::Plan;
use crate::http::policy::{self, Bottom};
use crate::http::pool::Pool;
use crate::http::probe;
use crate::http::rate_limit::store::{self, Store};
use crate::http::rate_limit::{self, Limiter};
use crate::http::removal::Removal;
use crate::http::respond::Respond;
use crate::http::route::{Route, Settings as RouteSettings, Target};
use crate::http::routes::Routes;
use crate::http::split::Choice;
use crate::http::sticky::{self, Cookies, Sticky};
use crate::http::timers::Timers;
use crate::listener;
use crate::net::Resolver;
use crate::telemetry::attribute::Configured;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::connections::Expiries;
use crate::telemetry::operation::RouteLabels;
use crate::upstream::{Settings as UpstreamSettings, Upstream, Watch};

/// Immutable: a reload builds another one.
#[derive(Debug)]
pub struct Snapshot {
    /// What several gateways share, by key.
    pub stores: Kept<store::Settings, Store>,
    /// The rate limits, by key: their buckets.
    pub limiters: Kept<rate_limit::Settings, Limiter>,
    /// The upstreams, by key.
    pub upstreams: Kept<UpstreamSettings, Connected>,
    /// The rules of `[auth]` that routes ask for, by key.
    pub rules: Kept<auth::Settings, Rule>,
    /// Every route, by key.
    pub routes: BTreeMap<Box<str>, Arc<Route>>,
    /// The table of each listener, by its key.
    pub tables: BTreeMap<Arc<str>, Arc<Routes>>,
    /// What the routes were made of, in their order.
    made_of: Vec<Arc<RouteSettings>>,
    /// What no client may say by header fields.
    stripped: Arc<[HeaderName]>,
}

/// What components are built with that is there from the start of the gateway to its end.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Finds the addresses of names.
    pub resolver: Resolver,
    /// How many requests are in flight.
    pub in_flight: Bounds,
    /// Where they count.
    pub metrics: Arc<Metrics>,
    /// The listeners that are bound, by key. Others than these come with a restart.
    pub listeners: Vec<Arc<str>>,
    /// What the values of cookies are made with that have no secret of their own.
    pub sticky: sticky::Key,
    /// How many workers serve.
    pub workers: usize,
    /// What bounds a wait.
    pub timers: Arc<Timers>,
}

/// An upstream and the pools of its endpoints, in their order.
#[derive(Debug)]
pub struct Connected {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// One pool an endpoint.
    pub pools: Arc<[Arc<Pool>]>,
    /// What goes on for as long as the upstream serves: health checks, the ends of ejections.
    _watch: Watch,
    /// When our own certificate expires, if we have one.
    _expiry: Option<Expiries>,
}

impl Surroundings {
    /// The bounds on requests in flight of the gateway and of this listener, as they are from now on.
    pub fn in_flight(&self, gateway: Option<usize>, listener: &listener::Settings) -> [Arc<Bound>; 2] {
        let rule = format!("listeners.{}.limits.in_flight", listener.name);
        [
            self.in_flight.set("limits.in_flight", gateway),
            self.in_flight.set(&rule, listener.limits.in_flight),
        ]
    }
}

impl Snapshot {
    /// Builds everything, with what can be carried over from the previous one. Checked settings cannot fail to
    /// build.
    pub fn new(settings: &Settings, around: &Surroundings, previous: Option<&Self>) -> Self {
        let upstreams = Kept::new(
            settings.upstreams.iter().map(|settings| (&*settings.name, settings)),
            previous.map(|previous| &previous.upstreams),
            |settings, before| connected(settings, around, before),
        );
        let stores = Kept::new(
            settings.redis.iter().map(|settings| (&*settings.name, settings)),
            previous.map(|previous| &previous.stores),
            |settings, _| Store::new(settings.clone(), &around.resolver),
        );
        let limiters = Kept::new(
            settings.rate_limits.iter().map(|settings| (&*settings.name, settings)),
            previous.map(|previous| &previous.limiters),
            |settings, _| {
                let store = settings.redis.as_ref().and_then(|redis| stores.get(&redis.name));
                Limiter::new(settings, store.cloned(), &around.metrics)
            },
        );
        let asked =
            |rule: &&auth::Settings| settings.routes.iter().any(|route| route.auth.contains(&rule.name));
        let rules = Kept::new(
            // nobody fetches keys for rules that no route asks for
            settings.auth.iter().filter(asked).map(|settings| (&*settings.name, settings)),
            previous.map(|previous| &previous.rules),
            |settings, before| {
                let service = settings.asks().and_then(|upstream| upstreams.get(upstream));
                let service = service.map(|known| (Arc::clone(&known.upstream), Arc::clone(&known.pools)));
                Rule::new(settings, &around.resolver, &around.metrics, service, before)
            },
        );
        let fields = settings.auth.iter().flat_map(auth::Settings::identity_fields).cloned();
        let stripped: Arc<[HeaderName]> = fields.collect();
        let mut next = Self {
            stores,
            limiters,
            upstreams,
            rules,
            routes: BTreeMap::new(),
            tables: BTreeMap::new(),
            made_of: settings.routes.clone(),
            stripped,
        };
        let built: Vec<(Arc<Route>, &Arc<RouteSettings>)> = settings
            .routes
            .iter()
            .map(|settings| {
                let same = previous.and_then(|previous| next.same(settings, previous));
                (same.unwrap_or_else(|| next.build(settings, around, previous)), settings)
            })
            .collect();
        let on = |listener: &Arc<str>| {
            let serves = |settings: &RouteSettings| {
                settings.listeners.as_ref().is_none_or(|named| named.contains(listener))
            };
            let own = built.iter().filter(|(_, settings)| serves(settings));
            Arc::new(Routes::new(own.map(|(route, _)| Arc::clone(route))))
        };
        let tables = around.listeners.iter().map(|listener| (Arc::clone(listener), on(listener)));
        next.tables = tables.collect();
        next.routes = built.into_iter().map(|(route, settings)| (settings.name.clone(), route)).collect();
        next
    }

    /// The route of the previous snapshot that was made of the very same settings and components.
    fn same(&self, settings: &Arc<RouteSettings>, previous: &Self) -> Option<Arc<Route>> {
        let place = previous.made_of.binary_search_by(|before| before.name.cmp(&settings.name)).ok()?;
        let mut upstreams = settings.upstreams.iter().map(|(name, _)| name);
        let same = Arc::ptr_eq(&previous.made_of[place], settings)
            && self.stripped == previous.stripped
            && upstreams.all(|name| self.upstreams.same(name, &previous.upstreams))
            && settings.auth.iter().all(|name| self.rules.same(name, &previous.rules))
            && settings.rate_limits.iter().all(|name| self.limiters.same(name, &previous.limiters));
        previous.routes.get(&settings.name).filter(|_| same).cloned()
    }

    /// A route of these settings and the components that they name.
    fn build(&self, settings: &RouteSettings, around: &Surroundings, previous: Option<&Self>) -> Arc<Route> {
        let asked =
            settings.auth.iter().map(|name| self.rules.get(name).expect("a route's rules are checked"));
        let asked: Vec<_> = asked.cloned().collect();
        let access = Access {
            rules: (!asked.is_empty()).then_some(Rules(asked)),
            stripped: Arc::clone(&self.stripped),
        };
        let before = previous.and_then(|previous| previous.routes.get(&settings.name));
        let named = settings.rate_limits.iter().filter_map(|name| self.limiters.get(name));
        let limiters: Vec<_> = named.cloned().collect();
        route(settings, around, &access, &limiters, &self.upstreams, before.map(|before| &**before))
    }

    /// Tells what the next one has not carried over that nothing new will come. What is under way there goes on.
    pub fn retire(&self, next: &Self) {
        let kept: HashSet<*const Pool> = next.pools().map(Arc::as_ptr).collect();
        self.pools().filter(|pool| !kept.contains(&Arc::as_ptr(pool))).for_each(|pool| pool.retire());
    }

    /// The routes that the next one does not have, by name.
    pub fn removed<'a>(&'a self, next: &'a Self) -> impl Iterator<Item = (&'a str, &'a Arc<Route>)> {
        let gone = self.routes.iter().filter(|(name, _)| !next.routes.contains_key(*name));
        gone.map(|(name, route)| (&**name, route))
    }

    /// The pools of all endpoints.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.upstreams.iter().flat_map(|(_, connected)| connected.pools.iter())
    }
}

fn connected(
    settings: &UpstreamSettings,
    around: &Surroundings,
    before: Option<(&UpstreamSettings, &Connected)>,
) -> Connected {
    let known = before.map(|(settings, connected)| (settings, &*connected.upstream));
    let upstream = Upstream::new(settings, &around.resolver, &around.metrics, known);
    let same_pools = before.filter(|(before, _)| before.pools_as(settings)).map(|(_, connected)| connected);
    let pools = upstream.endpoints().iter().map(|endpoint| {
        let kept = same_pools.into_iter().flat_map(|same| same.pools.iter());
        let kept = kept.into_iter().find(|pool| pool.is_of(endpoint));
        let new = || Pool::new(endpoint, upstream.breaker(), settings, &around.metrics, around.workers);
        kept.map_or_else(new, Arc::clone)
    });
    let pools: Arc<[_]> = pools.collect();
    Pool::gather(&pools);
    let probe = settings.health.as_ref().map(|health| probe::new(health, settings));
    let watch = upstream.watch(probe.as_ref());
    let expires = settings.tls.as_ref().and_then(|tls| tls.config.expires());
    let expiry =
        expires.map(|expires| around.metrics.upstream_expiry(&Configured::new(&*settings.name), expires));
    Connected { upstream, pools, _watch: watch, _expiry: expiry }
}

/// A route; the series of its records go on where they carry the same as before, and so does its maintenance.
fn route(
    settings: &RouteSettings,
    around: &Surroundings,
    access: &Access,
    limiters: &[Arc<Limiter>],
    upstreams: &Kept<UpstreamSettings, Connected>,
    before: Option<&Route>,
) -> Arc<Route> {
    // one for the name, whatever else changes: streams of earlier forms of the route are told as well
    let removal = before.map_or_else(Arc::default, |before| Arc::clone(&before.removal));
    let maintenance = before.map(|before| &before.maintenance);
    let maintenance = Switched::new(settings.shaping.maintenance.enabled, maintenance);
    let target = |upstream: &str, bottom: Bottom| Target {
        labels: labels(settings, upstream, before),
        stack: policy::stack(settings, access.clone(), limiters, bottom, maintenance.clone()),
    };
    let key = settings.sticky.as_ref().and_then(|sticky| sticky.secret.as_ref()).map(sticky::Key::of);
    let key = key.as_ref().unwrap_or(&around.sticky);
    let (mut targets, mut places) = (Vec::new(), Vec::new());
    if let Some(answer) = &settings.shaping.answer {
        targets.push(target("", Bottom::Right(Respond::new(answer.clone()))));
    }
    for (name, _) in &settings.upstreams {
        let connected = upstreams.get(name).expect("a route's upstreams are checked");
        let upstream = &connected.upstream;
        let cookies = settings.sticky.as_ref().map(|sticky| Arc::new(Cookies::new(sticky, key, upstream)));
        places.extend(cookies.iter().map(|cookies| (Arc::clone(upstream), Arc::clone(cookies))));
        targets.push(target(
            name,
            Bottom::Left(forward(settings, connected, cookies, &removal, &around.timers)),
        ));
    }
    let sticky = settings.sticky.as_ref().map(|sticky| Sticky::new(sticky, places));
    let chooses = sticky.is_some() || targets.len() > 1;
    let weights = settings.upstreams.iter().map(|(_, weight)| *weight);
    let choice = chooses.then(|| Box::new(Choice::new(weights, sticky)));
    let mut targets = targets.into_iter();
    Arc::new(Route {
        matches: settings.matches.clone(),
        target: targets.next().expect("a route has an upstream, or answers itself"),
        others: targets.collect(),
        choice,
        in_flight: settings.in_flight.map(|most| {
            around.in_flight.set(&format!("routes.{}.limits.in_flight", settings.name), Some(most))
        }),
        reads_parameters: policy::reads_parameters(settings),
        request_timeout: settings.timeouts.request,
        exchange_timeout: settings.timeouts.exchange,
        removal,
        maintenance,
        face: Face::new(&settings.shaping),
    })
}

fn forward(
    settings: &RouteSettings,
    connected: &Connected,
    cookies: Option<Arc<Cookies>>,
    removal: &Arc<Removal>,
    timers: &Arc<Timers>,
) -> Forward {
    Forward::new(Plan {
        upstream: Arc::clone(&connected.upstream),
        pools: Arc::clone(&connected.pools),
        host: settings.host,
        attempt_timeout: settings.timeouts.attempt,
        timeout_field: settings.timeouts.field.clone(),
        stream_idle: settings.timeouts.stream_idle,
        answer_progress: settings.answer_progress,
        tunnel_idle: settings.timeouts.tunnel_idle,
        websocket: settings.websocket,
        retry: settings.retry.clone(),
        cookies,
        timers: Arc::clone(timers),
        removal: Arc::clone(removal),
    })
}

/// What records carry of requests by this route to this upstream: what they carried before, if it is the same.
fn labels(settings: &RouteSettings, upstream: &str, before: Option<&Route>) -> Arc<RouteLabels> {
    let labels = Route::labels(settings, upstream);
    let mut known = before.into_iter().flat_map(Route::targets).map(|target| &target.labels);
    known.find(|known| known.tell_the_same(&labels)).map_or_else(|| Arc::new(labels), Arc::clone)
}
