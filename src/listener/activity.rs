//! What a connection and the exchanges on it know of each other.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::failure::{Detail, Failure, Reason};

/// How many exchanges are open on a connection, when the last one ended, and why it is cut, if it is.
#[derive(Debug)]
pub struct Activity {
    created: Instant,
    open: AtomicUsize,
    served: AtomicUsize,
    last_end: AtomicU64,
    progress: AtomicU64,
    cut: OnceLock<(Reason, Option<Detail>)>,
    http2: AtomicBool,
    fate: OnceLock<Fate>,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            created: Instant::now(),
            open: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            last_end: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            cut: OnceLock::new(),
            http2: AtomicBool::new(false),
            fate: OnceLock::new(),
        }
    }
}

impl Activity {
    /// An exchange begins.
    pub fn begin(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    /// An exchange is over.
    pub fn end(&self) {
        let since = u64::try_from(self.created.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last_end.store(since, Ordering::Relaxed);
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    /// The answers of an HTTP/2 connection have come on by so much.
    pub fn advance(&self, progress: u64) {
        self.progress.fetch_add(progress, Ordering::Relaxed);
    }

    /// How far the answers of an HTTP/2 connection have come, in no unit; it may wrap.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Exchanges open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Exchanges that have begun since the connection was accepted.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Since when there has been no exchange; meaningful while none is open.
    pub fn idle_since(&self) -> Instant {
        self.created + Duration::from_nanos(self.last_end.load(Ordering::Relaxed))
    }

    /// The connection is about to be dropped on purpose; open exchanges end for this reason.
    pub fn cut(&self, failure: &Failure) {
        let _ = self.cut.set((failure.reason, failure.detail));
    }

    /// Why the connection was cut, if somebody did so on purpose.
    pub fn cut_reason(&self) -> Option<Failure> {
        self.cut.get().map(|&stated| stated.into())
    }

    /// The client speaks HTTP/2.
    pub fn set_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
    }

    /// Whether the client speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }

    /// What became of the connection, if it did not simply end. The first word counts.
    pub fn meets(&self, fate: Fate) {
        let _ = self.fate.set(fate);
    }

    /// What became of the connection.
    pub fn fate(&self) -> Option<Fate> {
        self.fate.get().copied()
    }
}

/// What may become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A head that could not be read has been answered and recorded.
    Refused,
    /// A bound in time was reached: a slow head, a slow reader, nothing to say.
    TimedOut,
    /// It sent a flood of HTTP/2 frames.
    Flooded,
    /// It broke.
    Broken,
}
