//! Every failure becomes an answer here and nowhere else: above this line there is only [`Response`].

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::body::Body;
use super::exchange::Response;
use super::grpc;
use crate::failure::{Detail, Failure, Reason};
use crate::telemetry::Handle;

/// How long a client is asked to wait before it comes again, in seconds, where nothing better is known.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// What a stage that does not wait comes to; a panic is a failure like any other.
pub(super) fn caught<T>(stage: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // the panic hook has told the operator where; its text may hold anything and goes nowhere
    catch_unwind(AssertUnwindSafe(stage)).unwrap_or_else(|_| Err(Reason::Panic.into()))
}

/// Answers, whatever the work below comes to: a failure or a panic becomes the gateway's own answer.
pub(super) async fn rescue(
    handle: &Handle,
    grpc: bool,
    work: Result<impl Future<Output = Result<Response, Failure>>, Failure>,
) -> Response {
    let done = match work {
        Ok(work) => AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(Reason::Panic.into())),
        Err(failure) => Err(failure),
    };
    let failure = match done {
        Ok(answer) => return answer,
        Err(failure) => failure,
    };
    handle.fail(&failure);
    if let Some(source) = std::error::Error::source(&failure) {
        tracing::debug!(trace_id = %handle.context.trace_id, reason = failure.reason.word(), %source, "request failed");
    }
    // what was stated first is what is recorded, and so what is answered
    let (reason, detail) = handle.failure().unwrap_or((failure.reason, failure.detail));
    if reason == Reason::ClientGone {
        return incomplete();
    }
    let trace_id = handle.context.trace_id;
    let mut answer = if grpc {
        grpc_answer(reason)
    } else {
        problem(reason, detail, handle.rule(), &trace_id.to_string())
    };
    if let Some(fields) = failure.fields {
        answer.headers_mut().extend(*fields);
    }
    answer
}

/// Nobody is there to be answered. Only who closed no more than its own half learns that its request had no end.
fn incomplete() -> Response {
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    answer
}

/// The gateway's own answer: problem+json (RFC 9457). Nothing of the request is in it.
pub(super) fn problem(
    reason: Reason,
    detail: Option<Detail>,
    rule: Option<&Arc<str>>,
    trace_id: &str,
) -> Response {
    // a reason without a status ends exchanges whose head is already there; if it comes before, it is ours
    let status = reason.status().unwrap_or(StatusCode::BAD_GATEWAY);
    let mut answer = Response::new(Body::Full(Some(problem_json(status, reason, detail, rule, trace_id))));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    add_retry_after(headers, status);
    answer
}

/// The body of [`problem`].
pub(super) fn problem_json(
    status: StatusCode,
    reason: Reason,
    detail: Option<Detail>,
    rule: Option<&Arc<str>>,
    trace_id: &str,
) -> Bytes {
    let mut fields = serde_json::json!({
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "reason": reason.word(),
        "blame": reason.blame().word(),
        "trace_id": trace_id,
    });
    if let Some(detail) = detail {
        fields["detail"] = detail.word().into();
    }
    if let Some(rule) = rule {
        fields["rule"] = (&**rule).into();
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

#[cfg(test)]
mod tests {
    use super::problem;
    use crate::failure::{Detail, Reason};

    #[test]
    fn an_own_answer_names_reason_and_trace_and_echoes_nothing() {
        let answer =
            problem(Reason::NoEndpoint, Some(Detail::QueueFull), None, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
}
