//! How reloads go, and which configuration is in force.

use std::time::SystemTime;

use ::metrics::{Counter, Gauge};
use serde::Serialize;

use super::family;
use super::registry::Registry;
use crate::telemetry::attribute::OUTCOME;

/// How a reload went: the label `outcome` of `tracegate_reloads_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadOutcome {
    /// Another configuration is in force.
    Applied,
    /// It says what the one in force says.
    Unchanged,
    /// It is wrong; the one before stays in force.
    Refused,
}

impl ReloadOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Refused];

    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// What is in force.
#[derive(Debug, Clone, Copy)]
pub struct InForce {
    /// 1 since the start, one more with each that is applied.
    pub generation: u64,
    /// A number made of it.
    pub hash: u64,
    /// Keys that wait for a restart.
    pub awaiting_restart: usize,
    /// Whether it is the last good one, in the place of configured files that are broken.
    pub last_good: bool,
}

/// The series of reloads.
#[derive(Debug)]
pub struct Reloads {
    outcomes: [Counter; ReloadOutcome::ALL.len()],
    generation: Gauge,
    hash: Gauge,
    successful: Gauge,
    timestamp: Gauge,
    awaiting_restart: Gauge,
    last_good: Gauge,
}

impl Reloads {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            outcomes: ReloadOutcome::ALL
                .map(|outcome| registry.counter(family::RELOADS, &[OUTCOME.is(outcome.word())])),
            generation: registry.gauge(family::CONFIG_GENERATION, &[]),
            hash: registry.gauge(family::CONFIG_HASH, &[]),
            successful: registry.gauge(family::CONFIG_SUCCESSFUL, &[]),
            timestamp: registry.gauge(family::CONFIG_TIMESTAMP, &[]),
            awaiting_restart: registry.gauge(family::CONFIG_RESTART, &[]),
            last_good: registry.gauge(family::CONFIG_LAST_GOOD, &[]),
        }
    }

    /// This is in force, from the start on or after a reload that was not refused.
    pub fn in_force(&self, what: InForce) {
        #[expect(clippy::cast_precision_loss, reason = "gauges are floating-point; the hash has 48 bits")]
        let number = |number: u64| number as f64;
        self.generation.set(number(what.generation));
        self.hash.set(number(what.hash));
        self.awaiting_restart.set(number(what.awaiting_restart as u64));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.timestamp.set(now.as_secs_f64());
        self.successful.set(f64::from(!what.last_good));
        self.last_good.set(f64::from(what.last_good));
    }

    /// A reload went so.
    pub fn count(&self, outcome: ReloadOutcome) {
        self.outcomes[outcome as usize].increment(1);
        if outcome == ReloadOutcome::Refused {
            self.successful.set(0.0);
        }
    }
}
