//! Recent exchanges, for the people who look at them now: all that failed, the slowest of each route, some of the
//! rest, in memory and bounded.
//!
//! An ordinary request pays for the question whether it is kept, which its route's [`Gate`](gate::Gate) answers by two
//! loads. What is kept is handed over as it is; a thread of its own, or whoever reads, makes plain data of it. That
//! says what spans and the access log say, by the same rules of privacy.

pub mod entry;
pub mod filter;
pub(super) mod gate;
pub mod phase;
pub mod rings;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::broadcast;

use self::entry::{Entry, Kept, Words};
use self::filter::Filter;
use self::gate::Admitted;
use self::phase::Times;
use self::rings::{Displaced, Rings};
use super::backlog::Backlog;
use super::balance::Tally;
use super::operation::{Record, Sink};
use super::outcome::ErrorType;
use super::settings::{self, Privacy};

/// The sink of recent exchanges.
pub struct Recent {
    shared: Arc<Shared>,
}

struct Shared {
    begun: Instant,
    sample_every: Duration,
    backlog: Backlog<(Arc<Record>, Kept)>,
    state: Mutex<State>,
    privacy: Privacy,
    counts: Counts,
    live: broadcast::Sender<Arc<Entry>>,
}

struct State {
    rings: Rings,
    words: Words,
}

/// How many have been kept and displaced.
pub struct Counts {
    kept: [Tally; Kept::ALL.len()],
    displaced: [[Tally; Displaced::ALL.len()]; Kept::ALL.len()],
}

impl Counts {
    /// Counts in what `tally` makes for `kept` alone, and for it with a reason to be displaced.
    pub fn new(
        kept: impl Fn(&'static str) -> Tally,
        displaced: impl Fn(&'static str, &'static str) -> Tally,
    ) -> Self {
        Self {
            kept: Kept::ALL.map(|kind| kept(kind.word())),
            displaced: Kept::ALL
                .map(|kind| Displaced::ALL.map(|reason| displaced(kind.word(), reason.word()))),
        }
    }

    fn displace(&self, kind: Kept, reason: Displaced) {
        self.displaced[kind as usize][reason as usize].add(1);
    }
}

impl Recent {
    /// Starts the thread that takes in what is kept.
    pub fn start(settings: &settings::Recent, privacy: Privacy, counts: Counts) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            sample_every: settings.sample_every,
            backlog: Backlog::new(QUEUE, BATCH),
            state: Mutex::new(State { rings: Rings::new(settings), words: Words::default() }),
            privacy,
            counts,
            live: broadcast::Sender::new(LIVE),
        });
        let taking = Arc::clone(&shared);
        std::thread::Builder::new().name("tracegate-recent".to_owned()).spawn(move || {
            runtime.block_on(async {
                while taking.backlog.filled(DELAY).await {
                    drop(taking.take_in());
                }
            });
        })?;
        Ok(Self { shared })
    }

    /// Those that are wanted, the newest first, at most so many; and whether there are more.
    pub fn list(&self, filter: &Filter, most: usize) -> (Vec<Arc<Entry>>, bool) {
        let state = self.shared.take_in();
        let mut found: Vec<Arc<Entry>> =
            state.rings.iter().filter(|entry| filter.wants(entry)).map(Arc::clone).collect();
        drop(state);
        found.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.summary.number));
        let more = found.len() > most;
        found.truncate(most);
        (found, more)
    }

    /// Where the time of the exchanges went that ended since then, by route, with how many there are of each.
    pub fn times(&self, since: SystemTime) -> HashMap<Arc<str>, (Times, usize)> {
        let state = self.shared.take_in();
        let mut times: HashMap<Arc<str>, (Times, usize)> = HashMap::new();
        for entry in state.rings.iter().filter(|entry| entry.ended_at >= since) {
            let Some(route) = &entry.summary.route else { continue };
            let (sum, count) = times.entry(Arc::clone(&route.0)).or_default();
            sum.add(&entry.times);
            *count += 1;
        }
        times
    }

    /// Hears of each that is kept from now on. Whoever listens too slowly misses some, and is told how many.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Entry>> {
        self.shared.live.subscribe()
    }

    /// How many are kept, in how much memory, and how many had to go.
    pub fn status(&self) -> Status {
        let state = self.shared.take_in();
        let counts = &self.shared.counts;
        let displaced = |reason: Displaced| {
            let of = |kind: Kept| counts.displaced[kind as usize][reason as usize].get();
            (reason.word(), Kept::ALL.into_iter().map(of).sum())
        };
        Status {
            kept: state.rings.counts().map(|(kind, count)| (kind.word(), count)).into(),
            bytes: state.rings.bytes(),
            taken: counts.kept.iter().map(Tally::get).sum(),
            displaced: Displaced::ALL.map(displaced).into(),
        }
    }

    /// Takes in nothing more and lets the thread end.
    pub fn close(&self) {
        self.shared.backlog.clear();
    }
}

