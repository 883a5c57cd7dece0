//! What became of the spans that were made, as one receiver's metrics say.

use std::collections::BTreeMap;

use super::metrics::Metrics;

/// The balance of one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// Spans that were made.
    pub made: u64,
    /// Those that the receiver took.
    pub exported: u64,
    /// Those that were not to be exported, by reason.
    pub unsampled: BTreeMap<String, u64>,
    /// Those that are lost, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Those that wait or are on their way.
    pub queued: u64,
}

impl Balance {
    /// The balance of this receiver.
    pub fn of(metrics: &Metrics, receiver: &str) -> Self {
        const SPANS: &str = "tracegate_telemetry_spans_total";
        let count =
            |labels: &[(&str, &str)]| metrics.count(SPANS, &[&[("receiver", receiver)], labels].concat());
        let by_reason = |outcome| {
            let reasons = metrics.label_values(SPANS, "reason").into_iter().map(|reason| {
                let found = count(&[("outcome", outcome), ("reason", &reason)]);
                (reason, found)
            });
            reasons.filter(|(_, count)| *count > 0).collect()
        };
        Self {
            made: metrics.count("tracegate_telemetry_spans_made_total", &[]),
            exported: count(&[("outcome", "exported")]),
            unsampled: by_reason("unsampled"),
            dropped: by_reason("dropped"),
            queued: metrics.count("tracegate_telemetry_spans_queued", &[("receiver", receiver)]),
        }
    }

    /// Whether `made = exported + unsampled + dropped + queued`.
    pub fn adds_up(&self) -> bool {
        let [unsampled, dropped] =
            [&self.unsampled, &self.dropped].map(|counts| counts.values().sum::<u64>());
        self.made == self.exported + unsampled + dropped + self.queued
    }

    /// How many were lost for this reason.
    pub fn dropped_as(&self, reason: &str) -> u64 {
        self.dropped.get(reason).copied().unwrap_or(0)
    }

    /// How many were lost.
    pub fn all_dropped(&self) -> u64 {
        self.dropped.values().sum()
    }
}
