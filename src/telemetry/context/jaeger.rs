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

#[cfg(test)]
mod tests {
    use super::{LENGTH, read, write};
    use crate::telemetry::context::{Received, Single, Wish};

    fn told(value: &str) -> Option<(String, String, Option<Wish>)> {
        match read(Single::new([value.as_bytes()])) {
            Received::Context(caller) => {
                Some((caller.trace_id.to_string(), caller.span_id.to_string(), caller.wish))
            }
            Received::Malformed => None,
            other => panic!("{value} is {other:?}"),
        }
    }

    #[test]
    fn ids_are_numbers_whose_zeros_on_the_left_may_be_missing() {
        use Wish::{Accept, Debug, Deny};
        let trace = "463ac35c9f6413ad48485a3953bb6124";
        for (value, expected) in [
            (&*format!("{trace}:a2fb4a1d1a96d312:0:1"), Some((trace, "a2fb4a1d1a96d312", Accept))),
            (
                &format!("{trace}:a2fb4a1d1a96d312:b7ad6b7169203331:01"),
                Some((trace, "a2fb4a1d1a96d312", Accept)),
            ),
            (
                &format!("{}:A2FB4A1D1A96D312:0:3", trace.to_uppercase()),
                Some((trace, "a2fb4a1d1a96d312", Debug)),
            ),
            (&format!("{trace}%3Aa2fb4a1d1a96d312%3a0%3A1"), Some((trace, "a2fb4a1d1a96d312", Accept))),
            (" 5:6:0:0 ", Some(("5", "6", Deny))),
            ("5:6:7:1", Some(("5", "6", Accept))),
            ("5:6:0:2", Some(("5", "6", Deny))),
            ("5:6:0:f", Some(("5", "6", Debug))),
            ("5:6:0:09", Some(("5", "6", Accept))),
            ("", None),
            ("5", None),
            ("5:6:1", None),
            ("5:6:0:1:", None),
            ("5:6:0:", None),
            (":6:0:1", None),
            ("5::0:1", None),
            ("5:6::1", None),
            ("5:6:0:001", None),
            ("5:6:0:x", None),
            ("0:6:0:1", None),
            ("5:0000:0:1", None),
            ("g:6:0:1", None),
            ("+5:6:0:1", None),
            ("5%6:0:1", None),
            ("5%3B6:0:1", None),
            ("5:%36:0:1", None),
            (&format!("0{trace}:6:0:1"), None),
            ("5:00000000000000006:0:1", None),
            ("5:6:00000000000000006:1", None),
        ] {
            let expected = expected
                .map(|(trace, span, wish)| (format!("{trace:0>32}"), format!("{span:0>16}"), Some(wish)));
            assert_eq!(told(value), expected, "{value}");
        }
        assert_eq!(read(Single::Absent), Received::Nothing);
        assert_eq!(read(Single::new([&b"5:6:0:1"[..], b"5:6:0:0"])), Received::Malformed);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (value, wish) in [
            ("463ac35c9f6413ad48485a3953bb6124:a2fb4a1d1a96d312:0:1", Wish::Accept),
            ("48485a3953bb6124:a2fb4a1d1a96d312:0:3", Wish::Debug),
            ("0000000000000005:0000000000000006:0:0", Wish::Deny),
        ] {
            let Received::Context(caller) = read(Single::new([value.as_bytes()])) else { panic!("{value}") };
            let mut out = [0; LENGTH];
            assert_eq!(write(caller.trace_id, caller.span_id, wish, &mut out), value.as_bytes());
            assert_eq!(caller.wish, Some(wish));
        }
    }
}
