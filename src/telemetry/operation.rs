//! One recorded unit of work: who owns it, what may be stated about it, what the sinks read from it.
//!
//! [`Operation`] is owned by whatever ends last (the answer's body, the tunnel) and recorded when it drops.
//! [`Handle`]s state facts meanwhile. [`Attempt`] is the same for one try at one endpoint. Nobody else makes
//! a span, a metric or a log line.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;

use super::attribute::{Configured, Personal};
use super::context::{Context, SpanId};
use super::exchange::{Exchange, Method, Side};
use super::exemplar::Candidates;
use super::privacy::Disclosed;
use super::retry::NotRetried;
use super::sampling::{Decision, RouteSampling};
use super::series::{EndpointSeries, RouteSeries};
use super::sticky::Sticky;
use crate::failure::{Detail, Failure, Reason};

/// The most attempts one operation keeps a record of; retry policies are bounded by it.
pub const MAX_ATTEMPTS: usize = 8;

/// The most questions one operation keeps a record of; the rules of a route that ask are bounded by it.
pub const MAX_QUESTIONS: usize = 8;

/// What every record of a route carries, fixed when the route is built.
#[derive(Debug)]
pub struct RouteLabels {
    /// The route's key in the table.
    pub route: Configured,
    /// `http.route`: the path template before any rewrite.
    pub template: Configured,
    /// `url.template` towards the upstream: the template after the rewrite.
    pub upstream_template: Configured,
    /// The business operation (`order.create`), if the route names one.
    pub operation: Option<Configured>,
    /// The upstream's key in the table; empty if the route answers without one.
    pub upstream: Configured,
    /// `server.address` of the SERVER span, from the configured hosts: the Host field is client text.
    pub server: Option<Configured>,
    /// The business attributes' keys (`order.id`); [`Handle::attribute`] takes an index into it.
    pub attributes: Box<[Box<str>]>,
    /// What the route says of sampling.
    pub sampling: RouteSampling,
    /// The route's metric series.
    pub series: RouteSeries,
}

impl RouteLabels {
    /// Whether records carry the same by these as by the others, so that their series can go on.
    pub fn tell_the_same(&self, other: &Self) -> bool {
        let Self {
            route,
            template,
            upstream_template,
            operation,
            upstream,
            server,
            attributes,
            sampling,
            series: _,
        } = self;
        (route, template, upstream_template) == (&other.route, &other.template, &other.upstream_template)
            && (operation, upstream, server) == (&other.operation, &other.upstream, &other.server)
            && (attributes, sampling) == (&other.attributes, &other.sampling)
    }

    /// The upstream's key, if the route has an upstream.
    pub fn upstream(&self) -> Option<&Configured> {
        (!self.upstream.is_empty()).then_some(&self.upstream)
    }
}

/// What every record of an endpoint carries, fixed when the endpoint is built.
#[derive(Debug)]
pub struct EndpointLabels {
    /// `host:port` as configured: the label `tracegate_endpoint`.
    pub endpoint: Configured,
    /// `server.address` of the CLIENT span.
    pub address: Configured,
    /// `server.port` of the CLIENT span; a Unix socket has none.
    pub port: Option<u16>,
    /// `http://host:port`, the beginning of `url.full`.
    pub origin: Configured,
    /// The upstream's key in the table.
    pub upstream: Configured,
    /// The service's own OpenTelemetry service name, if configured: `service.peer.name`.
    pub service: Option<Configured>,
    /// The endpoint's metric series.
    pub series: EndpointSeries,
}

/// Reads operations. Called on the request's own task: it must not block, and do little.
pub trait Sink: Send + Sync {
    /// An operation begins.
    fn operation_started(&self, record: &Record) {
        let _ = record;
    }

    /// An operation is over, and all its attempts; its record will not change any more.
    fn operation_ended(&self, record: &Arc<Record>);

    /// An answer turns out to be a stream. What is known of it so far, as a record of its own that will not
    /// change any more: [`Record::opening`].
    fn stream_opened(&self, opening: &Arc<Record>) {
        let _ = opening;
    }

