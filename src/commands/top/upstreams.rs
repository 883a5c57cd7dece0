//! The upstreams as lines: each endpoint with its state, health, load and what an operator wants of it.

use ratatui::text::Line;

use super::data::{Endpoint, Upstream, Upstreams};
use super::paint::{Theme, Tone};
use super::words::{self, fit, fit_right};

/// All upstreams.
pub(super) fn lines(upstreams: &Upstreams, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for upstream in &upstreams.upstreams {
        if !lines.is_empty() {
            lines.push(Line::default());
        }
        lines.extend(one(upstream, theme));
    }
    if lines.is_empty() {
        lines.push(theme.line(Tone::Quiet, "no upstream is configured"));
    }
    lines
}

/// How many upstreams need a look.
pub(super) fn troubled(upstreams: &Upstreams) -> usize {
    let troubled =
        |upstream: &&Upstream| upstream.panic || upstream.endpoints.iter().any(|it| !serves(&it.state));
    upstreams.upstreams.iter().filter(troubled).count()
}

fn serves(state: &str) -> bool {
    matches!(state, "usable" | "slow_start")
}

fn one(upstream: &Upstream, theme: Theme) -> Vec<Line<'static>> {
    let (all, usable) =
        (upstream.endpoints.len(), upstream.endpoints.iter().filter(|it| serves(&it.state)).count());
    let tone = match usable {
        0 => Tone::Bad,
        some if some < all => Tone::Warn,
        _ => Tone::Good,
    };
    let mut first = vec![
        theme.text(Tone::Strong, upstream.name.clone()),
        theme.text(tone, format!("  {usable} of {all} usable")),
    ];
    if upstream.panic {
        first.push(theme.text(Tone::Loud, " too few are usable: all are tried "));
    }
    let mut lines = vec![Line::from(first)];
    let names = upstream.endpoints.iter().map(|endpoint| endpoint.address.chars().count());
    let name = names.max().unwrap_or_default().clamp(14, 40);
    lines.push(theme.line(
        Tone::Quiet,
        format!(
            "  {}{}{}{}{}",
            fit("ENDPOINT", name),
            fit(" STATE", STATE),
            fit("HEALTH", HEALTH),
            fit_right("IN FLIGHT", FLIGHT),
            fit_right("WEIGHT", WEIGHT)
        ),
    ));
    lines.extend(upstream.endpoints.iter().map(|endpoint| line(endpoint, theme, name)));
    if !upstream.breaker.is_empty() {
        lines.push(breaker(upstream, theme));
    }
    lines
}

fn line(endpoint: &Endpoint, theme: Theme, name: usize) -> Line<'static> {
    let tone = match endpoint.state.as_str() {
        "usable" => Tone::Good,
        "slow_start" => Tone::Note,
        "out" => Tone::Warn,
        _ => Tone::Bad,
    };
    let seconds = |seconds: f64| words::duration(seconds * 1e3);
    let note = match (endpoint.in_use, endpoint.ejected_for_seconds, endpoint.returned_seconds_ago) {
        (false, ..) => "  by an operator".to_owned(),
        (_, Some(left), _) => format!("  back in {}", seconds(left)),
        (_, _, Some(since)) => format!("  back since {}", seconds(since)),
        _ => String::new(),
    };
    Line::from(vec![
        theme.text(Tone::Plain, format!("  {}", fit(&endpoint.address, name))),
        theme.text(tone, format!(" {}", fit(&endpoint.state, STATE - 1))),
        theme.text(Tone::Plain, fit(&endpoint.health, HEALTH)),
        theme.text(Tone::Plain, fit_right(&words::count(endpoint.in_flight), FLIGHT)),
        theme.text(Tone::Plain, fit_right(&endpoint.weight.to_string(), WEIGHT)),
        theme.text(Tone::Note, note),
    ])
}

fn breaker(upstream: &Upstream, theme: Theme) -> Line<'static> {
    let mut spans = vec![theme.text(Tone::Quiet, "  breaker ")];
    for (bound, level) in &upstream.breaker {
        let tone = match level.now {
            full if full >= level.most => Tone::Bad,
            much if much * 5 >= level.most * 4 => Tone::Warn,
            _ => Tone::Plain,
        };
        let open = if level.now >= level.most { " OPEN" } else { "" };
        let now = format!(" {bound} {} of {}{open}", words::count(level.now), words::count(level.most));
        spans.push(theme.text(tone, now));
        if level.refused > 0 {
            spans.push(theme.text(Tone::Warn, format!(" ({} refused)", words::count(level.refused))));
        }
    }
    Line::from(spans)
}

const STATE: usize = 12;
const HEALTH: usize = 10;
const FLIGHT: usize = 10;
const WEIGHT: usize = 8;
