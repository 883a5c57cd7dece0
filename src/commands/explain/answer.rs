//! What becomes of a request, as text for people and as JSON for programs.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::{Method, request};
use serde_json::{Value, json};

use crate::gateway::Settings;
use crate::http::explain::{Explained, Miss};
use crate::http::policy;
use crate::http::respond::Answer;
use crate::http::retry::Rule;
use crate::http::route;
use crate::listener;
use crate::telemetry::context::Origin;
use crate::telemetry::privacy;
use crate::telemetry::sampling::{Because, Decision};
use crate::telemetry::settings::ClientAddress;
use crate::telemetry::span::Kind;
use crate::upstream;

/// What was asked.
pub(super) struct Asked<'a> {
    pub(super) settings: &'a Settings,
    pub(super) listener: &'a listener::Settings,
    pub(super) method: Method,
    /// As pasted.
    pub(super) url: String,
    /// The path as it is sent.
    pub(super) path: String,
    /// The request as it is sent.
    pub(super) head: request::Parts,
}

/// A client's address where none is told, of those that are for examples (RFC 5737).
pub(super) const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// For people.
pub(super) fn text(asked: &Asked<'_>, explained: &Explained) -> String {
    let mut page = Page(String::new());
    page.head(&format!("{} {}", asked.method, asked.url));
    page.line("listener", format!("{} ({})", asked.listener.name, asked.listener.address));
    let example = if explained.client == SOMEBODY { "  (an example: --from names another)" } else { "" };
    page.line("client", format!("{}{example}", explained.client));
    page.some("host", explained.host.as_ref().map(|host| if host.is_empty() { "(none)" } else { host }));
    page.line("path", normalised(asked, explained));
    if let Some(failure) = &explained.refused {
        let status = failure.reason.status().map_or(String::new(), |status| format!(" {}", status.as_u16()));
        page.line("refused", format!("{failure}{status}: {}", failure.reason.meaning()));
        let fields = failure.fields.iter().flat_map(|fields| fields.iter());
        for (name, value) in fields {
            page.line("", format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
        }
        page.line("", format!("tracegate explain {}", failure.reason.word()));
    }
    if let Some(route) = route(asked, explained) {
        page.line("route", &route.name);
        page.line("", conditions(route));
        for (name, value) in &explained.parameters {
            page.line("", format!("{name} = {value}"));
        }
    }
    others(&mut page, asked, explained);
    if let Some(route) = route(asked, explained) {
        route_text(&mut page, asked, route);
    }
    page.head("Connection");
    for (key, bound) in connection(asked.listener) {
        page.line(key, bound);
    }
    page.head("Telemetry");
    page.line("context", origin(explained.origin));
    for line in sampling(asked, explained) {
        page.line("sampling", line);
    }
    page.line("sent to", receivers(asked));
    for span in &explained.spans {
        page.head(&format!("Exported: {} span \"{}\"", kind(span.kind), span.name));
        for (key, value) in &span.attributes {
            page.line(key, value.as_deref().unwrap_or("(as the exchange goes)"));
        }
    }
    page.head("Redacted");
    for (what, why) in redacted(asked, explained) {
        page.line(&what, why);
    }
    page.0
}

/// For programs. Keys may be added to it.
pub(super) fn object(asked: &Asked<'_>, explained: &Explained) -> Value {
    let others = explained.others.iter().map(|(index, misses)| {
        let misses: Vec<String> = misses.iter().map(|miss| told(miss, route(asked, explained))).collect();
        json!({ "route": asked.settings.routes[*index].name, "because": misses })
    });
    let spans = explained.spans.iter().map(|span| {
        let attributes = span.attributes.iter().map(|(key, value)| (key.clone(), json!(value)));
        let attributes: serde_json::Map<String, Value> = attributes.collect();
        json!({ "kind": kind(span.kind), "name": span.name, "attributes": attributes })
    });
    let refused = explained.refused.as_ref().map(|failure| {
        json!({
            "reason": failure.reason.word(),
            "detail": failure.detail.map(crate::failure::Detail::word),
            "status": failure.reason.status().map(|status| status.as_u16()),
        })
    });
    let redacted = redacted(asked, explained);
    let redacted = redacted.iter().map(|(what, why)| json!({ "what": what, "why": why }));
    json!({
        "method": asked.method.as_str(),
        "url": asked.url,
        "listener": &*asked.listener.name,
        "client": explained.client,
        "host": explained.host,
        "path": explained.path,
        "refused": refused,
        "route": route(asked, explained).map(|route| route_object(asked, explained, route)),
        "others": others.collect::<Vec<_>>(),
        "connection": map(connection(asked.listener)),
        "context": explained.origin.word(),
        "sampled": explained.decision.sampled(),
        "sampling": sampling(asked, explained),
        "receivers": receivers(asked),
        "spans": spans.collect::<Vec<_>>(),
        "redacted": redacted.collect::<Vec<_>>(),
    })
}

fn route<'a>(asked: &Asked<'a>, explained: &Explained) -> Option<&'a route::Settings> {
    explained.route.map(|index| &*asked.settings.routes[index])
}

