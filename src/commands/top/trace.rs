//! One trace, opened: each exchange with its attempts and their timing parts, drawn over the time they took.

use ratatui::text::Line;

use super::data::{Attempt, Exchange};
use super::model::{NO_ROUTE, OpenTrace};
use super::paint::{Theme, Tone, outcome};
use super::words::{self, fit, fit_right};

/// Everything that is known of it.
pub(super) fn lines(open: &OpenTrace, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![theme.line(Tone::Strong, format!("trace {}", open.trace_id))];
    let Some(trace) = &open.trace else {
        lines.push(theme.line(Tone::Quiet, "asking for it …"));
        return lines;
    };
    for exchange in &trace.exchanges {
        lines.push(Line::default());
        lines.extend(facts(exchange, theme));
        lines.push(Line::default());
        lines.extend(waterfall(exchange, theme, width));
    }
    lines
}

fn facts(exchange: &Exchange, theme: Theme) -> Vec<Line<'static>> {
    let it = &exchange.summary;
    let tone = outcome(it.status, it.blame.as_deref());
    let what = format!("{} {}", it.method, it.template.as_deref().unwrap_or(NO_ROUTE));
    let status = it.status.map_or_else(|| "nothing answered".to_owned(), |status| status.to_string());
    let mut ended = vec![status];
    if let Some(reason) = &it.reason {
        let detail = it.detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let blame = it.blame.as_deref().map(|blame| format!(", by fault of the {blame}")).unwrap_or_default();
        ended.push(format!("{reason}{detail}{blame}"));
    }
    let fact = |name: &str, text: String| {
        Line::from(vec![theme.text(Tone::Quiet, fit(name, FACT)), theme.text(Tone::Plain, text)])
    };
    let mut lines = vec![
        Line::from(vec![theme.text(Tone::Strong, format!("{what}  ")), theme.text(tone, ended.join(" "))]),
        fact(
            "began",
            format!("{}, on listener {} by HTTP/{}", it.time, exchange.listener, exchange.protocol),
        ),
    ];
    let first = it.first_byte_ms.map(|first| format!(", first byte after {}", words::duration(first)));
    lines.push(fact("took", format!("{}{}", words::duration(it.duration_ms), first.unwrap_or_default())));
    let route = it.route.as_deref().unwrap_or(NO_ROUTE);
    let upstream =
        it.upstream.as_deref().map(|upstream| format!(" to upstream {upstream}")).unwrap_or_default();
    let operation = it.operation.as_deref().map(|operation| format!(" ({operation})")).unwrap_or_default();
    lines.push(fact("route", format!("{route}{operation}{upstream}")));
    let (sent, received) = (words::bytes(exchange.request_bytes), words::bytes(exchange.response_bytes));
    lines.push(fact("bodies", format!("{sent} of the request, {received} of the answer")));
    if let Some(rule) = &exchange.rule {
        lines.push(fact("rule", rule.clone()));
    }
    if let Some(status) = exchange.grpc_status {
        lines.push(fact("gRPC", format!("status {status}")));
    }
    if let Some(why) = &exchange.not_retried {
        lines.push(fact("no retry", why.clone()));
    }
    if !exchange.phases_ms.is_empty() {
        let mut phases: Vec<_> = exchange.phases_ms.iter().collect();
        phases.sort_by(|one, other| other.1.total_cmp(one.1));
        let phases: Vec<_> =
            phases.iter().map(|(phase, took)| format!("{phase} {}", words::duration(**took))).collect();
        lines.push(fact("time", phases.join(", ")));
    }
    lines.extend(it.attributes.iter().map(|(name, value)| fact(name, value.clone())));
    lines
}

/// A line for the exchange, each attempt and each of its parts.
fn waterfall(exchange: &Exchange, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let whole = exchange.summary.duration_ms;
    let label = (width / 3).clamp(14, 34);
    let room = width.saturating_sub(label + 2 * TIME + 2).max(1);
    let bar = |tone, name: &str, start: f64, took: f64, mark: char| {
        Line::from(vec![
            theme.text(Tone::Plain, fit(name, label)),
            theme.text(Tone::Quiet, fit_right(&words::duration(start), TIME)),
            theme.text(Tone::Plain, format!("{}  ", fit_right(&words::duration(took), TIME))),
            theme.text(tone, draw(start, took, whole, room, mark)),
        ])
    };
    let titles = format!("{}{}{}", fit("", label), fit_right("FROM", TIME), fit_right("TOOK", TIME));
    let mut lines = vec![theme.line(Tone::Quiet, titles)];
    let tone = match outcome(exchange.summary.status, exchange.summary.blame.as_deref()) {
        Tone::Plain => Tone::Good,
        tone => tone,
    };
    lines.push(bar(tone, "exchange", 0.0, whole, '█'));
    for attempt in &exchange.attempt_list {
        let tone = if attempt.reason.is_some() { Tone::Bad } else { Tone::Good };
        let name = format!(" attempt {} {}", attempt.number, attempt.endpoint);
        lines.push(bar(tone, &name, attempt.start_ms, attempt.duration_ms, '█'));
        lines.push(theme.line(Tone::Quiet, format!("   {}", told(attempt))));
        for part in &attempt.parts {
            let name = format!("   {}", part.phase);
            lines.push(bar(Tone::Note, &name, part.start_ms, part.duration_ms, '▒'));
        }
    }
    if exchange.attempt_list.is_empty() {
        lines.push(theme.line(Tone::Quiet, " no attempt was made"));
    }
    lines
}

fn told(attempt: &Attempt) -> String {
    let mut told = Vec::new();
    if let Some(connection) = &attempt.connection {
        told.push(format!("{connection} connection"));
    }
    match (attempt.status, &attempt.reason) {
        (None, None) => {}
        (Some(status), None) => told.push(format!("answered {status}")),
        (status, Some(reason)) => {
            let status = status.map(|status| format!("answered {status}: ")).unwrap_or_default();
            let detail = attempt.detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default();
            told.push(format!("{status}{reason}{detail}"));
        }
    }
    told.join(", ")
}

/// A bar in its place of the whole; never shorter than a character, never outside.
fn draw(start: f64, took: f64, whole: f64, room: usize, mark: char) -> String {
    let whole = whole.max(f64::MIN_POSITIVE);
    let places = u32::try_from(room).unwrap_or(u32::MAX);
    // the first place that the time has not passed yet
    let place = |time: f64| {
        (1..=places).take_while(|place| f64::from(*place) <= time / whole * f64::from(places)).count()
    };
    let from = place(start).min(room.saturating_sub(1));
    let to = place(start + took).clamp(from + 1, room.max(from + 1));
    " ".repeat(from) + &mark.to_string().repeat(to - from)
}

const FACT: usize = 10;
const TIME: usize = 8;

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn bars_stand_where_their_time_does() {
        for (start, took, whole, expected) in [
            (0.0, 10.0, 10.0, "##########"),
            (5.0, 5.0, 10.0, "     #####"),
            (2.0, 0.0, 10.0, "  #"),
            (10.0, 0.0, 10.0, "         #"),
            (0.0, 0.0, 0.0, "#"),
            // what is outside is drawn at the edge
            (12.0, 5.0, 10.0, "         #"),
        ] {
            assert_eq!(draw(start, took, whole, 10, '#'), expected, "{start} {took} {whole}");
        }
    }
}
