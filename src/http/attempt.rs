//! One try at one endpoint: a connection is lent, context is injected, the request is sent, the head comes.
//!
//! The request stays with whoever tries until it is handed over, and what may be wanted again is handed over as a
//! copy: so it is known at any time what has become of it.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{StatusCode, Uri, Version, request, uri};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::Instant;

use super::body::request::Progress;
use super::body::{BodyError, RequestBody};
use super::context;
use super::exchange::{KeptHead, Routed};
use super::expect::{Continue, Gate};
use super::grpc::Call;
use super::headers::{self, Fields};
use super::plan::{Plan, earlier};
use super::pool::{Lease, Pool};
use super::route::UpstreamHost;
use super::split::Returning;
use super::upgrade;
use crate::failure::{Detail, Failure, Reason};
use crate::telemetry::{Attempt, Handle};
use crate::upstream::{Endpoint, Picked};

/// What a try came to. The attempt goes on until somebody ends it.
pub(super) struct Tried {
    /// The answer's head, or why there is none.
    pub(super) came: Result<(http::Response<Incoming>, Lease), Failure>,
    pub(super) attempt: Attempt,
    pub(super) picked: Picked,
    pub(super) request: Handed,
    /// How far the request's body has come.
    pub(super) progress: Progress,
}

/// What has become of the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handed {
    /// It has been handed to a connection, and may have been processed.
    pub(super) sent: bool,
    /// That connection had been used before.
    pub(super) reused: bool,
    /// All of it is still at hand.
    pub(super) kept: bool,
}

/// What the client wants beside an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// A WebSocket.
    pub(super) websocket: bool,
    /// A call of gRPC.
    pub(super) call: Option<Call>,
    /// To be brought back to its endpoint by a cookie.
    pub(super) returning: Option<Returning>,
}

/// Tries once. A `fresh` connection is a new one, whatever is kept.
pub(super) async fn try_once(
    plan: &Plan,
    request: &mut Routed,
    asked: Asked,
    picked: Picked,
    fresh: bool,
) -> Tried {
    let mut attempt = Attempt::start(&request.handle, &picked.endpoint.labels);
    let started = Instant::from_std(attempt.started());
    let mut bound = plan.bound(started, request.deadline, asked.call);
    if attempt.number() > 1 {
        attempt.replays(request.body.kept_bytes());
    }
    let progress = request.body.progress();
    let mut handed = Handed { sent: false, reused: false, kept: true };
    let came = {
        let (endpoint, pool) = (&*picked.endpoint, &plan.pools[picked.index]);
        let deadline = bound.map(|(deadline, _)| deadline);
        let target = Target { plan, endpoint, pool, asked, deadline };
        let mut sending = pin!(send(target, request, &mut attempt, &mut handed, fresh));
        let mut moves = progress.moves();
        loop {
            let Some((deadline, detail)) = bound else { break sending.await };
            if let Some(came) = plan.timers.until(deadline, sending.as_mut()).await {
                break came;
            }
            // messages of a call are still coming: its answer may come after the last of them
            if asked.call.is_some() && detail != Detail::GrpcTimeout && progress.moves() != moves {
                moves = progress.moves();
                bound = earlier(Some((Instant::now() + (deadline - started), detail)), asked.call);
                continue;
            }
            let late = progress.is_clients_turn() && detail != Detail::GrpcTimeout;
            let reason = if late { Reason::ClientTimeout } else { Reason::UpstreamTimeout };
            break Err(Failure::new(reason).detail(detail));
        }
    };
    Tried { came, attempt, picked, request: handed, progress }
}

/// Where one try goes, and until when.
#[derive(Clone, Copy)]
struct Target<'a> {
    plan: &'a Plan,
    endpoint: &'a Endpoint,
    pool: &'a Arc<Pool>,
    asked: Asked,
    deadline: Option<Instant>,
}

/// Connects and sends, until the answer's head is there. What a closed connection gives back unsent goes to
/// another one, within the same attempt: the endpoint has seen nothing of it.
async fn send(
    target: Target<'_>,
    request: &mut Routed,
    attempt: &mut Attempt,
    handed: &mut Handed,
    fresh: bool,
) -> Result<(http::Response<Incoming>, Lease), Failure> {
    let pool = target.pool;
    let mut message: Option<http::Request<RequestBody>> = None;
    loop {
        let kept = if fresh { None } else { pool.lend_kept(attempt.started()) };
        let mut lease = match kept {
            Some(lease) => lease,
            None => Box::pin(pool.lend(fresh, attempt.way())).await?,
        };
        attempt.connected(lease.facts());
        let ready = message
            .take()
            .unwrap_or_else(|| hand_over(target, request, attempt, lease.facts().reused, handed));
        handed.sent = true;
        handed.reused = lease.facts().reused;
        match lease.send(ready).await {
            Ok(answer)
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS
                    && !(target.asked.websocket && upgrade::is_websocket(answer.headers())) =>
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
            Err(mut error) => {
                let unsent = error.take_message();
                handed.sent = unsent.is_none();
                match unsent {
                    Some(unsent) if handed.reused => message = Some(unsent),
                    unsent => {
                        if let Some(unsent) = unsent {
                            take_back(request, unsent, handed);
                        }
                        let failure = failed(error, &request.handle);
                        handed.sent &= failure.detail != Some(Detail::StreamRefused);
                        return Err(failure);
                    }
                }
            }
        }
    }
}

