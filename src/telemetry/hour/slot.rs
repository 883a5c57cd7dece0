//! What a route did in some seconds: how many requests, how they failed, how long they took.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::failure::{Blame, Reason};

/// Counts of some seconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot {
    pub(super) requests: u64,
    /// By class of status (its first character) and reason.
    pub(super) failures: Vec<(Failed, u64)>,
    /// Of durations, each bucket alone; the last is for those above every bound.
    pub(super) buckets: Box<[u32]>,
}

/// How requests failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) reason: Reason,
}

/// Counts of some seconds, for people.
#[derive(Debug, Clone, Serialize)]
pub struct Window {
    /// How many seconds it is about.
    pub seconds: u64,
    /// Requests that ended.
    pub requests: u64,
    /// The same, a second.
    pub rate: f64,
    /// Those that failed by fault of the gateway or the upstream.
    pub errors: u64,
    /// Their share, from 0.0 to 1.0.
    pub error_ratio: f64,
    /// Those that did not simply succeed, by reason; whoever is to blame.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Half took no longer, in milliseconds; nothing without requests.
    pub p50_ms: Option<f64>,
    /// Of a hundred, 95 took no longer.
    pub p95_ms: Option<f64>,
    /// Of a hundred, 99 took no longer.
    pub p99_ms: Option<f64>,
}

impl Slot {
    pub(super) fn new(buckets: usize) -> Self {
        Self { buckets: vec![0; buckets].into(), ..Self::default() }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        for (failed, count) in &other.failures {
            self.fail(*failed, *count);
        }
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, more)| *sum = sum.saturating_add(*more));
    }

    pub(super) fn fail(&mut self, failed: Failed, count: u64) {
        match self.failures.iter_mut().find(|(known, _)| *known == failed) {
            Some((_, sum)) => *sum += count,
            None => self.failures.push((failed, count)),
        }
    }

    /// Those that failed by fault of the gateway or the upstream.
    pub(super) fn errors(&self) -> u64 {
        let ours = self.failures.iter().filter(|(failed, _)| failed.reason.blame() != Blame::Client);
        ours.map(|(_, count)| count).sum()
    }

    /// How long so much of them took at most, in milliseconds: between the bounds of a bucket as if they were spread
    /// evenly, as Prometheus has it.
    pub(super) fn quantile(&self, share: f64, bounds: &[f64]) -> Option<f64> {
        let all: u64 = self.buckets.iter().map(|count| u64::from(*count)).sum();
        if all == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "nobody has that many requests in an hour")]
        let rank = share * all as f64;
        let mut below = 0.0;
        for (place, count) in self.buckets.iter().enumerate() {
            let count = f64::from(*count);
            if below + count >= rank && count > 0.0 {
                let lower = place.checked_sub(1).map_or(0.0, |place| bounds[place]);
                let Some(upper) = bounds.get(place) else { return Some(milliseconds(lower)) };
                return Some(milliseconds(lower + (upper - lower) * (rank - below) / count));
            }
            below += count;
        }
        bounds.last().map(|last| milliseconds(*last))
    }

    pub(super) fn window(&self, seconds: u64, bounds: &[f64]) -> Window {
        let errors = self.errors();
        let mut reasons = BTreeMap::new();
        for (failed, count) in &self.failures {
            *reasons.entry(failed.reason.word()).or_default() += count;
        }
        Window {
            seconds,
            requests: self.requests,
            rate: ratio(self.requests, seconds),
            errors,
            error_ratio: ratio(errors, self.requests),
            reasons,
            p50_ms: self.quantile(0.50, bounds),
            p95_ms: self.quantile(0.95, bounds),
            p99_ms: self.quantile(0.99, bounds),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody has that many requests in an hour")]
fn ratio(some: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { (some as f64 / all as f64 * 1e4).round() / 1e4 }
}

/// To the microsecond.
fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::{Failed, Slot};
    use crate::failure::Reason;

    #[test]
    fn quantiles_lie_between_the_bounds_of_their_bucket() {
        let bounds = [0.1, 0.2, 0.5];
        for (buckets, share, expected) in [
            ([0, 0, 0, 0], 0.5, None),
            ([10, 0, 0, 0], 0.5, Some(50.0)),
            ([5, 5, 0, 0], 0.5, Some(100.0)),
            ([5, 5, 0, 0], 0.75, Some(150.0)),
            ([0, 0, 10, 0], 1.0, Some(500.0)),
            ([0, 0, 0, 3], 0.5, Some(500.0)),
            ([9, 0, 0, 1], 0.99, Some(500.0)),
        ] {
            let slot = Slot { buckets: buckets.into(), ..Slot::default() };
            assert_eq!(slot.quantile(share, &bounds), expected, "{buckets:?} {share}");
        }
    }

    #[test]
    fn errors_are_what_clients_are_not_to_blame_for() {
        let mut slot = Slot::new(1);
        slot.requests = 10;
        for (reason, count) in [(Reason::NoRoute, 3), (Reason::UpstreamReset, 1), (Reason::UpstreamReset, 1)]
        {
            slot.fail(Failed { reason }, count);
        }
        let window = slot.window(5, &[]);
        assert_eq!((window.errors, window.error_ratio, window.rate), (2, 0.2, 2.0));
        assert_eq!(window.reasons, [("no_route", 3), ("upstream_reset", 2)].into());
    }
}
