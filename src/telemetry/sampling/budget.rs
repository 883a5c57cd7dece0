//! So many spans a second: a bucket that fills evenly, holds one second's worth and may go into debt.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A bucket, kept as the time at which it will be full again. What is charged after the fact (nobody knows at
/// the beginning how many attempts there will be) makes a debt, which later operations wait for: over time no
/// more is spent than came in.
#[derive(Debug)]
pub struct Budget {
    start: Instant,
    /// Nanoseconds until one more span is there.
    per_span: u64,
    /// Nanoseconds after the start.
    full_at: AtomicU64,
}

impl Budget {
    /// A full bucket for so many spans a second.
    pub fn new(spans_per_second: u32, start: Instant) -> Self {
        let per_span = (BURST / u64::from(spans_per_second.max(1))).max(1);
        Self { start, per_span, full_at: AtomicU64::new(0) }
    }

    /// Takes so many, if anything is left.
    pub fn take(&self, spans: usize, now: Instant) -> bool {
        self.spend(spans, now, something_is_left)
    }

    /// Takes so many, whether anything is left or not.
    pub fn charge(&self, spans: usize, now: Instant) {
        if spans > 0 {
            self.spend(spans, now, |_| true);
        }
    }

    fn spend(&self, spans: usize, now: Instant, allowed: impl Fn(u64) -> bool) -> bool {
        let now = nanoseconds(now.saturating_duration_since(self.start));
        let cost = self.per_span.saturating_mul(spans as u64);
        let spent = |full_at: u64| {
            let missing = full_at.saturating_sub(now);
            allowed(missing).then(|| now + missing.saturating_add(cost).min(DEBT))
        };
        self.full_at.try_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_ok()
    }
}

/// Less than all is missing.
fn something_is_left(missing: u64) -> bool {
    missing < BURST
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2)
}

/// What the bucket holds, in nanoseconds of filling.
const BURST: u64 = 1_000_000_000;

/// The most that can be missing: what was demanded without end must not silence all others for as long.
const DEBT: u64 = 10 * BURST;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Budget;

    #[test]
    fn over_time_no_more_is_spent_than_comes_in() {
        for (rate, spans) in [(1, 1), (10, 3), (1_000, 9), (100_000, 2)] {
            let start = Instant::now();
            let budget = Budget::new(rate, start);
            let mut taken = 0;
            // ten seconds, in each millisecond more than there can be
            for millisecond in 0..10_000 {
                let now = start + Duration::from_millis(millisecond);
                while budget.take(1, now) {
                    budget.charge(spans - 1, now);
                    taken += spans;
                }
            }
            let most = 11 * rate as usize;
            assert!((most - most / 50..=most + spans).contains(&taken), "{rate}: {taken} of {most}");
        }
    }

    #[test]
    fn a_debt_is_paid_before_anything_is_taken_and_it_is_bounded() {
        let start = Instant::now();
        let budget = Budget::new(10, start);
        budget.charge(15, start);
        assert!(!budget.take(1, start + Duration::from_millis(500)), "five are missing");
        assert!(budget.take(1, start + Duration::from_millis(501)));
        budget.charge(1_000_000, start);
        assert!(!budget.take(1, start + Duration::from_secs(9)));
        assert!(budget.take(1, start + Duration::from_millis(9_001)));
    }
}
