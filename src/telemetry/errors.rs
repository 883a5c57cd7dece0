//! Error records: one JSON line for each exchange that failed, over TCP or TLS to a Logstash (codec `json_lines`).
//!
//! A request pays for a place in a bounded queue. TCP never says what was read at the other end: "written"
//! is all that can be known, and what may have been lost with a connection is sent again over the next one.

mod deliver;
mod line;
mod outbox;
mod peer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use self::deliver::Delivery;
use self::line::Service;
use self::peer::Peer;
use super::backlog::{Backlog, Refused};
use super::balance::{Dropped, ErrorBalance};
use super::operation::{Record, Sink};
use super::outcome::ErrorType;
use super::settings::{Logstash, Privacy};

/// The sink of error records.
#[derive(Debug)]
pub struct Errors {
    /// Whether answers from 400 to 499 that were passed on are recorded too.
    with_refused: bool,
    backlog: Arc<Backlog<Arc<Record>>>,
    balance: Arc<ErrorBalance>,
    stop: watch::Sender<Option<Instant>>,
    done: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Errors {
    /// Starts the thread that writes to this receiver. The resource's attributes tell whose records they are.
    pub fn start<'a>(
        settings: &Logstash,
        resource: impl IntoIterator<Item = (&'a str, &'a str)>,
        privacy: Privacy,
        balance: ErrorBalance,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let backlog = Arc::new(Backlog::new(settings.queue, BATCH));
        let balance = Arc::new(balance);
        let (waiting, counted) = (Arc::clone(&backlog), Arc::clone(&balance));
        let delivery = Delivery::new(Peer::new(settings), waiting, counted, Service::of(resource), privacy);
        let (stop, stopped) = watch::channel(None);
        let (finished, done) = oneshot::channel();
        std::thread::Builder::new().name("tracegate-errors".to_owned()).spawn(move || {
            runtime.block_on(delivery.run(stopped));
            // a lookup of a name may still be running
            runtime.shutdown_background();
            let _ = finished.send(());
        })?;
        Ok(Self {
            with_refused: settings.client_errors,
            backlog,
            balance,
            stop,
            done: Mutex::new(Some(done)),
        })
    }

    /// Writes what waits until the deadline, then counts the rest as dropped. Later records are dropped too.
    pub async fn shutdown(&self, deadline: Instant) {
        self.backlog.close();
        self.stop.send_replace(Some(deadline));
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(done) = done {
            let _ = timeout_at((deadline + GRACE).into(), done).await;
        }
    }

    /// Lets the thread end at once, without waiting for it; what it has not written is counted as dropped.
    pub fn abandon(&self) {
        self.backlog.close();
        self.stop.send_replace(Some(Instant::now()));
    }

    /// What became of all records.
    pub fn balance(&self) -> &ErrorBalance {
        &self.balance
    }

    /// Whether the exchange failed: it has a reason, or an answer from 500 on; from 400 on if that is wanted.
    fn is_wanted(&self, record: &Record) -> bool {
        let refused = || record.status().is_some_and(|status| status >= 400);
        record.failure().is_some()
            || ErrorType::of_operation(record).is_some()
            || (self.with_refused && refused())
    }
}

impl Sink for Errors {
    fn operation_ended(&self, record: &Arc<Record>) {
        if !self.is_wanted(record) {
            return;
        }
        self.balance.queued(1);
        match self.backlog.push(Arc::clone(record), 1) {
            Ok(()) => {}
            Err(Refused::Full) => self.balance.dropped(1, Dropped::QueueFull),
            Err(Refused::Closed) => self.balance.dropped(1, Dropped::Shutdown),
        }
    }
}

/// The most records of one write.
const BATCH: usize = 32;

/// How long the thread may take to end after the deadline.
const GRACE: Duration = Duration::from_millis(100);