    /// The spans of an operation that is over leave for a receiver. What becomes an exemplar if it accepts them is
    /// added. Called by the threads that export, by each for its own receiver.
    fn operation_leaves(&self, record: &Record, candidates: &mut Candidates) {
        let _ = (record, candidates);
    }

    /// An attempt begins.
    fn attempt_started(&self, record: &Record, attempt: &AttemptRecord) {
        let _ = (record, attempt);
    }

    /// An attempt is over.
    fn attempt_ended(&self, record: &Record, attempt: &AttemptRecord) {
        let _ = (record, attempt);
    }
}

/// Starts operations and is told of them: the sink that decides which of them are sampled.
pub(super) trait Records: Sink {
    /// The decision that the flag sent upstream tells.
    fn begin(&self, record: &Record) -> Decision;

    /// The decision at the end, when all is known.
    fn end(&self, record: &Record, begun: Decision) -> Decision;
}

/// All that is known of one operation. Written through a [`Handle`], read by the sinks.
pub struct Record {
    /// The listener's key in the table.
    pub listener: Arc<str>,
    /// The port the listener is bound to: `server.port` of the SERVER span. A Unix socket has none.
    pub port: Option<u16>,
    /// Trace context, fixed at the start.
    pub context: Context,
    /// What the exchange is.
    pub exchange: Exchange,
    /// `X-Request-Id`, continued if valid, else made.
    pub request_id: Personal<HeaderValue>,
    /// The client's address by the listener's trust rule. Leaves only if allowed.
    pub client: Personal<IpAddr>,
    /// The role of the client's certificate, a word of the configuration.
    pub client_role: Option<Configured>,
    /// The one wall-clock reading.
    pub started_at: SystemTime,
    /// The span that tells of a stream's opening; only in the record of that.
    pub opening: Option<SpanId>,
    stream_after: Option<Duration>,
    /// The same moment on the clock that durations are measured by.
    pub started: Instant,
    sink: Arc<dyn Records>,
    route: OnceLock<Arc<RouteLabels>>,
    attributes: OnceLock<Box<[OnceLock<Box<str>>]>>,
    disclosed: OnceLock<Box<Disclosed>>,
    begun: OnceLock<Decision>,
    verdict: OnceLock<Decision>,
    failure: AtomicU32,
    rule: OnceLock<Configured>,
    closed: AtomicU32,
    grpc: AtomicU8,
    status: AtomicU16,
    complete: AtomicBool,
    stream: AtomicBool,
    stream_told: AtomicBool,
    first_byte: AtomicU64,
    ended: AtomicU64,
    request_bytes: AtomicU64,
    request_sent: AtomicU64,
    response_bytes: AtomicU64,
    not_retried: AtomicU8,
    sticky: AtomicU8,
    passed: OnceLock<Passed>,
    left_uncompressed: AtomicBool,
    attempts_started: AtomicU8,
    attempts: [OnceLock<Box<AttemptRecord>>; MAX_ATTEMPTS],
    questions_started: AtomicU8,
    questions: OnceLock<Box<Questions>>,
}

/// Nearly no operation has any.
type Questions = [OnceLock<Box<AttemptRecord>>; MAX_QUESTIONS];

/// What let a request pass that had to show who it comes from.
#[derive(Debug, Clone)]
pub struct Passed {
    /// The rule, as the operator named it: `auth.staff`.
    pub rule: Configured,
    /// How it verifies: a closed word.
    pub method: &'static str,
    /// Why nobody was verified, where the operator lets requests pass all the same while nobody can be asked.
    pub unverified: Option<Detail>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("trace_id", &self.context.trace_id)
            .field("exchange", &self.exchange)
            .field("status", &self.status())
            .field("failure", &self.failure())
            .finish_non_exhaustive()
    }
}

/// A business attribute's value: at most 64 bytes of `[A-Za-z0-9._:-]`, else `_invalid` (design: the order number).
fn attribute_value(text: &[u8]) -> &str {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    match std::str::from_utf8(text) {
        Ok(value) if (1..=64).contains(&value.len()) && text.iter().all(plain) => value,
        _ => "_invalid",
    }
}

/// The owner of a [`Record`]. Not clonable: when it drops, the operation is over and is recorded, once.
#[derive(Debug)]
pub struct Operation {
    handle: Handle,
}

