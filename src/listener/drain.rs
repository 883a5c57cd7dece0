//! How a listener's connections learn that the gateway goes down: three moments, each final.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

use tokio::sync::watch;

/// How far the gateway has come on its way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Moment {
    /// It serves.
    #[default]
    Serving,
    /// Every answer says that its connection ends; new ones are still accepted.
    Leaving,
    /// Nothing is accepted, and connections close when their exchanges are over.
    Closing,
    /// Nothing is waited for.
    Cut,
}

/// The moment, shared by all connections.
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<State>);

#[derive(Debug, Default)]
struct State {
    moment: watch::Sender<Moment>,
    /// The same, to be looked at without a lock.
    reached: AtomicU8,
}

impl Drain {
    /// It is now this moment; earlier ones do not come back.
    pub fn advance(&self, moment: Moment) {
        self.0.reached.fetch_max(moment as u8, Ordering::Relaxed);
        self.0.moment.send_if_modified(|now| {
            let later = moment > *now;
            *now = moment.max(*now);
            later
        });
    }

    /// Whether the gateway is leaving, or further.
    pub fn is_leaving(&self) -> bool {
        self.has_passed(Moment::Serving)
    }

    /// The moment that it is.
    pub fn moment(&self) -> Moment {
        *self.0.moment.borrow()
    }

    fn has_passed(&self, moment: Moment) -> bool {
        self.0.reached.load(Ordering::Relaxed) > moment as u8
    }

    /// What the work comes to, or the later moment if that comes first. While serving the moment is waited for
    /// once and not with every poll of the work: all of them have to come from the same task.
    pub async fn during<T>(
        &self,
        moment: Moment,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Moment> {
        // while serving it is waited for once, which the task's budget must not put off
        let mut later = pin!(tokio::task::coop::unconstrained(self.after(moment)));
        let mut waiting = false;
        poll_fn(|cx| {
            if let Poll::Ready(end) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(end));
            }
            if waiting && moment == Moment::Serving && !self.has_passed(moment) {
                return Poll::Pending;
            }
            waiting = true;
            later.as_mut().poll(cx).map(Err)
        })
        .await
    }

    /// Ends when it is later than this moment, with the moment that it is then.
    pub async fn after(&self, moment: Moment) -> Moment {
        let mut moments = self.0.moment.subscribe();
        let later = moments.wait_for(|now| *now > moment).await;
        *later.expect("the sender lives as long as this handle")
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, pending};
    use std::pin::{Pin, pin};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll, Wake};

    use super::{Drain, Moment};

    type Waiting = Pin<Box<dyn Future<Output = Result<(), Moment>> + Send>>;

    /// Woken for one moment it waits for the next one at once, while others are still being woken.
    struct Eager {
        drain: Drain,
        woken: Arc<Woken>,
        next: Mutex<Option<Waiting>>,
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Eager {
        fn wake(self: Arc<Self>) {
            let drain = self.drain.clone();
            let mut next: Waiting =
                Box::pin(async move { drain.during(Moment::Leaving, pin!(pending())).await });
            let poll = next.as_mut().poll(&mut Context::from_waker(&Arc::clone(&self.woken).into()));
            assert!(poll.is_pending());
            *self.next.lock().unwrap() = Some(next);
        }
    }

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// A channel's receivers stand in several lists, woken one after the other: who enters a later one meanwhile is woken
    /// for what it knows already. Which list it is, is random: hence so often.
    #[test]
    fn who_is_woken_for_a_moment_that_it_knows_does_not_miss_the_next() {
        for _ in 0..200 {
            let (drain, woken) = (Drain::default(), Arc::new(Woken::default()));
            let eager =
                Arc::new(Eager { drain: drain.clone(), woken: Arc::clone(&woken), next: Mutex::default() });
            let mut first = pin!(drain.after(Moment::Serving));
            assert!(first.as_mut().poll(&mut Context::from_waker(&Arc::clone(&eager).into())).is_pending());
            drain.advance(Moment::Leaving);
            let mut next = eager.next.lock().unwrap().take().expect("woken");
            let waker = Arc::clone(&woken).into();
            let mut context = Context::from_waker(&waker);
            if woken.0.swap(false, Ordering::Relaxed) {
                assert!(next.as_mut().poll(&mut context).is_pending());
            }
            drain.advance(Moment::Closing);
            assert!(woken.0.load(Ordering::Relaxed), "it is woken");
            assert_eq!(next.as_mut().poll(&mut context), Poll::Ready(Err(Moment::Closing)));
        }
    }

    #[tokio::test]
    async fn moments_come_in_order_and_do_not_come_back() {
        let drain = Drain::default();
        assert_eq!((drain.moment(), drain.is_leaving()), (Moment::Serving, false));
        drain.advance(Moment::Closing);
        drain.advance(Moment::Leaving);
        assert_eq!((drain.moment(), drain.is_leaving()), (Moment::Closing, true));
        assert_eq!(drain.after(Moment::Leaving).await, Moment::Closing);
        let waiting = drain.after(Moment::Closing);
        drain.advance(Moment::Cut);
        assert_eq!(waiting.await, Moment::Cut);
    }
}
