//! What is known and what is looked at: news and keys change it, `draw` shows it. No clock, no terminal, no network.

use std::collections::VecDeque;
use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde::de::DeserializeOwned;

use super::data::{
    Certificates, Charts, Hello, Lagged, Reloads, Routes, Row, Summary, Telemetry, Trace, Traces, Upstreams,
    Window,
};
use super::events::Event;

/// Everything that is shown.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) connection: Connection,
    pub(super) version: String,
    pub(super) view: View,
    /// What is shown.
    pub(super) data: Data,
    /// While paused: what has come since, and how many events that were.
    pub(super) held: Option<(Data, u64)>,
    pub(super) sort: Sort,
    pub(super) span: Span,
    /// Only what has this text is listed.
    pub(super) filter: String,
    /// Whether keys go to the filter.
    pub(super) typing: bool,
    pub(super) help: bool,
    /// The route that the routes view stands on; the first one if there is none of this name.
    pub(super) at_route: Option<String>,
    /// The trace that the traces view stands on; the newest if there is none of this number.
    pub(super) at_trace: Option<u64>,
    /// How far the views without a selection are scrolled, in lines.
    pub(super) scroll: usize,
    pub(super) route: Option<OpenRoute>,
    pub(super) trace: Option<OpenTrace>,
    /// Something to be told once.
    pub(super) notice: Option<String>,
}

/// What came from the gateway.
#[derive(Debug, Clone, Default)]
pub(super) struct Data {
    pub(super) routes: Option<Routes>,
    pub(super) upstreams: Option<Upstreams>,
    pub(super) telemetry: Option<Telemetry>,
    pub(super) reloads: Option<Reloads>,
    pub(super) certificates: Option<Certificates>,
    /// The newest first.
    pub(super) traces: VecDeque<Summary>,
    /// Traces that came faster than they were read.
    pub(super) missed: u64,
}

/// How we stand with the gateway.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Connection {
    #[default]
    Connecting,
    Live,
    Lost {
        why: String,
        again: Duration,
    },
}

/// One of the four views.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum View {
    #[default]
    Routes,
    Upstreams,
    Traces,
    Telemetry,
}

impl View {
    pub(super) const ALL: [Self; 4] = [Self::Routes, Self::Upstreams, Self::Traces, Self::Telemetry];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Routes => "routes",
            Self::Upstreams => "upstreams",
            Self::Traces => "traces",
            Self::Telemetry => "telemetry",
        }
    }

    fn step(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}

/// The stretch of time that the figures of routes are of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Span {
    Now,
    #[default]
    Recent,
    Hour,
}

impl Span {
    pub(super) const ALL: [Self; 3] = [Self::Now, Self::Recent, Self::Hour];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Now => "10 s",
            Self::Recent => "5 min",
            Self::Hour => "1 h",
        }
    }

    /// This row's figures; nothing if it had no request.
    pub(super) fn of(self, row: &Row) -> Option<&Window> {
        let window = match self {
            Self::Now => &row.now,
            Self::Recent => &row.recent,
            Self::Hour => &row.hour,
        };
        window.as_ref().filter(|window| window.requests > 0)
    }
}

/// What routes are sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) column: Column,
    pub(super) reverse: bool,
}

/// A column that routes can be sorted by; all but the name begin with the most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Column {
    /// As the gateway has them: what needs a look first.
    #[default]
    Trouble,
    Name,
    Rate,
    Errors,
    P50,
    P95,
    P99,
}

impl Column {
    pub(super) const ALL: [Self; 7] =
        [Self::Trouble, Self::Name, Self::Rate, Self::Errors, Self::P50, Self::P95, Self::P99];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Trouble => "trouble",
            Self::Name => "ROUTE",
            Self::Rate => "RATE/s",
            Self::Errors => "ERR",
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
        }
    }

    fn of_key(key: char) -> Option<Self> {
        Some(match key {
            't' => Self::Trouble,
            'n' => Self::Name,
            'a' => Self::Rate,
            'e' => Self::Errors,
            '5' => Self::P50,
            '6' => Self::P95,
            '7' => Self::P99,
            _ => return None,
        })
    }

    fn step(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}

/// A route that was opened.
#[derive(Debug, Default)]
pub(super) struct OpenRoute {
    pub(super) name: String,
    pub(super) charts: Option<Charts>,
    /// Its recent failed traces, the newest first.
    pub(super) failed: Option<Vec<Summary>>,
    pub(super) at: usize,
    /// Since when its charts were asked for, in events of five seconds.
    age: u32,
}

/// A trace that was opened.
#[derive(Debug, Default)]
pub(super) struct OpenTrace {
    pub(super) trace_id: String,
    pub(super) trace: Option<Trace>,
    pub(super) scroll: usize,
}

