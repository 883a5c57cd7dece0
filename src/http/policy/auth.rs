//! Lets a request pass if a rule of the route knows who it is, and tells the upstream so.
//!
//! Fields that mean an identity to an upstream are taken from every request first, whatever the route: what is
//! left of them was set here.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower::Service;

use crate::failure::{Detail, Failure, Reason};
use crate::http::auth::{Access, Decision, Rules};
use crate::http::exchange::{Request, Response};
use crate::http::grpc;
use crate::http::headers;

/// What a route asks of its callers.
#[derive(Debug, Clone)]
pub(super) struct Layer(Arc<Access>);

/// The service that asks.
#[derive(Debug, Clone)]
pub(super) struct Auth<S> {
    inner: S,
    access: Arc<Access>,
}

impl Layer {
    /// The layer, if the route asks for credentials or if there are fields that no client may set.
    pub(super) fn new(access: Access) -> Option<Self> {
        let needed = access.rules.is_some() || !access.stripped.is_empty();
        needed.then(|| Self(Arc::new(access)))
    }
}

impl<S> tower::Layer<S> for Layer {
    type Service = Auth<S>;

    fn layer(&self, inner: S) -> Auth<S> {
        Auth { inner, access: Arc::clone(&self.0) }
    }
}

impl<S> Service<Request> for Auth<S>
where
    S: Service<Request, Response = Response, Error = Failure> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Failure;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        headers::remove_alike(&mut request.head.headers, self.access.stripped.iter());
        let Some(rules) = &self.access.rules else {
            return Answering::Passed { inner: self.inner.call(request) };
        };
        let decided = rules.decide(&request);
        if let Decision::Undecided = decided {
            let (access, mut inner) = (Arc::clone(&self.access), self.inner.clone());
            let waiting = Box::pin(async move {
                let rules = access.rules.as_ref().expect("it has just been there");
                let decided = wait(rules, &request).await;
                match settle(rules, decided, &mut request)? {
                    Some(answer) => Ok(answer),
                    None => inner.call(request).await,
                }
            });
            return Answering::Waiting { waiting };
        }
        match settle(rules, decided, &mut request) {
            Ok(None) => Answering::Passed { inner: self.inner.call(request) },
            Ok(Some(answer)) => Answering::Refused { refused: ready(Ok(answer)) },
            Err(failure) => Answering::Refused { refused: ready(Err(failure)) },
        }
    }
}

/// What the rules come to in the time that the exchange has.
async fn wait(rules: &Rules, request: &Request) -> Decision {
    let deciding = rules.decide_waiting(request);
    match request.deadline {
        None => deciding.await,
        Some(deadline) => tokio::time::timeout_at(deadline, deciding).await.unwrap_or(Decision::Undecided),
    }
}

/// The request goes on with its identity; or it is answered, or fails.
fn settle(rules: &Rules, decided: Decision, request: &mut Request) -> Result<Option<Response>, Failure> {
    let (rule, identity, unverified) = match decided {
        Decision::Passed(rule, identity) => (rule, Some(identity), None),
        Decision::Open(rule, why) => (rule, None, Some(why)),
        Decision::Refused(rule, refusal) => {
            let failure = rules.failure(&rule, &refusal);
            // the service that decided has also said what the client is told; it does not speak gRPC
            let Some(answer) = refusal.answer.filter(|_| !grpc::is_grpc(&request.head.headers)) else {
                return Err(failure);
            };
            request.handle.fail(&failure);
            return Ok(Some(*answer));
        }
        // the exchange's time is over
        Decision::Undecided => return Err(Failure::new(Reason::AuthUnavailable).detail(Detail::Total)),
    };
    let request = &mut **request;
    // else a client could have them taken away again
    headers::keep(&mut request.head.headers, request.fields, |name| rules.may_set(name));
    rules.tell(&rule, identity.as_deref(), &mut request.head.headers);
    request.handle.passed(rule.passed(unverified));
    request.identity = identity;
    Ok(None)
}

pin_project! {
    /// The answer of what is below, or none of it.
    #[project = Projected]
    pub(super) enum Answering<F> {
        Passed { #[pin] inner: F },
        Refused { refused: Ready<Result<Response, Failure>> },
        Waiting { waiting: Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send>> },
    }
}

impl<F: Future<Output = Result<Response, Failure>>> Future for Answering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            Projected::Passed { inner } => inner.poll(cx),
            Projected::Refused { refused } => Pin::new(refused).poll(cx),
            Projected::Waiting { waiting } => waiting.as_mut().poll(cx),
        }
    }
}
