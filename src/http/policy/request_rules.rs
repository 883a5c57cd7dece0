//! Changes the request's header on its way to the upstream.

use std::sync::Arc;
use std::task::{Context, Poll};

use tower::Service;

use crate::failure::Failure;
use crate::http::exchange::{Request, Response};
use crate::http::headers::{self, Fields};
use crate::http::pattern::Facts;
use crate::http::route::Settings;
use crate::http::rules::Rules;

/// By these rules.
#[derive(Debug, Clone)]
pub(super) struct Layer(Arc<Rules>);

/// The service that changes it.
#[derive(Debug, Clone)]
pub(super) struct RequestRules<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl Layer {
    /// The layer, if the route has rules at all.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let rules = &settings.shaping.request_rules;
        (!rules.is_empty()).then(|| Self(Arc::new(rules.clone())))
    }
}

impl<S> tower::Layer<S> for Layer {
    type Service = RequestRules<S>;

    fn layer(&self, inner: S) -> RequestRules<S> {
        RequestRules { inner, rules: Arc::clone(&self.0) }
    }
}

impl<S: Service<Request, Response = Response, Error = Failure>> Service<Request> for RequestRules<S> {
    type Response = Response;
    type Error = Failure;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let mut fields = std::mem::take(&mut request.head.headers);
        // now: what is set here must not go because the client names it in `Connection`
        headers::strip_named(&mut fields, request.fields);
        if request.fields.have(Fields::UNDERSCORED) {
            headers::remove_alike(&mut fields, self.rules.replaced());
        }
        self.rules.apply(&mut fields, &Facts::of(&request));
        request.head.headers = fields;
        self.inner.call(request)
    }
}