/// The request as it goes over the wire, for this connection: all of it, or a copy if it may be wanted again.
fn hand_over(
    target: Target<'_>,
    request: &mut Routed,
    attempt: &Attempt,
    reused: bool,
    handed: &mut Handed,
) -> http::Request<RequestBody> {
    if let Some(kept) = request.kept_head.take() {
        kept.restore(&mut request.head);
    }
    let keeping =
        target.plan.retry.as_ref().filter(|rule| {
            rule.keeps(&request.head.method, reused, target.pool.is_http2(), attempt.number())
        });
    if let Some(rule) = keeping
        && let Some(body) = request.body.share(rule.body_bytes)
    {
        request.kept_head = Some(KeptHead::of(&request.head));
        return message(target, take_head(request), body, request, attempt);
    }
    handed.kept = false;
    let (head, body) = (take_head(request), request.body.take());
    message(target, head, body, request, attempt)
}

/// The head; what stays is its method.
fn take_head(request: &mut Routed) -> request::Parts {
    let (mut empty, ()) = http::Request::new(()).into_parts();
    empty.method = request.head.method.clone();
    std::mem::replace(&mut request.head, empty)
}

/// What a new connection gives back unsent is where it was before.
fn take_back(request: &mut Routed, unsent: http::Request<RequestBody>, handed: &mut Handed) {
    if handed.kept {
        return;
    }
    let (mut head, body) = unsent.into_parts();
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(header::HOST, host);
        head.uri = head.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
    }
    (request.head, request.body, handed.kept) = (head, body, true);
}

fn message(
    target: Target<'_>,
    mut head: request::Parts,
    mut body: RequestBody,
    request: &Routed,
    attempt: &Attempt,
) -> http::Request<RequestBody> {
    let Target { plan, endpoint, pool, asked, deadline } = target;
    context::inject(&mut head.headers, &request.handle, attempt.span_id(), plan.upstream.propagate());
    if (plan.host == UpstreamHost::Endpoint || !head.headers.contains_key(header::HOST))
        && let Ok(host) = HeaderValue::from_str(&endpoint.authority)
    {
        head.headers.insert(header::HOST, host);
    }
    if let (Some(name), Some(deadline)) = (&plan.timeout_field, deadline) {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let left = u64::try_from(left).unwrap_or(u64::MAX);
        head.headers.insert(name, left.into());
    }
    if let Some(call) = asked.call {
        call.pass_on(&mut head.headers);
    }
    let waits = request.fields.have(Fields::EXPECT) && headers::expects_continue(&head.headers);
    let expected = waits.then(Arc::<Continue>::default);
    if let Some(expected) = &expected {
        body.hold(Gate::new(expected));
    }
    if pool.is_http2() {
        head.version = Version::HTTP_2;
        head.headers.remove(header::CONNECTION);
        head.uri = absolute(&head.uri, endpoint, head.headers.remove(header::HOST));
    } else {
        head.version = Version::HTTP_11;
    }
    let mut message = http::Request::from_parts(head, body);
    if let Some(expected) = expected {
        hyper::ext::on_informational(&mut message, move |answer| expected.informed(answer.status()));
    }
    message
}

/// Why a sending failed.
fn failed<T>(error: TrySendError<T>, handle: &Handle) -> Failure {
    let error = error.into_error();
    // the request's own body may be the cause: it has stated so
    if let Some(stated) = handle.failure() {
        return stated.into();
    }
    classify(&error).because(error)
}

/// The whole URI that HTTP/2 takes its pseudo-header fields from.
pub(super) fn absolute(uri: &Uri, endpoint: &Endpoint, host: Option<HeaderValue>) -> Uri {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(if endpoint.address.https { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    let host = host.and_then(|host| uri::Authority::try_from(host.as_bytes()).ok());
    parts.authority = host.or_else(|| uri::Authority::try_from(endpoint.authority.as_bytes()).ok());
    parts.path_and_query = uri.path_and_query().cloned().or(Some(uri::PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_default()
}

/// What of the answer belongs to the upstream's connection stays there.
fn tell_client<B>(answer: &mut http::Response<B>, fields: Fields) {
    // the gateway speaks its own version (RFC 9110 section 6.2)
    let received = std::mem::replace(answer.version_mut(), Version::HTTP_11);
    let headers = answer.headers_mut();
    headers::strip_hop_by_hop(headers, fields);
    headers::add_via(headers, received);
}

/// What a failed sending means.
pub(super) fn classify(error: &hyper::Error) -> Failure {
    let mut source = error.source();
    while let Some(cause) = source {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let stated = cause.downcast_ref().or_else(|| inner?.downcast_ref());
        if let Some(stated) = stated {
            return BodyError::into(*stated);
        }
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            // what comes after a GOAWAY, or is refused, has not been processed (RFC 9113 sections 6.8 and 8.7)
            let refused = error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return if refused && error.is_remote() {
                Failure::new(Reason::UpstreamReset).detail(Detail::StreamRefused)
            } else if error.is_reset() || error.is_go_away() {
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
