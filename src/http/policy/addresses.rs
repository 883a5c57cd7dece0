//! Lets requests of some addresses in, and no others.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use tower::Service;

use crate::failure::{Detail, Failure, Reason};
use crate::http::exchange::{Request, Response};
use crate::http::route::Settings;
use crate::listener::addresses::Addresses;

/// The addresses, and the rule that names them.
#[derive(Debug, Clone)]
pub(super) struct Layer(Arc<(Addresses, Arc<str>)>);

/// The service that looks at them.
#[derive(Debug, Clone)]
pub(super) struct Admit<S> {
    inner: S,
    rule: Arc<(Addresses, Arc<str>)>,
}

impl Layer {
    /// The layer, if the route lets in some addresses alone.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let rule = || format!("routes.{}.addresses", settings.name).into();
        settings.addresses.clone().map(|addresses| Self(Arc::new((addresses, rule()))))
    }
}

impl<S> tower::Layer<S> for Layer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit { inner, rule: Arc::clone(&self.0) }
    }
}

impl<S: Service<Request, Response = Response, Error = Failure>> Service<Request> for Admit<S> {
    type Response = Response;
    type Error = Failure;
    type Future = Either<S::Future, std::future::Ready<Result<Response, Failure>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (addresses, rule) = &*self.rule;
        if addresses.admit(*request.handle.client.for_exchange()) {
            return Either::Left(self.inner.call(request));
        }
        let failure = Failure::new(Reason::Forbidden).detail(Detail::Address).rule(rule);
        Either::Right(std::future::ready(Err(failure)))
    }
}
