//! Refuses requests of clients whose share is used up, and tells the others what is left of theirs.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready as wait};

use http::HeaderValue;
use pin_project_lite::pin_project;
use tower::Service;

use crate::failure::Failure;
use crate::http::exchange::{Request, Response, Routed};
use crate::http::rate_limit::bucket::Grant;
use crate::http::rate_limit::{Asking, Limiter, RATE_LIMIT, RATE_LIMIT_POLICY, value};

/// These limits, in the order in which they are asked: the first that is used up refuses.
#[derive(Debug, Clone)]
pub(super) struct Layer(Arc<Limits>);

#[derive(Debug)]
struct Limits {
    limiters: Box<[Arc<Limiter>]>,
    /// Whether one of them has to be asked over the network.
    shared: bool,
}

/// The service that refuses.
#[derive(Debug, Clone)]
pub(super) struct RateLimit<S> {
    inner: S,
    limits: Arc<Limits>,
}

/// What an answer says of its client's share.
#[derive(Debug, Default)]
struct Told {
    policy: String,
    state: String,
}

impl Layer {
    /// Those of the route's limits, if there are any, that are asked before or after somebody has been verified.
    pub(super) fn new(limiters: &[Arc<Limiter>], after_auth: bool) -> Option<Self> {
        let asked = |limiter: &&Arc<Limiter>| limiter.needs_identity() == after_auth;
        let limiters: Vec<_> = limiters.iter().filter(asked).cloned().collect();
        if limiters.is_empty() {
            return None;
        }
        let shared = limiters.iter().any(|limiter| limiter.is_shared());
        Some(Self(Arc::new(Limits { limiters: limiters.into(), shared })))
    }
}

impl Limits {
    fn take(&self, request: &Routed) -> Result<Told, Failure> {
        let mut told = Told::default();
        for limiter in &self.limiters {
            let grant = limiter.take(&asking(request))?;
            told.add(limiter, grant);
        }
        Ok(told)
    }
}

fn asking(request: &Routed) -> Asking<'_> {
    Asking {
        client: *request.handle.client.for_exchange(),
        trusted: request.peer.trusted,
        route: request.handle.route_labels().map_or("", |labels| &labels.route),
        headers: &request.head.headers,
        identity: request.identity.as_deref(),
        now: request.handle.started(),
    }
}

impl Told {
    fn add(&mut self, limiter: &Limiter, grant: Option<Grant>) {
        let Some(grant) = grant else { return };
        for (field, member) in
            [(&mut self.policy, limiter.policy()), (&mut self.state, limiter.state(&grant))]
        {
            if !field.is_empty() {
                field.push_str(", ");
            }
            field.push_str(&member);
        }
    }

    fn fields(self) -> Option<[HeaderValue; 2]> {
        (!self.policy.is_empty()).then(|| [value(self.policy), value(self.state)])
    }

    /// On the upstream's answer, and on the gateway's own.
    fn tell(self, answer: Result<Response, Failure>) -> Result<Response, Failure> {
        let Some([policy, state]) = self.fields() else { return answer };
        match answer {
            Ok(mut answer) => {
                answer.headers_mut().append(RATE_LIMIT_POLICY, policy);
                answer.headers_mut().append(RATE_LIMIT, state);
                Ok(answer)
            }
            Err(failure) => Err(failure.field(RATE_LIMIT_POLICY, policy).field(RATE_LIMIT, state)),
        }
    }
}

impl<S> tower::Layer<S> for Layer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit { inner, limits: Arc::clone(&self.0) }
    }
}

impl<S> Service<Request> for RateLimit<S>
where
    S: Service<Request, Response = Response, Error = Failure, Future: Send> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = Failure;
    type Future = Limited<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if self.limits.shared {
            let asking = ask(Arc::clone(&self.limits), self.inner.clone(), request);
            return Limited::Asking { asking: Box::pin(asking) };
        }
        match self.limits.take(&request) {
            Ok(told) => Limited::Passed { inner: self.inner.call(request), told: Some(told) },
            Err(failure) => Limited::Refused { failure: ready(Err(failure)) },
        }
    }
}

/// The same where a store has to be asked: the request waits for it.
async fn ask<S>(limits: Arc<Limits>, mut inner: S, request: Request) -> Result<Response, Failure>
where
    S: Service<Request, Response = Response, Error = Failure>,
{
    let mut told = Told::default();
    for limiter in &limits.limiters {
        let question = limiter.question(&asking(&request));
        let grant = match question {
            Some(question) => limiter.ask(question).await,
            None => limiter.take(&asking(&request)),
        };
        told.add(limiter, grant?);
    }
    told.tell(inner.call(request).await)
}

pin_project! {
    /// What a request comes to under a limit.
    #[project = LimitedProjection]
    pub(super) enum Limited<F> {
        Passed { #[pin] inner: F, told: Option<Told> },
        Refused { failure: Ready<Result<Response, Failure>> },
        Asking { asking: Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send>> },
    }
}

impl<F: Future<Output = Result<Response, Failure>>> Future for Limited<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            LimitedProjection::Passed { inner, told } => {
                let answer = wait!(inner.poll(cx));
                Poll::Ready(told.take().unwrap_or_default().tell(answer))
            }
            LimitedProjection::Refused { failure } => Pin::new(failure).poll(cx),
            LimitedProjection::Asking { asking } => asking.as_mut().poll(cx),
        }
    }
}