impl Sink for Recent {
    fn operation_ended(&self, record: &Arc<Record>) {
        let Some(kind) = self.shared.kind(record) else { return };
        if self.shared.backlog.push((Arc::clone(record), kind), 1).is_err() {
            self.shared.counts.displace(kind, Displaced::QueueFull);
        }
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Why this one is to be kept, if it is.
    fn kind(&self, record: &Record) -> Option<Kept> {
        if record.failure().is_some() {
            let error = ErrorType::of_operation(record).is_some();
            return Some(if error { Kept::Error } else { Kept::Refused });
        }
        if record.was_retried() {
            return Some(Kept::Slow);
        }
        let duration = record.duration();
        let now = (record.started + duration).saturating_duration_since(self.begun);
        let gate = &record.route_labels()?.series.recent;
        // how long a stream takes says nothing
        let took = if record.is_stream() { Duration::ZERO } else { duration };
        gate.admits(took, now, self.sample_every).map(|admitted| match admitted {
            Admitted::Slowest => Kept::Slow,
            Admitted::Sample => Kept::Sample,
        })
    }

    /// Makes plain data of what waits, in the order in which it came.
    fn take_in(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (record, kind) in self.backlog.drain() {
            let State { rings, words } = &mut *state;
            let entry = Arc::new(Entry::new(rings.next_number(), kind, &record, &self.privacy, words));
            self.counts.kept[kind as usize].add(1);
            rings.keep(Arc::clone(&entry), |kind, reason| self.counts.displace(kind, reason));
            // nobody may be listening
            let _ = self.live.send(entry);
        }
        state
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").finish_non_exhaustive()
    }
}

/// What is kept of recent exchanges.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// How many, by why.
    pub kept: BTreeMap<&'static str, usize>,
    /// In about this much memory.
    pub bytes: usize,
    /// How many there have been.
    pub taken: u64,
    /// How many are no more, by why.
    pub displaced: BTreeMap<&'static str, u64>,
}