/// What starts an [`Operation`].
#[derive(Debug)]
pub struct Start {
    /// The listener's key.
    pub listener: Arc<str>,
    /// The port it is bound to; a Unix socket has none.
    pub port: Option<u16>,
    /// The trace context, continued or started.
    pub context: Context,
    /// What the exchange is.
    pub exchange: Exchange,
    /// The request's id.
    pub request_id: Personal<HeaderValue>,
    /// The client's address.
    pub client: Personal<IpAddr>,
    /// The role of the client's certificate, a word of the configuration.
    pub client_role: Option<Configured>,
    /// When the head's last byte had been read.
    pub started: Instant,
}

impl Operation {
    /// Begins an operation that this sink is told of.
    ///
    /// An answer whose body goes on for longer than `stream_after` is a stream.
    pub(super) fn start(sink: Arc<dyn Records>, stream_after: Option<Duration>, start: Start) -> Self {
        let handle = Handle(Arc::new(Record {
            listener: start.listener,
            port: start.port,
            context: start.context,
            exchange: start.exchange,
            request_id: start.request_id,
            client: start.client,
            client_role: start.client_role,
            started_at: SystemTime::now(),
            opening: None,
            stream_after,
            started: start.started,
            sink,
            route: OnceLock::new(),
            attributes: OnceLock::new(),
            disclosed: OnceLock::new(),
            begun: OnceLock::new(),
            verdict: OnceLock::new(),
            failure: AtomicU32::new(0),
            rule: OnceLock::new(),
            closed: AtomicU32::new(0),
            grpc: AtomicU8::new(0),
            status: AtomicU16::new(0),
            complete: AtomicBool::new(false),
            stream: AtomicBool::new(false),
            stream_told: AtomicBool::new(false),
            first_byte: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            request_sent: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            not_retried: AtomicU8::new(0),
            sticky: AtomicU8::new(0),
            passed: OnceLock::new(),
            left_uncompressed: AtomicBool::new(false),
            attempts_started: AtomicU8::new(0),
            attempts: [const { OnceLock::new() }; MAX_ATTEMPTS],
            questions_started: AtomicU8::new(0),
            questions: OnceLock::new(),
        }));
        handle.sink.operation_started(&handle);
        Self { handle }
    }

    /// A handle to state facts with.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let record = &self.handle.0;
        if std::thread::panicking() {
            self.handle.fail(&Failure::new(Reason::Panic));
        }
        if !record.complete.load(Ordering::Relaxed) {
            // the default: only a seen end, or a stated reason, says otherwise
            self.handle.fail(&Failure::new(Reason::ClientGone));
        }
        let ended = record.nanoseconds_since_start();
        record.ended.store(ended, Ordering::Relaxed);
        if record.is_long(ended) {
            record.stream.store(true, Ordering::Relaxed);
        }
        record.sink.operation_ended(record);
    }
}

/// States facts about an operation that somebody else owns.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Record>);

impl std::ops::Deref for Handle {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.0
    }
}

impl Handle {
    /// The route is known. Only the first call counts. The sampling decision falls with it.
    pub fn route(&self, labels: &Arc<RouteLabels>) {
        if self.0.route.set(Arc::clone(labels)).is_ok() {
            if !labels.attributes.is_empty() {
                let values = labels.attributes.iter().map(|_| OnceLock::new()).collect();
                let _ = self.0.attributes.set(values);
            }
            self.0.decide();
        }
    }

    /// A business attribute's value, by the index of its key in [`RouteLabels::attributes`]. The first one
    /// stated counts; a value that is not plain becomes `_invalid`.
    pub fn attribute(&self, index: usize, text: &[u8]) {
        if let Some(value) = self.0.attributes.get().and_then(|values| values.get(index)) {
            let _ = value.set(attribute_value(text).into());
        }
    }

    /// What the request said and may be recorded. Only the first call counts.
    pub fn disclose(&self, disclosed: Disclosed) {
        let _ = self.0.disclosed.set(Box::new(disclosed));
    }

