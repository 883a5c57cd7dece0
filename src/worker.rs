//! The threads that serve connections. Each has a runtime of its own, and a connection stays with the one it was given
//! to: workers that take tasks off each other's hands also take them off each other's caches.
//!
//! What is needed for nearly every request and may not be shared is kept [`PerWorker`].

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId, available_parallelism};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The workers of a gateway. With the last clone of this they end, if they have not been told to before.
#[derive(Debug, Clone)]
pub struct Workers(Arc<All>);

#[derive(Debug)]
struct All {
    workers: Vec<Worker>,
    /// What is no request runs here.
    beside: Handle,
    /// Its receivers are the threads that have not ended.
    threads: watch::Sender<()>,
    _end: DropGuard,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// How many connections it has.
    connections: Arc<AtomicUsize>,
}

/// Which worker it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id {
    thread: ThreadId,
    /// Among those of its gateway, from 0.
    index: usize,
}

thread_local! {
    static CURRENT: Cell<Option<Id>> = const { Cell::new(None) };
}

/// The worker that this is the thread of.
pub fn current() -> Option<Id> {
    CURRENT.get()
}

/// How many workers there are: as many as this, else as `TOKIO_WORKER_THREADS` says, else as the CPU limit allows.
/// An error says what is wrong with the variable.
pub fn count(setting: Option<usize>) -> Result<usize, String> {
    count_by(setting, std::env::var("TOKIO_WORKER_THREADS").ok().as_deref())
}

/// `available_parallelism` knows the process's affinity and the CPU limit of its control group.
fn count_by(setting: Option<usize>, variable: Option<&str>) -> Result<usize, String> {
    match (setting, variable) {
        (Some(workers), _) => Ok(workers.max(1)),
        (None, Some(text)) => text
            .parse::<NonZeroUsize>()
            .map(NonZeroUsize::get)
            .map_err(|_| "TOKIO_WORKER_THREADS must be a whole number from 1 up".into()),
        (None, None) => Ok(available_parallelism().map_or(1, NonZeroUsize::get)),
    }
}

impl Workers {
    /// Starts so many threads beside those of the runtime it is called in. They end when they are told to stop and the
    /// tracked tasks are over, or have had a moment.
    pub fn start(count: usize, stop: &CancellationToken, tasks: &TaskTracker) -> io::Result<Self> {
        let stop = stop.child_token();
        let (threads, running) = watch::channel(());
        let mut all =
            All { workers: Vec::new(), beside: Handle::current(), threads, _end: stop.clone().drop_guard() };
        for index in 0..count {
            let (stop, tasks, running) = (stop.clone(), tasks.clone(), running.clone());
            let (tell, told) = mpsc::channel();
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                CURRENT.set(Some(Id { thread: thread::current().id(), index }));
                // here, as a runtime must not be dropped where another one is running
                let runtime = match Builder::new_current_thread()
                    .global_queue_interval(FROM_OTHERS_EVERY)
                    .enable_all()
                    .build()
                {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(tell.send(Err(error))),
                };
                let _ = tell.send(Ok(runtime.handle().clone()));
                runtime.block_on(async {
                    stop.cancelled().await;
                    tasks.close();
                    let _ = tokio::time::timeout(LAST_MOMENT, tasks.wait()).await;
                });
                runtime.shutdown_background();
                drop(running);
            })?;
            let runtime = told.recv().expect("it tells before it ends")?;
            all.workers.push(Worker { runtime, connections: Arc::default() });
        }
        Ok(Self(Arc::new(all)))
    }

    /// Waits until all threads have ended, once they have been told to stop.
    pub async fn ended(&self) {
        self.0.threads.closed().await;
    }

    fn all(&self) -> &[Worker] {
        &self.0.workers
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all().len()
    }

    /// How many connections each has.
    pub fn connections(&self) -> impl Iterator<Item = usize> {
        self.all().iter().map(|worker| worker.connections.load(Ordering::Relaxed))
    }

    /// How many tasks they have, and the runtime that they were started in.
    pub fn alive_tasks(&self) -> usize {
        let runtimes = self.all().iter().map(|worker| &worker.runtime).chain([&self.0.beside]);
        runtimes.map(|runtime| runtime.metrics().num_alive_tasks()).sum()
    }

    /// Gives a connection to the worker that has the fewest.
    pub fn spawn(&self, tasks: &TaskTracker, connection: impl Future<Output = ()> + Send + 'static) {
        let least = self.all().iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed));
        let worker = least.expect("there is one at least");
        let one = One::more(&worker.connections);
        let connection = async move {
            connection.await;
            drop(one);
        };
        tasks.spawn_on(connection, &worker.runtime);
    }
}