/// The most that wait to be taken in.
const QUEUE: usize = 4096;
/// As many are taken in together.
const BATCH: usize = 256;
/// How long one waits for others.
const DELAY: Duration = Duration::from_millis(50);
/// By how many a listener may lag.
const LIVE: usize = 256;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use serde_json::{Value, json};

    use super::filter::{Filter, Status};
    use super::{Recent, settings};
    use crate::failure::{Detail, Failure, Reason};
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::operation::Attempt;
    use crate::telemetry::settings::Privacy;
    use crate::telemetry::testing::{self, Bench};

    fn recent(settings: &settings::Recent) -> (Arc<Recent>, Bench) {
        let metrics = Metrics::new(&settings::Metrics::default());
        let recent = Recent::start(settings, Privacy::default(), metrics.recent()).unwrap();
        let recent = Arc::new(recent);
        (Arc::clone(&recent), Bench::new(recent))
    }

    fn good(bench: &Bench, order: &str) {
        let operation = bench.start("GET");
        let handle = operation.handle().clone();
        handle.route(&bench.route);
        handle.attribute(0, order.as_bytes());
        let mut attempt = Attempt::start(&handle, &bench.endpoint);
        testing::answered(&mut attempt, 200);
        drop(attempt);
        testing::answer(operation, 200);
    }

    fn bad(bench: &Bench, reason: Reason, status: u16) {
        let operation = bench.start("GET");
        let handle = operation.handle().clone();
        handle.route(&bench.route);
        let mut attempt = Attempt::start(&handle, &bench.endpoint);
        attempt.fail(&Failure::new(reason).detail(Detail::StreamReset));
        drop(attempt);
        handle.fail(&Failure::new(reason));
        testing::answer(operation, status);
    }

    fn words(recent: &Recent, filter: &Filter) -> Vec<(Value, Value)> {
        let (found, _) = recent.list(filter, 100);
        let word = |entry: &Arc<super::Entry>| {
            let entry = serde_json::to_value(&**entry).unwrap();
            (entry["kept"].clone(), entry["reason"].clone())
        };
        found.iter().map(word).collect()
    }

    #[test]
    fn all_that_failed_is_kept_and_of_the_rest_the_slowest_and_some() {
        let every = Duration::from_hours(1);
        let (recent, bench) =
            recent(&settings::Recent { sample_every: every, ..settings::Recent::default() });
        for _ in 0..50 {
            bad(&bench, Reason::UpstreamReset, 502);
            bad(&bench, Reason::RateLimited, 429);
            good(&bench, "4711");
        }
        let status = recent.status();
        assert_eq!((status.kept["error"], status.kept["refused"], status.kept["sample"]), (50, 50, 1));
        assert!((1..20).contains(&status.kept["slow"]), "{status:?}");
        assert!(status.bytes > 100 * 500 && status.displaced.values().all(|count| *count == 0), "{status:?}");
    }

    #[test]
    fn what_a_filter_wants_comes_newest_first() {
        let (recent, bench) = recent(&settings::Recent::default());
        good(&bench, "4711");
        bad(&bench, Reason::UpstreamReset, 502);
        bad(&bench, Reason::RateLimited, 429);
        let all = [("refused", "rate_limited"), ("error", "upstream_reset")];
        let all = all.map(|(kept, reason)| (json!(kept), json!(reason)));
        let failed = Filter { failed: true, ..Filter::default() };
        assert_eq!(words(&recent, &failed), all);
        let filter = Filter { status: Some(Status::Class(5)), ..Filter::default() };
        assert_eq!(words(&recent, &filter), all[1..]);
        let filter = Filter { find: Some("4711".to_owned()), ..Filter::default() };
        assert_eq!(words(&recent, &filter), [(json!("slow"), Value::Null)]);
        let filter = Filter { before: Some(3), ..failed };
        assert_eq!(words(&recent, &filter), all[1..]);
        let (found, more) = recent.list(&Filter::default(), 2);
        assert_eq!((found.len(), more), (2, true));
        let id = found[0].summary.trace_id.to_string();
        let filter = Filter { trace_id: Some(id[..12].to_owned()), ..Filter::default() };
        assert_eq!(words(&recent, &filter), all[..1]);
        let times = recent.times(SystemTime::now() - Duration::from_mins(1));
        assert_eq!(times["order_read"].1, 3);
        assert!(recent.times(SystemTime::now() + Duration::from_mins(1)).is_empty());
    }

    #[test]
    fn what_is_too_much_makes_room_and_errors_go_last() {
        let bounds = settings::Recent { refused: 3, ..settings::Recent::default() };
        let (recent, bench) = recent(&bounds);
        (0..5).for_each(|_| bad(&bench, Reason::RateLimited, 429));
        let status = recent.status();
        assert_eq!((status.kept["refused"], status.displaced["count"], status.taken), (3, 2, 5));

        let (recent, bench) = self::recent(&settings::Recent { bytes: 6000, ..settings::Recent::default() });
        bad(&bench, Reason::UpstreamReset, 502);
        (0..20).for_each(|_| bad(&bench, Reason::RateLimited, 429));
        let status = recent.status();
        assert!(status.bytes <= 6000 && status.displaced["bytes"] > 0, "{status:?}");
        assert_eq!(status.kept["error"], 1, "{status:?}");
    }

    #[tokio::test]
    async fn whoever_listens_hears_of_it() {
        let (recent, bench) = recent(&settings::Recent::default());
        let mut live = recent.listen();
        bad(&bench, Reason::UpstreamReset, 502);
        let entry = live.recv().await.unwrap();
        assert!(entry.failed());
        recent.close();
        bad(&bench, Reason::UpstreamReset, 502);
        assert_eq!(recent.status().displaced["queue_full"], 1);
    }
}