/// What happens outside.
#[derive(Debug)]
pub(super) enum News {
    Connected,
    Lost {
        why: String,
        again: Duration,
    },
    /// There is no use in going on.
    Forbidden(String),
    Event(Event),
    Answer(Answer),
}

/// What was asked for.
#[derive(Debug)]
pub(super) enum Answer {
    Charts {
        route: String,
        charts: Charts,
    },
    Failed {
        route: String,
        traces: Traces,
    },
    Trace {
        trace_id: String,
        trace: Trace,
    },
    Past(Traces),
    Certificates(Certificates),
    /// Something that cannot be had, and why.
    Nothing {
        what: Ask,
        why: String,
    },
}

/// What the model wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// The charts of a route.
    Charts(String),
    /// The recent failed traces of a route.
    Failed(String),
    /// A trace with its attempts.
    Trace(String),
    /// Traces from before the stream began.
    Past,
    Certificates,
}

/// What is to be done after a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then {
    Ask(Vec<Ask>),
    /// The end, and why if nobody wanted it.
    End(Option<String>),
}

impl Then {
    fn nothing() -> Self {
        Self::Ask(Vec::new())
    }
}

impl Model {
    /// Something has happened.
    pub(super) fn learn(&mut self, news: News) -> Then {
        match news {
            News::Connected => {
                self.connection = Connection::Live;
                // another process may count from one again
                self.newest().traces.clear();
                return Then::Ask(vec![Ask::Past, Ask::Certificates]);
            }
            News::Lost { why, again } => self.connection = Connection::Lost { why, again },
            News::Forbidden(why) => return Then::End(Some(why)),
            News::Event(event) => return Then::Ask(self.event(&event)),
            News::Answer(answer) => self.answer(answer),
        }
        Then::nothing()
    }

    /// What is to be brought up to date: what is shown or, while paused, what will be.
    fn newest(&mut self) -> &mut Data {
        match &mut self.held {
            Some((data, count)) => {
                *count += 1;
                data
            }
            None => &mut self.data,
        }
    }

    fn event(&mut self, event: &Event) -> Vec<Ask> {
        match event.name.as_str() {
            "hello" => {
                if let Some(Hello { version }) = self.read(event) {
                    self.version = version;
                }
            }
            "routes" => {
                if let Some(routes) = self.read(event) {
                    self.newest().routes = Some(routes);
                }
                return self.renew();
            }
            "upstreams" => {
                if let Some(upstreams) = self.read(event) {
                    self.newest().upstreams = Some(upstreams);
                }
            }
            "telemetry" => {
                if let Some(telemetry) = self.read(event) {
                    self.newest().telemetry = Some(telemetry);
                }
            }
            "reloads" => {
                if let Some(reloads) = self.read(event) {
                    self.newest().reloads = Some(reloads);
                }
            }
            "trace" => {
                if let Some(trace) = self.read(event) {
                    self.newest().keep(trace);
                }
            }
            "lagged" => {
                if let Some(Lagged { missed }) = self.read(event) {
                    self.newest().missed += missed;
                }
            }
            // of a newer gateway
            _ => {}
        }
        Vec::new()
    }

    fn read<T: DeserializeOwned>(&mut self, event: &Event) -> Option<T> {
        match serde_json::from_str(&event.data) {
            Ok(value) => Some(value),
            Err(error) => {
                self.notice =
                    Some(format!("what the gateway says of {} cannot be read: {error}", event.name));
                None
            }
        }
    }

