//! Compresses answers for clients that want it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, ready};

use http::header::{self, HeaderMap};
use http::{Method, StatusCode};
use http_body::Body as _;
use pin_project_lite::pin_project;
use tower::Service;

use crate::failure::Failure;
use crate::http::body::{Body, CompressedBody, Place};
use crate::http::compression::{Coding, Compression, forbids_transformation, tell, tell_choice, weaken};
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
        let head = request.head.method == Method::HEAD;
        Answering { inner: self.inner.call(request), rules: Arc::clone(&self.rules), wanted, head }
    }
}

pin_project! {
    /// Compresses the answer when it is there.
    pub(super) struct Answering<F> {
        #[pin]
        inner: F,
        rules: Arc<Rules>,
        wanted: Option<(Coding, Handle)>,
        head: bool,
    }
}

impl<F: Future<Output = Result<Response, Failure>>> Future for Answering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx));
        Poll::Ready(answer.map(|answer| this.rules.apply(answer, this.wanted.as_ref(), *this.head)))
    }
}

impl Rules {
    fn apply(&self, mut answer: Response, wanted: Option<&(Coding, Handle)>, head: bool) -> Response {
        let Self { compression, taken } = self;
        if answer.status() == StatusCode::NOT_MODIFIED {
            tell_unchanged(answer.headers_mut(), wanted.is_some());
            return answer;
        }
        let length = if head { stated_length(answer.headers()) } else { answer.body().size_hint().upper() };
        if !compression.may(answer.status(), answer.headers())
            || length.is_some_and(|length| length < compression.min_size)
        {
            return answer;
        }
        tell_choice(answer.headers_mut());
        let Some(&(coding, ref handle)) = wanted else { return answer };
        if head {
            tell(answer.headers_mut(), coding);
            return answer;
        }
        let Some(place) = Place::take(taken, compression.at_once) else {
            handle.left_uncompressed();
            return answer;
        };
        tell(answer.headers_mut(), coding);
        answer.map(|body| Body::Compressed(Box::new(CompressedBody::new(body, coding, place))))
    }
}

/// A 304 tells of the answer that it stands for: by what it was chosen, and its tag (RFC 9110 section 15.4.5). What type
/// that has is not known here.
fn tell_unchanged(headers: &mut HeaderMap, compressed: bool) {
    if forbids_transformation(headers) || headers.contains_key(header::CONTENT_ENCODING) {
        return;
    }
    tell_choice(headers);
    if compressed {
        weaken(headers);
    }
}

fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
