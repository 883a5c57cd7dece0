//! The gateway: what it is made of, its start, its drain. Every task is started and awaited here.

pub mod configuration;
pub mod difference;
pub mod file;
pub mod kept;
pub mod last_good;
pub mod overrides;
pub mod reach;
pub mod reload;
mod restart;
pub mod settings;
mod shown;
pub mod snapshot;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::last_good::LastGood;
use self::reload::{Reload, Report, Trigger};
pub use self::settings::{Settings, Shutdown};
use self::snapshot::Surroundings;
use crate::admin::{self, Admin, Control, LogLevel, Reloaded, RouteFacts};
use crate::http::in_flight::Bounds;
use crate::http::sticky;
use crate::http::timers::Timers;
use crate::listener::drain::{Drain, Moment};
use crate::listener::{Address, Inherited, Listener};
use crate::net::Resolver;
use crate::net::watch::Watch;
use crate::problem::Problems;
use crate::telemetry::attribute::Configured;
use crate::telemetry::diagnostics::Levels;
use crate::telemetry::hour::{self, Hour};
use crate::telemetry::metrics::Format;
use crate::telemetry::metrics::dns::LookupOutcome;
use crate::telemetry::metrics::reloads::ReloadOutcome;
use crate::telemetry::operation::RouteLabels;
use crate::telemetry::recent::Recent;
use crate::telemetry::{Sink, Telemetry};
use crate::worker::{self, LAST_MOMENT, Workers};

/// How often unused upstream connections and removed routes are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// How often certificates that expire soon are warned of.
const EXPIRY_REMINDER: Duration = Duration::from_hours(24);

/// How much nicer than requests is a reload that wants the same core: it has a tenth of it beside workers that are
/// never idle. A thread cannot take its niceness back, so each reload has a thread. On Linux alone, where threads have one.
const RELOAD_NICENESS: i32 = 10;

/// A gateway that runs. Dropped without [`Gateway::shutdown`] it ends at once: nothing is accepted any more,
/// what is in flight is cut for the reason `shutting_down`, and spans that wait are lost, but counted.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    admin: Admin,
    listeners: BTreeMap<Arc<str>, Address>,
    drain: Drain,
    accepting: TaskTracker,
    connections: TaskTracker,
    workers: Workers,
    background: TaskTracker,
    stop: CancellationToken,
}

/// Reads a gateway's configuration again.
pub type Load = Arc<dyn Fn(&Settings) -> Result<Settings, Problems> + Send + Sync>;

/// What a gateway has beside its settings, from the start: whoever reaches the admin address finds all of it.
#[derive(Default)]
pub struct Means {
    /// These are told of every operation beside the configured sinks.
    pub extra_sinks: Vec<Arc<dyn Sink>>,
    /// Sockets that were handed over: listeners are on them, as far as there are any.
    pub inherited: Inherited,
    /// Changes the level of diagnostics.
    pub levels: Option<Levels>,
    /// Keeps what is in force, and whatever is put in force.
    pub last_good: Option<LastGood>,
    /// Reads the configuration again: when told to, and when one of its files has changed, if these are watched.
    pub load: Option<Load>,
}

/// What the admin pages read of a gateway.
struct Shared {
    leaving: AtomicBool,
    telemetry: Telemetry,
    reload: Arc<Reload>,
    load: Option<Load>,
}

/// Why a gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address could not be bound.
    Listen {
        /// The key in the table: `listeners.public`.
        key: String,
        /// The address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// There are no threads to serve on; why.
    Workers(String),
    /// The admin address could not be bound; the error says which.
    Admin(io::Error),
    /// Telemetry could not be set up; the error says what.
    Telemetry(Box<dyn std::error::Error + Send + Sync>),
}

impl Gateway {
    /// Binds every address, builds everything and begins to serve. `extra_sinks` are told of every operation
    /// beside the configured ones.
    pub async fn start(settings: Settings, extra_sinks: Vec<Arc<dyn Sink>>) -> Result<Self, StartError> {
        Self::start_with(settings, Means { extra_sinks, ..Means::default() }).await
    }

