//! Refuses request bodies that are longer than the route allows.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use tower::Service;

use crate::failure::Failure;
use crate::http::exchange::{Request, Response};
use crate::http::route::Settings;

/// At most this many bytes, by this rule.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    bytes: u64,
    rule: Arc<str>,
}

impl Layer {
    /// The layer, if the route bounds its bodies.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let rule = || format!("routes.{}.limits.body", settings.name).into();
        settings.body_bytes.map(|bytes| Self { bytes, rule: rule() })
    }
}

/// The service that bounds.
#[derive(Debug, Clone)]
pub(super) struct BodyLimit<S> {
    inner: S,
    limit: Layer,
}

impl<S> tower::Layer<S> for Layer {
    type Service = BodyLimit<S>;

    fn layer(&self, inner: S) -> BodyLimit<S> {
        BodyLimit { inner, limit: self.clone() }
    }
}

impl<S: Service<Request, Response = Response, Error = Failure>> Service<Request> for BodyLimit<S> {
    type Response = Response;
    type Error = Failure;
    type Future = Either<S::Future, std::future::Ready<Result<Response, Failure>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match request.body.limit(self.limit.bytes, &self.limit.rule) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(failure) => Either::Right(std::future::ready(Err(failure))),
        }
    }
}
