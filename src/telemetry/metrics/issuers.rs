//! How the fetches of issuers' keys go.

use std::time::{SystemTime, UNIX_EPOCH};

use ::metrics::{Counter, Gauge};

use super::family;
use super::registry::Registry;
use crate::telemetry::attribute::{Configured, OUTCOME, TRACEGATE_RULE};

/// The series of one issuer's keys, there for as long as this is held.
#[derive(Debug)]
pub struct Fetches {
    fetched: Counter,
    failed: Counter,
    keys: Gauge,
    at: Gauge,
}

impl Fetches {
    pub(super) fn new(registry: &Registry, rule: &Configured) -> Self {
        let counter = |outcome: &'static str| {
            registry.owned_counter(family::JWKS_FETCHES, &[TRACEGATE_RULE.is(rule), OUTCOME.is(outcome)])
        };
        Self {
            fetched: counter("fetched"),
            failed: counter("failed"),
            keys: registry.owned_gauge(family::JWKS_KEYS, &[TRACEGATE_RULE.is(rule)]),
            at: registry.owned_gauge(family::JWKS_FETCHED, &[TRACEGATE_RULE.is(rule)]),
        }
    }

    /// A set of so many keys came.
    pub fn fetched(&self, keys: usize) {
        self.fetched.increment(1);
        self.keys.set(u32::try_from(keys).unwrap_or(u32::MAX));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.at.set(now.as_secs_f64());
    }

    /// None came.
    pub fn failed(&self) {
        self.failed.increment(1);
    }
}
