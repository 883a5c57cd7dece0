//! What people are shown of what is in force: routes, upstreams with their endpoints, certificates.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::settings::Settings;
use super::snapshot::Snapshot;
use crate::admin::RouteFacts;
use crate::listener::tls::Tls;
use crate::upstream::Upstream;
use crate::upstream::breaker::Level;
use crate::upstream::standing::Status;

/// The routes in force, by name.
pub(super) fn routes(snapshot: &Snapshot) -> Vec<RouteFacts> {
    let all = snapshot.routes.iter().map(|(name, route)| {
        let labels = &route.target.labels;
        let upstreams = route.targets().filter_map(|target| target.labels.upstream());
        RouteFacts {
            name: name.to_string(),
            template: labels.template.to_string(),
            methods: route.matches.methods.iter().map(ToString::to_string).collect(),
            upstreams: upstreams.map(|upstream| upstream.to_string()).collect(),
            operation: labels.operation.as_deref().map(str::to_owned),
            maintenance: route.maintenance.is_on(),
            slow_after_ms: labels.sampling.slow_after.map(|slow| slow.as_secs_f64() * 1e3),
        }
    });
    all.collect()
}

/// The upstreams, each with its name.
pub(super) fn upstreams(snapshot: &Snapshot) -> Vec<Value> {
    let named = |(name, upstream): (&str, Value)| {
        let mut named = Map::from_iter([("name".to_owned(), name.into())]);
        if let Value::Object(facts) = upstream {
            named.extend(facts);
        }
        named.into()
    };
    let all = snapshot.upstreams.iter().map(|(name, connected)| (name, upstream(&connected.upstream)));
    all.map(named).collect()
}

/// The certificates of listeners, and when they expire.
pub(super) fn certificates(settings: &Settings, now: SystemTime) -> Vec<Value> {
    let all = settings.listeners.iter().filter_map(|listener| Some((&listener.name, listener.tls.as_ref()?)));
    let of = |(listener, tls): (&Arc<str>, &Arc<Tls>)| {
        let soon: Vec<&str> = tls.expiring(now).map(|(name, _)| name).collect();
        let shown = |(name, expires): (&str, SystemTime)| {
            let left = match expires.duration_since(now) {
                Ok(left) => left.as_secs_f64(),
                Err(over) => -over.duration().as_secs_f64(),
            };
            json!({
                "listener": &**listener,
                "certificate": name,
                "expires": humantime::format_rfc3339_seconds(expires.max(SystemTime::UNIX_EPOCH)).to_string(),
                "days_left": (left / 86_400.0 * 10.0).floor() / 10.0,
                "soon": soon.contains(&name),
            })
        };
        tls.expiries().map(shown).collect::<Vec<_>>()
    };
    all.flat_map(of).collect()
}

/// An upstream, with its endpoints.
pub(super) fn upstream(upstream: &Upstream) -> Value {
    let endpoint = |status: Status| {
        let mut shown = json!({
            "endpoint": status.endpoint,
            "state": status.word(),
            "in_flight": status.in_flight,
            "weight": status.weight,
            "health": status.health.word(),
            "in_use": status.in_use,
        });
        let seconds = |time: Duration| (time.as_secs_f64() * 10.0).round() / 10.0;
        if let Some(left) = status.ejected_for {
            shown["ejected_for_seconds"] = seconds(left).into();
        }
        if let Some(since) = status.slow_start {
            shown["returned_seconds_ago"] = seconds(since).into();
        }
        shown
    };
    let endpoints: Vec<_> = upstream.statuses().into_iter().map(endpoint).collect();
    let mut shown = json!({ "endpoints": endpoints, "panic": upstream.is_in_panic() });
    if let Some(breaker) = upstream.breaker() {
        let level = |level: Level| {
            let Level { bound, most, now, refused } = level;
            (bound.word().to_owned(), json!({ "most": most, "now": now, "refused": refused }))
        };
        shown["breaker"] = Value::Object(breaker.levels().map(level).collect());
    }
    shown
}
