//! The balance of telemetry: what became of every span, access record and error record. The sums add up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ::metrics::{Counter, Gauge};
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

/// A gauge of the metrics page that can be read again.
#[derive(Debug)]
pub struct Level {
    level: AtomicU64,
    gauge: Gauge,
}

impl Level {
    /// A level of 0 that also moves this gauge.
    pub fn new(gauge: Gauge) -> Self {
        gauge.set(0);
        Self { level: AtomicU64::new(0), gauge }
    }

    /// So many more.
    pub fn rise(&self, count: usize) {
        self.level.fetch_add(count as u64, Ordering::Relaxed);
        self.gauge.increment(exact(count));
    }

    /// So many less.
    pub fn fall(&self, count: usize) {
        self.level.fetch_sub(count as u64, Ordering::Relaxed);
        self.gauge.decrement(exact(count));
    }

    /// How high it is.
    pub fn get(&self) -> u64 {
        self.level.load(Ordering::Relaxed)
    }
}

/// A gauge counts in floating point; no queue here holds more than this.
fn exact(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
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

/// What became of the spans meant for one receiver: each is unsampled, or queued until it has been exported
/// or dropped.
#[derive(Debug)]
pub struct SpanBalance {
    exported: Tally,
    unsampled: [Tally; Unsampled::ALL.len()],
    dropped: [Tally; Dropped::ALL.len()],
    queued: Level,
}

impl SpanBalance {
    /// A balance over the counters that `counter` makes for an outcome and a reason, and this gauge.
    pub fn new(counter: impl Fn(&'static str, &'static str) -> Counter, queued: Gauge) -> Self {
        Self {
            exported: Tally::new(counter("exported", "")),
            unsampled: Unsampled::ALL.map(|reason| Tally::new(counter("unsampled", reason.word()))),
            dropped: Dropped::ALL.map(|reason| Tally::new(counter("dropped", reason.word()))),
            queued: Level::new(queued),
        }
    }

    /// So many are not to be exported.
    pub fn unsampled(&self, spans: usize, reason: Unsampled) {
        self.unsampled[reason as usize].add(spans);
    }

    /// So many are to be exported.
    pub fn queued(&self, spans: usize) {
        self.queued.rise(spans);
    }

    /// The receiver has accepted so many that were queued.
    pub fn exported(&self, spans: usize) {
        self.exported.add(spans);
        self.queued.fall(spans);
    }

    /// So many that were queued are lost.
    pub fn dropped(&self, spans: usize, reason: Dropped) {
        self.dropped[reason as usize].add(spans);
        self.queued.fall(spans);
    }

    /// The sums so far.
    pub fn sums(&self) -> SpanSums {
        let unsampled = Unsampled::ALL.map(|reason| (reason.word(), self.unsampled[reason as usize].get()));
        let dropped = Dropped::ALL.map(|reason| (reason.word(), self.dropped[reason as usize].get()));
        SpanSums {
            exported: self.exported.get(),
            unsampled: unsampled.into(),
            dropped: dropped.into(),
            queued: self.queued.get(),
        }
    }
}

/// The sums of a [`SpanBalance`]. Together they are the spans that were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpanSums {
    /// Accepted by the receiver.
    pub exported: u64,
    /// Not to be exported, by reason.
    pub unsampled: BTreeMap<&'static str, u64>,
    /// Lost, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Waiting, or on their way.
    pub queued: u64,
}

impl SpanSums {
    /// Not to be exported, for any reason.
    pub fn all_unsampled(&self) -> u64 {
        self.unsampled.values().sum()
    }

    /// Lost, for any reason.
    pub fn all_dropped(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// What became of the lines of the access log.
#[derive(Debug)]
pub struct LineBalance {
    /// Handed to the operating system.
    pub written: Tally,
    /// Lost: the queue was full, or writing failed.
    pub dropped: Tally,
}

/// What became of the error records: each is queued until it has been written or dropped.
#[derive(Debug)]
pub struct ErrorBalance {
    written: Tally,
    dropped: [(Dropped, Tally); 2],
    resent: Tally,
    queued: AtomicU64,
}

impl ErrorBalance {
    /// A balance over the counters that `counter` makes for an outcome and a reason, and that of records
    /// written once more.
    pub fn new(counter: impl Fn(&'static str, &'static str) -> Counter, resent: Counter) -> Self {
        let dropped = |reason: Dropped| (reason, Tally::new(counter("dropped", reason.word())));
        Self {
            written: Tally::new(counter("written", "")),
            dropped: [Dropped::QueueFull, Dropped::Shutdown].map(dropped),
            resent: Tally::new(resent),
            queued: AtomicU64::new(0),
        }
    }

    /// So many are to be written.
    pub fn queued(&self, records: usize) {
        self.queued.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// So many that were queued have been handed to the operating system.
    pub fn written(&self, records: usize) {
        self.written.add(records);
        self.queued.fetch_sub(records as u64, Ordering::Relaxed);
    }

    /// So many that were queued are lost: the queue was full, or the gateway went down.
    pub fn dropped(&self, records: usize, reason: Dropped) {
        if let Some((_, tally)) = self.dropped.iter().find(|(known, _)| *known == reason) {
            tally.add(records);
        }
        self.queued.fetch_sub(records as u64, Ordering::Relaxed);
    }

    /// So many had been written before and were written again.
    pub fn resent(&self, records: usize) {
        self.resent.add(records);
    }

    /// The sums so far.
    pub fn sums(&self) -> ErrorSums {
        ErrorSums {
            written: self.written.get(),
            dropped: self.dropped.iter().map(|(reason, tally)| (reason.word(), tally.get())).collect(),
            queued: self.queued.load(Ordering::Relaxed),
            resent: self.resent.get(),
        }
    }
}

/// The sums of an [`ErrorBalance`]. Written, dropped and queued together are the exchanges that failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ErrorSums {
    /// Handed to the operating system, once or more often.
    pub written: u64,
    /// Lost, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Waiting, or on their way.
    pub queued: u64,
    /// Written again, because a connection broke that may have lost them.
    pub resent: u64,
}

impl ErrorSums {
    /// Lost, for any reason.
    pub fn all_dropped(&self) -> u64 {
        self.dropped.values().sum()
    }
}
