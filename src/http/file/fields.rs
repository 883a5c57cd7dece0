//! `headers` as written: fields that are set, added and removed, and those that nobody may touch.

use std::collections::BTreeMap;

use http::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::pattern::{Pattern, Piece, WORDS};
use super::super::rules::{Rules, Value};
use super::leaf::header_name;
use crate::problem::Key;
use crate::setting::secret::WrittenSecret;
use crate::setting::{Check, Written};

/// Header rules as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ request = { set = { … } }, response = { remove = [ … ] } }")]
pub(super) struct WrittenHeaders {
    /// On the way to the upstream.
    request: WrittenRequest,
    /// Of every answer.
    response: WrittenResponse,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ set = { x-shop = \"…\" }, add = { … }, remove = [\"…\"], secrets = { … } }")]
struct WrittenRequest {
    /// Fields that get this value, with placeholders.
    set: BTreeMap<String, Written<String>>,
    /// Fields that get this value beside those they have.
    add: BTreeMap<String, Written<String>>,
    /// Fields that go. Default: `[]`.
    remove: Written<Vec<Written<String>>>,
    /// Fields that get a secret as their value.
    secrets: BTreeMap<String, WrittenSecret>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ set = { x-shop = \"…\" }, add = { … }, remove = [\"…\"] }")]
struct WrittenResponse {
    /// Fields that get this value, with placeholders.
    set: BTreeMap<String, Written<String>>,
    /// Fields that get this value beside those they have.
    add: BTreeMap<String, Written<String>>,
    /// Fields that go. Default: `[]`.
    remove: Written<Vec<Written<String>>>,
}

impl WrittenHeaders {
    /// The rules of requests and of answers, for a route of this template.
    pub(super) fn check(self, template: &str, check: &Check<'_>) -> (Rules, Rules) {
        let WrittenRequest { set, add, remove, secrets } = self.request;
        let request = Direction { template, words: &WORDS, refuse: of_request, check };
        let mut request_rules = request.rules(set, add, remove);
        for (name, secret) in secrets {
            let key = secret.key();
            let name = header_name(&name, &key, check);
            if let Some((what, help)) = name.as_ref().and_then(|name| of_request(name, Action::Secret)) {
                check.wrong(&key, what, help);
            }
            let Some(secret) = secret.read(check) else { continue };
            match (name, HeaderValue::from_str(secret.expose())) {
                (Some(name), Ok(mut value)) => {
                    value.set_sensitive(true);
                    request_rules.set.push((name, Value::Fixed(value)));
                }
                (_, Err(_)) => {
                    check.wrong(&key, "is not the value of a header field", "write it as one printable line");
                }
                (None, _) => {}
            }
        }
        let WrittenResponse { set, add, remove } = self.response;
        let response = Direction { template: "", words: &OF_EXCHANGE, refuse: of_response, check };
        (request_rules, response.rules(set, add, remove))
    }
}

/// What is done to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Give,
    Secret,
    Remove,
}

/// Why a field is not to be touched so, and what to write instead.
type Refuse = fn(&HeaderName, Action) -> Option<(String, &'static str)>;

struct Direction<'a> {
    template: &'a str,
    words: &'a [(&'a str, Piece)],
    refuse: Refuse,
    check: &'a Check<'a>,
}