    /// Why the exchange did not simply succeed. The first reason stated is the one recorded.
    pub fn fail(&self, failure: &Failure) {
        let stated = 1 | u32::from(failure.reason.index()) << 8 | detail_bits(failure.detail) << 16;
        let first = self.0.failure.compare_exchange(0, stated, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if first && let Some(rule) = &failure.rule {
            let _ = self.0.rule.set(Configured::new(Arc::clone(rule)));
        }
    }

    /// A gRPC call has ended with this status.
    pub fn grpc_status(&self, status: u8) {
        self.0.grpc.store(status.saturating_add(1), Ordering::Relaxed);
    }

    /// A WebSocket's close frame has passed: the first one, from this side, with this code.
    pub fn closed(&self, side: Side, code: u16) {
        let side = if side == Side::Client { 1 } else { 2 };
        self.0.closed.store(side << 16 | u32::from(code), Ordering::Relaxed);
    }

    /// Why the last attempt was not followed by another one, although the route's conditions asked for it.
    pub fn not_retried(&self, why: NotRetried) {
        self.0.not_retried.store(1 + why.index(), Ordering::Relaxed);
    }

    /// Where a client went that a cookie may bring back. The last one stated counts.
    pub fn sticky(&self, went: Sticky) {
        self.0.sticky.store(1 + went.index(), Ordering::Relaxed);
    }

    /// What let the request pass. Only the first call counts.
    pub fn passed(&self, by: Passed) {
        let _ = self.0.passed.set(by);
    }

    /// The answer would have been compressed, were not as many compressed already as may be.
    pub fn left_uncompressed(&self) {
        self.0.left_uncompressed.store(true, Ordering::Relaxed);
    }

    /// The answer's head goes to the client now, with this status.
    pub fn head(&self, status: u16) {
        self.0.status.store(status, Ordering::Relaxed);
        self.0.first_byte.store(self.0.nanoseconds_since_start(), Ordering::Relaxed);
    }

    /// The answer's last byte has been handed to the connection.
    pub fn complete(&self) {
        self.0.complete.store(true, Ordering::Relaxed);
    }

    /// So many bytes of the request's body have been read from the client.
    pub fn request_bytes(&self, count: usize) {
        self.0.request_bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// The request has no body: it is sent as soon as there is a connection.
    pub fn has_no_body(&self) {
        self.0.request_sent.store(1, Ordering::Relaxed);
    }

    /// The upstream's connection has taken the request's last byte.
    pub fn request_sent(&self) {
        self.0.request_sent.store(self.0.nanoseconds_since_start(), Ordering::Relaxed);
    }

    /// So many bytes of the answer's body have been handed to the connection.
    pub fn response_bytes(&self, count: usize) {
        let before = self.0.response_bytes.fetch_add(count as u64, Ordering::Relaxed);
        // the first ones come with the head, and most answers have no more: they need not look at the clock
        if before > 0 && !self.0.is_stream() && self.0.is_long(self.0.nanoseconds_since_start()) {
            self.stream();
        }
    }

    /// The answer, whose head has been stated, is a stream. Every sink hears of it now.
    pub fn stream(&self) {
        self.0.stream.store(true, Ordering::Relaxed);
        if !self.0.stream_told.swap(true, Ordering::Relaxed) {
            self.0.sink.stream_opened(&Arc::new(self.0.opened()));
        }
    }
}

fn detail_bits(detail: Option<Detail>) -> u32 {
    detail.map_or(0, |detail| 1 + u32::from(detail.index()))
}

impl Record {
    /// The route, once it is known.
    pub fn route_labels(&self) -> Option<&Arc<RouteLabels>> {
        self.route.get()
    }

    /// The business attributes that have a value.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        let keys = self.route.get().map(|labels| &labels.attributes[..]).unwrap_or_default();
        let values = self.attributes.get().map(|values| &values[..]).unwrap_or_default();
        keys.iter().zip(values).filter_map(|(key, value)| Some((&**key, &**value.get()?)))
    }

    /// What the request said and may be recorded.
    pub fn disclosed(&self) -> Option<&Disclosed> {
        self.disclosed.get().map(|disclosed| &**disclosed)
    }

    /// The sampling decision that the flag sent upstream tells; made when first asked for.
    pub fn decide(&self) -> Decision {
        *self.begun.get_or_init(|| self.sink.begin(self))
    }

    /// Whether the spans are exported, and why; to be asked once the operation has ended.
    pub fn verdict(&self) -> Decision {
        *self.verdict.get_or_init(|| self.sink.end(self, self.decide()))
    }

    /// The stated reason and its finer word, if the exchange did not simply succeed.
    pub fn failure(&self) -> Option<(Reason, Option<Detail>)> {
        let stated = self.failure.load(Ordering::Relaxed);
        if stated == 0 {
            return None;
        }
        let [_, reason, detail, _] = stated.to_le_bytes();
        Some((Reason::from_index(reason)?, detail.checked_sub(1).and_then(Detail::from_index)))
    }

    /// The name of the rule that stated the reason, if a rule did.
    pub fn rule(&self) -> Option<&Configured> {
        self.rule.get()
    }

    /// The status that a gRPC call ended with.
    pub fn grpc(&self) -> Option<u8> {
        self.grpc.load(Ordering::Relaxed).checked_sub(1)
    }

    /// The side that closed a WebSocket first, and its close code.
    pub fn websocket_close(&self) -> Option<(Side, u16)> {
        let [low, high, side, _] = self.closed.load(Ordering::Relaxed).to_le_bytes();
        let side = match side {
            0 => return None,
            1 => Side::Client,
            _ => Side::Upstream,
        };
        Some((side, u16::from_le_bytes([low, high])))
    }

    /// Why a retry that was asked for was not made.
    pub fn why_not_retried(&self) -> Option<NotRetried> {
        self.not_retried.load(Ordering::Relaxed).checked_sub(1).and_then(NotRetried::from_index)
    }

    /// Where a client went that a cookie may bring back, on a route that has cookies.
    pub fn stickiness(&self) -> Option<Sticky> {
        self.sticky.load(Ordering::Relaxed).checked_sub(1).and_then(Sticky::from_index)
    }

    /// What let the request pass, on a route that asks who it comes from.
    pub fn passed_by(&self) -> Option<&Passed> {
        self.passed.get()
    }

    /// Whether the answer passed uncompressed because too many were compressed at the time.
    pub fn was_left_uncompressed(&self) -> bool {
        self.left_uncompressed.load(Ordering::Relaxed)
    }

    /// Whether the answer's last byte has been handed to the connection; else the exchange broke.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    /// Whether it is a stream: its answer's head said so, or its body went on for long enough. How long it
    /// takes says nothing of the service, and a client that leaves is its regular end.
    pub fn is_stream(&self) -> bool {
        self.stream.load(Ordering::Relaxed)
    }

    /// Whether the sinks have heard of a stream before its end.
    pub fn was_stream_told(&self) -> bool {
        self.stream_told.load(Ordering::Relaxed)
    }

    /// Whether the answer's body has been going on for longer than an answer that is no stream.
    fn is_long(&self, now: u64) -> bool {
        let first_byte = self.first_byte.load(Ordering::Relaxed);
        let body = Duration::from_nanos(now.saturating_sub(first_byte));
        first_byte != 0 && self.stream_after.is_some_and(|bound| body > bound)
    }

    /// What is known of a stream that has just opened, as an operation of one span.
    fn opened(&self) -> Self {
        self.decide();
        Self {
            listener: Arc::clone(&self.listener),
            port: self.port,
            context: self.context.clone(),
            exchange: self.exchange,
            request_id: self.request_id.clone(),
            client: self.client,
            client_role: self.client_role.clone(),
            started_at: self.started_at,
            opening: Some(SpanId::random()),
            stream_after: self.stream_after,
            started: self.started,
            sink: Arc::clone(&self.sink),
            route: self.route.clone(),
            attributes: self.attributes.clone(),
            disclosed: OnceLock::new(),
            begun: self.begun.clone(),
            verdict: OnceLock::new(),
            failure: AtomicU32::new(0),
            rule: OnceLock::new(),
            closed: AtomicU32::new(0),
            grpc: AtomicU8::new(0),
            status: AtomicU16::new(self.status.load(Ordering::Relaxed)),
            complete: AtomicBool::new(true),
            stream: AtomicBool::new(true),
            stream_told: AtomicBool::new(true),
            first_byte: AtomicU64::new(self.first_byte.load(Ordering::Relaxed)),
            ended: AtomicU64::new(self.nanoseconds_since_start()),
            request_bytes: AtomicU64::new(self.request_body_bytes()),
            request_sent: AtomicU64::new(self.request_sent.load(Ordering::Relaxed)),
            response_bytes: AtomicU64::new(self.response_body_bytes()),
            not_retried: AtomicU8::new(0),
            sticky: AtomicU8::new(self.sticky.load(Ordering::Relaxed)),
            passed: self.passed.clone(),
            left_uncompressed: AtomicBool::new(false),
            attempts_started: AtomicU8::new(0),
            attempts: [const { OnceLock::new() }; MAX_ATTEMPTS],
            questions_started: AtomicU8::new(0),
            questions: OnceLock::new(),
        }
    }

    /// The status sent to the client; `None` where nothing was answered.
    pub fn status(&self) -> Option<u16> {
        Some(self.status.load(Ordering::Relaxed)).filter(|&status| status != 0)
    }

    /// When the head's last byte had been read.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// From the start to the answer's head; `None` where nothing was answered.
    pub fn time_to_first_byte(&self) -> Option<Duration> {
        let nanoseconds = self.first_byte.load(Ordering::Relaxed);
        (nanoseconds != 0).then(|| Duration::from_nanos(nanoseconds))
    }

    /// From the start to the end; meaningful once the operation has ended.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.ended.load(Ordering::Relaxed))
    }

