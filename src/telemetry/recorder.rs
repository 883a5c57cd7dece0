//! The recorder: starts operations, has them sampled, and hands the finished ones to every sink.

use std::fmt;
use std::sync::Arc;

use super::operation::{AttemptRecord, Operation, Record, Records, Sink, Start};
use super::outcome::ErrorType;
use super::sampling::{Decision, End, Force, RouteSampling, Sampler, Sampling};

/// Starts operations, has them sampled, and hands the finished ones to every sink.
pub struct Recorder {
    sampler: Sampler,
    sinks: Box<[Arc<dyn Sink>]>,
}

impl Recorder {
    /// A recorder that samples by this rule and tells these sinks.
    pub fn new(sampling: Sampling, sinks: impl IntoIterator<Item = Arc<dyn Sink>>) -> Arc<Self> {
        Arc::new(Self { sampler: Sampler::new(sampling), sinks: sinks.into_iter().collect() })
    }

    /// Begins an operation; it ends when the returned owner drops.
    pub fn start(self: &Arc<Self>, start: Start) -> Operation {
        Operation::start(Arc::clone(self) as Arc<dyn Records>, start)
    }

    /// How an authorised caller can demand that its trace is recorded.
    pub fn force(&self) -> Option<&Force> {
        self.sampler.force()
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

impl Records for Recorder {
    fn begin(&self, record: &Record) -> Decision {
        self.sampler.begin(&record.context, route(record), record.started)
    }

    fn end(&self, record: &Record, begun: Decision) -> Decision {
        let end = End {
            error: ErrorType::of_operation(record).is_some(),
            answered_after: record.time_to_first_byte().unwrap_or_else(|| record.duration()),
            attempts: record.attempts().count(),
            now: record.started + record.duration(),
        };
        self.sampler.end(begun, route(record), &end)
    }
}

fn route(record: &Record) -> RouteSampling {
    record.route_labels().map(|route| route.sampling).unwrap_or_default()
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("sinks", &self.sinks.len()).finish_non_exhaustive()
    }
}
