//! The bottom of every route: one endpoint is picked and tried; what the route's rule says is tried again.
//!
//! The order matters. Fields of the client's connection are stripped first and trace context is injected
//! last, so that a client cannot cut the trace with `Connection: traceparent`.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{self, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::attempt::{Asked, Tried, try_once};
use super::body::{Body, UpstreamBody};
use super::exchange::{Request, Response, Routed};
use super::grpc::{self, Call};
use super::headers::{self, Fields};
use super::plan::Plan;
use super::pool::Lease;
use super::retry::{Again, Ended, Rule, With};
use super::upgrade::{self, Agreed};
use crate::failure::{Failure, Reason};
use crate::telemetry::retry::NotRetried;
use crate::telemetry::sticky::Sticky;
use crate::telemetry::{Attempt, Handle};
use crate::upstream::InFlight;

/// How many fields a request gets on its way to an upstream, so that its header grows at most once.
const ADDED_FIELDS: usize = 8;

/// From so many requests in flight to one endpoint on, writing waits for company; with fewer there is seldom any.
const COMPANY: usize = 8;

/// How much of an answer that nobody gets is read, so that its connection can be used again.
const DISCARDED: usize = 64 << 10;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Forwards by one route's plan.
#[derive(Debug, Clone)]
pub struct Forward(Arc<Plan>);

impl Forward {
    /// Forwards by this plan.
    pub fn new(plan: Plan) -> Self {
        Self(Arc::new(plan))
    }
}

impl tower::Service<Request> for Forward {
    type Response = Response;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // made where it stays, not moved there: it is large
        let place = Box::new_uninit();
        let forwarding = Box::write(place, forward(Arc::clone(&self.0), request));
        Box::into_pin(forwarding)
    }
}

async fn forward(plan: Arc<Plan>, mut request: Request) -> Result<Response, Failure> {
    let websocket = asks_for_websocket(&plan, &request);
    tell_upstream(&mut request);
    if websocket {
        upgrade::state(&mut request.head.headers);
    }
    let asked = Asked { websocket, call: take_call(&mut request), returning: request.returning };
    let picked = match request.returning.and_then(|returning| returning.endpoint) {
        None => plan.upstream.pick(&[])?,
        Some(endpoint) => plan.upstream.pick_again(endpoint)?,
    };
    if let Some(returning) = request.returning {
        let is_elsewhere = returning.endpoint.is_some_and(|endpoint| endpoint != picked.index);
        request.handle.sticky(if is_elsewhere { Sticky::MovedUnusable } else { returning.went });
    }
    await_company(&picked.in_flight).await;
    let tried = try_once(&plan, &mut request, asked, picked, false).await;
    await_company(&tried.picked.in_flight).await;
    if let Some(rule) = &plan.retry {
        if let Some(budget) = plan.upstream.budget() {
            budget.request(tried.attempt.started());
        }
        if let Some(again) = judge(&plan, rule, &mut request, &tried, &[]) {
            // a future of its own: nearly no request needs it
            return Box::pin(retry(&plan, rule, request, asked, tried, again)).await;
        }
    }
    finish(&plan, &request, asked, tried)
}

/// Where many exchanges are under way, those that are ready come as far as this before any of them writes: what wakes
/// the process at the other end for one wakes it for all. (Woken for each, it cost an eighth of the gateway's time.)
async fn await_company(in_flight: &InFlight) {
    if in_flight.count() >= COMPANY {
        tokio::task::yield_now().await;
    }
}

/// Tries until it succeeds, or until the rule has had enough. What came last is what the client gets.
async fn retry(
    plan: &Plan,
    rule: &Rule,
    mut request: Request,
    asked: Asked,
    mut tried: Tried,
    mut again: Again,
) -> Result<Response, Failure> {
    let mut indexes = Vec::with_capacity(usize::from(rule.attempts));
    loop {
        indexes.push(tried.picked.index);
        let at = Instant::now() + again.wait;
        let before = Before::of(&tried);
        give_up(tried, at).await;
        if !again.wait.is_zero() {
            sleep_until(at).await;
        }
        let Ok(picked) = plan.upstream.pick(&indexes) else {
            request.handle.not_retried(NotRetried::NoPlace);
            return before.instead(&request.handle);
        };
        if let Some(endpoint) = asked.returning.and_then(|returning| returning.endpoint) {
            let is_back = endpoint == picked.index;
            request.handle.sticky(if is_back { Sticky::Kept } else { Sticky::MovedRetried });
        }
        tried = try_once(plan, &mut request, asked, picked, again.fresh).await;
        match judge(plan, rule, &mut request, &tried, &indexes) {
            Some(next) => again = next,
            None => return finish(plan, &request, asked, tried),
        }
    }
}

