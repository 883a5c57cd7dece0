//! What holds of the parsers that are ours, whatever bytes they are given.
//!
//! They agree with a plain reading of the specification, what they understand survives being written, and
//! nothing they send on breaks a field. Here stand those of trace context, of which an input has one field value a
//! line; beside it those of other `traffic`, and of what operators write, the `settings`.

mod settings;
mod traffic;

use std::collections::HashSet;

use tracegate::telemetry::context::threshold::Threshold;
use tracegate::telemetry::context::{
    Context, Received, Remote, Single, State, Wish, b3, jaeger, traceparent,
};

pub use settings::*;
pub use traffic::*;

/// `traceparent`, and what becomes of it.
pub fn traceparent(input: &[u8]) {
    let received = traceparent::read(Single::new(lines(input)));
    let plain = one(input).map(|text| plain_traceparent(&text));
    assert_eq!(told(received), plain.unwrap_or_default(), "{input:?}");
    let context = Context::from_headers(lines(input), []);
    let Received::Context(caller) = received else {
        assert!(context.parent.is_none(), "{input:?}");
        return;
    };
    assert_eq!((context.trace_id, context.wish), (caller.trace_id, caller.wish), "{input:?}");
    let written = traceparent::write(caller.trace_id, caller.span_id, caller.flags);
    assert_field(&written);
    assert_eq!(traceparent::read(Single::new([&written[..]])), received, "{input:?}");
}

/// `tracestate`, and what of it is sent on and exported.
pub fn tracestate(input: &[u8]) {
    let state = State::read(lines(input));
    let kept = Threshold::parse(b"c");
    for threshold in [None, kept] {
        let forwarded = state.forwarded(threshold);
        assert_field(forwarded.as_bytes());
        assert!(forwarded.len() <= 512, "{input:?}");
        let again = State::read([forwarded.as_bytes()]);
        assert_eq!(again.forwarded(threshold), forwarded, "{input:?}");
        assert_eq!((again.ot.threshold, again.ot.randomness), (threshold, state.ot.randomness), "{input:?}");
        let members: Vec<&str> = forwarded.split(',').filter(|member| !member.is_empty()).collect();
        assert!(members.len() <= 32, "{input:?}");
        let mut keys = HashSet::new();
        assert!(members.iter().all(|member| keys.insert(member.split('=').next())), "{input:?}");
        // the others' members are those that came, in their order
        let others = members.iter().filter(|member| !member.starts_with("ot="));
        let mut sent = input.split(|byte| matches!(byte, b'\n' | b','));
        for other in others {
            let same = |member: &[u8]| member.trim_ascii() == other.trim_ascii().as_bytes();
            assert!(sent.any(same), "{other:?} of {input:?}");
        }
        let exported = state.exported(threshold);
        let numbers = exported.strip_prefix("ot=").unwrap_or(&exported).split(';');
        for number in numbers.filter(|number| !number.is_empty()) {
            let digits = number.strip_prefix("th:").or_else(|| number.strip_prefix("rv:"));
            assert!(digits.is_some_and(|digits| is_hex(digits, 1..=14)), "{exported:?} of {input:?}");
        }
    }
}

/// `b3` in one field and, with one line each, in several.
pub fn b3(input: &[u8]) {
    let received = b3::read(Single::new(lines(input)));
    let plain = one(input).map(|text| plain_b3(&text));
    assert_eq!(told(received), plain.unwrap_or_default(), "{input:?}");
    survives_b3(received);
    let mut fields = lines(input).map(|line| Single::new([line]));
    let mut next = || fields.next().unwrap_or(Single::Absent);
    let fields = b3::Fields { trace_id: next(), span_id: next(), sampled: next(), flags: next() };
    survives_b3(b3::read_fields(&fields));
}

fn survives_b3(received: Received) {
    let Received::Context(caller) = received else { return };
    assert!(caller.trace_id.0 != [0; 16] && caller.span_id.0 != [0; 8]);
    let wish = caller.wish.unwrap_or(Wish::Accept);
    let mut out = [0; b3::LENGTH];
    let written = b3::write(caller.trace_id, caller.span_id, wish, &mut out);
    assert_field(written);
    let flags = caller.flags.with_sampled(wish.sampled());
    let again = Remote { wish: Some(wish), flags, ..caller };
    assert_eq!(b3::read(Single::new([written])), Received::Context(again));
}

