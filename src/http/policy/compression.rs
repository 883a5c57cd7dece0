//! Compresses answers for clients that want it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, ready};

use http_body::Body as _;
use pin_project_lite::pin_project;
use tower::Service;

use crate::failure::Failure;
use crate::http::body::{Body, CompressedBody, Place};
use crate::http::compression::{Coding, Compression, tell, tell_choice};
use crate::http::exchange::{Request, Response};
use crate::http::route::Settings;
use crate::telemetry::Handle;

/// By these rules.
#[derive(Debug, Clone)]
pub(super) struct Layer(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    compression: Compression,
    taken: Arc<AtomicUsize>,
}

/// The service that compresses.
#[derive(Debug, Clone)]
pub(super) struct Compress<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl Layer {
    /// The layer, if the route compresses at all.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let compression = settings.shaping.compression.clone()?;
        Some(Self(Arc::new(Rules { compression, taken: Arc::default() })))
    }
}

impl<S> tower::Layer<S> for Layer {
    type Service = Compress<S>;

    fn layer(&self, inner: S) -> Compress<S> {
        Compress { inner, rules: Arc::clone(&self.0) }
    }
}

impl<S: Service<Request, Response = Response, Error = Failure>> Service<Request> for Compress<S> {
    type Response = Response;
    type Error = Failure;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let coding = self.rules.compression.choose(&request.head);
        let wanted = coding.map(|coding| (coding, request.handle.clone()));
        Answering { inner: self.inner.call(request), rules: Arc::clone(&self.rules), wanted }
    }
}

pin_project! {
    /// Compresses the answer when it is there.
    pub(super) struct Answering<F> {
        #[pin]
        inner: F,
        rules: Arc<Rules>,
        wanted: Option<(Coding, Handle)>,
    }
}

impl<F: Future<Output = Result<Response, Failure>>> Future for Answering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx));
        Poll::Ready(answer.map(|answer| this.rules.apply(answer, this.wanted.as_ref())))
    }
}

impl Rules {
    fn apply(&self, mut answer: Response, wanted: Option<&(Coding, Handle)>) -> Response {
        let Self { compression, taken } = self;
        let (status, length) = (answer.status(), answer.body().size_hint());
        if !compression.may(status, answer.headers())
            || length.upper().is_some_and(|length| length < compression.min_size)
        {
            return answer;
        }
        tell_choice(answer.headers_mut());
        let Some(&(coding, ref handle)) = wanted else { return answer };
        let Some(place) = Place::take(taken, compression.at_once) else {
            handle.left_uncompressed();
            return answer;
        };
        tell(answer.headers_mut(), coding);
        answer.map(|body| Body::Compressed(Box::new(CompressedBody::new(body, coding, place))))
    }
}