/// What is left of an attempt whose retry found no place: it is why the request failed, not the want of a place.
enum Before {
    Failed(Failure),
    Answered(StatusCode, Option<HeaderValue>),
}

impl Before {
    fn of(tried: &Tried) -> Self {
        match &tried.came {
            Err(failure) => Self::Failed((failure.reason, failure.detail).into()),
            // a call's status, which is told as one
            Ok((answer, _)) if grpc::status(answer.headers()).is_some() => {
                Self::Failed(Reason::GrpcStatus.into())
            }
            Ok((answer, _)) => {
                Self::Answered(answer.status(), answer.headers().get(header::RETRY_AFTER).cloned())
            }
        }
    }

    /// The failure, or the answer's head: its body has been given up.
    fn instead(self, handle: &Handle) -> Result<Response, Failure> {
        match self {
            Self::Failed(failure) => Err(failure),
            Self::Answered(status, retry_after) => {
                if status.is_server_error() {
                    handle.fail(&Reason::UpstreamStatus.into());
                }
                let mut answer = Response::new(Body::Empty);
                *answer.status_mut() = status;
                if let Some(retry_after) = retry_after {
                    answer.headers_mut().insert(header::RETRY_AFTER, retry_after);
                }
                Ok(answer)
            }
        }
    }
}

/// Whether to try again, and how. Why not is stated, if the rule asked for it. The request is ready for it.
fn judge(plan: &Plan, rule: &Rule, request: &mut Routed, tried: &Tried, before: &[usize]) -> Option<Again> {
    let judged = rejudge(plan, rule, request, tried, before);
    match judged {
        Ok(again) => return Some(again),
        Err(Some(why)) => request.handle.not_retried(why),
        Err(None) => {}
    }
    request.body.release();
    None
}

fn rejudge(
    plan: &Plan,
    rule: &Rule,
    request: &mut Routed,
    tried: &Tried,
    before: &[usize],
) -> Result<Again, Option<NotRetried>> {
    if request.handle.failure().is_some() {
        // the client's own mistake, or its leaving
        return Err(None);
    }
    let with = match &tried.came {
        Ok((answer, _)) => With::Answer(answer.status(), answer.headers()),
        Err(failure) => With::Failure(failure),
    };
    let ended = Ended {
        with,
        sent: tried.request.sent,
        reused: tried.request.reused,
        kept: tried.request.kept,
        elsewhere: plan.upstream.has_other(tried.picked.index, before),
        attempts: tried.attempt.number(),
    };
    let again = rule.again(&request.head.method, &ended)?;
    let now = Instant::now();
    if request.deadline.is_some_and(|deadline| now + again.wait >= deadline) {
        return Err(Some(NotRetried::OutOfTime));
    }
    if again.counts && plan.upstream.budget().is_some_and(|budget| !budget.retry(now.into_std())) {
        return Err(Some(NotRetried::BudgetExhausted));
    }
    if request.body.again() { Ok(again) } else { Err(Some(NotRetried::BodyNotKept)) }
}

/// Ends an attempt whose answer, if there is one, nobody gets.
async fn give_up(tried: Tried, until: Instant) {
    let Tried { came, mut attempt, mut picked, .. } = tried;
    match came {
        Err(failure) => {
            attempt.fail(&failure);
            picked.in_flight.failed(&failure);
        }
        Ok((answer, lease)) => {
            if answer.status().is_server_error() {
                picked.in_flight.failed(&Reason::UpstreamStatus.into());
            }
            attempt.head(answer.status().as_u16());
            discard(answer.into_body(), attempt, lease, until).await;
        }
    }
    drop(picked);
}

/// Reads what is left of an answer until then, so that its connection can be used again.
async fn discard(mut body: Incoming, mut attempt: Attempt, mut lease: Lease, until: Instant) {
    let mut read = 0;
    while read < DISCARDED {
        match timeout_at(until, poll_fn(|cx| lease.poll_frame(&mut body, cx))).await {
            Ok(None) => return lease.give_back(attempt.complete()),
            Ok(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, bytes::Bytes::len);
                attempt.response_bytes(length);
                read += length;
            }
            Ok(Some(Err(_))) | Err(_) => break,
        }
    }
    attempt.fail(&Reason::UpstreamStatus.into());
}

