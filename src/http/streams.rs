//! The HTTP/2 streams of one client's connection: each is a task, and none may wait for ever for a client that
//! takes nothing.
//!
//! hyper does not ask a body for more while its stream has no window, so no bound within the body would run then. The
//! task that runs the stream sees it: a piece has been handed out and the next is not asked for.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::task::TaskTracker;

use super::body::stall::Stall;
use crate::failure::Detail;

/// The most bytes of an answer that are handed out at once: what a client has to take within its time.
pub(super) const PIECE: usize = 64 << 10;

/// Runs the streams of one connection where the drain can wait for them.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    tasks: TaskTracker,
    bound: Duration,
    next: Arc<Mutex<Option<Arc<Taking>>>>,
}

impl Streams {
    /// Tasks of this tracker; a client may take nothing of an answer for so long.
    pub(super) fn new(tasks: &TaskTracker, bound: Duration) -> Self {
        Self { tasks: tasks.clone(), bound, next: Arc::default() }
    }

    /// How far the client is with the answer of the stream that is run next: the library makes a stream's answer and
    /// runs the stream in one go.
    pub(super) fn next(&self) -> Arc<Taking> {
        let taking = Arc::<Taking>::default();
        *self.slot() = Some(Arc::clone(&taking));
        taking
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Taking>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        match self.slot().take() {
            Some(taking) => {
                let stall = Stall::new(Some(self.bound));
                self.tasks.spawn(Watched { stream, taking, seen: 0, stall, over: None });
            }
            None => {
                self.tasks.spawn(stream);
            }
        }
    }
}

/// How far a client is with taking an answer.
#[derive(Debug, Default)]
pub(super) struct Taking {
    /// Pieces handed out.
    handed: AtomicU32,
    /// The next one is asked for.
    asked: AtomicBool,
    /// When the exchange must be over, if it has to be.
    ends: OnceLock<Instant>,
    given_up: OnceLock<Detail>,
}

impl Taking {
    /// The next piece is asked for: the one before has been taken.
    pub(super) fn asks(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// A piece has been handed out.
    pub(super) fn handed(&self) {
        self.handed.fetch_add(1, Ordering::Relaxed);
        self.asked.store(false, Ordering::Relaxed);
    }

    /// The exchange must be over by then.
    pub(super) fn end_by(&self, ends: Instant) {
        let _ = self.ends.set(ends);
    }

    /// Why the client is no longer waited for: it took nothing for too long, or the time is over.
    pub(super) fn given_up(&self) -> Option<Detail> {
        self.given_up.get().copied()
    }

    /// The number of the piece that the client has not taken yet.
    fn waiting(&self) -> Option<u32> {
        let handed = self.handed.load(Ordering::Relaxed);
        (handed > 0 && !self.asked.load(Ordering::Relaxed)).then_some(handed)
    }
}

pin_project! {
    /// A stream that is dropped, and so reset, if its client takes nothing for too long.
    struct Watched<F> {
        #[pin]
        stream: F,
        taking: Arc<Taking>,
        seen: u32,
        stall: Stall,
        over: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(waiting) = this.taking.waiting() else {
            this.stall.moved();
            return Poll::Pending;
        };
        if waiting != *this.seen {
            *this.seen = waiting;
            this.stall.moved();
        }
        let over = this.taking.ends.get().is_some_and(|ends| {
            let timer = this.over.get_or_insert_with(|| Box::pin(sleep_until(*ends)));
            timer.as_mut().poll(cx).is_ready()
        });
        let slow = this.stall.poll_over(cx);
        if !over && !slow {
            return Poll::Pending;
        }
        let _ = this.taking.given_up.set(if over { Detail::Total } else { Detail::SlowReader });
        Poll::Ready(())
    }
}
