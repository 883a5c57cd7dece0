//! The exporter: batches from the queue to the receiver, again and again while it is away, each span counted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::assemble::assemble;
use crate::telemetry::backlog::Backlog;
use crate::telemetry::balance::{Dropped, SpanBalance};
use crate::telemetry::exemplar::Candidates;
use crate::telemetry::operation::Record;
use crate::telemetry::receivers::{Answer, Receiver};
use crate::telemetry::settings::{self, Privacy};
use crate::telemetry::trouble::Trouble;

/// Exports until its queue is closed and empty.
pub(super) struct Exporter {
    receiver: Box<dyn Receiver>,
    backlog: Arc<Backlog<Arc<Record>>>,
    balance: Arc<SpanBalance>,
    privacy: Privacy,
    /// What becomes exemplars if the batch is accepted.
    candidates: Candidates,
    /// Spans of one batch.
    batch: usize,
    delay: Duration,
    give_up_after: Duration,
    /// Nothing is sent before: the receiver failed, or asked for it.
    not_before: Instant,
    pause: Duration,
    /// What stood in the way last.
    why: String,
    away: Trouble,
    refusing: Trouble,
}

impl Exporter {
    /// An exporter by these settings.
    pub(super) fn new(
        receiver: Box<dyn Receiver>,
        settings: &settings::Receiver,
        backlog: Arc<Backlog<Arc<Record>>>,
        balance: Arc<SpanBalance>,
        privacy: Privacy,
    ) -> Self {
        Self {
            receiver,
            backlog,
            balance,
            privacy,
            candidates: Candidates::default(),
            batch: settings.batch,
            delay: settings.delay,
            give_up_after: settings.give_up_after,
            not_before: Instant::now(),
            pause: FIRST_PAUSE,
            why: "no answer".to_owned(),
            away: Trouble::default(),
            refusing: Trouble::default(),
        }
    }

    /// Runs until the queue is closed and empty, or the deadline has come; what is left then is dropped.
    pub(super) async fn run(mut self, deadline: watch::Receiver<Option<std::time::Instant>>) {
        let _end = End { backlog: Arc::clone(&self.backlog), balance: Arc::clone(&self.balance) };
        tokio::select! {
            () = self.export_all() => {}
            () = reached(deadline) => {}
        }
    }

    async fn export_all(&mut self) {
        while let Some(open) = self.gather().await {
            if self.deliver(open).await {
                self.candidates.accept();
            } else {
                self.candidates.forget();
            }
        }
    }

    /// Makes a batch, until it is full or its first operation has waited for long enough; none is the end. A record is
    /// let go as soon as its spans are written: its memory is soon used again, and while it still is near the processor.
    async fn gather(&mut self) -> Option<Open> {
        let first = self.backlog.first().await?;
        let until = Instant::now() + self.delay;
        let mut open = Open { balance: Arc::clone(&self.balance), spans: 0 };
        self.add(&mut open, vec![first]);
        while open.spans < self.batch {
            let records = self.backlog.more(self.batch - open.spans, until).await;
            if records.is_empty() {
                break;
            }
            self.add(&mut open, records);
        }
        Some(open)
    }

    fn add(&mut self, open: &mut Open, records: Vec<Arc<Record>>) {
        // all are accounted for before one of them is looked into
        open.spans += records.iter().map(|record| record.spans()).sum::<usize>();
        for record in records {
            self.receiver.add(&mut assemble(&record, &self.privacy));
            record.leaves(&mut self.candidates);
        }
    }

    /// Sends one batch until the receiver takes or refuses it, or it is too old; tells whether all of it was taken.
    async fn deliver(&mut self, mut open: Open) -> bool {
        let batch = self.receiver.batch();
        let give_up_at = Instant::now() + self.give_up_after;
        loop {
            match timeout_at(give_up_at, self.send(batch.clone())).await {
                Ok(Answer::Accepted) => {
                    open.exported();
                    return true;
                }
                Ok(Answer::Partly { rejected, why }) => {
                    self.say_refused(&why);
                    open.dropped(rejected, Dropped::Rejected);
                    open.exported();
                    return false;
                }
                Ok(Answer::Refused(why)) => {
                    self.say_refused(&why);
                    open.dropped(open.spans, Dropped::Rejected);
                    return false;
                }
                Ok(Answer::Later { wait, why }) => self.put_off(wait, why),
                Err(_) => {
                    self.say_away();
                    open.dropped(open.spans, Dropped::GaveUp);
                    return false;
                }
            }
        }
    }

    /// Sends as soon as the receiver may be asked again.
    async fn send(&mut self, batch: bytes::Bytes) -> Answer {
        sleep_until(self.not_before).await;
        let answer = self.receiver.send(batch).await;
        if !matches!(answer, Answer::Later { .. }) {
            self.pause = FIRST_PAUSE;
            if let Some(failures) = self.away.over() {
                let receiver = self.receiver.name();
                tracing::info!(receiver, failures, "the receiver of spans is back");
            }
        }
        answer
    }

    /// Lets the receiver alone for as long as it asked for, else for longer each time.
    fn put_off(&mut self, wait: Option<Duration>, why: String) {
        let wait = wait.unwrap_or_else(|| {
            let pause = self.pause;
            // every batch is to have its try
            self.pause = (pause * 2).min(LONGEST_PAUSE).min(self.give_up_after / 2);
            pause.mul_f64(rand::random_range(0.5..1.0))
        });
        self.not_before = Instant::now() + wait.min(LONGEST_WAIT);
        self.why = why;
        self.say_away();
    }

    fn say_away(&mut self) {
        if let Some(failures) = self.away.seen(Instant::now()) {
            let (receiver, sums) = (self.receiver.name(), self.balance.sums());
            let (queued, dropped, why) = (sums.queued, sums.all_dropped(), shortened(&self.why));
            tracing::warn!(receiver, failures, queued, dropped, why, "the receiver of spans is away");
        }
    }

    fn say_refused(&mut self, why: &str) {
        if let Some(batches) = self.refusing.seen(Instant::now()) {
            let (receiver, why) = (self.receiver.name(), shortened(why));
            tracing::warn!(receiver, batches, why, "the receiver of spans has an objection");
        }
    }
}

/// The end of exporting, be it by a panic: nothing waits any more for nobody.
struct End {
    backlog: Arc<Backlog<Arc<Record>>>,
    balance: Arc<SpanBalance>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.balance.dropped(self.backlog.clear(), Dropped::Shutdown);
    }
}

/// The spans of a batch that have not been accounted for; if it is dropped with any, the gateway goes down.
struct Open {
    balance: Arc<SpanBalance>,
    spans: usize,
}

impl Open {
    /// All that are left have been accepted.
    fn exported(&mut self) {
        self.balance.exported(std::mem::take(&mut self.spans));
    }

    fn dropped(&mut self, spans: usize, reason: Dropped) {
        let spans = spans.min(self.spans);
        self.spans -= spans;
        self.balance.dropped(spans, reason);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.dropped(self.spans, Dropped::Shutdown);
    }
}

/// Ends when the deadline has been set and has come, or nobody is there any more to set it.
async fn reached(mut deadline: watch::Receiver<Option<std::time::Instant>>) {
    if let Ok(deadline) = deadline.wait_for(Option::is_some).await.map(|deadline| *deadline) {
        sleep_until(deadline.expect("waited for").into()).await;
    }
}

/// As much of a receiver's text as is worth a line.
fn shortened(why: &str) -> &str {
    &why[..why.floor_char_boundary(256)]
}

/// The pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The longest wait that a receiver may ask for.
const LONGEST_WAIT: Duration = Duration::from_hours(24);
