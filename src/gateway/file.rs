//! routes.toml: its shape, how its sources are merged, and the check that makes it [`Settings`].

mod document;
mod environment;
mod layer;
mod otel;
mod source;
#[cfg(test)]
mod tests;
mod tree;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use figment::providers::Serialized;
use figment::value::{Dict, Value};
use figment::{Figment, Provider};
use serde::Deserialize;

use self::layer::{Layer, Spot};
pub use self::source::Sources;
use super::{Settings, Shutdown};
use crate::problem::{Key, Place, Problem, Problems};
use crate::setting::{Check, Count, Duration, OrOff, Written, name};
use crate::{admin, http, listener, net, telemetry, upstream};

/// Merges the sources key by key and checks all that they say: files in order, then `TRACEGATE_…` overrides;
/// `OTEL_*` variables count where these are silent.
pub fn load(sources: &Sources) -> Result<Settings, Problems> {
    let merged = Merged::new(sources);
    let environment: Vec<_> = merged.secrets.iter().chain(&sources.environment).cloned().collect();
    let found = RefCell::new(Problems::default());
    let file: Option<File> = tree::read(&merged.values, &found);
    let mut problems = found.into_inner();
    let mut settings = None;
    // What a file that cannot be read would have said is not known: nothing is missing because of it.
    if let (Some(file), true) = (file, merged.complete) {
        let check = Check::new(&sources.directory, &environment);
        settings = file.check(&check);
        problems.extend(check.into_problems());
    }
    let mut placed: Problems = merged.problems.iter().cloned().collect();
    placed.extend(problems.into_iter().map(|problem| merged.place(problem)));
    settings.filter(|_| placed.is_empty()).ok_or(placed)
}

/// The shape of routes.toml.
#[derive(Debug, Deserialize)]
struct File {
    workers: Written<Count>,
    listeners: BTreeMap<String, listener::file::Listener>,
    admin: admin::file::Admin,
    probes: admin::file::Probes,
    dns: net::file::Dns,
    telemetry: telemetry::file::Telemetry,
    metrics: telemetry::file::Metrics,
    /// What the routes inherit has been merged into them; here it is read so that it is right even if no route
    /// inherits it.
    #[serde(rename = "defaults")]
    _defaults: Defaults,
    upstreams: BTreeMap<String, upstream::file::Upstream>,
    routes: BTreeMap<String, http::file::Route>,
    shutdown: WrittenShutdown,
}

#[derive(Debug, Deserialize)]
struct Defaults {
    #[serde(rename = "route")]
    _route: http::file::Route,
}

#[derive(Debug, Deserialize)]
struct WrittenShutdown {
    drain_delay: Written<OrOff<Duration>>,
    deadline: Written<Duration>,
    flush: Written<Duration>,
}

impl File {
    /// The settings as used; `None` only after a problem has been noted.
    fn check(self, check: &Check<'_>) -> Option<Settings> {
        let key = |table: &str, name: &str| Key::root().child(table).child(name);
        self.refuse_shared_addresses(check);
        if self.listeners.is_empty() {
            let help = "add one: [listeners.public] with address = \"0.0.0.0:8080\"";
            check.wrong(&Key::root().child("listeners"), "there is no listener", help);
        }
        let admin = self.admin.check(self.probes, check);

        let known = http::file::Known {
            listeners: self.listeners.keys().cloned().collect(),
            upstreams: self.upstreams.keys().cloned().collect(),
        };
        let mut listeners = Vec::new();
        for (name, listener) in self.listeners {
            name::check(&key("listeners", &name), check);
            listeners.extend(listener.check(&name, check));
        }
        let mut upstreams = Vec::new();
        for (name, upstream) in self.upstreams {
            name::check(&key("upstreams", &name), check);
            upstreams.extend(upstream.check(&name, admin.address, check));
        }
        let mut routes = Vec::new();
        for (name, route) in self.routes {
            let key = key("routes", &name);
            name::check(&key, check);
            routes.extend(route.check(&name, &known, check).map(|route| (key, route)));
        }
        http::file::ties::refuse(&routes, check);

        let telemetry = self.telemetry.check(self.metrics, check);
        Some(Settings {
            listeners,
            admin,
            dns: self.dns.check(check),
            telemetry,
            upstreams,
            routes: routes.into_iter().map(|(_, route)| route).collect(),
            shutdown: self.shutdown.check(),
            workers: self.workers.into_option().map(Into::into),
        })
    }

    /// Two sockets cannot listen on one address.
    fn refuse_shared_addresses(&self, check: &Check<'_>) {
        let mut taken = vec![(self.admin.address().key().clone(), self.admin.used_address())];
        let listeners = self.listeners.values().map(listener::file::Listener::address);
        for address in [self.probes.address()].into_iter().chain(listeners) {
            let Some(wanted) = address.get().map(|address| SocketAddr::from(*address)) else { continue };
            if let Some((key, other)) = taken.iter().find(|(_, other)| collide(wanted, *other)) {
                let what = format!("\"{wanted}\" is taken by {key} (\"{other}\")");
                check.wrong(address.key(), what, "write another port");
            }
            taken.push((address.key().clone(), wanted));
        }
    }
}