fn route_text(page: &mut Page, asked: &Asked<'_>, route: &route::Settings) {
    page.head("Policies, in this order");
    let policies = policy::told(route, &asked.settings.rate_limits, &asked.settings.auth);
    if policies.is_empty() {
        page.line("none", "");
    }
    for (key, what) in policies {
        page.line(key, what);
    }
    page.head("Time and tries");
    for (key, bound) in timeouts(route).into_iter().chain(limits(route)) {
        page.line(key, bound);
    }
    if !route.upstreams.is_empty() {
        page.line("retry", retry(route.retry.as_ref()));
    }
    page.head("Where to");
    match &route.shaping.answer {
        Some(Answer::Redirect(redirect)) => page.line("redirect", redirect.status),
        Some(Answer::Static(fixed)) => page.line("respond", fixed.status),
        None => {}
    }
    page.some("path", (!route.upstreams.is_empty()).then(|| route.rewrite.template(&route.matches.path)));
    for (known, share) in upstreams(asked, route) {
        let share =
            if route.upstreams.len() > 1 { format!(", {share:.0} % of the requests") } else { String::new() };
        page.line(&format!("upstream {}", known.name), format!("{}{share}", upstream_told(known)));
        for address in &known.endpoints {
            page.line("", endpoint(address));
        }
    }
}

fn route_object(asked: &Asked<'_>, explained: &Explained, route: &route::Settings) -> Value {
    let policies = policy::told(route, &asked.settings.rate_limits, &asked.settings.auth);
    let upstreams = upstreams(asked, route).into_iter().map(|(known, share)| {
        let endpoints: Vec<_> = known.endpoints.iter().map(endpoint).collect();
        json!({ "name": known.name, "share": share / 100.0, "endpoints": endpoints })
    });
    json!({
        "name": route.name,
        "template": route.matches.path,
        "operation": route.operation,
        "parameters": explained.parameters.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "policies": policies.iter().map(|(key, what)| json!({ "key": key, "what": what })).collect::<Vec<_>>(),
        "timeouts": map(timeouts(route)),
        "limits": map(limits(route)),
        "retry": retry(route.retry.as_ref()),
        "path": route.rewrite.template(&route.matches.path),
        "upstreams": upstreams.collect::<Vec<_>>(),
    })
}

/// What normalisation did.
fn normalised(asked: &Asked<'_>, explained: &Explained) -> String {
    match &explained.path {
        Some(path) if *path == asked.path => path.clone(),
        Some(path) => format!(
            "{path}  (from {}: escapes of plain letters decoded, dot segments resolved, slashes merged)",
            asked.path
        ),
        None => asked.path.clone(),
    }
}

fn conditions(route: &route::Settings) -> String {
    let matches = &route.matches;
    let methods: Vec<&str> = matches.methods.iter().map(Method::as_str).collect();
    let mut told = format!(
        "{} {}",
        if methods.is_empty() { "any method".to_owned() } else { methods.join(", ") },
        matches.path
    );
    for (name, _) in &matches.headers {
        let _ = write!(told, ", with {name}");
    }
    told
}

fn others(page: &mut Page, asked: &Asked<'_>, explained: &Explained) {
    if explained.others.is_empty() {
        return;
    }
    page.head("Why not the other routes");
    let (near, far): (Vec<_>, Vec<_>) = explained
        .others
        .iter()
        .partition(|(_, misses)| misses.len() <= 1 && !misses.contains(&Miss::Path) || misses.is_empty());
    let name = |index: usize| &*asked.settings.routes[index].name;
    for (index, misses) in &near {
        page.line(name(*index), reasons(misses, asked, explained));
    }
    for (index, misses) in &far {
        page.line(
            name(*index),
            reasons(misses, asked, explained) + &format!(" ({})", conditions(&asked.settings.routes[*index])),
        );
    }
}

fn reasons(misses: &[Miss], asked: &Asked<'_>, explained: &Explained) -> String {
    let winner = route(asked, explained);
    misses.iter().map(|miss| told(miss, winner)).collect::<Vec<_>>().join(", ")
}

