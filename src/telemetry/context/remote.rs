//! What a caller says of the trace it is in, whatever the format it says it in.

use super::id::{Flags, SpanId, TraceId};

/// A caller's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// The trace.
    pub trace_id: TraceId,
    /// The caller's span.
    pub span_id: SpanId,
    /// The caller's flags, as far as they are known.
    pub flags: Flags,
    /// What it wants to be done with the trace; `None` leaves that to us.
    pub wish: Option<Wish>,
}

/// What a caller wants to be done with a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// It is not recorded.
    Deny,
    /// It is recorded.
    Accept,
    /// It is recorded by all means (B3, Jaeger): told to those who understand it, accepted otherwise.
    Debug,
}

impl Wish {
    /// Whether the trace is to be recorded.
    pub fn sampled(self) -> bool {
        self != Self::Deny
    }
}

/// What the fields of one format come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// There are none.
    Nothing,
    /// They must not be used.
    Malformed,
    /// A trace to be continued.
    Context(Remote),
    /// No trace, but whether the one to be started is recorded (B3).
    Decision(Wish),
}

/// A field that has one value at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Single<'a> {
    /// It is not there.
    Absent,
    /// Its value, without white space around it.
    Value(&'a [u8]),
    /// It is there with two values that differ: nobody knows which one is meant.
    Ambiguous,
}

impl<'a> Single<'a> {
    /// The field with these values; the same one repeated is one.
    pub fn new(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut values = values.into_iter();
        match values.next() {
            None => Self::Absent,
            Some(first) if values.all(|other| other == first) => Self::Value(first.trim_ascii()),
            Some(_) => Self::Ambiguous,
        }
    }
}
