//! Who can be reached: endpoints, receivers, issuers and Redis, each tried once, as the gateway itself would.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use http::Uri;

use super::settings::Settings;
use crate::failure::Failure;
use crate::http::auth::Kind;
use crate::http::auth::issuer::{Fetched, Source};
use crate::http::auth::jwk::KeySet;
use crate::http::probe;
use crate::http::rate_limit::store::Store;
use crate::net::fetch::Page;
use crate::net::tls::{self, ClientTls};
use crate::net::{Resolver, Socket, dial};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::endpoints::CheckOutcome;
use crate::upstream::{self, Endpoint, Probe, Upstream};

/// Somebody who was tried.
#[derive(Debug)]
pub struct Reached {
    /// Its table in the configuration: `upstreams.shop`, `telemetry.otlp`, `auth.staff`, `redis.main`.
    pub table: String,
    /// Where it is: `http://127.0.0.1:9001`.
    pub address: String,
    /// What was found, or why not.
    pub outcome: Result<String, String>,
    /// How long it took.
    pub took: Duration,
}

/// Tries everybody at once, each within the time that its settings give it. To be called within a runtime.
pub async fn all(settings: &Settings) -> Vec<Reached> {
    let resolver = Resolver::new(&settings.dns);
    let mut tries = Vec::new();
    for known in &settings.upstreams {
        tries.extend(endpoints(known, &resolver, true));
    }
    tries.extend(receivers(settings, &resolver));
    for rule in &settings.auth {
        if let Kind::Jwt(_, Source::Url(fetched)) = &rule.kind {
            tries.push(issuer(rule.rule(), fetched, &resolver));
        }
    }
    if let Some(Source::Url(fetched)) = settings.admin.ways.signed.as_ref().map(|signed| &signed.source) {
        tries.push(issuer("admin.jwt".to_owned(), fetched, &resolver));
    }
    for known in &settings.redis {
        let store = Arc::new(Store::new(known.clone(), &resolver));
        let scheme = if known.tls.is_some() { "rediss" } else { "redis" };
        let address = format!("{scheme}://{}:{}", bracketed(&known.host), known.port);
        let asked = async move { store.greet().await.map(|()| "answers".to_owned()) };
        tries.push(tried(format!("redis.{}", known.name), address, known.connect_timeout, asked.boxed()));
    }
    join_all(tries).await
}

/// Says of each upstream how many of its endpoints take connections, and why the others do not.
pub async fn tell_upstreams(settings: &Settings) {
    let resolver = Resolver::new(&settings.dns);
    let upstreams = settings.upstreams.iter().map(|known| async {
        let reached = join_all(endpoints(known, &resolver, false)).await;
        let away = reached.iter().filter_map(|reached| {
            let why = reached.outcome.as_ref().err()?;
            Some(format!("{} {why}", reached.address))
        });
        let away: Vec<String> = away.collect();
        let all = reached.len();
        let reachable = format!("{} of {all}", all - away.len());
        if away.is_empty() {
            tracing::info!(upstream = &*known.name, reachable, "endpoints were tried");
        } else {
            tracing::warn!(upstream = &*known.name, reachable, ?away, "endpoints were tried");
        }
    });
    join_all(upstreams).await;
}

type Try = BoxFuture<'static, Reached>;

/// A try that is given up after a time.
fn tried(
    table: String,
    address: String,
    within: Duration,
    trying: BoxFuture<'static, Result<String, String>>,
) -> Try {
    async move {
        let started = Instant::now();
        let outcome = tokio::time::timeout(within, trying).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {within:?}")));
        Reached { table, address, outcome, took: started.elapsed() }
    }
    .boxed()
}

/// The endpoints of an upstream: a connection, and the health check if there is one and it is asked for.
fn endpoints(settings: &upstream::Settings, resolver: &Resolver, health: bool) -> Vec<Try> {
    // of its own: what is tried here is not counted
    let metrics = Metrics::new(&crate::telemetry::settings::Metrics::default());
    let upstream = Upstream::new(settings, resolver, &metrics, None);
    let probe = settings
        .health
        .as_ref()
        .filter(|_| health)
        .map(|health| (probe::new(health, settings), health.timeout));
    let each = upstream.endpoints().iter().map(|endpoint| {
        let endpoint = Arc::clone(endpoint);
        let address = endpoint.labels.origin.to_string();
        let within =
            settings.connect_timeout + probe.as_ref().map_or(Duration::ZERO, |(_, timeout)| *timeout);
        let trying = endpoint_answers(endpoint, probe.as_ref().map(|(probe, _)| Arc::clone(probe)));
        tried(format!("upstreams.{}", settings.name), address, within + GRACE, trying.boxed())
    });
    each.collect()
}

