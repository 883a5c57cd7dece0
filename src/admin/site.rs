//! Which page a request to the admin address gets.

use std::convert::Infallible;
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tower::{ServiceBuilder, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use super::control::Control;
use super::page::{self, Page};
use super::{guard, health, metrics, status};

/// The pages of one address.
pub(super) struct Site {
    control: Arc<dyn Control>,
    started: Instant,
    /// The address that `Host` may name beside loopback; `None` serves the probes alone, to anyone.
    bound: Option<IpAddr>,
}

impl Site {
    /// Every page, for people and scrapers on this address.
    pub(super) fn new(control: Arc<dyn Control>, bound: IpAddr) -> Self {
        Self { control, started: Instant::now(), bound: Some(bound) }
    }

    /// Health and readiness alone: nothing is told but `ok`, so nobody is refused.
    pub(super) fn probes(control: Arc<dyn Control>) -> Self {
        Self { control, started: Instant::now(), bound: None }
    }

    /// The service that answers for this site.
    pub(super) fn into_service(
        self,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<
            impl Body<Data = impl Send, Error = impl Into<Box<dyn Error + Send + Sync>>> + Send,
        >,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + 'static {
        let site = Arc::new(self);
        let stack = ServiceBuilder::new()
            // on every answer, refusals included
            .layer(fixed(CACHE_CONTROL, "no-store"))
            .layer(fixed(X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .layer(fixed(CONTENT_SECURITY_POLICY, NOTHING_ALLOWED))
            .layer(CompressionLayer::new())
            .service(service_fn(move |request: Request<Incoming>| {
                let site = Arc::clone(&site);
                async move { Ok::<_, Infallible>(site.answer(&request).await) }
            }));
        TowerToHyperService::new(stack)
    }

    async fn answer(&self, request: &Request<Incoming>) -> Page {
        if let Some(bound) = self.bound
            && let Err(refusal) = guard::check(request.uri(), request.headers(), bound)
        {
            return page::text(StatusCode::FORBIDDEN, refusal);
        }
        let path = request.uri().path();
        let known = match self.bound {
            Some(_) => matches!(path, "/" | "/healthz" | "/readyz" | "/metrics" | "/status"),
            None => matches!(path, "/healthz" | "/readyz"),
        };
        if !known {
            return page::text(StatusCode::NOT_FOUND, "not found");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = page::text(StatusCode::METHOD_NOT_ALLOWED, "this page knows GET, HEAD");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            "/healthz" => health::alive(),
            "/readyz" => health::ready(&*self.control),
            "/metrics" => metrics::page(Arc::clone(&self.control), request.headers()).await,
            "/status" => status::page(&*self.control, self.started),
            _ => page::home(),
        }
    }
}

fn fixed(name: http::HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}

/// The pages need no script, style, picture or frame.
const NOTHING_ALLOWED: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
