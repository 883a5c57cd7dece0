//! Refuses requests while their route is in maintenance.

use std::future::Ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::header::{HeaderValue, RETRY_AFTER};
use tower::Service;

use crate::failure::{Failure, Reason};
use crate::http::exchange::{Request, Response};
use crate::http::maintenance::Switched;
use crate::http::route::Settings;

/// Whether, and until when.
#[derive(Debug, Clone)]
pub(super) struct Layer(Arc<Rule>);

#[derive(Debug)]
struct Rule {
    switched: Switched,
    retry_after: HeaderValue,
    name: Arc<str>,
}

/// The service that refuses.
#[derive(Debug, Clone)]
pub(super) struct Maintenance<S> {
    inner: S,
    rule: Arc<Rule>,
}

impl Layer {
    /// The layer; every route has it, for it can be put in maintenance at any time.
    pub(super) fn new(settings: &Settings, switched: Switched) -> Self {
        let retry_after = HeaderValue::from(settings.shaping.maintenance.retry_after);
        let name = format!("routes.{}.maintenance", settings.name).into();
        Self(Arc::new(Rule { switched, retry_after, name }))
    }
}

impl<S> tower::Layer<S> for Layer {
    type Service = Maintenance<S>;

    fn layer(&self, inner: S) -> Maintenance<S> {
        Maintenance { inner, rule: Arc::clone(&self.0) }
    }
}

impl<S: Service<Request, Response = Response, Error = Failure>> Service<Request> for Maintenance<S> {
    type Response = Response;
    type Error = Failure;
    type Future = Either<S::Future, Ready<Result<Response, Failure>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let rule = &*self.rule;
        if rule.switched.is_on() {
            let failure = Failure::new(Reason::Maintenance)
                .rule(&rule.name)
                .field(RETRY_AFTER, rule.retry_after.clone());
            return Either::Right(std::future::ready(Err(failure)));
        }
        Either::Left(self.inner.call(request))
    }
}
