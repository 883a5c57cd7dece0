//! The exporter: batches from the queue to the receiver, again and again while it is away, each span counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use super::assemble::assemble;
use crate::telemetry::backlog::Backlog;
use crate::telemetry::balance::{Dropped, SpanBalance};
use crate::telemetry::operation::Record;
use crate::telemetry::receivers::{Answer, Receiver};
use crate::telemetry::settings::Privacy;

/// Exports until its queue is closed and empty.
pub(super) struct Exporter {
    receiver: Box<dyn Receiver>,
    backlog: Arc<Backlog<Arc<Record>>>,
    balance: Arc<SpanBalance>,
    privacy: Privacy,
    delay: Duration,
    trouble: Trouble,
}

impl Exporter {
    /// An exporter that waits this long for a batch to fill.
    pub(super) fn new(
        receiver: Box<dyn Receiver>,
        backlog: Arc<Backlog<Arc<Record>>>,
        balance: Arc<SpanBalance>,
        privacy: Privacy,
        delay: Duration,
    ) -> Self {
        Self { receiver, backlog, balance, privacy, delay, trouble: Trouble::default() }
    }

    /// Runs until the queue is closed and empty, or the deadline has come; what is left then is dropped.
    pub(super) async fn run(mut self, deadline: watch::Receiver<Option<Instant>>) {
        let (backlog, balance) = (Arc::clone(&self.backlog), Arc::clone(&self.balance));
        tokio::select! {
            () = self.export_all() => {}
            () = reached(deadline) => {}
        }
        backlog.close();
        balance.dropped(backlog.clear(), Dropped::Shutdown);
    }

    async fn export_all(&mut self) {
        while let Some(records) = self.backlog.take(self.delay).await {
            if !records.is_empty() {
                self.deliver(&records).await;
            }
        }
    }

    /// Sends one batch until the receiver takes or refuses it, or it is too old.
    async fn deliver(&mut self, records: &[Arc<Record>]) {
        let begun = Instant::now();
        let mut batch = Batch::new(Arc::clone(&self.balance), records);
        let mut pause = FIRST_PAUSE;
        loop {
            let spans = records.iter().flat_map(|record| assemble(record, &self.privacy)).collect();
            let wait = match self.receiver.export(spans).await {
                Answer::Accepted => {
                    self.trouble.over(self.receiver.name());
                    batch.exported();
                    return records.iter().for_each(|record| record.exported());
                }
                // which of them were taken in is not told
                Answer::Rejected { spans, why } => {
                    self.trouble.report(self.receiver.name(), "the receiver of spans refuses them", &why);
                    batch.dropped(spans, Dropped::Rejected);
                    return batch.exported();
                }
                Answer::RetryAfter(wait) => {
                    self.trouble.report(self.receiver.name(), "the receiver of spans asks to wait", "");
                    wait
                }
                Answer::Failed(why) => {
                    self.trouble.report(self.receiver.name(), "the receiver of spans is away", &why);
                    let wait = pause.mul_f64(rand::random_range(0.5..1.0));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    wait
                }
            };
            if begun.elapsed() + wait > GIVE_UP_AFTER {
                return batch.dropped(batch.open, Dropped::GaveUp);
            }
            sleep(wait).await;
        }
    }
}

/// The spans of a batch that have not been accounted for; if it is dropped with any, the gateway goes down.
struct Batch {
    balance: Arc<SpanBalance>,
    open: usize,
}

impl Batch {
    fn new(balance: Arc<SpanBalance>, records: &[Arc<Record>]) -> Self {
        Self { balance, open: records.iter().map(|record| 1 + record.attempts().count()).sum() }
    }

    /// All that are left have been accepted.
    fn exported(&mut self) {
        self.balance.exported(std::mem::take(&mut self.open));
    }

    fn dropped(&mut self, spans: usize, reason: Dropped) {
        let spans = spans.min(self.open);
        self.open -= spans;
        self.balance.dropped(spans, reason);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.dropped(self.open, Dropped::Shutdown);
    }
}

/// Trouble with the receiver makes one line of the log, and one a minute while it lasts.
#[derive(Default)]
struct Trouble {
    reported: Option<Instant>,
    failures: u64,
}

impl Trouble {
    fn report(&mut self, receiver: &'static str, what: &'static str, why: &str) {
        self.failures += 1;
        if self.reported.is_none_or(|reported| reported.elapsed() >= REPORT_EVERY) {
            tracing::warn!(receiver, failures = self.failures, why, "{what}");
            self.reported = Some(Instant::now());
        }
    }

    fn over(&mut self, receiver: &'static str) {
        if self.reported.take().is_some() {
            tracing::info!(receiver, failures = self.failures, "the receiver of spans takes them again");
            self.failures = 0;
        }
    }
}

/// Ends when the deadline has been set and has come, or nobody is there any more to set it.
async fn reached(mut deadline: watch::Receiver<Option<Instant>>) {
    if let Ok(deadline) = deadline.wait_for(Option::is_some).await.map(|deadline| *deadline) {
        sleep_until(deadline.expect("waited for").into()).await;
    }
}

/// The pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a batch is tried.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// How often trouble that lasts is reported.
const REPORT_EVERY: Duration = Duration::from_mins(1);
