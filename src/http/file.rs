//! `[routes.NAME]` as written, and what it means.

mod answers;
mod compression;
mod cors;
pub mod crossings;
mod fields;
pub mod identities;
mod leaf;
mod retry;
mod shaping;
mod split;
mod sticky;
pub mod template;
pub mod ties;

use std::collections::BTreeMap;
use std::time::Duration as Time;

use schemars::JsonSchema;
use serde::Deserialize;

use self::answers::{WrittenOrigin, WrittenRedirect, WrittenRespond};
use self::compression::WrittenCompression;
use self::cors::WrittenCors;
use self::fields::WrittenHeaders;
use self::leaf::{Names, Operation, WrittenMethod, header_name, is_word_byte};
use self::shaping::{WrittenErrorPage, WrittenHsts, WrittenMaintenance, WrittenShaping};
use self::split::{Upstreams, Weight};
use self::template::{Prefix, Template};
use super::pointer::Pointer;
use super::route::{AttributeSource, HeaderMatch, Host, Rewrite, Settings, Timeouts, Upgrade, UpstreamHost};
use crate::listener::addresses::WrittenAddresses;
use crate::problem::{Key, Problem};
use crate::setting::check::nearest;
use crate::setting::one_or_many::OneOrMany;
use crate::setting::{Check, Count, Duration, OrOff, Ratio, Size, Written};
use crate::telemetry::context::threshold::Threshold;
use crate::telemetry::privacy;
use crate::telemetry::sampling::RouteSampling;