/// Whether two addresses cannot be bound at once. Port 0 is a free one each time.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && (one.ip() == other.ip() || (same_family && any))
}

impl WrittenShutdown {
    fn check(self) -> Shutdown {
        let drain_delay: Option<_> = self.drain_delay.or(Some(seconds(2)));
        Shutdown {
            drain_delay: drain_delay.unwrap_or_default(),
            deadline: self.deadline.or(seconds(20)),
            flush: self.flush.or(seconds(5)),
        }
    }
}

fn seconds(seconds: u64) -> std::time::Duration {
    std::time::Duration::from_secs(seconds)
}

/// All sources as one, and where everything in them stands.
struct Merged {
    values: Value,
    /// Secrets that the `OTEL_*` variables hold.
    secrets: Vec<(String, String)>,
    /// The layers that later ones override, first of all the files in order.
    layers: Vec<Layer>,
    /// What kept a source from being merged.
    problems: Vec<Problem>,
    /// Whether every file could be merged.
    complete: bool,
}

impl Merged {
    fn new(sources: &Sources) -> Self {
        let mut layers = Vec::new();
        let mut problems = Vec::new();
        for (source, (origin, text)) in sources.files.iter().enumerate() {
            match document::parse(source, origin, text) {
                Ok(layer) => layers.push(layer),
                Err(problem) => problems.push(problem),
            }
        }
        let complete = problems.is_empty();
        let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(provider(layer)));

        let source = sources.files.len();
        let mut overrides = environment::overrides(&sources.environment, source);
        if complete {
            problems.extend(environment::refuse_new_tables(&mut overrides, &dict(&figment)));
        }
        let figment = figment.merge(provider(&overrides));

        let otel = otel::read(&sources.environment, &dict(&figment), source + 1);
        problems.extend(otel.problems);
        let figment = figment.join(provider(&otel.layer));
        layers.extend([overrides, otel.layer]);

        let values = Value::from(inherit(dict(&figment)));
        Self { values, secrets: otel.secrets, layers, problems, complete }
    }

    /// Gives a problem its place. What a route has inherited is wrong in the defaults.
    fn place(&self, problem: Problem) -> Problem {
        let inherited = || inherited(&problem.key).filter(|key| self.written(key).is_some());
        let key = if self.written(&problem.key).is_some() { None } else { inherited() };
        let problem = Problem { key: key.unwrap_or(problem.key), ..problem };
        let place = match self.written(&problem.key) {
            Some(spot) if problem.names_key => spot.key.clone(),
            Some(spot) => spot.value.clone(),
            None => self.table(&problem.key),
        };
        problem.at(place)
    }

    /// Where the key was written last, which is the value in force, or something in the table that it is.
    fn written(&self, key: &Key) -> Option<&Spot> {
        let (otel, others) = self.layers.split_last()?;
        let mut layers = others.iter().rev().chain([otel]);
        let exactly = layers.clone().find_map(|layer| layer.places.get(key));
        exactly.or_else(|| layers.find_map(|layer| layer.within(key)).map(|(_, spot)| spot))
    }

    /// Where something that is missing belongs: the nearest table around it that was written, where it was
    /// written first.
    fn table(&self, key: &Key) -> Place {
        let tables = std::iter::successors(key.parent(), Key::parent);
        let spot = tables
            .into_iter()
            .find_map(|table| self.layers.iter().find_map(|layer| layer.places.get(&table)));
        spot.map(|spot| spot.value.clone()).unwrap_or_default()
    }
}

fn provider(layer: &Layer) -> impl Provider {
    Serialized::defaults(layer.values.clone())
}

fn dict(figment: &Figment) -> Dict {
    figment.extract().expect("tables of plain values merge into a table of plain values")
}

/// The same key of a route in the table that routes inherit.
fn inherited(key: &Key) -> Option<Key> {
    match key.segments() {
        [routes, _, rest @ ..] if routes == "routes" => {
            Some(["defaults", "route"].into_iter().chain(rest.iter().map(String::as_str)).collect())
        }
        _ => None,
    }
}

/// Gives each route what `[defaults.route]` says where the route is silent, key by key.
fn inherit(mut values: Dict) -> Dict {
    let defaults = values.get("defaults").and_then(|defaults| defaults.find_ref("route")).cloned();
    if let (Some(defaults), Some(Value::Dict(_, routes))) = (defaults, values.get_mut("routes")) {
        for route in routes.values_mut() {
            fill(route, &defaults);
        }
    }
    values
}

fn fill(value: &mut Value, defaults: &Value) {
    if let (Value::Dict(_, value), Value::Dict(_, defaults)) = (value, defaults) {
        for (name, default) in defaults {
            match value.get_mut(name) {
                Some(written) => fill(written, default),
                None => drop(value.insert(name.clone(), default.clone())),
            }
        }
    }
}
