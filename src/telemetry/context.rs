//! Trace context: what callers say of their traces, in every format, and what we make of it; no HTTP library.

pub mod b3;
pub mod format;
mod id;
pub mod jaeger;
mod ot;
mod remote;
mod state;
pub mod threshold;
pub mod traceparent;

pub use format::Inbound;
pub use id::{Flags, SpanId, TraceId};
pub use remote::{Received, Remote, Single, Wish};
pub use state::State;

use format::Formats;

/// The trace context of one operation, fixed at its start.
#[derive(Debug, Clone)]
pub struct Context {
    /// The trace, the caller's or a new one.
    pub trace_id: TraceId,
    /// The operation's own span.
    pub span_id: SpanId,
    /// The caller's span, if its trace goes on.
    pub parent: Option<Parent>,
    /// What a caller that is believed wants to be done with the trace.
    pub wish: Option<Wish>,
    /// The caller's `tracestate`, if its trace goes on.
    pub state: State,
    /// The caller's span, if its trace does not go on.
    pub link: Option<Link>,
    /// How it came to be.
    pub origin: Origin,
    /// An authorised caller demands that this trace is recorded.
    pub forced: bool,
    /// The caller's fields that do not go upstream as they are.
    pub replaced: Formats,
    /// Whether the caller's baggage goes upstream.
    pub baggage: bool,
}

/// What the caller said of its own span.
#[derive(Debug, Clone, Copy)]
pub struct Parent {
    /// The caller's span.
    pub span_id: SpanId,
    /// The caller's flags, unknown bits cleared.
    pub flags: Flags,
}

/// A span of another trace that this one came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// Its flags.
    pub flags: Flags,
}

/// How the context of a request came to be: the label of `tracegate_context_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The caller's trace goes on.
    Continued,
    /// The caller sent none.
    Started,
    /// The caller is not believed: a new trace, linked to its own.
    Restarted,
    /// The caller sent something that must not be used.
    Malformed,
}

impl Origin {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Continued, Self::Started, Self::Restarted, Self::Malformed];

    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Continued => "continued",
            Self::Started => "started",
            Self::Restarted => "restarted",
            Self::Malformed => "malformed",
        }
    }
}

impl Context {
    /// A new trace.
    pub fn start(origin: Origin) -> Self {
        Self::of(TraceId::random(), origin)
    }

    fn of(trace_id: TraceId, origin: Origin) -> Self {
        Self {
            trace_id,
            span_id: SpanId::random(),
            parent: None,
            wish: None,
            state: State::default(),
            link: None,
            origin,
            forced: false,
            replaced: Formats::W3C,
            baggage: true,
        }
    }

    /// The caller's trace goes on.
    pub fn continued(caller: Remote, state: State) -> Self {
        Self {
            parent: Some(Parent { span_id: caller.span_id, flags: caller.flags }),
            wish: caller.wish,
            state,
            ..Self::of(caller.trace_id, Origin::Continued)
        }
    }

    /// A new trace, linked to that of a caller who is not believed.
    pub fn restarted(caller: Remote) -> Self {
        let Remote { trace_id, span_id, flags, .. } = caller;
        Self { link: Some(Link { trace_id, span_id, flags }), ..Self::start(Origin::Restarted) }
    }

    /// Continues the trace of a caller who speaks W3C, or starts one, from all `traceparent` and `tracestate`
    /// values in the order in which they came.
    pub fn from_headers<'a>(
        traceparent: impl IntoIterator<Item = &'a [u8]>,
        tracestate: impl IntoIterator<Item = &'a [u8]>,
    ) -> Self {
        match traceparent::read(Single::new(traceparent)) {
            // without a valid traceparent the tracestate must not even be parsed (section 3.4, step 2)
            Received::Context(caller) => Self::continued(caller, State::read(tracestate)),
            Received::Malformed => Self::start(Origin::Malformed),
            Received::Nothing | Received::Decision(_) => Self::start(Origin::Started),
        }
    }

    /// The flags sent on: the caller's random flag is kept, our own ids are random.
    pub fn flags(&self, sampled: bool) -> Flags {
        let kept = self.parent.as_ref().map_or(Flags(Flags::RANDOM), |parent| parent.flags);
        kept.with_sampled(sampled)
    }

    /// What is told to those who know more than a sampled flag.
    pub fn told(&self, sampled: bool) -> Wish {
        match self.wish {
            Some(Wish::Debug) if sampled => Wish::Debug,
            _ if sampled => Wish::Accept,
            _ => Wish::Deny,
        }
    }

    /// The 56 random bits that all samplers of the trace decide by.
    pub fn randomness(&self) -> u64 {
        self.state.ot.randomness.unwrap_or_else(|| self.trace_id.randomness())
    }
}

