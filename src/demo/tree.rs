//! A trace as an indented tree: who called whom, how long it took, how it ended.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::span::{Kind, Span};

/// Draws a trace: a line for the whole, then one for each span under the one it belongs to.
///
/// A span whose parent is not there stands at the top and says so.
pub(super) fn draw(spans: &[Span], colour: bool) -> String {
    let paint = Paint { colour };
    let Some(first) = spans.iter().min_by_key(|span| (span.parent.is_some(), span.start)) else {
        return String::new();
    };
    let lines = lines(spans);
    let width = lines.iter().map(|line| line.prefix.chars().count() + line.label.chars().count()).max();
    let end = spans.iter().map(|span| span.end).max().unwrap_or(first.end);
    let mut out = paint.bold(&format!("trace {}  {}", first.trace_id, first.name));
    if let Some(order) = spans.iter().find_map(|span| span.attribute("order.id")) {
        let _ = write!(out, "  order.id={order}");
    }
    let whole = Duration::from_nanos(end.saturating_sub(first.start));
    let _ = writeln!(out, "  {}", milliseconds(whole));
    for Line { span, prefix, label } in &lines {
        let pad = width.unwrap_or(0) - prefix.chars().count() - label.chars().count();
        let after = Duration::from_nanos(span.start.saturating_sub(first.start));
        let _ = writeln!(
            out,
            "{}{label}{:pad$}  {}  {:>9}  {}  {}{}",
            paint.dim(prefix),
            "",
            paint.status(span, &format!("{:>3}", span.attribute("http.response.status_code").unwrap_or("-"))),
            milliseconds(span.duration()),
            paint.dim(&format!("{:>7}", format!("+{:.1}", after.as_secs_f64() * 1000.0))),
            paint.dim(&span.id.to_string()),
            paint.status(span, &remark(span, spans)),
        );
    }
    out
}

struct Line<'a> {
    span: &'a Span,
    prefix: String,
    label: String,
}

fn lines(spans: &[Span]) -> Vec<Line<'_>> {
    let mut children: HashMap<_, Vec<&Span>> = HashMap::new();
    for span in spans {
        let parent = span.parent.filter(|&parent| spans.iter().any(|other| other.id == parent));
        children.entry(parent).or_default().push(span);
    }
    for siblings in children.values_mut() {
        siblings.sort_by_key(|span| (span.start, span.id.0));
    }
    // a stack, so that no depth of calls is too deep; what stands there is (span, indent, does a sibling follow)
    let under = |parent, indent: &str| {
        let siblings = children.get(&parent).map(Vec::as_slice).unwrap_or_default();
        let last = siblings.len().saturating_sub(1);
        let with_place = siblings.iter().enumerate().map(move |(index, &span)| (span, index < last));
        with_place.rev().map(|(span, follows)| (span, indent.to_owned(), follows)).collect::<Vec<_>>()
    };
    let mut stack = under(None, "");
    let mut lines = Vec::with_capacity(spans.len());
    while let Some((span, indent, follows)) = stack.pop() {
        let (branch, below) = if follows { ("├─ ", "│  ") } else { ("└─ ", "   ") };
        lines.push(Line { span, prefix: format!("{indent}{branch}"), label: label(span) });
        stack.extend(under(Some(span.id), &format!("{indent}{below}")));
    }
    lines
}

fn label(span: &Span) -> String {
    let mut label = format!("{}  {} {}", span.service, span.kind.word(), span.name);
    if span.kind == Kind::Client {
        let peer = span.attribute("service.peer.name").or_else(|| span.attribute("peer.service"));
        let address = span.attribute("server.address").zip(span.attribute("server.port"));
        if peer.is_some() || address.is_some() {
            label.push_str(" →");
        }
        if let Some(peer) = peer {
            let _ = write!(label, " {peer}");
        }
        if let Some((host, port)) = address {
            let _ = write!(label, " {host}:{port}");
        }
    }
    if let Some(count) = span.attribute("http.request.resend_count") {
        let _ = write!(label, " (again, {count})");
    }
    label
}

