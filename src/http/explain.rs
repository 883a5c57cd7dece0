//! What would become of a request, and why: asked of the stages' own functions, without sending anything.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, StatusCode, request};

use super::dispatch;
use super::headers::{Fields, Peer};
use super::policy;
use super::record;
use super::route::{Host, Match, Route, Settings};
use super::routes::{Found, Routes, specificity};
use super::shape::parameter_names;
use crate::failure::Failure;
use crate::listener;
use crate::telemetry::context::Origin;
use crate::telemetry::exchange::Scheme;
use crate::telemetry::operation::{Attempt, ConnectionFacts, Record, Sink};
use crate::telemetry::recorder::Recorder;
use crate::telemetry::sampling::{Decision, Unsampled};
use crate::telemetry::span::Kind;
use crate::telemetry::{self, spans};
use crate::upstream::Upstream;

/// What is asked: a request that comes to a listener.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Where it comes in.
    pub listener: &'a listener::Settings,
    /// Every route, as configured.
    pub routes: &'a [Arc<Settings>],
    /// What is recorded.
    pub telemetry: &'a telemetry::settings::Settings,
    /// Where the connection comes from.
    pub from: IpAddr,
    /// Whether it comes with TLS.
    pub https: bool,
}

/// What would become of it.
#[derive(Debug)]
pub struct Explained {
    /// The host that it is for, as it is routed.
    pub host: Option<String>,
    /// The path as it is routed; `None` if the request is refused before that.
    pub path: Option<String>,
    /// Why it is refused before any policy is asked.
    pub refused: Option<Failure>,
    /// Its route, by its place in the question.
    pub route: Option<usize>,
    /// The parameters of its path.
    pub parameters: Vec<(String, String)>,
    /// Why the other routes are not taken; those that miss least first.
    pub others: Vec<(usize, Vec<Miss>)>,
    /// How its trace context comes to be.
    pub origin: Origin,
    /// Whether the trace would be sampled.
    pub decision: Decision,
    /// The client, by the listener's rule of trust.
    pub client: IpAddr,
    /// The spans of an exchange that succeeds, as they are exported.
    pub spans: Vec<Preview>,
}

/// Why a route is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// It is served on other listeners.
    Listener,
    /// It is for other paths.
    Path,
    /// It is for other hosts.
    Host,
    /// It is for other methods.
    Method,
    /// It asks for this header field, or for another value of it.
    Header(String),
    /// It would match, but the route taken is more exact in this.
    LessSpecific(&'static str),
}

/// A span to come.
#[derive(Debug)]
pub struct Preview {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its attributes; `None` is a value that only the exchange itself can tell.
    pub attributes: Vec<(String, Option<String>)>,
}

/// Explains a request. `upstream` builds what a route forwards to, if it forwards.
pub fn explain(
    question: Question<'_>,
    mut head: request::Parts,
    upstream: impl FnOnce(&str) -> Option<Arc<Upstream>>,
) -> Explained {
    let Question { listener, routes, telemetry, from, https } = question;
    let trusted = listener.trusted_proxies.iter().any(|net| net.contains(&from.to_canonical()));
    let peer = Peer::new(from, if https { Scheme::Https } else { Scheme::Http }, trusted);
    let trusts = |address: IpAddr| listener.trusted_proxies.iter().any(|net| net.contains(&address));
    let client = peer.client(&head.headers, trusts);

    let ended = Arc::new(Ended::default());
    let sinks = [Arc::clone(&ended) as Arc<dyn Sink>];
    let recorder = Recorder::new(
        telemetry.sampling.clone(),
        telemetry.metrics.stream_after,
        telemetry.privacy.clone(),
        sinks,
    );
    let fields = Fields::of(&head.headers);
    let operation = record::open(&recorder, listener, &peer, client, &mut head, fields);
    let handle = operation.handle().clone();

    let admitted = dispatch::admit(&listener.limits, &peer, &mut head, fields);
    let served: Vec<_> = routes.iter().map(|route| Arc::new(Route::unserved(route))).collect();
    let here = routes.iter().zip(&served).filter(|(settings, _)| serves(settings, listener));
    let table = Routes::new(here.map(|(_, route)| Arc::clone(route)));
    let (host, found) = match admitted {
        Ok(host) => {
            let found = dispatch::route(&table, &host, &head);
            (Some(host), found)
        }
        Err(failure) => (None, Err(failure)),
    };
    let path = host.is_some().then(|| head.uri.path().to_owned());
    let mut explained = Explained {
        host,
        path,
        refused: None,
        route: None,
        parameters: Vec::new(),
        others: Vec::new(),
        origin: handle.context.origin,
        // not before the route is known, which has its say
        decision: Decision::Unsampled(Unsampled::Off),
        client,
        spans: Vec::new(),
    };
    match found {
        Ok((route, values)) => {
            let index = served.iter().position(|known| Arc::ptr_eq(known, &route));
            explained.route = index;
            let names = parameter_names(&route.matches.path);
            explained.parameters =
                names.iter().map(ToString::to_string).zip(values.iter().map(ToString::to_string)).collect();
            handle.route(&route.target.labels);
            if let Some(settings) = index.map(|index| &routes[index]) {
                policy::state_attributes(settings, &values, &head.headers, &handle);
            }
            if let Some(upstream) = upstream(&route.target.labels.upstream)
                && let Some(endpoint) = upstream.endpoints().first()
            {
                let mut attempt = Attempt::start(&handle, &endpoint.labels);
                attempt.connected(ConnectionFacts::default());
                attempt.head(StatusCode::OK.as_u16());
                attempt.complete();
            }
            handle.head(StatusCode::OK.as_u16());
        }
        Err(failure) => {
            handle.head(failure.reason.status().map_or(0, |status| status.as_u16()));
            handle.fail(&failure);
            explained.refused = Some(failure);
        }
    }
    explained.decision = handle.decide();
    if let (Some(host), Some(path)) = (&explained.host, &explained.path) {
        let asked = Asked { host, path, method: &head.method, head: &head };
        let winner = explained.route.map(|index| &*routes[index]);
        let others = routes.iter().enumerate().filter(|(index, _)| Some(*index) != explained.route);
        let mut others: Vec<_> =
            others.map(|(index, route)| (index, asked.misses(route, winner, listener))).collect();
        others.sort_by_key(|(_, misses)| {
            (misses.contains(&Miss::Listener), misses.contains(&Miss::Path), misses.len())
        });
        explained.others = others;
    }
    handle.complete();
    drop(operation);
    if let Some(record) = ended.take() {
        explained.spans = spans::preview(&record, &telemetry.privacy).map(|span| preview(&span)).collect();
    }
    explained
}

