//! A bounded queue from requests to a thread that is in no hurry: pushing never waits and rarely wakes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Items with a weight, taken in batches by one reader. The reader is woken by the item that it waits for and
/// when a batch is full, not by those between: a wake costs more than everything else here.
#[derive(Debug)]
pub(super) struct Backlog<T> {
    state: Mutex<State<T>>,
    wake: Notify,
    capacity: usize,
    batch: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<(T, usize)>,
    weight: usize,
    /// When this much waits, the reader wants to know.
    wanted: usize,
    closed: bool,
}

/// Why an item was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no room.
    Full,
    /// [`Backlog::close`] was called.
    Closed,
}

impl<T> Backlog<T> {
    /// A queue of at most this weight, read in batches of about this weight, but of half of all at most: there is room
    /// for what makes a batch full.
    pub(super) fn new(capacity: usize, batch: usize) -> Self {
        let state = State { items: VecDeque::new(), weight: 0, wanted: 1, closed: false };
        Self {
            state: Mutex::new(state),
            wake: Notify::new(),
            capacity,
            batch: batch.clamp(1, (capacity / 2).max(1)),
        }
    }

    /// Adds an item, or refuses it at once.
    pub(super) fn push(&self, item: T, weight: usize) -> Result<(), Refused> {
        let mut state = self.state();
        if state.closed {
            return Err(Refused::Closed);
        }
        let before = state.weight;
        if before + weight > self.capacity {
            return Err(Refused::Full);
        }
        state.items.push_back((item, weight));
        state.weight += weight;
        let wakes = (before..state.weight).contains(&(state.wanted - 1));
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// The next batch: as soon as it is full, or this long after its first item, or what is left once the
    /// queue has been closed. `None` is the end. A [`Backlog::nudge`] may make it come early, and empty.
    pub(super) async fn take(&self, delay: Duration) -> Option<Vec<T>> {
        self.wait(delay).await;
        // allocated before the lock is held, which requests wait for
        let mut taken = Vec::with_capacity(self.batch);
        let mut state = self.state();
        let mut room = self.batch;
        if let Some((item, weight)) = state.pop(usize::MAX) {
            taken.push(item);
            room = room.saturating_sub(weight);
        }
        state.pop_into(&mut taken, room);
        (!taken.is_empty() || !state.closed).then_some(taken)
    }

    /// The next item, however heavy it is, as soon as there is one. `None` is the end.
    pub(super) async fn first(&self) -> Option<T> {
        loop {
            self.wait_for_some().await;
            let mut state = self.state();
            if let Some((item, _)) = state.pop(usize::MAX) {
                return Some(item);
            }
            if state.closed {
                return None;
            }
        }
    }

    /// Those that follow, a batch at most and as many as have room in this weight: as soon as they are there, or then.
    pub(super) async fn more(&self, room: usize, until: Instant) -> Vec<T> {
        let room = room.min(self.batch);
        self.wait_for(room, 0, until).await;
        let mut taken = Vec::with_capacity(self.batch);
        self.state().pop_into(&mut taken, room);
        taken
    }

    /// Waits for what [`Backlog::take`] waits for and leaves it to [`Backlog::drain`]; `false` is the end.
    pub(super) async fn filled(&self, delay: Duration) -> bool {
        self.wait(delay).await;
        let state = self.state();
        state.weight > 0 || !state.closed
    }

    /// All that waits, now.
    pub(super) fn drain(&self) -> impl Iterator<Item = T> {
        let mut state = self.state();
        state.weight = 0;
        let items = std::mem::take(&mut state.items);
        drop(state);
        items.into_iter().map(|(item, _)| item)
    }

    async fn wait(&self, delay: Duration) {
        self.wait_for_some().await;
        self.wait_for(self.batch, 1, Instant::now() + delay).await;
    }

    async fn wait_for_some(&self) {
        if self.lacks(1) {
            self.wake.notified().await;
        }
    }

    /// Waits until this much is there, or less than the least, or the end has come, or that moment.
    async fn wait_for(&self, weight: usize, least: usize, until: Instant) {
        while self.lacks(weight) && self.weight() >= least {
            if timeout_at(until, self.wake.notified()).await.is_err() {
                break;
            }
        }
    }

    /// Whether less than this waits, and more may come: then whoever makes it as much wakes the reader.
    fn lacks(&self, weight: usize) -> bool {
        let mut state = self.state();
        state.wanted = weight.max(1);
        state.weight < weight && !state.closed
    }

    /// Refuses further items and lets the reader come to its end.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.wake.notify_one();
    }

    /// Makes the reader look up.
    pub(super) fn nudge(&self) {
        self.wake.notify_one();
    }

    /// Throws away what is left, and says how much that was.
    pub(super) fn clear(&self) -> usize {
        let mut state = self.state();
        let (items, weight) = (std::mem::take(&mut state.items), std::mem::take(&mut state.weight));
        drop(state);
        // not under the lock: with the last item its sinks may go, which close their queues
        drop(items);
        weight
    }