/// Why it did not simply succeed, and what of the picture is missing.
fn remark(span: &Span, spans: &[Span]) -> String {
    let mut remark = String::new();
    match (span.attribute("tracegate.reason"), span.attribute("error.type")) {
        (Some(reason), _) => {
            let _ = write!(remark, "  {reason}");
            if let Some(detail) = span.attribute("tracegate.detail") {
                let _ = write!(remark, " ({detail})");
            }
            if let Some(blame) = span.attribute("tracegate.blame") {
                let _ = write!(remark, ", blame: {blame}");
            }
        }
        (None, Some(error)) => {
            let _ = write!(remark, "  {error}");
        }
        (None, None) => {}
    }
    if let Some(parent) = span.parent.filter(|&parent| spans.iter().all(|other| other.id != parent)) {
        let _ = write!(remark, "  (its parent {parent} is missing)");
    }
    remark
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// Colours, where they are wanted.
#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    fn status(self, span: &Span, text: &str) -> String {
        match span.attribute("http.response.status_code").and_then(|code| code.bytes().next()) {
            _ if span.error => self.with("31", text),
            _ if span.attributes.contains_key("tracegate.reason") => self.with("33", text),
            Some(b'4' | b'5') => self.with("33", text),
            Some(_) => self.with("32", text),
            None => text.to_owned(),
        }
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::draw;
    use crate::demo::span::{Kind, Span};
    use crate::telemetry::context::{SpanId, TraceId};

    const MILLISECOND: u64 = 1_000_000;

    fn span(
        id: u8,
        parent: u8,
        service: &str,
        kind: Kind,
        name: &str,
        times: [u64; 2],
        attributes: &[(&str, &str)],
    ) -> Span {
        Span {
            service: service.into(),
            trace_id: TraceId([0x4b; 16]),
            id: SpanId([id; 8]),
            parent: (parent != 0).then_some(SpanId([parent; 8])),
            name: name.into(),
            kind,
            start: 1_000_000_000 + times[0] * MILLISECOND,
            end: 1_000_000_000 + times[1] * MILLISECOND,
            error: attributes.iter().any(|&(key, _)| key == "error.type"),
            attributes: attributes.iter().map(|&(key, value)| (key.into(), value.into())).collect(),
        }
    }

    fn check(spans: &[Span], expected: &str) {
        let drawn = draw(spans, false);
        assert_eq!(drawn, expected, "\n{drawn}");
    }

    #[test]
    fn spans_stand_under_their_parents_whatever_order_they_came_in() {
        let to_shop = [
            ("http.response.status_code", "201"),
            ("service.peer.name", "shop-api"),
            ("server.address", "127.0.0.1"),
            ("server.port", "4123"),
        ];
        check(
            &[
                span(
                    3,
                    2,
                    "shop-api",
                    Kind::Server,
                    "POST /orders",
                    [1, 11],
                    &[("http.response.status_code", "201"), ("order.id", "o-1042")],
                ),
                span(5, 3, "shop-api", Kind::Internal, "b", [5, 6], &[]),
                span(2, 1, "api-gateway", Kind::Client, "POST /orders", [0, 12], &to_shop),
                span(4, 3, "shop-api", Kind::Internal, "a", [2, 4], &[]),
                span(6, 4, "shop-api", Kind::Internal, "deep", [2, 3], &[]),
                span(
                    1,
                    0,
                    "api-gateway",
                    Kind::Server,
                    "POST /shop/orders",
                    [0, 12],
                    &[("http.response.status_code", "201")],
                ),
            ],
            "\
trace 4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b  POST /shop/orders  order.id=o-1042  12.0 ms
└─ api-gateway  SERVER POST /shop/orders                          201    12.0 ms     +0.0  0101010101010101
   └─ api-gateway  CLIENT POST /orders → shop-api 127.0.0.1:4123  201    12.0 ms     +0.0  0202020202020202
      └─ shop-api  SERVER POST /orders                            201    10.0 ms     +1.0  0303030303030303
         ├─ shop-api  INTERNAL a                                    -     2.0 ms     +2.0  0404040404040404
         │  └─ shop-api  INTERNAL deep                              -     1.0 ms     +2.0  0606060606060606
         └─ shop-api  INTERNAL b                                    -     1.0 ms     +5.0  0505050505050505
",
        );
    }

    #[test]
    fn failures_tell_their_reason_and_second_tries_their_number() {
        let (reason, blame) = (("tracegate.reason", "upstream_reset"), ("tracegate.blame", "upstream"));
        let failed = [reason, blame, ("error.type", "upstream_reset")];
        check(
            &[
                span(1, 0, "api-gateway", Kind::Server, "GET /a", [0, 3], &[("http.response.status_code", "200")]),
                span(2, 1, "api-gateway", Kind::Client, "GET /a", [0, 1], &failed),
                span(3, 1, "api-gateway", Kind::Client, "GET /a", [1, 3], &[
                    ("http.response.status_code", "200"),
                    ("http.request.resend_count", "1"),
                ]),
                span(4, 3, "shop-api", Kind::Server, "GET /a", [1, 2], &[("error.type", "500")]),
            ],
            "\
trace 4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b  GET /a  3.0 ms
└─ api-gateway  SERVER GET /a                200     3.0 ms     +0.0  0101010101010101
   ├─ api-gateway  CLIENT GET /a               -     1.0 ms     +0.0  0202020202020202  upstream_reset, blame: upstream
   └─ api-gateway  CLIENT GET /a (again, 1)  200     2.0 ms     +1.0  0303030303030303
      └─ shop-api  SERVER GET /a               -     1.0 ms     +1.0  0404040404040404  500
",
        );
    }

    #[test]
    fn a_span_without_its_parent_stands_at_the_top_and_says_so() {
        check(
            &[span(2, 1, "shop-api", Kind::Server, "GET /a", [0, 1], &[])],
            "\
trace 4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b  GET /a  1.0 ms
└─ shop-api  SERVER GET /a    -     1.0 ms     +0.0  0202020202020202  (its parent 0101010101010101 is missing)
",
        );
    }

    #[test]
    fn spans_that_are_each_others_parents_do_not_hang_it() {
        let spans = [
            span(1, 2, "a", Kind::Server, "x", [0, 1], &[]),
            span(2, 1, "a", Kind::Server, "y", [0, 1], &[]),
            span(3, 3, "a", Kind::Server, "z", [0, 1], &[]),
        ];
        assert_eq!(draw(&spans, false).lines().count(), 1);
    }

    #[test]
    fn colour_comes_only_when_wanted() {
        let spans = [span(1, 0, "a", Kind::Server, "x", [0, 1], &[("error.type", "500")])];
        assert!(!draw(&spans, false).contains('\x1b'));
        assert!(draw(&spans, true).contains("\x1b[31m"));
    }
}