/// The answer, or why there is none.
fn finish(plan: &Plan, request: &Routed, asked: Asked, tried: Tried) -> Result<Response, Failure> {
    let handle = &request.handle;
    let Tried { came, mut attempt, mut picked, progress, .. } = tried;
    match came {
        Ok((mut answer, lease)) => {
            let status = answer.status();
            if let (Some(cookies), Some(returning)) = (&plan.cookies, asked.returning)
                && returning.endpoint != Some(picked.index)
            {
                let cookie = cookies.of(picked.index, returning.secure);
                answer.headers_mut().append(header::SET_COOKIE, cookie);
            }
            if status.is_server_error() {
                let failure = Reason::UpstreamStatus.into();
                handle.fail(&failure);
                picked.in_flight.failed(&failure);
            }
            attempt.head(status.as_u16());
            if status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(switch(plan, answer, attempt, lease, picked.in_flight));
            }
            let called =
                asked.call.filter(|_| !is_ended(&answer, handle, &mut attempt, &mut picked.in_flight));
            let (head, incoming) = answer.into_parts();
            let handle = handle.clone();
            let removal = Arc::clone(&plan.removal);
            let pace = plan.pace(incoming.size_hint().exact());
            let mut body =
                UpstreamBody::new(incoming, pace, handle, attempt, lease, picked.in_flight, removal);
            if let Some(ends) = request.ends {
                body.end_by(ends);
            }
            if let Some(call) = called {
                body.answers(call, progress);
            }
            Ok(Response::from_parts(head, Body::Upstream(Box::new(body))))
        }
        Err(failure) => {
            attempt.fail(&failure);
            picked.in_flight.failed(&failure);
            Err(failure)
        }
    }
}

/// The call of gRPC that the request begins, if it does.
fn take_call(request: &mut Request) -> Option<Call> {
    if !request.fields.have(Fields::CONTENT_TYPE) {
        return None;
    }
    let call = Call::of(&request.head.headers, request.handle.started())?;
    request.body.stream();
    Some(call)
}

/// Whether this head is all there is of a call's answer; then it is judged. Whoever does not even answer 200 has not
/// spoken gRPC.
fn is_ended(
    answer: &http::Response<Incoming>,
    handle: &Handle,
    attempt: &mut Attempt,
    in_flight: &mut InFlight,
) -> bool {
    let unknown = || answer.body().is_end_stream().then_some(grpc::UNKNOWN);
    let status = grpc::status(answer.headers()).or_else(unknown);
    if let Some(status) = status.filter(|_| answer.status() == StatusCode::OK) {
        grpc::ended(handle, Some(attempt), in_flight, status);
    }
    status.is_some() || answer.status() != StatusCode::OK
}

/// Whether the client asks for a WebSocket and may have one: over HTTP/1.1, with no body before it.
fn asks_for_websocket(plan: &Plan, request: &Routed) -> bool {
    request.fields.have(Fields::UPGRADE)
        && plan.websocket
        && upgrade::is_asked(&request.head)
        && request.body.is_end_stream()
        && !plan.pools.first().is_some_and(|pool| pool.is_http2())
}

/// Both sides have agreed: the client's connection becomes a tunnel as soon as it has this answer.
fn switch(
    plan: &Plan,
    mut answer: http::Response<Incoming>,
    attempt: Attempt,
    lease: Lease,
    mut in_flight: InFlight,
) -> Response {
    in_flight.succeeded();
    let upstream = hyper::upgrade::on(&mut answer);
    upgrade::state(answer.headers_mut());
    let agreed =
        Agreed::new(upstream, plan.tunnel_idle, attempt, lease, in_flight, Arc::clone(&plan.removal));
    answer.map(|_| Body::Tunnel(Box::new(agreed)))
}

/// What the upstream must know about the client's side, once for all attempts.
fn tell_upstream(request: &mut Request) {
    let headers = &mut request.head.headers;
    headers.reserve(ADDED_FIELDS);
    let trailers = request.fields.have(Fields::TE) && headers::takes_trailers(headers);
    headers::strip_hop_by_hop(headers, request.fields);
    if trailers {
        headers::set_takes_trailers(headers);
    }
    request.peer.forwarded(headers);
    headers::add_via(headers, request.head.version);
    headers.insert(X_REQUEST_ID, request.handle.request_id.for_exchange().clone());
    if request.head.version == Version::HTTP_2 {
        headers::join_cookies(headers);
    }
}
