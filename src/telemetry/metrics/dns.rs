//! How the lookups of endpoints' names go.

use ::metrics::Counter;

use super::family;
use super::registry::Registry;

/// How a lookup went: the label `outcome` of `tracegate_dns_lookups_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupOutcome {
    /// There are addresses.
    Found,
    /// There is no such name, or it has no address.
    NotFound,
    /// No answer in time.
    Timeout,
    /// The servers could not be asked, or answered with a failure.
    Failed,
}

impl LookupOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Found, Self::NotFound, Self::Timeout, Self::Failed];

    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NotFound => "not_found",
            Self::Timeout => "timeout",
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
                .map(|outcome| registry.counter(family::DNS_LOOKUPS, &[("outcome", outcome.word())])),
        )
    }

    /// A lookup went so.
    pub fn count(&self, outcome: LookupOutcome) {
        self.0[outcome as usize].increment(1);
    }
}
