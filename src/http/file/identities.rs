//! What goes by who somebody is, where nobody has been asked yet or nobody ever is.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;

use super::super::auth;
use super::super::rate_limit::{self, Key as Counted};
use super::super::route::{AttributeSource, Settings};
use crate::problem::Key;
use crate::setting::Check;
use crate::telemetry::operation::MAX_QUESTIONS;

/// Notes a problem wherever a limit counts by what no rule of the route can know, and wherever a field that means an
/// identity is read before somebody is verified: it is whatever a client has written then.
pub fn refuse(
    routes: &[(Key, Arc<Settings>)],
    limits: &[rate_limit::Settings],
    rules: &[auth::Settings],
    check: &Check<'_>,
) {
    let mut fields: BTreeMap<&str, String> = BTreeMap::new();
    for rule in rules {
        for name in rule.identity_fields() {
            fields.entry(name.as_str()).or_insert_with(|| rule.rule());
        }
    }
    let set_by = |name: &HeaderName| fields.get(name.as_str());
    for limit in limits {
        if let Counted::Header(name) = &limit.key
            && let Some(rule) = set_by(name)
        {
            let what = format!(
                "{name} is set by {rule}, after this is asked: until then clients write what they like"
            );
            let help = "write key = { claim = \"…\" }, or \"identity\"";
            check.wrong(&Key::root().child("rate_limits").child(&limit.name).child("key"), what, help);
        }
    }
    for (key, route) in routes {
        let asked: Vec<_> = rules.iter().filter(|rule| route.auth.contains(&rule.name)).collect();
        let services = asked.iter().filter(|rule| rule.asks().is_some()).count();
        if services > MOST_SERVICES {
            let what =
                format!("asks {services} services about each request, where {MOST_SERVICES} are enough");
            check.wrong(&key.child("auth"), what, "name fewer rules with forward");
        }
        let knows = |claim: &str| asked.iter().any(|rule| rule.yields(claim));
        for limit in limits.iter().filter(|limit| route.rate_limits.contains(&limit.name)) {
            let what = match &limit.key {
                Counted::Identity if !knows("sub") => "who somebody is".to_owned(),
                Counted::Claim(claim) if !knows(claim) => format!("the claim \"{claim}\""),
                Counted::Identity
                | Counted::Claim(_)
                | Counted::Address
                | Counted::Route
                | Counted::Header(_) => {
                    continue;
                }
            };
            let told = format!(
                "rate_limits.{} counts by {what}, which no rule of this route knows: all would share one bucket",
                limit.name
            );
            let help = match &asked[..] {
                [] => "write auth = \"…\" on the route, or another key in the limit",
                _ => "let a rule of the route say it, or write another key in the limit",
            };
            check.wrong(&key.child("rate_limit"), told, help);
        }
        for (name, _) in &route.matches.headers {
            if let Some(rule) = set_by(name) {
                let what = format!(
                    "is set by {rule}, once the route is found: here it is what a client has written"
                );
                let help = "match another field, or leave it out";
                check.wrong(&key.child("match").child("headers").child(name.as_str()), what, help);
            }
        }
        for (attribute, source) in &route.attributes {
            if let AttributeSource::RequestHeader(name) = source
                && let Some(rule) = set_by(name)
            {
                let what = format!("{name} says who somebody is ({rule}), which stands on no record");
                let help = "name the header field of a business key";
                check.wrong(&key.child("attributes").child(attribute).child("request_header"), what, help);
            }
        }
    }
}

/// How many services a route may ask: each may be asked twice, and all of it is kept on record.
const MOST_SERVICES: usize = MAX_QUESTIONS / 2;
