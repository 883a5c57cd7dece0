//! What is known of endpoints beside their requests: health, ejection, use; and of their upstream as a whole.

use ::metrics::{Counter, Gauge};

use super::family;
use super::registry::Registry;
use crate::telemetry::attribute::{Configured, OUTCOME, TRACEGATE_ENDPOINT, TRACEGATE_UPSTREAM};

/// What became of a health check: the label `outcome` of `tracegate_endpoint_health_checks_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The endpoint answered as it should.
    Passed,
    /// It answered otherwise, or broke.
    WrongAnswer,
    /// There was no connection to it.
    Unreachable,
    /// It took too long.
    Timeout,
}

impl CheckOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Passed, Self::WrongAnswer, Self::Unreachable, Self::Timeout];

    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::WrongAnswer => "wrong_answer",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
        }
    }
}

/// What became of the wish to eject an endpoint: the label `outcome` of `tracegate_endpoint_ejections_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EjectionOutcome {
    /// It is ejected.
    Ejected,
    /// As many are ejected as may be, or nobody else is left.
    Refused,
}

impl EjectionOutcome {
    /// Every outcome.
    pub const ALL: [Self; 2] = [Self::Ejected, Self::Refused];

    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ejected => "ejected",
            Self::Refused => "refused",
        }
    }
}

/// The state of one endpoint of one upstream. There for as long as it is held.
#[derive(Debug)]
pub struct EndpointState {
    /// Whether requests go to it.
    pub usable: Gauge,
    /// Whether its health checks pass, if it is checked.
    pub healthy: Option<Gauge>,
    /// Whether it is ejected.
    pub ejected: Gauge,
    /// Whether its operator lets it be used.
    pub in_use: Gauge,
    checks: Option<[Counter; CheckOutcome::ALL.len()]>,
    ejections: [Counter; EjectionOutcome::ALL.len()],
}

impl EndpointState {
    pub(super) fn new(
        registry: &Registry,
        upstream: &Configured,
        endpoint: &Configured,
        checked: bool,
    ) -> Self {
        let labels = [TRACEGATE_ENDPOINT.is(endpoint), TRACEGATE_UPSTREAM.is(upstream)];
        let gauge = |family| registry.owned_gauge(family, &labels);
        let counter = |family, outcome: &'static str| {
            let [endpoint, upstream] = labels.clone();
            registry.owned_counter(family, &[endpoint, upstream, OUTCOME.is(outcome)])
        };
        Self {
            usable: gauge(family::ENDPOINT_USABLE),
            healthy: checked.then(|| gauge(family::ENDPOINT_HEALTHY)),
            ejected: gauge(family::ENDPOINT_EJECTED),
            in_use: gauge(family::ENDPOINT_IN_USE),
            checks: checked
                .then(|| CheckOutcome::ALL.map(|outcome| counter(family::ENDPOINT_CHECKS, outcome.word()))),
            ejections: EjectionOutcome::ALL
                .map(|outcome| counter(family::ENDPOINT_EJECTIONS, outcome.word())),
        }
    }

    /// A health check came to this.
    pub fn checked(&self, outcome: CheckOutcome) {
        if let Some(checks) = &self.checks {
            checks[outcome as usize].increment(1);
        }
    }

    /// It was to be ejected.
    pub fn ejection(&self, outcome: EjectionOutcome) {
        self.ejections[outcome as usize].increment(1);
    }
}
