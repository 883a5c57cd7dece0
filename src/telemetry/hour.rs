//! The last hour of each route: rate, errors by reason, durations. Read from the series of the metrics page every few
//! seconds, by difference, so that requests pay nothing for it; in fixed memory.

mod slot;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::watch;

pub use self::slot::Window;
use self::slot::{Failed, Slot};
use super::metrics::family::SECOND_BUCKETS;
use super::metrics::reason_of;
use super::operation::RouteLabels;
use super::settings;

/// How often the series are read.
pub const STEP: Duration = Duration::from_secs(5);

/// The last hour of each route.
#[derive(Debug)]
pub struct Hour {
    bounds: Box<[f64]>,
    most_routes: usize,
    kept: Mutex<Kept>,
    ticks: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    ticks: u64,
    /// When it was read last, in seconds since 1970.
    read_at: u64,
    series: HashMap<usize, Seen>,
    routes: BTreeMap<Arc<str>, Rings>,
    left_out: usize,
}

/// What a series had counted when it was read last.
#[derive(Debug)]
struct Seen {
    tick: u64,
    counts: Box<[u64]>,
}

/// The slots of one route, the oldest first; the last one of the minutes is not over yet.
#[derive(Debug, Default)]
struct Rings {
    steps: VecDeque<Slot>,
    minutes: VecDeque<Slot>,
    /// When there was something last, and when they were read last.
    tick: u64,
    read: u64,
}

/// A route's last hour, in figures.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// The last ten seconds.
    pub now: Window,
    /// The last five minutes.
    pub recent: Window,
    /// The hour.
    pub hour: Window,
}

/// A route's last hour or its last minutes, point by point, the oldest first.
#[derive(Debug, Clone, Serialize)]
pub struct Points {
    /// When the first one begins, in seconds since 1970.
    pub from: u64,
    /// From one to the next, in seconds.
    pub step_seconds: u64,
    /// Requests that ended.
    pub requests: Vec<u64>,
    /// Those that failed by fault of the gateway or the upstream.
    pub errors: Vec<u64>,
    /// Those that did not simply succeed, by reason.
    pub reasons: BTreeMap<&'static str, Vec<u64>>,
    /// In milliseconds.
    pub p50_ms: Vec<Option<f64>>,
    /// In milliseconds.
    pub p95_ms: Vec<Option<f64>>,
    /// In milliseconds.
    pub p99_ms: Vec<Option<f64>>,
}

impl Hour {
    /// An hour of which nothing is known yet. At most so many routes are followed.
    pub fn new(metrics: &settings::Metrics, most_routes: usize) -> Self {
        let bounds = &metrics.buckets[..];
        let kept = Kept {
            ticks: 0,
            read_at: seconds(SystemTime::now()),
            series: HashMap::new(),
            routes: BTreeMap::new(),
            left_out: 0,
        };
        Self {
            bounds: if bounds.is_empty() { &SECOND_BUCKETS } else { bounds }.into(),
            most_routes,
            kept: Mutex::new(kept),
            ticks: watch::Sender::new(0),
        }
    }

