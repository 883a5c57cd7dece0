//! The arithmetic of a token bucket, as the generic cell rate algorithm has it: one number a bucket, the time at
//! which it will be full again.

use std::time::Duration;

/// How fast a bucket fills and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds until one more request is let through.
    interval: u64,
    burst: u32,
}

/// What a bucket says to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Whether the request is let through.
    pub allowed: bool,
    /// How many more would be, at once.
    pub remaining: u32,
    /// Until the bucket is full.
    pub full_in: Duration,
    /// Until the next request is let through; zero if one would be now.
    pub again_in: Duration,
}

impl Rate {
    /// So many requests in each such time, and so many at once.
    pub fn new(requests: u32, per: Duration, burst: u32) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        Self { interval: (per / u64::from(requests.max(1))).max(1), burst: burst.max(1) }
    }

    /// The most requests at once.
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// How long an empty bucket takes to be full.
    pub fn window(self) -> Duration {
        Duration::from_nanos(self.capacity())
    }

    /// Until one more request is let through.
    pub fn interval(self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// One request, now, at a bucket that is full at `full_at`; and when it is full after that. Nanoseconds of one
    /// clock; a bucket that is full already need not be known: 0 stands for it.
    pub fn take(self, full_at: u64, now: u64) -> (u64, Grant) {
        let before = full_at.max(now);
        let after = before.saturating_add(self.interval);
        let allowed = after - now <= self.capacity();
        let full_at = if allowed { after } else { before };
        (full_at, self.grant(allowed, Duration::from_nanos(full_at - now)))
    }

    /// What a bucket says that is full in so much time, after it has let a request through or not.
    pub fn grant(self, allowed: bool, full_in: Duration) -> Grant {
        let missing = u64::try_from(full_in.as_nanos()).unwrap_or(u64::MAX);
        let left = self.capacity().saturating_sub(missing);
        Grant {
            allowed,
            remaining: u32::try_from(left / self.interval).unwrap_or(u32::MAX),
            full_in,
            again_in: Duration::from_nanos(self.interval.saturating_sub(left)),
        }
    }

    fn capacity(self) -> u64 {
        self.interval.saturating_mul(u64::from(self.burst))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Rate;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_lets_its_burst_through_and_then_as_much_as_flows_in() {
        let rate = Rate::new(2, Duration::from_secs(1), 3);
        let mut full_at = 0;
        let mut ask = |now| {
            let (next, grant) = rate.take(full_at, now);
            full_at = next;
            (grant.allowed, grant.remaining, grant.full_in.as_millis(), grant.again_in.as_millis())
        };
        let start = 10 * SECOND;
        assert_eq!(ask(start), (true, 2, 500, 0));
        assert_eq!(ask(start), (true, 1, 1000, 0));
        assert_eq!(ask(start), (true, 0, 1500, 500));
        assert_eq!(ask(start), (false, 0, 1500, 500), "a refusal costs nothing");
        assert_eq!(ask(start + SECOND / 4), (false, 0, 1250, 250));
        assert_eq!(ask(start + SECOND / 2), (true, 0, 1500, 500));
        assert_eq!(ask(start + 10 * SECOND), (true, 2, 500, 0), "it never holds more than its burst");
    }

    #[test]
    fn over_a_long_time_the_rate_is_what_was_asked_for() {
        for (requests, per, burst) in [(100, 1, 1), (100, 1, 100), (7, 60, 2), (1, 3600, 1)] {
            let rate = Rate::new(requests, Duration::from_secs(per), burst);
            let (mut full_at, mut allowed) = (0, 0_u64);
            let steps = 100_000;
            let time = 100 * per * SECOND;
            for step in 0..steps {
                let (next, grant) = rate.take(full_at, SECOND + time / steps * step);
                full_at = next;
                allowed += u64::from(grant.allowed);
            }
            let most = 100 * u64::from(requests) + u64::from(burst);
            assert!((most - u64::from(burst) - most / 50..=most).contains(&allowed), "{allowed} of {most}");
        }
    }

    #[test]
    fn no_number_overflows() {
        for (requests, per, burst) in [(u32::MAX, 0, u32::MAX), (1, u64::MAX / 2, u32::MAX), (0, 0, 0)] {
            let rate = Rate::new(requests, Duration::from_nanos(per), burst);
            for (full_at, now) in [(0, 0), (u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX)] {
                let _ = rate.take(full_at, now);
            }
        }
    }
}
