//! Whether telemetry adds up, what was reloaded, and which certificates expire, as lines.

use std::collections::BTreeMap;

use ratatui::text::Line;

use super::data::{Certificates, Listed, Reload, Reloads, Spans, Telemetry};
use super::model::Data;
use super::paint::{Theme, Tone};
use super::words::{self, fit, fit_right};

/// All of it, as far as it was told.
pub(super) fn lines(data: &Data, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = match &data.telemetry {
        Some(telemetry) => balance(telemetry, theme),
        None => vec![
            theme.line(Tone::Quiet, "balance, reloads and certificates are for developers and operators"),
        ],
    };
    if let Some(reloads) = &data.reloads {
        lines.push(Line::default());
        lines.extend(history(reloads, theme));
    }
    if let Some(certificates) = &data.certificates {
        lines.push(Line::default());
        lines.extend(expiries(certificates, theme));
    }
    lines
}

/// What everybody should see at once: that telemetry does not add up, or that some is lost.
pub(super) fn alarm(telemetry: &Telemetry) -> Option<String> {
    if telemetry.balanced {
        return None;
    }
    let off = telemetry.spans.iter().filter_map(|(receiver, spans)| {
        let difference = i128::from(telemetry.spans_made) - i128::from(accounted(spans));
        (difference != 0).then(|| format!("{receiver} {difference:+}"))
    });
    let off: Vec<_> = off.collect();
    Some(format!("TELEMETRY DOES NOT BALANCE: spans unaccounted for: {}", off.join(", ")))
}

fn accounted(spans: &Spans) -> u64 {
    spans.exported + all(&spans.unsampled) + all(&spans.dropped) + spans.queued
}

fn all(reasons: &BTreeMap<String, u64>) -> u64 {
    reasons.values().sum()
}

fn balance(telemetry: &Telemetry, theme: Theme) -> Vec<Line<'static>> {
    let made = words::count(telemetry.spans_made);
    let mut lines = vec![match alarm(telemetry) {
        Some(alarm) => theme.line(Tone::Loud, format!(" {alarm} ")),
        None => Line::from(vec![
            theme.text(Tone::Strong, "telemetry balances: "),
            theme.text(Tone::Good, format!("{made} spans made, each accounted for")),
        ]),
    }];
    if telemetry.spans.is_empty() {
        lines.push(theme.line(Tone::Quiet, "  no receiver of spans is configured"));
    } else {
        let titles =
            ["EXPORTED", "UNSAMPLED", "DROPPED", "QUEUED"].map(|title| fit_right(title, 14)).concat();
        lines.push(theme.line(Tone::Quiet, format!("  {}{titles}", fit("RECEIVER", 12))));
    }
    for (receiver, spans) in &telemetry.spans {
        let dropped = all(&spans.dropped);
        let figure = |figure: u64| fit_right(&words::count(figure), 14);
        lines.push(Line::from(vec![
            theme.text(Tone::Plain, format!("  {}{}", fit(receiver, 12), figure(spans.exported))),
            theme.text(Tone::Plain, figure(all(&spans.unsampled))),
            theme.text(if dropped > 0 { Tone::Bad } else { Tone::Plain }, figure(dropped)),
            theme.text(Tone::Plain, figure(spans.queued)),
            theme.text(Tone::Bad, reasons(&spans.dropped)),
        ]));
    }
    let dropped = telemetry.access_records_dropped;
    lines.push(Line::from(vec![
        theme.text(
            Tone::Plain,
            format!("access log: {} written", words::of(telemetry.access_records_written, "line")),
        ),
        theme.text(
            if dropped > 0 { Tone::Bad } else { Tone::Plain },
            format!(", {} dropped", words::count(dropped)),
        ),
    ]));
    let kept: Vec<_> =
        telemetry.recent.kept.iter().map(|(why, count)| format!("{why} {}", words::count(*count))).collect();
    if !kept.is_empty() {
        lines.push(Line::from(format!(
            "recent traces kept: {} ({})",
            kept.join(", "),
            words::bytes(telemetry.recent.bytes)
        )));
    }
    lines
}

fn reasons(dropped: &BTreeMap<String, u64>) -> String {
    let some = dropped.iter().filter(|(_, count)| **count > 0);
    let told: Vec<_> = some.map(|(reason, count)| format!("  {reason} {}", words::count(*count))).collect();
    told.concat()
}

fn history(reloads: &Reloads, theme: Theme) -> Vec<Line<'static>> {
    let hash: String = reloads.hash.chars().take(12).collect();
    let mut lines = vec![Line::from(vec![
        theme.text(Tone::Strong, "configuration: "),
        theme.text(Tone::Plain, format!("generation {}, hash {hash}", reloads.generation)),
    ])];
    if !reloads.awaiting_restart.is_empty() {
        lines.push(
            theme.line(Tone::Warn, format!("  waits for a restart: {}", reloads.awaiting_restart.join(", "))),
        );
    }
    for (name, change) in &reloads.overrides {
        let value = change.get("value").unwrap_or(change);
        let since = change.get("since").and_then(serde_json::Value::as_str).unwrap_or("some time ago");
        lines.push(theme.line(Tone::Warn, format!("  changed at run time: {name} is {value} since {since}")));
    }
    if reloads.history.is_empty() {
        lines.push(theme.line(Tone::Quiet, "  it has not been reloaded"));
    }
    lines.extend(reloads.history.iter().flat_map(|reload| one(reload, theme)));
    lines
}

fn one(reload: &Reload, theme: Theme) -> Vec<Line<'static>> {
    let tone = match reload.outcome.as_str() {
        "refused" => Tone::Bad,
        "applied" => Tone::Good,
        _ => Tone::Plain,
    };
    let difference = &reload.difference;
    let listed = |what: &str, listed: &Listed| {
        let more = listed.count.saturating_sub(listed.first.len() as u64);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (listed.count > 0).then(|| format!("{what} {}{more}", listed.first.join(", ")))
    };
    let changes = [
        listed("added", &difference.added),
        listed("removed", &difference.removed),
        listed("changed", &difference.changed),
        listed("files", &difference.files),
    ];
    let changes: Vec<_> = changes.into_iter().flatten().collect();
    let mut lines = vec![Line::from(vec![
        theme.text(Tone::Quiet, format!("  {} ", reload.at)),
        theme.text(tone, format!("{} by {}", reload.outcome, reload.trigger)),
        theme.text(Tone::Plain, format!(", generation {}", reload.generation)),
    ])];
    if !changes.is_empty() {
        lines.push(Line::from(format!("    {}", changes.join("; "))));
    }
    let problems = reload.problems.iter().flat_map(|problem| problem.lines());
    lines.extend(problems.map(|problem| theme.line(Tone::Bad, format!("    {problem}"))));
    lines
}

fn expiries(certificates: &Certificates, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = vec![theme.line(Tone::Strong, "certificates")];
    if certificates.certificates.is_empty() {
        lines.push(theme.line(Tone::Quiet, "  no listener has TLS"));
    }
    for certificate in &certificates.certificates {
        let (tone, word) = match certificate.days_left {
            over if over < 0.0 => (Tone::Loud, "EXPIRED"),
            _ if certificate.soon => (Tone::Warn, "soon"),
            _ => (Tone::Good, ""),
        };
        lines.push(Line::from(vec![
            theme.text(Tone::Plain, format!("  {} {} ", fit(&certificate.listener, 12), certificate.name)),
            theme.text(tone, format!("{} days left {word}", certificate.days_left)),
            theme.text(Tone::Quiet, format!(" until {}", certificate.expires)),
        ]));
    }
    lines
}
