//! Receivers of spans: what every one of them answers.

pub mod otlp;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use opentelemetry_sdk::trace::SpanData;

/// Takes batches of spans, one at a time.
pub trait Receiver: Send {
    /// The word for it in labels and logs.
    fn name(&self) -> &'static str;

    /// Sends a batch once and says what became of it. It ends by itself within the receiver's timeout.
    fn export(&mut self, spans: Vec<SpanData>) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>>;
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All of it was taken in.
    Accepted,
    /// So many of its spans were refused for good, the others taken in.
    Rejected {
        /// The number of refused spans.
        spans: usize,
        /// What the receiver said, in the exporting library's words.
        why: String,
    },
    /// Nothing was taken in, and it is not to be sent again before this time is over.
    RetryAfter(Duration),
    /// Nothing is known to be taken in; it may be sent again.
    Failed(String),
}