fn told(miss: &Miss, winner: Option<&route::Settings>) -> String {
    match miss {
        Miss::Listener => "served on other listeners".to_owned(),
        Miss::Path => "another path".to_owned(),
        Miss::Host => "another host".to_owned(),
        Miss::Method => "another method".to_owned(),
        Miss::Header(name) => format!("asks for the header field {name}"),
        Miss::LessSpecific(what) => {
            let winner = winner.map_or("the other", |winner| &*winner.name);
            format!("would match, but {winner} is more exact: {what}")
        }
    }
}

fn timeouts(route: &route::Settings) -> Vec<(&'static str, String)> {
    let timeouts = &route.timeouts;
    vec![
        ("timeouts.request", time(timeouts.request)),
        ("timeouts.exchange", time(timeouts.exchange)),
        ("timeouts.attempt", time(timeouts.attempt)),
        ("timeouts.stream_idle", time(timeouts.stream_idle)),
        ("timeouts.tunnel_idle", time(timeouts.tunnel_idle)),
    ]
}

fn limits(route: &route::Settings) -> Vec<(&'static str, String)> {
    vec![
        ("limits.in_flight", number(route.in_flight)),
        ("limits.answer_progress", progress(route.answer_progress, "timeouts.stream_idle")),
    ]
}

/// What bounds the connection that the request comes by.
fn connection(listener: &listener::Settings) -> Vec<(&'static str, String)> {
    let listener::Settings { timeouts, limits, .. } = listener;
    vec![
        ("timeouts.head", time(Some(timeouts.head))),
        ("timeouts.body", time(Some(timeouts.body.within))),
        ("limits.body_progress", progress(timeouts.body.least, "timeouts.body")),
        ("timeouts.idle", time(Some(timeouts.idle))),
        ("timeouts.connection_age", time(timeouts.connection_age)),
        ("limits.requests_per_connection", number(limits.requests_per_connection)),
    ]
}

fn map(told: Vec<(&'static str, String)>) -> Value {
    told.into_iter().map(|(key, what)| (key.to_owned(), Value::from(what))).collect()
}

fn time(time: Option<Duration>) -> String {
    time.map_or("off".to_owned(), |time| humantime::format_duration(time).to_string())
}

fn number(most: Option<usize>) -> String {
    most.map_or("off".to_owned(), |most| most.to_string())
}

/// How much has to come within a time; of one byte, standing still alone is bounded.
fn progress(least: u64, within: &str) -> String {
    if least > 1 { format!("{least} bytes within each {within}") } else { "off".to_owned() }
}

fn retry(rule: Option<&Rule>) -> String {
    let Some(rule) = rule else { return "off".to_owned() };
    let mut told = format!("{} attempts in all, on {}", rule.attempts, rule.on.words().join(", "));
    if !rule.statuses.is_empty() {
        let statuses: Vec<_> = rule.statuses.iter().map(|status| status.as_u16().to_string()).collect();
        let _ = write!(told, ", on {}", statuses.join(", "));
    }
    let which = if rule.non_idempotent { "any method" } else { "idempotent methods, or what was never sent" };
    let backoff = humantime::format_duration(rule.backoff);
    let _ = write!(told, "; {which}; up to {backoff} apart, doubled each time");
    told
}

/// The upstreams of a route and their shares, in percent.
fn upstreams<'a>(asked: &Asked<'a>, route: &route::Settings) -> Vec<(&'a upstream::Settings, f64)> {
    let all: u32 = route.upstreams.iter().map(|(_, weight)| *weight).sum();
    let known = |name: &str| asked.settings.upstreams.iter().find(|known| *known.name == *name);
    let share = |weight: u32| f64::from(weight) * 100.0 / f64::from(all.max(1));
    route.upstreams.iter().filter_map(|(name, weight)| Some((known(name)?, share(*weight)))).collect()
}

fn upstream_told(known: &upstream::Settings) -> String {
    let service = known.service.as_deref().map_or(String::new(), |service| format!("service {service}, "));
    let health = if known.health.is_some() { "asked for their health" } else { "not asked for their health" };
    let connect = humantime::format_duration(known.connect_timeout);
    format!("{service}endpoints {health}, connect_timeout {connect}")
}

fn endpoint(address: &upstream::Address) -> String {
    match address.unix() {
        Some(_) => address.host_and_port(),
        None => format!("{}://{}", address.scheme(), address.host_and_port()),
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Continued => "the caller's trace goes on",
        Origin::Started => "the caller sent none: a new trace",
        Origin::Restarted => "the caller is not believed: a new trace, linked to its own",
        Origin::Malformed => "what the caller sent must not be used: a new trace",
    }
}

