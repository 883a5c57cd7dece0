//! Reload: a new snapshot is built whole and takes the place of the one in force, or is refused with its problems.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio_util::task::TaskTracker;

use super::configuration;
use super::difference::Difference;
use super::last_good::LastGood;
use super::overrides::Overrides;
use super::restart;
use super::settings::Settings;
use super::snapshot::{Snapshot, Surroundings};
use crate::admin::ways::Ways;
use crate::http::removal::Removal;
use crate::http::routes::Routes;
use crate::http::server::Server;
use crate::listener::{self, Address, Serving};
use crate::problem::Problems;
use crate::setting::Digest;
use crate::telemetry::Recorder;
use crate::telemetry::attribute::Configured;
use crate::telemetry::diagnostics::Levels;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::connections::Expiries;
use crate::telemetry::metrics::reloads::{InForce, ReloadOutcome, Reloads};
use crate::view::View;

/// What is in force, and how it is replaced.
pub struct Reload {
    around: Surroundings,
    snapshot: View<Snapshot>,
    listeners: BTreeMap<Arc<str>, Bound>,
    recorder: Arc<Recorder>,
    overrides: Overrides,
    connections: TaskTracker,
    series: Reloads,
    /// What the settings were at the start: what cannot be reloaded is as it is there.
    started: Arc<Settings>,
    state: Mutex<State>,
    /// Held by the one that reloads.
    turn: Mutex<()>,
    /// Who may do what at the admin address.
    ways: View<Ways>,
    /// Routes that have been removed, with streams on them.
    leaving: Mutex<Vec<Leaving>>,
    /// Where what is in force is kept for the next start.
    last_good: OnceLock<LastGood>,
}

/// A route that has been removed, and when the grace of its streams is over.
#[derive(Debug)]
struct Leaving {
    route: Box<str>,
    removal: Arc<Removal>,
    over: Instant,
}

/// A listener that is bound, and what it serves by.
#[derive(Debug)]
struct Bound {
    address: Address,
    table: View<Routes>,
    serving: View<Serving<Server>>,
    expiries: Mutex<Option<Expiries>>,
}

#[derive(Debug)]
struct State {
    settings: Arc<Settings>,
    generation: u64,
    awaiting_restart: Vec<String>,
    /// The files beside its own that a configuration named which was refused: to mend them may be enough.
    refused: BTreeMap<PathBuf, Option<Digest>>,
    /// Why what is in force could not be kept for the next start.
    not_kept: Option<String>,
    history: VecDeque<Report>,
}

/// Who asked for a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A file has changed.
    Watch,
    /// SIGHUP.
    Signal,
    /// Somebody at the admin address.
    Request,
}

impl Trigger {
    fn word(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Signal => "signal",
            Self::Request => "request",
        }
    }
}

/// What became of a reload.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When.
    pub at: String,
    /// Who asked for it.
    pub trigger: Trigger,
    /// How it went.
    pub outcome: ReloadOutcome,
    /// Which configuration is in force now.
    pub generation: u64,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
    /// What is different now.
    pub difference: Difference,
    /// Why it was refused.
    pub problems: Vec<String>,
}

impl Reload {
    /// Puts the first snapshot in force. Listeners are bound at these addresses.
    pub fn new(
        started: Settings,
        around: Surroundings,
        bound: BTreeMap<Arc<str>, Address>,
        recorder: Arc<Recorder>,
        levels: Option<Levels>,
        connections: TaskTracker,
    ) -> Self {
        let (started, series) = (Arc::new(started), around.metrics.reloads());
        let snapshot = Snapshot::new(&started, &around, None);
        let bind = |(name, address): (Arc<str>, Address)| {
            let settings = started.listeners.iter().find(|listener| listener.name == name);
            let settings = at(settings.expect("a listener is bound by its settings"), address.clone());
            let table = View::new(snapshot.tables.get(&name).cloned().unwrap_or_default());
            let in_flight = around.in_flight(started.in_flight, &settings);
            let (recorder, connections) = (Arc::clone(&recorder), connections.clone());
            let server = Server::new(settings.clone(), table.clone(), recorder, connections, in_flight);
            let serving = View::new(Arc::new(Serving { settings, protocol: server }));
            let expiries = Mutex::new(expiries(&around.metrics, &serving.current().settings));
            (name, Bound { address, table, serving, expiries })
        };
        let listeners = bound.into_iter().map(bind).collect();
        let state = State {
            settings: Arc::clone(&started),
            generation: 1,
            awaiting_restart: Vec::new(),
            refused: BTreeMap::new(),
            not_kept: None,
            history: VecDeque::new(),
        };
        let snapshot = View::new(Arc::new(snapshot));
        let state = Mutex::new(state);
        let ways = Ways::new(&started.admin.ways, &around.resolver, &around.metrics, None);
        let ways = View::new(Arc::new(ways));
        let (turn, leaving) = (Mutex::default(), Mutex::default());
        let reload = Self {
            around,
            snapshot,
            listeners,
            overrides: Overrides::new(Arc::clone(&recorder), levels),
            recorder,
            connections,
            series,
            started,
            state,
            turn,
            ways,
            leaving,
            last_good: OnceLock::new(),
        };
        reload.tell_in_force(&reload.state());
        reload
    }

