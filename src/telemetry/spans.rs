//! Spans for the receivers: a sink that hands sampled operations to a thread a receiver, which exports them.
//!
//! A request pays for a place in bounded queues and nothing else: spans are assembled, sent, and sent again
//! in the background. Every span that is made is accounted for, with each receiver: `made = exported +
//! unsampled + dropped + queued`.

mod assemble;
pub mod attributes;
pub mod delivery;
mod export;

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;

use self::delivery::Delivery;
use super::balance::{SpanBalance, SpanSums, Tally};
use super::operation::{Record, Sink};
use super::sampling::{Decision, Unsampled};
use super::settings::Privacy;
use super::span::Span;

/// The spans of an operation that has ended, as they are exported: for those who want to see them before.
pub fn preview<'a>(record: &'a Record, privacy: &Privacy) -> impl Iterator<Item = Span<'a>> {
    assemble::assemble(record, privacy)
}

/// The sink of spans.
#[derive(Debug)]
pub struct Spans {
    made: Tally,
    to: To,
}

#[derive(Debug)]
enum To {
    /// Nobody.
    Off(Box<SpanBalance>),
    /// Every one of these.
    Receivers(Box<[Delivery]>),
}

impl Spans {
    /// A sink for these receivers. Without any, nothing is exported, which `off` counts.
    pub fn new(made: Tally, receivers: Vec<Delivery>, off: impl FnOnce() -> SpanBalance) -> Self {
        let to =
            if receivers.is_empty() { To::Off(Box::new(off())) } else { To::Receivers(receivers.into()) };
        Self { made, to }
    }

    /// Exports what waits until the deadline, then drops the rest. Later spans are dropped too.
    pub async fn shutdown(&self, deadline: Instant) {
        join_all(self.deliveries().iter().map(|delivery| delivery.shutdown(deadline))).await;
    }

    /// Lets the threads end at once, without waiting for them; what they have not exported is dropped.
    pub fn abandon(&self) {
        self.deliveries().iter().for_each(|delivery| delivery.end_by(Instant::now()));
    }

    /// How many spans have been made.
    pub fn made(&self) -> u64 {
        self.made.get()
    }

    /// What became of them, for each receiver.
    pub fn sums(&self) -> impl Iterator<Item = (&'static str, SpanSums)> {
        let off = match &self.to {
            To::Off(balance) => Some((OFF, balance.sums())),
            To::Receivers(_) => None,
        };
        let receivers = self.deliveries().iter().map(|delivery| (delivery.name, delivery.balance.sums()));
        receivers.chain(off)
    }

    fn deliveries(&self) -> &[Delivery] {
        match &self.to {
            To::Off(_) => &[],
            To::Receivers(deliveries) => deliveries,
        }
    }
}

impl Sink for Spans {
    /// The span of the opening is like any other.
    fn stream_opened(&self, opening: &Arc<Record>) {
        self.operation_ended(opening);
    }

    fn operation_ended(&self, record: &Arc<Record>) {
        let spans = record.spans();
        self.made.add(spans);
        let receivers = match &self.to {
            To::Off(balance) => return balance.unsampled(spans, Unsampled::Off),
            To::Receivers(receivers) => receivers,
        };
        match record.verdict() {
            Decision::Sampled { .. } => receivers.iter().for_each(|one| one.push(record, spans)),
            Decision::Unsampled(reason) => {
                receivers.iter().for_each(|one| one.balance.unsampled(spans, reason));
            }
        }
    }
}

