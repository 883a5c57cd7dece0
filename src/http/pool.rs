//! One endpoint's connections: kept, lent, counted and capped.
//!
//! The pool holds hyper's senders itself: it knows what was sent, gets back what was not, and never sends
//! anything twice. An HTTP/1.1 connection is lent to one request at a time, whose task drives it meanwhile: a task of
//! its own would be woken three times a request. An HTTP/2 connection is shared, and has a task.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::Either;
use http::StatusCode;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::body::request::{RequestBody, Wanted};
use super::headroom::{Bounded, Headroom, INFORMATIONAL_BYTES};
use crate::failure::{Detail, Failure, Reason};
use crate::net;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::connections::OpenConnection;
use crate::telemetry::operation::ConnectionFacts;
use crate::upstream::breaker::{Bound, Breaker, Counted};
use crate::upstream::{self, Endpoint, Protocol};
use crate::worker::PerWorker;

/// HTTP/2 windows towards upstreams: what one answer, and all answers of a connection, may have under way.
/// The streams' windows add up to the connection's, so that answers that are not taken stall no other.
const HTTP2_STREAM_WINDOW: u32 = 256 << 10;
const HTTP2_CONNECTION_WINDOW: u32 = HTTP2_STREAM_WINDOW * HTTP2_STREAMS;

/// The most requests at once on one HTTP/2 connection, if the endpoint does not want fewer; more go to another.
const HTTP2_STREAMS: u32 = 64;

/// How long an HTTP/2 connection in use may be silent before it is asked whether it is still there, and how long
/// it may take to say so: a dead one would fail every request, for a quarter of an hour where TCP alone finds out.
const HTTP2_PING: Duration = Duration::from_secs(5);
const HTTP2_PONG: Duration = Duration::from_secs(5);

/// How long a kept connection is waited for whose last request is still being sent.
const READY_WITHIN: Duration = Duration::from_millis(10);

/// The pool of one endpoint.
#[derive(Debug)]
pub struct Pool {
    endpoint: Arc<Endpoint>,
    metrics: Arc<Metrics>,
    settings: upstream::Pool,
    protocol: Protocol,
    header_bytes: usize,
    places: Arc<Semaphore>,
    pending: AtomicUsize,
    /// Where a worker has none left it takes another's, which comes along.
    idle: PerWorker<Mutex<Vec<Idle>>>,
    retired: AtomicBool,
    /// A worker's own, unless there may be only so many: what is said on one is for its task to write and read.
    shared: PerWorker<tokio::sync::Mutex<Shared>>,
    /// Bounds of the whole upstream, if it has any, and the pools that share them.
    breaker: Option<Arc<Breaker>>,
    all: Mutex<Weak<[Arc<Pool>]>>,
}

/// The HTTP/2 connections, and how the last dialling failed, if it did.
#[derive(Debug, Default)]
struct Shared {
    connections: Vec<SharedConnection>,
    failed: Option<(Instant, (Reason, Option<Detail>))>,
}

#[derive(Debug)]
struct Idle {
    connection: Http1,
    facts: ConnectionFacts,
    since: Instant,
}

impl Idle {
    /// Used again.
    fn reused(self) -> (Sender, ConnectionFacts) {
        let facts = ConnectionFacts { reused: true, peer: self.facts.peer, ..Default::default() };
        (Sender::Http1(self.connection), facts)
    }
}

/// An HTTP/1.1 connection.
#[derive(Debug)]
struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    headroom: Headroom,
    driven: Driven,
}

/// Who drives an HTTP/1.1 connection. It ends with this: what an early answer left of a request is not sent any more.
enum Driven {
    /// Whoever waits for something that comes over it; nobody while it is kept.
    Here(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// A task of its own.
    Apart { _task: Task },
    /// It is over.
    Over,
}

impl fmt::Debug for Driven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here(_) => "Here",
            Self::Apart { .. } => "Apart",
            Self::Over => "Over",
        })
    }
}

