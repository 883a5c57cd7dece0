//! A bounded queue from requests to a thread that is in no hurry: pushing takes no lock, never waits for the reader, and rarely wakes it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Items with a weight, taken in batches by one reader. The reader is woken by the item that it waits for and
/// when a batch is full, not by those between: a wake costs more than everything else here.
///
/// An item has its weight reserved before it is put in. So what waits never weighs more than there is room for, and
/// the reader may find less than it was promised, for a moment.
#[derive(Debug)]
pub(super) struct Backlog<T> {
    /// The weight of all that waits or is being put in, and [`CLOSED`].
    ///
    /// It and `wanted` are in one order for all (`SeqCst`): either the reader, who says what it wants and then looks
    /// how much there is, sees what a writer has reserved, or the writer sees what the reader wants.
    reserved: AtomicUsize,
    /// When this much waits, the reader wants to know.
    wanted: AtomicUsize,
    sender: mpsc::Sender<(T, usize)>,
    /// Locked by readers only.
    receiver: Mutex<Receiver<T>>,
    wake: Notify,
    capacity: usize,
    batch: usize,
}

#[derive(Debug)]
struct Receiver<T> {
    items: mpsc::Receiver<(T, usize)>,
    /// The next, which was too heavy last time.
    held: Option<(T, usize)>,
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
        let (sender, items) = mpsc::channel();
        Self {
            reserved: AtomicUsize::new(0),
            wanted: AtomicUsize::new(1),
            sender,
            receiver: Mutex::new(Receiver { items, held: None }),
            wake: Notify::new(),
            capacity: capacity.min(CLOSED / 2),
            batch: batch.clamp(1, (capacity / 2).max(1)),
        }
    }

    /// Adds an item, or refuses it at once.
    pub(super) fn push(&self, item: T, weight: usize) -> Result<(), Refused> {
        let with = |reserved: usize| (reserved + weight <= self.capacity).then_some(reserved + weight);
        let before = match self.reserved.fetch_update(Ordering::SeqCst, Ordering::SeqCst, with) {
            Ok(before) => before,
            Err(reserved) if reserved & CLOSED != 0 => return Err(Refused::Closed),
            Err(_) => return Err(Refused::Full),
        };
        self.sender.send((item, weight)).expect("the receiver is here");
        if (before..before + weight).contains(&(self.wanted.load(Ordering::SeqCst) - 1)) {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// The next batch: as soon as it is full, or this long after its first item, or what is left once the
    /// queue has been closed. `None` is the end. A [`Backlog::nudge`] may make it come early, and empty.
    pub(super) async fn take(&self, delay: Duration) -> Option<Vec<T>> {
        self.wait(delay).await;
        let mut taken = Vec::with_capacity(self.batch);
        let mut room = self.batch;
        if let Some((item, weight)) = self.pop() {
            taken.push(item);
            room = room.saturating_sub(weight);
        }
        self.pop_into(&mut taken, room);
        (!taken.is_empty() || !self.is_over()).then_some(taken)
    }

    /// The next item, however heavy it is, as soon as there is one. `None` is the end.
    pub(super) async fn first(&self) -> Option<T> {
        loop {
            self.wait_for_some().await;
            if let Some((item, _)) = self.pop() {
                return Some(item);
            }
            if self.is_over() {
                return None;
            }
            // it was woken for nothing, or there is one that is just being put in
            tokio::task::yield_now().await;
        }
    }

    /// Those that follow, a batch at most and as many as have room in this weight: as soon as they are there, or then.
    pub(super) async fn more(&self, room: usize, until: Instant) -> Vec<T> {
        let room = room.min(self.batch);
        self.wait_for(room, 0, until).await;
        let mut taken = Vec::with_capacity(self.batch);
        self.pop_into(&mut taken, room);
        taken
    }

    /// Waits for what [`Backlog::take`] waits for and leaves it to [`Backlog::drain`]; `false` is the end.
    pub(super) async fn filled(&self, delay: Duration) -> bool {
        self.wait(delay).await;
        !self.is_over()
    }

    /// All that waits, now.
    pub(super) fn drain(&self) -> Vec<T> {
        let mut taken = Vec::new();
        self.pop_into(&mut taken, self.weight());
        taken
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
        self.wanted.store(weight.max(1), Ordering::SeqCst);
        // more than any weight when it is closed
        self.reserved.load(Ordering::SeqCst) < weight
    }

    /// Refuses further items and lets the reader come to its end.
    pub(super) fn close(&self) {
        self.reserved.fetch_or(CLOSED, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Makes the reader look up.
    pub(super) fn nudge(&self) {
        self.wake.notify_one();
    }

    /// Closes it, throws away what is left, and says how much that was.
    pub(super) fn clear(&self) -> usize {
        self.close();
        let mut weight = 0;
        while !self.is_over() {
            let mut thrown = Vec::new();
            weight += self.pop_into(&mut thrown, usize::MAX);
            // not under the lock: with the last item its sinks may go, which close their queues
            drop(thrown);
            // one that was just being put in will be there
            std::thread::yield_now();
        }
        weight
    }

    /// The weight of what waits.
    pub(super) fn weight(&self) -> usize {
        self.reserved.load(Ordering::SeqCst) & !CLOSED
    }

    /// Whether nothing waits, and nothing will come.
    fn is_over(&self) -> bool {
        self.reserved.load(Ordering::SeqCst) == CLOSED
    }

    /// The next item, however heavy it is.
    fn pop(&self) -> Option<(T, usize)> {
        let next = self.receiver().pop(usize::MAX)?;
        self.reserved.fetch_sub(next.1, Ordering::SeqCst);
        Some(next)
    }

    /// Takes the next items that have room in this weight; tells how much they weigh.
    fn pop_into(&self, taken: &mut Vec<T>, room: usize) -> usize {
        let mut receiver = self.receiver();
        let mut popped = 0;
        while let Some((item, weight)) = receiver.pop(room - popped) {
            taken.push(item);
            popped += weight;
        }
        self.reserved.fetch_sub(popped, Ordering::SeqCst);
        popped
    }

    fn receiver(&self) -> MutexGuard<'_, Receiver<T>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Receiver<T> {
    /// The next item, unless it is heavier than this.
    fn pop(&mut self, room: usize) -> Option<(T, usize)> {
        let next = self.held.take().or_else(|| self.items.try_recv().ok())?;
        if next.1 > room {
            self.held = Some(next);
            return None;
        }
        Some(next)
    }
}

/// Set in [`Backlog::reserved`] when it takes nothing more; more than any weight.
const CLOSED: usize = 1 << (usize::BITS - 1);

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

    #[test]
    fn each_item_that_is_not_refused_is_taken_or_thrown_away_whoever_puts_it_in_when_it_is_closed() {
        let backlog = Backlog::new(50, 20);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (put, mut taken, thrown) = std::thread::scope(|scope| {
            let put_until_closed = || {
                let mut put = 0;
                loop {
                    match backlog.push((), 3) {
                        Ok(()) => put += 1,
                        Err(Refused::Full) => std::thread::yield_now(),
                        Err(Refused::Closed) => return put,
                    }
                }
            };
            let writers = [(); 3].map(|()| scope.spawn(put_until_closed));
            let taken = runtime.block_on(async {
                let mut taken = 0;
                while taken < 30_000 {
                    taken += backlog.take(LONG).await.unwrap().len();
                    assert!(backlog.weight() <= 50);
                }
                taken
            });
            let thrown = backlog.clear();
            (writers.into_iter().map(|writer| writer.join().unwrap()).sum::<usize>(), taken, thrown)
        });
        taken += thrown / 3;
        assert_eq!((put, thrown % 3, backlog.weight()), (taken, 0, 0));
        assert_eq!(runtime.block_on(backlog.first()), None);
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
