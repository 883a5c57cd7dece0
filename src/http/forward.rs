//! The bottom of every route: one endpoint is picked, the attempt starts, context is injected, the request is sent.
//!
//! The order matters. Fields of the client's connection are stripped first and trace context is injected
//! last, so that a client cannot cut the trace with `Connection: traceparent`.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri, Version, uri};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::Instant;

use super::body::{Body, BodyError, UpstreamBody};
use super::context;
use super::exchange::{Request, Response, Routed};
use super::expect::{Continue, Gate};
use super::grpc::{self, Call};
use super::headers::{self, Fields};
use super::pool::{Lease, Pool};
use super::removal::Removal;
use super::route::UpstreamHost;
use super::timers::Timers;
use super::upgrade::{self, Agreed};
use crate::failure::{Detail, Failure, Reason};
use crate::telemetry::{Attempt, Handle};
use crate::upstream::{Endpoint, InFlight, Picked, Upstream};

/// How many fields a request gets on its way to an upstream, so that its header grows at most once.
const ADDED_FIELDS: usize = 8;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Forwards to one upstream.
#[derive(Debug, Clone)]
pub struct Forward(Arc<Plan>);

/// What one route's forwarding needs, built once.
#[derive(Debug)]
pub struct Plan {
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// One pool an endpoint, in the upstream's order.
    pub pools: Arc<[Arc<Pool>]>,
    /// What goes upstream as `Host`.
    pub host: UpstreamHost,
    /// How long one attempt may take until its answer's head.
    pub attempt_timeout: Option<Duration>,
    /// How long an answer's body may stand still.
    pub stream_idle: Option<Duration>,
    /// How long nothing may pass through a tunnel.
    pub tunnel_idle: Option<Duration>,
    /// Whether a client may ask for a WebSocket.
    pub websocket: bool,
    /// What bounds its exchanges in time.
    pub timers: Timers,
    /// Tells its streams when its time is over.
    pub removal: Arc<Removal>,
}

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
        Box::pin(forward(Arc::clone(&self.0), request))
    }
}

async fn forward(plan: Arc<Plan>, mut request: Request) -> Result<Response, Failure> {
    let websocket = asks_for_websocket(&plan, &request);
    tell_upstream(&mut request);
    if websocket {
        upgrade::state(&mut request.head.headers);
    }
    let call = take_call(&mut request);
    let picked = plan.upstream.pick(&[])?;
    let mut attempt = Attempt::start(&request.handle, &picked.endpoint.labels);
    let handle = request.handle.clone();
    let started = Instant::from_std(attempt.started());
    let mut bound = plan.bound(started, request.deadline, call);
    let progress = request.body.progress();
    let sent = {
        let mut sending = pin!(send(&plan, &picked, request, websocket, &mut attempt));
        let mut moves = progress.moves();
        loop {
            let Some((deadline, detail)) = bound else { break sending.await };
            if let Some(sent) = plan.timers.until(deadline, sending.as_mut()).await {
                break sent;
            }
            // messages of a call are still coming: its answer may come after the last of them
            if call.is_some() && detail != Detail::GrpcTimeout && progress.moves() != moves {
                moves = progress.moves();
                bound = earlier(Some((Instant::now() + (deadline - started), detail)), call);
                continue;
            }
            let late = progress.is_clients_turn() && detail != Detail::GrpcTimeout;
            let reason = if late { Reason::ClientTimeout } else { Reason::UpstreamTimeout };
            break Err(Failure::new(reason).detail(detail));
        }
    };
    match sent {
        Ok((answer, lease)) => {
            let status = answer.status();
            if status.is_server_error() {
                handle.fail(&Reason::UpstreamStatus.into());
            }
            attempt.head(status.as_u16());
            if status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(switch(&plan, answer, attempt, lease, picked.in_flight));
            }
            let called = call.filter(|_| !is_ended(&answer, &handle, &mut attempt));
            let (head, incoming) = answer.into_parts();
            let removal = Arc::clone(&plan.removal);
            let mut body = UpstreamBody::new(
                incoming,
                plan.stream_idle,
                handle,
                attempt,
                lease,
                picked.in_flight,
                removal,
            );
            if let Some(call) = called {
                body.answers(call, progress);
            }
            Ok(Response::from_parts(head, Body::Upstream(Box::new(body))))
        }
        Err(failure) => {
            attempt.fail(&failure);
            Err(failure)
        }
    }
}