#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Http1 {
    /// Lets the connection go on, if that is the caller's to do.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Driven::Here(here) = &mut self.driven
            && here.as_mut().poll(cx).is_ready()
        {
            self.driven = Driven::Over;
        }
    }

    /// Lets it go on by itself from now on.
    fn set_apart(&mut self) {
        match std::mem::replace(&mut self.driven, Driven::Over) {
            Driven::Here(here) => {
                self.driven = Driven::Apart { _task: Task(tokio::spawn(here).abort_handle()) }
            }
            driven => self.driven = driven,
        }
    }

    /// Can be used now.
    async fn ready(&mut self) -> hyper::Result<()> {
        poll_fn(|cx| {
            self.drive(cx);
            self.sender.poll_ready(cx)
        })
        .await
    }

    /// Whether it is over, as far as can be seen without waiting.
    fn is_closed(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.sender.is_closed()
    }
}

#[derive(Debug)]
struct SharedConnection {
    stream: Http2,
    facts: ConnectionFacts,
}

/// A use of an HTTP/2 connection: the pool's own, or a request's.
#[derive(Debug, Clone)]
struct Http2 {
    sender: http2::SendRequest<RequestBody>,
    /// Counts the uses, and with the last of them the breaker counts one connection less.
    uses: Arc<Option<Counted>>,
    /// How many requests the endpoint takes at once.
    most: Arc<AtomicUsize>,
}

impl Http2 {
    /// Requests on it now.
    fn requests(&self) -> usize {
        // one use is the pool's
        Arc::strong_count(&self.uses).saturating_sub(1)
    }

    fn has_room(&self) -> bool {
        self.requests() < self.most.load(Ordering::Relaxed)
    }
}

/// A connection lent for one exchange. Dropped without being given back, an HTTP/1.1 connection is closed.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    sender: Sender,
    facts: ConnectionFacts,
    request: Option<Wanted>,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Sender {
    Http1(Http1),
    Http2(Http2),
}

impl Pool {
    /// An empty pool for this endpoint and so many workers, which counts its connections in these metrics, and at the
    /// breaker of its upstream.
    pub fn new(
        endpoint: &Arc<Endpoint>,
        breaker: Option<&Arc<Breaker>>,
        settings: &upstream::Settings,
        metrics: &Arc<Metrics>,
        workers: usize,
    ) -> Arc<Self> {
        let none: Weak<[Arc<Self>]> = Weak::<[Arc<Self>; 0]>::new();
        let is_bounded = breaker.is_some_and(|breaker| breaker.bounds(Bound::Connections));
        Arc::new(Self {
            endpoint: Arc::clone(endpoint),
            metrics: Arc::clone(metrics),
            settings: settings.pool,
            protocol: settings.protocol,
            header_bytes: settings.header_bytes,
            places: Arc::new(Semaphore::new(settings.pool.connections)),
            pending: AtomicUsize::new(0),
            idle: PerWorker::new(workers),
            retired: AtomicBool::new(false),
            shared: PerWorker::new(if is_bounded { 1 } else { workers }),
            breaker: breaker.cloned(),
            all: Mutex::new(none),
        })
    }

    /// These are the pools of one upstream: they share its breaker.
    pub fn gather(pools: &Arc<[Arc<Self>]>) {
        for pool in &**pools {
            *pool.all.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(pools);
        }
    }