/// A route as written, what it inherits included.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Route {
    /// What a request must look like.
    #[serde(rename = "match")]
    matches: WrittenMatch,
    /// The listeners that it is served on; all without it.
    listeners: Written<Vec<Written<String>>>,
    /// Where its requests go: one upstream, or several by weight.
    upstream: Written<Upstreams>,
    /// What brings a client back to its endpoint. Default: `"off"`.
    sticky: Option<OrOff<sticky::Sticky>>,
    /// Whole segments that the path loses on its way to the upstream.
    strip_prefix: Written<Prefix>,
    /// The path that goes upstream, with the parameters of the route's path.
    rewrite_path: Written<Template>,
    /// What goes upstream as Host: what the client sent, or the endpoint's own name. Default: `"keep"`.
    host: Written<UpstreamHost>,
    /// How long an exchange may take.
    timeouts: WrittenTimeouts,
    /// What a client may make of its connection. Default: `["websocket"]`.
    upgrade: Written<Vec<Written<Upgrade>>>,
    /// What is sent again. Default: `{}`.
    retry: Option<OrOff<retry::Retry>>,
    /// What bounds its requests.
    limits: WrittenLimits,
    /// The rate limits that count, by name, in the order in which they are asked.
    rate_limit: Written<Names>,
    /// The business operation, on spans and metrics: "order.create".
    operation: Written<Operation>,
    /// Business attributes, by key, and where their values are read: "order.id".
    attributes: BTreeMap<String, WrittenAttribute>,
    /// Whose requests are let in, by address; everybody's without it.
    addresses: WrittenAddresses,
    /// The rules of [auth], any of which lets a request pass. Default: `"off"`.
    auth: Written<OrOff<OneOrMany>>,
    /// Which of its traces are kept.
    sampling: WrittenSampling,
    /// Until the answer's head: what takes longer is kept. Default: `"1s"`.
    slow_after: Written<OrOff<Duration>>,
    /// What becomes of header fields.
    headers: WrittenHeaders,
    /// Which other origins' pages may call from browsers. Default: `"off"`.
    cors: Option<OrOff<WrittenCors>>,
    /// Strict-Transport-Security, told with TLS. Default: `"off"`.
    hsts: Option<OrOff<WrittenHsts>>,
    /// Where clients without TLS are sent. Default: `"off"`.
    https_redirect: Written<OrOff<WrittenOrigin>>,
    /// Sends clients elsewhere, without an upstream.
    redirect: Option<WrittenRedirect>,
    /// Answers by itself, without an upstream.
    respond: Option<WrittenRespond>,
    /// Which answers are compressed. Not where they hold secrets beside what a client sent (BREACH). Default:
    /// `"off"`.
    compression: Option<OrOff<WrittenCompression>>,
    /// What people see of failures.
    error_page: WrittenErrorPage,
    /// Whether it is out of service, and what is said meanwhile.
    maintenance: WrittenMaintenance,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenMatch {
    /// Hosts without scheme and port, "shop.example" or "*.shop.example"; any if there is none. Default: `[]`.
    hosts: Written<Vec<Written<Host>>>,
    /// The path, with parameters in braces: `/shop/orders/{order_id}`, `/shop/{*rest}`.
    path: Written<Template>,
    /// Methods; any if there is none. GET serves HEAD, too. Default: `[]`.
    methods: Written<Vec<Written<WrittenMethod>>>,
    /// Header fields that must be there: with this value, or with any where it is true.
    headers: BTreeMap<String, Written<HeaderMatch>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenTimeouts {
    /// From the request's head to the answer's. Default: `"60s"`.
    request: Written<OrOff<Duration>>,
    /// From the request's head to the answer's last byte, streams included, tunnels not. Default: `"off"`.
    exchange: Written<OrOff<Duration>>,
    /// From the start of one attempt to the head of its answer. Default: `"off"`.
    attempt: Written<OrOff<Duration>>,
    /// An answer's body that stands still. Default: `"60s"`.
    stream_idle: Written<OrOff<Duration>>,
    /// A WebSocket through which nothing passes. Default: `"5m"`.
    tunnel_idle: Written<OrOff<Duration>>,
    /// The header field that tells the upstream how many milliseconds it has left.
    field: Written<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenLimits {
    /// Of a request's body. Default: `"off"`.
    body: Written<OrOff<Size>>,
    /// The least that must come, within each `timeouts.stream_idle`, of an answer whose length is known. Default:
    /// `"1KiB"`.
    answer_progress: Written<OrOff<Size>>,
    /// Requests of this route at once. Default: `"off"`.
    in_flight: Written<OrOff<Count>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenSampling {
    /// The share of its new traces; that of [telemetry.sampling] without it.
    ratio: Written<Ratio>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    expecting = "{ path = \"order_id\" }, { request_header = … }, { response_header = … } or { response_json = \"/id\" }"
)]
struct WrittenAttribute {
    /// A parameter of the path.
    path: Written<String>,
    /// A field of the request's header.
    request_header: Written<String>,
    /// A field of the answer's header.
    response_header: Written<String>,
    /// A JSON pointer into the answer's body: in its first 16 KiB, unencoded.
    response_json: Written<Pointer>,
}

/// The names that a route may refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Of listeners.
    pub listeners: Vec<String>,
    /// Of upstreams.
    pub upstreams: Vec<String>,
    /// Of rate limits.
    pub rate_limits: Vec<String>,
    /// Of rules of `[auth]`.
    pub auth: Vec<String>,
}

impl Route {
    /// The route as used; `None` only after a problem has been noted.
    pub fn check(self, name: &str, known: &Known, check: &Check<'_>) -> Option<Settings> {
        let path = self.matches.path.clone();
        let matches = self.matches.check(check);
        let shaping = WrittenShaping {
            headers: self.headers,
            cors: self.cors,
            hsts: self.hsts,
            https_redirect: self.https_redirect,
            redirect: self.redirect,
            respond: self.respond,
            compression: self.compression,
            error_page: self.error_page,
            maintenance: self.maintenance,
        };
        let sticky = sticky::check(self.sticky, check);
        let (upstreams, sticky) = if shaping.answers_itself() {
            if !self.upstream.is_absent() {
                let help = "leave it out, or leave redirect and respond out";
                check.wrong(self.upstream.key(), "is never asked: the route answers itself", help);
            }
            (Some(Vec::new()), None)
        } else {
            (check_upstreams(self.upstream, known, check), sticky)
        };
        let rewrite = check_rewrite(self.strip_prefix, self.rewrite_path, path.get(), check);
        let attribute = |(key, source): (String, WrittenAttribute)| {
            Some((key.clone().into(), source.check(&key, path.get(), check)?))
        };
        let attributes = self.attributes.into_iter().filter_map(attribute).collect();
        let listeners = check_listeners(self.listeners, known, check);
        let matches = matches?;
        let shaping = shaping.check(name, &matches, check);
        let rate_limits = check_rate_limits(self.rate_limit, known, check);
        Some(Settings {
            name: name.into(),
            matches,
            listeners,
            upstreams: upstreams?,
            sticky,
            rewrite,
            host: self.host.or(UpstreamHost::Keep),
            timeouts: self.timeouts.check(check),
            retry: retry::check(self.retry, check),
            websocket: self.upgrade.is_absent()
                || self.upgrade.into_elements().any(|upgrade| upgrade == Upgrade::Websocket),
            in_flight: self.limits.in_flight.into_option().and_then(OrOff::into_option).map(Into::into),
            rate_limits,
            body_bytes: self.limits.body.or(None),
            answer_progress: self.limits.answer_progress.or(Some(1 << 10)).unwrap_or(1_u64),
            operation: self.operation.into_option().map(|Operation(operation)| operation),
            attributes,
            addresses: self.addresses.check(check),
            auth: check_auth(self.auth, known, check),
            sampling: RouteSampling {
                threshold: self.sampling.ratio.into_option().map(|ratio| Threshold::of_ratio(ratio.into())),
                slow_after: self.slow_after.or(Some(Time::from_secs(1))),
            },
            shaping,
        })
    }
}

impl WrittenMatch {
    fn check(self, check: &Check<'_>) -> Option<super::route::Match> {
        let header = |(name, value): (String, Written<HeaderMatch>)| {
            let named = header_name(&name, value.key(), check);
            Some((named?, value.into_option()?))
        };
        let headers = self.headers.into_iter().filter_map(header).collect();
        let path =
            self.path.required(check, "write path = \"/shop/orders/{order_id}\", or \"/{*rest}\" for all");
        let methods = self.methods.into_elements().map(|WrittenMethod(method)| method).collect();
        Some(super::route::Match {
            hosts: self.hosts.into_elements().collect(),
            path: path?.into_text(),
            methods,
            headers,
        })
    }
}

impl WrittenTimeouts {
    fn check(self, check: &Check<'_>) -> Timeouts {
        let field = self.field.get().and_then(|name| header_name(name, self.field.key(), check));
        let minute = Some(Time::from_mins(1));
        Timeouts {
            request: self.request.or(minute),
            exchange: self.exchange.or(None),
            attempt: self.attempt.or(None),
            stream_idle: self.stream_idle.or(minute),
            tunnel_idle: self.tunnel_idle.or(Some(Time::from_mins(5))),
            field,
        }
    }
}

impl WrittenAttribute {
    fn check(self, name: &str, path: Option<&Template>, check: &Check<'_>) -> Option<AttributeSource> {
        let help = "write one of path, request_header, response_header and response_json";
        let table = self.path.key().parent().unwrap_or_default();
        refuse_attribute_name(name, &table, check);
        let headers = [&self.path, &self.request_header, &self.response_header];
        let json = (!self.response_json.is_absent()).then(|| self.response_json.key());
        let headers = headers.into_iter().filter(|source| !source.is_absent()).map(Written::key);
        match headers.chain(json).collect::<Vec<_>>()[..] {
            [_] => {}
            [] => {
                check.wrong(&table, "does not say where its value is read", help);
                return None;
            }
            [.., second] => {
                check.wrong(second, "a value is read from one place, not from two", help);
                return None;
            }
        }
        if let Some(parameter) = self.path.get() {
            refuse_parameter(parameter, path, self.path.key(), check);
            return Some(AttributeSource::Path(parameter.as_str().into()));
        }
        let header = |written: Written<String>| {
            let name = header_name(written.get()?, written.key(), check)?;
            if let Some(why) = privacy::never_leaves(name.as_str()) {
                check.wrong(
                    written.key(),
                    format!("{name} {why}"),
                    "name the header field of a business key",
                );
            }
            Some(name)
        };
        let request = header(self.request_header).map(AttributeSource::RequestHeader);
        let response = header(self.response_header).map(AttributeSource::ResponseHeader);
        let json = self.response_json.into_option().map(AttributeSource::ResponseJson);
        request.or(response).or(json)
    }
}

/// Those that have a share, with their weights.
fn check_upstreams(
    written: Written<Upstreams>,
    known: &Known,
    check: &Check<'_>,
) -> Option<Vec<(Box<str>, u32)>> {
    let key = written.key().clone();
    if written.is_absent() {
        let help = match &known.upstreams[..] {
            [] => "add an upstream: [upstreams.shop] with endpoints = [\"http://127.0.0.1:9001\"]".to_owned(),
            names => format!("name an upstream ({}), or write respond or redirect", names.join(", ")),
        };
        check.wrong(&key, "is missing", help);
    }
    let weights = match written.into_option()? {
        Upstreams::One(name) => {
            refuse_unknown("upstream", &name, &known.upstreams, &key, check);
            return Some(vec![(name.into(), 1)]);
        }
        Upstreams::Split(weights) => weights,
    };
    for (name, weight) in &weights {
        refuse_unknown("upstream", name, &known.upstreams, weight.key(), check);
    }
    let all_read = weights.values().all(|weight| weight.get().is_some());
    let weights = weights.into_iter().filter_map(|(name, weight)| Some((name, weight.into_option()?)));
    let shares: Vec<_> = weights
        .filter(|(_, Weight(weight))| *weight > 0)
        .map(|(name, Weight(weight))| (name.into(), weight))
        .collect();
    if shares.is_empty() && all_read {
        check.wrong(&key, "sends nothing anywhere", "give at least one upstream a weight above 0");
    }
    (!shares.is_empty()).then_some(shares)
}

fn check_listeners(
    listeners: Written<Vec<Written<String>>>,
    known: &Known,
    check: &Check<'_>,
) -> Option<Vec<std::sync::Arc<str>>> {
    let key = listeners.key().clone();
    let listeners = listeners.into_option()?;
    if listeners.is_empty() {
        check.wrong(
            &key,
            "is empty: nobody would serve the route",
            "name a listener, or leave the key out for all",
        );
    }
    for listener in &listeners {
        if let Some(name) = listener.get() {
            refuse_unknown("listener", name, &known.listeners, listener.key(), check);
        }
    }
    Some(listeners.into_iter().filter_map(Written::into_option).map(Into::into).collect())
}

fn check_rate_limits(written: Written<Names>, known: &Known, check: &Check<'_>) -> Vec<Box<str>> {
    let key = written.key().clone();
    let Some(Names(names)) = written.into_option() else { return Vec::new() };
    for name in &names {
        refuse_unknown("rate_limit", name, &known.rate_limits, &key, check);
    }
    names.into_iter().map(Into::into).collect()
}

fn check_auth(auth: Written<OrOff<OneOrMany>>, known: &Known, check: &Check<'_>) -> Vec<Box<str>> {
    let key = auth.key().clone();
    let Some(OneOrMany(names)) = auth.into_option().and_then(OrOff::into_option) else { return Vec::new() };
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            check.wrong(&key, format!("names \"{name}\" twice"), "name each rule once");
        }
        if !known.auth.iter().any(|known| **known == **name) {
            let help = match nearest(name, known.auth.iter().map(String::as_str)) {
                Some(meant) => format!("write \"{meant}\""),
                None => format!("add the table [auth.{name}]"),
            };
            check.wrong(&key, format!("there is no rule \"{name}\""), help);
        }
    }
    names
}

