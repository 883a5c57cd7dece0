//! The gateway: what it is made of, its start, its drain. Every task is started and awaited here.

pub mod file;
pub mod settings;
pub mod snapshot;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::settings::{Settings, Shutdown};
use self::snapshot::Snapshot;
use crate::admin::{self, Admin, Control};
use crate::http::server::Server;
use crate::listener::drain::{Drain, Moment};
use crate::listener::{self, Listener};
use crate::net::Resolver;
use crate::telemetry::metrics::Format;
use crate::telemetry::metrics::dns::LookupOutcome;
use crate::telemetry::{Sink, Telemetry};
use crate::view::View;

/// How often unused upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// How long what was cut may take to let go.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// A gateway that runs. Dropped without [`Gateway::shutdown`] it ends at once: nothing is accepted any more,
/// what is in flight is cut for the reason `shutting_down`, and spans that wait are lost, but counted.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    admin: Admin,
    listeners: BTreeMap<Arc<str>, SocketAddr>,
    drain: Drain,
    connections: TaskTracker,
    background: TaskTracker,
    stop: CancellationToken,
    shutdown: Shutdown,
}

/// What the admin pages read of a gateway.
struct Shared {
    leaving: AtomicBool,
    telemetry: Telemetry,
    snapshot: Snapshot,
    listeners: BTreeMap<Arc<str>, SocketAddr>,
    routes: Vec<Box<str>>,
}

/// Why a gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address could not be bound.
    Listen {
        /// The key in the table: `listeners.public`.
        key: String,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The admin address could not be bound; the error says which.
    Admin(io::Error),
    /// Telemetry could not be set up; the error says what.
    Telemetry(Box<dyn std::error::Error + Send + Sync>),
}

impl Gateway {
    /// Binds every address, builds everything and begins to serve. `extra_sinks` are told of every operation
    /// beside the configured ones.
    pub async fn start(settings: Settings, extra_sinks: Vec<Arc<dyn Sink>>) -> Result<Self, StartError> {
        let telemetry = Telemetry::start(&settings.telemetry, extra_sinks)
            .map_err(|error| StartError::Telemetry(error.into()))?;
        let lookups = telemetry.metrics().lookups();
        let resolver = Resolver::new(&settings.dns).telling(move |found| {
            lookups.count(if found { LookupOutcome::Found } else { LookupOutcome::Failed });
        });
        let snapshot = Snapshot::new(&settings, &resolver, telemetry.metrics());
        let (drain, stop) = (Drain::default(), CancellationToken::new());
        let (connections, background) = (TaskTracker::new(), TaskTracker::new());

        let mut bound = Vec::new();
        for listener in &settings.listeners {
            let series = Arc::new(telemetry.metrics().connections(&listener.name));
            let socket = Listener::bind(listener.clone(), series).map_err(|source| StartError::Listen {
                key: format!("listeners.{}", listener.name),
                address: listener.address,
                source,
            })?;
            // port 0 has become a real one
            bound.push((listener::Settings { address: socket.address(), ..listener.clone() }, socket));
        }
        let listeners: BTreeMap<Arc<str>, SocketAddr> =
            bound.iter().map(|(settings, socket)| (Arc::clone(&settings.name), socket.address())).collect();

        let shared = Arc::new(Shared {
            leaving: AtomicBool::new(false),
            telemetry,
            snapshot,
            listeners: listeners.clone(),
            routes: settings.routes.iter().map(|route| route.name.clone()).collect(),
        });
        let control = Arc::clone(&shared) as Arc<dyn Control>;
        let admin = admin::start(&settings.admin, control, stop.clone()).await.map_err(StartError::Admin)?;

        for (settings, socket) in bound {
            let routes = shared.snapshot.routes.get(&settings.name).cloned().unwrap_or_default();
            let recorder = Arc::clone(shared.telemetry.recorder());
            let server = Server::new(settings, View::new(routes), recorder, connections.clone());
            background.spawn(socket.run(server, drain.clone(), connections.clone()));
        }
        background.spawn(sweep(Arc::clone(&shared), stop.clone()));
        shared.tell_start(&admin);
        let shutdown = settings.shutdown;
        Ok(Self { shared, admin, listeners, drain, connections, background, stop, shutdown })
    }

    /// Where a listener is bound, the port included.
    pub fn listener_address(&self, name: &str) -> Option<SocketAddr> {
        self.listeners.get(name).copied()
    }

    /// Where the admin pages are.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address
    }

    /// Where the probes are answered alone, if they are.
    pub fn probes_address(&self) -> Option<SocketAddr> {
        self.admin.probes_address
    }

    /// Opens the access log's file anew, after it has been moved away.
    pub fn reopen_access_log(&self) {
        self.shared.telemetry.reopen_access_log();
    }

    /// Goes down without losing what is under way: `/readyz` turns 503 and answers say that their connection
    /// ends, while new ones are still accepted for the drain delay; then nothing is accepted and what is in
    /// flight has until the deadline; then it is cut, for the reason `shutting_down`. Telemetry is flushed
    /// last.
    pub async fn shutdown(mut self) {
        let Shutdown { drain_delay, deadline, flush } = self.shutdown;
        self.shared.leaving.store(true, Ordering::Relaxed);
        self.drain.advance(Moment::Leaving);
        tokio::time::sleep(drain_delay).await;
        self.drain.advance(Moment::Closing);
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
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // every task ends by this; with the last of them telemetry drops
        self.drain.advance(Moment::Cut);
        self.stop.cancel();
    }
}

/// Closes upstream connections that are no longer wanted, until told to stop.
async fn sweep(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for connected in shared.snapshot.upstreams.values() {
            connected.pools.iter().for_each(|pool| pool.sweep());
        }
    }
}

impl Shared {
    /// What an operator wants to see first: what runs here, where it listens, where it forwards to.
    fn tell_start(&self, admin: &Admin) {
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(version, admin = %admin.address, routes = self.routes.len(), "tracegate starts");
        for (name, address) in &self.listeners {
            tracing::info!(listener = %name, %address, "listening");
        }
        for (name, connected) in &self.snapshot.upstreams {
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

    fn status(&self) -> serde_json::Value {
        let upstreams: BTreeMap<&str, _> = self
            .snapshot
            .upstreams
            .iter()
            .map(|(name, connected)| {
                let endpoints: Vec<_> = connected
                    .upstream
                    .endpoints()
                    .iter()
                    .map(|endpoint| {
                        json!({ "endpoint": endpoint.labels.endpoint, "in_flight": endpoint.in_flight() })
                    })
                    .collect();
                (&**name, json!({ "endpoints": endpoints }))
            })
            .collect();
        let listeners: BTreeMap<&str, String> =
            self.listeners.iter().map(|(name, address)| (&**name, address.to_string())).collect();
        json!({
            "listeners": listeners,
            "routes": self.routes,
            "upstreams": upstreams,
            "telemetry": self.telemetry.status(),
        })
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { key, address, source } => {
                write!(f, "cannot listen on {address} ({key}): {source}")
            }
            Self::Admin(error) => error.fmt(f),
            Self::Telemetry(error) => write!(f, "cannot set up telemetry: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