    /// The charts of an open route move on by the minute.
    fn renew(&mut self) -> Vec<Ask> {
        let Some(route) = self.route.as_mut().filter(|_| self.held.is_none()) else { return Vec::new() };
        route.age += 1;
        if route.age < RENEW_AFTER {
            return Vec::new();
        }
        route.age = 0;
        vec![Ask::Charts(route.name.clone()), Ask::Failed(route.name.clone())]
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Charts { route: name, charts } => {
                if let Some(route) = self.route.as_mut().filter(|route| route.name == name) {
                    route.charts = Some(charts);
                }
            }
            Answer::Failed { route: name, traces } => {
                if let Some(route) = self.route.as_mut().filter(|route| route.name == name) {
                    route.at = route.at.min(traces.traces.len().saturating_sub(1));
                    route.failed = Some(traces.traces);
                }
            }
            Answer::Trace { trace_id, trace } => {
                if let Some(open) = self.trace.as_mut().filter(|open| open.trace_id == trace_id) {
                    open.trace = Some(trace);
                }
            }
            Answer::Past(past) => {
                let data = self.newest();
                // the oldest first, as they would have come
                past.traces.into_iter().rev().for_each(|trace| data.keep(trace));
            }
            Answer::Certificates(certificates) => self.newest().certificates = Some(certificates),
            Answer::Nothing { what, why } => match what {
                // not for every role, and not for every gateway
                Ask::Certificates | Ask::Past => {}
                Ask::Charts(_) | Ask::Failed(_) => self.notice = Some(why),
                Ask::Trace(_) => {
                    self.trace = None;
                    self.notice = Some(format!("the trace cannot be shown: {why}"));
                }
            },
        }
    }

    /// What is shown has only so many lines to scroll by.
    pub(super) fn bound_scroll(&mut self, most: usize) {
        let scroll = self.trace.as_mut().map_or(&mut self.scroll, |trace| &mut trace.scroll);
        *scroll = (*scroll).min(most);
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: KeyEvent) -> Then {
        self.notice = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Then::End(None) } else { Then::nothing() };
        }
        if self.typing {
            self.type_key(key.code);
            return Then::nothing();
        }
        if self.help {
            // any key closes it
            self.help = false;
            return Then::nothing();
        }
        match key.code {
            KeyCode::Char('q') => return Then::End(None),
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('p') => self.pause(),
            KeyCode::Char(digit @ '1'..='4') => self.show(View::ALL[digit as usize - '1' as usize]),
            KeyCode::Tab => self.show(self.view.step(1)),
            KeyCode::BackTab => self.show(self.view.step(View::ALL.len() - 1)),
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.back(),
            KeyCode::Enter | KeyCode::Right => return Then::Ask(self.open()),
            KeyCode::Down | KeyCode::Char('j') => self.walk(1),
            KeyCode::Up | KeyCode::Char('k') => self.walk(-1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.walk(PAGE),
            KeyCode::PageUp => self.walk(-PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.walk(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.walk(isize::MAX),
            KeyCode::Char('/') if self.is_list() => self.typing = true,
            KeyCode::Char(key) if self.view == View::Routes && self.trace.is_none() => self.arrange(key),
            _ => {}
        }
        Then::nothing()
    }

    fn type_key(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(key) if self.filter.len() < LONGEST_FILTER => self.filter.push(key),
            _ => {}
        }
    }

    fn arrange(&mut self, key: char) {
        let (column, reverse) = (self.sort.column, self.sort.reverse);
        self.sort = match key {
            '>' | '.' => Sort { column: column.step(1), reverse: false },
            '<' | ',' => Sort { column: column.step(Column::ALL.len() - 1), reverse: false },
            'r' => Sort { column, reverse: !reverse },
            'w' => {
                self.span = Span::ALL[(self.span as usize + 1) % Span::ALL.len()];
                return;
            }
            key => match Column::of_key(key) {
                // once more turns it round
                Some(same) if same == column => Sort { column, reverse: !reverse },
                Some(column) => Sort { column, reverse: false },
                None => return,
            },
        };
        // the top of the new order is what was asked for
        self.at_route = None;
    }

    fn show(&mut self, view: View) {
        (self.view, self.scroll) = (view, 0);
        (self.route, self.trace) = (None, None);
    }

    fn pause(&mut self) {
        match self.held.take() {
            Some((data, _)) => self.data = data,
            None => self.held = Some((self.data.clone(), 0)),
        }
    }

    fn back(&mut self) {
        if self.trace.take().is_none() && self.route.take().is_none() {
            self.filter.clear();
        }
    }

    /// Whether what is seen is one of the lists that can be filtered.
    fn is_list(&self) -> bool {
        matches!(self.view, View::Routes | View::Traces) && self.route.is_none() && self.trace.is_none()
    }

    fn open(&mut self) -> Vec<Ask> {
        if self.trace.is_some() {
            return Vec::new();
        }
        let trace_id = match (&self.route, self.view) {
            (Some(route), _) => route.failed.as_ref().and_then(|failed| failed.get(route.at)),
            (None, View::Traces) => self.traces().get(self.trace_index()).copied(),
            (None, View::Routes) => {
                let Some(name) = self.rows().get(self.route_index()).map(|row| row.name.clone()) else {
                    return Vec::new();
                };
                self.route = Some(OpenRoute { name: name.clone(), ..OpenRoute::default() });
                return vec![Ask::Charts(name.clone()), Ask::Failed(name)];
            }
            (None, View::Upstreams | View::Telemetry) => None,
        };
        let Some(trace_id) = trace_id.map(|trace| trace.trace_id.clone()) else { return Vec::new() };
        self.trace = Some(OpenTrace { trace_id: trace_id.clone(), ..OpenTrace::default() });
        vec![Ask::Trace(trace_id)]
    }

    fn walk(&mut self, by: isize) {
        let moved = |at: usize, count: usize| at.saturating_add_signed(by).min(count.saturating_sub(1));
        if let Some(trace) = &mut self.trace {
            trace.scroll = moved(trace.scroll, MOST_LINES);
        } else if let Some(route) = &mut self.route {
            route.at = moved(route.at, route.failed.as_ref().map_or(0, Vec::len));
        } else {
            match self.view {
                View::Routes => {
                    let rows = self.rows();
                    let at = moved(self.route_index(), rows.len());
                    self.at_route = rows.get(at).map(|row| row.name.clone());
                }
                View::Traces => {
                    let traces = self.traces();
                    let at = moved(self.trace_index(), traces.len());
                    // at the top it stays with the newest
                    self.at_trace = traces.get(at).filter(|_| at > 0).map(|trace| trace.number);
                }
                View::Upstreams | View::Telemetry => self.scroll = moved(self.scroll, MOST_LINES),
            }
        }
    }

    /// The routes that are listed, in order.
    pub(super) fn rows(&self) -> Vec<&Row> {
        let all = self.data.routes.iter().flat_map(|routes| &routes.routes);
        let has = |text: &str| contains(text, &self.filter);
        let wanted = |row: &&Row| {
            has(named(&row.name))
                || has(&row.template)
                || row.upstreams.iter().any(|upstream| has(upstream))
                || row.operation.as_deref().is_some_and(has)
                || row.trouble.reason.as_deref().is_some_and(has)
        };
        let mut rows: Vec<&Row> = all.filter(wanted).collect();
        let figure = |row: &Row| {
            let window = self.span.of(row);
            let figure = match self.sort.column {
                Column::Trouble | Column::Name => None,
                Column::Rate => window.map(|window| window.rate),
                Column::Errors => window.map(|window| window.error_ratio),
                Column::P50 => window.and_then(|window| window.p50_ms),
                Column::P95 => window.and_then(|window| window.p95_ms),
                Column::P99 => window.and_then(|window| window.p99_ms),
            };
            figure.unwrap_or(-1.0)
        };
        match self.sort.column {
            Column::Trouble => {}
            Column::Name => rows.sort_by(|one, other| one.name.cmp(&other.name)),
            _ => rows.sort_by(|one, other| figure(other).total_cmp(&figure(one))),
        }
        if self.sort.reverse {
            rows.reverse();
        }
        rows
    }

    /// Where in [`Self::rows`] the routes view stands.
    pub(super) fn route_index(&self) -> usize {
        let name = self.at_route.as_ref();
        name.and_then(|name| self.rows().iter().position(|row| row.name == *name)).unwrap_or(0)
    }

    /// The traces that are listed, the newest first.
    pub(super) fn traces(&self) -> Vec<&Summary> {
        let has = |text: &str| contains(text, &self.filter);
        let wanted = |trace: &&Summary| {
            has(trace.route.as_deref().unwrap_or(NO_ROUTE))
                || has(&trace.trace_id)
                || has(&trace.method)
                || trace.template.as_deref().is_some_and(has)
                || trace.reason.as_deref().is_some_and(has)
                || trace.endpoint.as_deref().is_some_and(has)
                || trace.status.is_some_and(|status| has(&status.to_string()))
                || trace.attributes.values().any(|value| has(value))
        };
        self.data.traces.iter().filter(wanted).collect()
    }

    /// Where in [`Self::traces`] the traces view stands. If the trace is gone: where older ones begin.
    pub(super) fn trace_index(&self) -> usize {
        let Some(number) = self.at_trace else { return 0 };
        let traces = self.traces();
        let at = traces.iter().position(|trace| trace.number <= number);
        at.unwrap_or(traces.len().saturating_sub(1))
    }
}

impl Data {
    /// Keeps a trace as the newest, unless it is there already; the oldest gives way.
    fn keep(&mut self, trace: Summary) {
        let place = self.traces.iter().position(|kept| kept.number <= trace.number);
        match place {
            Some(place) if self.traces[place].number == trace.number => {}
            Some(place) => self.traces.insert(place, trace),
            None => self.traces.push_back(trace),
        }
        self.traces.truncate(MOST_TRACES);
    }
}

/// What a route is called; what found none has a name here, too.
pub(super) fn named(route: &str) -> &str {
    if route.is_empty() { NO_ROUTE } else { route }
}

fn contains(text: &str, part: &str) -> bool {
    part.is_empty() || text.to_lowercase().contains(&part.to_lowercase())
}

/// What requests that found no route are listed under.
pub(super) const NO_ROUTE: &str = "(no route)";
/// How many traces are kept here.
pub(super) const MOST_TRACES: usize = 500;
/// Nothing that is scrolled by lines has more.
const MOST_LINES: usize = 10_000;
const LONGEST_FILTER: usize = 64;
const PAGE: isize = 10;
/// How many events `routes` pass until the charts of an open route are asked for again.
const RENEW_AFTER: u32 = 12;
