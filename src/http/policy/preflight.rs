//! Answers the preflights of browsers (CORS) in the upstream's place.

use std::future::Ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use tower::Service;

use crate::failure::Failure;
use crate::http::cors::{Cors, is_preflight};
use crate::http::exchange::{Request, Response};

/// By these rules.
#[derive(Debug, Clone)]
pub(super) struct Layer(pub(super) Arc<Cors>);

/// The service that answers.
#[derive(Debug, Clone)]
pub(super) struct Preflight<S> {
    inner: S,
    cors: Arc<Cors>,
}

impl<S> tower::Layer<S> for Layer {
    type Service = Preflight<S>;

    fn layer(&self, inner: S) -> Preflight<S> {
        Preflight { inner, cors: Arc::clone(&self.0) }
    }
}

impl<S: Service<Request, Response = Response, Error = Failure>> Service<Request> for Preflight<S> {
    type Response = Response;
    type Error = Failure;
    type Future = Either<S::Future, Ready<Result<Response, Failure>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if is_preflight(&request.head.method, &request.head.headers) {
            return Either::Right(std::future::ready(self.cors.preflight(&request.head.headers)));
        }
        Either::Left(self.inner.call(request))
    }
}