/// Whether a route is served on this listener.
pub fn serves(route: &Settings, listener: &listener::Settings) -> bool {
    route.listeners.as_ref().is_none_or(|names| names.contains(&listener.name))
}

/// A request as the table is asked.
struct Asked<'a> {
    host: &'a str,
    path: &'a str,
    method: &'a Method,
    head: &'a request::Parts,
}

impl Asked<'_> {
    /// Why this route is not taken: each of its conditions is asked alone, of a table of nothing else.
    fn misses(
        &self,
        route: &Settings,
        winner: Option<&Settings>,
        listener: &listener::Settings,
    ) -> Vec<Miss> {
        let Match { hosts, path, methods, headers } = &route.matches;
        let any =
            || Match { hosts: Vec::new(), path: "/{*rest}".into(), methods: Vec::new(), headers: Vec::new() };
        let mut misses = Vec::new();
        let mut ask = |miss: Miss, matches: Match| {
            if !self.matches(route, matches) {
                misses.push(miss);
            }
        };
        ask(Miss::Path, Match { path: path.clone(), ..any() });
        ask(Miss::Host, Match { hosts: hosts.clone(), ..any() });
        ask(Miss::Method, Match { methods: methods.clone(), ..any() });
        for condition in headers {
            ask(Miss::Header(condition.0.to_string()), Match { headers: vec![condition.clone()], ..any() });
        }
        if !serves(route, listener) {
            misses.push(Miss::Listener);
        }
        if let (true, Some(winner)) = (misses.is_empty(), winner) {
            misses.push(Miss::LessSpecific(self.more_exact(winner, route)));
        }
        misses
    }

    fn matches(&self, route: &Settings, matches: Match) -> bool {
        let alone = Route::unserved(&Settings { matches, ..route.clone() });
        let table = Routes::new([Arc::new(alone)]);
        matches!(table.find(self.host, self.path, self.method, &self.head.headers), Found::Route(..))
    }

    /// In what the winner is more exact, by the order of the table.
    fn more_exact(&self, winner: &Settings, other: &Settings) -> &'static str {
        let host = |route: &Settings| {
            let rank = |host: &Host| match host {
                Host::Exact(name) => (usize::from(**name == *self.host) * 2, 0),
                Host::Wildcard(suffix) => (usize::from(self.host.ends_with(&**suffix)), suffix.len()),
            };
            route.matches.hosts.iter().map(rank).max().unwrap_or_default()
        };
        let (ours, theirs) = (specificity(&winner.matches), specificity(&other.matches));
        if host(winner) != host(other) {
            "host"
        } else if ours.0 != theirs.0 {
            "path"
        } else if ours.1 != theirs.1 {
            "methods"
        } else if ours.2 != theirs.2 {
            "headers"
        } else {
            "method"
        }
    }
}

/// Keeps the record of the operation that has ended.
#[derive(Default)]
struct Ended(Mutex<Option<Arc<Record>>>);

impl Ended {
    fn take(&self) -> Option<Arc<Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Sink for Ended {
    fn operation_ended(&self, record: &Arc<Record>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(record));
    }
}

fn preview(span: &telemetry::span::Span<'_>) -> Preview {
    let open = |key: &str| key.ends_with("_ms") || OF_THE_EXCHANGE.contains(&key);
    let attribute = |(key, value): &(&str, telemetry::span::Value<'_>)| {
        let known = (!open(key)).then(|| value.to_string());
        (Cow::from(*key).into_owned(), known)
    };
    Preview {
        kind: span.kind,
        name: span.name.to_string(),
        attributes: span.attributes.iter().map(attribute).collect(),
    }
}

/// What only an exchange can tell, beside times.
const OF_THE_EXCHANGE: [&str; 5] = [
    "http.request.body.size",
    "http.response.body.size",
    "http.response.status_code",
    "network.protocol.version",
    "tracegate.connection",
];
