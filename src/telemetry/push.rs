//! Metrics pushed by OTLP, beside the scrape: the same series, at an interval and once more at the end.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, timeout_at};

use super::metrics::{Format, Metrics};
use super::receivers::otlp::{OtlpReceiver, Times};
use super::receivers::{Answer, Receiver as _};
use super::trouble::Trouble;

/// The thread that pushes. It ends when this drops.
#[derive(Debug)]
pub struct Push {
    stop: watch::Sender<Option<Instant>>,
    done: Mutex<Option<oneshot::Receiver<()>>>,
}

struct Pusher {
    metrics: Arc<Metrics>,
    receiver: OtlpReceiver,
    interval: Duration,
    started: u64,
    trouble: Trouble,
}

impl Push {
    /// Pushes to this receiver of metrics from now on.
    pub fn start(metrics: &Arc<Metrics>, receiver: OtlpReceiver, interval: Duration) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let metrics = Arc::clone(metrics);
        let pusher = Pusher { metrics, receiver, interval, started: now(), trouble: Trouble::default() };
        let (stop, stopped) = watch::channel(None);
        let (finished, done) = oneshot::channel();
        std::thread::Builder::new().name("tracegate-metrics".to_owned()).spawn(move || {
            runtime.block_on(pusher.run(stopped));
            runtime.shutdown_background();
            let _ = finished.send(());
        })?;
        Ok(Self { stop, done: Mutex::new(Some(done)) })
    }

    /// Pushes once more, if that is done before the deadline.
    pub async fn shutdown(&self, deadline: Instant) {
        self.stop.send_replace(Some(deadline));
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(done) = done {
            let _ = timeout_at(deadline.into(), done).await;
        }
    }
}

impl Pusher {
    async fn run(mut self, mut stopped: watch::Receiver<Option<Instant>>) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stopped.changed() => break,
            }
            tokio::select! {
                () = self.push() => {}
                _ = stopped.changed() => break,
            }
        }
        // `None`: nobody waits for it any more
        let deadline = *stopped.borrow();
        if let Some(deadline) = deadline {
            let _ = timeout_at(deadline.into(), self.push()).await;
        }
    }

    /// What is not taken is not sent again: the next push has it too.
    async fn push(&mut self) {
        let page = self.metrics.page(Format::OpenMetrics);
        let message = self.receiver.encode_metrics(&page, Times { started: self.started, now: now() });
        let why = match self.receiver.send(message).await {
            Answer::Accepted => {
                if let Some(failures) = self.trouble.over() {
                    tracing::info!(failures, "metrics are pushed again");
                }
                return;
            }
            Answer::Partly { why, .. } | Answer::Refused(why) | Answer::Later { why, .. } => why,
        };
        if let Some(failures) = self.trouble.seen(tokio::time::Instant::now()) {
            tracing::warn!(failures, why, "metrics cannot be pushed");
        }
    }
}

fn now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}