    /// Bytes of the request's body that were read.
    pub fn request_body_bytes(&self) -> u64 {
        self.request_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the answer's body that were handed to the connection.
    pub fn response_body_bytes(&self) -> u64 {
        self.response_bytes.load(Ordering::Relaxed)
    }

    /// The finished attempts, in the order in which they were started.
    pub fn attempts(&self) -> impl Iterator<Item = &AttemptRecord> {
        let started = usize::from(self.attempts_started.load(Ordering::Relaxed));
        self.attempts.iter().take(started).filter_map(|attempt| attempt.get().map(|record| &**record))
    }

    /// Whether there was more than one attempt.
    pub fn was_retried(&self) -> bool {
        self.attempts_started.load(Ordering::Relaxed) > 1
    }

    /// Its spans leave for a receiver: told to every sink, which adds what becomes an exemplar if they are accepted.
    pub fn leaves(&self, candidates: &mut Candidates) {
        self.sink.operation_leaves(self, candidates);
    }

    /// What services were asked about the request before it went on, each an attempt of its own kind, in the order
    /// in which they were begun.
    pub fn questions(&self) -> impl Iterator<Item = &AttemptRecord> {
        let questions = self.questions.get().into_iter().flat_map(|questions| questions.iter());
        questions.filter_map(|question| question.get().map(|record| &**record))
    }

    /// All that has a CLIENT span: what was asked before, then the attempts.
    pub fn calls(&self) -> impl Iterator<Item = &AttemptRecord> {
        self.questions().chain(self.attempts())
    }

    /// How many spans tell of it: its own, and one a call.
    pub fn spans(&self) -> usize {
        1 + self.calls().count()
    }

    fn nanoseconds_since_start(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }
}

/// How an attempt came by its connection, or how far it got, with the time of each part that took place.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectionFacts {
    /// The connection had carried a request before.
    pub reused: bool,
    /// The address at the other end.
    pub peer: Option<SocketAddr>,
    /// Waiting for a place in the pool, or for a connection that another one was dialling.
    pub waited: Option<Duration>,
    /// Finding the address.
    pub resolve: Option<Duration>,
    /// Establishing the TCP connection.
    pub connect: Option<Duration>,
    /// The TLS handshake.
    pub handshake: Option<Duration>,
}

