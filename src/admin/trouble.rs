//! Which route needs a look first, and why: errors before slowness, each with its leading reason and the phase in which
//! the time goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::control::RouteFacts;
use crate::failure::{Blame, Reason};
use crate::telemetry::hour::{Figures, Window};
use crate::telemetry::recent::entry::{Kept, Summary};
use crate::telemetry::recent::filter::Filter;
use crate::telemetry::recent::phase::Times;

/// A route in the overview.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    #[serde(flatten)]
    facts: RouteFacts,
    /// What is the matter.
    trouble: Trouble,
    /// Figures of windows; nothing if it has had no request in the last hour.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    figures: Option<Figures>,
    /// Where the time of its kept exchanges of the last five minutes went, as shares from 0.0 to 1.0.
    phases: BTreeMap<&'static str, f64>,
    /// From how many exchanges that is known.
    phases_of: usize,
    /// An exchange that shows what is the matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    example: Option<Summary>,
}

impl Row {
    /// Which exchanges show what is the matter, if something is.
    pub(super) fn examples(&self) -> Option<Filter> {
        let route = Some(self.facts.name.clone());
        let reason = Reason::ALL.iter().find(|reason| Some(reason.word()) == self.trouble.reason).copied();
        match self.trouble.level {
            Level::Failing | Level::Refusing => {
                Some(Filter { route, reason, failed: true, ..Filter::default() })
            }
            Level::Slow => Some(Filter { route, kept: Some(Kept::Slow), ..Filter::default() }),
            Level::Maintenance | Level::Fine | Level::Idle => None,
        }
    }

    /// Shows this one.
    pub(super) fn show(&mut self, example: Summary) {
        self.example = Some(example);
    }
}

/// What is the matter with a route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Trouble {
    /// One word.
    pub(super) level: Level,
    /// The more, the sooner it needs a look.
    pub(super) score: f64,
    /// A sentence.
    pub(super) why: String,
    /// The reason that most of its failures have, whoever is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    /// The phase in which most of its time goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) phase: Option<&'static str>,
}

/// How much a route needs a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    /// Requests fail that should not.
    Failing,
    /// It is out of service because somebody wants it so.
    Maintenance,
    /// It is much slower than it was, or than it may be.
    Slow,
    /// Clients are refused more often than not.
    Refusing,
    /// Nothing is the matter.
    Fine,
    /// There has been no request in the last five minutes.
    Idle,
}

/// The rows of these routes, the one that needs a look first at the top.
pub(super) fn rank(
    routes: Vec<RouteFacts>,
    figures: &BTreeMap<Arc<str>, Figures>,
    times: &HashMap<Arc<str>, (Times, usize)>,
) -> Vec<Row> {
    let row = |facts: RouteFacts| {
        let figures = figures.get(&*facts.name).cloned();
        let (times, phases_of) = times.get(&*facts.name).copied().unwrap_or_default();
        let trouble = judge(&facts, figures.as_ref(), &times);
        let all: f64 = times.iter().map(|(_, time)| time.as_secs_f64()).sum();
        let share = |time: Duration| (time.as_secs_f64() / all * 1e3).round() / 1e3;
        let phases = times.iter().map(|(phase, time)| (phase.word(), share(time))).collect();
        Row { facts, trouble, figures, phases, phases_of, example: None }
    };
    let mut rows: Vec<Row> = routes.into_iter().map(row).collect();
    rows.sort_by(|one, other| {
        other.trouble.score.total_cmp(&one.trouble.score).then_with(|| one.facts.name.cmp(&other.facts.name))
    });
    rows
}

fn judge(facts: &RouteFacts, figures: Option<&Figures>, times: &Times) -> Trouble {
    let dominant = times.dominant();
    let phase = dominant.map(|(phase, _)| phase.word());
    let trouble = |level, score, why, reason| Trouble { level, score, why, reason, phase };
    let Some(Figures { recent, hour, .. }) = figures.filter(|figures| figures.recent.requests > 0) else {
        let (level, score) = if facts.maintenance { (Level::Maintenance, 700.0) } else { (Level::Idle, 0.0) };
        let why = match (facts.maintenance, figures) {
            (true, _) => "in maintenance",
            // its exchanges are known, and the series have not been read yet
            (false, None) if dominant.is_some() => "its first figures come in a moment",
            (false, _) => "no requests in the last five minutes",
        };
        return Trouble { level, score, why: why.to_owned(), reason: None, phase: None };
    };
    let (ours, theirs) = (leading(recent, false), leading(recent, true));
    if facts.maintenance {
        return trouble(
            Level::Maintenance,
            700.0,
            "in maintenance".to_owned(),
            ours.or(theirs).map(|it| it.0),
        );
    }
    if recent.errors >= FEW && recent.error_ratio >= MANY {
        let (reason, count) = ours.unwrap_or(("upstream_status", recent.errors));
        let why = format!(
            "{} of requests fail, {} of {} because of {reason}",
            percent(recent.error_ratio),
            count,
            recent.errors
        );
        return trouble(Level::Failing, 1000.0 + 1000.0 * recent.error_ratio, why, Some(reason));
    }
    let p95 = recent.p95_ms.unwrap_or(0.0);
    let over = facts.slow_after_ms.filter(|slow| p95 > *slow);
    let times_slower = hour.p95_ms.filter(|usual| *usual > 0.0).map_or(1.0, |usual| p95 / usual);
    let much = times_slower >= SLOWER && p95 >= NOTICED && recent.requests >= ENOUGH;
    if over.is_some() || much {
        let mut why = match over {
            Some(slow) => format!("p95 is {}, above slow_after {}", duration(p95), duration(slow)),
            None => format!("p95 is {}, {times_slower:.1}× that of the hour", duration(p95)),
        };
        if let Some((phase, share)) = dominant {
            why = format!("{why}; {} of the time is {}", percent(share), phase.word());
        }
        let excess = over.map_or(times_slower, |slow| (p95 / slow).max(times_slower));
        return trouble(Level::Slow, 500.0 + excess.min(100.0), why, ours.or(theirs).map(|it| it.0));
    }
    if let Some((reason, count)) = theirs
        && recent.requests >= ENOUGH
        && count * 2 > recent.requests
    {
        let why = format!("{count} of {} requests are refused: {reason}", recent.requests);
        return trouble(Level::Refusing, 200.0, why, Some(reason));
    }
    let why = match ours.or(theirs) {
        Some((reason, count)) => format!("{count} of {} requests: {reason}", recent.requests),
        None => "all requests succeed".to_owned(),
    };
    let score = 1.0 + 100.0 * recent.error_ratio + recent.rate.min(10.0) / 10.0;
    trouble(Level::Fine, score, why, ours.or(theirs).map(|it| it.0))
}

