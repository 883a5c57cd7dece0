//! Refuses request bodies that are longer than the route allows.

use std::task::{Context, Poll};

use futures_util::future::Either;
use tower::Service;

use crate::failure::Failure;
use crate::http::exchange::{Request, Response};

/// At most this many bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer(pub(super) u64);

/// The service that bounds.
#[derive(Debug, Clone)]
pub(super) struct BodyLimit<S> {
    inner: S,
    bytes: u64,
}

impl<S> tower::Layer<S> for Layer {
    type Service = BodyLimit<S>;

    fn layer(&self, inner: S) -> BodyLimit<S> {
        BodyLimit { inner, bytes: self.0 }
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
        match request.body.limit(self.bytes) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(failure) => Either::Right(std::future::ready(Err(failure))),
        }
    }
}