/// All that is known of one attempt. Offsets count from the operation's start.
#[derive(Debug)]
pub struct AttemptRecord {
    /// The CLIENT span, whose id was sent upstream.
    pub span_id: SpanId,
    /// The endpoint that was tried.
    pub endpoint: Arc<EndpointLabels>,
    /// 0 for the first attempt: `http.request.resend_count`.
    pub resend_count: u8,
    /// When it began.
    pub started: Duration,
    /// When its connection had taken the request's last byte; `None` where it never did.
    pub request_sent: Option<Duration>,
    /// When its answer's head came.
    pub first_byte: Option<Duration>,
    /// When its answer's last byte came; `None` where it never did.
    pub last_byte: Option<Duration>,
    /// When its answer's last byte came, or it broke.
    pub ended: Duration,
    /// Bytes of the request's body that its connection has taken.
    pub request_bytes: u64,
    /// Bytes of the answer's body that came.
    pub response_bytes: u64,
    /// The endpoint's status, if it answered.
    pub status: Option<u16>,
    /// The status that a gRPC call ended with.
    pub grpc: Option<u8>,
    /// Why it failed; `upstream_status` from 400 on.
    pub failure: Option<(Reason, Option<Detail>)>,
    /// The connection it used; where it came by none, how far it got.
    pub connection: ConnectionFacts,
    /// Whether it came by a connection.
    pub connected: bool,
    /// Whether its answer was a stream, as [`Record::is_stream`] has it.
    pub stream: bool,
    /// What it asks, if it is no try at what the client wants.
    pub question: Option<Arc<Question>>,
}

