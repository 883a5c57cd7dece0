//! Receivers of spans: what every one of them does and answers.

mod client;
pub mod otlp;
pub mod zipkin;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use super::span::Span;

/// Takes batches of spans, one at a time.
pub trait Receiver: Send {
    /// The word for it in labels and logs.
    fn name(&self) -> &'static str;

    /// Writes these spans into the batch that is being made.
    fn add(&mut self, spans: &mut dyn Iterator<Item = Span<'_>>);

    /// The batch as it is sent, compressed if that is wanted; what is added from now on is the next one's. It may be
    /// sent several times.
    fn batch(&mut self) -> Bytes;

    /// Sends a batch once and says what became of it. It ends by itself within the receiver's timeout.
    fn send(&mut self, batch: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>>;
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All of it was taken in.
    Accepted,
    /// It was taken in, but for some of its spans, if any.
    Partly {
        /// The number of spans that were refused for good; 0 if there is only something to say.
        rejected: usize,
        /// What the receiver said.
        why: String,
    },
    /// All of it was refused for good.
    Refused(String),
    /// Nothing is known to be taken in; it may be sent again.
    Later {
        /// The time for which the receiver wants nothing more, if it said.
        wait: Option<Duration>,
        /// What the receiver said, or what stood in the way.
        why: String,
    },
}
