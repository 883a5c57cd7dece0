//! Which operations' spans are exported: one decision function, and why it decided so.

use super::context::{Context, TraceId};

/// What is to be sampled: parent-based, else a ratio of the traces.
#[derive(Debug, Clone, Copy)]
pub struct Sampling {
    /// The share of new traces that is exported, 0.0 to 1.0.
    pub ratio: f64,
}

/// Why spans are exported or not: `tracegate.sampled_because`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Because {
    /// The caller's flag decided.
    Parent,
    /// The ratio decided.
    Ratio,
    /// Nothing is exported at all.
    Off,
}

impl Because {
    /// Every reason, in the order of its index.
    pub const ALL: [Self; 3] = [Self::Parent, Self::Ratio, Self::Off];

    /// The word in the attribute.
    pub fn word(self) -> &'static str {
        match self {
            Self::Parent => "parent",
            Self::Ratio => "ratio",
            Self::Off => "off",
        }
    }

    pub(super) fn from_index(index: u8) -> Self {
        match index {
            0 => Self::Parent,
            1 => Self::Ratio,
            _ => Self::Off,
        }
    }
}

/// A decision and its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether the spans are exported; this is the flag that is sent upstream.
    pub sampled: bool,
    /// Why.
    pub because: Because,
}

impl Sampling {
    /// The decision for one operation.
    pub fn decide(&self, context: &Context) -> Decision {
        match &context.parent {
            Some(parent) => Decision { sampled: parent.flags.sampled(), because: Because::Parent },
            None => Decision { sampled: within(self.ratio, context.trace_id), because: Because::Ratio },
        }
    }
}

/// Whether the trace's randomness lies within the ratio (the OpenTelemetry probability sampler: the
/// right-most 56 bits of the trace id against a threshold).
fn within(ratio: f64, trace_id: TraceId) -> bool {
    const RANGE: u64 = 1 << 56;
    let last = trace_id.0.last_chunk().expect("sixteen bytes end with eight");
    let randomness = u64::from_be_bytes(*last) % RANGE;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the ratio is between 0 and 1, so the product lies within the range"
    )]
    let rejected = ((1.0 - ratio.clamp(0.0, 1.0)) * RANGE as f64) as u64;
    randomness >= rejected
}

#[cfg(test)]
mod tests {
    use super::{Because, Decision, Sampling};
    use crate::telemetry::context::{Context, Flags, Origin, Parent, SpanId, TraceId};

    fn context(randomness: u64, parent: Option<u8>) -> Context {
        let mut trace_id = [0xff; 16];
        trace_id[9..].copy_from_slice(&randomness.to_be_bytes()[1..]);
        Context {
            trace_id: TraceId(trace_id),
            span_id: SpanId::random(),
            parent: parent.map(|flags| Parent { span_id: SpanId::random(), flags: Flags(flags) }),
            state: Box::default(),
            origin: Origin::Started,
        }
    }

    #[test]
    fn the_parent_decides_and_without_one_the_ratio() {
        let (least, half, most) = (0, 1 << 55, (1 << 56) - 1);
        let cases = [
            (1.0, least, None, true, Because::Ratio),
            (1.0, most, None, true, Because::Ratio),
            (0.0, least, None, false, Because::Ratio),
            (0.0, most, None, false, Because::Ratio),
            (0.5, half - 1, None, false, Because::Ratio),
            (0.5, half, None, true, Because::Ratio),
            (0.0, least, Some(1), true, Because::Parent),
            (0.0, least, Some(3), true, Because::Parent),
            (1.0, most, Some(0), false, Because::Parent),
            (1.0, most, Some(2), false, Because::Parent),
        ];
        for (ratio, randomness, parent, sampled, because) in cases {
            let decision = Sampling { ratio }.decide(&context(randomness, parent));
            assert_eq!(decision, Decision { sampled, because }, "{ratio} {randomness:x} {parent:?}");
        }
    }

    #[test]
    fn a_ratio_keeps_its_share_of_random_traces() {
        let sampling = Sampling { ratio: 0.25 };
        let random = || Context { trace_id: TraceId::random(), ..context(0, None) };
        let kept = (0..10_000).filter(|_| sampling.decide(&random()).sampled).count();
        assert!((2_200..2_800).contains(&kept), "{kept} of 10000");
    }
}