/// What a rule asks a service about requests; fixed when the rule is built.
#[derive(Debug)]
pub struct Question {
    /// The rule that asks: `auth.portal`.
    pub rule: Configured,
    /// `url.template`: the path that is asked for.
    pub template: Configured,
}

impl AttemptRecord {
    /// From its start to its end.
    pub fn duration(&self) -> Duration {
        self.ended.saturating_sub(self.started)
    }

    /// The method that the endpoint was asked by; questions are `GET`s.
    pub fn method(&self, record: &Record) -> Method {
        if self.question.is_some() { Method::Get } else { record.exchange.method }
    }
}

/// One try at one endpoint; recorded when it drops. Must not outlive its operation's owner.
#[derive(Debug)]
pub struct Attempt {
    handle: Handle,
    index: usize,
    complete: bool,
    /// When the connection was there, in nanoseconds from the operation's start; 0 before.
    connected: u64,
    /// What had been read of the request's body before this attempt, less what it was given of that.
    request_bytes_before: u64,
    record: Option<Box<AttemptRecord>>,
}

impl Attempt {
    /// Begins an attempt at this endpoint. At most [`MAX_ATTEMPTS`] of one operation are kept on record.
    pub fn start(handle: &Handle, endpoint: &Arc<EndpointLabels>) -> Self {
        let index = handle.attempts_started.fetch_add(1, Ordering::Relaxed);
        Self::begin(handle, endpoint, index, None)
    }

    /// Begins a question to this endpoint: it has a span like any attempt, and is no try at what the client wants.
    /// At most [`MAX_QUESTIONS`] of one operation are kept on record.
    pub fn ask(handle: &Handle, endpoint: &Arc<EndpointLabels>, question: &Arc<Question>) -> Self {
        let index = handle.questions_started.fetch_add(1, Ordering::Relaxed);
        Self::begin(handle, endpoint, index, Some(Arc::clone(question)))
    }

    fn begin(
        handle: &Handle,
        endpoint: &Arc<EndpointLabels>,
        index: u8,
        question: Option<Arc<Question>>,
    ) -> Self {
        let record = Box::new(AttemptRecord {
            span_id: SpanId::random(),
            endpoint: Arc::clone(endpoint),
            resend_count: if question.is_some() { 0 } else { index },
            started: Duration::from_nanos(handle.nanoseconds_since_start()),
            request_sent: None,
            first_byte: None,
            last_byte: None,
            ended: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
            status: None,
            grpc: None,
            failure: None,
            connection: ConnectionFacts::default(),
            connected: false,
            stream: false,
            question,
        });
        let attempt = Self {
            handle: handle.clone(),
            index: usize::from(index),
            complete: false,
            connected: 0,
            request_bytes_before: handle.request_body_bytes(),
            record: Some(record),
        };
        // told once it has an owner, so that whatever happens its end is told, too
        handle.sink.attempt_started(handle, attempt.record());
        attempt
    }