/// One connection of a worker.
struct One(Arc<AtomicUsize>);

impl One {
    fn more(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One for each worker, so that none waits for another. Other threads have the first worker's: it has to stand that.
pub struct PerWorker<T>(Box<[Apart<T>]>);

/// On cache lines of its own.
#[derive(Default)]
#[repr(align(64))]
struct Apart<T>(T);

impl<T: Default> PerWorker<T> {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Apart::default()).collect())
    }
}

impl<T> PerWorker<T> {
    /// All of them, this worker's first.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        let (before, from) = self.0.split_at(self.index());
        from.iter().chain(before).map(|one| &one.0)
    }

    fn index(&self) -> usize {
        current().map_or(0, |worker| worker.index % self.0.len())
    }
}

/// This worker's.
impl<T> Deref for PerWorker<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0[self.index()].0
    }
}

impl<T: fmt::Debug> fmt::Debug for PerWorker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|one| &one.0)).finish()
    }
}

/// Every fourth task that a worker takes up is one that another thread has woken, if there is one: a new connection, an
/// answer of Redis. By tokio's own measure it is every thirty-first, and they would wait long for a thousand busy
/// connections.
const FROM_OTHERS_EVERY: u32 = 4;

/// How long what is cut may take to let go.
pub const LAST_MOMENT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};

    use tokio::sync::{mpsc, oneshot};
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::{PerWorker, Workers, count_by, current};

    #[test]
    fn the_setting_wins_over_the_variable_and_the_variable_over_the_machine() {
        assert_eq!(count_by(Some(3), Some("5")), Ok(3));
        assert_eq!(count_by(None, Some("5")), Ok(5));
        assert!(count_by(None, None).is_ok_and(|workers| workers >= 1));
        for wrong in ["0", "-1", "many", ""] {
            assert!(count_by(None, Some(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn connections_are_spread_each_stays_where_it_is_and_all_end_before_their_worker() {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let workers = Workers::start(3, &stop, &tasks).unwrap();
        let (told, mut tells) = mpsc::unbounded_channel();
        for _ in 0..6 {
            let (told, stop) = (told.clone(), stop.clone());
            workers.spawn(&tasks, async move {
                told.send(current().unwrap()).unwrap();
                tokio::task::yield_now().await;
                stop.cancelled().await;
                told.send(current().unwrap()).unwrap();
            });
        }
        drop(told);
        let mut places = Vec::new();
        while places.len() < 6 {
            places.push(tells.recv().await.unwrap());
        }
        for index in 0..3 {
            assert_eq!(places.iter().filter(|worker| worker.index == index).count(), 2);
        }
        stop.cancel();
        let mut ended = Vec::new();
        while let Some(worker) = tells.recv().await {
            ended.push(worker);
        }
        for worker in places {
            let ended_there = ended.iter().position(|ended| *ended == worker);
            ended.swap_remove(ended_there.expect("it ends where it was"));
        }
    }

    #[tokio::test]
    async fn workers_that_nobody_has_any_more_end() {
        let (told, tells) = oneshot::channel::<()>();
        let workers = Workers::start(1, &CancellationToken::new(), &TaskTracker::new()).unwrap();
        // of no tracker: nobody waits for it
        workers.spawn(&TaskTracker::new(), async move {
            std::future::pending::<()>().await;
            drop(told);
        });
        drop(workers);
        assert!(tells.await.is_err());
    }

    #[tokio::test]
    async fn each_worker_has_its_own_and_sees_the_others_after_it() {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let workers = Workers::start(2, &stop, &tasks).unwrap();
        let own = Arc::new(PerWorker::<Mutex<Vec<usize>>>::new(2));
        let mut seen = BTreeSet::new();
        for number in 1..3 {
            let (own, (told, tells)) = (Arc::clone(&own), oneshot::channel());
            let stop = stop.clone();
            workers.spawn(&tasks, async move {
                own.lock().unwrap().push(number);
                let first = own.all().next().unwrap().lock().unwrap().clone();
                told.send((current().unwrap().index, first)).unwrap();
                stop.cancelled().await;
            });
            let (index, first) = tells.await.unwrap();
            assert_eq!(first, [number]);
            seen.insert(index);
        }
        assert_eq!(seen.len(), 2);
        assert_eq!(*own.lock().unwrap(), [1], "who is no worker has the first one's");
        stop.cancel();
    }
}