/// `uber-trace-id`.
pub fn jaeger(input: &[u8]) {
    let received = jaeger::read(Single::new(lines(input)));
    let plain = one(input).map(|text| plain_jaeger(&text));
    assert_eq!(told(received), plain.unwrap_or_default(), "{input:?}");
    let Received::Context(caller) = received else { return };
    let mut out = [0; jaeger::LENGTH];
    let written = jaeger::write(caller.trace_id, caller.span_id, caller.wish.unwrap_or(Wish::Deny), &mut out);
    assert_field(written);
    assert_eq!(jaeger::read(Single::new([written])), received, "{input:?}");
}

/// Trace id, span id, and what is wanted; or only that, if it stands alone.
type Told = (Option<(u128, u64)>, Option<Wish>);

fn told(received: Received) -> Told {
    match received {
        Received::Nothing | Received::Malformed => (None, None),
        Received::Decision(wish) => (None, Some(wish)),
        Received::Context(caller) => {
            let ids = (u128::from_be_bytes(caller.trace_id.0), u64::from_be_bytes(caller.span_id.0));
            (Some(ids), caller.wish)
        }
    }
}

fn plain_traceparent(text: &str) -> Told {
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    let [version, trace, span, flags, ..] = parts[..] else { return Told::default() };
    let lengths = [version, trace, span, flags].map(str::len);
    let known = version == "00" && parts.len() == 4 || !matches!(version, "00" | "ff");
    let digits = [version, trace, span, flags].iter().all(|part| is_hex(part, 1..=32));
    if !known || !digits || lengths != [2, 32, 16, 2] {
        return Told::default();
    }
    let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags % 2 == 1);
    ids(trace, span, Some(if sampled { Wish::Accept } else { Wish::Deny }))
}

fn plain_b3(text: &str) -> Told {
    let wish = |state: &str| match state {
        "0" => Some(Wish::Deny),
        "1" => Some(Wish::Accept),
        "d" => Some(Wish::Debug),
        _ => None,
    };
    let parts: Vec<&str> = text.split('-').collect();
    let (trace, span, state) = match parts[..] {
        [state] => return (None, wish(state)),
        [trace, span] => (trace, span, None),
        [trace, span, state] => (trace, span, Some(state)),
        [trace, span, state, parent] if is_hex(parent, 16..=16) => (trace, span, Some(state)),
        _ => return Told::default(),
    };
    let length = is_hex(trace, 16..=16) || is_hex(trace, 32..=32);
    if !length || !is_hex(span, 16..=16) || state.is_some_and(|state| wish(state).is_none()) {
        return Told::default();
    }
    ids(trace, span, state.and_then(wish))
}

fn plain_jaeger(text: &str) -> Told {
    let text = text.replace("%3A", ":").replace("%3a", ":").to_ascii_lowercase();
    let parts: Vec<&str> = text.split(':').collect();
    let [trace, span, parent, flags] = parts[..] else { return Told::default() };
    let lengths = is_hex(trace, 1..=32) && is_hex(span, 1..=16) && is_hex(parent, 1..=16);
    if !lengths || !is_hex(flags, 1..=2) {
        return Told::default();
    }
    let wish = match u8::from_str_radix(flags, 16).expect("digits") % 4 {
        1 => Wish::Accept,
        3 => Wish::Debug,
        _ => Wish::Deny,
    };
    ids(trace, span, Some(wish))
}

fn ids(trace: &str, span: &str, wish: Option<Wish>) -> Told {
    let trace = u128::from_str_radix(trace, 16).expect("digits");
    let span = u64::from_str_radix(span, 16).expect("digits");
    if trace == 0 || span == 0 { Told::default() } else { (Some((trace, span)), wish) }
}

fn is_hex(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    length.contains(&text.len()) && text.bytes().all(digit)
}

/// One value a line.
fn lines(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    input.split(|&byte| byte == b'\n')
}

/// The only value, however often it is there, without white space around it.
fn one(input: &[u8]) -> Option<String> {
    let mut values = lines(input);
    let first = values.next()?;
    values.all(|other| other == first).then(|| String::from_utf8_lossy(first.trim_ascii()).into_owned())
}

/// What may stand in a header field (RFC 9110 section 5.5), and is printable ASCII besides.
fn assert_field(value: &[u8]) {
    assert!(value.iter().all(|byte| matches!(byte, b' '..=b'~')), "{value:?}");
}