fn sampling(asked: &Asked<'_>, explained: &Explained) -> Vec<String> {
    let settings = &asked.settings.telemetry.sampling;
    let route = route(asked, explained);
    let own = route.and_then(|route| route.sampling.threshold);
    let ratio = if own.is_some() {
        "the route's own ratio".to_owned()
    } else {
        format!("the ratio {:?}", settings.ratio)
    };
    let first = match explained.decision {
        Decision::Sampled { because: Because::Parent, .. } => "sampled: the caller's flag says so".to_owned(),
        Decision::Sampled { because: Because::Forced, .. } => {
            "sampled: an authorised caller demands it".to_owned()
        }
        Decision::Sampled { .. } if settings.ratio >= 1.0 && own.is_none() => {
            format!("sampled: {ratio} keeps every new trace")
        }
        Decision::Unsampled(crate::telemetry::sampling::Unsampled::Parent) => {
            "not sampled: the caller's flag says so".to_owned()
        }
        _ => format!("by its random trace id: {ratio} keeps its share of new traces"),
    };
    let mut kept = Vec::new();
    if settings.keep.errors {
        kept.push("errors".to_owned());
    }
    if let (true, Some(slow)) = (settings.keep.slow, route.and_then(|route| route.sampling.slow_after)) {
        kept.push(format!("answers later than {}", humantime::format_duration(slow)));
    }
    if settings.keep.retried {
        kept.push("more than one attempt".to_owned());
    }
    let mut told = vec![first];
    if !kept.is_empty() {
        told.push(format!("kept at the end in any case: {}", kept.join(", ")));
    }
    told.extend(settings.max_spans_per_second.map(|most| format!("within {most} spans a second")));
    told
}

fn receivers(asked: &Asked<'_>) -> String {
    let telemetry = &asked.settings.telemetry;
    let otlp = telemetry.otlp.iter().map(|otlp| format!("OTLP {}", otlp.receiver.endpoint));
    let zipkin = telemetry.zipkin.iter().map(|zipkin| format!("Zipkin {}", zipkin.endpoint));
    let logstash =
        telemetry.logstash.iter().map(|known| format!("Logstash {}:{} (failures)", known.host, known.port));
    let log = telemetry.access_log.enabled.then(|| "the access log".to_owned());
    let all: Vec<_> = otlp.chain(zipkin).chain(logstash).chain(log).collect();
    if all.is_empty() { "nobody".to_owned() } else { all.join(", ") }
}

/// What of the request is not recorded as it came, and why.
fn redacted(asked: &Asked<'_>, explained: &Explained) -> Vec<(String, String)> {
    let settings = &asked.settings.telemetry.privacy;
    let mut told = Vec::new();
    let template = route(asked, explained).map(|route| &*route.matches.path);
    told.push((
        format!("path {}", asked.path),
        template.map_or("as REDACTED: no route names it".to_owned(), |template| {
            format!("as its template {template}")
        }),
    ));
    let query = asked.head.uri.query().unwrap_or_default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let key = pair.split('=').next().unwrap_or(pair);
        let listed = settings.query_keys.iter().any(|known| **known == *key);
        let why = if listed {
            "named without its value: listed in telemetry.privacy.query_keys"
        } else {
            "not recorded"
        };
        told.push((format!("query {key}"), why.to_owned()));
    }
    for name in asked.head.headers.keys().filter(|name| *name != http::header::HOST) {
        let attribute = format!("{}{name}", privacy::HEADER);
        let why = match privacy::never_leaves(name.as_str()) {
            Some(why) => format!("not recorded: it {why}"),
            None if settings.headers.iter().any(|known| **known == *attribute) => {
                "recorded: listed in telemetry.privacy.headers".to_owned()
            }
            None => "not recorded".to_owned(),
        };
        told.push((format!("header {name}"), why));
    }
    let host = "not recorded: only configured hosts are".to_owned();
    told.push(("Host".to_owned(), host));
    let client = match settings.client_address {
        ClientAddress::Off => "not recorded",
        ClientAddress::Truncated => "its first 24 bits of IPv4, 48 of IPv6",
        ClientAddress::Full => "recorded: telemetry.privacy.client_address",
    };
    told.push(("client address".to_owned(), client.to_owned()));
    told.push(("bodies".to_owned(), "never recorded, but for business attributes of the answer".to_owned()));
    told
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Server => "SERVER",
        Kind::Client => "CLIENT",
        Kind::Internal => "INTERNAL",
    }
}

/// A text of headings and of lines with a name.
struct Page(String);

impl Page {
    fn head(&mut self, title: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.0, "{gap}{title}");
    }

    fn line(&mut self, name: &str, what: impl std::fmt::Display) {
        let line = format!("  {name:<26} {what}");
        let _ = writeln!(self.0, "{}", line.trim_end());
    }

    fn some(&mut self, name: &str, what: Option<impl std::fmt::Display>) {
        if let Some(what) = what {
            self.line(name, what);
        }
    }
}