fn check_rewrite(
    strip: Written<Prefix>,
    rewrite: Written<Template>,
    path: Option<&Template>,
    check: &Check<'_>,
) -> Rewrite {
    if let (Some(_), Some(_)) = (strip.get(), rewrite.get()) {
        check.wrong(
            rewrite.key(),
            "cannot be used with strip_prefix",
            "write the whole path here and leave it out",
        );
    }
    if let (Some(prefix), Some(path)) = (strip.get(), path)
        && !path.begins_with(prefix)
    {
        let what = format!("\"{prefix}\" is not how the path \"{path}\" begins");
        let help = path.first_segment().map_or_else(
            || "leave it out: the path begins with a parameter".to_owned(),
            |segment| format!("write whole segments of the path: \"{segment}\""),
        );
        check.wrong(strip.key(), what, help);
    }
    for parameter in rewrite.get().into_iter().flat_map(Template::parameters) {
        refuse_parameter(parameter, path, rewrite.key(), check);
    }
    match (strip.into_option(), rewrite.into_option()) {
        (Some(prefix), _) => Rewrite::StripPrefix(prefix.into_text()),
        (None, Some(template)) => Rewrite::Template(template.into_text()),
        (None, None) => Rewrite::Keep,
    }
}

fn refuse_unknown(kind: &str, name: &str, known: &[String], key: &Key, check: &Check<'_>) {
    if known.iter().any(|known| known == name) {
        return;
    }
    let help = match nearest(name, known.iter().map(String::as_str)) {
        Some(meant) => format!("write \"{meant}\""),
        None => format!("add the table [{kind}s.{name}]"),
    };
    check.wrong(key, format!("there is no {kind} \"{name}\""), help);
}

