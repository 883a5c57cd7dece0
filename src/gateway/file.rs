//! routes.toml: its shape, how its sources are merged, and the check that makes it [`Settings`].

mod apart;
mod carried;
mod document;
pub mod effective;
mod environment;
mod layer;
mod merge;
mod otel;
mod renamed;
pub mod schema;
mod source;
#[cfg(test)]
mod tests;
mod tree;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use figment::value::Value;
use schemars::JsonSchema;
use serde::Deserialize;

use self::apart::Apart;
use self::carried::Carried;
use self::merge::Merged;
pub use self::source::Sources;
use self::tree::Entry;
use super::configuration::Configuration;
use super::settings::{Checked, Reload, Settings, Shutdown};
use crate::problem::{Key, Problems};
use crate::setting::check::Secrecy;
use crate::setting::{Check, Count, Digest, Duration, OrOff, Written, name};
use crate::{admin, http, listener, net, telemetry, upstream};

/// Merges the sources key by key and checks all that they say: files in order, then `TRACEGATE_…` overrides;
/// `OTEL_*` variables count where these are silent.
pub fn load(sources: &Sources) -> Result<Settings, Problems> {
    load_with(sources, Secrecy::Needed, None)
}

/// The same where secrets, and the files of certificates with their keys, need not be there. The settings are not to
/// be used: what needs one that is not there is missing in them.
pub fn load_without_secrets(sources: &Sources) -> Result<Settings, Problems> {
    load_with(sources, Secrecy::Waived, None)
}

fn load_with(sources: &Sources, secrecy: Secrecy, before: Option<&Settings>) -> Result<Settings, Problems> {
    let merged = Merged::new(sources);
    let environment: Vec<_> = merged.secrets.iter().chain(&sources.environment).cloned().collect();
    let found = RefCell::new(Problems::default());
    let file: Option<File> = tree::read(merged.values(), &found);
    let routes = tree::entries(merged.values(), "routes", &found);
    let (mut settings, mut of_check) = (None, Problems::default());
    let mut files = BTreeSet::new();
    // What a file that cannot be read would have said is not known: nothing is missing because of it.
    if let (Some(file), true) = (file, merged.complete) {
        let check = Check::new(&sources.directory, &environment).secrecy(secrecy);
        let checked = file.check(&check, routes, before.map(|before| (before, &*merged.written)));
        let mut configuration = Configuration::new(Arc::clone(&merged.written), check.files());
        configuration.warnings = merged.warnings();
        files = check.files();
        settings = Some(Settings { configuration, ..checked });
        of_check = check.into_problems();
    } else {
        routes.for_each(|route| drop(route.read::<http::file::Route>()));
    }
    let mut problems = found.into_inner();
    problems.extend(of_check);
    let mut placed: Problems = merged.problems.iter().cloned().collect();
    placed.extend(merged.named_twice());
    placed.extend(problems.into_iter().map(|problem| merged.place(problem)));
    settings.filter(|_| placed.is_empty()).ok_or_else(|| placed.found_with(files))
}

/// Reads these files and what they name, and the process's environment.
pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Settings, Problems> {
    read_from(&Sources::read(paths)?, paths)
}

/// The same after these settings, which are in force: a route that says what it said then is taken over as it was
/// checked.
pub fn read_after<P: AsRef<Path>>(paths: &[P], before: &Settings) -> Result<Settings, Problems> {
    let sources = Sources::read(paths)?;
    Ok(with_texts(load_after(&sources, before)?, &sources, paths))
}

/// [`load`] after these settings.
pub fn load_after(sources: &Sources, before: &Settings) -> Result<Settings, Problems> {
    load_with(sources, Secrecy::Needed, Some(before))
}

/// The same of what has been read of them.
pub fn read_from<P: AsRef<Path>>(sources: &Sources, paths: &[P]) -> Result<Settings, Problems> {
    Ok(with_texts(load(sources)?, sources, paths))
}

fn with_texts<P: AsRef<Path>>(mut settings: Settings, sources: &Sources, paths: &[P]) -> Settings {
    for (path, (_, text)) in paths.iter().zip(&sources.files) {
        let digest = Digest::of([text.as_bytes()]);
        settings.configuration.files.insert(path.as_ref().to_owned(), Some(digest));
    }
    settings.configuration.texts = sources.files.iter().map(|(_, text)| text.clone()).collect();
    settings
}

