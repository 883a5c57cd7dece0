//! The recorder: starts operations and hands the finished ones to every sink.

use std::fmt;
use std::sync::Arc;

use super::operation::{AttemptRecord, Operation, Record, Sink, Start};
use super::sampling::Sampling;
use super::settings::Privacy;

/// Starts operations and hands the finished ones to every sink.
pub struct Recorder {
    sampling: Sampling,
    privacy: Privacy,
    sinks: Box<[Arc<dyn Sink>]>,
}

impl Recorder {
    /// A recorder that samples by this rule and tells these sinks.
    pub fn new(sampling: Sampling, sinks: impl IntoIterator<Item = Arc<dyn Sink>>) -> Arc<Self> {
        Self::disclosing(Privacy::default(), sampling, sinks)
    }

    /// The same, which lets what is listed here onto the record.
    pub fn disclosing(
        privacy: Privacy,
        sampling: Sampling,
        sinks: impl IntoIterator<Item = Arc<dyn Sink>>,
    ) -> Arc<Self> {
        Arc::new(Self { sampling, privacy, sinks: sinks.into_iter().collect() })
    }

    /// What of the client may be stated.
    pub fn privacy(&self) -> &Privacy {
        &self.privacy
    }

    /// Begins an operation; it ends when the returned owner drops.
    pub fn start(self: &Arc<Self>, start: Start) -> Operation {
        Operation::start(Arc::clone(self) as Arc<dyn Sink>, self.sampling, start)
    }
}

impl Sink for Recorder {
    fn operation_started(&self, record: &Record) {
        self.sinks.iter().for_each(|sink| sink.operation_started(record));
    }

    fn operation_ended(&self, record: &Arc<Record>) {
        self.sinks.iter().for_each(|sink| sink.operation_ended(record));
    }

    fn attempt_started(&self, record: &Record, attempt: &AttemptRecord) {
        self.sinks.iter().for_each(|sink| sink.attempt_started(record, attempt));
    }

    fn attempt_ended(&self, record: &Record, attempt: &AttemptRecord) {
        self.sinks.iter().for_each(|sink| sink.attempt_ended(record, attempt));
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("sinks", &self.sinks.len()).finish_non_exhaustive()
    }
}
