//! `traceparent` (W3C Trace Context level 2, section 3.2), read from and written to a header value.

use super::id::{Flags, SpanId, TraceId, read_hex, write_hex};
use super::remote::{Received, Remote, Single, Wish};

/// Reads a value. Of a version higher than 00, what 00 knows is read (section 3.2.4).
pub fn read(field: Single<'_>) -> Received {
    match field {
        Single::Absent => Received::Nothing,
        Single::Value(value) => parse(value).map_or(Received::Malformed, Received::Context),
        Single::Ambiguous => Received::Malformed,
    }
}

fn parse(value: &[u8]) -> Option<Remote> {
    let (known, rest) = value.split_at_checked(LENGTH)?;
    let separated = [2, 35, 52].iter().all(|&at| known[at] == b'-');
    let [version] = read_hex(&known[..2])?;
    let complete = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.is_empty() || rest[0] == b'-',
    };
    let trace_id: [u8; 16] = read_hex(&known[3..35])?;
    let span_id: [u8; 8] = read_hex(&known[36..52])?;
    let [flags] = read_hex(&known[53..])?;
    let flags = Flags(flags & (Flags::SAMPLED | Flags::RANDOM));
    let wish = Some(if flags.sampled() { Wish::Accept } else { Wish::Deny });
    let valid = separated && complete && trace_id != [0; 16] && span_id != [0; 8];
    valid.then_some(Remote { trace_id: TraceId(trace_id), span_id: SpanId(span_id), flags, wish })
}

/// A value of version 00: 55 bytes.
pub fn write(trace_id: TraceId, span_id: SpanId, flags: Flags) -> [u8; LENGTH] {
    let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&trace_id.0, &mut out[3..35]);
    write_hex(&span_id.0, &mut out[36..52]);
    write_hex(&[flags.0], &mut out[53..]);
    out
}

/// `00-` trace id `-` span id `-` flags.
const LENGTH: usize = 55;
