//! A bound on standing still.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A bound on standing still: one timer, armed when something first has to be waited for, moved when it fires.
#[derive(Debug)]
pub(crate) struct Stall {
    bound: Option<Duration>,
    /// Since when something has been waited for.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether it has been waited for so long that it is worth more than a timer.
    long: bool,
}

impl Stall {
    /// At most `bound`; `None` is no bound.
    pub(crate) fn new(bound: Option<Duration>) -> Self {
        Self { bound, since: None, timer: None, long: false }
    }

    /// Something came: what is waited for next may take its full time again.
    pub(crate) fn moved(&mut self) {
        self.since = None;
    }

    /// Nothing has come yet: whether the time for it is over. Wakes the task when it will be.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(bound) = self.bound else { return false };
        let deadline = *self.since.get_or_insert_with(Instant::now) + bound;
        let first = deadline.min(deadline - bound + LONG);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(first)));
        loop {
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.long = true;
            if Instant::now() >= deadline {
                return true;
            }
            timer.as_mut().reset(deadline);
        }
    }

    /// Whether this body has been there for a second or more, or has no bound.
    pub(crate) fn is_long(&self) -> bool {
        self.long || self.bound.is_none()
    }
}

/// From then on a body is one of the few that last.
const LONG: Duration = Duration::from_secs(1);