#[cfg(test)]
mod tests {
    use super::{Context, Flags, Origin, SpanId, TraceId, traceparent};

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn context(traceparent: &[&str], tracestate: &[&str]) -> Context {
        Context::from_headers(
            traceparent.iter().map(|value| value.as_bytes()),
            tracestate.iter().map(|value| value.as_bytes()),
        )
    }

    #[test]
    fn a_trace_is_continued_only_from_a_valid_traceparent() {
        use Origin::{Continued, Malformed, Started};
        let cases: &[(&[&str], Origin)] = &[
            (&[], Started),
            (&[VALID], Continued),
            (&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"], Continued),
            (&["  00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\t"], Continued),
            (&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff"], Continued),
            // more than one value
            (&[VALID, VALID], Continued),
            (&[VALID, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203332-01"], Malformed),
            (&[VALID, "nonsense"], Malformed),
            (&["nonsense", VALID], Malformed),
            // higher versions
            (&["01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], Continued),
            (&["cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-says"], Continued),
            (&["cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-"], Continued),
            (&["cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what"], Malformed),
            (&["fe-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], Continued),
            (&["ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], Malformed),
            // lengths
            (&[""], Malformed),
            (&["00"], Malformed),
            (&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"], Malformed),
            (&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-011"], Malformed),
            (&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-"], Malformed),
            (&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"], Malformed),
            (&["00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01"], Malformed),
            (&["0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-001"], Malformed),
            // characters
            (&["00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"], Malformed),
            (&["00-0af7651916cd43dd8448eb211c80319c-B7AD6B7169203331-01"], Malformed),
            (&["0A-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], Malformed),
            (&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0A"], Malformed),
            (&["00-.af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], Malformed),
            (&["00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01"], Malformed),
            (&["00-0af7651916cd43dd8448eb211c8031\u{e9}-b7ad6b7169203331-01"], Malformed),
            // ids of nothing
            (&["00-00000000000000000000000000000000-b7ad6b7169203331-01"], Malformed),
            (&["00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"], Malformed),
        ];
        for (headers, origin) in cases {
            let context = context(headers, &["vendor=1"]);
            assert_eq!(context.origin, *origin, "{headers:?}");
            assert_eq!(context.parent.is_some(), *origin == Continued, "{headers:?}");
            assert_eq!(
                &*context.state.forwarded(None),
                if *origin == Continued { "vendor=1" } else { "" },
                "{headers:?}"
            );
            let same_trace = context.trace_id.to_string() == "0af7651916cd43dd8448eb211c80319c";
            assert_eq!(same_trace, *origin == Continued, "{headers:?}");
        }
    }

    #[test]
    fn the_random_flag_is_kept_and_unknown_flags_are_cleared() {
        for (received, sent) in
            [("00", "01"), ("01", "01"), ("02", "03"), ("03", "03"), ("ff", "03"), ("fc", "01")]
        {
            let header = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{received}");
            let context = context(&[&header], &[]);
            let value = traceparent::write(context.trace_id, context.span_id, context.flags(true));
            assert_eq!(&value[53..], sent.as_bytes(), "{received}");
        }
        assert_eq!(context(&[], &[]).flags(false), Flags(Flags::RANDOM), "our own ids are random");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let written = traceparent::write(TraceId([0xab; 16]), SpanId([0x12; 8]), Flags(3));
        let context = Context::from_headers([&written[..]], []);
        assert_eq!(context.trace_id, TraceId([0xab; 16]));
        let parent = context.parent.expect("a valid value");
        assert_eq!((parent.span_id, parent.flags), (SpanId([0x12; 8]), Flags(3)));
        assert!(written.starts_with(b"00-"), "higher versions are answered with 00");
    }
}
