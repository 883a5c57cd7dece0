//! Every failure becomes an answer here and nowhere else: above this line there is only [`Response`].

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;

use super::body::Body;
use super::exchange::Response;
use super::face::Manner;
use super::grpc;
use super::page::Told;
use crate::failure::{Detail, Failure, Reason};
use crate::telemetry::Handle;

/// How long a client is asked to wait before it comes again, in seconds, where nothing better is known.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// How much of an answer that is replaced is read, and for how long.
const DRAIN_BYTES: usize = 64 << 10;
const DRAIN_TIME: Duration = Duration::from_millis(100);

/// What a stage that does not wait comes to; a panic is a failure like any other.
pub(super) fn caught<T>(stage: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // the panic hook has told the operator where; its text may hold anything and goes nowhere
    catch_unwind(AssertUnwindSafe(stage)).unwrap_or_else(|_| Err(Reason::Panic.into()))
}

/// Answers, whatever the work below comes to: a failure or a panic becomes the gateway's own answer.
pub(super) async fn rescue(
    handle: &Handle,
    manner: &Manner,
    work: Result<impl Future<Output = Result<Response, Failure>>, Failure>,
) -> Response {
    let done = match work {
        Ok(work) => AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(Reason::Panic.into())),
        Err(failure) => Err(failure),
    };
    let (mut answer, own) = match done {
        Ok(answer) if manner.replaces(&answer) => (Box::pin(replace(answer, manner, handle)).await, true),
        Ok(answer) => (answer, false),
        Err(failure) => (answer(failure, manner, handle), true),
    };
    manner.dress(&mut answer, own, handle);
    answer
}

/// The gateway's answer to a request that failed.
fn answer(failure: Failure, manner: &Manner, handle: &Handle) -> Response {
    handle.fail(&failure);
    if let Some(source) = std::error::Error::source(&failure) {
        tracing::debug!(trace_id = %handle.context.trace_id, reason = failure.reason.word(), %source, "request failed");
    }
    // what was stated first is what is recorded, and so what is answered
    let (reason, detail) = handle.failure().unwrap_or((failure.reason, failure.detail));
    if reason == Reason::ClientGone {
        return incomplete();
    }
    let mut answer = if manner.grpc {
        grpc_answer(reason)
    } else {
        // a reason without a status ends exchanges whose head is already there; if it comes before, it is ours
        let status = reason.status().unwrap_or(StatusCode::BAD_GATEWAY);
        told(status, reason, detail, manner, handle)
    };
    if let Some(fields) = failure.fields {
        answer.headers_mut().extend(*fields);
    }
    answer
}

/// The gateway's answer in the place of an upstream's failed one, whose status it keeps.
async fn replace(answer: Response, manner: &Manner, handle: &Handle) -> Response {
    let (mut head, body) = answer.into_parts();
    // read to its end, if that is near, the connection can be used again
    let _ = tokio::time::timeout(DRAIN_TIME, drain(body)).await;
    let (reason, detail) = handle.failure().unwrap_or((Reason::UpstreamStatus, None));
    let mut answer = told(head.status, reason, detail, manner, handle);
    if let Some(retry_after) = head.headers.remove(header::RETRY_AFTER) {
        answer.headers_mut().insert(header::RETRY_AFTER, retry_after);
    }
    answer
}

async fn drain(mut body: Body) {
    let mut left = DRAIN_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = rest;
    }
}

/// Nobody is there to be answered. Only who closed no more than its own half learns that its request had no end.
fn incomplete() -> Response {
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    answer
}

/// The gateway's own answer: a page for whoever prefers one, else problem+json (RFC 9457). Nothing of the request
/// is in it but its id.
fn told(
    status: StatusCode,
    reason: Reason,
    detail: Option<Detail>,
    manner: &Manner,
    handle: &Handle,
) -> Response {
    let trace_id = handle.context.trace_id.to_string();
    let request_id = handle.request_id.for_exchange().to_str().unwrap_or_default();
    let page = manner.page(reason);
    let (kind, body) = if let Some(page) = page {
        let told = Told { status, reason, trace_id: &trace_id, request_id };
        ("text/html; charset=utf-8", page.render(told))
    } else {
        let rule = handle.rule().map(|rule| &**rule);
        ("application/problem+json", problem_json(status, reason, detail, rule, &trace_id))
    };
    let mut answer = Response::new(Body::Full(Some(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    add_retry_after(headers, status);
    answer
}

/// What exactly was wrong with credentials is not for those who try (RFC 6750 has the words that they get).
fn is_for_the_operator(reason: Reason, detail: Detail) -> bool {
    matches!(reason, Reason::Unauthenticated | Reason::AuthUnavailable)
        || matches!(detail, Detail::MissingClaim | Detail::WrongRole | Detail::Denied | Detail::Address)
}

/// A failure as problem+json.
pub(super) fn problem_json(
    status: StatusCode,
    reason: Reason,
    detail: Option<Detail>,
    rule: Option<&str>,
    trace_id: &str,
) -> Bytes {
    let mut fields = serde_json::json!({
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "reason": reason.word(),
        "blame": reason.blame().word(),
        "trace_id": trace_id,
    });
    if let Some(detail) = detail.filter(|detail| !is_for_the_operator(reason, *detail)) {
        fields["detail"] = detail.word().into();
    }
    if let Some(rule) = rule {
        fields["rule"] = rule.into();
    }
    Bytes::from(fields.to_string())
}

fn add_retry_after(headers: &mut HeaderMap, status: StatusCode) {
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
}

/// The same towards gRPC: trailers only, HTTP 200, a status from gRPC's own list.
fn grpc_answer(reason: Reason) -> Response {
    let mut answer = Response::new(Body::Empty);
    *answer.headers_mut() = grpc::ending(reason);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}
