//! The access log: one JSON line an operation, written by a thread of its own.
//!
//! A request pays for a place in a bounded queue. A line that finds none, or cannot be written, is counted.

mod line;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use self::line::Line;
use super::backlog::Backlog;
use super::balance::LineBalance;
use super::operation::{Record, Sink};
use super::settings::Privacy;
use crate::net::lines;

/// The sink of access records.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    done: Mutex<Option<oneshot::Receiver<()>>>,
}

#[derive(Debug)]
struct Shared {
    backlog: Backlog<Arc<Record>>,
    balance: LineBalance,
    reopen: AtomicBool,
}

impl AccessLog {
    /// Opens the file, or takes standard output, and starts the thread that writes to it.
    pub fn start(file: Option<PathBuf>, privacy: Privacy, balance: LineBalance) -> io::Result<Self> {
        match file {
            None => Self::spawn(io::stdout(), false, None, privacy, balance),
            Some(path) => {
                let (file, cut) = lines::open(&path)?;
                Self::spawn(file, cut, Some(path), privacy, balance)
            }
        }
    }

    fn spawn(
        out: impl Write + Send + 'static,
        cut: bool,
        path: Option<PathBuf>,
        privacy: Privacy,
        balance: LineBalance,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let shared =
            Arc::new(Shared { backlog: Backlog::new(QUEUE, BATCH), balance, reopen: AtomicBool::new(false) });
        let (finished, done) = oneshot::channel();
        let (out, shared_too) = (Box::new(out), Arc::clone(&shared));
        let writer = Writer { shared: shared_too, out, path, privacy, broken: false, cut };
        std::thread::Builder::new().name("tracegate-log".to_owned()).spawn(move || {
            runtime.block_on(writer.run());
            let _ = finished.send(());
        })?;
        Ok(Self { shared, done: Mutex::new(Some(done)) })
    }

