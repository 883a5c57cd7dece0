//! Draws the model on a terminal of whatever size.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Clear, Paragraph, Wrap};

use super::model::{Column, Connection, Model, View};
use super::paint::{Theme, Tone, chosen};
use super::{route, routes, telemetry, trace, traces, upstreams, words};

/// Draws all of it. Gives how far what is shown can be scrolled.
pub(super) fn draw(frame: &mut Frame, model: &Model, address: &str, theme: Theme) -> usize {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text =
            format!("tracegate top needs {}×{}; this is {}×{}", LEAST.0, LEAST.1, area.width, area.height);
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return 0;
    }
    let banners = banners(model, theme);
    let heights = [2, u16::try_from(banners.len()).unwrap_or(0)].map(Constraint::Length);
    let [head, loud, body, foot] =
        Layout::vertical([heights[0], heights[1], Constraint::Min(1), Constraint::Length(1)]).areas(area);
    frame.render_widget(Paragraph::new(vec![header(model, address, theme), tabs(model, theme)]), head);
    frame.render_widget(Paragraph::new(banners), loud);
    let most = if model.help { help(frame, body, theme) } else { view(frame, body, model, theme) };
    frame.render_widget(Paragraph::new(footer(model, theme)), foot);
    most
}

fn header(model: &Model, address: &str, theme: Theme) -> Line<'static> {
    let (tone, state) = match &model.connection {
        Connection::Connecting => (Tone::Note, "connecting"),
        Connection::Live => (Tone::Good, "live"),
        Connection::Lost { .. } => (Tone::Bad, "not connected"),
    };
    let mut spans = vec![
        theme.text(Tone::Strong, format!("tracegate {}", model.version)),
        theme.text(tone, format!("  {state}")),
    ];
    if let Some((_, count)) = &model.held {
        spans.push(
            theme.text(Tone::Warn, format!("  PAUSED, {} since; p goes on", words::of(*count, "event"))),
        );
    }
    if !model.filter.is_empty() {
        spans.push(theme.text(Tone::Note, format!("  only \"{}\"", model.filter)));
    }
    // last, because it is the least of what may be cut off
    spans.push(theme.text(Tone::Quiet, format!("  {address}")));
    Line::from(spans)
}

fn tabs(model: &Model, theme: Theme) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, view) in View::ALL.into_iter().enumerate() {
        let title = format!(" {} {} ", number + 1, view.title());
        spans.push(if view == model.view {
            ratatui::text::Span::styled(title, chosen())
        } else {
            theme.text(Tone::Quiet, title)
        });
        let troubled = match view {
            View::Upstreams => model.data.upstreams.as_ref().map_or(0, upstreams::troubled),
            View::Routes | View::Traces | View::Telemetry => 0,
        };
        if troubled > 0 {
            spans.push(theme.text(Tone::Bad, format!("!{troubled} ")));
        }
    }
    Line::from(spans)
}

/// What must be seen in every view.
fn banners(model: &Model, theme: Theme) -> Vec<Line<'static>> {
    let mut banners = Vec::new();
    if let Connection::Lost { why, again } = &model.connection {
        let seconds = again.as_secs_f64().ceil();
        banners.push(theme.line(Tone::Loud, format!(" {why}; trying again in {seconds} s ")));
    }
    if let Some(alarm) = model.data.telemetry.as_ref().and_then(telemetry::alarm) {
        banners.push(theme.line(Tone::Loud, format!(" {alarm} ")));
    }
    banners
}

fn view(frame: &mut Frame, area: Rect, model: &Model, theme: Theme) -> usize {
    let width = usize::from(area.width);
    if let Some(open) = &model.trace {
        return scrolled(frame, area, trace::lines(open, theme, width), open.scroll);
    }
    if let Some(open) = &model.route {
        let row =
            model.data.routes.iter().flat_map(|routes| &routes.routes).find(|row| row.name == open.name);
        let head = route::head(row, open, theme, width);
        let (title, lines) = route::failed(open, theme, width);
        // a few of the failed traces are always seen
        let most = area.height.saturating_sub(5);
        let height = u16::try_from(head.len() + 1).unwrap_or(u16::MAX).min(most);
        let [above, below] = Layout::vertical([Constraint::Length(height), Constraint::Min(2)]).areas(area);
        frame.render_widget(Paragraph::new(head), above);
        list(frame, below, title, lines, open.at);
        return 0;
    }
    match model.view {
        View::Routes => routes_view(frame, area, model, theme),
        View::Upstreams => match &model.data.upstreams {
            Some(known) => return scrolled(frame, area, upstreams::lines(known, theme), model.scroll),
            None => waiting(frame, area, theme),
        },
        View::Traces => traces_view(frame, area, model, theme),
        View::Telemetry if model.data.routes.is_none() => waiting(frame, area, theme),
        View::Telemetry => return scrolled(frame, area, telemetry::lines(&model.data, theme), model.scroll),
    }
    0
}

fn waiting(frame: &mut Frame, area: Rect, theme: Theme) {
    frame.render_widget(Paragraph::new(theme.line(Tone::Quiet, "waiting for the gateway …")), area);
}

