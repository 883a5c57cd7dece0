//! What rate limits decide, and how full their tables are.

use ::metrics::{Counter, Gauge};

use super::family;
use super::registry::Registry;
use crate::telemetry::attribute::{Configured, OUTCOME, TRACEGATE_RULE};

/// What a limit decided: the label `outcome` of `tracegate_rate_limit_decisions_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitOutcome {
    /// Let through.
    Allowed,
    /// Refused.
    Refused,
    /// Would have been refused, were the limit not on trial.
    WouldRefuse,
    /// The shared store was away: let through unasked.
    FailedOpen,
    /// The shared store was away: refused.
    FailedClosed,
    /// The shared store was away: this gateway's own bucket let it through or refused it, which is counted as well.
    FailedLocal,
}

impl LimitOutcome {
    /// Every outcome.
    pub const ALL: [Self; 6] = [
        Self::Allowed,
        Self::Refused,
        Self::WouldRefuse,
        Self::FailedOpen,
        Self::FailedClosed,
        Self::FailedLocal,
    ];

    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::WouldRefuse => "would_refuse",
            Self::FailedOpen => "failed_open",
            Self::FailedClosed => "failed_closed",
            Self::FailedLocal => "failed_local",
        }
    }
}

/// The series of one rate limit.
pub struct LimitSeries {
    decisions: [Counter; LimitOutcome::ALL.len()],
    keys: Gauge,
    evictions: Counter,
}

impl LimitSeries {
    pub(super) fn new(registry: &Registry, rule: &Configured) -> Self {
        let decisions = LimitOutcome::ALL.map(|outcome| {
            let labels = [TRACEGATE_RULE.is(rule), OUTCOME.is(outcome.word())];
            registry.owned_counter(family::RATE_LIMIT_DECISIONS, &labels)
        });
        let labels = [TRACEGATE_RULE.is(rule)];
        Self {
            decisions,
            keys: registry.owned_gauge(family::RATE_LIMIT_KEYS, &labels),
            evictions: registry.owned_counter(family::RATE_LIMIT_EVICTIONS, &labels),
        }
    }

    /// A request was decided so.
    pub fn count(&self, outcome: LimitOutcome) {
        self.decisions[outcome as usize].increment(1);
    }

    /// So many keys are in the table.
    #[expect(clippy::cast_precision_loss, reason = "a table has fewer keys than a float has exact numbers")]
    pub fn keys(&self, count: usize) {
        self.keys.set(count as f64);
    }

    /// A bucket that was not full was forgotten for another one.
    pub fn evicted(&self) {
        self.evictions.increment(1);
    }
}

impl std::fmt::Debug for LimitSeries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LimitSeries").finish_non_exhaustive()
    }
}
