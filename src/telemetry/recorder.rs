//! The recorder: starts operations, has them sampled, and hands the finished ones to every sink.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::exemplar::Candidates;
use super::operation::{AttemptRecord, Operation, Record, Records, Sink, Start};
use super::outcome::ErrorType;
use super::sampling::{Decision, End, Force, RouteSampling, Sampler, Sampling};
use super::settings::Privacy;

/// Starts operations, has them sampled, and hands the finished ones to every sink.
pub struct Recorder {
    sampler: Sampler,
    stream_after: Option<Duration>,
    privacy: Privacy,
    sinks: Box<[Arc<dyn Sink>]>,
}

impl Recorder {
    /// A recorder that samples by this rule, takes for a stream what goes on for longer than this after its
    /// head, lets onto the record what is listed here, and tells these sinks.
    pub fn new(
        sampling: Sampling,
        stream_after: Option<Duration>,
        privacy: Privacy,
        sinks: impl IntoIterator<Item = Arc<dyn Sink>>,
    ) -> Arc<Self> {
        let sinks = sinks.into_iter().collect();
        Arc::new(Self { sampler: Sampler::new(sampling), stream_after, privacy, sinks })
    }

    /// What of the client may be stated.
    pub fn privacy(&self) -> &Privacy {
        &self.privacy
    }

    /// Begins an operation; it ends when the returned owner drops.
    pub fn start(self: &Arc<Self>, start: Start) -> Operation {
        Operation::start(Arc::clone(self) as Arc<dyn Records>, self.stream_after, start)
    }

    /// Samples this share of new traces from now on, of routes that do not say otherwise; `None` is the configured one.
    pub fn sample(&self, ratio: Option<f64>) {
        self.sampler.sample(ratio);
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

    fn stream_opened(&self, opening: &Arc<Record>) {
        if opening.decide().sampled() {
            // a span more than the beginning and the end account for
            self.sampler.charge(1, opening.started() + opening.duration());
        }
        self.sinks.iter().for_each(|sink| sink.stream_opened(opening));
    }

    fn operation_leaves(&self, record: &Record, candidates: &mut Candidates) {
        self.sinks.iter().for_each(|sink| sink.operation_leaves(record, candidates));
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
