//! What services say that are asked about requests.

use ::metrics::Counter;

use super::family;
use super::registry::Registry;
use crate::telemetry::attribute::{Configured, OUTCOME, TRACEGATE_RULE};

/// The series of one rule that asks, there for as long as this is held.
#[derive(Debug)]
pub struct QuestionSeries {
    /// It may pass.
    pub passed: Counter,
    /// It may not.
    pub refused: Counter,
    /// Nobody could say, so it may not.
    pub unavailable: Counter,
    /// Nobody could say, and it may all the same.
    pub open: Counter,
}

impl QuestionSeries {
    pub(super) fn new(registry: &Registry, rule: &Configured) -> Self {
        let counter = |outcome: &'static str| {
            registry.owned_counter(family::AUTH_CALLS, &[TRACEGATE_RULE.is(rule), OUTCOME.is(outcome)])
        };
        Self {
            passed: counter("passed"),
            refused: counter("refused"),
            unavailable: counter("unavailable"),
            open: counter("open"),
        }
    }
}
