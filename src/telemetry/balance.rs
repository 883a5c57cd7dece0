//! The balance of telemetry: what became of every span and every line of the access log. The sums add up.

use std::sync::atomic::{AtomicU64, Ordering};

use ::metrics::Counter;
use serde::Serialize;

use super::sampling::Unsampled;

/// A counter of the metrics page that can be read again.
#[derive(Debug)]
pub struct Tally {
    count: AtomicU64,
    counter: Counter,
}

impl Tally {
    /// A tally that also moves this counter.
    pub fn new(counter: Counter) -> Self {
        Self { count: AtomicU64::new(0), counter }
    }

    /// So many more.
    pub fn add(&self, count: usize) {
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        self.counter.increment(count as u64);
    }

    /// How many there have been.
    pub fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Why spans were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// The queue was full.
    QueueFull,
    /// The receiver was away for too long.
    GaveUp,
    /// The receiver did not want them.
    Rejected,
    /// The gateway went down before they could be exported.
    Shutdown,
}

impl Dropped {
    const ALL: [Self; 4] = [Self::QueueFull, Self::GaveUp, Self::Rejected, Self::Shutdown];

    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::GaveUp => "gave_up",
            Self::Rejected => "rejected",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What became of the spans meant for one receiver.
#[derive(Debug)]
pub struct SpanBalance {
    exported: Tally,
    unsampled: [Tally; Unsampled::ALL.len()],
    dropped: [Tally; Dropped::ALL.len()],
}

impl SpanBalance {
    /// A balance over the counters that `counter` makes for an outcome and a reason.
    pub fn new(counter: impl Fn(&str, &str) -> Counter) -> Self {
        Self {
            exported: Tally::new(counter("exported", "")),
            unsampled: Unsampled::ALL.map(|reason| Tally::new(counter("unsampled", reason.word()))),
            dropped: Dropped::ALL.map(|reason| Tally::new(counter("dropped", reason.word()))),
        }
    }

    /// The receiver has accepted so many.
    pub fn exported(&self, spans: usize) {
        self.exported.add(spans);
    }

    /// So many were not to be exported.
    pub fn unsampled(&self, spans: usize, reason: Unsampled) {
        self.unsampled[reason as usize].add(spans);
    }

    /// So many are lost.
    pub fn dropped(&self, spans: usize, reason: Dropped) {
        self.dropped[reason as usize].add(spans);
    }

    /// The sums so far.
    pub fn sums(&self) -> SpanSums {
        SpanSums {
            exported: self.exported.get(),
            unsampled: self.unsampled.iter().map(Tally::get).sum(),
            dropped: self.dropped.iter().map(Tally::get).sum(),
        }
    }
}

/// The sums of a [`SpanBalance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SpanSums {
    /// Accepted by the receiver.
    pub exported: u64,
    /// Not to be exported.
    pub unsampled: u64,
    /// Lost.
    pub dropped: u64,
}

/// What became of the lines of the access log.
#[derive(Debug)]
pub struct LineBalance {
    /// Handed to the operating system.
    pub written: Tally,
    /// Lost: the queue was full, or writing failed.
    pub dropped: Tally,
}
