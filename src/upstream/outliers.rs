//! Passive health: what an endpoint's own answers say of it, counted by every request.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::failure::{Detail, Failure, Reason};

/// When an endpoint is ejected, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outliers {
    /// So many failures in a row; `None` is "off".
    pub consecutive: Option<u32>,
    /// This share of failures in one window; `None` is "off".
    pub share: Option<f64>,
    /// So many requests in one window, or the share says nothing.
    pub requests: u32,
    /// How long a window is.
    pub window: Duration,
    /// How long the first ejection lasts; the second one twice as long, and so on.
    pub ejection: Duration,
    /// The longest ejection.
    pub max_ejection: Duration,
    /// The share of endpoints that may be ejected at once. One may always be, if there are others.
    pub max_ejected: f64,
}

impl Outliers {
    /// How long the next ejection lasts, after so many.
    pub(super) fn ejection_after(&self, ejections: u32) -> Duration {
        self.ejection.saturating_mul(ejections.saturating_add(1)).min(self.max_ejection.max(self.ejection))
    }

    /// How many of so many endpoints may be ejected at once.
    pub(super) fn most_ejected(&self, endpoints: usize) -> usize {
        let within = |most: &usize| number(*most) <= self.max_ejected * number(endpoints);
        let most = (0..endpoints).rev().find(within).unwrap_or_default();
        most.max(1).min(endpoints.saturating_sub(1))
    }
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Failures in a row.
    Consecutive,
    /// The share of failures in one window.
    Share,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 2] = [Self::Consecutive, Self::Share];

    /// The word in labels and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive",
            Self::Share => "share",
        }
    }
}

/// Whether a failed attempt speaks against its endpoint: not if the client, who may give a call as little time as it
/// likes, or a bound of ours was the cause.
pub(super) fn is_fault(failure: &Failure) -> bool {
    let faults = matches!(
        failure.reason,
        Reason::DnsFailed
            | Reason::ConnectRefused
            | Reason::ConnectTimeout
            | Reason::TlsFailed
            | Reason::UpstreamReset
            | Reason::UpstreamProtocolError
            | Reason::ResponseTooLarge
            | Reason::UpstreamTimeout
            | Reason::UpstreamTruncated
            | Reason::UpstreamStatus
            | Reason::GrpcStatus
    );
    faults && failure.detail != Some(Detail::GrpcTimeout)
}

/// What one endpoint's attempts came to, counted without a lock.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// Failures since the last success.
    in_a_row: AtomicU32,
    /// Attempts of this window in the upper half, failures among them in the lower.
    window: AtomicU64,
}

impl Outcomes {
    pub(super) fn succeeded(&self) {
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
        self.window.fetch_add(ONE_ATTEMPT, Ordering::Relaxed);
    }

    /// Whether that made so many in a row. It does so again after as many more.
    pub(super) fn failed(&self, consecutive: Option<u32>) -> bool {
        self.window.fetch_add(ONE_ATTEMPT + 1, Ordering::Relaxed);
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        consecutive.is_some_and(|consecutive| in_a_row.is_multiple_of(consecutive))
    }

    /// Ends the window: whether too many of its attempts failed.
    pub(super) fn end_window(&self, outliers: &Outliers) -> bool {
        let window = self.window.swap(0, Ordering::Relaxed);
        let (attempts, failures) = (window >> 32, window & u64::from(u32::MAX));
        outliers.share.is_some_and(|share| {
            attempts >= u64::from(outliers.requests) && share_of(failures, attempts) >= share
        })
    }

    /// Forgets all.
    pub(super) fn forget(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
        self.window.store(0, Ordering::Relaxed);
    }
}

/// So many, to be calculated with.
pub(super) fn number(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

fn share_of(part: u64, whole: u64) -> f64 {
    let number = |half: u64| f64::from(u32::try_from(half).unwrap_or(u32::MAX));
    number(part) / number(whole)
}

const ONE_ATTEMPT: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    const OUTLIERS: Outliers = Outliers {
        consecutive: Some(3),
        share: Some(0.5),
        requests: 10,
        window: Duration::from_secs(10),
        ejection: Duration::from_secs(30),
        max_ejection: Duration::from_secs(100),
        max_ejected: 0.1,
    };

    #[test]
    fn failures_in_a_row_are_counted_from_the_last_success() {
        let outcomes = Outcomes::default();
        let failed = || outcomes.failed(OUTLIERS.consecutive);
        assert_eq!([failed(), failed()], [false, false]);
        outcomes.succeeded();
        assert_eq!([failed(), failed(), failed()], [false, false, true]);
        assert_eq!([failed(), failed(), failed()], [false, false, true], "where it could not be ejected");
        assert!((0..100).all(|_| !outcomes.failed(None)), "off");
    }

    #[test]
    fn the_share_of_failures_counts_from_enough_requests_on_and_begins_anew_in_each_window() {
        for (successes, failures, told) in
            [(5, 5, true), (6, 4, false), (0, 9, false), (0, 10, true), (0, 0, false)]
        {
            let outcomes = Outcomes::default();
            (0..successes).for_each(|_| outcomes.succeeded());
            (0..failures).for_each(|_| {
                outcomes.failed(None);
            });
            assert_eq!(outcomes.end_window(&OUTLIERS), told, "{successes} + {failures}");
            assert!(!outcomes.end_window(&OUTLIERS));
        }
        let outcomes = Outcomes::default();
        (0..100).for_each(|_| {
            outcomes.failed(None);
        });
        assert!(!outcomes.end_window(&Outliers { share: None, ..OUTLIERS }), "off");
    }

    #[test]
    fn each_ejection_lasts_longer_up_to_a_bound() {
        let seconds = [0, 1, 2, 3, u32::MAX].map(|ejections| OUTLIERS.ejection_after(ejections).as_secs());
        assert_eq!(seconds, [30, 60, 90, 100, 100]);
    }

    #[test]
    fn one_endpoint_may_always_be_ejected_if_there_are_others_and_never_all() {
        for (endpoints, share, most) in [
            (1, 0.1, 0),
            (1, 1.0, 0),
            (2, 0.1, 1),
            (3, 0.5, 1),
            (10, 0.1, 1),
            (20, 0.1, 2),
            (10, 1.0, 9),
            (3, 0.0, 1),
            (0, 1.0, 0),
        ] {
            let outliers = Outliers { max_ejected: share, ..OUTLIERS };
            assert_eq!(outliers.most_ejected(endpoints), most, "{endpoints} at {share}");
        }
    }
}