    /// When it began.
    pub fn started(&self) -> Instant {
        self.handle.started + self.record().started
    }

    /// The how many-th it is of its operation, from 1 on.
    pub fn number(&self) -> u8 {
        self.record().resend_count.saturating_add(1)
    }

    /// The CLIENT span's id, to be sent upstream.
    pub fn span_id(&self) -> SpanId {
        self.record().span_id
    }

    /// The way to a connection, each part of which is told the moment it is over.
    pub fn way(&mut self) -> &mut ConnectionFacts {
        let record = self.record_mut();
        record.connected = false;
        &mut record.connection
    }

    /// The attempt has its connection.
    pub fn connected(&mut self, facts: ConnectionFacts) {
        self.connected = self.handle.nanoseconds_since_start();
        let record = self.record_mut();
        (record.connection, record.connected) = (facts, true);
    }

    /// So many bytes of the request's body, which had been read before, are sent once more.
    pub fn replays(&mut self, bytes: u64) {
        self.request_bytes_before = self.request_bytes_before.saturating_sub(bytes);
    }

    /// So many bytes of the answer's body came.
    pub fn response_bytes(&mut self, count: usize) {
        self.record_mut().response_bytes += count as u64;
    }

    /// The endpoint's head came, with this status.
    pub fn head(&mut self, status: u16) {
        let now = Duration::from_nanos(self.handle.nanoseconds_since_start());
        let record = self.record_mut();
        record.status = Some(status);
        record.first_byte = Some(now);
        if status >= 400 {
            record.failure = Some((Reason::UpstreamStatus, None));
        }
    }

    /// The endpoint ended a gRPC call with this status.
    pub fn grpc_status(&mut self, status: u8) {
        let record = self.record_mut();
        record.grpc = Some(status);
        if status != 0 && record.failure.is_none() {
            record.failure = Some((Reason::GrpcStatus, None));
        }
    }

    /// The endpoint's last byte came, now.
    pub fn complete(&mut self) -> Instant {
        let now = Duration::from_nanos(self.handle.nanoseconds_since_start());
        self.record_mut().last_byte = Some(now);
        self.complete = true;
        self.handle.started + now
    }

    /// The attempt broke. A break after a failed status is the graver one and replaces it.
    pub fn fail(&mut self, failure: &Failure) {
        self.complete = true;
        self.record_mut().failure = Some((failure.reason, failure.detail));
    }

    fn record(&self) -> &AttemptRecord {
        self.record.as_deref().expect("the record is taken only in drop")
    }

    fn record_mut(&mut self) -> &mut AttemptRecord {
        self.record.as_deref_mut().expect("the record is taken only in drop")
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else { return };
        let now = || Duration::from_nanos(self.handle.nanoseconds_since_start());
        record.ended = record.last_byte.unwrap_or_else(now);
        // a question has no body
        let sent = if record.question.is_none() {
            record.request_bytes = self.handle.request_body_bytes() - self.request_bytes_before;
            self.handle.request_sent.load(Ordering::Relaxed)
        } else {
            self.connected
        };
        if sent != 0 && self.connected != 0 {
            // a request without a body is sent as soon as there is a connection
            record.request_sent = Some(Duration::from_nanos(sent.max(self.connected)));
        }
        if !self.complete {
            // cut off from outside: by whatever ended the operation, if that was stated, else by the client
            record.failure = Some(self.handle.failure().unwrap_or((Reason::ClientGone, None)));
        }
        let body = record.first_byte.map_or(Duration::ZERO, |first| record.ended.saturating_sub(first));
        let is_long = self.handle.stream_after.is_some_and(|bound| body > bound);
        record.stream = is_long || self.handle.is_stream();
        self.handle.sink.attempt_ended(&self.handle, &record);
        let places = match &record.question {
            None => &self.handle.0.attempts,
            Some(_) => &**self.handle.0.questions.get_or_init(Box::default),
        };
        if let Some(place) = places.get(self.index) {
            let _ = place.set(record);
        }
    }
}
