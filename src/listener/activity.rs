//! What a connection and the exchanges on it know of each other.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::failure::{Detail, Failure, Reason};

/// No moment at all.
const NEVER: u64 = u64::MAX;

/// How many exchanges are open on a connection, when the last one ended, and why it is cut, if it is.
#[derive(Debug)]
pub struct Activity {
    created: Instant,
    open: AtomicUsize,
    served: AtomicUsize,
    /// Requests whose bodies have not been read to their ends.
    unread: AtomicUsize,
    last_end: AtomicU64,
    progress: AtomicU64,
    cut: OnceLock<(Reason, Option<Detail>)>,
    http2: AtomicBool,
    retiring: AtomicBool,
    quiet: AtomicBool,
    upgrade_asked: AtomicBool,
    /// When the open exchange of an HTTP/1.1 connection must be over.
    ends: AtomicU64,
    fate: OnceLock<Fate>,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            created: Instant::now(),
            open: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            unread: AtomicUsize::new(0),
            last_end: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            cut: OnceLock::new(),
            http2: AtomicBool::new(false),
            retiring: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            upgrade_asked: AtomicBool::new(false),
            ends: AtomicU64::new(NEVER),
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
        self.ends.store(NEVER, Ordering::Relaxed);
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    /// An exchange begins whose request has a body.
    pub fn body_begins(&self) {
        self.unread.fetch_add(1, Ordering::AcqRel);
    }

    /// That body has been read to its end.
    pub fn body_ended(&self) {
        self.unread.fetch_sub(1, Ordering::AcqRel);
    }

    /// An upgrade has been asked for. The library ends with one for good then, even if it was refused.
    pub fn upgrade_asked(&self) {
        self.upgrade_asked.store(true, Ordering::Relaxed);
    }

    /// Whether an upgrade has been asked for, ever.
    pub fn was_asked_for_upgrade(&self) -> bool {
        self.upgrade_asked.load(Ordering::Relaxed)
    }

    /// Whether a body has not been read to its end, perhaps because nobody wants it any more.
    pub fn has_unread(&self) -> bool {
        self.unread.load(Ordering::Acquire) > 0
    }

    /// The answers of an HTTP/2 connection have come on by so much.
    pub fn advance(&self, progress: u64) {
        self.progress.fetch_add(progress, Ordering::Relaxed);
    }

    /// How far the answers of an HTTP/2 connection have come, in no unit; it may wrap.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// The open exchange of an HTTP/1.1 connection must be over by then.
    pub fn end_by(&self, ends: Instant) {
        let since = ends.saturating_duration_since(self.created).as_nanos();
        self.ends.store(u64::try_from(since).unwrap_or(NEVER), Ordering::Relaxed);
    }

    /// When the open exchange must be over, if it has to be.
    pub fn ends(&self) -> Option<Instant> {
        let since = self.ends.load(Ordering::Relaxed);
        (since != NEVER).then(|| self.created + Duration::from_nanos(since))
    }

    /// The client is to be asked to make a new connection, for this reason.
    pub fn retire(&self, why: Fate) {
        self.meets(why);
        self.retiring.store(true, Ordering::Relaxed);
    }

    /// Whether the client is to be asked to make a new connection.
    pub fn is_retiring(&self) -> bool {
        self.retiring.load(Ordering::Relaxed)
    }

    /// Whether nothing has been said on an HTTP/1.1 connection for so long that it is to be parked.
    pub fn set_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::Relaxed);
    }

    /// Whether it is to be parked.
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
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
    /// Its client was asked to make a new one: it was old.
    Aged,
    /// The same: it had served as many requests as one may.
    Spent,
    /// It sent a flood of HTTP/2 frames.
    Flooded,
    /// It broke.
    Broken,
}