/// The call of gRPC that the request begins, if it does; the upstream is told how much time it has.
fn take_call(request: &mut Request) -> Option<Call> {
    if !request.fields.have(Fields::CONTENT_TYPE) {
        return None;
    }
    let call = Call::of(&request.head.headers, request.handle.started())?;
    call.pass_on(&mut request.head.headers);
    request.body.stream();
    Some(call)
}

/// Whether this head is all there is of a call's answer; then it is judged. Whoever does not even answer 200 has not
/// spoken gRPC.
fn is_ended(answer: &http::Response<Incoming>, handle: &Handle, attempt: &mut Attempt) -> bool {
    let unknown = || answer.body().is_end_stream().then_some(grpc::UNKNOWN);
    let status = grpc::status(answer.headers()).or_else(unknown);
    if let Some(status) = status.filter(|_| answer.status() == StatusCode::OK) {
        grpc::ended(handle, Some(attempt), status);
    }
    status.is_some() || answer.status() != StatusCode::OK
}

/// The earlier one: a call's client may give it less time than the route does.
fn earlier(bound: Option<(Instant, Detail)>, call: Option<Call>) -> Option<(Instant, Detail)> {
    let Some(deadline) = call.and_then(|call| call.deadline) else { return bound };
    bound.filter(|(at, _)| *at < deadline).or(Some((deadline, Detail::GrpcTimeout)))
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
    in_flight: InFlight,
) -> Response {
    let upstream = hyper::upgrade::on(&mut answer);
    upgrade::state(answer.headers_mut());
    let agreed =
        Agreed::new(upstream, plan.tunnel_idle, attempt, lease, in_flight, Arc::clone(&plan.removal));
    answer.map(|_| Body::Tunnel(Box::new(agreed)))
}

impl Plan {
    /// When an attempt that has just started is over, and which bound that is.
    fn bound(
        &self,
        started: Instant,
        total: Option<Instant>,
        call: Option<Call>,
    ) -> Option<(Instant, Detail)> {
        let attempt = self.attempt_timeout.map(|timeout| (started + timeout, Detail::PerTry));
        let total = total.map(|total| (total, Detail::Total));
        let sooner = attempt.filter(|(at, _)| total.is_none_or(|(total, _)| *at < total));
        earlier(sooner.or(total), call)
    }
}

/// Connects and sends, until the answer's head is there. What a closed connection gives back unsent goes to
/// another one, within the same attempt: the endpoint has seen nothing of it.
async fn send(
    plan: &Plan,
    picked: &Picked,
    request: Request,
    websocket: bool,
    attempt: &mut Attempt,
) -> Result<(http::Response<Incoming>, Lease), Failure> {
    let pool = &plan.pools[picked.index];
    let handle = request.handle.clone();
    let mut message = message(plan, &picked.endpoint, pool, request, attempt);
    loop {
        let mut lease = match pool.lend_kept(attempt.started()) {
            Some(lease) => lease,
            None => Box::pin(pool.lend()).await?,
        };
        attempt.connected(lease.facts());
        match lease.send(message).await {
            Ok(answer)
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS
                    && !(websocket && upgrade::is_websocket(answer.headers())) =>
            {
                return Err(Failure::new(Reason::UpstreamProtocolError).detail(Detail::Malformed));
            }
            Ok(mut answer) => {
                let fields = Fields::of(answer.headers());
                if !headers::settle_length(answer.headers_mut(), fields) {
                    return Err(Failure::new(Reason::UpstreamProtocolError).detail(Detail::Malformed));
                }
                tell_client(&mut answer, fields);
                return Ok((answer, lease));
            }
            Err(error) => message = unsent(error, &handle, &lease)?,
        }
    }
}

