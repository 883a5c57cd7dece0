//! B3 (openzipkin/b3-propagation), in one field and in several.

use super::id::{Flags, SpanId, TraceId, read_hex, text, write_hex};
use super::remote::{Received, Remote, Single, Wish};

/// Reads `b3`: `{trace id}-{span id}-{state}-{parent's span id}`, of which the last two may be missing, or a
/// state alone.
pub fn read(field: Single<'_>) -> Received {
    let value = match field {
        Single::Absent => return Received::Nothing,
        Single::Ambiguous => return Received::Malformed,
        Single::Value(value) => value,
    };
    match state(value) {
        Some(wish) => Received::Decision(wish),
        None => parse(value).map_or(Received::Malformed, Received::Context),
    }
}

fn parse(value: &[u8]) -> Option<Remote> {
    let mut parts = value.split(|&byte| byte == b'-');
    let (trace, span) = (parts.next()?, parts.next()?);
    let wish = match parts.next() {
        None => None,
        Some(state) => Some(self::state(state)?),
    };
    if let Some(parent) = parts.next() {
        read_hex::<8>(parent)?;
    }
    parts.next().is_none().then(|| remote(trace, span, wish))?
}

fn state(text: &[u8]) -> Option<Wish> {
    match text {
        b"0" => Some(Wish::Deny),
        b"1" => Some(Wish::Accept),
        b"d" => Some(Wish::Debug),
        _ => None,
    }
}

/// The fields `X-B3-…`. The parent's parent is of no use to us.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    /// `X-B3-TraceId`
    pub trace_id: Single<'a>,
    /// `X-B3-SpanId`
    pub span_id: Single<'a>,
    /// `X-B3-Sampled`
    pub sampled: Single<'a>,
    /// `X-B3-Flags`
    pub flags: Single<'a>,
}

/// Reads `X-B3-…`.
pub fn read_fields(fields: &Fields<'_>) -> Received {
    let wish = match (fields.flags, fields.sampled) {
        (Single::Value(b"1"), _) => Some(Wish::Debug),
        (_, Single::Absent) => None,
        (_, Single::Value(b"1" | b"true")) => Some(Wish::Accept),
        (_, Single::Value(b"0" | b"false")) => Some(Wish::Deny),
        _ => return Received::Malformed,
    };
    match (fields.trace_id, fields.span_id) {
        (Single::Absent, Single::Absent) => wish.map_or(Received::Nothing, Received::Decision),
        (Single::Value(trace), Single::Value(span)) => {
            remote(trace, span, wish).map_or(Received::Malformed, Received::Context)
        }
        _ => Received::Malformed,
    }
}

/// Ids of lower-case digits; a trace id of 64 bits is one of 128 that begins with zeros.
fn remote(trace: &[u8], span: &[u8], wish: Option<Wish>) -> Option<Remote> {
    let mut trace_id = [0; 16];
    if trace.len() == 16 {
        trace_id[8..].copy_from_slice(&read_hex::<8>(trace)?);
    } else {
        trace_id = read_hex(trace)?;
    }
    let span_id: [u8; 8] = read_hex(span)?;
    let flags = Flags::default().with_sampled(wish.is_some_and(Wish::sampled));
    let valid = trace_id != [0; 16] && span_id != [0; 8];
    valid.then_some(Remote { trace_id: TraceId(trace_id), span_id: SpanId(span_id), flags, wish })
}

/// A value of `b3`, in as many of these bytes as it takes. Trace ids of 64 bits stay as short as they came.
pub fn write(trace_id: TraceId, span_id: SpanId, wish: Wish, out: &mut [u8; LENGTH]) -> &[u8] {
    let trace = write_trace_id(trace_id, out).len();
    out[trace] = b'-';
    write_hex(&span_id.0, &mut out[trace + 1..trace + 17]);
    let state = match wish {
        Wish::Deny => b"-0",
        Wish::Accept => b"-1",
        Wish::Debug => b"-d",
    };
    out[trace + 17..trace + 19].copy_from_slice(state);
    &out[..trace + 19]
}

/// The digits of a trace id, sixteen or thirty-two.
pub fn write_trace_id(trace_id: TraceId, out: &mut [u8]) -> &str {
    let bytes = trace_id.as_short().unwrap_or(&trace_id.0);
    let digits = &mut out[..2 * bytes.len()];
    write_hex(bytes, digits);
    text(digits)
}

/// The digits of a span id.
pub fn write_span_id(span_id: SpanId, out: &mut [u8; 16]) -> &str {
    write_hex(&span_id.0, out);
    text(out)
}

/// The longest value that is written: a trace id, a span id and a state.
pub const LENGTH: usize = 51;

#[cfg(test)]
mod tests {
    use super::{Fields, LENGTH, read, read_fields, write};
    use crate::telemetry::context::{Received, Single, Wish};

    const TRACE: &str = "463ac35c9f6413ad48485a3953bb6124";
    const SHORT: &str = "48485a3953bb6124";
    const SPAN: &str = "a2fb4a1d1a96d312";

    /// The trace id without leading zeros and the wish, if there is a context.
    fn told(received: Received) -> Result<(String, Option<Wish>), Received> {
        match received {
            Received::Context(caller) => {
                assert_eq!(caller.span_id.to_string(), SPAN);
                assert_eq!(caller.flags.sampled(), caller.wish.is_some_and(Wish::sampled));
                Ok((caller.trace_id.to_string().trim_start_matches('0').to_owned(), caller.wish))
            }
            other => Err(other),
        }
    }