/// What stands for a receiver where there is none.
pub const OFF: &str = "none";

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::delivery::Delivery;
    use super::{OFF, Spans};
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::operation::{AttemptRecord, Record};
    use crate::telemetry::receivers::{Answer, Receiver};
    use crate::telemetry::settings::{self, Privacy};
    use crate::telemetry::span::Span;
    use crate::telemetry::testing::{self, Bench};

    /// Gives these answers, the last one forever, and tells of each batch; without any it never answers.
    struct Fake {
        name: &'static str,
        answers: Vec<Answer>,
        batch: Vec<u8>,
        batches: mpsc::UnboundedSender<Bytes>,
    }

    impl Receiver for Fake {
        fn name(&self) -> &'static str {
            self.name
        }

        /// The last byte of each span's id.
        fn add(&mut self, spans: &mut dyn Iterator<Item = Span<'_>>) {
            self.batch.extend(spans.map(|span| span.id.0[7]));
        }

        fn batch(&mut self) -> Bytes {
            std::mem::take(&mut self.batch).into()
        }

        fn send(&mut self, batch: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
            let _ = self.batches.send(batch);
            let answer = match &self.answers[..] {
                [] => None,
                [last] => Some(last.clone()),
                _ => Some(self.answers.remove(0)),
            };
            Box::pin(async {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            })
        }
    }

    /// Breaks when it is to send, and lets go of what it holds.
    struct Broken {
        _held: mpsc::UnboundedSender<Bytes>,
    }

    impl Receiver for Broken {
        fn name(&self) -> &'static str {
            "broken"
        }

        fn add(&mut self, spans: &mut dyn Iterator<Item = Span<'_>>) {
            spans.for_each(drop);
        }

        fn batch(&mut self) -> Bytes {
            Bytes::new()
        }

        fn send(&mut self, _: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
            panic!("a receiver that is broken")
        }
    }

    struct Set {
        metrics: Arc<Metrics>,
        spans: Arc<Spans>,
        bench: Bench,
        batches: mpsc::UnboundedReceiver<Bytes>,
    }

    fn settings(queue: usize, batch: usize) -> settings::Receiver {
        settings::Receiver { queue, batch, ..testing::receiver("") }
    }

    /// One receiver that is called fake.
    fn set(queue: usize, batch: usize, answers: &[Answer]) -> Set {
        with(&settings(queue, batch), &[("fake", answers)])
    }

    /// These receivers, which tell of their batches together.
    fn with(settings: &settings::Receiver, receivers: &[(&'static str, &[Answer])]) -> Set {
        let (sender, batches) = mpsc::unbounded_channel();
        let metrics = Metrics::new(&settings::Metrics::default());
        let start = |&(name, answers): &(&'static str, &[Answer])| {
            let fake = Fake { name, answers: answers.to_vec(), batch: Vec::new(), batches: sender.clone() };
            Delivery::start(fake, settings, Privacy::default(), metrics.span_balance(name)).unwrap()
        };
        let deliveries = receivers.iter().map(start).collect();
        let spans = Spans::new(metrics.spans_made(), deliveries, || metrics.span_balance(OFF));
        let spans = Arc::new(spans);
        Set { metrics, bench: Bench::new(Arc::clone(&spans) as _), spans, batches }
    }

    impl Set {
        /// What a receiver's balance says: exported, unsampled, dropped, queued. With all that was made, it
        /// adds up.
        #[track_caller]
        fn balance_of(&self, receiver: &str) -> [u64; 4] {
            let (_, sums) = self.spans.sums().find(|(name, _)| *name == receiver).unwrap();
            let balance = [sums.exported, sums.all_unsampled(), sums.all_dropped(), sums.queued];
            assert_eq!(balance.iter().sum::<u64>(), self.spans.made());
            balance
        }

        #[track_caller]
        fn balance(&self) -> [u64; 4] {
            self.balance_of("fake")
        }
    }

    fn later(milliseconds: u64) -> Answer {
        Answer::Later { wait: Some(Duration::from_millis(milliseconds)), why: "busy".to_owned() }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test]
    async fn what_waits_at_shutdown_is_exported_before_it_ends() {
        let mut set = set(100, 50, &[Answer::Accepted]);
        (0..3).for_each(|_| testing::answer(set.bench.start("GET"), 200));
        assert_eq!(set.balance(), [0, 0, 0, 3], "not exported before the receiver has accepted them");
        assert!(set.metrics.render().contains(r#"tracegate_telemetry_spans_queued{receiver="fake"} 3"#));
        set.spans.shutdown(soon()).await;
        assert_eq!(set.batches.recv().await.map(|batch| batch.len()), Some(3));
        testing::answer(set.bench.start("GET"), 200);
        assert_eq!(set.balance(), [3, 0, 1, 0]);
        let page = set.metrics.render();
        for line in [
            r#"tracegate_telemetry_spans_total{receiver="fake",outcome="exported",reason=""} 3"#,
            r#"tracegate_telemetry_spans_total{receiver="fake",outcome="dropped",reason="shutdown"} 1"#,
            r#"tracegate_telemetry_spans_queued{receiver="fake"} 0"#,
            "tracegate_telemetry_spans_made_total 4",
        ] {
            assert!(page.contains(line), "{page}");
        }
    }

    #[tokio::test]
    async fn what_is_abandoned_is_counted_and_its_thread_ends() {
        for batch in [2, 100] {
            // the receiver never answers: two spans wait with it, or for their batch to fill
            let mut set = set(100, batch, &[]);
            (0..2).for_each(|_| testing::answer(set.bench.start("GET"), 200));
            set.spans.abandon();
            // the receiver is gone once the thread lets go of it
            while set.batches.recv().await.is_some() {}
            testing::answer(set.bench.start("GET"), 200);
            assert_eq!(set.balance(), [0, 0, 3, 0]);
            let page = set.metrics.render();
            assert!(page.contains(r#"outcome="dropped",reason="shutdown"} 3"#), "{page}");
        }
    }

    #[tokio::test]
    async fn what_waits_for_an_exporter_that_broke_is_counted_as_dropped() {
        let (sender, mut held) = mpsc::unbounded_channel();
        let metrics = Metrics::new(&settings::Metrics::default());
        let (balance, broken) = (metrics.span_balance("broken"), Broken { _held: sender });
        let delivery = Delivery::start(broken, &settings(100, 2), Privacy::default(), balance).unwrap();
        let spans = Spans::new(metrics.spans_made(), vec![delivery], || metrics.span_balance(OFF));
        let spans = Arc::new(spans);
        let bench = Bench::new(Arc::clone(&spans) as _);
        (0..3).for_each(|_| testing::answer(bench.start("GET"), 200));
        assert_eq!(held.recv().await, None, "its thread has ended");
        testing::answer(bench.start("GET"), 200);
        let (_, sums) = spans.sums().next().unwrap();
        assert_eq!((sums.all_dropped(), sums.queued, spans.made()), (4, 0, 4));
    }

    #[tokio::test]
    async fn a_full_batch_leaves_at_once_and_a_full_queue_drops() {
        let mut set = set(3, 2, &[]);
        (0..2).for_each(|_| testing::answer(set.bench.start("GET"), 200));
        assert_eq!(set.batches.recv().await.map(|batch| batch.len()), Some(2));
        // the receiver never answers: three find room, the fourth does not
        (0..4).for_each(|_| testing::answer(set.bench.start("GET"), 200));
        assert_eq!(set.balance(), [0, 0, 1, 5]);
        let page = set.metrics.render();
        assert!(page.contains(r#"outcome="dropped",reason="queue_full"} 1"#), "{page}");
        // nor does it at shutdown: what it was given and what waits is lost, and counted
        set.spans.shutdown(Instant::now()).await;
        assert_eq!(set.balance(), [0, 0, 6, 0]);
    }

    #[tokio::test]
    async fn a_receiver_that_is_away_gets_the_same_batch_again() {
        let away = Answer::Later { wait: None, why: "connection refused".to_owned() };
        let mut set = set(100, 2, &[later(1), away, Answer::Accepted]);
        (0..2).for_each(|_| testing::answer(set.bench.start("GET"), 200));
        let mut batches = Vec::new();
        for _ in 0..3 {
            batches.push(set.batches.recv().await.unwrap());
        }
        assert!(batches[0] == batches[1] && batches[1] == batches[2]);
        set.spans.shutdown(soon()).await;
        assert_eq!(set.balance(), [2, 0, 0, 0]);
    }

    #[tokio::test]
    async fn what_a_receiver_refuses_is_counted_and_not_sent_again() {
        let partly = |rejected| Answer::Partly { rejected, why: "too old".to_owned() };
        for (answer, expected) in [
            (Answer::Refused("too large".to_owned()), [0, 0, 4, 0]),
            (partly(3), [1, 0, 3, 0]),
            (partly(9), [0, 0, 4, 0]),
            (partly(0), [4, 0, 0, 0]),
        ] {
            let mut set = set(100, 4, std::slice::from_ref(&answer));
            (0..4).for_each(|_| testing::answer(set.bench.start("GET"), 200));
            set.spans.shutdown(soon()).await;
            assert_eq!(set.batches.recv().await.map(|batch| batch.len()), Some(4));
            assert!(set.batches.try_recv().is_err());
            assert_eq!(set.balance(), expected, "{answer:?}");
            let rejected = format!(r#"outcome="dropped",reason="rejected"}} {}"#, expected[2]);
            assert!(set.metrics.render().contains(&rejected));
        }
    }

    #[tokio::test]
    async fn what_is_not_accepted_in_time_is_given_up() {
        let hasty = settings::Receiver { give_up_after: Duration::from_millis(20), ..settings(100, 1) };
        for answers in [&[][..], &[later(1)], &[later(3_600_000)]] {
            let set = with(&hasty, &[("fake", answers)]);
            (0..2).for_each(|_| testing::answer(set.bench.start("GET"), 200));
            set.spans.shutdown(soon()).await;
            assert_eq!(set.balance(), [0, 0, 2, 0]);
            assert!(set.metrics.render().contains(r#"outcome="dropped",reason="gave_up"} 2"#));
        }
    }

    #[tokio::test]
    async fn a_receiver_that_wants_nothing_for_a_while_gets_nothing() {
        let hasty = settings::Receiver { give_up_after: Duration::from_millis(20), ..settings(100, 1) };
        let mut set = with(&hasty, &[("fake", &[later(3_600_000)])]);
        (0..3).for_each(|_| testing::answer(set.bench.start("GET"), 200));
        set.spans.shutdown(soon()).await;
        assert_eq!(set.batches.recv().await.map(|batch| batch.len()), Some(1));
        assert!(set.batches.try_recv().is_err(), "the other batches were given up without a try");
        assert_eq!(set.balance(), [0, 0, 3, 0]);
    }

    #[tokio::test]
    async fn every_receiver_has_a_queue_and_a_balance_of_its_own() {
        let refused = Answer::Refused("too large".to_owned());
        let set = with(&settings(100, 2), &[("one", &[Answer::Accepted]), ("two", &[refused])]);
        (0..6).for_each(|_| testing::answer(set.bench.start("GET"), 200));
        set.spans.shutdown(soon()).await;
        assert_eq!((set.balance_of("one"), set.balance_of("two")), ([6, 0, 0, 0], [0, 0, 6, 0]));
    }

    #[test]
    fn a_span_that_waits_takes_no_more_memory_than_the_readme_says() {
        // at worst it is the only one of its operation, and the client chose the longest id and tracestate
        let texts = 128 + 512;
        let place_in_queue = 2 * size_of::<(Arc<Record>, usize)>();
        assert!(size_of::<Record>() + texts + place_in_queue <= 2048);
        assert!(size_of::<AttemptRecord>() <= 2048);
    }

    #[test]
    fn what_is_not_sampled_is_counted_with_the_reason() {
        const UNSAMPLED_PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let off = with(&settings(1, 1), &[]);
        testing::answer(off.bench.start("GET"), 200);
        assert_eq!(off.balance_of(OFF), [0, 1, 0, 0]);
        let set = set(100, 1, &[]);
        let ratio = Bench::sampling(Arc::clone(&set.spans) as _, 0.0);
        testing::answer(ratio.start("GET"), 200);
        testing::answer(ratio.start_with("GET", &[UNSAMPLED_PARENT]), 200);
        assert_eq!(set.balance(), [0, 2, 0, 0]);
        let page = [off.metrics.render(), set.metrics.render()].concat();
        for line in [
            r#"{receiver="none",outcome="unsampled",reason="off"} 1"#,
            r#"{receiver="fake",outcome="unsampled",reason="ratio"} 1"#,
            r#"{receiver="fake",outcome="unsampled",reason="parent"} 1"#,
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }
}