    /// The same, with whatever else a gateway may have.
    pub async fn start_with(settings: Settings, means: Means) -> Result<Self, StartError> {
        let Means { extra_sinks, mut inherited, levels, last_good, load } = means;
        let telemetry = Telemetry::start(&settings.telemetry, extra_sinks)
            .map_err(|error| StartError::Telemetry(error.into()))?;
        let lookups = telemetry.metrics().lookups();
        let resolver = Resolver::new(&settings.dns).telling(move |found| {
            lookups.count(if found { LookupOutcome::Found } else { LookupOutcome::Failed });
        });
        let (drain, stop) = (Drain::default(), CancellationToken::new());
        // whatever has been started ends if the rest cannot be
        let not_started = stop.clone().drop_guard();
        let (accepting, connections) = (TaskTracker::new(), TaskTracker::new());
        let background = TaskTracker::new();
        let workers = worker::count(settings.workers).map_err(StartError::Workers)?;
        let workers = Workers::start(workers, &stop, &connections)
            .map_err(|error| StartError::Workers(format!("{workers} threads cannot be had: {error}")))?;
        telemetry.metrics().show_workers(&workers);

        let mut bound = Vec::new();
        for listener in &settings.listeners {
            let tls = listener.tls.is_some();
            let series = telemetry.metrics().connections(&Configured::new(Arc::clone(&listener.name)), tls);
            let socket = Listener::bind(listener, &mut inherited, series);
            let socket = socket.map_err(|source| StartError::Listen {
                key: format!("listeners.{}", listener.name),
                address: listener.address.clone(),
                source,
            })?;
            bound.push((Arc::clone(&listener.name), socket));
        }
        if inherited.left() > 0 {
            tracing::warn!(sockets = inherited.left(), "sockets were handed over that no listener is for");
        }
        let listeners: BTreeMap<Arc<str>, Address> =
            bound.iter().map(|(name, socket)| (Arc::clone(name), socket.address().clone())).collect();

        let admin_settings = settings.admin.clone();
        let around = Surroundings {
            in_flight: Bounds::default(),
            resolver,
            metrics: Arc::clone(telemetry.metrics()),
            listeners: listeners.keys().cloned().collect(),
            sticky: sticky::Key::random(),
            workers: workers.count(),
            timers: Arc::new(Timers::new(workers.count())),
        };
        let recorder = Arc::clone(telemetry.recorder());
        let watched = settings.reload.watch;
        let reload = Reload::new(settings, around, listeners.clone(), recorder, levels, connections.clone());
        let reload = Arc::new(reload);
        if let Some(last_good) = last_good {
            reload.keep_last_good(last_good);
        }
        let shared = Arc::new(Shared {
            leaving: AtomicBool::new(false),
            telemetry,
            reload: Arc::clone(&reload),
            load: load.clone(),
        });
        let control = Arc::clone(&shared) as Arc<dyn Control>;
        let admin = admin::start(&admin_settings, control, reload.ways(), stop.clone()).await;
        let admin = admin.map_err(StartError::Admin)?;

        for (name, socket) in bound {
            let serving = reload.serving(&name).expect("it has just been bound");
            accepting.spawn(socket.run(serving, drain.clone(), connections.clone(), workers.clone()));
        }
        if let (Some(load), Some(interval)) = (load, watched) {
            background.spawn(watch(Arc::clone(&reload), load, interval, stop.clone()));
        }
        background.spawn(sweep(Arc::clone(&reload), stop.clone()));
        background.spawn(warn_of_expiry(reload, stop.clone()));
        background.spawn(read_series(Arc::clone(&shared), stop.clone()));
        shared.tell_start(&admin);
        not_started.disarm();
        Ok(Self { shared, admin, listeners, drain, accepting, connections, workers, background, stop })
    }

    /// Reads the configuration again and puts it in force, or refuses it; `None` without a way to read it.
    pub async fn reload(&self, trigger: Trigger) -> Option<Report> {
        reload(Arc::clone(&self.shared.reload), self.shared.load.clone()?, trigger).await
    }