    /// Keeps what is in force, and from now on whatever is put in force, for a start with broken files.
    pub fn keep_last_good(&self, last_good: LastGood) {
        if self.last_good.set(last_good).is_ok() {
            self.keep();
        }
    }

    /// Keeps what is in force, unless it is what has been kept. Nobody who asks for the state waits for the disk.
    fn keep(&self) {
        let Some(last_good) = self.last_good.get() else { return };
        let settings = self.settings();
        let configuration = &settings.configuration;
        if configuration.in_place_of.is_some() || configuration.texts.is_empty() {
            return;
        }
        let not_kept = last_good.keep(configuration).err().map(|error| error.to_string());
        if let Some(error) = &not_kept {
            let file = last_good.path().display();
            tracing::error!(%file, error, "the configuration in force cannot be kept for the next start");
        }
        self.state().not_kept = not_kept;
    }

    /// The files that what is in force was made of, and those that a configuration named which was refused; as they
    /// were then.
    pub fn watched(&self) -> BTreeMap<PathBuf, Option<Digest>> {
        let state = self.state();
        let mut files = state.refused.clone();
        files.extend(state.settings.configuration.files.clone());
        files
    }

    /// What is not as the file has it.
    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// What is in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.current()
    }

    /// Changes the state of what is in force. A reload comes before or after, so that it finds what was changed:
    /// this may have to wait for one.
    pub fn change<T>(&self, change: impl FnOnce(&Snapshot) -> T) -> T {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        change(&self.snapshot())
    }

    /// The ways in at the admin address that are in force.
    pub fn ways(&self) -> View<Ways> {
        self.ways.clone()
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.state().settings)
    }

    /// What a listener's new connections are served by.
    pub fn serving(&self, listener: &str) -> Option<View<Serving<Server>>> {
        self.listeners.get(listener).map(|bound| bound.serving.clone())
    }

    /// Where each listener is bound.
    pub fn addresses(&self) -> impl Iterator<Item = (&Arc<str>, &Address)> {
        self.listeners.iter().map(|(name, bound)| (name, &bound.address))
    }

    /// Loads other settings, after those in force, and puts them in force, or tells what is wrong with them and changes
    /// nothing. One at a time, from the loading on, so that the last one asked for is the last one in force. To be
    /// called where tasks can be spawned, and where it may take its time.
    pub fn apply(
        &self,
        load: impl FnOnce(&Settings) -> Result<Settings, Problems>,
        trigger: Trigger,
    ) -> Report {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        let loaded = load(&self.settings());
        let (mut difference, mut refused) = Default::default();
        let (outcome, problems, applied) = match loaded {
            Err(problems) => {
                let as_it_is = |path: &PathBuf| (path.clone(), configuration::digest(path));
                refused = problems.files().iter().map(as_it_is).collect();
                let problems = problems.iter().take(MOST_PROBLEMS).map(ToString::to_string).collect();
                (ReloadOutcome::Refused, problems, None)
            }
            Ok(settings) => {
                let before = self.settings();
                difference = Difference::between(&before.configuration, &settings.configuration);
                if difference.is_empty() && before.configuration.in_place_of.is_none() {
                    (ReloadOutcome::Unchanged, Vec::new(), None)
                } else {
                    self.replace(&settings);
                    self.overrides.end();
                    (ReloadOutcome::Applied, Vec::new(), Some(settings))
                }
            }
        };
        self.series.count(outcome);
        let mut state = self.state();
        state.refused = refused;
        let mut warnings = Problems::default();
        if let Some(settings) = applied {
            state.awaiting_restart = restart::awaited(&self.started.configuration, &settings.configuration);
            warnings = settings.configuration.warnings.clone();
            state.settings = Arc::new(settings);
            state.generation += 1;
        }
        if outcome != ReloadOutcome::Refused {
            self.tell_in_force(&state);
        }
        let report = Report {
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            trigger,
            outcome,
            generation: state.generation,
            took_ms: milliseconds(began.elapsed()),
            difference,
            problems,
        };
        state.history.truncate(HISTORY - 1);
        state.history.push_front(report.clone());
        let awaiting =
            if outcome == ReloadOutcome::Applied { state.awaiting_restart.clone() } else { Vec::new() };
        drop(state);
        if outcome != ReloadOutcome::Refused {
            self.keep();
        }
        report.log();
        for warning in warnings.iter() {
            tracing::warn!(%warning, "the configuration will not do for ever");
        }
        for key in awaiting {
            tracing::warn!(key, "cannot be reloaded; its new value counts after a restart");
        }
        report
    }

    /// Swaps the snapshot, the tables and what listeners serve by. Requests keep the routes they have loaded.
    fn replace(&self, settings: &Settings) {
        let previous = self.snapshot.current();
        let next = Arc::new(Snapshot::new(settings, &self.around, Some(&previous)));
        for (name, bound) in &self.listeners {
            let new = settings.listeners.iter().find(|listener| listener.name == *name);
            let Some(new) = new.map(|new| at(new, bound.address.clone())) else { continue };
            // counts for those that are open as well
            let in_flight = self.around.in_flight(settings.in_flight, &new);
            if new != bound.serving.current().settings {
                let expiries = expiries(&self.around.metrics, &new);
                *bound.expiries.lock().unwrap_or_else(PoisonError::into_inner) = expiries;
                let (recorder, connections) = (Arc::clone(&self.recorder), self.connections.clone());
                let protocol =
                    Server::new(new.clone(), bound.table.clone(), recorder, connections, in_flight);
                bound.serving.replace(Arc::new(Serving { settings: new, protocol }));
            }
        }
        // the routes after the certificates: whoever finds a new one finds all that came with it
        for (name, bound) in &self.listeners {
            if let Some(table) = next.tables.get(name) {
                bound.table.replace(Arc::clone(table));
            }
        }
        self.snapshot.replace(Arc::clone(&next));
        let (resolver, metrics) = (&self.around.resolver, &self.around.metrics);
        let before = self.ways.current();
        self.ways.replace(Arc::new(Ways::new(&settings.admin.ways, resolver, metrics, Some(&before))));
        previous.retire(&next);
        if let Some(grace) = settings.reload.grace {
            let over = Instant::now() + grace;
            let leaving = previous.removed(&next).map(|(name, route)| {
                let removal = Arc::clone(&route.removal);
                Leaving { route: name.into(), removal, over }
            });
            self.leaving().extend(leaving);
        }
    }

    /// What is to be done now and then: closes upstream connections that are no longer wanted, and ends the streams
    /// of removed routes whose grace is over.
    pub fn sweep(&self) {
        self.snapshot().pools().for_each(|pool| pool.sweep());
        let now = Instant::now();
        self.leaving().retain(|leaving| {
            if Arc::strong_count(&leaving.removal) == 1 {
                // nobody is on it any more
                return false;
            }
            if now >= leaving.over {
                tracing::info!(route = %leaving.route, "ending the streams that are left on a removed route");
                leaving.removal.end();
            }
            now < leaving.over
        });
    }

    fn leaving(&self) -> MutexGuard<'_, Vec<Leaving>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For `/status`: which configuration is in force, what waits for a restart, the last reloads.
    pub fn status(&self) -> serde_json::Value {
        let state = self.state();
        serde_json::json!({
            "generation": state.generation,
            "hash": state.settings.configuration.hash.to_string(),
            "awaiting_restart": state.awaiting_restart,
            "warnings": state.settings.configuration.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "last_good": self.last_good.get().map(|last_good| last_good_status(last_good, &state)),
            "overrides": self.overrides.status(),
            "reloads": state.history,
        })
    }

    fn tell_in_force(&self, state: &State) {
        self.series.in_force(InForce {
            generation: state.generation,
            hash: state.settings.configuration.hash.number(),
            awaiting_restart: state.awaiting_restart.len(),
            last_good: state.settings.configuration.in_place_of.is_some(),
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where what is in force is kept, and whether it is what was kept.
fn last_good_status(last_good: &LastGood, state: &State) -> serde_json::Value {
    let broken = state.settings.configuration.in_place_of.as_ref();
    let problems = broken.into_iter().flat_map(Problems::iter).take(MOST_PROBLEMS);
    serde_json::json!({
        "file": last_good.path(),
        "in_force": broken.is_some(),
        "problems": problems.map(ToString::to_string).collect::<Vec<_>>(),
        "not_kept": state.not_kept,
    })
}

impl Report {
    fn log(&self) {
        let (trigger, generation, took_ms) = (self.trigger.word(), self.generation, self.took_ms);
        match self.outcome {
            ReloadOutcome::Applied => {
                let Difference { added, removed, changed, files } = &self.difference;
                tracing::info!(
                    trigger, generation, took_ms, %added, %removed, %changed, %files, "configuration reloaded"
                );
            }
            ReloadOutcome::Unchanged => tracing::info!(trigger, generation, "configuration has not changed"),
            ReloadOutcome::Refused => {
                for problem in &self.problems {
                    tracing::error!(problem);
                }
                tracing::error!(trigger, generation, "configuration refused; the one before stays in force");
            }
        }
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

/// When a listener's certificates expire, if it has any: on the metrics page for as long as this is held.
fn expiries(metrics: &Metrics, settings: &listener::Settings) -> Option<Expiries> {
    let named = |(name, expires): (&str, SystemTime)| (Configured::new(name), expires);
    let listener = Configured::new(Arc::clone(&settings.name));
    settings.tls.as_ref().map(|tls| metrics.expiries(&listener, tls.expiries().map(named)))
}

/// A listener's settings where it is bound: port 0 has become a real one, and another address counts after a restart.
fn at(settings: &listener::Settings, address: Address) -> listener::Settings {
    listener::Settings { address, ..settings.clone() }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The reloads that `/status` shows.
const HISTORY: usize = 16;

/// The problems of one refused reload that are told.
const MOST_PROBLEMS: usize = 50;
