//! Traces as lines, the newest first.

use ratatui::text::Line;

use super::data::Summary;
use super::model::NO_ROUTE;
use super::paint::{Theme, Tone, outcome};
use super::words::{self, fit, fit_right};

/// The title of the table.
pub(super) fn title(theme: Theme, width: usize) -> Line<'static> {
    let (route, rest) = widths(width);
    theme.line(
        Tone::Quiet,
        format!(
            "{}{}{}{}  {}",
            fit("TIME", CLOCK),
            fit("STATUS", STATUS),
            fit_right("TOOK", TOOK),
            fit("  ROUTE", route + 2),
            fit("WHAT HAPPENED", rest)
        ),
    )
}

/// A trace.
pub(super) fn line(trace: &Summary, theme: Theme, width: usize) -> Line<'static> {
    let (route, rest) = widths(width);
    let tone = outcome(trace.status, trace.blame.as_deref());
    let status = trace.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
    Line::from(vec![
        theme.text(Tone::Quiet, fit(words::clock(&trace.time), CLOCK)),
        theme.text(tone, fit(&status, STATUS)),
        theme.text(Tone::Plain, fit_right(&words::duration(trace.duration_ms), TOOK)),
        theme.text(Tone::Plain, format!("  {}", fit(trace.route.as_deref().unwrap_or(NO_ROUTE), route))),
        theme.text(tone, format!("  {}", fit(&happened(trace, rest), rest))),
    ])
}

/// In a few words: why it failed, how often it was tried, which order it was about, where its time went.
fn happened(trace: &Summary, width: usize) -> String {
    let mut words: Vec<String> = Vec::new();
    if let Some(reason) = &trace.reason {
        words.push(reason.clone());
    }
    if let Some(detail) = &trace.detail {
        words.push(format!("({detail})"));
    }
    words.extend(trace.attributes.iter().map(|(name, value)| format!("{name}={value}")));
    if trace.attempts > 1 {
        words.push(format!("{} attempts", trace.attempts));
    }
    if let Some(phase) = trace.dominant.as_ref().filter(|_| trace.reason.is_none()) {
        words.push(format!("most in {phase}"));
    }
    let words = words.join(" ");
    // a part of it would help nobody
    let with_id = format!("{words} {}", trace.trace_id);
    if with_id.chars().count() <= width { with_id.trim_start().to_owned() } else { words }
}

fn widths(width: usize) -> (usize, usize) {
    let left = width.saturating_sub(CLOCK + STATUS + TOOK + 4);
    let route = (left / 3).clamp(8, 24);
    (route, left.saturating_sub(route))
}

const CLOCK: usize = 10;
const STATUS: usize = 7;
const TOOK: usize = 7;