    /// Puts in force what is loaded in this way, once, or tells what is wrong with it.
    pub fn apply(&self, load: impl FnOnce(&Settings) -> Result<Settings, Problems>) -> Report {
        self.shared.reload.apply(load, Trigger::Request)
    }

    /// Where a listener is bound, the port included, if it is not bound to a Unix socket.
    pub fn listener_address(&self, name: &str) -> Option<SocketAddr> {
        self.listeners.get(name).and_then(Address::tcp)
    }

    /// Where the admin pages are.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address
    }

    /// Where the probes are answered alone, if they are.
    pub fn probes_address(&self) -> Option<SocketAddr> {
        self.admin.probes_address
    }

    /// Takes an endpoint, `host:port`, of an upstream out of use or back in; `false` if there is none like that.
    /// Requests that are on their way to it are not disturbed.
    pub fn set_in_use(&self, upstream: &str, endpoint: &str, in_use: bool) -> bool {
        self.shared.set_in_use(upstream, endpoint, in_use)
    }

    /// Opens the access log's file anew, after it has been moved away.
    pub fn reopen_access_log(&self) {
        self.shared.telemetry.reopen_access_log();
    }

    /// Puts a route in maintenance or takes it out of it, whatever its file says and without touching anything
    /// else; `None` leaves it to the file again. `false`: there is no such route.
    pub fn set_maintenance(&self, route: &str, wanted: Option<bool>) -> bool {
        self.shared.set_maintenance(route, wanted)
    }

    /// Goes down without losing what is under way: `/readyz` turns 503 and answers say that their connection
    /// ends, while new ones are still accepted for the drain delay; then nothing is accepted and what is in
    /// flight has until the deadline; then it is cut, for the reason `shutting_down`. Telemetry is flushed
    /// last.
    pub async fn shutdown(mut self) {
        let Shutdown { drain_delay, deadline, flush } = self.shared.reload.settings().shutdown;
        self.shared.leaving.store(true, Ordering::Relaxed);
        self.drain.advance(Moment::Leaving);
        tokio::time::sleep(drain_delay).await;
        self.drain.advance(Moment::Closing);
        // who has connected by then is still let in
        self.accepting.close();
        let _ = tokio::time::timeout(LAST_MOMENT, self.accepting.wait()).await;
        self.connections.close();
        if tokio::time::timeout(deadline, self.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "cutting what is still in flight");
            self.drain.advance(Moment::Cut);
            let _ = tokio::time::timeout(LAST_MOMENT, self.connections.wait()).await;
        }
        self.shared.telemetry.shutdown(Instant::now() + flush).await;
        self.stop.cancel();
        self.background.close();
        let _ = tokio::time::timeout(LAST_MOMENT, self.background.wait()).await;
        let _ = tokio::time::timeout(LAST_MOMENT, &mut self.admin.task).await;
        let _ = tokio::time::timeout(2 * LAST_MOMENT, self.workers.ended()).await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // every task ends by this; with the last of them telemetry drops
        self.drain.advance(Moment::Cut);
        self.stop.cancel();
    }
}

/// Sweeps until told to stop.
async fn sweep(reload: Arc<Reload>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        reload.sweep();
    }
}

/// Says each day which certificates expire soon, until told to stop.
async fn warn_of_expiry(reload: Arc<Reload>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EXPIRY_REMINDER);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for listener in &reload.settings().listeners {
            for (certificate, days_left) in
                listener.tls.iter().flat_map(|tls| tls.expiring(SystemTime::now()))
            {
                let listener = &listener.name;
                tracing::warn!(%listener, certificate, days_left, "a certificate expires soon");
            }
        }
        for upstream in &reload.settings().upstreams {
            if let Some(days_left) = upstream.tls.as_ref().and_then(|tls| tls.expiring(SystemTime::now())) {
                let upstream = &upstream.name;
                tracing::warn!(%upstream, days_left, "our own certificate towards an upstream expires soon");
            }
        }
    }
}