/// The request as it goes over the wire to this endpoint.
fn message(
    plan: &Plan,
    endpoint: &Endpoint,
    pool: &Pool,
    request: Request,
    attempt: &Attempt,
) -> http::Request<super::body::RequestBody> {
    let Routed { mut head, mut body, handle, fields, .. } = *request;
    context::inject(&mut head.headers, &handle, attempt.span_id(), plan.upstream.propagate());
    if (plan.host == UpstreamHost::Endpoint || !head.headers.contains_key(header::HOST))
        && let Ok(host) = HeaderValue::from_str(&endpoint.authority)
    {
        head.headers.insert(header::HOST, host);
    }
    let waits = fields.have(Fields::EXPECT) && headers::expects_continue(&head.headers);
    let asked = waits.then(Arc::<Continue>::default);
    if let Some(asked) = &asked {
        body.hold(Gate::new(asked));
    }
    if pool.is_http2() {
        head.version = Version::HTTP_2;
        head.headers.remove(header::CONNECTION);
        head.uri = absolute(&head.uri, endpoint, head.headers.remove(header::HOST));
    } else {
        head.version = Version::HTTP_11;
    }
    let mut message = http::Request::from_parts(head, body);
    if let Some(asked) = asked {
        hyper::ext::on_informational(&mut message, move |answer| asked.informed(answer.status()));
    }
    message
}

/// The whole URI that HTTP/2 takes its pseudo-header fields from.
fn absolute(uri: &Uri, endpoint: &Endpoint, host: Option<HeaderValue>) -> Uri {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(if endpoint.address.https { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    let host = host.and_then(|host| uri::Authority::try_from(host.as_bytes()).ok());
    parts.authority = host.or_else(|| uri::Authority::try_from(endpoint.authority.as_bytes()).ok());
    parts.path_and_query = uri.path_and_query().cloned().or(Some(uri::PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_default()
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
    headers.insert(X_REQUEST_ID, request.handle.request_id.clone());
    if request.head.version == Version::HTTP_2 {
        join_cookies(headers);
    }
}

/// HTTP/2 may split `Cookie` into several fields; HTTP/1.1 has one (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// What of the answer belongs to the upstream's connection stays there.
fn tell_client<B>(answer: &mut http::Response<B>, fields: Fields) {
    // the gateway speaks its own version (RFC 9110 section 6.2)
    let received = std::mem::replace(answer.version_mut(), Version::HTTP_11);
    let headers = answer.headers_mut();
    headers::strip_hop_by_hop(headers, fields);
    headers::add_via(headers, received);
}

/// What could not be sent, to be sent on another connection; or why it failed.
fn unsent<T>(mut error: TrySendError<T>, handle: &Handle, lease: &Lease) -> Result<T, Failure> {
    if lease.facts().reused
        && let Some(message) = error.take_message()
    {
        return Ok(message);
    }
    let error = error.into_error();
    // the request's own body may be the cause: it has stated so
    if let Some(stated) = handle.failure() {
        return Err(stated.into());
    }
    Err(classify(&error).because(error))
}

/// What a failed sending means.
fn classify(error: &hyper::Error) -> Failure {
    let mut source = error.source();
    while let Some(cause) = source {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let stated = cause.downcast_ref().or_else(|| inner?.downcast_ref());
        if let Some(stated) = stated {
            return BodyError::into(*stated);
        }
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            return if error.is_reset() || error.is_go_away() {
                Failure::new(Reason::UpstreamReset).detail(Detail::StreamReset)
            } else if error.is_io() {
                Failure::new(Reason::UpstreamReset)
            } else {
                Failure::new(Reason::UpstreamProtocolError).detail(Detail::Malformed)
            };
        }
        source = cause.source();
    }
    if error.is_parse_too_large() {
        Failure::new(Reason::ResponseTooLarge)
    } else if error.is_parse() {
        Failure::new(Reason::UpstreamProtocolError).detail(Detail::Malformed)
    } else {
        Failure::new(Reason::UpstreamReset)
    }
}
