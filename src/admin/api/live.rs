//! `/api/stream`: what happens, as server-sent events, to a bounded number of listeners. Whoever reads too slowly misses
//! exchanges and is told how many; nobody is waited for.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Either, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use super::board;
use crate::admin::control::Control;
use crate::admin::page::{Page, json as page};
use crate::telemetry::recent::entry::Entry;

/// Whether whoever listens may still do so.
pub(in crate::admin) type Still = Box<dyn Fn() -> bool + Send + Sync>;

/// The stream, for all who listen.
pub(in crate::admin) struct Live {
    places: Arc<Semaphore>,
    /// The events of a reading of the series, made once for all: its number, those for everybody, those for people who
    /// read everything.
    board: Mutex<(u64, Bytes, Bytes)>,
    stop: CancellationToken,
}

/// One who listens.
struct Listener {
    live: Arc<Live>,
    control: Arc<dyn Control>,
    entries: broadcast::Receiver<Arc<Entry>>,
    ticks: watch::Receiver<u64>,
    heartbeat: Interval,
    check: Interval,
    still: Still,
    /// Whether everything is shown, not only what failed.
    everything: bool,
    until: Instant,
    begun: bool,
    _place: OwnedSemaphorePermit,
}

impl Live {
    pub(in crate::admin) fn new(stop: CancellationToken) -> Arc<Self> {
        let board = Mutex::new((0, Bytes::new(), Bytes::new()));
        Arc::new(Self { places: Arc::new(Semaphore::new(LISTENERS)), board, stop })
    }

    /// Lets somebody listen, as long as they `still` may.
    pub(in crate::admin) fn listen(
        self: &Arc<Self>,
        control: &Arc<dyn Control>,
        everything: bool,
        still: Still,
    ) -> Page {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let problem = json!({ "problem": "as many listen as may" });
            let mut refusal = page(StatusCode::SERVICE_UNAVAILABLE, &problem);
            refusal.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
            return refusal;
        };
        let every = |period: Duration| {
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let listener = Listener {
            live: Arc::clone(self),
            entries: control.recent().listen(),
            ticks: control.hour().ticks(),
            control: Arc::clone(control),
            heartbeat: every(HEARTBEAT),
            check: every(CHECK),
            still,
            everything,
            until: Instant::now() + AGE,
            begun: false,
            _place: place,
        };
        let events = stream::unfold(listener, |mut listener| async {
            let event = listener.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(event)), listener))
        });
        let mut answer = Response::new(Either::Right(StreamBody::new(events).boxed_unsync()));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        answer
    }

    fn board(&self, control: &dyn Control, number: u64, everything: bool) -> Bytes {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        if board.0 != number || board.1.is_empty() {
            let routes = event("routes", &board::routes(control));
            let upstreams = event("upstreams", &json!({ "upstreams": control.upstreams() }));
            let common = [routes, upstreams].concat();
            let telemetry = event("telemetry", &control.telemetry());
            let reloads = event("reloads", &control.reloads());
            *board = (number, common.clone().into(), [common, telemetry, reloads].concat().into());
        }
        if everything { board.2.clone() } else { board.1.clone() }
    }
}

impl Listener {
    /// The next events, or the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.begun {
            self.begun = true;
            let number = *self.ticks.borrow_and_update();
            let hello = format!("retry: {RETRY}\n{}", event("hello", &json!({ "version": VERSION })));
            let board = self.live.board(&*self.control, number, self.everything);
            return Some([hello.as_bytes(), &board].concat().into());
        }
        loop {
            tokio::select! {
                biased;
                () = self.live.stop.cancelled() => return None,
                () = sleep_until(self.until) => return None,
                _ = self.check.tick() => if !(self.still)() { return None },
                changed = self.ticks.changed() => {
                    changed.ok()?;
                    let number = *self.ticks.borrow_and_update();
                    return Some(self.live.board(&*self.control, number, self.everything));
                }
                entry = self.entries.recv() => match entry {
                    Ok(entry) if self.everything || entry.failed() => {
                        return Some(event("trace", &json!(entry.summary)).into());
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(missed)) => {
                        return Some(event("lagged", &json!({ "missed": missed })).into());
                    }
                    Err(RecvError::Closed) => return None,
                },
                _ = self.heartbeat.tick() => return Some(Bytes::from_static(b": still here\n\n")),
            }
        }
    }
}

/// An event as it is sent (HTML standard, "server-sent events").
fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The most who listen at once.
const LISTENERS: usize = 32;
/// So that whoever stands between sees that the stream is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often is looked whether somebody may still listen.
const CHECK: Duration = Duration::from_secs(1);
/// How long one stream goes on; whoever wants more asks again.
pub(in crate::admin) const AGE: Duration = Duration::from_hours(1);
/// After which a browser asks again, in milliseconds.
const RETRY: u32 = 2000;
