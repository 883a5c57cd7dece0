//! Trace context in header fields: taken from the client's by the listener's rule, put into the attempt's.
//!
//! A field that the listener reads, or that the upstream is told, is replaced, never passed on: what it said
//! belongs to the caller's span. Fields of formats that are neither are none of ours and pass.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::headers::Fields;
use crate::telemetry::Handle;
use crate::telemetry::context::format::{Format, Formats};
use crate::telemetry::context::threshold::Threshold;
use crate::telemetry::context::{
    Context, Inbound, Origin, Received, Single, SpanId, State, Wish, b3, jaeger, traceparent,
};
use crate::telemetry::sampling::Force;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
const UBER_TRACE_ID: HeaderName = HeaderName::from_static("uber-trace-id");

/// Baggage by name, and how Jaeger's fields of one entry each begin.
const BAGGAGE: [HeaderName; 2] =
    [HeaderName::from_static("baggage"), HeaderName::from_static("jaeger-baggage")];
const UBER_BAGGAGE: &str = "uberctx-";

/// The context of a request with these fields, from a peer that is a trusted proxy or is not. The field that
/// demands a trace, with the right token or a wrong one, is gone from here on.
pub fn extract(
    headers: &mut HeaderMap,
    fields: Fields,
    inbound: &Inbound,
    trusted: bool,
    force: Option<&Force>,
) -> Context {
    let believed = inbound.believes(trusted);
    let mut context = receive(headers, fields, inbound, believed);
    if believed {
        context.replaced = inbound.fields();
    } else {
        context.replaced = Formats::ALL;
        context.baggage = false;
    }
    if let Some(force) = force
        && let Some(value) = headers.remove(&force.header)
    {
        context.forced = force.token.matches(value.as_bytes());
    }
    context
}

/// The first format with a valid context is the caller's. A mere decision counts if there is none.
fn receive(headers: &HeaderMap, fields: Fields, inbound: &Inbound, believed: bool) -> Context {
    let (mut origin, mut decided) = (Origin::Started, None);
    for format in &inbound.formats {
        match read(headers, fields, *format) {
            Received::Nothing => {}
            Received::Malformed => origin = Origin::Malformed,
            Received::Context(caller) if believed => {
                let w3c = *format == Format::W3c;
                let state = if w3c { State::read(values(headers, &TRACESTATE)) } else { State::default() };
                return Context::continued(caller, state);
            }
            Received::Context(caller) => return Context::restarted(caller),
            Received::Decision(wish) => decided = Some(wish).filter(|_| believed),
        }
    }
    Context { wish: decided, ..Context::start(origin) }
}

fn read(headers: &HeaderMap, fields: Fields, format: Format) -> Received {
    match format {
        Format::W3c if !fields.have(Fields::TRACEPARENT) => Received::Nothing,
        Format::W3c => traceparent::read(single(headers, &TRACEPARENT)),
        Format::Jaeger => jaeger::read(single(headers, &UBER_TRACE_ID)),
        // the single field goes first
        Format::B3 => match b3::read(single(headers, &B3)) {
            single @ (Received::Context(_) | Received::Decision(_)) => single,
            single => match read_b3_fields(headers) {
                Received::Nothing => single,
                several => several,
            },
        },
    }
}

