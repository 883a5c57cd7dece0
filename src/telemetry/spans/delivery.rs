//! The way of spans to one receiver: a bounded queue, and a thread that empties it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use super::export::Exporter;
use crate::telemetry::backlog::{Backlog, Refused};
use crate::telemetry::balance::{Dropped, SpanBalance};
use crate::telemetry::operation::Record;
use crate::telemetry::receivers::Receiver;
use crate::telemetry::settings::{self, Privacy};

/// The way to one receiver.
#[derive(Debug)]
pub struct Delivery {
    pub(super) name: &'static str,
    pub(super) balance: Arc<SpanBalance>,
    backlog: Arc<Backlog<Arc<Record>>>,
    stop: watch::Sender<Option<Instant>>,
    done: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Delivery {
    /// Starts the thread that exports to this receiver.
    pub fn start(
        receiver: impl Receiver + 'static,
        settings: &settings::Receiver,
        privacy: Privacy,
        balance: SpanBalance,
    ) -> io::Result<Self> {
        let name = receiver.name();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let backlog = Arc::new(Backlog::new(settings.queue, settings.batch.min(HANDFUL)));
        let balance = Arc::new(balance);
        let (receiver, queue) = (Box::new(receiver), Arc::clone(&backlog));
        let exporter = Exporter::new(receiver, settings, queue, Arc::clone(&balance), privacy);
        let (stop, stopped) = watch::channel(None);
        let (finished, done) = oneshot::channel();
        std::thread::Builder::new().name(format!("tracegate-{name}")).spawn(move || {
            runtime.block_on(exporter.run(stopped));
            // ends what a receiver may have left running, a lookup of a name for example
            runtime.shutdown_background();
            let _ = finished.send(());
        })?;
        Ok(Self { name, balance, backlog, stop, done: Mutex::new(Some(done)) })
    }

    /// Queues the spans of an operation, of which there are this many, or drops them.
    pub(super) fn push(&self, record: &Arc<Record>, spans: usize) {
        self.balance.queued(spans);
        match self.backlog.push(Arc::clone(record), spans) {
            Ok(()) => {}
            Err(Refused::Full) => self.balance.dropped(spans, Dropped::QueueFull),
            Err(Refused::Closed) => self.balance.dropped(spans, Dropped::Shutdown),
        }
    }

    /// Exports what waits until the deadline, then drops the rest. Later spans are dropped too.
    pub(super) async fn shutdown(&self, deadline: Instant) {
        self.end_by(deadline);
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(done) = done {
            let _ = timeout_at((deadline + GRACE).into(), done).await;
        }
    }

    /// Lets the thread end by then, without waiting for it; what it has not exported is dropped.
    pub(super) fn end_by(&self, deadline: Instant) {
        self.backlog.close();
        self.stop.send_replace(Some(deadline));
    }
}

/// So many spans wait before the exporting thread looks up to write them. When it waited for a whole batch, its records
/// were no longer near the processor, and it took a fifth longer.
const HANDFUL: usize = 64;

/// How long the exporting thread may take to end after the deadline.
const GRACE: Duration = Duration::from_millis(100);