fn routes_view(frame: &mut Frame, area: Rect, model: &Model, theme: Theme) {
    let Some(known) = &model.data.routes else { return waiting(frame, area, theme) };
    let rows = model.rows();
    let at = model.route_index();
    let why = rows.get(at).map(|row| routes::why(row, theme)).unwrap_or_default();
    let room = if area.height >= 8 { 4 } else { 0 };
    let [above, below] = Layout::vertical([Constraint::Min(2), Constraint::Length(room)]).areas(area);
    let (title, lines) = routes::list(model, theme, usize::from(area.width));
    if lines.is_empty() {
        let nothing =
            if model.filter.is_empty() { "no route is configured" } else { "no route has this text" };
        frame.render_widget(Paragraph::new(vec![title, theme.line(Tone::Quiet, nothing)]), above);
    } else {
        list(frame, above, title, lines, at);
    }
    let order = match (model.sort.column, model.sort.reverse) {
        (Column::Name, false) => "A first",
        (Column::Name, true) => "A last",
        (_, false) => "the most first",
        (_, true) => "the least first",
    };
    let order = match model.sort.column {
        Column::Trouble if !model.sort.reverse => "trouble first".to_owned(),
        column => format!("by {}, {order}", column.title().to_lowercase()),
    };
    let left_out = match known.left_out {
        0 => String::new(),
        some => format!("; the figures of {} are not kept", words::of(some, "route")),
    };
    let mut lines =
        vec![theme.line(Tone::Quiet, format!("of the last {}, {order}{left_out}", model.span.title()))];
    lines.extend(why);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }), below);
}

fn traces_view(frame: &mut Frame, area: Rect, model: &Model, theme: Theme) {
    let width = usize::from(area.width);
    let traces = model.traces();
    let lines: Vec<_> = traces.iter().map(|trace| traces::line(trace, theme, width)).collect();
    if lines.is_empty() {
        let nothing =
            if model.filter.is_empty() { "no trace has been kept yet" } else { "no trace has this text" };
        frame.render_widget(
            Paragraph::new(vec![traces::title(theme, width), theme.line(Tone::Quiet, nothing)]),
            area,
        );
        return;
    }
    let missed = model.data.missed;
    let [above, below] =
        Layout::vertical([Constraint::Min(2), Constraint::Length(u16::from(missed > 0))]).areas(area);
    list(frame, above, traces::title(theme, width), lines, model.trace_index());
    let told = format!("{} came too fast to be shown here", words::of(missed, "trace"));
    frame.render_widget(Paragraph::new(theme.line(Tone::Warn, told)), below);
}

/// A title, and below it the part of the lines around the one that is stood on.
fn list(frame: &mut Frame, area: Rect, title: Line<'static>, lines: Vec<Line<'static>>, at: usize) {
    let room = usize::from(area.height.saturating_sub(1)).max(1);
    // half a page ahead of where one goes
    let first = at.saturating_sub(room / 2).min(lines.len().saturating_sub(room));
    let shown = lines.into_iter().enumerate().skip(first).take(room);
    let marked = |(place, line): (usize, Line<'static>)| {
        if place == at { line.patch_style(chosen()) } else { line }
    };
    let text: Vec<_> = std::iter::once(title).chain(shown.map(marked)).collect();
    frame.render_widget(Paragraph::new(text), area);
}

/// Lines from this one on; gives the last one from which all of the rest is seen.
fn scrolled(frame: &mut Frame, area: Rect, lines: Vec<Line<'static>>, scroll: usize) -> usize {
    let most = lines.len().saturating_sub(usize::from(area.height));
    let rest: Vec<_> = lines.into_iter().skip(scroll.min(most)).collect();
    frame.render_widget(Paragraph::new(rest), area);
    most
}

fn footer(model: &Model, theme: Theme) -> Line<'static> {
    if model.typing {
        return theme.line(Tone::Note, format!("/{}_   Enter keeps it, Esc shows all", model.filter));
    }
    if let Some(notice) = &model.notice {
        return theme.line(Tone::Warn, notice.clone());
    }
    let keys = match (&model.trace, &model.route, model.view) {
        (Some(_), ..) => "Esc back  up/down scroll  ? help  q quit",
        (None, Some(_), _) => "Esc back  up/down choose  Enter trace  ? help  q quit",
        (_, _, View::Routes) => {
            "Enter open  < > sort  r reverse  w window  / filter  p pause  ? help  q quit"
        }
        (_, _, View::Traces) => "Enter open  / filter  p pause  Tab next view  ? help  q quit",
        (_, _, View::Upstreams | View::Telemetry) => "up/down scroll  p pause  Tab next view  ? help  q quit",
    };
    theme.line(Tone::Quiet, keys)
}

fn help(frame: &mut Frame, area: Rect, theme: Theme) -> usize {
    let lines = HELP.iter().map(|(keys, what)| {
        Line::from(vec![theme.text(Tone::Strong, words::fit(keys, 16)), theme.text(Tone::Plain, *what)])
    });
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines.collect::<Text>()), area);
    0
}

/// Columns and lines below which nothing useful can be seen.
const LEAST: (u16, u16) = (40, 10);

const HELP: [(&str, &str); 18] = [
    ("1 2 3 4, Tab", "routes, upstreams, traces, telemetry"),
    ("up down, j k", "move; PageUp PageDown Home End, g G"),
    ("Enter", "open what you stand on; Esc goes back"),
    ("/", "list only what has a text; Esc lists all"),
    ("p", "pause, and go on"),
    ("w", "figures of the last 10 s, 5 min, 1 h"),
    ("< >", "sort routes by the next column"),
    ("t n a e 5 6 7", "by trouble, name, rate, errors, p50, p95, p99"),
    ("r", "reverse the order"),
    ("q, Ctrl-C", "quit"),
    ("", ""),
    ("!", "failing: requests fail that should not"),
    ("~", "slow: much slower than it was, or may be"),
    ("x", "refusing: most clients are refused"),
    ("m", "in maintenance"),
    (".", "idle: no request in five minutes"),
    ("ERR", "share that failed by the gateway or upstream"),
    ("PHASE", "where most of the time goes"),
];
