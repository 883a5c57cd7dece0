//! Which ordinary exchanges of a route are kept: two atomics of its own decide, before anything else is done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A route's gate. Shut to nearly all of what passes, at the price of two loads.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Gate {
    /// The window and the longest duration in it, so that the larger number is the later window or the slower
    /// exchange.
    slowest: AtomicU64,
    /// From when on one is kept as a sample, in milliseconds.
    next: AtomicU64,
}

/// Why an ordinary exchange is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    /// None of its route was slower so far in this window.
    Slowest,
    /// It is an example.
    Sample,
}

impl Gate {
    /// Whether an exchange is kept that took this long and ended `now`, by whatever clock; samples are at least
    /// `every` apart.
    pub(super) fn admits(&self, duration: Duration, now: Duration, every: Duration) -> Option<Admitted> {
        let took = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(LONGEST);
        let own = (1 + now.as_secs() / WINDOW) << BITS | took;
        if own > self.slowest.load(Ordering::Relaxed) && own > self.slowest.fetch_max(own, Ordering::Relaxed)
        {
            return Some(Admitted::Slowest);
        }
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        if now < next {
            return None;
        }
        let after = now.saturating_add(u64::try_from(every.as_millis()).unwrap_or(u64::MAX));
        let won = self.next.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        won.then_some(Admitted::Sample)
    }
}

/// How long a route's slowest stays the slowest, in seconds.
const WINDOW: u64 = 300;
/// Of the number, those that a duration has: twelve days of microseconds.
const BITS: u32 = 40;
const LONGEST: u64 = (1 << BITS) - 1;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Admitted, Gate};

    #[test]
    fn the_slowest_so_far_and_one_in_a_while_are_kept_and_no_others() {
        use Admitted::{Sample, Slowest};
        let gate = Gate::default();
        for (took, now, kept) in [
            (10, 1_000, Some(Slowest)),
            (10, 1_001, Some(Sample)),
            (10, 1_002, None),
            (9, 1_100, None),
            (11, 1_150, Some(Slowest)),
            (10, 1_201, Some(Sample)),
            (11, 1_202, None),
            // five minutes later everything begins anew
            (1, 301_000, Some(Slowest)),
            (1, 301_001, Some(Sample)),
            (2, 301_002, Some(Slowest)),
        ] {
            let [took, now, every] = [took, now, 200].map(Duration::from_millis);
            assert_eq!(gate.admits(took, now, every), kept, "{took:?} at {now:?}");
        }
    }
}
