//! Which page a request to the admin address gets.

use std::convert::Infallible;
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tower::{ServiceBuilder, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use super::audit::{Audit, Entry};
use super::control::Control;
use super::door::{Door, Refusal};
use super::page::{self, Page};
use super::role::Right;
use super::ways::Way;
use super::{api, guard, health, metrics, status};
use crate::net::serve::Client;

/// The pages of one address.
pub(super) struct Site {
    control: Arc<dyn Control>,
    started: Instant,
    /// The address that `Host` may name beside loopback; `None` serves the probes alone, to anyone.
    bound: Option<IpAddr>,
    /// What the probes have none of: nobody is asked there.
    door: Option<Door>,
    audit: Arc<Audit>,
}

impl Site {
    /// Every page, for people and scrapers on this address, behind this door.
    pub(super) fn new(control: Arc<dyn Control>, bound: IpAddr, door: Door, audit: Arc<Audit>) -> Arc<Self> {
        Arc::new(Self { control, started: Instant::now(), bound: Some(bound), door: Some(door), audit })
    }

    /// Health and readiness alone: nothing is told but `ok`, so nobody is refused.
    pub(super) fn probes(control: Arc<dyn Control>, audit: Arc<Audit>) -> Arc<Self> {
        Arc::new(Self { control, started: Instant::now(), bound: None, door: None, audit })
    }

    /// The service that answers this client.
    pub(super) fn service(
        self: Arc<Self>,
        client: Client,
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
        let site = self;
        let stack = ServiceBuilder::new()
            // on every answer, refusals included
            .layer(fixed(CACHE_CONTROL, "no-store"))
            .layer(fixed(X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .layer(fixed(CONTENT_SECURITY_POLICY, NOTHING_ALLOWED))
            .layer(CompressionLayer::new())
            .service(service_fn(move |request: Request<Incoming>| {
                let (site, client) = (Arc::clone(&site), client.clone());
                async move { Ok::<_, Infallible>(site.answer(request, &client).await) }
            }));
        TowerToHyperService::new(stack)
    }

    async fn answer(&self, request: Request<Incoming>, client: &Client) -> Page {
        let (Some(bound), Some(door)) = (self.bound, &self.door) else { return self.probe(&request) };
        if !door.asks()
            && let Err(refusal) = guard::check(request.uri(), request.headers(), bound)
        {
            return page::text(StatusCode::FORBIDDEN, refusal);
        }
        let Some((right, method, kind)) = known(request.uri().path()) else {
            return page::text(StatusCode::NOT_FOUND, "not found");
        };
        let asked = format!("{} {}", word(request.method()), request.uri().path());
        let ((who, way), answer, target) = match door.pass(right, request.headers(), client).await {
            Err(refusal) => (refusal.told(), refused(&refusal), None),
            Ok(who) if !method.allows(request.method()) => (who.told(), method.refuse(), None),
            Ok(who) => {
                let (answer, target) = self.page(kind, request).await;
                (who.told(), answer, target)
            }
        };
        if right != Right::Probe {
            let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            let status = answer.status().as_u16();
            let (way, from) = (way.map(Way::word), client.address);
            self.audit.record(right, Entry { time, who, way, from, what: asked, target, status, times: 1 });
        }
        answer
    }

    /// The probes alone, to anyone.
    fn probe(&self, request: &Request<Incoming>) -> Page {
        match (known(request.uri().path()), request.method()) {
            (Some((Right::Probe, method, _)), asked) if !method.allows(asked) => method.refuse(),
            (Some((_, _, Kind::Alive)), _) => health::alive(),
            (Some((_, _, Kind::Ready)), _) => health::ready(&*self.control),
            _ => page::text(StatusCode::NOT_FOUND, "not found"),
        }
    }

    async fn page(&self, kind: Kind, request: Request<Incoming>) -> (Page, Option<String>) {
        let control = &self.control;
        match kind {
            Kind::Endpoint => api::endpoint(control, request).await,
            Kind::Maintenance => api::maintenance(control, request).await,
            Kind::Alive => (health::alive(), None),
            Kind::Ready => (health::ready(&**control), None),
            Kind::Metrics => (metrics::page(Arc::clone(control), request.headers()).await, None),
            Kind::Status => (status::page(&**control, self.started), None),
            Kind::Home => (page::home(), None),
            Kind::Audit => (api::audit(&self.audit.last()), None),
            Kind::Reload => (api::reload(control).await, None),
        }
    }
}

/// The pages, with the right that each needs.
fn known(path: &str) -> Option<(Right, Asked, Kind)> {
    use Asked::{Get, Post};
    Some(match path {
        "/healthz" => (Right::Probe, Get, Kind::Alive),
        "/readyz" => (Right::Probe, Get, Kind::Ready),
        "/metrics" => (Right::Scrape, Get, Kind::Metrics),
        "/" => (Right::Look, Get, Kind::Home),
        "/status" => (Right::Look, Get, Kind::Status),
        "/api/audit" => (Right::Audit, Get, Kind::Audit),
        "/api/reload" => (Right::Change, Post, Kind::Reload),
        "/api/endpoint" => (Right::Change, Post, Kind::Endpoint),
        "/api/maintenance" => (Right::Change, Post, Kind::Maintenance),
        _ => return None,
    })
}

/// What a page is asked for with.
#[derive(Clone, Copy)]
enum Asked {
    Get,
    Post,
}

#[derive(Clone, Copy)]
enum Kind {
    Alive,
    Ready,
    Metrics,
    Home,
    Status,
    Audit,
    Reload,
    Endpoint,
    Maintenance,
}

impl Asked {
    fn allows(self, method: &Method) -> bool {
        match self {
            Self::Get => matches!(*method, Method::GET | Method::HEAD),
            Self::Post => *method == Method::POST,
        }
    }

    fn refuse(self) -> Page {
        let (text, allowed) = match self {
            Self::Get => ("this page knows GET, HEAD", "GET, HEAD"),
            Self::Post => ("this page knows POST", "POST"),
        };
        let mut refusal = page::text(StatusCode::METHOD_NOT_ALLOWED, text);
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        refusal
    }
}

/// The method as the audit has it: no text of the client.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "_OTHER",
    }
}

fn refused(refusal: &Refusal) -> Page {
    let (status, text) = match refusal {
        Refusal::NoToken | Refusal::WrongToken => (StatusCode::UNAUTHORIZED, "a token is needed"),
        Refusal::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens"),
        Refusal::Forbidden(_) => (StatusCode::FORBIDDEN, "this token's role does not open this page"),
        Refusal::NoRole => (StatusCode::FORBIDDEN, "nothing that this token says is a role here"),
        Refusal::OtherSite(_) => (StatusCode::FORBIDDEN, "a page of another site has asked for this"),
        Refusal::Unavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, "the keys of the issuer cannot be fetched at the moment")
        }
        Refusal::ReadOnly => {
            (StatusCode::FORBIDDEN, "changes need a token: [admin.tokens.NAME] with role = \"operator\"")
        }
    };
    let mut page = page::text(status, text);
    match refusal {
        Refusal::NoToken => {
            page.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Refusal::WrongToken => {
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            page.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        Refusal::TooMany => {
            page.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
        }
        Refusal::Unavailable => {
            page.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        Refusal::Forbidden(_) | Refusal::NoRole | Refusal::OtherSite(_) | Refusal::ReadOnly => {}
    }
    page
}

fn fixed(name: http::HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}

/// The pages need no script, style, picture or frame.
const NOTHING_ALLOWED: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
