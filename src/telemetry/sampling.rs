//! Which operations' spans are exported, and why: decided when the request is sent on, and again at its end.

pub mod budget;

use std::sync::atomic::{AtomicU64, Ordering};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
            max_spans_per_second: None,
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
    configured: Threshold,
    threshold: AtomicU64,
    keep: Keep,
    budget: Option<Budget>,
    force: Option<Force>,
}

impl Sampler {
    /// A sampler by these settings.
    pub fn new(sampling: Sampling) -> Self {
        let configured = Threshold::of_ratio(sampling.ratio);
        Self {
            configured,
            threshold: AtomicU64::new(configured.number()),
            keep: sampling.keep,
            budget: sampling.max_spans_per_second.map(|spans| Budget::new(spans, Instant::now())),
            force: sampling.force,
        }
    }

    /// How a trace can be demanded.
    pub fn force(&self) -> Option<&Force> {
        self.force.as_ref()
    }

    /// Keeps this share of new traces from now on; `None` is the configured one.
    pub fn sample(&self, ratio: Option<f64>) {
        let threshold = ratio.map_or(self.configured, Threshold::of_ratio);
        self.threshold.store(threshold.number(), Ordering::Relaxed);
    }

    /// The decision at the beginning, which the flag sent upstream tells: the caller's, else by the ratio,
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
            let general = || Threshold::of_number(self.threshold.load(Ordering::Relaxed));
            let threshold = route.threshold.unwrap_or_else(general);
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

