//! Timers at rest: most exchanges are over long before their deadline, and to arm a timer for each would be
//! undone work. A timer is lent instead, and moved only when it would fire after the deadline of its borrower, or has
//! fired before.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::worker::PerWorker;

/// Timers that exchanges use one after the other.
#[derive(Debug)]
pub struct Timers(PerWorker<Mutex<Vec<Timer>>>);

type Timer = Pin<Box<Sleep>>;

impl Timers {
    /// Those of so many workers.
    pub fn new(workers: usize) -> Self {
        Self(PerWorker::new(workers))
    }

    /// What the work comes to; `None` if the deadline comes first.
    pub async fn until<T>(
        &self,
        deadline: Instant,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let mut lent = Lent { timers: self, timer: None };
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => lent.poll(deadline, cx).map(|()| None),
        })
        .await
    }

    /// A timer that fires at the deadline or before.
    fn take(&self, deadline: Instant) -> Timer {
        let rested = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(mut timer) = rested else { return Box::pin(sleep_until(deadline)) };
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        timer
    }
}

/// A timer on loan, once something has to be waited for.
struct Lent<'a> {
    timers: &'a Timers,
    timer: Option<Timer>,
}

impl Lent<'_> {
    fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| self.timers.take(deadline));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Some(timer) = self.timer.take().filter(|timer| !timer.is_elapsed()) else { return };
        let mut resting = self.timers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if resting.len() < MOST_RESTING {
            resting.push(timer);
        }
    }
}

/// The most timers at rest, of a worker. Each may keep the task of its last borrower in memory until it fires.
const MOST_RESTING: usize = 64;

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::Timers;

    fn resting(timers: &Timers) -> usize {
        timers.0.lock().expect("not poisoned").len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lent_timer_fires_at_the_deadline_of_its_borrower() {
        let (timers, start) = (Timers::new(1), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(timers.until(start + second, pin!(ready(1))).await, Some(1));
        assert_eq!(resting(&timers), 0, "nothing had to be waited for");
        assert_eq!(timers.until(start + second, pin!(sleep(second / 2))).await, Some(()));
        assert_eq!(resting(&timers), 1);
        // it fires at one second, for nobody, and is moved
        assert_eq!(timers.until(start + 3 * second, pin!(sleep(2 * second))).await, Some(()));
        assert_eq!(start.elapsed(), 2 * second + second / 2);
        // the next deadline is before the one it is armed for
        let soon = Instant::now() + second / 4;
        assert_eq!(timers.until(soon, pin!(pending::<()>())).await, None);
        assert_eq!((Instant::now(), resting(&timers)), (soon, 0));
    }
}
