//! Spans for the receiver: a sink that hands sampled operations to a thread of its own, which exports them.
//!
//! A request pays for a place in a bounded queue and nothing else: spans are assembled, sent, and sent again
//! in the background, and what is lost is counted with its reason.

mod assemble;
mod export;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use self::export::Exporter;
use super::backlog::{Backlog, Refused};
use super::balance::{Dropped, SpanBalance};
use super::operation::{Record, Sink};
use super::receivers::Receiver;
use super::sampling::Because;
use super::settings::{Otlp, Privacy};

/// The sink of spans.
#[derive(Debug)]
pub struct Spans {
    balance: Arc<SpanBalance>,
    export: Option<Export>,
}

#[derive(Debug)]
struct Export {
    backlog: Arc<Backlog<Arc<Record>>>,
    stop: watch::Sender<Option<Instant>>,
    done: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Spans {
    /// A sink that exports nothing and counts it.
    pub fn off(balance: SpanBalance) -> Self {
        Self { balance: Arc::new(balance), export: None }
    }

    /// Starts the thread that exports to what `receiver` makes there.
    pub fn start<R, E>(
        settings: &Otlp,
        privacy: Privacy,
        balance: SpanBalance,
        receiver: impl FnOnce() -> Result<R, E>,
    ) -> Result<Self, E>
    where
        R: Receiver + 'static,
        E: From<std::io::Error>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let receiver = {
            let _inside = runtime.enter();
            receiver()?
        };
        let backlog = Arc::new(Backlog::new(settings.queue, settings.batch));
        let balance = Arc::new(balance);
        let exporter = Exporter::new(
            Box::new(receiver),
            Arc::clone(&backlog),
            Arc::clone(&balance),
            privacy,
            settings.delay,
        );
        let (stop, stopped) = watch::channel(None);
        let (finished, done) = oneshot::channel();
        std::thread::Builder::new().name("tracegate-spans".to_owned()).spawn(move || {
            runtime.block_on(exporter.run(stopped));
            // ends what a receiver may have left running, a lookup of a name for example
            runtime.shutdown_background();
            let _ = finished.send(());
        })?;
        Ok(Self { balance, export: Some(Export { backlog, stop, done: Mutex::new(Some(done)) }) })
    }

    /// Exports what waits until the deadline, then counts the rest as dropped. Later spans are dropped too.
    pub async fn shutdown(&self, deadline: Instant) {
        let Some(export) = &self.export else { return };
        export.backlog.close();
        export.stop.send_replace(Some(deadline));
        let done = export.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(done) = done {
            let _ = timeout_at((deadline + GRACE).into(), done).await;
        }
    }

    /// Lets the thread end at once, without waiting for it; what it has not exported is counted as dropped.
    pub fn abandon(&self) {
        if let Some(export) = &self.export {
            export.backlog.close();
            export.stop.send_replace(Some(Instant::now()));
        }
    }

    /// What became of all spans.
    pub fn balance(&self) -> &SpanBalance {
        &self.balance
    }

    /// How many spans wait to be exported.
    pub fn queued(&self) -> usize {
        self.export.as_ref().map_or(0, |export| export.backlog.weight())
    }
}

impl Sink for Spans {
    /// The span of the opening is like any other.
    fn stream_opened(&self, opening: &Arc<Record>) {
        self.operation_ended(opening);
    }

    fn operation_ended(&self, record: &Arc<Record>) {
        let spans = 1 + record.attempts().count();
        let decision = record.decide();
        let Some(export) = &self.export else { return self.balance.unsampled(spans, Because::Off) };
        if !decision.sampled {
            return self.balance.unsampled(spans, decision.because);
        }
        match export.backlog.push(Arc::clone(record), spans) {
            Ok(()) => {}
            Err(Refused::Full) => self.balance.dropped(spans, Dropped::QueueFull),
            Err(Refused::Closed) => self.balance.dropped(spans, Dropped::Shutdown),
        }
    }
}