    /// Lends a connection that is kept and can be used at once, now, if there is one and a place for it.
    pub fn lend_kept(self: &Arc<Self>, now: Instant) -> Option<Lease> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let (sender, facts) = match self.protocol {
            Protocol::Http1 => self.take_ready(now)?.reused(),
            Protocol::Http2 => self.shared.try_lock().ok().and_then(|shared| self.known(&shared))?,
        };
        Some(Lease { pool: Arc::clone(self), sender, facts, request: None, _place: place })
    }

    /// Lends a connection: one that is kept unless a `fresh` one is wanted, else a new one. Waits for a place if all are taken.
    ///
    /// Fails with `pool_timeout` where too many wait or the wait is over, else with what dialling failed with. Each part
    /// of the way is told the moment it is over, whatever becomes of the rest.
    pub async fn lend(self: &Arc<Self>, fresh: bool, way: &mut ConnectionFacts) -> Result<Lease, Failure> {
        *way = ConnectionFacts::default();
        let place = self.place(way).await?;
        let (sender, facts) = match self.protocol {
            // one that is kept gives way: the places are for those that are kept, too
            Protocol::Http1 if fresh => {
                self.close_one();
                (self.dial_http1(way).await?, *way)
            }
            Protocol::Http1 => match self.kept().await {
                Some(kept) => kept,
                None => (self.dial_http1(way).await?, *way),
            },
            Protocol::Http2 => self.share(way).await?,
        };
        let facts = ConnectionFacts { waited: way.waited, ..facts };
        Ok(Lease { pool: Arc::clone(self), sender, facts, request: None, _place: place })
    }

    /// Whether its connections lead to this very endpoint.
    pub fn is_of(&self, endpoint: &Arc<Endpoint>) -> bool {
        Arc::ptr_eq(&self.endpoint, endpoint)
    }

    /// A reload has taken the pool away: from now on nothing is kept in it. Who still has it may finish.
    pub fn retire(&self) {
        // before a lock is held that one is given back under: none is behind it
        self.retired.store(true, Ordering::Relaxed);
        self.all_idle().for_each(|mut idle| idle.clear());
        for mut shared in self.shared.all().filter_map(|shared| shared.try_lock().ok()) {
            shared.connections.clear();
        }
    }

    /// Whether the endpoint is spoken to in HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.protocol == Protocol::Http2
    }

    /// Closes connections that have been unused for too long, or whose address is no longer the endpoint's.
    pub fn sweep(&self) {
        let now = Instant::now();
        for mut idle in self.all_idle() {
            idle.retain_mut(|kept| !kept.connection.is_closed() && self.is_usable(kept, now));
        }
        for mut shared in self.shared.all().filter_map(|shared| shared.try_lock().ok()) {
            // one without requests is enough
            let mut spare = false;
            shared.connections.retain(|known| {
                let idle = known.stream.requests() == 0;
                let kept = self.is_shareable(known) && !(idle && spare);
                spare |= idle && kept;
                kept
            });
        }
    }

    async fn place(&self, way: &mut ConnectionFacts) -> Result<OwnedSemaphorePermit, Failure> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let _pending = Pending::enter(self)?;
        let _counted = self.count(Bound::Pending)?;
        let began = Instant::now();
        let place = tokio::time::timeout(self.settings.wait, Arc::clone(&self.places).acquire_owned()).await;
        way.waited = Some(began.elapsed());
        match place {
            Ok(place) => Ok(place.expect("the semaphore is never closed")),
            Err(_) => Err(Failure::new(Reason::PoolTimeout)),
        }
    }

    /// A kept connection that can be used at once, else the last one given back, if it can be soon: what an endpoint has
    /// answered early and does not read on may never be sent.
    async fn kept(&self) -> Option<(Sender, ConnectionFacts)> {
        while let Some(mut kept) = self.take() {
            if let Ok(Ok(())) = tokio::time::timeout(READY_WITHIN, kept.connection.ready()).await {
                return Some(kept.reused());
            }
        }
        None
    }

    /// One that can be used at once. Those that have a task of their own may not have seen yet that their exchange is
    /// over; what the endpoint has closed meanwhile gives the request back unsent.
    fn take_ready(&self, now: Instant) -> Option<Idle> {
        self.all_idle().find_map(|mut idle| {
            let ready = |kept: &Idle| kept.connection.sender.is_ready() && self.is_usable(kept, now);
            let ready = idle.iter().rposition(ready)?;
            Some(idle.swap_remove(ready))
        })
    }

    fn take(&self) -> Option<Idle> {
        let now = Instant::now();
        if let Some(ready) = self.take_ready(now) {
            return Some(ready);
        }
        self.all_idle().find_map(|mut idle| {
            idle.retain_mut(|kept| !kept.connection.is_closed() && self.is_usable(kept, now));
            idle.pop()
        })
    }

    fn is_usable(&self, kept: &Idle, now: Instant) -> bool {
        !kept.connection.sender.is_closed()
            && now.saturating_duration_since(kept.since) < self.settings.idle
            && kept.facts.peer.is_none_or(|peer| self.endpoint.is_current(peer))
    }

    /// Counts one more of what the circuit breaker bounds. Where there are too many connections, an unused one
    /// is closed for it, of whichever endpoint.
    fn count(&self, bound: Bound) -> Result<Option<Counted>, Failure> {
        let Some(breaker) = &self.breaker else { return Ok(None) };
        breaker.enter_after(bound, || bound == Bound::Connections && self.close_unused())
    }

    fn close_unused(&self) -> bool {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        all.iter().flat_map(|all| all.iter()).any(|pool| pool.close_one())
    }

    /// Closes one that nobody uses; whether there was one.
    fn close_one(&self) -> bool {
        let http1 = self.all_idle().any(|mut idle| {
            !idle.is_empty() && {
                // the one that has been unused for longest, as far as the order tells
                drop(idle.swap_remove(0));
                true
            }
        });
        let mut shared = self.shared.all().filter_map(|shared| shared.try_lock().ok());
        http1
            || shared.any(|mut shared| {
                let unused = shared.connections.iter().position(|known| known.stream.requests() == 0);
                unused.map(|unused| shared.connections.swap_remove(unused)).is_some()
            })
    }

    /// What is kept, this worker's first; one lock at a time.
    fn all_idle(&self) -> impl Iterator<Item = MutexGuard<'_, Vec<Idle>>> {
        self.idle.all().map(|idle| idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn dial_http1(&self, way: &mut ConnectionFacts) -> Result<Sender, Failure> {
        let counted = self.count(Bound::Connections)?;
        let stream = self.endpoint.dial_telling(way).await?;
        let headroom = Headroom::default();
        let handshake = http1::Builder::new()
            .max_header_size(self.header_bytes)
            .handshake(TokioIo::new(Bounded::new(stream, headroom.clone())));
        let (sender, connection) = handshake.await.map_err(broken)?;
        let driven = Box::pin(self.driven(connection.with_upgrades(), counted));
        let connection = Http1 { sender, headroom, driven: Driven::Here(driven) };
        Ok(Sender::Http1(connection))
    }

    /// The shared connection. Those who waited while it was being dialled in vain share the failure too, or
    /// each would wait for a dialling of its own.
    async fn share(&self, way: &mut ConnectionFacts) -> Result<(Sender, ConnectionFacts), Failure> {
        let asked = Instant::now();
        let mut shared = if let Ok(shared) = self.shared.try_lock() {
            shared
        } else {
            let shared = self.shared.lock().await;
            way.waited = Some(way.waited.unwrap_or_default() + asked.elapsed());
            shared
        };
        if let Some(known) = self.known(&shared) {
            return Ok(known);
        }
        shared.connections.retain(|known| self.is_shareable(known));
        if let Some((_, failure)) = shared.failed.filter(|&(at, _)| at > asked) {
            return Err(failure.into());
        }
        match self.dial_http2(way).await {
            Ok(stream) => {
                shared.connections.push(SharedConnection { stream: stream.clone(), facts: *way });
                Ok((Sender::Http2(stream), *way))
            }
            Err(failure) => {
                shared.failed = Some((Instant::now(), (failure.reason, failure.detail)));
                Err(failure)
            }
        }
    }

    fn known(&self, shared: &Shared) -> Option<(Sender, ConnectionFacts)> {
        let mut known = shared.connections.iter();
        let known = known.find(|known| self.is_shareable(known) && known.stream.has_room())?;
        let facts = ConnectionFacts { reused: true, peer: known.facts.peer, ..Default::default() };
        Some((Sender::Http2(known.stream.clone()), facts))
    }

    fn is_shareable(&self, known: &SharedConnection) -> bool {
        !known.stream.sender.is_closed() && known.facts.peer.is_none_or(|peer| self.endpoint.is_current(peer))
    }

    async fn dial_http2(&self, way: &mut ConnectionFacts) -> Result<Http2, Failure> {
        let counted = self.count(Bound::Connections)?;
        let stream = self.endpoint.dial_telling(way).await?;
        self.handshake_http2(stream, counted).await
    }

    async fn handshake_http2(&self, stream: net::Stream, counted: Option<Counted>) -> Result<Http2, Failure> {
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING)
            .keep_alive_timeout(HTTP2_PONG)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(self.header_bytes).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(stream));
        let (sender, mut connection) = handshake.await.map_err(broken)?;
        let ours = HTTP2_STREAMS as usize;
        let most = Arc::new(AtomicUsize::new(ours));
        let stated = Arc::clone(&most);
        let driven = poll_fn(move |cx| {
            let end = Pin::new(&mut connection).poll(cx);
            // it may be stated at any time; an endpoint that takes none is waited for
            stated.store(connection.current_max_send_streams().clamp(1, ours), Ordering::Relaxed);
            end
        });
        // for as long as the pool or an exchange holds a sender
        tokio::spawn(self.driven(driven, None));
        Ok(Http2 { sender, uses: Arc::new(counted), most })
    }

    /// A connection on its way, counted until it is over.
    fn driven(
        &self,
        connection: impl Future<Output = hyper::Result<()>> + Send + 'static,
        counted: Option<Counted>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let open = self.metrics.endpoint_connection(&self.endpoint.labels);
        async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
            drop((open, counted));
        }
    }
}

