//! Circuit breakers: bounds of a whole upstream that refuse at once, beside those of its pools, which wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::metrics::Counter;

use crate::failure::{Detail, Failure, Reason};
use crate::telemetry::attribute::Configured;
use crate::telemetry::metrics::Metrics;

/// The most of each at once, over all endpoints of an upstream; `None` is "off".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Requests on their way to an endpoint, until the answer has ended.
    pub requests: Option<usize>,
    /// Connections open or being opened.
    pub connections: Option<usize>,
    /// Requests that wait for a connection.
    pub pending: Option<usize>,
}

/// What is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// [`Bounds::requests`].
    Requests,
    /// [`Bounds::connections`].
    Connections,
    /// [`Bounds::pending`].
    Pending,
}

impl Bound {
    /// Every bound.
    pub const ALL: [Self; 3] = [Self::Requests, Self::Connections, Self::Pending];

    /// The word in keys and labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Connections => "connections",
            Self::Pending => "pending",
        }
    }

    fn detail(self) -> Detail {
        match self {
            Self::Requests => Detail::Requests,
            Self::Connections => Detail::Connections,
            Self::Pending => Detail::QueueFull,
        }
    }
}

/// The circuit breaker of one upstream.
#[derive(Debug)]
pub struct Breaker {
    /// `upstreams.shop.breaker`.
    rule: Arc<str>,
    cells: [Cell; Bound::ALL.len()],
}

#[derive(Debug)]
struct Cell {
    most: Option<usize>,
    now: AtomicUsize,
    refused: AtomicUsize,
    series: Counter,
}

/// Something that counts until it drops.
#[derive(Debug)]
pub struct Counted {
    breaker: Arc<Breaker>,
    bound: Bound,
}

/// How one bound stands.
#[derive(Debug, Clone, Copy)]
pub struct Level {
    /// Which it is.
    pub bound: Bound,
    /// The most there may be.
    pub most: usize,
    /// How many there are.
    pub now: usize,
    /// How often one more was refused.
    pub refused: usize,
}

impl Breaker {
    /// The breaker of this upstream; `None` if nothing is bounded.
    pub(super) fn new(upstream: &str, bounds: Bounds, metrics: &Metrics) -> Option<Arc<Self>> {
        let most = [bounds.requests, bounds.connections, bounds.pending];
        most.iter().any(Option::is_some).then(|| {
            let name = Configured::new(upstream);
            let cell = |bound: Bound| Cell {
                most: most[bound as usize],
                now: AtomicUsize::new(0),
                refused: AtomicUsize::new(0),
                series: metrics.breaker_refusals(&name, bound.word()),
            };
            Arc::new(Self {
                rule: format!("upstreams.{upstream}.breaker").into(),
                cells: Bound::ALL.map(cell),
            })
        })
    }

    /// Whether there is such a bound.
    pub fn bounds(&self, bound: Bound) -> bool {
        self.cells[bound as usize].most.is_some()
    }

    /// Counts one more, or fails with `breaker_open`. What is not bounded is not counted.
    pub fn enter(self: &Arc<Self>, bound: Bound) -> Result<Option<Counted>, Failure> {
        self.enter_after(bound, || false)
    }

    /// The same, with a last resort: `make_room` lets one go that is counted, if there is one to spare.
    pub fn enter_after(
        self: &Arc<Self>,
        bound: Bound,
        make_room: impl Fn() -> bool,
    ) -> Result<Option<Counted>, Failure> {
        let cell = &self.cells[bound as usize];
        let Some(most) = cell.most else { return Ok(None) };
        loop {
            if cell.now.fetch_add(1, Ordering::Relaxed) < most {
                return Ok(Some(Counted { breaker: Arc::clone(self), bound }));
            }
            cell.now.fetch_sub(1, Ordering::Relaxed);
            if !make_room() {
                break;
            }
        }
        cell.refused.fetch_add(1, Ordering::Relaxed);
        cell.series.increment(1);
        Err(Failure::new(Reason::BreakerOpen).detail(bound.detail()).rule(&self.rule))
    }

    /// Says that it is open, and later that it is closed again, for as long as it is polled: not for each request.
    pub(super) async fn tell(self: Arc<Self>) {
        let mut said = Bound::ALL.map(|_| 0);
        let mut open = Bound::ALL.map(|_| false);
        let mut ticks = tokio::time::interval(TELL_EVERY);
        loop {
            ticks.tick().await;
            for Level { bound, most, refused, .. } in self.levels() {
                let (rule, word, place) = (&*self.rule, bound.word(), bound as usize);
                let more = refused - std::mem::replace(&mut said[place], refused);
                match (std::mem::replace(&mut open[place], more > 0), more > 0) {
                    (false, true) => {
                        tracing::warn!(rule, bound = word, most, refused, "circuit breaker is open");
                    }
                    (true, false) => tracing::info!(rule, bound = word, refused, "circuit breaker is closed"),
                    _ => {}
                }
            }
        }
    }

    /// The bounds that there are.
    pub fn levels(&self) -> impl Iterator<Item = Level> {
        Bound::ALL.into_iter().zip(&self.cells).filter_map(|(bound, cell)| {
            let (now, refused) = (cell.now.load(Ordering::Relaxed), cell.refused.load(Ordering::Relaxed));
            Some(Level { bound, most: cell.most?, now, refused })
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.breaker.cells[self.bound as usize].now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often is looked whether a breaker has opened; closed is what has refused nothing for so long.
const TELL_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::settings;

    fn breaker(bounds: Bounds) -> Option<Arc<Breaker>> {
        Breaker::new("shop", bounds, &Metrics::new(&settings::Metrics::default()))
    }

    #[test]
    fn one_more_than_the_bound_is_refused_by_name_until_one_has_left() {
        let breaker = breaker(Bounds { requests: Some(2), ..Bounds::default() }).unwrap();
        let enter = || breaker.enter(Bound::Requests);
        let (first, second) = (enter().unwrap(), enter().unwrap());
        let failure = enter().unwrap_err();
        assert_eq!((failure.reason, failure.detail), (Reason::BreakerOpen, Some(Detail::Requests)));
        assert_eq!(failure.rule.as_deref(), Some("upstreams.shop.breaker"));
        drop(first);
        let third = enter().unwrap();
        assert!(third.is_some() && second.is_some());
        let levels: Vec<_> = breaker.levels().collect();
        assert_eq!(levels.len(), 1, "what is not bounded has no level");
        assert_eq!((levels[0].now, levels[0].refused), (2, 1));
        assert!(breaker.enter(Bound::Pending).unwrap().is_none());
    }

    #[test]
    fn room_is_made_before_one_is_refused() {
        let breaker = breaker(Bounds { connections: Some(1), ..Bounds::default() }).unwrap();
        let kept = std::cell::Cell::new(breaker.enter(Bound::Connections).unwrap());
        let entered = breaker.enter_after(Bound::Connections, || kept.take().is_some());
        assert!(entered.unwrap().is_some());
        assert_eq!(breaker.levels().map(|level| level.refused).sum::<usize>(), 0);
    }

    #[test]
    fn without_a_bound_there_is_no_breaker() {
        assert!(breaker(Bounds::default()).is_none());
    }
}
