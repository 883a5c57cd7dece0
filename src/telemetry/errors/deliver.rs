//! Delivery: records become lines, lines are written, and written again where a connection may have lost them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep_until;

use super::line::{Line, Service};
use super::outbox::Outbox;
use super::peer::{Connection, Peer};
use crate::telemetry::backlog::Backlog;
use crate::telemetry::balance::{Dropped, ErrorBalance};
use crate::telemetry::operation::Record;
use crate::telemetry::settings::Privacy;
use crate::telemetry::trouble::Trouble;

/// Writes until its queue is closed and empty.
pub(super) struct Delivery {
    peer: Peer,
    backlog: Arc<Backlog<Arc<Record>>>,
    balance: Arc<ErrorBalance>,
    service: Service,
    privacy: Privacy,
    outbox: Outbox,
    connection: Option<(Connection, Instant)>,
    /// There is no connection before: the last one failed.
    not_before: Instant,
    pause: Duration,
    trouble: Trouble,
}

impl Delivery {
    /// A delivery to this peer of what waits there.
    pub(super) fn new(
        peer: Peer,
        backlog: Arc<Backlog<Arc<Record>>>,
        balance: Arc<ErrorBalance>,
        service: Service,
        privacy: Privacy,
    ) -> Self {
        Self {
            peer,
            backlog,
            balance,
            service,
            privacy,
            outbox: Outbox::default(),
            connection: None,
            not_before: Instant::now(),
            pause: FIRST_PAUSE,
            trouble: Trouble::default(),
        }
    }

    /// Runs until the queue is closed and everything is written, or the deadline has come; what has never been
    /// written then is dropped.
    pub(super) async fn run(mut self, mut deadline: watch::Receiver<Option<Instant>>) {
        tokio::select! {
            () = self.deliver_all() => {}
            () = reached(deadline.clone()) => {}
        }
        if let Some((connection, _)) = self.connection.take() {
            let deadline = deadline.borrow_and_update().unwrap_or_else(Instant::now);
            connection.finish(deadline).await;
        }
        let left = self.outbox.fresh() + self.backlog.clear();
        self.balance.dropped(left, Dropped::Shutdown);
    }

    async fn deliver_all(&mut self) {
        while let Some(records) = self.next().await {
            for record in records {
                let line = Line { record: &record, service: &self.service, privacy: &self.privacy };
                self.outbox.push(line.text());
            }
            while !self.outbox.is_empty() {
                self.send().await;
            }
        }
    }

    /// The next records; none where the connection ended first, so that what it may have lost is sent again.
    async fn next(&mut self) -> Option<Vec<Arc<Record>>> {
        let Some((connection, _)) = &mut self.connection else {
            return self.backlog.take(DELAY).await;
        };
        let end = tokio::select! {
            biased;
            records = self.backlog.take(DELAY) => return records,
            end = connection.closed() => end,
        };
        self.ended(end);
        Some(Vec::new())
    }

    /// Writes what there is, if there is a connection; else makes one.
    async fn send(&mut self) {
        let Some((connection, _)) = &mut self.connection else { return self.connect().await };
        match connection.write(&self.outbox.text()).await {
            Ok(()) => {
                let written = self.outbox.written(Instant::now());
                self.balance.written(written.fresh);
                self.balance.resent(written.again);
                if let Some(failures) = self.trouble.over() {
                    tracing::info!(failures, "the receiver of error records takes them again");
                }
            }
            Err(error) => self.ended(Err(error)),
        }
    }

    async fn connect(&mut self) {
        sleep_until(self.not_before.into()).await;
        match self.peer.connect().await {
            Ok(connection) => self.connection = Some((connection, Instant::now())),
            Err(why) => {
                self.put_off();
                self.say_away(&why);
            }
        }
    }

    /// The connection is over. One that had not stood for long is not followed by the next at once.
    fn ended(&mut self, end: io::Result<()>) {
        let stood = self.connection.take().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        if stood > LONGEST_PAUSE {
            self.pause = FIRST_PAUSE;
        } else {
            self.put_off();
        }
        match end {
            Ok(()) => {
                self.outbox.closed(Instant::now());
                if !self.outbox.is_empty() {
                    self.say_away("it closed the connection");
                }
            }
            Err(error) => {
                self.outbox.lost();
                self.say_away(&error.to_string());
            }
        }
    }

    /// Lets the receiver alone for longer each time.
    fn put_off(&mut self) {
        self.not_before = Instant::now() + self.pause.mul_f64(rand::random_range(0.5..1.0));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn say_away(&mut self, why: &str) {
        if let Some(failures) = self.trouble.seen(tokio::time::Instant::now()) {
            let sums = self.balance.sums();
            let (queued, dropped) = (sums.queued, sums.all_dropped());
            tracing::warn!(failures, queued, dropped, why, "the receiver of error records is away");
        }
    }
}

/// Ends when the deadline has been set and has come, or nobody is there any more to set it.
async fn reached(mut deadline: watch::Receiver<Option<Instant>>) {
    if let Ok(deadline) = deadline.wait_for(Option::is_some).await.map(|deadline| *deadline) {
        sleep_until(deadline.expect("waited for").into()).await;
    }
}

/// How long a record waits for others to be written with it.
const DELAY: Duration = Duration::from_millis(50);

/// The pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