impl Direction<'_> {
    fn rules(
        &self,
        set: BTreeMap<String, Written<String>>,
        add: BTreeMap<String, Written<String>>,
        remove: Written<Vec<Written<String>>>,
    ) -> Rules {
        for name in set.keys().filter(|name| add.contains_key(*name)) {
            let key = add[name].key();
            self.check.wrong(key, "is set, too", "write it in one of them");
        }
        let given = |rules: BTreeMap<String, Written<String>>| {
            let rules = rules.into_iter();
            rules.filter_map(|(name, written)| self.given(&name, written)).collect()
        };
        let remove = remove.into_option().into_iter().flatten();
        Rules {
            remove: remove.filter_map(|name| self.name(name.get()?, name.key(), Action::Remove)).collect(),
            set: given(set),
            add: given(add),
        }
    }

    fn given(&self, name: &str, written: Written<String>) -> Option<(HeaderName, Value)> {
        let key = written.key().clone();
        let name = self.name(name, &key, Action::Give);
        let written = written.into_option()?;
        if HeaderValue::from_str(&written).is_err() {
            self.check.wrong(&key, "is not the value of a header field", "leave out what is not printable");
            return None;
        }
        let pattern = match Pattern::parse(&written, self.template, self.words) {
            Ok(pattern) => pattern,
            Err(unknown) => {
                let words: Vec<String> = self.words.iter().map(|(word, _)| format!("{{{word}}}")).collect();
                let what = if unknown.is_empty() {
                    "has a brace that is none of a placeholder".to_owned()
                } else {
                    format!("there is no {{{unknown}}}")
                };
                let parameters = if self.template.is_empty() { "" } else { ", the parameters of the path" };
                let help = format!(
                    "the placeholders are {}{parameters}; a brace itself is written twice: {{{{",
                    words.join(", ")
                );
                self.check.wrong(&key, what, help);
                return None;
            }
        };
        let fixed = pattern.fixed().and_then(|text| HeaderValue::from_str(text).ok());
        Some((name?, fixed.map_or(Value::Filled(pattern), Value::Fixed)))
    }

    fn name(&self, name: &str, key: &Key, action: Action) -> Option<HeaderName> {
        let name = header_name(name, key, self.check)?;
        if let Some((what, help)) = (self.refuse)(&name, action) {
            self.check.wrong(key, what, help);
            return None;
        }
        Some(name)
    }
}

/// What nobody may touch of a request.
fn of_request(name: &HeaderName, action: Action) -> Option<(String, &'static str)> {
    let told = |what: &str, help| Some((format!("{name} {what}"), help));
    match name.as_str() {
        "host" => told("is chosen elsewhere", "write host = \"keep\" or host = \"endpoint\" on the route"),
        "traceparent" | "tracestate" | "b3" | "uber-trace-id" => told(IS_TRACE, TRACE),
        prefixed if prefixed.starts_with("x-b3-") => told(IS_TRACE, TRACE),
        "x-request-id" | "via" => told("is the gateway's own to write", LEAVE),
        "forwarded" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" => {
            told("says who asked, by what the gateway sees", "write trusted_proxies on the listener")
        }
        "authorization" if action == Action::Give => {
            told("is a secret", "write secrets = { authorization = { env = \"…\" } } beside set")
        }
        _ => of_connection(name),
    }
}

/// What nobody may touch of an answer.
fn of_response(name: &HeaderName, action: Action) -> Option<(String, &'static str)> {
    let told = |what: &str, help| Some((format!("{name} {what}"), help));
    match name.as_str() {
        "content-encoding" | "content-range" => told("says what the body is", LEAVE),
        "x-request-id" => told("is the gateway's own to write", LEAVE),
        "grpc-status" | "grpc-message" => told("is the call's own result", LEAVE),
        "strict-transport-security" if action == Action::Give => {
            told("is only for answers with TLS", "write hsts = { max_age = \"8760h\" } on the route")
        }
        cors if cors.starts_with("access-control-") && action == Action::Give => {
            told("depends on who asks", "write cors = { origins = [ … ] } on the route")
        }
        _ => of_connection(name),
    }
}

/// What belongs to one connection, or tells where a message ends.
fn of_connection(name: &HeaderName) -> Option<(String, &'static str)> {
    let what = match name.as_str() {
        "content-length" | "transfer-encoding" | "trailer" => "tells where the message ends",
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "te"
        | "upgrade"
        | "http2-settings"
        | "expect"
        | "proxy-authorization"
        | "proxy-authenticate" => "belongs to one connection",
        _ => return None,
    };
    Some((format!("{name} {what}"), LEAVE))
}

const LEAVE: &str = "leave it out";
const IS_TRACE: &str = "is the trace's context";
const TRACE: &str = "leave it out; propagate on the upstream says in which formats it is told";

/// What can be filled into an answer's header, when the request has gone.
const OF_EXCHANGE: [(&str, Piece); 2] = [("request_id", Piece::RequestId), ("trace_id", Piece::TraceId)];