/// How long the exporting thread may take to end after the deadline.
const GRACE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use opentelemetry_sdk::trace::SpanData;
    use tokio::sync::mpsc;

    use super::Spans;
    use crate::telemetry::balance::SpanSums;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::receivers::{Answer, Receiver};
    use crate::telemetry::settings::{self, Otlp, OtlpProtocol, Privacy};
    use crate::telemetry::testing::{self, Bench};

    /// Gives these answers, the last one forever, and tells of each batch; without any it never answers.
    struct Fake {
        answers: Vec<Answer>,
        batches: mpsc::UnboundedSender<Vec<SpanData>>,
    }

    impl Receiver for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }

        fn export(&mut self, spans: Vec<SpanData>) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
            let _ = self.batches.send(spans);
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

    struct Set {
        metrics: Arc<Metrics>,
        spans: Arc<Spans>,
        bench: Bench,
        batches: mpsc::UnboundedReceiver<Vec<SpanData>>,
    }

    fn set(queue: usize, batch: usize, answers: &[Answer]) -> Set {
        let settings = Otlp {
            endpoint: "".into(),
            protocol: OtlpProtocol::Grpc,
            headers: Vec::new(),
            gzip: false,
            timeout: Duration::from_secs(1),
            ca_file: None,
            queue,
            batch,
            delay: Duration::from_hours(1),
        };
        let (sender, batches) = mpsc::unbounded_channel();
        let fake = Fake { answers: answers.to_vec(), batches: sender };
        let metrics = Metrics::new(&settings::Metrics::default());
        let balance = metrics.span_balance("fake");
        let receiver = || Ok::<_, std::io::Error>(fake);
        let spans = Arc::new(Spans::start(&settings, Privacy::default(), balance, receiver).unwrap());
        Set { metrics, bench: Bench::new(Arc::clone(&spans) as _), spans, batches }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test]
    async fn what_waits_at_shutdown_is_exported_before_it_ends() {
        let mut set = set(100, 50, &[Answer::Accepted]);
        (0..3).for_each(|_| testing::answer(set.bench.start("GET"), 200));
        assert_eq!(set.spans.queued(), 3);
        assert_eq!(set.spans.balance().sums().exported, 0, "not before the receiver has accepted them");
        set.spans.shutdown(soon()).await;
        assert_eq!(set.batches.recv().await.map(|batch| batch.len()), Some(3));
        testing::answer(set.bench.start("GET"), 200);
        assert_eq!(set.spans.balance().sums(), SpanSums { exported: 3, unsampled: 0, dropped: 1 });
        let page = set.metrics.render();
        for line in [
            r#"tracegate_telemetry_spans_total{receiver="fake",outcome="exported",reason=""} 3"#,
            r#"tracegate_telemetry_spans_total{receiver="fake",outcome="dropped",reason="shutdown"} 1"#,
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
            assert_eq!(set.spans.balance().sums(), SpanSums { exported: 0, unsampled: 0, dropped: 3 });
            let page = set.metrics.render();
            assert!(page.contains(r#"outcome="dropped",reason="shutdown"} 3"#), "{page}");
        }
    }

    #[tokio::test]
    async fn a_full_batch_leaves_at_once_and_a_full_queue_drops() {
        let mut set = set(3, 2, &[]);
        (0..2).for_each(|_| testing::answer(set.bench.start("GET"), 200));
        assert_eq!(set.batches.recv().await.map(|batch| batch.len()), Some(2));
        // the receiver never answers: three find room, the fourth does not
        (0..4).for_each(|_| testing::answer(set.bench.start("GET"), 200));
        let page = set.metrics.render();
        assert!(page.contains(r#"outcome="dropped",reason="queue_full"} 1"#), "{page}");
        // nor does it at shutdown: what it was given and what waits is lost, and counted
        set.spans.shutdown(Instant::now()).await;
        assert_eq!(set.spans.balance().sums(), SpanSums { exported: 0, unsampled: 0, dropped: 6 });
    }

    #[tokio::test]
    async fn a_receiver_that_is_away_gets_the_same_batch_again() {
        let away = Answer::Failed("connection refused".to_owned());
        let later = Answer::RetryAfter(Duration::from_millis(1));
        let mut set = set(100, 2, &[later, away, Answer::Accepted]);
        (0..2).for_each(|_| testing::answer(set.bench.start("GET"), 200));
        let mut batches = Vec::new();
        for _ in 0..3 {
            batches.push(set.batches.recv().await.unwrap());
        }
        assert!(batches[0] == batches[1] && batches[1] == batches[2]);
        set.spans.shutdown(soon()).await;
        assert_eq!(set.spans.balance().sums(), SpanSums { exported: 2, unsampled: 0, dropped: 0 });
    }

    #[tokio::test]
    async fn what_a_receiver_refuses_is_not_sent_again() {
        let mut set = set(100, 4, &[Answer::Rejected { spans: 3, why: "too old".to_owned() }]);
        (0..4).for_each(|_| testing::answer(set.bench.start("GET"), 200));
        set.spans.shutdown(soon()).await;
        assert_eq!(set.batches.recv().await.map(|batch| batch.len()), Some(4));
        assert!(set.batches.try_recv().is_err());
        assert_eq!(set.spans.balance().sums(), SpanSums { exported: 1, unsampled: 0, dropped: 3 });
    }

    #[tokio::test]
    async fn a_receiver_that_asks_for_too_long_a_wait_is_given_up() {
        let set = set(100, 1, &[Answer::RetryAfter(Duration::from_hours(1))]);
        testing::answer(set.bench.start("GET"), 200);
        set.spans.shutdown(soon()).await;
        assert!(set.metrics.render().contains(r#"outcome="dropped",reason="gave_up"} 1"#));
    }

    #[test]
    fn what_is_not_sampled_is_counted_with_the_reason() {
        const UNSAMPLED_PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let metrics = Metrics::new(&settings::Metrics::default());
        let spans = Arc::new(Spans::off(metrics.span_balance("off")));
        testing::answer(Bench::new(spans).start("GET"), 200);
        let set = set(100, 1, &[]);
        let ratio = Bench::sampling(Arc::clone(&set.spans) as _, 0.0);
        testing::answer(ratio.start("GET"), 200);
        testing::answer(ratio.start_with("GET", &[UNSAMPLED_PARENT]), 200);
        assert_eq!(set.spans.balance().sums(), SpanSums { exported: 0, unsampled: 2, dropped: 0 });
        let page = [metrics.render(), set.metrics.render()].concat();
        for line in [
            r#"{receiver="off",outcome="unsampled",reason="off"} 1"#,
            r#"{receiver="fake",outcome="unsampled",reason="ratio"} 1"#,
            r#"{receiver="fake",outcome="unsampled",reason="parent"} 1"#,
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }
}