fn broken(error: hyper::Error) -> Failure {
    Failure::new(Reason::UpstreamReset).because(error)
}

/// A request that waits for a place.
struct Pending<'a>(&'a AtomicUsize);

impl<'a> Pending<'a> {
    fn enter(pool: &'a Pool) -> Result<Self, Failure> {
        if pool.pending.fetch_add(1, Ordering::Relaxed) < pool.settings.pending {
            return Ok(Self(&pool.pending));
        }
        pool.pending.fetch_sub(1, Ordering::Relaxed);
        Err(Failure::new(Reason::PoolTimeout).detail(Detail::QueueFull))
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, which comes by being asked for.
#[derive(Debug)]
pub struct Coming<'a> {
    lease: &'a mut Lease,
    answer: Incoming,
}

impl http_body::Body for Coming<'_> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        this.lease.poll_frame(&mut this.answer, cx)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}

impl Lease {
    /// How the connection came to be.
    pub fn facts(&self) -> ConnectionFacts {
        self.facts
    }

    /// Sends a request and waits for the answer's head. What was not sent, because the connection had been closed
    /// meanwhile, comes back.
    pub fn send(
        &mut self,
        request: http::Request<RequestBody>,
    ) -> impl Future<Output = Result<http::Response<Incoming>, TrySendError<http::Request<RequestBody>>>>
    {
        let request_body = &*self.request.insert(Wanted::new(request.body().progress()));
        match &mut self.sender {
            Sender::Http1(connection) => {
                connection.headroom.await_head(self.pool.header_bytes + INFORMATIONAL_BYTES);
                let sent = connection.sender.try_send_request(request);
                Either::Left(async move {
                    let mut sent = pin!(sent);
                    let answer = poll_fn(|cx| {
                        connection.drive(cx);
                        sent.as_mut().poll(cx)
                    })
                    .await;
                    connection.headroom.head_came();
                    let switches =
                        |answer: &http::Response<_>| answer.status() == StatusCode::SWITCHING_PROTOCOLS;
                    // the rest of a request, or a tunnel, goes on whether or not somebody wants the answer's body now
                    if answer.as_ref().is_ok_and(switches) || !request_body.is_sent() {
                        connection.set_apart();
                    }
                    answer
                })
            }
            Sender::Http2(stream) => Either::Right(stream.sender.try_send_request(request)),
        }
    }