/// The reason that most have, of those with this side to blame.
fn leading(window: &Window, client: bool) -> Option<(&'static str, u64)> {
    let of = |(word, count): (&&'static str, &u64)| {
        let reason = Reason::ALL.iter().find(|reason| reason.word() == *word)?;
        ((reason.blame() == Blame::Client) == client).then_some((*word, *count))
    };
    window.reasons.iter().filter_map(of).max_by_key(|(_, count)| *count)
}

fn percent(share: f64) -> String {
    if share < 0.1 { format!("{:.1} %", share * 100.0) } else { format!("{:.0} %", share * 100.0) }
}

fn duration(milliseconds: f64) -> String {
    if milliseconds < 1000.0 {
        format!("{milliseconds:.0} ms")
    } else {
        format!("{:.2} s", milliseconds / 1e3)
    }
}

/// Fewer errors than this in five minutes are an accident, as is a smaller share.
const FEW: u64 = 2;
const MANY: f64 = 0.01;
/// So many times slower than in the whole hour is slow, if people notice it and there are enough requests to say so.
const SLOWER: f64 = 2.0;
const NOTICED: f64 = 50.0;
const ENOUGH: u64 = 10;

#[cfg(test)]
mod tests {
    use super::{Level, judge};
    use crate::admin::control::RouteFacts;
    use crate::telemetry::hour::{Figures, Window};
    use crate::telemetry::recent::phase::Times;

    fn facts(maintenance: bool, slow_after_ms: Option<f64>) -> RouteFacts {
        RouteFacts {
            name: "order_read".into(),
            template: "/orders/{id}".into(),
            methods: Vec::new(),
            upstreams: vec!["shop".into()],
            operation: None,
            maintenance,
            slow_after_ms,
        }
    }

    fn window(requests: u64, reasons: &[(&'static str, u64)], errors: u64, p95: f64) -> Window {
        let ratio = |part: u64| f64::from(u32::try_from(part).unwrap());
        Window {
            seconds: 300,
            requests,
            rate: ratio(requests) / 300.0,
            errors,
            error_ratio: if requests == 0 { 0.0 } else { ratio(errors) / ratio(requests) },
            reasons: reasons.iter().copied().collect(),
            p50_ms: None,
            p95_ms: Some(p95),
            p99_ms: None,
        }
    }

    #[test]
    fn a_route_is_judged_by_its_errors_then_by_its_slowness() {
        use Level::{Failing, Fine, Idle, Maintenance, Refusing, Slow};
        for (maintenance, slow_after, recent, usual, level, why) in [
            (false, None, window(0, &[], 0, 0.0), 10.0, Idle, "no requests"),
            (true, None, window(0, &[], 0, 0.0), 10.0, Maintenance, "in maintenance"),
            (false, None, window(100, &[], 0, 10.0), 10.0, Fine, "all requests succeed"),
            (false, None, window(1000, &[("upstream_reset", 1)], 1, 10.0), 10.0, Fine, "1 of 1000"),
            (
                false,
                None,
                window(100, &[("upstream_reset", 7), ("connect_refused", 3), ("no_route", 50)], 10, 10.0),
                10.0,
                Failing,
                "10 % of requests fail, 7 of 10 because of upstream_reset",
            ),
            (false, None, window(100, &[], 0, 400.0), 100.0, Slow, "p95 is 400 ms, 4.0×"),
            (false, Some(300.0), window(3, &[], 0, 1400.0), 1400.0, Slow, "above slow_after 300 ms"),
            (false, None, window(100, &[], 0, 4.0), 1.0, Fine, "succeed"),
            (false, None, window(20, &[("unauthenticated", 15)], 0, 4.0), 4.0, Refusing, "unauthenticated"),
        ] {
            let hour = window(1000, &[], 0, usual);
            let figures = Figures { now: recent.clone(), recent, hour };
            let trouble = judge(&facts(maintenance, slow_after), Some(&figures), &Times::default());
            assert_eq!(trouble.level, level, "{trouble:?}");
            assert!(trouble.why.contains(why), "{why}: {trouble:?}");
        }
    }
}
