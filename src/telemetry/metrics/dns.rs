//! How the lookups of endpoints' names go.

use ::metrics::Counter;

use super::family;
use super::registry::Registry;
use crate::telemetry::attribute::OUTCOME;

/// How a lookup went: the label `outcome` of `tracegate_dns_lookups_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupOutcome {
    /// There are addresses.
    Found,
    /// There are none, or nobody could tell.
    Failed,
}

impl LookupOutcome {
    /// Every outcome.
    pub const ALL: [Self; 2] = [Self::Found, Self::Failed];

    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Failed => "failed",
        }
    }
}

/// The series of name lookups.
#[derive(Debug)]
pub struct Lookups([Counter; LookupOutcome::ALL.len()]);

impl Lookups {
    pub(super) fn new(registry: &Registry) -> Self {
        Self(
            LookupOutcome::ALL
                .map(|outcome| registry.counter(family::DNS_LOOKUPS, &[OUTCOME.is(outcome.word())])),
        )
    }

    /// A lookup went so.
    pub fn count(&self, outcome: LookupOutcome) {
        self.0[outcome as usize].increment(1);
    }
}
