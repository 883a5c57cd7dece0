//! Samples that become exemplars as soon as a receiver has accepted the spans that tell of them.
//!
//! They come from the threads that export, after the fact: a request neither waits nor pays for them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::context::{SpanId, TraceId};

/// One sample of a histogram of seconds, and the span that tells of it.
#[derive(Debug, Clone)]
pub struct Exemplar {
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// The sample.
    pub duration: Duration,
    /// When it was taken.
    pub at: SystemTime,
    /// The same moment on the clock that is never set: of two samples it says which is the later one.
    pub taken: Instant,
}

/// OpenMetrics 1.0, "Exemplars"; to be written after a bucket's count.
impl fmt::Display for Exemplar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace_id, span_id, duration, at, taken: _ } = self;
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let seconds = duration.as_secs_f64();
        write!(f, " # {{trace_id=\"{trace_id}\",span_id=\"{span_id}\"}} {seconds} {at:.3}")
    }
}

/// A series of samples of which some are shown.
pub trait Exemplified: Send + Sync {
    /// Shows this one, which has been recorded before, unless it has a later one.
    fn exemplify(&self, exemplar: Exemplar);
}

/// The samples that the spans of one batch tell of.
#[derive(Default)]
pub struct Candidates(Vec<(Arc<dyn Exemplified>, Exemplar)>);

impl Candidates {
    /// One more, of this series.
    pub fn add(&mut self, series: Arc<dyn Exemplified>, exemplar: Exemplar) {
        self.0.push((series, exemplar));
    }

    /// The batch has been accepted: they become exemplars.
    pub fn accept(&mut self) {
        self.0.drain(..).for_each(|(series, exemplar)| series.exemplify(exemplar));
    }

    /// The batch has not been accepted, or not all of it.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}
