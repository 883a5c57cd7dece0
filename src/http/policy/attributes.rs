//! Reads the business attributes that a route names, from path, header fields and JSON answers, onto the record.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use pin_project_lite::pin_project;
use tower::Service;

use crate::failure::Failure;
use crate::http::body::{Body, CopiedBody};
use crate::http::exchange::{Request, Response};
use crate::http::pointer::Pointer;
use crate::http::route::{AttributeSource, Settings};
use crate::http::shape::parameter_names;
use crate::telemetry::Handle;

/// Where each attribute's value is read.
#[derive(Debug, Clone)]
pub(super) struct Layer(Arc<Sources>);

/// The sources with the index of the attribute each is for.
#[derive(Debug, Default)]
struct Sources {
    path: Vec<(usize, usize)>,
    request: Vec<(usize, HeaderName)>,
    response: Vec<(usize, HeaderName)>,
    json: Arc<[(usize, Pointer)]>,
}

/// The service that reads.
#[derive(Debug, Clone)]
pub(super) struct Attributes<S> {
    inner: S,
    sources: Arc<Sources>,
}

impl Layer {
    /// The layer, if the route names attributes at all.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let names = parameter_names(&settings.matches.path);
        let mut sources = Sources::default();
        let mut json = Vec::new();
        for (index, (_, source)) in settings.attributes.iter().enumerate() {
            match source {
                AttributeSource::Path(name) => {
                    let place = names.iter().position(|known| *known == &**name);
                    sources.path.extend(place.map(|place| (index, place)));
                }
                AttributeSource::RequestHeader(name) => sources.request.push((index, name.clone())),
                AttributeSource::ResponseHeader(name) => sources.response.push((index, name.clone())),
                AttributeSource::ResponseJson(pointer) => json.push((index, pointer.clone())),
            }
        }
        sources.json = json.into();
        (!settings.attributes.is_empty()).then(|| Self(Arc::new(sources)))
    }

    /// States what the request says.
    pub(super) fn read_request(&self, parameters: &[Box<str>], headers: &HeaderMap, handle: &Handle) {
        self.0.read_request(parameters, headers, handle);
    }
}

impl Sources {
    fn read_request(&self, parameters: &[Box<str>], headers: &HeaderMap, handle: &Handle) {
        for (index, place) in &self.path {
            if let Some(value) = parameters.get(*place) {
                handle.attribute(*index, value.as_bytes());
            }
        }
        read(&self.request, headers, handle);
    }
}

fn read(sources: &[(usize, HeaderName)], headers: &HeaderMap, handle: &Handle) {
    for (index, name) in sources {
        if let Some(value) = headers.get(name) {
            handle.attribute(*index, value.as_bytes());
        }
    }
}

impl<S> tower::Layer<S> for Layer {
    type Service = Attributes<S>;

    fn layer(&self, inner: S) -> Attributes<S> {
        Attributes { inner, sources: Arc::clone(&self.0) }
    }
}

impl<S: Service<Request, Response = Response, Error = Failure>> Service<Request> for Attributes<S> {
    type Response = Response;
    type Error = Failure;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.sources.read_request(&request.parameters, &request.head.headers, &request.handle);
        let (handle, sources) = (request.handle.clone(), Arc::clone(&self.sources));
        Answering { inner: self.inner.call(request), handle, sources }
    }
}

pin_project! {
    /// Reads from the answer when it is there.
    pub(super) struct Answering<F> {
        #[pin]
        inner: F,
        handle: Handle,
        sources: Arc<Sources>,
    }
}

impl<F: Future<Output = Result<Response, Failure>>> Future for Answering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx));
        Poll::Ready(answer.map(|answer| {
            read(&this.sources.response, answer.headers(), this.handle);
            if this.sources.json.is_empty() || !is_plain_json(answer.headers()) {
                return answer;
            }
            answer.map(|body| match body {
                Body::Upstream(body) => {
                    let pointers = Arc::clone(&this.sources.json);
                    Body::Copied(Box::new(CopiedBody::new(body, this.handle.clone(), pointers)))
                }
                own => own,
            })
        }))
    }
}

/// Whether the body is JSON (RFC 8259, RFC 6839 section 3.1) as it stands, without an encoding.
fn is_plain_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let encoded = headers.get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity");
    (kind == "application/json" || kind.ends_with("+json")) && !encoded
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::is_plain_json;

    #[test]
    fn only_json_without_an_encoding_is_read() {
        for (kind, encoding, expected) in [
            ("application/json", None, true),
            ("Application/JSON; charset=utf-8", Some("identity"), true),
            ("application/vnd.shop.order+json", None, true),
            ("application/json", Some("gzip"), false),
            ("application/jsonlines", None, false),
            ("text/html", None, false),
            ("", None, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", kind.parse().unwrap());
            if let Some(encoding) = encoding {
                headers.insert("content-encoding", encoding.parse().unwrap());
            }
            assert_eq!(is_plain_json(&headers), expected, "{kind} {encoding:?}");
        }
    }
}
