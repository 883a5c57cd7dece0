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
}

impl Stall {
    /// At most `bound`; `None` is no bound.
    pub(crate) fn new(bound: Option<Duration>) -> Self {
        Self { bound, since: None, timer: None }
    }

    /// Something came: what is waited for next may take its full time again.
    pub(crate) fn moved(&mut self) {
        self.since = None;
    }

    /// Nothing has come yet: whether the time for it is over. Wakes the task when it will be.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(bound) = self.bound else { return false };
        let deadline = *self.since.get_or_insert_with(Instant::now) + bound;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            if Instant::now() >= deadline {
                return true;
            }
            timer.as_mut().reset(deadline);
        }
    }
}