/// Reads what has come to each route's series, until told to stop.
async fn read_series(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(hour::STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let shared = Arc::clone(&shared);
        // milliseconds, at a thousand routes
        let reading = tokio::task::spawn_blocking(move || {
            let snapshot = shared.reload.snapshot();
            let metrics = shared.telemetry.metrics();
            let routes = snapshot.routes.values().flat_map(|route| route.targets());
            let labels = routes.map(|target| &*target.labels);
            let unmatched: &RouteLabels = metrics.unmatched();
            shared.telemetry.hour().read(labels.chain([unmatched]));
        });
        if let Err(error) = reading.await {
            tracing::error!(%error, "reading the series of routes broke off");
        }
    }
}

/// Looks at the files of the configuration until told to stop, and reloads when they have changed.
async fn watch(reload: Arc<Reload>, load: Load, interval: Duration, stop: CancellationToken) {
    let mut watch = Watch::new(reload.settings().reload.max_wait);
    let mut ticks = tokio::time::interval(interval);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let looking = {
            let files = reload.watched();
            watch.wait_at_most(reload.settings().reload.max_wait);
            tokio::task::spawn_blocking(move || {
                let as_read = |path: &Path| files.get(path) == Some(&configuration::digest(path));
                watch.follow(files.keys().map(PathBuf::as_path), as_read);
                (watch.look(), watch)
            })
        };
        let Ok((changed, same)) = looking.await else { return };
        watch = same;
        if changed {
            self::reload(Arc::clone(&reload), Arc::clone(&load), Trigger::Watch).await;
        }
    }
}

/// Reloads on a thread of its own, where that may take its time and requests go first.
async fn reload(reload: Arc<Reload>, load: Load, trigger: Trigger) -> Option<Report> {
    let (tell, told) = oneshot::channel();
    let runtime = Handle::current();
    let work = move || {
        if cfg!(target_os = "linux")
            && let Err(error) = rustix::process::nice(RELOAD_NICENESS)
        {
            tracing::debug!(%error, "a reload has the priority of requests");
        }
        let _tasks = runtime.enter();
        drop(tell.send(reload.apply(&*load, trigger)));
    };
    if let Err(error) = std::thread::Builder::new().name("tracegate-reload".to_owned()).spawn(work) {
        tracing::error!(%error, "there is no thread to reload on");
        return None;
    }
    told.await.inspect_err(|_| tracing::error!("a reload broke off")).ok()
}

impl Shared {
    /// What an operator wants to see first: what runs here, where it listens, where it forwards to.
    fn tell_start(&self, admin: &Admin) {
        let snapshot = self.reload.snapshot();
        let version = env!("CARGO_PKG_VERSION");
        let scheme = if self.reload.settings().admin.tls.is_some() { "https" } else { "http" };
        let page = format!("{scheme}://{}/", admin.address);
        tracing::info!(version, page, routes = snapshot.routes.len(), "tracegate starts");
        let configuration = &self.reload.settings().configuration;
        for problem in configuration.in_place_of.iter().flat_map(Problems::iter) {
            tracing::error!(%problem, "the configuration is broken: the last good one is in force");
        }
        for warning in configuration.warnings.iter() {
            tracing::warn!(%warning, "the configuration will not do for ever");
        }
        for (name, address) in self.reload.addresses() {
            tracing::info!(listener = %name, %address, "listening");
        }
        for (name, connected) in snapshot.upstreams.iter() {
            let endpoints: Vec<_> =
                connected.upstream.endpoints().iter().map(|endpoint| &*endpoint.labels.endpoint).collect();
            tracing::info!(upstream = %name, ?endpoints, "forwarding");
        }
    }
}

impl Control for Shared {
    fn ready(&self) -> bool {
        !self.leaving.load(Ordering::Relaxed)
    }

    fn metrics(&self, format: Format) -> String {
        self.telemetry.metrics().page(format)
    }

    fn set_in_use(&self, upstream: &str, endpoint: &str, in_use: bool) -> bool {
        self.reload.change(|snapshot| {
            let known = snapshot.upstreams.get(upstream);
            known.is_some_and(|known| known.upstream.set_in_use(endpoint, in_use))
        })
    }