fn read_b3_fields(headers: &HeaderMap) -> Received {
    b3::read_fields(&b3::Fields {
        trace_id: single(headers, &B3_TRACE_ID),
        span_id: single(headers, &B3_SPAN_ID),
        sampled: single(headers, &B3_SAMPLED),
        flags: single(headers, &B3_FLAGS),
    })
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Single<'a> {
    Single::new(values(headers, name))
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

/// Tells the upstream of the attempt with this span, in these formats: the service's span hangs under the
/// attempt's. In none, it is told nothing at all, and neither is what the caller said.
pub fn inject(headers: &mut HeaderMap, handle: &Handle, span: SpanId, formats: Formats) {
    let context = &handle.context;
    let withheld = formats.is_empty();
    let replaced = if withheld { Formats::ALL } else { context.replaced };
    remove(headers, replaced.without(formats));
    if withheld || !context.baggage {
        remove_baggage(headers);
    }
    let decision = handle.decide();
    let trace = context.trace_id;
    if formats.contains(Formats::W3C) {
        let flags = context.flags(decision.sampled());
        headers.insert(TRACEPARENT, ascii(&traceparent::write(trace, span, flags)));
        match state(&context.state, decision.threshold()) {
            Some(state) => headers.insert(TRACESTATE, state),
            None => headers.remove(TRACESTATE),
        };
    }
    let wish = context.told(decision.sampled());
    if formats.contains(Formats::B3) {
        headers.insert(B3, ascii(b3::write(trace, span, wish, &mut [0; b3::LENGTH])));
    }
    if formats.contains(Formats::B3_MULTI) {
        remove(headers, Formats::B3_MULTI);
        headers.insert(B3_TRACE_ID, ascii(b3::write_trace_id(trace, &mut [0; 32]).as_bytes()));
        headers.insert(B3_SPAN_ID, ascii(b3::write_span_id(span, &mut [0; 16]).as_bytes()));
        let (name, value) = match wish {
            // it implies the other field
            Wish::Debug => (B3_FLAGS, "1"),
            Wish::Accept => (B3_SAMPLED, "1"),
            Wish::Deny => (B3_SAMPLED, "0"),
        };
        headers.insert(name, HeaderValue::from_static(value));
    }
    if formats.contains(Formats::JAEGER) {
        headers.insert(UBER_TRACE_ID, ascii(jaeger::write(trace, span, wish, &mut [0; jaeger::LENGTH])));
    }
}

fn state(state: &State, threshold: Option<Threshold>) -> Option<HeaderValue> {
    const ALL: HeaderValue = HeaderValue::from_static("ot=th:0");
    if threshold == Some(Threshold::ALWAYS) && state.is_empty() {
        // what nearly all say
        return Some(ALL);
    }
    let text = state.forwarded(threshold);
    if text.is_empty() { None } else { HeaderValue::from_str(&text).ok() }
}

fn remove(headers: &mut HeaderMap, formats: Formats) {
    let fields: [(Formats, &[HeaderName]); 4] = [
        (Formats::W3C, &[TRACEPARENT, TRACESTATE]),
        (Formats::B3, &[B3]),
        (Formats::B3_MULTI, &[B3_TRACE_ID, B3_SPAN_ID, B3_PARENT_SPAN_ID, B3_SAMPLED, B3_FLAGS]),
        (Formats::JAEGER, &[UBER_TRACE_ID]),
    ];
    for (format, names) in fields {
        if formats.contains(format) {
            for name in names {
                headers.remove(name);
            }
        }
    }
}

fn remove_baggage(headers: &mut HeaderMap) {
    for name in &BAGGAGE {
        headers.remove(name);
    }
    let uber: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(UBER_BAGGAGE)).cloned().collect();
    for name in uber {
        headers.remove(name);
    }
}

/// Hexadecimal digits, dashes and colons.
fn ascii(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).expect("digits, dashes and colons are allowed in a field")
}

#[cfg(test)]
mod tests {
    use super::{Fields, Formats, extract, remove, remove_baggage};
    use crate::setting::Secret;
    use crate::telemetry::context::format::{Format, Trust};
    use crate::telemetry::context::{Context, Inbound, Origin, Wish};
    use crate::telemetry::sampling::Force;
    use http::{HeaderMap, HeaderName};

    const W3C: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const STATE: &str = "tracestate: vendor=1";
    const B3: &str = "b3: 1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-d";
    const B3_FIELDS: [&str; 3] =
        ["x-b3-traceid: 2af7651916cd43dd", "x-b3-spanid: b7ad6b7169203331", "x-b3-sampled: 0"];
    const JAEGER: &str = "uber-trace-id: 3af7651916cd43dd:b7ad6b7169203331:0:1";

    /// How ids of 64 bits begin.
    const SHORT: &str = "0000000000000000";

    fn headers(fields: &[&str]) -> HeaderMap {
        let field = |field: &&str| {
            let (name, value) = field.split_once(": ").expect("a field");
            (HeaderName::try_from(name).expect("a name"), value.parse().expect("a value"))
        };
        fields.iter().map(field).collect()
    }

    fn context(formats: &[Format], trust: Trust, fields: &[&str]) -> Context {
        let inbound = Inbound { trust, formats: formats.into() };
        let mut headers = headers(fields);
        let fields = Fields::of(&headers);
        extract(&mut headers, fields, &inbound, false, None)
    }