    /// The weight of what waits.
    pub(super) fn weight(&self) -> usize {
        self.state().weight
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// The next item, unless it is heavier than this.
    fn pop(&mut self, room: usize) -> Option<(T, usize)> {
        let next = self.items.pop_front_if(|(_, weight)| *weight <= room)?;
        self.weight -= next.1;
        Some(next)
    }

    /// The next items that have room in this weight.
    fn pop_into(&mut self, taken: &mut Vec<T>, mut room: usize) {
        while let Some((item, weight)) = self.pop(room) {
            taken.push(item);
            room -= weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Backlog, Refused};

    const LONG: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn a_batch_comes_when_it_is_full_and_the_rest_when_the_queue_is_closed() {
        let backlog = Backlog::new(100, 4);
        for (item, weight) in [('a', 1), ('b', 2), ('c', 2), ('d', 1)] {
            backlog.push(item, weight).unwrap();
        }
        assert_eq!(backlog.take(LONG).await, Some(vec!['a', 'b']), "c has no room in it");
        assert_eq!(backlog.weight(), 3);
        backlog.close();
        assert_eq!(backlog.push('e', 1), Err(Refused::Closed));
        assert_eq!(backlog.take(LONG).await, Some(vec!['c', 'd']));
        assert_eq!(backlog.take(LONG).await, None);
    }

    #[tokio::test]
    async fn a_batch_that_does_not_fill_comes_after_the_delay() {
        let backlog = Backlog::new(100, 4);
        backlog.push('a', 1).unwrap();
        assert_eq!(backlog.take(Duration::from_millis(1)).await, Some(vec!['a']));
    }

    #[tokio::test]
    async fn an_item_heavier_than_a_batch_is_a_batch_of_its_own() {
        let backlog = Backlog::new(100, 2);
        backlog.push('a', 9).unwrap();
        backlog.push('b', 1).unwrap();
        assert_eq!(backlog.take(LONG).await, Some(vec!['a']));
    }

    #[tokio::test]
    async fn a_first_item_comes_at_once_and_more_when_they_fill_a_batch_or_at_a_moment() {
        let backlog = Backlog::new(100, 3);
        let (first, ()) = tokio::join!(backlog.first(), async { backlog.push('a', 9).unwrap() });
        assert_eq!(first, Some('a'), "however heavy it is");
        let later = Instant::now() + LONG;
        let (more, ()) = tokio::join!(backlog.more(9, later), async {
            for item in ['b', 'c', 'd'] {
                backlog.push(item, 1).unwrap();
            }
        });
        assert_eq!(more, ['b', 'c', 'd']);
        backlog.push('e', 2).unwrap();
        backlog.push('f', 2).unwrap();
        assert_eq!(backlog.more(3, later).await, ['e'], "f has no room");
        assert!(backlog.more(1, Instant::now()).await.is_empty());
        let (more, ()) = tokio::join!(backlog.more(4, later), async { backlog.push('g', 1).unwrap() });
        assert_eq!(more, ['f', 'g']);
        let (more, ()) = tokio::join!(backlog.more(1, later), async { backlog.push('f', 1).unwrap() });
        assert_eq!(more, ['f'], "less than a batch, but there is no room for more");
        backlog.close();
        assert_eq!((backlog.first().await, backlog.more(9, later).await), (None, vec![]));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_until_there_is_room() {
        let backlog = Backlog::new(3, 2);
        backlog.push('a', 2).unwrap();
        assert_eq!(backlog.push('b', 2), Err(Refused::Full));
        backlog.push('c', 1).unwrap();
        assert_eq!(backlog.take(LONG).await, Some(vec!['a']));
        backlog.push('b', 2).unwrap();
        assert_eq!(backlog.clear(), 3);
    }

    #[tokio::test]
    async fn a_reader_is_woken_before_there_is_no_room_for_what_would_wake_it() {
        let backlog = Backlog::new(80, 80);
        let (taken, ()) = tokio::join!(backlog.take(LONG), async { while backlog.push((), 17).is_ok() {} });
        assert_eq!(taken.map(|items| items.len()), Some(2), "of four that have room");
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_by_the_first_item_by_a_nudge_and_by_the_end() {
        let backlog = Backlog::new(3, 1);
        let (taken, ()) = tokio::join!(backlog.take(LONG), async { backlog.push('a', 1).unwrap() });
        assert_eq!(taken, Some(vec!['a']));
        let (taken, ()) = tokio::join!(backlog.take(LONG), async { backlog.nudge() });
        assert_eq!(taken, Some(vec![]));
        let (taken, ()) = tokio::join!(backlog.take(LONG), async { backlog.close() });
        assert_eq!(taken, None);
    }
}