fn refuse_parameter(parameter: &str, path: Option<&Template>, key: &Key, check: &Check<'_>) {
    let Some(path) = path else { return };
    let known: Vec<&str> = path.parameters().collect();
    if known.contains(&parameter) {
        return;
    }
    let help = match &known[..] {
        [] => format!("add it to the path: {{{parameter}}}"),
        known => format!("the parameters are {}", known.join(", ")),
    };
    check.wrong(key, format!("the path \"{path}\" has no parameter {parameter}"), help);
}

/// Business attributes stand beside those of the conventions and never replace one.
fn refuse_attribute_name(name: &str, key: &Key, check: &Check<'_>) {
    let note =
        |what: String| check.note(Problem::unknown_key(key, what).help("write a name such as \"order.id\""));
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !(first && name.bytes().all(is_word_byte)) {
        note(format!("\"{name}\" is not the name of an attribute"));
    } else if let Some(taken) = RESERVED.iter().find(|taken| name.starts_with(**taken)) {
        note(format!("attributes that begin with {taken} have their own meaning"));
    } else if LABELS.contains(&name) {
        note(format!("{name} has its own meaning in error records"));
    }
}

/// The labels of error records, beside which business attributes stand.
const LABELS: [&str; 7] = ["attempt", "blame", "detail", "not_retried", "operation", "route", "rule"];

/// What the conventions or the gateway itself set.
const RESERVED: [&str; 9] =
    ["client.", "error.", "http.", "network.", "peer.", "server.", "service.", "tracegate.", "url."];
