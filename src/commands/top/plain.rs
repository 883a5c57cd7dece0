//! The same as text, once: for scripts, pipes and screen readers.

use ratatui::text::Line;

use super::data::Summary;
use super::model::{Model, Span};
use super::paint::{Theme, Tone};
use super::{routes, telemetry, traces, upstreams};

/// All views below each other, without colours.
pub(super) fn text(model: &Model, failed: &[Summary]) -> String {
    let theme = Theme { colour: false };
    let mut lines: Vec<Line<'static>> = Vec::new();
    let section = |lines: &mut Vec<Line<'static>>, title: String| {
        if !lines.is_empty() {
            lines.push(Line::default());
        }
        lines.push(theme.line(Tone::Strong, title));
    };
    section(&mut lines, format!("ROUTES (of the last {}, trouble first)", Span::default().title()));
    let (title, listed) = routes::list(model, theme, WIDTH);
    lines.push(title);
    lines.extend(listed);
    for row in model.rows() {
        lines.extend(routes::why(row, theme).into_iter().take(1));
    }
    if let Some(known) = &model.data.upstreams {
        section(&mut lines, "UPSTREAMS".to_owned());
        lines.extend(upstreams::lines(known, theme));
    }
    section(&mut lines, "TRACES THAT FAILED (the newest first)".to_owned());
    if failed.is_empty() {
        lines.push(Line::from("none of those that are kept"));
    } else {
        lines.push(traces::title(theme, WIDTH));
        lines.extend(failed.iter().map(|trace| traces::line(trace, theme, WIDTH)));
    }
    section(&mut lines, "TELEMETRY".to_owned());
    lines.extend(telemetry::lines(&model.data, theme));
    lines.iter().map(|line| plain(&line.to_string()) + "\n").collect()
}

/// Without what a terminal would obey.
fn plain(line: &str) -> String {
    let shown = |character: char| if character.is_control() { '?' } else { character };
    line.trim_end().chars().map(shown).collect()
}

/// Wide enough that nothing is cut off; what is short stays short.
const WIDTH: usize = 200;
