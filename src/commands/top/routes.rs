//! The routes as lines: figures of each, and what is the matter with the one that is stood on.

use ratatui::text::{Line, Span};

use super::data::Row;
use super::model::{Column, Model, named};
use super::paint::{Theme, Tone, sign};
use super::words::{self, NOTHING, fit, fit_right, perhaps};

/// Widths of the columns, but for the name's.
struct Widths {
    name: usize,
    quantiles: bool,
    phase: bool,
    reason: usize,
}

impl Widths {
    fn new(width: usize, longest: usize) -> Self {
        let (quantiles, phase) = (width >= 76, width >= 66);
        let figures = 2 + FIGURE + FIGURE + FIGURE + if quantiles { 2 * FIGURE } else { 0 };
        let left = width.saturating_sub(figures + if phase { PHASE } else { 0 });
        let reason = if left >= 24 { (left / 2).min(REASON) } else { 0 };
        let name = left.saturating_sub(reason + 1).min(longest.max(12));
        let reason = if reason > 0 { left.saturating_sub(name + 1).min(REASON) } else { 0 };
        Self { name, quantiles, phase, reason }
    }
}

/// The title of the table, and a line for each route.
pub(super) fn list(model: &Model, theme: Theme, width: usize) -> (Line<'static>, Vec<Line<'static>>) {
    let rows = model.rows();
    let longest = rows.iter().map(|row| named(&row.name).chars().count()).max().unwrap_or_default();
    let widths = Widths::new(width, longest);
    let title = title(model, theme, &widths);
    (title, rows.iter().map(|row| line(model, theme, &widths, row)).collect())
}

fn title(model: &Model, theme: Theme, widths: &Widths) -> Line<'static> {
    let column = |column: Column, text: String| {
        let tone = if column == model.sort.column { Tone::Strong } else { Tone::Quiet };
        theme.text(tone, text)
    };
    let figure = |of: Column| column(of, fit_right(of.title(), FIGURE));
    let mut spans = vec![Span::raw("  "), column(Column::Name, fit(Column::Name.title(), widths.name))];
    spans.extend([figure(Column::Rate), figure(Column::Errors)]);
    if widths.quantiles {
        spans.push(figure(Column::P50));
    }
    spans.push(figure(Column::P95));
    if widths.quantiles {
        spans.push(figure(Column::P99));
    }
    if widths.reason > 0 {
        spans.push(theme.text(Tone::Quiet, format!(" {}", fit("REASON", widths.reason))));
    }
    if widths.phase {
        spans.push(theme.text(Tone::Quiet, format!(" {}", fit("PHASE", PHASE - 1))));
    }
    Line::from(spans)
}

fn line(model: &Model, theme: Theme, widths: &Widths, row: &Row) -> Line<'static> {
    let (mark, tone) = sign(row.trouble.level);
    let window = model.span.of(row);
    let figure = |text: Option<String>| fit_right(&text.unwrap_or_else(|| NOTHING.to_owned()), FIGURE);
    let quantile = |of: Option<f64>| fit_right(&perhaps(of), FIGURE);
    let errors = window.map_or(0.0, |window| window.error_ratio);
    let plain = if window.is_some() { Tone::Plain } else { Tone::Quiet };
    let error_tone = if errors > 0.0 { Tone::Bad } else { plain };
    let mut spans = vec![
        theme.text(tone, format!("{mark} ")),
        theme.text(tone, fit(named(&row.name), widths.name)),
        theme.text(plain, figure(window.map(|window| words::rate(window.rate)))),
        theme.text(error_tone, figure(window.map(|window| words::share(window.error_ratio)))),
    ];
    if widths.quantiles {
        spans.push(theme.text(plain, quantile(window.and_then(|window| window.p50_ms))));
    }
    spans.push(theme.text(plain, quantile(window.and_then(|window| window.p95_ms))));
    if widths.quantiles {
        spans.push(theme.text(plain, quantile(window.and_then(|window| window.p99_ms))));
    }
    let reason = row.trouble.reason.as_deref().unwrap_or_default();
    if widths.reason > 0 {
        spans.push(theme.text(tone, format!(" {}", fit(reason, widths.reason))));
    }
    if widths.phase {
        let phase = row.trouble.phase.as_deref().unwrap_or_default();
        spans.push(theme.text(plain, format!(" {}", fit(phase, PHASE - 1))));
    }
    Line::from(spans)
}

/// What is the matter with a route, in words.
pub(super) fn why(row: &Row, theme: Theme) -> Vec<Line<'static>> {
    let (_, tone) = sign(row.trouble.level);
    let mut first = vec![theme.text(Tone::Strong, format!("{}: ", named(&row.name)))];
    first.push(theme.text(tone, row.trouble.why.clone()));
    let mut second = String::new();
    if !row.template.is_empty() {
        let methods = if row.methods.is_empty() { "any method".to_owned() } else { row.methods.join(" ") };
        second = format!("{methods} {}", row.template);
    }
    if !row.upstreams.is_empty() {
        second = format!("{second} to {}", row.upstreams.join(", "));
    }
    if let Some(example) = &row.example {
        second = format!("{second}; for example trace {}", example.trace_id);
    }
    vec![Line::from(first), theme.line(Tone::Quiet, second)]
}

const FIGURE: usize = 7;
const PHASE: usize = 10;
/// The longest reason is `upstream_protocol_error`.
const REASON: usize = 23;
