//! The end of a route that a reload has removed, as it is told to the streams that are still on it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Whether the time of a route is over. One for each route's name, whatever else of the route changes.
#[derive(Debug, Default)]
pub struct Removal {
    over: AtomicBool,
    told: Arc<Notify>,
}

impl Removal {
    /// The route has been removed, and the grace of its streams is over.
    pub fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    /// Whether the time is over: one look, for whoever comes by anyhow.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Comes back when the time is over: for tunnels and others that wait for long.
    pub async fn over(&self) {
        let told = self.told.notified();
        if !self.is_over() {
            told.await;
        }
    }
}

/// One who waits for the end between other things.
#[derive(Debug)]
pub(super) struct Watched {
    removal: Arc<Removal>,
    told: Option<Pin<Box<OwnedNotified>>>,
}

impl Watched {
    pub(super) fn new(removal: Arc<Removal>) -> Self {
        Self { removal, told: None }
    }

    pub(super) fn is_over(&self) -> bool {
        self.removal.is_over()
    }

    /// Whether the time is over. Wakes the task when it will be: it takes a lock, so it is for those who have
    /// been at it for a while.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        let told = self.told.get_or_insert_with(|| Box::pin(Arc::clone(&self.removal.told).notified_owned()));
        matches!(told.as_mut().poll(cx), Poll::Ready(())) || self.removal.is_over()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_told_and_whoever_comes_later_sees_it() {
        let removal = Arc::<Removal>::default();
        let mut watched = Watched::new(Arc::clone(&removal));
        let look = |watched: &mut Watched, cx: &mut Context<'_>| Poll::Ready(watched.poll_over(cx));
        assert!(!poll_fn(|cx| look(&mut watched, cx)).await);
        let waiting = tokio::spawn(async move {
            poll_fn(|cx| if watched.poll_over(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        });
        let tunnel = tokio::spawn({
            let removal = Arc::clone(&removal);
            async move { removal.over().await }
        });
        tokio::task::yield_now().await;
        removal.end();
        waiting.await.expect("told");
        tunnel.await.expect("told");
        removal.over().await;
        let mut late = Watched::new(removal);
        assert!(late.is_over() && poll_fn(|cx| look(&mut late, cx)).await);
    }
}
