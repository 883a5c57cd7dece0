//! Jaeger's `uber-trace-id` (Jaeger client libraries, "Propagation Format").

use super::b3::write_trace_id;
use super::id::{Flags, SpanId, TraceId, digit, write_hex};
use super::remote::{Received, Remote, Single, Wish};

/// Reads `{trace id}:{span id}:{parent's span id}:{flags}`, in which zeros on the left may be missing and the
/// colons may be escaped as in a URL.
pub fn read(field: Single<'_>) -> Received {
    match field {
        Single::Absent => Received::Nothing,
        Single::Value(value) => parse(value).map_or(Received::Malformed, Received::Context),
        Single::Ambiguous => Received::Malformed,
    }
}

fn parse(value: &[u8]) -> Option<Remote> {
    let (trace, rest) = split(value)?;
    let (span, rest) = split(rest)?;
    let (parent, flags) = split(rest)?;
    let trace_id = number(trace, 32)?.to_be_bytes();
    let span_id = u64::try_from(number(span, 16)?).ok()?.to_be_bytes();
    number(parent, 16)?;
    let wish = match number(flags, 2)? & (SAMPLED | DEBUG) {
        SAMPLED => Wish::Accept,
        BOTH => Wish::Debug,
        _ => Wish::Deny,
    };
    let flags = Flags::default().with_sampled(wish.sampled());
    let valid = trace_id != [0; 16] && span_id != [0; 8];
    valid.then_some(Remote { trace_id: TraceId(trace_id), span_id: SpanId(span_id), flags, wish: Some(wish) })
}

/// What stands before the first colon, and after it.
fn split(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = value.iter().position(|byte| matches!(byte, b':' | b'%'))?;
    let (before, after) = value.split_at(at);
    let escaped = || after.strip_prefix(b"%3A").or_else(|| after.strip_prefix(b"%3a"));
    Some((before, after.strip_prefix(b":").or_else(escaped)?))
}

/// A hexadecimal number of one digit to this many, in either case.
fn number(text: &[u8], digits: usize) -> Option<u128> {
    let add = |number: u128, byte: &u8| Some(number << 4 | u128::from(digit(byte.to_ascii_lowercase())?));
    (1..=digits).contains(&text.len()).then(|| text.iter().try_fold(0, add))?
}

/// A value, in as many of these bytes as it takes. The parent's span id, which nobody reads any more, is 0.
pub fn write(trace_id: TraceId, span_id: SpanId, wish: Wish, out: &mut [u8; LENGTH]) -> &[u8] {
    let trace = write_trace_id(trace_id, out).len();
    out[trace] = b':';
    write_hex(&span_id.0, &mut out[trace + 1..trace + 17]);
    let rest = match wish {
        Wish::Deny => b":0:0",
        Wish::Accept => b":0:1",
        Wish::Debug => b":0:3",
    };
    out[trace + 17..trace + 21].copy_from_slice(rest);
    &out[..trace + 21]
}

/// The longest value that is written.
pub const LENGTH: usize = 53;

/// The flags that are known.
const SAMPLED: u128 = 1;
const DEBUG: u128 = 2;
const BOTH: u128 = SAMPLED | DEBUG;