    /// What comes next of the body of the answer that came over this connection.
    pub fn poll_frame(
        &mut self,
        answer: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let come = Pin::new(&mut *answer).poll_frame(cx);
        match &mut self.sender {
            Sender::Http1(connection) if come.is_pending() => {
                connection.drive(cx);
                Pin::new(answer).poll_frame(cx)
            }
            _ => come,
        }
    }

    /// The body of the answer that came over this connection, for who reads it whole.
    pub fn body(&mut self, answer: Incoming) -> Coming<'_> {
        Coming { lease: self, answer }
    }

    /// Counts an open connection: one that has become a tunnel is no longer counted by its task.
    pub fn count_open(&self) -> OpenConnection {
        self.pool.metrics.endpoint_connection(&self.pool.endpoint.labels)
    }

    /// Gives the connection back after the answer's last byte, now. It is kept if the request had been sent whole.
    pub fn give_back(self, now: Instant) {
        let Sender::Http1(mut connection) = self.sender else { return };
        let sent = self.request.as_ref().is_none_or(Wanted::is_sent);
        if sent && !connection.sender.is_closed() {
            if !connection.sender.is_ready() {
                // the request's last bytes are still on their way
                connection.set_apart();
            }
            let kept = Idle { connection, facts: self.facts, since: now };
            let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if !self.pool.retired.load(Ordering::Relaxed) {
                idle.push(kept);
            }
        }
    }
}
