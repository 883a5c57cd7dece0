//! Which recent exchanges are wanted.

use std::time::Duration;

use super::entry::{Entry, Kept};
use crate::failure::{Blame, Reason};

/// All that is said of them must hold; what is not said does not count.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The route's key; empty is "no route".
    pub route: Option<String>,
    /// The status.
    pub status: Option<Status>,
    /// Why it failed.
    pub reason: Option<Reason>,
    /// Whose fault it was.
    pub blame: Option<Blame>,
    /// Why it is kept.
    pub kept: Option<Kept>,
    /// Those that failed alone.
    pub failed: bool,
    /// Those that took this long or longer.
    pub min: Option<Duration>,
    /// Those that took this long or less.
    pub max: Option<Duration>,
    /// How the trace's id begins, in lower case.
    pub trace_id: Option<String>,
    /// A business attribute and its value.
    pub attribute: Option<(String, String)>,
    /// How the trace's id begins, or the value of any business attribute.
    pub find: Option<String>,
    /// Those that were kept before the one of this number.
    pub before: Option<u64>,
}

/// A status, or a class of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// This one.
    Exactly(u16),
    /// `5xx`: those of this hundred.
    Class(u16),
    /// Nothing was answered.
    None,
}

impl Filter {
    /// Whether it asks for certain exchanges, by trace or business attribute.
    pub fn finds(&self) -> bool {
        self.trace_id.is_some() || self.attribute.is_some() || self.find.is_some()
    }

    /// Whether it wants this one.
    pub fn wants(&self, entry: &Entry) -> bool {
        let summary = &entry.summary;
        let begins = |beginning: &str| {
            beginning.len() >= SHORTEST && summary.trace_id.to_string().starts_with(beginning)
        };
        let status = |wanted: Status| match wanted {
            Status::Exactly(status) => summary.status == Some(status),
            Status::Class(class) => summary.status.is_some_and(|status| status / 100 == class),
            Status::None => summary.status.is_none(),
        };
        let found = |text: &str| begins(text) || summary.attributes.values().any(|value| value == text);
        let attribute = |(key, value): &(String, String)| summary.attributes.get(key.as_str()) == Some(value);
        let own_route = summary.route.as_ref().map_or("", |route| &*route.0);
        let route = |route: &String| own_route == route;
        self.before.is_none_or(|before| summary.number < before)
            && self.route.as_ref().is_none_or(route)
            && self.status.is_none_or(status)
            && self.reason.is_none_or(|reason| summary.reason == Some(reason))
            && self.blame.is_none_or(|blame| summary.blame() == Some(blame))
            && self.kept.is_none_or(|kept| summary.kept == kept)
            && (!self.failed || entry.failed())
            && self.min.is_none_or(|min| summary.duration >= min)
            && self.max.is_none_or(|max| summary.duration <= max)
            && self.trace_id.as_deref().is_none_or(begins)
            && self.attribute.as_ref().is_none_or(attribute)
            && self.find.as_deref().is_none_or(found)
    }
}

/// As many digits of a trace's id are needed.
const SHORTEST: usize = 4;