    #[test]
    fn one_field_says_all_or_only_a_decision() {
        use Received::{Decision, Malformed};
        use Wish::{Accept, Debug, Deny};
        let of = |trace: &str, wish| Ok((trace.to_owned(), wish));
        for (value, expected) in [
            (format!("{TRACE}-{SPAN}-1-0020000000000001"), of(TRACE, Some(Accept))),
            (format!("{TRACE}-{SPAN}-0"), of(TRACE, Some(Deny))),
            (format!("{TRACE}-{SPAN}-d"), of(TRACE, Some(Debug))),
            (format!("{TRACE}-{SPAN}"), of(TRACE, None)),
            (format!(" {TRACE}-{SPAN}-1\t"), of(TRACE, Some(Accept))),
            (format!("{SHORT}-{SPAN}-1"), of(SHORT, Some(Accept))),
            (format!("{SHORT:0>32}-{SPAN}-1"), of(SHORT, Some(Accept))),
            ("0".to_owned(), Err(Decision(Deny))),
            ("1".to_owned(), Err(Decision(Accept))),
            ("d".to_owned(), Err(Decision(Debug))),
            (String::new(), Err(Malformed)),
            ("2".to_owned(), Err(Malformed)),
            ("D".to_owned(), Err(Malformed)),
            ("true".to_owned(), Err(Malformed)),
            (format!("{TRACE}-{SPAN}-2"), Err(Malformed)),
            (format!("{TRACE}-{SPAN}-"), Err(Malformed)),
            (format!("{TRACE}-{SPAN}-1-"), Err(Malformed)),
            (format!("{TRACE}-{SPAN}-1-002"), Err(Malformed)),
            (format!("{TRACE}-{SPAN}-1-0020000000000001-1"), Err(Malformed)),
            (format!("{TRACE}-{SPAN}1"), Err(Malformed)),
            (format!("{TRACE}{SPAN}"), Err(Malformed)),
            (TRACE.to_owned(), Err(Malformed)),
            (format!("-{SPAN}-1"), Err(Malformed)),
            (format!("{}-{SPAN}-1", &TRACE[1..]), Err(Malformed)),
            (format!("{}-{SPAN}-1", TRACE.to_uppercase()), Err(Malformed)),
            (format!("{}-{SPAN}-1", "0".repeat(32)), Err(Malformed)),
            (format!("{}-{SPAN}-1", "0".repeat(16)), Err(Malformed)),
            (format!("{TRACE}-{}-1", "0".repeat(16)), Err(Malformed)),
            (format!("{TRACE}-{}-1", SPAN.replace('a', "g")), Err(Malformed)),
        ] {
            assert_eq!(told(read(Single::new([value.as_bytes()]))), expected, "{value}");
        }
        assert_eq!(read(Single::Absent), Received::Nothing);
        assert_eq!(read(Single::new([&b"0"[..], b"0"])), Decision(Deny), "the same twice");
        assert_eq!(read(Single::new([&b"0"[..], b"1"])), Malformed, "two that differ");
    }

    #[test]
    fn several_fields_say_the_same_each_for_itself() {
        use Received::{Decision, Malformed, Nothing};
        use Wish::{Accept, Debug, Deny};
        let of = |trace: &str, wish| Ok((trace.to_owned(), wish));
        let none = "-";
        for (fields, expected) in [
            ([TRACE, SPAN, "1", none], of(TRACE, Some(Accept))),
            ([TRACE, SPAN, "true", none], of(TRACE, Some(Accept))),
            ([TRACE, SPAN, "0", none], of(TRACE, Some(Deny))),
            ([TRACE, SPAN, "false", "0"], of(TRACE, Some(Deny))),
            ([TRACE, SPAN, none, "1"], of(TRACE, Some(Debug))),
            ([TRACE, SPAN, "0", "1"], of(TRACE, Some(Debug))),
            ([TRACE, SPAN, none, none], of(TRACE, None)),
            ([SHORT, SPAN, none, none], of(SHORT, None)),
            ([none, none, "0", none], Err(Decision(Deny))),
            ([none, none, none, "1"], Err(Decision(Debug))),
            ([none, none, none, none], Err(Nothing)),
            ([TRACE, none, "1", none], Err(Malformed)),
            ([none, SPAN, "1", none], Err(Malformed)),
            ([TRACE, SPAN, "2", none], Err(Malformed)),
            ([TRACE, SPAN, "", none], Err(Malformed)),
            (["", "", none, none], Err(Malformed)),
            ([&TRACE[1..], SPAN, "1", none], Err(Malformed)),
            ([SPAN, TRACE, "1", none], Err(Malformed)),
        ] {
            let [trace_id, span_id, sampled, flags] = fields.map(|value| match value {
                "-" => Single::Absent,
                value => Single::new([value.as_bytes()]),
            });
            let received = read_fields(&Fields { trace_id, span_id, sampled, flags });
            assert_eq!(told(received), expected, "{fields:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_ids_stay_as_short_as_they_came() {
        for (trace, state) in [(TRACE, '1'), (TRACE, '0'), (SHORT, 'd')] {
            let value = format!("{trace}-{SPAN}-{state}");
            let Received::Context(caller) = read(Single::new([value.as_bytes()])) else { panic!("{value}") };
            let written = caller.wish.map(|wish| {
                let mut out = [0; LENGTH];
                write(caller.trace_id, caller.span_id, wish, &mut out).to_vec()
            });
            assert_eq!(written, Some(value.into_bytes()));
        }
    }
}
