//! Sends clients without TLS to the same place with TLS.

use std::future::Ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use tower::Service;

use crate::failure::Failure;
use crate::http::exchange::{Request, Response};
use crate::http::respond::Redirect;

/// To there.
#[derive(Debug, Clone)]
pub(super) struct Layer(pub(super) Arc<Redirect>);

/// The service that redirects.
#[derive(Debug, Clone)]
pub(super) struct Https<S> {
    inner: S,
    redirect: Arc<Redirect>,
}

impl<S> tower::Layer<S> for Layer {
    type Service = Https<S>;

    fn layer(&self, inner: S) -> Https<S> {
        Https { inner, redirect: Arc::clone(&self.0) }
    }
}

impl<S: Service<Request, Response = Response, Error = Failure>> Service<Request> for Https<S> {
    type Response = Response;
    type Error = Failure;
    type Future = Either<S::Future, Ready<Result<Response, Failure>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if request.peer.is_https(&request.head.headers) {
            return Either::Left(self.inner.call(request));
        }
        Either::Right(std::future::ready(self.redirect.answer(&request)))
    }
}
