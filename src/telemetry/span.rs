//! A span as plain data: assembled from a record, written by each receiver in its own format.

use std::borrow::Cow;
use std::fmt;

use super::context::{Flags, Link, SpanId, TraceId};

/// One span. It borrows from the record that it tells of.
#[derive(Debug, Clone, PartialEq)]
pub struct Span<'a> {
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub id: SpanId,
    /// The span above it, if there is one.
    pub parent: Option<SpanId>,
    /// Whether the span above it is another process's.
    pub parent_is_remote: bool,
    /// The trace's flags.
    pub flags: Flags,
    /// The `tracestate` to export: our own member or nothing, never that of others.
    pub state: Cow<'a, str>,
    /// Which side of a call it is.
    pub kind: Kind,
    /// The name.
    pub name: Joined<'a>,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// Keys are unique.
    pub attributes: Vec<(&'a str, Value<'a>)>,
    /// Spans of other traces that led to this one.
    pub links: Vec<Link>,
    /// Whether the status is Error, else it is Unset. It has no description: `error.type` says it all
    /// (OpenTelemetry HTTP conventions).
    pub error: bool,
}

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An exchange with a client.
    Server,
    /// An attempt at an endpoint.
    Client,
    /// Neither.
    Internal,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// A text of several.
    Joined(Joined<'a>),
    /// A whole number.
    Integer(i64),
    /// A number.
    Double(f64),
}

impl Span<'_> {
    /// The text of an attribute, if it is one.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find_map(|(known, value)| match value {
            Value::Text(text) if *known == key => Some(&**text),
            _ => None,
        })
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Joined(joined) => joined.fmt(f),
            Self::Integer(number) => number.fmt(f),
            Self::Double(number) => number.fmt(f),
        }
    }
}

/// A text of several, which nobody has joined yet: who writes it can do so as cheaply.
#[derive(Debug, Clone, Copy, Default)]
pub struct Joined<'a>([&'a str; 3]);

impl<'a> Joined<'a> {
    /// What is joined.
    pub fn texts(&self) -> &[&'a str] {
        &self.0
    }

    /// Whether there is nothing to join.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|text| text.is_empty())
    }
}

impl<'a> From<&'a str> for Joined<'a> {
    fn from(text: &'a str) -> Self {
        Self([text, "", ""])
    }
}

impl<'a, const N: usize> From<[&'a str; N]> for Joined<'a> {
    fn from(texts: [&'a str; N]) -> Self {
        const { assert!(N <= 3, "there is room for three") };
        let mut all = [""; 3];
        all[..N].copy_from_slice(&texts);
        Self(all)
    }
}

impl PartialEq for Joined<'_> {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |joined: &Self| joined.0.into_iter().flat_map(str::bytes);
        bytes(self).eq(bytes(other))
    }
}

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|text| f.write_str(text))
    }
}

impl<'a> From<Joined<'a>> for Value<'a> {
    fn from(joined: Joined<'a>) -> Self {
        Self::Joined(joined)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<u16> for Value<'_> {
    fn from(number: u16) -> Self {
        Self::Integer(number.into())
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}
