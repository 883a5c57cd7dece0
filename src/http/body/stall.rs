//! A bound on standing still, and on coming in drops.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::listener::timeouts::{Pace, Waiting};

/// A bound on standing still: one timer, armed when something first has to be waited for, moved when it fires.
#[derive(Debug)]
pub(crate) struct Stall {
    pace: Option<Pace>,
    waiting: Waiting,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether it has been waited for so long that it is worth more than a timer.
    long: bool,
}

impl Stall {
    /// At most `bound`; `None` is no bound.
    pub(crate) fn new(bound: Option<Duration>) -> Self {
        Self::at(bound.map(Pace::standing_still))
    }

    /// At this pace or faster; `None` is any.
    pub(crate) fn at(pace: Option<Pace>) -> Self {
        Self { pace, waiting: Waiting::default(), timer: None, long: false }
    }

    /// Enough came: what is waited for next may take its full time again.
    pub(crate) fn moved(&mut self) {
        self.came(u64::MAX);
    }

    /// So many bytes came.
    pub(crate) fn came(&mut self, bytes: u64) {
        if let Some(pace) = self.pace {
            self.waiting.came(bytes, pace);
        }
    }

    /// Nothing has come yet: whether the time for it is over. Wakes the task when it will be.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(pace) = self.pace else { return false };
        let deadline = self.waiting.deadline(pace);
        let first = deadline.min(Instant::now() + LONG);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(first)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
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
        self.long || self.pace.is_none()
    }

    /// Whether what has taken too long came in drops, and has not simply stood still.
    pub(crate) fn is_in_drops(&self) -> bool {
        self.pace.is_some_and(|pace| self.waiting.is_in_drops(pace))
    }
}

/// From then on a body is one of the few that last.
const LONG: Duration = Duration::from_secs(1);