    /// Opens the file anew, for whoever has moved it away. What is written from now on is in the new one.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.shared.backlog.nudge();
    }

    /// Writes what waits until the deadline, then counts the rest as dropped.
    pub async fn shutdown(&self, deadline: Instant) {
        self.shared.backlog.close();
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(done) = done {
            let _ = timeout_at(deadline.into(), done).await;
        }
        self.shared.balance.dropped.add(self.shared.backlog.clear());
    }

    /// Lets the thread end, without waiting for it, once it has written what waits.
    pub fn close(&self) {
        self.shared.backlog.close();
    }

    /// What became of all lines.
    pub fn balance(&self) -> &LineBalance {
        &self.shared.balance
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Sink for AccessLog {
    fn operation_ended(&self, record: &Arc<Record>) {
        if self.shared.backlog.push(Arc::clone(record), 1).is_err() {
            self.shared.balance.dropped.add(1);
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    out: Box<dyn Write + Send>,
    path: Option<PathBuf>,
    privacy: Privacy,
    broken: bool,
    /// The last line that was begun is not whole.
    cut: bool,
}

impl Writer {
    async fn run(mut self) {
        let mut text = Vec::new();
        while let Some(records) = self.shared.backlog.take(DELAY).await {
            self.reopen_if_asked();
            for record in &records {
                serde_json::to_writer(&mut text, &Line { record, privacy: &self.privacy })
                    .expect("a line has only text keys and goes to memory");
                text.push(b'\n');
            }
            self.write(&text, records.len());
            text.clear();
        }
    }

    /// Writes so many lines, or as many of them as find room: each is one that was written or one that was dropped.
    fn write(&mut self, text: &[u8], lines: usize) {
        let (mut written, mut outcome) = (0, Ok(()));
        if self.cut {
            // what comes next is not to be read as the rest of it
            outcome = lines::put(&mut *self.out, b"\n").1;
            self.cut = outcome.is_err();
        }
        if outcome.is_ok() {
            (written, outcome) = lines::put(&mut *self.out, text);
            self.cut = text[..written].last().is_some_and(|last| *last != b'\n');
        }
        let whole = text[..written].split(|byte| *byte == b'\n').count() - 1;
        self.shared.balance.written.add(whole);
        self.shared.balance.dropped.add(lines - whole);
        match outcome {
            Ok(()) => self.broken = false,
            Err(error) if !std::mem::replace(&mut self.broken, true) => {
                tracing::error!(%error, "the access log cannot be written");
            }
            Err(_) => {}
        }
    }

    fn reopen_if_asked(&mut self) {
        let asked = self.shared.reopen.swap(false, Ordering::Acquire);
        let Some(path) = self.path.as_ref().filter(|_| asked) else { return };
        match lines::open(path) {
            Ok((file, cut)) => (self.out, self.cut) = (Box::new(file), cut),
            Err(error) => {
                let path = path.display();
                tracing::error!(%path, %error, "the access log cannot be reopened, the old file goes on");
            }
        }
    }
}

/// The most lines that wait to be written.
const QUEUE: usize = 16_384;

/// The most lines of one write.
const BATCH: usize = 256;

/// How long a line waits for others to be written with it.
const DELAY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use super::AccessLog;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::settings::{self, Privacy};
    use crate::telemetry::testing::{self, Bench};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test]
    async fn every_line_is_written_before_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let balance = Metrics::new(&settings::Metrics::default()).line_balance();
        let log = Arc::new(AccessLog::start(Some(path.clone()), Privacy::default(), balance).unwrap());
        let bench = Bench::new(Arc::clone(&log) as _);
        (0..1000).for_each(|_| testing::answer(bench.start("GET"), 200));
        log.shutdown(soon()).await;
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1000);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        assert_eq!((log.balance().written.get(), log.balance().dropped.get()), (1000, 0));
        testing::answer(bench.start("GET"), 200);
        assert_eq!(log.balance().dropped.get(), 1, "nothing is written after the end");
    }

    #[tokio::test]
    async fn a_file_that_was_moved_away_is_made_anew_on_request() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let balance = Metrics::new(&settings::Metrics::default()).line_balance();
        let log = Arc::new(AccessLog::start(Some(path.clone()), Privacy::default(), balance).unwrap());
        fs::rename(&path, directory.path().join("access.log.1")).unwrap();
        log.reopen();
        testing::answer(Bench::new(Arc::clone(&log) as _).start("GET"), 200);
        log.shutdown(soon()).await;
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        assert_eq!(fs::read_to_string(directory.path().join("access.log.1")).unwrap(), "");
    }

    #[tokio::test]
    async fn a_line_is_not_glued_to_what_somebody_who_was_killed_has_begun() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        fs::write(&path, "{\"time\":\"2026-11-2").unwrap();
        let balance = Metrics::new(&settings::Metrics::default()).line_balance();
        let log = Arc::new(AccessLog::start(Some(path.clone()), Privacy::default(), balance).unwrap());
        testing::answer(Bench::new(Arc::clone(&log) as _).start("GET"), 200);
        log.shutdown(soon()).await;
        let text = fs::read_to_string(&path).unwrap();
        let whole = |line: &&str| serde_json::from_str::<serde_json::Value>(line).is_ok();
        assert_eq!((text.lines().count(), text.lines().filter(whole).count()), (2, 1), "{text}");
    }

    /// A disk on which there is room for so many bytes.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, room) = &mut *self.0.lock().unwrap();
            let count = bytes.len().min(*room);
            *room -= count;
            written.extend(&bytes[..count]);
            if count > 0 { Ok(count) } else { Err(io::ErrorKind::StorageFull.into()) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn on_a_full_disk_each_line_is_written_whole_or_dropped_and_none_is_glued_to_another() {
        let disk = Disk::default();
        let room = |bytes| disk.0.lock().unwrap().1 = bytes;
        let balance = Metrics::new(&settings::Metrics::default()).line_balance();
        let log = Arc::new(AccessLog::spawn(disk.clone(), false, None, Privacy::default(), balance).unwrap());
        let bench = Bench::new(Arc::clone(&log) as _);
        let settled = async |lines| {
            while log.balance().written.get() + log.balance().dropped.get() < lines {
                tokio::task::yield_now().await;
            }
        };
        room(usize::MAX);
        testing::answer(bench.start("GET"), 200);
        settled(1).await;
        let line = disk.0.lock().unwrap().0.len();
        room(line + line / 2);
        (0..3).for_each(|_| testing::answer(bench.start("GET"), 200));
        settled(4).await;
        room(usize::MAX);
        testing::answer(bench.start("GET"), 200);
        log.shutdown(soon()).await;

        assert_eq!((log.balance().written.get(), log.balance().dropped.get()), (3, 2));
        let text = String::from_utf8(disk.0.lock().unwrap().0.clone()).unwrap();
        let whole = |line: &&str| serde_json::from_str::<serde_json::Value>(line).is_ok();
        assert_eq!((text.lines().count(), text.lines().filter(whole).count()), (4, 3), "{text}");
    }

    #[tokio::test]
    async fn lines_that_cannot_be_written_are_counted() {
        let balance = Metrics::new(&settings::Metrics::default()).line_balance();
        let log =
            Arc::new(AccessLog::spawn(Disk::default(), false, None, Privacy::default(), balance).unwrap());
        testing::answer(Bench::new(Arc::clone(&log) as _).start("GET"), 200);
        log.shutdown(soon()).await;
        assert_eq!((log.balance().written.get(), log.balance().dropped.get()), (0, 1));
    }
}
