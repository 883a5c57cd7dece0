//! The retry budget of an upstream: how many requests may be sent again, measured by how many there are, so that
//! an upstream in trouble is not brought down by those who try again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What `retry_budget` of an upstream means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Retries for each request, on average over the window.
    pub ratio: f64,
    /// Retries that may always be made, however few requests there are.
    pub min_per_second: u32,
    /// Over how long both are counted: 1 to 60 seconds.
    pub window: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { ratio: 0.2, min_per_second: 3, window: Duration::from_secs(10) }
    }
}

/// The requests and retries of the last seconds.
#[derive(Debug)]
pub struct Budget {
    settings: Settings,
    began: Instant,
    requests: Seconds,
    /// Held while one asks, so that two do not take the last retry.
    retries: Mutex<Seconds>,
}

impl Budget {
    /// A budget that begins now.
    pub fn new(settings: Settings) -> Self {
        Self { settings, began: Instant::now(), requests: Seconds::default(), retries: Mutex::default() }
    }

    /// A request is sent for the first time. Costs no lock.
    pub fn request(&self, now: Instant) {
        self.requests.count(self.second(now));
    }

    /// Takes one retry, if one is left.
    pub fn retry(&self, now: Instant) -> bool {
        let Settings { ratio, min_per_second, window } = self.settings;
        let (second, window) = (self.second(now), window.as_secs().clamp(1, LONGEST));
        let retries = self.retries.lock().unwrap_or_else(PoisonError::into_inner);
        let window_seconds = u32::try_from(window).unwrap_or(u32::MAX);
        let allowed = f64::from(self.requests.sum(second, window)) * ratio
            + f64::from(min_per_second) * f64::from(window_seconds);
        let left = f64::from(retries.sum(second, window)) + 1.0 <= allowed;
        if left {
            retries.count(second);
        }
        left
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs()
    }
}

/// Counts by the second: in each place the second that it is for, and how often it was counted in that.
#[derive(Debug)]
struct Seconds([AtomicU64; PLACES]);

impl Default for Seconds {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; PLACES])
    }
}

impl Seconds {
    fn count(&self, second: u64) {
        let place = &self.0[place(second)];
        let known = place.load(Ordering::Relaxed);
        if known >> COUNT_BITS == second & SECOND_MASK {
            place.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // the first of its second; whoever loses finds that another one was the first
        let first = (second & SECOND_MASK) << COUNT_BITS | 1;
        if place.compare_exchange(known, first, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            place.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often in this second and those before it, so many in all.
    fn sum(&self, second: u64, window: u64) -> u32 {
        let first = second.saturating_sub(window - 1);
        (first..=second).fold(0, |sum: u32, second| {
            let known = self.0[place(second)].load(Ordering::Relaxed);
            let counted = known >> COUNT_BITS == second & SECOND_MASK;
            let count = u32::try_from(known & COUNT_MASK).unwrap_or(u32::MAX);
            if counted { sum.saturating_add(count) } else { sum }
        })
    }
}

fn place(second: u64) -> usize {
    usize::try_from(second % PLACES as u64).unwrap_or_default()
}

/// The longest window, in seconds.
pub const LONGEST: u64 = 60;

/// More than the longest window has, a power of two.
const PLACES: usize = 64;

const COUNT_BITS: u32 = 32;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const SECOND_MASK: u64 = COUNT_MASK;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Budget, Settings};

    fn budget(ratio: f64, min_per_second: u32, window: u64) -> (Budget, Instant) {
        let budget = Budget::new(Settings { ratio, min_per_second, window: Duration::from_secs(window) });
        let began = budget.began;
        (budget, began)
    }

    /// How many retries are left.
    fn left(budget: &Budget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.retry(now)).count()
    }

    #[test]
    fn a_share_of_the_requests_may_be_retried_and_a_few_always() {
        for (ratio, min, window, requests, expected) in
            [(0.2, 3, 10, 0, 30), (0.2, 3, 10, 1000, 230), (0.0, 1, 1, 1000, 1), (1.0, 1, 2, 5, 7)]
        {
            let (budget, now) = budget(ratio, min, window);
            (0..requests).for_each(|_| budget.request(now));
            assert_eq!(left(&budget, now), expected, "{ratio} {min} {window} {requests}");
            assert!(!budget.retry(now), "used up");
        }
    }

    #[test]
    fn what_is_longer_ago_than_the_window_counts_no_more() {
        let (budget, began) = budget(0.5, 1, 5);
        let at = |second| began + Duration::from_secs(second);
        (0..100).for_each(|_| budget.request(at(0)));
        assert_eq!(left(&budget, at(4)), 55);
        assert_eq!(left(&budget, at(5)), 0, "the requests are forgotten, the retries not yet");
        assert_eq!(left(&budget, at(9)), 5, "and now the retries");
        // a place that was used for another second, once and more often round
        for second in [64 + 9, 640 + 9] {
            budget.request(at(second));
            budget.request(at(second));
            assert_eq!(left(&budget, at(second)), 6);
        }
    }

    #[test]
    fn many_threads_lose_no_request_and_take_no_retry_twice() {
        let (budget, now) = budget(0.5, 1, 1);
        let later = now + Duration::from_secs(1);
        let taken: usize = std::thread::scope(|scope| {
            let counting: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1000).for_each(|_| budget.request(later)))).collect();
            for thread in counting {
                thread.join().expect("it counts");
            }
            let taking: Vec<_> = (0..4).map(|_| scope.spawn(|| left(&budget, later))).collect();
            taking.into_iter().map(|thread| thread.join().expect("it takes")).sum()
        });
        assert_eq!(taken, 2001);
    }
}
