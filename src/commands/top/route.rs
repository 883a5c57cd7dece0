//! One route, opened: its figures, its last hour as small charts, and its recent failed traces.

use ratatui::text::Line;

use super::data::Row;
use super::model::{OpenRoute, Span, named};
use super::paint::{Theme, Tone};
use super::routes::why;
use super::traces;
use super::words::{self, NOTHING, fit, fit_right, perhaps};

/// What is above the failed traces.
pub(super) fn head(row: Option<&Row>, route: &OpenRoute, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let mut lines = match row {
        Some(row) => why(row, theme),
        None => vec![theme.line(Tone::Strong, format!("{}: it is no longer configured", named(&route.name)))],
    };
    if let Some(row) = row {
        lines.push(Line::default());
        lines.extend(figures(row, theme));
    }
    lines.push(Line::default());
    lines.extend(charts(route, theme, width));
    lines
}

fn figures(row: &Row, theme: Theme) -> Vec<Line<'static>> {
    let titles =
        ["requests", "rate/s", "errors", "p50", "p95", "p99"].map(|title| fit_right(title, 10)).concat();
    let mut lines = vec![theme.line(Tone::Quiet, format!("{}{titles}", fit("last", 6)))];
    for span in Span::ALL {
        let cells = span.of(row).map_or_else(
            || [NOTHING; 6].map(str::to_owned),
            |window| {
                [
                    words::count(window.requests),
                    words::rate(window.rate),
                    words::share(window.error_ratio),
                    perhaps(window.p50_ms),
                    perhaps(window.p95_ms),
                    perhaps(window.p99_ms),
                ]
            },
        );
        let cells = cells.map(|cell| fit_right(&cell, 10)).concat();
        lines.push(Line::from(format!("{}{cells}", fit(span.title(), 6))));
    }
    if let Some(window) = Span::Hour.of(row).filter(|window| !window.reasons.is_empty()) {
        let mut reasons: Vec<_> = window.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let reasons: Vec<_> =
            reasons.iter().map(|(reason, count)| format!("{reason} {}", words::count(**count))).collect();
        lines.push(Line::from(format!("of the hour: {}", reasons.join(", "))));
    }
    if !row.phases.is_empty() {
        let mut phases: Vec<_> = row.phases.iter().filter(|(_, share)| **share >= 0.005).collect();
        phases.sort_by(|one, other| other.1.total_cmp(one.1));
        let phases: Vec<_> =
            phases.iter().map(|(phase, share)| format!("{phase} {}", words::share(**share))).collect();
        lines.push(Line::from(format!("time goes to: {}", phases.join(", "))));
    }
    lines
}

fn charts(route: &OpenRoute, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let Some(charts) = &route.charts else {
        return vec![theme.line(Tone::Quiet, "asking for the last hour …")];
    };
    let Some(points) = &charts.minutes else {
        return vec![theme.line(Tone::Quiet, "no request in the last hour")];
    };
    let room = width.saturating_sub(LABEL + 11).clamp(1, 60);
    let counts = |counts: &[u64]| counts.iter().map(|count| Some(precise(*count))).collect::<Vec<_>>();
    let line = |label: &str, points: &[Option<f64>], tone, shown: &dyn Fn(f64) -> String| {
        let last = &points[points.len().saturating_sub(room)..];
        let most = last.iter().flatten().copied().fold(0.0, f64::max);
        let tone = if most > 0.0 { tone } else { Tone::Quiet };
        Line::from(vec![
            theme.text(Tone::Quiet, fit(label, LABEL)),
            theme.text(tone, format!("{:>room$}", sparkline(last, most))),
            theme.text(Tone::Quiet, format!(" most {}", shown(most))),
        ])
    };
    // the API never has more than a minute's requests here: exact in floating point
    let number = |figure: f64| format!("{figure:.0}");
    vec![
        theme.line(
            Tone::Quiet,
            format!("the last {}, by the minute, now at the right", words::of(room as u64, "minute")),
        ),
        line("requests", &counts(&points.requests), Tone::Good, &number),
        line("errors", &counts(&points.errors), Tone::Bad, &number),
        line("p95", &points.p95_ms, Tone::Warn, &words::duration),
    ]
}

fn precise(count: u64) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

/// Bars from nothing to the most; a gap where there is no figure, and something for all that is not nothing.
fn sparkline(points: &[Option<f64>], most: f64) -> String {
    let bar = |point: &Option<f64>| match point {
        Some(figure) if *figure > 0.0 => {
            let place = BARS.iter().enumerate().find(|(place, _)| {
                let top = precise(*place as u64 + 1) / precise(BARS.len() as u64);
                *figure <= most * top
            });
            *place.map_or(&BARS[BARS.len() - 1], |(_, bar)| bar)
        }
        Some(_) => '_',
        None => ' ',
    };
    points.iter().map(bar).collect()
}

/// The title of the failed traces, and a line for each.
pub(super) fn failed(route: &OpenRoute, theme: Theme, width: usize) -> (Line<'static>, Vec<Line<'static>>) {
    match &route.failed {
        None => (theme.line(Tone::Quiet, "asking for its failed traces …"), Vec::new()),
        Some(failed) if failed.is_empty() => {
            (theme.line(Tone::Quiet, "none of its recent traces has failed"), Vec::new())
        }
        Some(failed) => {
            let title =
                format!("its last {}; Enter opens one", words::of(failed.len() as u64, "failed trace"));
            let lines = failed.iter().map(|trace| traces::line(trace, theme, width));
            (theme.line(Tone::Quiet, title), lines.collect())
        }
    }
}

const LABEL: usize = 9;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[cfg(test)]
mod tests {
    use super::sparkline;

    #[test]
    fn bars_reach_from_nothing_to_the_most() {
        let points = [None, Some(0.0), Some(0.001), Some(1.0), Some(4.0), Some(8.0)];
        assert_eq!(sparkline(&points, 8.0), " _▁▁▄█");
        assert_eq!(sparkline(&[], 0.0), "");
    }
}