    /// Reads the series of these routes; to be called every [`STEP`].
    pub fn read<'a>(&self, routes: impl IntoIterator<Item = &'a RouteLabels>) {
        let mut kept = self.kept();
        kept.ticks += 1;
        kept.read_at = seconds(SystemTime::now());
        kept.left_out = 0;
        let mut slots: BTreeMap<&str, Slot> = BTreeMap::new();
        for labels in routes {
            let slot = slots.entry(&labels.route).or_insert_with(|| Slot::new(self.bounds.len() + 1));
            kept.difference(labels, slot);
        }
        for (name, slot) in slots {
            let followed = kept.routes.contains_key(name);
            if !followed && slot.requests == 0 {
                continue;
            }
            if !followed && kept.routes.len() >= self.most_routes {
                kept.left_out += 1;
                continue;
            }
            let tick = kept.ticks;
            let rings = if followed {
                kept.routes.get_mut(name).expect("it is there")
            } else {
                kept.routes.entry(name.into()).or_default()
            };
            rings.push(&slot, tick, self.bounds.len() + 1);
        }
        let now = kept.ticks;
        kept.series.retain(|_, seen| now - seen.tick < FORGOTTEN);
        // a route that is gone is over at once: its slots would no longer be those of their time
        kept.routes.retain(|_, rings| rings.read == now && now - rings.tick < MINUTES * STEPS_A_MINUTE);
        drop(kept);
        self.ticks.send_replace(now);
    }

    /// Changes whenever the series have been read.
    pub fn ticks(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    /// The figures of each route that has had requests in the hour.
    pub fn figures(&self) -> BTreeMap<Arc<str>, Figures> {
        let kept = self.kept();
        kept.routes.iter().map(|(name, rings)| (Arc::clone(name), self.figures_of(rings))).collect()
    }

    /// The hour of this route by minutes, and its last five minutes by [`STEP`]s.
    pub fn points(&self, route: &str) -> Option<(Points, Points)> {
        let kept = self.kept();
        let rings = kept.routes.get(route)?;
        let begun = (kept.ticks.saturating_sub(1) % STEPS_A_MINUTE + 1) * STEP.as_secs();
        let minutes_from = kept.read_at.saturating_sub(begun + 60 * (rings.minutes.len() as u64 - 1));
        let steps_from = kept.read_at.saturating_sub(STEP.as_secs() * rings.steps.len() as u64);
        Some((
            self.points_of(&rings.minutes, minutes_from, 60),
            self.points_of(&rings.steps, steps_from, STEP.as_secs()),
        ))
    }

    /// How many routes with requests are not followed, because as many are as may be.
    pub fn left_out(&self) -> usize {
        self.kept().left_out
    }

    fn figures_of(&self, rings: &Rings) -> Figures {
        let window = |slots: &VecDeque<Slot>, last: usize, step: u64| {
            let mut sum = Slot::new(self.bounds.len() + 1);
            let slots = slots.iter().rev().take(last);
            let count = slots.len() as u64;
            slots.for_each(|slot| sum.add(slot));
            sum.window(count * step, &self.bounds)
        };
        let step = STEP.as_secs();
        Figures {
            now: window(&rings.steps, NOW, step),
            recent: window(&rings.steps, usize::MAX, step),
            hour: window(&rings.minutes, usize::MAX, 60),
        }
    }

    fn points_of(&self, slots: &VecDeque<Slot>, from: u64, step_seconds: u64) -> Points {
        let quantile = |share| slots.iter().map(|slot| slot.quantile(share, &self.bounds)).collect();
        let mut reasons: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
        for (place, slot) in slots.iter().enumerate() {
            for (failed, count) in &slot.failures {
                reasons.entry(failed.reason.word()).or_insert_with(|| vec![0; slots.len()])[place] += count;
            }
        }
        Points {
            from,
            step_seconds,
            requests: slots.iter().map(|slot| slot.requests).collect(),
            errors: slots.iter().map(Slot::errors).collect(),
            reasons,
            p50_ms: quantile(0.50),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// What has come to the series of a route since they were read last. Two routes may share a series (of one
    /// template, apart by host): it counts for the first.
    fn difference(&mut self, labels: &RouteLabels, slot: &mut Slot) {
        for (number, count) in labels.series.requests.iter() {
            let now = count.get();
            let came = self.since(count.series(), &[now]).first().copied().unwrap_or_default();
            slot.requests += came;
            if came > 0
                && let Some(reason) = reason_of(number)
            {
                slot.fail(Failed { reason }, came);
            }
        }
        for (_, histogram) in labels.series.durations.iter() {
            let now: Vec<u64> = histogram.buckets().collect();
            let came = self.since(histogram.series(), &now);
            for (sum, more) in slot.buckets.iter_mut().zip(came) {
                *sum = sum.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
            }
        }
    }

    fn since(&mut self, series: usize, now: &[u64]) -> Vec<u64> {
        let tick = self.ticks;
        let seen =
            self.series.entry(series).or_insert_with(|| Seen { tick, counts: vec![0; now.len()].into() });
        if seen.counts.len() != now.len() {
            // the memory of a series that is gone has become another one's
            seen.counts = vec![0; now.len()].into();
        }
        let came = now.iter().zip(&seen.counts).map(|(now, before)| now.checked_sub(*before).unwrap_or(*now));
        let came = came.collect();
        (seen.tick, seen.counts) = (tick, now.into());
        came
    }
}

impl Rings {
    fn push(&mut self, slot: &Slot, tick: u64, buckets: usize) {
        if slot.requests > 0 {
            self.tick = tick;
        }
        self.read = tick;
        if self.steps.len() == STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back(slot.clone());
        // minutes begin at the same time for all routes
        if self.minutes.is_empty() || (tick - 1).is_multiple_of(STEPS_A_MINUTE) {
            if self.minutes.len() as u64 == MINUTES {
                self.minutes.pop_front();
            }
            self.minutes.push_back(Slot::new(buckets));
        }
        if let Some(minute) = self.minutes.back_mut() {
            minute.add(slot);
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// [`STEP`]s that are kept: five minutes.
const STEPS: usize = 60;
const STEPS_A_MINUTE: u64 = 60 / STEP.as_secs();
/// Minutes that are kept.
const MINUTES: u64 = 60;
/// [`STEP`]s that are "now".
const NOW: usize = 2;
/// A series that has not been met for so many [`STEP`]s is forgotten.
const FORGOTTEN: u64 = 240;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Hour, STEPS, STEPS_A_MINUTE};
    use crate::failure::{Failure, Reason};
    use crate::telemetry::attribute::Configured;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::settings;
    use crate::telemetry::testing::{self, Bench};

    fn bench() -> (Bench, Hour) {
        let settings = settings::Metrics::default();
        (Bench::new(Metrics::new(&settings)), Hour::new(&settings, 2))
    }

    fn ask(bench: &Bench, failure: Option<Reason>) {
        let operation = bench.start("GET");
        operation.handle().route(&bench.route);
        if let Some(reason) = failure {
            operation.handle().fail(&Failure::new(reason));
        }
        testing::answer(operation, if failure.is_some() { 502 } else { 200 });
    }

    #[test]
    fn what_came_since_the_last_look_is_counted_once_and_by_reason() {
        let (bench, hour) = bench();
        (0..3).for_each(|_| ask(&bench, None));
        hour.read([&*bench.route]);
        ask(&bench, Some(Reason::UpstreamReset));
        hour.read([&*bench.route]);
        hour.read([&*bench.route]);

        let figures = &hour.figures()["order_read"];
        assert_eq!((figures.recent.requests, figures.recent.errors, figures.recent.seconds), (4, 1, 15));
        assert_eq!(figures.recent.reasons, [("upstream_reset", 1)].into());
        assert_eq!((figures.now.requests, figures.now.error_ratio), (1, 1.0));
        assert!(figures.hour.p95_ms.is_some() && figures.hour.requests == 4);
        let (minutes, steps) = hour.points("order_read").unwrap();
        assert_eq!((minutes.requests, steps.requests), (vec![4], vec![3, 1, 0]));
        assert_eq!(steps.reasons["upstream_reset"], [0, 1, 0]);
        assert_eq!((steps.p50_ms[2], steps.step_seconds), (None, 5));
    }

    #[test]
    fn five_minutes_are_kept_by_steps_and_an_hour_by_minutes() {
        let (bench, hour) = bench();
        for _ in 0..61 * STEPS_A_MINUTE {
            ask(&bench, None);
            hour.read([&*bench.route]);
        }
        let (minutes, steps) = hour.points("order_read").unwrap();
        assert_eq!((minutes.requests.len(), steps.requests.len()), (60, STEPS));
        assert!(minutes.requests.iter().all(|count| *count == STEPS_A_MINUTE));
        // nothing more comes, and the route is forgotten in the end
        (0..60 * STEPS_A_MINUTE).for_each(|_| hour.read([&*bench.route]));
        assert!(hour.figures().is_empty());
    }

    #[test]
    fn what_a_reload_builds_anew_goes_on_where_its_series_do() {
        let (mut bench, hour) = bench();
        ask(&bench, None);
        hour.read([&*bench.route]);
        let again = testing::same_route();
        bench.route = Arc::new(again);
        hour.read([&*bench.route]);
        ask(&bench, None);
        hour.read([&*bench.route]);
        assert_eq!(hour.figures()["order_read"].hour.requests, 2);
    }

    #[test]
    fn more_routes_than_may_be_are_left_out_and_counted() {
        let (mut bench, hour) = bench();
        let routes: Vec<_> = ["a", "b", "c"]
            .map(|name| {
                let route = crate::telemetry::operation::RouteLabels {
                    route: Configured::new(name),
                    template: Configured::new(name),
                    ..testing::same_route()
                };
                bench.route = Arc::new(route);
                ask(&bench, None);
                Arc::clone(&bench.route)
            })
            .into();
        hour.read(routes.iter().map(|route| &**route));
        assert_eq!((hour.figures().len(), hour.left_out()), (2, 1));
    }
}