/// What these files say, merged, as one file.
pub fn as_one(texts: &[String]) -> Result<String, Problems> {
    merge::as_one(texts)
}

/// The shape of routes.toml.
#[derive(Debug, Deserialize, JsonSchema)]
struct File {
    /// Threads that serve, each with connections of its own; without it `TOKIO_WORKER_THREADS` counts, else what the CPU limit allows.
    workers: Written<Count>,
    /// What bounds the gateway as a whole.
    limits: WrittenLimits,
    /// Where clients come in, by name. At least one; each serves every route that does not name others.
    #[schemars(extend("propertyNames" = { "pattern": name::PATTERN }))]
    listeners: BTreeMap<String, listener::file::Listener>,
    /// Metrics, status and health, apart from the traffic.
    admin: admin::file::Admin,
    /// `/healthz` and `/readyz` alone, for containers.
    probes: admin::file::Probes,
    /// How names of endpoints are resolved.
    dns: net::file::Dns,
    /// What is recorded and where it goes.
    telemetry: telemetry::file::Telemetry,
    /// What Prometheus reads.
    metrics: telemetry::file::Metrics,
    /// What routes inherit has been merged into them; it is read here so that what is wrong with it is found
    /// even if no route inherits it.
    #[serde(rename = "defaults")]
    _defaults: Defaults,
    /// What several gateways share, by name.
    #[schemars(extend("propertyNames" = { "pattern": name::PATTERN }))]
    redis: BTreeMap<String, http::rate_limit::file::Redis>,
    /// How often a client may ask, by name: token buckets, which routes name in `rate_limit`.
    #[schemars(extend("propertyNames" = { "pattern": name::PATTERN }))]
    rate_limits: BTreeMap<String, http::rate_limit::file::RateLimit>,
    /// Who may call, by name: rules that routes name in `auth`. Each verifies one kind of credentials.
    #[schemars(extend("propertyNames" = { "pattern": name::PATTERN }))]
    auth: BTreeMap<String, http::auth::file::Auth>,
    /// Where requests go, by name: a set of servers that answer alike.
    #[schemars(extend("propertyNames" = { "pattern": name::PATTERN }))]
    upstreams: BTreeMap<String, upstream::file::Upstream>,
    /// Which request goes where, by name. The most specific route wins.
    #[schemars(extend("propertyNames" = { "pattern": name::PATTERN }))]
    #[serde(rename = "routes")]
    _routes: Apart<http::file::Route>,
    /// How the gateway goes down on SIGTERM and SIGINT.
    shutdown: WrittenShutdown,
    /// When and how the configuration is read again.
    reload: WrittenReload,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Defaults {
    /// What routes inherit, key by key.
    #[serde(rename = "route")]
    _route: http::file::Route,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenLimits {
    /// Requests in the whole gateway at once; more are answered 503. Default: `10000`.
    in_flight: Written<OrOff<Count>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenShutdown {
    /// How long it still accepts while /readyz says 503. Default: `"2s"`.
    drain_delay: Written<OrOff<Duration>>,
    /// How long requests in flight may take after that. Default: `"20s"`.
    deadline: Written<Duration>,
    /// How long telemetry may take to be flushed. Default: `"5s"`.
    flush: Written<Duration>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenReload {
    /// How often the files are looked at. Default: `"1s"`.
    watch: Written<OrOff<Duration>>,
    /// How long a file that is written again and again is waited for. Default: `"10s"`.
    max_wait: Written<Duration>,
    /// How long streams on a removed route may still go on. Default: `"30s"`.
    grace: Written<OrOff<Duration>>,
}

impl File {
    /// The settings as used, which are not to be used if a problem has been noted. Routes are taken over from the
    /// settings before, if there are any, where what is written now says the same.
    fn check<'a>(
        self,
        check: &Check<'_>,
        written_routes: impl Iterator<Item = Entry<'a>>,
        before: Option<(&Settings, &Value)>,
    ) -> Settings {
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
            rate_limits: self.rate_limits.keys().cloned().collect(),
            auth: self.auth.keys().cloned().collect(),
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
        let known_redis: Vec<String> = self.redis.keys().cloned().collect();
        let mut redis = Vec::new();
        for (name, store) in self.redis {
            name::check(&key("redis", &name), check);
            redis.extend(store.check(&name, check));
        }
        let mut rate_limits = Vec::new();
        for (name, limit) in self.rate_limits {
            name::check(&key("rate_limits", &name), check);
            rate_limits.extend(limit.check(&name, &known_redis, &redis, check));
        }
        let mut auth = Vec::new();
        for (name, rule) in self.auth {
            name::check(&key("auth", &name), check);
            let services = http::auth::file::Services { names: &known.upstreams, known: &upstreams };
            auth.extend(rule.check(&name, services, check));
        }
        let carried = before.and_then(|(before, written)| Carried::new(before, written, &known));
        let (mut routes, mut looked) = (Vec::new(), BTreeSet::new());
        for entry in written_routes {
            let (key, name) = (entry.key.clone(), entry.name);
            if let Some(route) = carried.as_ref().and_then(|carried| carried.route(name)) {
                routes.push((key, Arc::clone(route)));
                continue;
            }
            name::check(&key, check);
            let looks = check.looked();
            let read: Option<http::file::Route> = entry.read();
            routes.extend(
                read.and_then(|route| route.check(name, &known, check)).map(|route| (key, Arc::new(route))),
            );
            if check.looked() != looks {
                looked.insert(name.into());
            }
        }
        http::file::ties::refuse(&routes, check);
        http::file::crossings::refuse(&routes, check);
        admin::file::refuse_shared_audience(admin.ways.signed.as_ref(), &auth, check);
        http::file::identities::refuse(&routes, &rate_limits, &auth, check);

        let telemetry = self.telemetry.check(self.metrics, check);
        Settings {
            listeners,
            admin,
            dns: self.dns.check(check),
            telemetry,
            redis,
            rate_limits,
            auth,
            upstreams,
            routes: routes.into_iter().map(|(_, route)| route).collect(),
            checked: Checked { known, looked },
            shutdown: self.shutdown.check(),
            reload: self.reload.check(),
            in_flight: match self.limits.in_flight.into_option() {
                None => Some(10_000),
                Some(written) => written.into_option().map(Into::into),
            },
            workers: self.workers.into_option().map(Into::into),
            configuration: Configuration::default(),
        }
    }

    /// Two sockets cannot listen on one address.
    fn refuse_shared_addresses(&self, check: &Check<'_>) {
        let mut taken =
            vec![(self.admin.address().key().clone(), listener::Address::Tcp(self.admin.used_address()))];
        let probes = self.probes.address();
        let probes_address = probes.get().map(|address| listener::Address::Tcp((*address).into()));
        let listeners = self.listeners.values().map(listener::file::Listener::address);
        let listeners = listeners.map(|address| (address.key(), address.get().cloned()));
        for (key, wanted) in [(probes.key(), probes_address)].into_iter().chain(listeners) {
            let Some(wanted) = wanted else { continue };
            if let Some((by, other)) = taken.iter().find(|(_, other)| collide(&wanted, other)) {
                let what = format!("\"{wanted}\" is taken by {by} (\"{other}\")");
                check.wrong(
                    key,
                    what,
                    if wanted.tcp().is_some() { "write another port" } else { "write another path" },
                );
            }
            taken.push((key.clone(), wanted));
        }
    }
}

/// Whether two addresses cannot be bound at once. Port 0 is a free one each time.
fn collide(one: &listener::Address, other: &listener::Address) -> bool {
    let (Some(one), Some(other)) = (one.tcp(), other.tcp()) else { return one == other };
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

impl WrittenReload {
    fn check(self) -> Reload {
        Reload {
            watch: self.watch.or(Some(seconds(1))),
            max_wait: self.max_wait.or(seconds(10)),
            grace: self.grace.or(Some(seconds(30))),
        }
    }
}

fn seconds(seconds: u64) -> std::time::Duration {
    std::time::Duration::from_secs(seconds)
}
