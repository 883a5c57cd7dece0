//! Trace context: W3C Trace Context level 2, read from and written to header values, with no HTTP library.

mod state;

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
        f.write_str(text(&self.digits()))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 16];
        write_hex(&self.0, &mut digits);
        f.write_str(text(&digits))
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

    /// Its 32 lower-case hexadecimal digits.
    pub fn digits(self) -> [u8; 32] {
        let mut digits = [0; 32];
        write_hex(&self.0, &mut digits);
        digits
    }
}

impl Context {
    /// Continues the caller's trace, or starts one, from all `traceparent` and `tracestate` values in the
    /// order in which they came.
    pub fn from_headers<'a>(
        traceparent: impl IntoIterator<Item = &'a [u8]>,
        tracestate: impl IntoIterator<Item = &'a [u8]>,
    ) -> Self {
        let (trace_id, parent, origin) = match received(traceparent) {
            Received::Valid(trace_id, parent) => (trace_id, Some(parent), Origin::Continued),
            Received::Nothing => (TraceId::random(), None, Origin::Started),
            Received::Malformed => (TraceId::random(), None, Origin::Malformed),
        };
        // without a valid traceparent the tracestate must not even be parsed (section 3.4, step 2)
        let state = if parent.is_some() { state::join(tracestate) } else { Box::default() };
        Self { trace_id, span_id: SpanId::random(), parent, state, origin }
    }

    /// The flags sent on: the caller's random flag is kept, our own ids are random.
    pub fn flags(&self, sampled: bool) -> Flags {
        let kept = self.parent.as_ref().map_or(Flags(Flags::RANDOM), |parent| parent.flags);
        kept.with_sampled(sampled)
    }
}

enum Received {
    Valid(TraceId, Parent),
    Nothing,
    Malformed,
}

/// One valid value, however often it was repeated: two that differ cannot both be the parent.
fn received<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Received {
    let mut values = values.into_iter();
    let Some(first) = values.next() else { return Received::Nothing };
    match parse(first) {
        Some((trace_id, parent)) if values.all(|other| other == first) => Received::Valid(trace_id, parent),
        _ => Received::Malformed,
    }
}

/// Reads a `traceparent` value. Of a version higher than 00, what 00 knows is read (section 3.2.4).
fn parse(value: &[u8]) -> Option<(TraceId, Parent)> {
    let (known, rest) = value.trim_ascii().split_at_checked(TRACEPARENT_LENGTH)?;
    let separated = [2, 35, 52].iter().all(|&at| known[at] == b'-');
    let [version] = hex(&known[..2])?;
    let complete = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.is_empty() || rest[0] == b'-',
    };
    let trace_id: [u8; 16] = hex(&known[3..35])?;
    let span_id: [u8; 8] = hex(&known[36..52])?;
    let [flags] = hex(&known[53..])?;
    let valid = separated && complete && trace_id != [0; 16] && span_id != [0; 8];
    let flags = Flags(flags & (Flags::SAMPLED | Flags::RANDOM));
    valid.then_some((TraceId(trace_id), Parent { span_id: SpanId(span_id), flags }))
}

/// Lower-case hexadecimal, as the grammar demands; upper case is malformed.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (out, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *out = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// A `traceparent` value of version 00 (W3C Trace Context section 3.2): 55 bytes.
pub fn traceparent(trace_id: TraceId, span_id: SpanId, flags: Flags) -> [u8; TRACEPARENT_LENGTH] {
    let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&trace_id.0, &mut out[3..35]);
    write_hex(&span_id.0, &mut out[36..52]);
    write_hex(&[flags.0], &mut out[53..]);
    out
}

/// Writes two lower-case digits a byte.
fn write_hex(bytes: &[u8], out: &mut [u8]) {
    for (pair, &byte) in out.as_chunks_mut().0.iter_mut().zip(bytes) {
        *pair = HEX[usize::from(byte)];
    }
}

/// Digits as text.
fn text(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).expect("digits are ASCII")
}

/// The two digits of every byte.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

/// `00-` trace id `-` span id `-` flags.
const TRACEPARENT_LENGTH: usize = 55;

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
            assert_eq!(&*context.state, if *origin == Continued { "vendor=1" } else { "" }, "{headers:?}");
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
            let value = traceparent(context.trace_id, context.span_id, context.flags(true));
            assert_eq!(&value[53..], sent.as_bytes(), "{received}");
        }
        assert_eq!(context(&[], &[]).flags(false), Flags(Flags::RANDOM), "our own ids are random");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let written = traceparent(TraceId([0xab; 16]), SpanId([0x12; 8]), Flags(3));
        let context = Context::from_headers([&written[..]], []);
        assert_eq!(context.trace_id, TraceId([0xab; 16]));
        let parent = context.parent.expect("a valid value");
        assert_eq!((parent.span_id, parent.flags), (SpanId([0x12; 8]), Flags(3)));
        assert!(written.starts_with(b"00-"), "higher versions are answered with 00");
    }

    #[test]
    fn no_bytes_make_it_panic_or_forward_what_is_not_valid() {
        let alphabet = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01,=; \t@_*/~\xff\x00Zz";
        for round in 0..20_000_u32 {
            let length = rand::random_range(0..80);
            let mut bytes: Vec<u8> =
                (0..length).map(|_| alphabet[rand::random_range(0..alphabet.len())]).collect();
            if round % 2 == 0 {
                bytes = VALID.bytes().collect();
                let at = rand::random_range(0..bytes.len());
                bytes[at] = rand::random();
            }
            let context = Context::from_headers([&bytes[..]], []);
            let tracestate = Context::from_headers([VALID.as_bytes()], [&bytes[..], &bytes[..]]).state;
            assert!(tracestate.len() <= 512 && tracestate.is_ascii());
            if context.origin == Origin::Continued {
                assert!(bytes.len() >= 55);
            }
        }
    }
}