    fn set_maintenance(&self, route: &str, wanted: Option<bool>) -> bool {
        let snapshot = self.reload.snapshot();
        let Some(known) = snapshot.routes.get(route) else { return false };
        known.maintenance.set(wanted);
        tracing::info!(route, maintenance = known.maintenance.is_on(), "maintenance was switched");
        true
    }

    fn status(&self) -> serde_json::Value {
        let snapshot = self.reload.snapshot();
        let maintenance = snapshot.routes.iter().filter(|(_, route)| route.maintenance.is_on());
        let maintenance: Vec<&str> = maintenance.map(|(name, _)| &**name).collect();
        let upstreams: BTreeMap<&str, _> = snapshot
            .upstreams
            .iter()
            .map(|(name, connected)| (name, shown::upstream(&connected.upstream)))
            .collect();
        let rate_limits: BTreeMap<&str, _> = snapshot
            .limiters
            .iter()
            .map(|(name, limiter)| {
                let (keys, redis_away) = (limiter.keys(), limiter.is_store_away());
                (name, json!({ "keys": keys, "shared": limiter.is_shared(), "redis_away": redis_away }))
            })
            .collect();
        let one_client = snapshot.limiters.iter().filter(|(_, limiter)| limiter.has_one_client());
        let warnings: Vec<_> = one_client
            .map(|(name, _)| {
                let what = "all requests come from one address that asks for many clients: \
                            name the load balancer in trusted_proxies";
                json!({ "rule": format!("rate_limits.{name}"), "warning": what })
            })
            .collect();
        let listeners: BTreeMap<&str, String> =
            self.reload.addresses().map(|(name, address)| (&**name, address.to_string())).collect();
        json!({
            "listeners": listeners,
            "routes": snapshot.routes.keys().collect::<Vec<_>>(),
            "maintenance": maintenance,
            "upstreams": upstreams,
            "rate_limits": rate_limits,
            "warnings": warnings,
            "telemetry": self.telemetry.status(),
            "configuration": self.reload.status(),
        })
    }

    fn set_log_level(&self, level: Option<LogLevel>) -> bool {
        self.reload.overrides().set_log_level(level)
    }

    fn set_sampling(&self, ratio: Option<f64>) {
        self.reload.overrides().set_sampling(ratio);
    }

    fn recent(&self) -> Arc<Recent> {
        Arc::clone(self.telemetry.recent())
    }

    fn hour(&self) -> Arc<Hour> {
        Arc::clone(self.telemetry.hour())
    }

    fn routes(&self) -> Vec<RouteFacts> {
        shown::routes(&self.reload.snapshot())
    }

    fn upstreams(&self) -> serde_json::Value {
        shown::upstreams(&self.reload.snapshot()).into()
    }

    fn certificates(&self) -> serde_json::Value {
        shown::certificates(&self.reload.settings(), SystemTime::now()).into()
    }

    fn reloads(&self) -> serde_json::Value {
        self.reload.status()
    }

    fn telemetry(&self) -> serde_json::Value {
        let (status, balanced) = self.telemetry.balanced();
        let mut shown = json!(status);
        shown["balanced"] = balanced.into();
        shown["recent"] = json!(self.telemetry.recent().status());
        shown
    }

    fn reload(&self) -> BoxFuture<'static, Reloaded> {
        let (reload, load) = (Arc::clone(&self.reload), self.load.clone());
        Box::pin(async {
            let reloading = async { self::reload(reload, load?, Trigger::Request).await };
            let Some(report) = reloading.await else {
                let report = json!({ "problem": "this gateway's configuration cannot be read again" });
                return Reloaded { accepted: false, report };
            };
            let accepted = report.outcome != ReloadOutcome::Refused;
            Reloaded { accepted, report: json!(report) }
        })
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("reload", &self.reload).finish_non_exhaustive()
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { key, address, source } => {
                write!(f, "cannot listen on {address} ({key}): {source}")
            }
            Self::Admin(error) => error.fmt(f),
            Self::Workers(why) => why.fmt(f),
            Self::Telemetry(error) => write!(f, "cannot set up telemetry: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
