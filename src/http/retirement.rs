//! When a client is asked to make a new connection: this one is old, or has served as many requests as one may.
//!
//! Nothing is cut: HTTP/1.1 says `Connection: close` with the next answer, HTTP/2 says GOAWAY and goes on with its
//! streams. Load that hangs on old connections so finds its way to gateways that have come since.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::listener::activity::{Activity, Fate};

/// The share of a connection's age by which it may become older, at random: connections that were made at the same
/// moment do not all end at the same moment.
const JITTER: f64 = 0.1;

/// Watches over one connection's age.
#[derive(Debug)]
pub(super) struct Retirement {
    age: Option<Pin<Box<Sleep>>>,
    told: bool,
}

impl Retirement {
    /// At this age, or a little later.
    pub(super) fn at(age: Option<Duration>) -> Self {
        let age = age.map(|age| Box::pin(sleep(age.mul_f64(1.0 + JITTER * rand::random::<f64>()))));
        Self { age, told: false }
    }

    /// What the work on the connection comes to; `None` once if its client is to be asked to make a new one first.
    pub(super) async fn during<T>(
        &mut self,
        activity: &Activity,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        poll_fn(|cx| {
            if let Poll::Ready(end) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(end));
            }
            if self.told {
                return Poll::Pending;
            }
            if self.age.as_mut().is_some_and(|age| age.as_mut().poll(cx).is_ready()) {
                activity.retire(Fate::Aged);
            }
            self.told = activity.is_retiring();
            if self.told { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}
