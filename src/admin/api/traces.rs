//! `/api/traces`: recent exchanges, a list of them or the ones of a trace.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use super::query;
use crate::admin::control::Control;
use crate::admin::door::Who;
use crate::admin::page::{Page, json as page};
use crate::admin::role::Right;
use crate::telemetry::recent::entry::Entry;
use crate::telemetry::recent::filter::Filter;

/// The exchanges that a query asks for, and what was looked for, for the audit. Who may not browse finds what they
/// look for, else sees what failed.
pub(in crate::admin) fn list(control: &dyn Control, who: &Who, query: &str) -> (Page, Option<String>) {
    let mut asked = match query::read(query) {
        Ok(asked) => asked,
        Err(problem) => return (page(StatusCode::BAD_REQUEST, &json!({ "problem": problem })), None),
    };
    let narrowed = !who.may(Right::Browse) && !asked.filter.finds();
    asked.filter.failed |= narrowed;
    let (found, more) = control.recent().list(&asked.filter, asked.most);
    let traces: Vec<_> = found.iter().map(|entry| &entry.summary).collect();
    let answer = json!({ "traces": traces, "more": more, "only_failed": asked.filter.failed });
    (page(StatusCode::OK, &answer), target(&asked.filter))
}

/// The exchanges of one trace, whole.
pub(in crate::admin) fn one(control: &dyn Control, trace_id: &str) -> (Page, Option<String>) {
    let trace_id = trace_id.to_ascii_lowercase();
    let filter = Filter { trace_id: Some(trace_id.clone()), ..Filter::default() };
    let (found, _) = control.recent().list(&filter, MOST_OF_ONE);
    let whole: Vec<&Arc<Entry>> =
        found.iter().rev().filter(|entry| entry.summary.trace_id.to_string() == trace_id).collect();
    let target = Some(format!("trace_id={}", plain(&trace_id)));
    if whole.is_empty() {
        let problem = "no exchange of this trace is kept here: it was not sampled, or is too long ago";
        return (page(StatusCode::NOT_FOUND, &json!({ "problem": problem })), target);
    }
    let whole: Vec<&Entry> = whole.into_iter().map(|entry| &**entry).collect();
    (page(StatusCode::OK, &json!({ "trace_id": trace_id, "exchanges": whole })), target)
}

/// What was looked for.
fn target(filter: &Filter) -> Option<String> {
    let Filter { trace_id, attribute, find, .. } = filter;
    let trace_id = trace_id.as_ref().map(|id| format!("trace_id={}", plain(id)));
    let attribute = attribute.as_ref().map(|(key, value)| format!("{}={}", plain(key), plain(value)));
    let find = find.as_ref().map(|text| format!("find={}", plain(text)));
    let all: Vec<String> = [trace_id, attribute, find].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(" "))
}

/// What looks like an id or an order's number, as a business attribute does; nothing else that somebody typed is put
/// on record.
fn plain(text: &str) -> &str {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    if (1..=64).contains(&text.len()) && text.bytes().all(is_plain) { text } else { "_invalid" }
}

/// The exchanges of one trace that are shown.
const MOST_OF_ONE: usize = 100;
