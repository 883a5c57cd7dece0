//! Trace context: W3C Trace Context level 2, read from and written to header values, with no HTTP library.

use std::fmt;

/// A trace's id: sixteen random bytes, never all zero (W3C Trace Context section 3.2.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// A span's id: eight random bytes, never all zero (W3C Trace Context section 3.2.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// What the caller said of its own span.
#[derive(Debug, Clone)]
pub struct Parent {
    /// The caller's span.
    pub span_id: SpanId,
    /// The caller's flags, unknown bits cleared.
    pub flags: Flags,
}

/// `trace-flags`: sampled and random are known, the rest is cleared (W3C Trace Context section 3.2.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// The caller, or we, may have recorded the trace.
    pub const SAMPLED: u8 = 0b01;
    /// At least the right-most seven bytes of the trace id are random.
    pub const RANDOM: u8 = 0b10;

    /// Whether the sampled flag is set.
    pub fn sampled(self) -> bool {
        self.0 & Self::SAMPLED != 0
    }

    /// The same flags with sampled set or cleared.
    #[must_use]
    pub fn with_sampled(self, sampled: bool) -> Self {
        Self(if sampled { self.0 | Self::SAMPLED } else { self.0 & !Self::SAMPLED })
    }
}

/// How the context of a request came to be: the label of `tracegate_context_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The caller's trace goes on.
    Continued,
    /// The caller sent none.
    Started,
    /// The caller sent something that must not be used.
    Malformed,
}

impl Origin {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Continued, Self::Started, Self::Malformed];

    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Continued => "continued",
            Self::Started => "started",
            Self::Malformed => "malformed",
        }
    }
}

/// The trace context of one operation, fixed at its start.
#[derive(Debug, Clone)]
pub struct Context {
    /// The trace, the caller's or a new one.
    pub trace_id: TraceId,
    /// The operation's own span.
    pub span_id: SpanId,
    /// The caller's span, if its trace goes on.
    pub parent: Option<Parent>,
    /// The caller's `tracestate`, joined to one line and valid, to be forwarded; empty if there is none.
    pub state: Box<str>,
    /// How it came to be.
    pub origin: Origin,
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl SpanId {
    /// A new random id.
    pub fn random() -> Self {
        Self(rand::random::<u64>().max(1).to_be_bytes())
    }
}

impl TraceId {
    /// A new random id.
    pub fn random() -> Self {
        Self(rand::random::<u128>().max(1).to_be_bytes())
    }
}

impl Context {
    /// Continues the caller's trace, or starts one, from all `traceparent` and `tracestate` values in the
    /// order in which they came.
    pub fn from_headers<'a>(
        traceparent: impl IntoIterator<Item = &'a [u8]>,
        tracestate: impl IntoIterator<Item = &'a [u8]>,
    ) -> Self {
        let _ = (traceparent.into_iter(), tracestate.into_iter());
        Self {
            trace_id: TraceId::random(),
            span_id: SpanId::random(),
            parent: None,
            state: Box::default(),
            origin: Origin::Started,
        }
    }

    /// The flags sent on: the caller's random flag is kept, our own ids are random.
    pub fn flags(&self, sampled: bool) -> Flags {
        let kept = self.parent.as_ref().map_or(Flags(Flags::RANDOM), |parent| parent.flags);
        kept.with_sampled(sampled)
    }
}

/// A `traceparent` value of version 00 (W3C Trace Context section 3.2): 55 bytes.
pub fn traceparent(trace_id: TraceId, span_id: SpanId, flags: Flags) -> [u8; 55] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let mut hex = |at: usize, bytes: &[u8]| {
        for (index, byte) in bytes.iter().enumerate() {
            out[at + 2 * index] = HEX[usize::from(byte >> 4)];
            out[at + 2 * index + 1] = HEX[usize::from(byte & 15)];
        }
    };
    hex(3, &trace_id.0);
    hex(36, &span_id.0);
    hex(53, &[flags.0]);
    out
}