    /// Takes so many spans from the budget that are exported in any case.
    pub fn charge(&self, spans: usize, now: Instant) {
        if let Some(budget) = &self.budget {
            budget.charge(spans, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Because, Decision, End, Keep, RouteSampling, Sampler, Sampling, Unsampled};
    use crate::telemetry::context::threshold::Threshold;
    use crate::telemetry::context::{Context, TraceId};

    const HALF: u64 = 1 << 55;

    /// A context with this randomness, or continued with these flags and this `tracestate`.
    fn context(randomness: u64, parent: Option<(u8, &str)>) -> Context {
        let mut trace_id = [0xff; 16];
        trace_id[8..].copy_from_slice(&randomness.to_be_bytes());
        let trace_id = TraceId(trace_id);
        let (traceparent, state) = match parent {
            None => (None, ""),
            Some((flags, state)) => (Some(format!("00-{trace_id}-b7ad6b7169203331-{flags:02}")), state),
        };
        let values = traceparent.as_ref().map(String::as_bytes);
        Context { trace_id, ..Context::from_headers(values, [state.as_bytes()]) }
    }

    fn sampled(because: Because, threshold: &str) -> Decision {
        Decision::Sampled { because, threshold: Threshold::parse(threshold.as_bytes()) }
    }

    #[test]
    fn at_the_beginning_the_caller_decides_and_without_one_the_ratio_of_the_route() {
        use Because::{Parent, Ratio};
        let unsampled = Decision::Unsampled;
        let most = 2 * HALF - 1;
        for (ratio, route, randomness, parent, decision) in [
            (1.0, None, 0, None, sampled(Ratio, "0")),
            (0.0, None, most, None, unsampled(Unsampled::Ratio)),
            (0.5, None, HALF - 1, None, unsampled(Unsampled::Ratio)),
            (0.5, None, HALF, None, sampled(Ratio, "8")),
            (0.0, Some(1.0), 0, None, sampled(Ratio, "0")),
            (1.0, Some(0.25), HALF, None, unsampled(Unsampled::Ratio)),
            (1.0, Some(0.25), HALF + HALF / 2, None, sampled(Ratio, "c")),
            // nobody knows how likely it was, or it is told
            (0.0, None, 0, Some((1, "")), sampled(Parent, "")),
            (0.0, None, HALF, Some((3, "ot=th:8")), sampled(Parent, "8")),
            (0.0, None, 0, Some((1, "ot=rv:80000000000000;th:8")), sampled(Parent, "8")),
            // it is told wrongly
            (0.0, None, HALF - 1, Some((1, "ot=th:8")), sampled(Parent, "")),
            (0.0, None, most, Some((1, "ot=th:8;rv:7fffffffffffff")), sampled(Parent, "")),
            (1.0, None, most, Some((0, "")), unsampled(Unsampled::Parent)),
            (1.0, Some(1.0), most, Some((2, "ot=th:0")), unsampled(Unsampled::Parent)),
        ] {
            let sampler = Sampler::new(Sampling { ratio, ..Sampling::default() });
            let route = RouteSampling { threshold: route.map(Threshold::of_ratio), slow_after: None };
            let decided = sampler.begin(&context(randomness, parent), route, Instant::now());
            assert_eq!(decided, decision, "{ratio} {route:?} {randomness:x} {parent:?}");
        }
    }

    #[test]
    fn a_ratio_keeps_its_share_of_random_traces() {
        let sampler = Sampler::new(Sampling { ratio: 0.25, ..Sampling::default() });
        let random = || Context { trace_id: TraceId::random(), ..context(0, None) };
        let route = RouteSampling::default();
        let decide = |_: &i32| sampler.begin(&random(), route, Instant::now()).sampled();
        let kept = (0..10_000).filter(decide).count();
        assert!((2_200..2_800).contains(&kept), "{kept} of 10000");
    }

    #[test]
    fn at_the_end_the_rules_keep_what_was_not_sampled_and_vouch_for_what_was() {
        use Because::{Error, Parent, Ratio, Retried, Slow};
        let route = RouteSampling { threshold: None, slow_after: Some(Duration::from_secs(1)) };
        let all = Keep { errors: true, slow: true, retried: true };
        let none = Keep { errors: false, slow: false, retried: false };
        let no = Decision::Unsampled(Unsampled::Ratio);
        let tenth = sampled(Ratio, "e666");
        for (keep, begun, error, seconds, attempts, decision) in [
            (all, no, false, 1, 1, no),
            (all, no, true, 0, 1, sampled(Error, "0")),
            (all, no, true, 2, 2, sampled(Error, "0")),
            (all, no, false, 2, 2, sampled(Slow, "0")),
            (all, no, false, 0, 2, sampled(Retried, "0")),
            (all, tenth, false, 0, 1, tenth),
            // the trace is there because of the ratio, but such a span stands for itself alone
            (all, tenth, true, 0, 1, sampled(Ratio, "0")),
            (all, sampled(Parent, ""), false, 2, 1, sampled(Parent, "0")),
            (none, no, true, 2, 2, no),
            (none, tenth, true, 2, 2, tenth),
            (Keep { slow: true, ..none }, no, true, 2, 2, sampled(Slow, "0")),
        ] {
            let sampler = Sampler::new(Sampling { keep, ..Sampling::default() });
            let answered_after = Duration::from_secs(seconds);
            let end = End { error, answered_after, attempts, now: Instant::now() };
            assert_eq!(sampler.end(begun, route, &end), decision, "{keep:?} {begun:?} {end:?}");
        }
    }

    #[test]
    fn the_budget_bounds_all_but_what_is_forced_which_others_give_way_to() {
        let now = Instant::now();
        let sampler = Sampler::new(Sampling { max_spans_per_second: Some(2), ..Sampling::default() });
        let (route, over) = (RouteSampling::default(), Decision::Unsampled(Unsampled::Budget));
        let begin = |context: &Context| sampler.begin(context, route, now);
        let end = End { error: true, answered_after: Duration::ZERO, attempts: 1, now };
        let first = begin(&context(0, None));
        assert_eq!(first, sampled(Because::Ratio, "0"));
        sampler.end(first, route, &end);
        assert_eq!(begin(&context(0, Some((1, "")))), over);
        assert_eq!(sampler.end(over, route, &end), over, "errors, too");
        let forced = Context { forced: true, ..context(0, Some((0, ""))) };
        assert_eq!(begin(&forced), sampled(Because::Forced, "0"));
        // what was missing, and the forced one's span
        let later = |milliseconds| now + Duration::from_millis(milliseconds);
        assert!(!sampler.begin(&context(0, None), route, later(500)).sampled());
        assert!(sampler.begin(&context(0, None), route, later(501)).sampled());
    }
}