    #[test]
    fn the_first_format_with_a_valid_context_is_the_callers() {
        use Format::{B3 as B, Jaeger as J, W3c as W};
        let fields = [&[W3C, STATE, B3, JAEGER][..], &B3_FIELDS].concat();
        let (zero, bad_b3) = ("b3: 0", "b3: nonsense");
        for (formats, fields, trace, origin, wish) in [
            (&[W][..], &fields[..], "0af7", Origin::Continued, Some(Wish::Accept)),
            (&[B, W], &fields, "1af7", Origin::Continued, Some(Wish::Debug)),
            (&[J, B], &fields, SHORT, Origin::Continued, Some(Wish::Accept)),
            // the single field goes before the others, if it says anything
            (&[B], &B3_FIELDS, SHORT, Origin::Continued, Some(Wish::Deny)),
            (&[B], &[&[bad_b3][..], &B3_FIELDS].concat(), SHORT, Origin::Continued, Some(Wish::Deny)),
            (&[B], &[bad_b3], "", Origin::Malformed, None),
            // what is malformed does not hide what is valid
            (&[B, W], &[bad_b3, W3C], "0af7", Origin::Continued, Some(Wish::Accept)),
            (&[W, J], &["traceparent: nonsense", JAEGER], SHORT, Origin::Continued, Some(Wish::Accept)),
            (&[W, J], &["traceparent: nonsense", B3], "", Origin::Malformed, None),
            // a decision alone
            (&[B], &[zero], "", Origin::Started, Some(Wish::Deny)),
            (&[B, W], &[zero, W3C], "0af7", Origin::Continued, Some(Wish::Accept)),
            (&[B], &["x-b3-flags: 1"], "", Origin::Started, Some(Wish::Debug)),
            // formats that are not read
            (&[W], &[B3, JAEGER], "", Origin::Started, None),
            (&[J], &[W3C, zero], "", Origin::Started, None),
        ] {
            let context = context(formats, Trust::Continue, fields);
            assert_eq!((context.origin, context.wish), (origin, wish), "{formats:?} {fields:?}");
            let id = context.trace_id.to_string();
            assert!(id.starts_with(trace), "{id} {formats:?} {fields:?}");
            let stated = context.state.forwarded(None) == "vendor=1";
            assert_eq!(stated, trace == "0af7" && fields.contains(&STATE), "{formats:?} {fields:?}");
        }
    }

    #[test]
    fn who_is_not_believed_leaves_a_link_and_nothing_else() {
        use Format::{B3 as B, Jaeger as J, W3c as W};
        for (fields, linked) in
            [(&[W3C, STATE][..], true), (&[B3], true), (&[JAEGER], true), (&["b3: 0"], false), (&[], false)]
        {
            let context = context(&[W, B, J], Trust::Restart, fields);
            let expected = if linked { Origin::Restarted } else { Origin::Started };
            assert_eq!((context.origin, context.link.is_some()), (expected, linked), "{fields:?}");
            assert!(context.parent.is_none() && context.wish.is_none() && context.state.is_empty());
            assert!(!context.baggage && context.replaced == Formats::ALL);
            assert!(context.link.is_none_or(|link| link.trace_id != context.trace_id));
        }
    }

    #[test]
    fn a_trace_is_demanded_with_the_right_token_and_the_field_is_gone_with_any() {
        let force = Force {
            header: HeaderName::from_static("x-tracegate-force"),
            token: Secret::new("0123456789abcdef"),
        };
        for (value, forced) in [("0123456789abcdef", true), ("0123456789abcdeg", false), ("", false)] {
            let mut headers =
                headers(&[&format!("x-tracegate-force: {value}"), "x-tracegate-force: more", W3C]);
            let fields = Fields::of(&headers);
            let context = extract(&mut headers, fields, &Inbound::default(), false, Some(&force));
            assert_eq!(context.forced, forced, "{value}");
            assert!(!headers.contains_key("x-tracegate-force") && headers.contains_key("traceparent"));
        }
    }

    #[test]
    fn fields_go_by_format_and_baggage_goes_in_each_of_its_forms() {
        let all = [&[W3C, STATE, B3, JAEGER, "x-b3-flags: 0"][..], &B3_FIELDS].concat();
        for (formats, left) in [
            (Formats::NONE, 8),
            (Formats::W3C, 6),
            (Formats::B3.and(Formats::JAEGER), 6),
            (Formats::B3_MULTI, 4),
            (Formats::ALL, 0),
        ] {
            let mut headers = headers(&all);
            remove(&mut headers, formats);
            assert_eq!(headers.len(), left, "{formats:?}");
        }
        let mut headers =
            headers(&["baggage: a=1", "jaeger-baggage: a=1", "uberctx-a: 1", "uberctx-b: 2", "uberct: 3"]);
        remove_baggage(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["uberct"]);
    }
}
