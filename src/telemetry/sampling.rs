//! Which operations' spans are exported: decided once when the request is sent on, once more at its end, and why.

pub mod budget;

use std::time::{Duration, Instant};

use http::HeaderName;

use self::budget::Budget;
use super::context::{Context, threshold::Threshold};
use crate::setting::Secret;

/// What is to be sampled.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// The share of new traces that is exported, 0.0 to 1.0.
    pub ratio: f64,
    /// What is kept although the flag that was sent upstream says no.
    pub keep: Keep,
    /// The most spans a second; `None` is no bound.
    pub max_spans_per_second: Option<u32>,
    /// How an authorised caller demands a trace.
    pub force: Option<Force>,
}

/// What is kept at an operation's end although the flag that was sent upstream says no.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Operations whose SERVER span is an error.
    pub errors: bool,
    /// Operations that took longer than their route's `slow_after`.
    pub slow: bool,
    /// Operations of more than one attempt.
    pub retried: bool,
}

/// How an authorised caller demands that a trace is recorded.
#[derive(Debug, Clone)]
pub struct Force {
    /// The field, which never goes further than us.
    pub header: HeaderName,
    /// Its value.
    pub token: Secret,
}

/// What a route says of the sampling of its operations.
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteSampling {
    /// The share of its new traces, in place of the general one.
    pub threshold: Option<Threshold>,
    /// From when on an operation is slow; `None` is never.
    pub slow_after: Option<Duration>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            ratio: 1.0,
            keep: Keep { errors: true, slow: true, retried: true },
            max_spans_per_second: Some(10_000),
            force: None,
        }
    }
}

/// Whether an operation's spans are exported, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// They are.
    Sampled {
        /// Why.
        because: Because,
        /// How likely that was: which randomness would have been rejected. `None` where nobody knows.
        threshold: Option<Threshold>,
    },
    /// They are not.
    Unsampled(Unsampled),
}

impl Decision {
    /// Whether the spans are exported; at the beginning this is the flag that is sent upstream.
    pub fn sampled(self) -> bool {
        matches!(self, Self::Sampled { .. })
    }

    /// Which randomness would have been rejected, if that is known.
    pub fn threshold(self) -> Option<Threshold> {
        match self {
            Self::Sampled { threshold, .. } => threshold,
            Self::Unsampled(_) => None,
        }
    }
}

/// Why spans are exported: `tracegate.sampled_because`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// The caller's flag decided.
    Parent,
    /// The ratio decided.
    Ratio,
    /// An authorised caller demanded it.
    Forced,
    /// The operation was an error: kept at its end.
    Error,
    /// The operation was slow: kept at its end.
    Slow,
    /// There was more than one attempt: kept at its end.
    Retried,
}

impl Because {
    /// The word in the attribute.
    pub fn word(self) -> &'static str {
        match self {
            Self::Parent => "parent",
            Self::Ratio => "ratio",
            Self::Forced => "forced",
            Self::Error => "error",
            Self::Slow => "slow",
            Self::Retried => "retried",
        }
    }
}

/// Why spans are not exported: the reason in the balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Unsampled {
    /// The caller's flag decided.
    Parent,
    /// The ratio decided.
    Ratio,
    /// There were too many in this second.
    Budget,
    /// Nothing is exported at all.
    Off,
}

impl Unsampled {
    /// Every reason, in the order of its index.
    pub const ALL: [Self; 4] = [Self::Parent, Self::Ratio, Self::Budget, Self::Off];

    /// The word in the balance.
    pub fn word(self) -> &'static str {
        match self {
            Self::Parent => "parent",
            Self::Ratio => "ratio",
            Self::Budget => "budget",
            Self::Off => "off",
        }
    }
}

/// What an operation's end says about keeping it.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// The SERVER span is an error.
    pub error: bool,
    /// How long the client waited for the answer's head, or for nothing.
    pub answered_after: Duration,
    /// How many attempts there were.
    pub attempts: usize,
    /// The time.
    pub now: Instant,
}

/// Decides.
#[derive(Debug)]
pub struct Sampler {
    threshold: Threshold,
    keep: Keep,
    budget: Option<Budget>,
    force: Option<Force>,
}

impl Sampler {
    /// A sampler by these settings.
    pub fn new(sampling: Sampling) -> Self {
        Self {
            threshold: Threshold::of_ratio(sampling.ratio),
            keep: sampling.keep,
            budget: sampling.max_spans_per_second.map(|spans| Budget::new(spans, Instant::now())),
            force: sampling.force,
        }
    }

    /// How a trace can be demanded.
    pub fn force(&self) -> Option<&Force> {
        self.force.as_ref()
    }

    /// The decision at the beginning, which the flag sent upstream tells: the caller's, else by the ratio, and
    /// within the budget. What was demanded goes beyond it, at the expense of the others.
    pub fn begin(&self, context: &Context, route: RouteSampling, now: Instant) -> Decision {
        if context.forced {
            self.charge(1, now);
            return Decision::Sampled { because: Because::Forced, threshold: Some(Threshold::ALWAYS) };
        }
        let randomness = context.randomness();
        let (sampled, because, unsampled, threshold) = if let Some(wish) = context.wish {
            // a threshold that contradicts the flag does not say how likely it was
            let threshold = context.state.ot.threshold.filter(|threshold| threshold.keeps(randomness));
            (wish.sampled(), Because::Parent, Unsampled::Parent, threshold)
        } else {
            let threshold = route.threshold.unwrap_or(self.threshold);
            (threshold.keeps(randomness), Because::Ratio, Unsampled::Ratio, Some(threshold))
        };
        if !sampled {
            Decision::Unsampled(unsampled)
        } else if self.take(1, now) {
            Decision::Sampled { because, threshold }
        } else {
            Decision::Unsampled(Unsampled::Budget)
        }
    }

    /// The decision at the end. What the rules keep was sure to be kept, whatever the ratio had said: each
    /// such operation stands for itself alone.
    pub fn end(&self, begun: Decision, route: RouteSampling, end: &End) -> Decision {
        let kept = self.kept(route, end);
        match (begun, kept) {
            (Decision::Sampled { because, threshold }, kept) => {
                self.charge(end.attempts, end.now);
                let threshold = if kept.is_some() { Some(Threshold::ALWAYS) } else { threshold };
                Decision::Sampled { because, threshold }
            }
            (Decision::Unsampled(_), None) => begun,
            (Decision::Unsampled(_), Some(because)) if self.take(1 + end.attempts, end.now) => {
                Decision::Sampled { because, threshold: Some(Threshold::ALWAYS) }
            }
            (Decision::Unsampled(_), Some(_)) => Decision::Unsampled(Unsampled::Budget),
        }
    }

    fn kept(&self, route: RouteSampling, end: &End) -> Option<Because> {
        let Keep { errors, slow, retried } = self.keep;
        if errors && end.error {
            Some(Because::Error)
        } else if slow && route.slow_after.is_some_and(|slow| end.answered_after > slow) {
            Some(Because::Slow)
        } else if retried && end.attempts > 1 {
            Some(Because::Retried)
        } else {
            None
        }
    }

    fn take(&self, spans: usize, now: Instant) -> bool {
        self.budget.as_ref().is_none_or(|budget| budget.take(spans, now))
    }

    fn charge(&self, spans: usize, now: Instant) {
        if let Some(budget) = &self.budget {
            budget.charge(spans, now);
        }
    }
}
