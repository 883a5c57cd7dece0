//! Places for connections: where all are taken, whoever has asked for nothing for longest makes room.
//!
//! Else a few clients that connect and say nothing would keep out those who have something to say.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// So many places.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    taken: Arc<Taken>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken(Mutex<HashMap<u64, Arc<Seat>>>);

#[derive(Debug)]
struct Seat {
    state: Mutex<State>,
    leave: CancellationToken,
}

/// The exchanges that are open on a connection, and since when it is as it is.
#[derive(Debug)]
struct State {
    open: usize,
    since: Instant,
}

/// A place that is taken until this drops.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    seat: Arc<Seat>,
    taken: Arc<Taken>,
    _free: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), taken: Arc::default(), next: AtomicU64::new(0) }
    }

    /// A place, as soon as there is one.
    pub(super) async fn take(&self) -> Place {
        loop {
            if let Ok(free) = Arc::clone(&self.free).try_acquire_owned() {
                return self.place(free);
            }
            self.taken.make_room();
            // all of them may be busy now
            if let Ok(free) = timeout(LOOK_AGAIN, Arc::clone(&self.free).acquire_owned()).await {
                return self.place(free.expect("the semaphore is never closed"));
            }
        }
    }

    fn place(&self, free: OwnedSemaphorePermit) -> Place {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let state = Mutex::new(State { open: 0, since: Instant::now() });
        let seat = Arc::new(Seat { state, leave: CancellationToken::new() });
        self.taken.seats().insert(number, Arc::clone(&seat));
        Place { number, seat, taken: Arc::clone(&self.taken), _free: free }
    }
}

impl Taken {
    fn seats(&self) -> MutexGuard<'_, HashMap<u64, Arc<Seat>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_room(&self) {
        let seats = self.seats();
        let idle = seats.values().filter_map(|seat| Some((seat.idle_since()?, seat)));
        if let Some((_, seat)) = idle.min_by_key(|(since, _)| *since) {
            seat.leave.cancel();
        }
    }
}

impl Seat {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when nothing is asked; `None` while an exchange is open, or if it is leaving already.
    fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.open == 0 && !self.leave.is_cancelled()).then_some(state.since)
    }

    fn count(&self, count: impl FnOnce(usize) -> usize) {
        let mut state = self.lock();
        *state = State { open: count(state.open), since: Instant::now() };
    }
}

impl Place {
    /// Until its connection is to make room.
    pub(super) async fn leaving(&self) {
        self.seat.leave.cancelled().await;
    }

    /// Whether its connection is to make room.
    pub(super) fn is_leaving(&self) -> bool {
        self.seat.leave.is_cancelled()
    }

    /// Whether an exchange is open on its connection.
    pub(super) fn is_busy(&self) -> bool {
        self.seat.lock().open > 0
    }

    /// Whoever opens exchanges on its connection.
    pub(super) fn busy(&self) -> Busy {
        Busy(Arc::clone(&self.seat))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.seats().remove(&self.number);
    }
}

/// Opens exchanges.
#[derive(Debug, Clone)]
pub(super) struct Busy(Arc<Seat>);

impl Busy {
    pub(super) fn open(&self) -> Open {
        self.0.count(|open| open + 1);
        Open(Arc::clone(&self.0))
    }
}

/// An exchange that is open until this drops.
#[derive(Debug)]
pub(super) struct Open(Arc<Seat>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count(|open| open.saturating_sub(1));
    }
}

pin_project! {
    /// The body of an exchange's answer, which ends with it.
    #[derive(Debug)]
    pub(super) struct Answer<B> {
        #[pin]
        body: B,
        _open: Open,
    }
}

impl<B> Answer<B> {
    pub(super) fn new(body: B, open: Open) -> Self {
        Self { body, _open: open }
    }
}

impl<B: Body> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long is waited for a place before somebody else is looked for who could make room.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