async fn endpoint_answers(endpoint: Arc<Endpoint>, probe: Option<Arc<dyn Probe>>) -> Result<String, String> {
    let facts = endpoint.dial().await.map_err(|failure| told(&failure))?.facts;
    let mut found = facts.handshake.map_or("connected", |_| "connected with TLS").to_owned();
    if let Some(probe) = probe {
        match probe.probe(&endpoint).await {
            CheckOutcome::Passed => found.push_str(", healthy"),
            outcome => return Err(format!("{found}, but its health check failed: {}", outcome.word())),
        }
    }
    Ok(found)
}

fn receivers(settings: &Settings, resolver: &Resolver) -> Vec<Try> {
    let telemetry = &settings.telemetry;
    let otlp = telemetry.otlp.iter().map(|otlp| ("telemetry.otlp", &otlp.receiver));
    let zipkin = telemetry.zipkin.iter().map(|receiver| ("telemetry.zipkin", receiver));
    let mut tries: Vec<Try> = otlp
        .chain(zipkin)
        .filter_map(|(table, receiver)| {
            let url: Uri = receiver.endpoint.parse().ok()?;
            let port = url.port_u16().unwrap_or(if receiver.tls.is_some() { 443 } else { 80 });
            let host = url.host()?.trim_matches(['[', ']']);
            let trying = connects(resolver, host, port, receiver.tls.clone(), receiver.timeout);
            Some(tried(table.to_owned(), receiver.endpoint.to_string(), receiver.timeout + GRACE, trying))
        })
        .collect();
    if let Some(logstash) = &telemetry.logstash {
        let scheme = if logstash.tls.is_some() { "tls" } else { "tcp" };
        let address = format!("{scheme}://{}:{}", bracketed(&logstash.host), logstash.port);
        let bound = logstash.connect_timeout;
        let trying = connects(resolver, &logstash.host, logstash.port, logstash.tls.clone(), bound);
        tries.push(tried("telemetry.logstash".to_owned(), address, bound + GRACE, trying));
    }
    tries
}

/// A connection, with its TLS handshake.
fn connects(
    resolver: &Resolver,
    host: &str,
    port: u16,
    tls: Option<ClientTls>,
    within: Duration,
) -> BoxFuture<'static, Result<String, String>> {
    let name = resolver.name(host);
    async move {
        let addresses = name.addresses(within).await.map_err(|failure| told(&failure))?;
        let addresses: Vec<_> = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
        let dialed = dial(&addresses, within).await.map_err(|failure| told(&failure))?;
        let Some(ClientTls { config, server_name }) = tls else { return Ok("connected".to_owned()) };
        let connected = tls::connect(&config, server_name, Socket::tcp(dialed.stream)).await;
        connected.map(|_| "connected with TLS".to_owned()).map_err(|failure| told(&failure))
    }
    .boxed()
}

/// The keys of an issuer.
fn issuer(table: String, fetched: &Fetched, resolver: &Resolver) -> Try {
    let page = Page::new(&fetched.url, fetched.tls.clone(), resolver);
    let (bytes, timeout) = (fetched.bytes, fetched.timeout);
    let asked = async move {
        let answer = page.get(bytes, timeout).await?;
        if !answer.status().is_success() {
            return Err(format!("answers {}", answer.status()));
        }
        KeySet::parse(answer.body()).map(|_| "answers with keys".to_owned())
    };
    tried(table, fetched.url.to_string(), timeout + GRACE, asked.boxed())
}

/// A failure with what the libraries said of it.
fn told(failure: &Failure) -> String {
    failure.source().map_or_else(|| failure.to_string(), |source| format!("{failure}: {source}"))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// What each try has beyond its own bounds, which should end it first: they say more.
const GRACE: Duration = Duration::from_millis(500);
