//! The bottom of a route that needs no upstream: it redirects, or answers always the same.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderValue};

use super::body::Body;
use super::exchange::{Request, Response, Routed};
use super::pattern::{Facts, Pattern, Piece};
use crate::failure::{Detail, Failure, Reason};

/// Answers without an upstream.
#[derive(Debug, Clone)]
pub struct Respond(Answer);

/// What a route answers without an upstream.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Look elsewhere.
    Redirect(Arc<Redirect>),
    /// Always the same.
    Static(Arc<Static>),
}

/// Where a client is sent. The target begins with an origin or a path of the configuration; the client's own
/// text cannot lead to another host.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// The target.
    pub to: Pattern,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Whether the request's query is added.
    pub keeps_query: bool,
}

/// An answer that is always the same.
#[derive(Debug, Clone)]
pub struct Static {
    /// The status.
    pub status: StatusCode,
    /// What the body is; `None` if there is none.
    pub content_type: Option<HeaderValue>,
    /// The body.
    pub body: Bytes,
}

impl Respond {
    /// Answers so.
    pub fn new(answer: Answer) -> Self {
        Self(answer)
    }
}

impl tower::Service<Request> for Respond {
    type Response = Response;
    type Error = Failure;
    type Future = Ready<Result<Response, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        ready(match &self.0 {
            Answer::Redirect(redirect) => redirect.answer(&request),
            Answer::Static(fixed) => Ok(fixed.answer()),
        })
    }
}

impl Redirect {
    /// The answer to this request.
    pub(super) fn answer(&self, request: &Routed) -> Result<Response, Failure> {
        if self.to.pieces().contains(&Piece::Host) && !is_plain_host(&request.host) {
            return Err(Failure::new(Reason::BadRequest).detail(Detail::InvalidHost));
        }
        let mut target = self.to.fill(&Facts::of(request));
        if let Some(query) = request.head.uri.query().filter(|_| self.keeps_query) {
            target.push('?');
            target.push_str(query);
        }
        let invalid = |_| Failure::new(Reason::BadRequest).detail(Detail::InvalidPath);
        let location = HeaderValue::try_from(target).map_err(invalid)?;
        let mut answer = Response::new(Body::Empty);
        *answer.status_mut() = self.status;
        answer.headers_mut().insert(header::LOCATION, location);
        Ok(answer)
    }
}

impl Static {
    fn answer(&self) -> Response {
        let body = if self.body.is_empty() { Body::Empty } else { Body::Full(Some(self.body.clone())) };
        let mut answer = Response::new(body);
        *answer.status_mut() = self.status;
        if let Some(content_type) = &self.content_type {
            answer.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
        }
        answer
    }
}

/// The host of a URI, as every client reads it.
fn is_plain_host(host: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[:]".contains(&byte);
    !host.is_empty() && host.bytes().all(plain)
}
