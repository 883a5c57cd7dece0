//! Which page a request to the admin address gets.

use std::convert::Infallible;
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, REFERRER_POLICY, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::{ServiceBuilder, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use super::api::enter::{self, LoginError};
use super::api::live::{Live, Still};
use super::api::{self, board, traces};
use super::audit::{Audit, Entry};
use super::control::Control;
use super::door::{Door, Refusal, Who};
use super::page::{self, Page};
use super::role::Right;
use super::session::{self, Session, Sessions};
use super::ways::Way;
use super::{guard, health, metrics, origin, status};
use crate::net::serve::Client;

/// The pages of one address.
pub(super) struct Site {
    control: Arc<dyn Control>,
    started: Instant,
    /// The address that `Host` may name beside loopback; `None` serves the probes alone, to anyone.
    bound: Option<IpAddr>,
    /// What the probes have none of: nobody is asked there.
    door: Option<Door>,
    sessions: Sessions,
    audit: Arc<Audit>,
    live: Arc<Live>,
    /// Whether it is reached by TLS.
    tls: bool,
    /// Where traces are looked at as a whole.
    jaeger: Option<Box<str>>,
}

/// What a site is made with.
pub(super) struct Settings {
    /// The address it is bound to.
    pub(super) bound: IpAddr,
    /// The bounds of sessions.
    pub(super) sessions: session::Settings,
    /// Whether it is reached by TLS.
    pub(super) tls: bool,
    /// Where traces are looked at as a whole.
    pub(super) jaeger: Option<Box<str>>,
}

/// Who asks, and how they were known.
struct Visitor {
    who: Who,
    session: Option<Session>,
}

impl Site {
    /// Every page, for people and scrapers, behind this door. Streams end with `stop`.
    pub(super) fn new(
        control: Arc<dyn Control>,
        settings: Settings,
        door: Door,
        audit: Arc<Audit>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            control,
            started: Instant::now(),
            bound: Some(settings.bound),
            door: Some(door),
            sessions: Sessions::new(settings.sessions, settings.tls),
            audit,
            live: Live::new(stop),
            tls: settings.tls,
            jaeger: settings.jaeger,
        })
    }

    /// Health and readiness alone: nothing is told but `ok`, so nobody is refused.
    pub(super) fn probes(control: Arc<dyn Control>, audit: Arc<Audit>) -> Arc<Self> {
        Arc::new(Self {
            control,
            started: Instant::now(),
            bound: None,
            door: None,
            sessions: Sessions::new(session::Settings::default(), false),
            audit,
            live: Live::new(CancellationToken::new()),
            tls: false,
            jaeger: None,
        })
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
            .layer(fixed(REFERRER_POLICY, "no-referrer"))
            .layer(fixed(OPENER_POLICY, "same-origin"))
            .layer(fixed(RESOURCE_POLICY, "same-origin"))
            // the live page says itself what it may do
            .layer(SetResponseHeaderLayer::if_not_present(
                CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(NOTHING_ALLOWED),
            ))
            .layer(CompressionLayer::new())
            .service(service_fn(move |request: Request<Incoming>| {
                let (site, client) = (Arc::clone(&site), client.clone());
                async move { Ok::<_, Infallible>(site.answer(request, &client).await) }
            }));
        TowerToHyperService::new(stack)
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, client: &Client) -> Page {
        let (Some(bound), Some(door)) = (self.bound, &self.door) else { return self.probe(&request) };
        if !door.asks()
            && let Err(refusal) = guard::check(request.uri(), request.headers(), bound)
        {
            return page::text(StatusCode::FORBIDDEN, refusal);
        }
        let Some(known) = known(request.uri().path()) else {
            return page::text(StatusCode::NOT_FOUND, "not found");
        };
        let Known { right, method, name, .. } = known;
        let asked = format!("{} {name}", word(request.method()));
        let ((who, way), answer, target) = match self.admit(door, &known, request.headers(), client).await {
            Err(refusal) => (refusal.told(), refused(&refusal), None),
            Ok(visitor) if !method.allows(request.method()) => (visitor.who.told(), method.refuse(), None),
            Ok(visitor) => self.page(door, known.kind, visitor, request, client).await,
        };
        // whether somebody is let in is on record; that somebody asks for the empty page is not
        if right != Right::Probe && (right != Right::Shell || method == Asked::Post) {
            let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            let status = answer.status().as_u16();
            let (way, from) = (way.map(Way::word), client.address);
            self.audit.record(right, Entry { time, who, way, from, what: asked, target, status, times: 1 });
        }
        answer
    }

    /// Who asks, by a token or by the cookie of a session, if they may.
    ///
    /// A browser sends the cookie whoever made it ask: what is posted with it must come from our own page, and show
    /// what only that page was told.
    async fn admit(
        &self,
        door: &Door,
        known: &Known,
        headers: &HeaderMap,
        client: &Client,
    ) -> Result<Visitor, Refusal> {
        let session = if headers.contains_key(AUTHORIZATION) { None } else { self.session(door, headers) };
        let Some(session) = session else {
            let who = door.pass(known.right, headers, client).await?;
            return Ok(Visitor { who, session: None });
        };
        let who = Who::Named(session.known.clone());
        if known.method == Asked::Post && !matches!(known.kind, Kind::Login) {
            let shown = headers.get(CSRF).map(HeaderValue::as_bytes).unwrap_or_default();
            if !origin::is_own(headers, self.tls) || shown != session.csrf.as_bytes() {
                return Err(Refusal::OtherSite(session.known));
            }
        }
        let who = if known.right.is_everybodys() { who } else { Door::let_in(known.right, who)? };
        Ok(Visitor { who, session: Some(session) })
    }

    /// The session of whoever asks, while its token still opens.
    fn session(&self, door: &Door, headers: &HeaderMap) -> Option<Session> {
        let session = self.sessions.find(headers)?;
        if !door.still_opens(&session.known) {
            self.sessions.end(&session);
            return None;
        }
        Some(session)
    }

    /// The probes alone, to anyone.
    fn probe(&self, request: &Request<Incoming>) -> Page {
        match known(request.uri().path()) {
            Some(Known { right: Right::Probe, method, .. }) if !method.allows(request.method()) => {
                method.refuse()
            }
            Some(Known { kind: Kind::Alive, .. }) => health::alive(),
            Some(Known { kind: Kind::Ready, .. }) => health::ready(&*self.control),
            _ => page::text(StatusCode::NOT_FOUND, "not found"),
        }
    }

    async fn page(
        self: &Arc<Self>,
        door: &Door,
        kind: Kind,
        visitor: Visitor,
        request: Request<Incoming>,
        client: &Client,
    ) -> ((Arc<str>, Option<Way>), Page, Option<String>) {
        let (control, told) = (&self.control, visitor.who.told());
        let path = request.uri().path().to_owned();
        let below = |prefix| path.strip_prefix(prefix).unwrap_or_default();
        let json = |value| (page::json(StatusCode::OK, &value), None);
        let (answer, target) = match kind {
            Kind::Alive => (health::alive(), None),
            Kind::Ready => (health::ready(&**control), None),
            Kind::Metrics => (metrics::page(Arc::clone(control), request.headers()).await, None),
            Kind::Status => (status::page(&**control, self.started, visitor.who.may(Right::Browse)), None),
            Kind::File => (
                page::file(&path).map_or_else(|| page::text(StatusCode::NOT_FOUND, "not found"), page::show),
                None,
            ),
            Kind::Me => (self.me(door, &visitor, request.headers(), client).await, None),
            Kind::Login => return self.login(door, request, client.address).await,
            Kind::Logout => (enter::logout(&self.sessions, visitor.session.as_ref()), None),
            Kind::Audit => (api::audit(&self.audit.last()), None),
            Kind::Traces => traces::list(&**control, &visitor.who, request.uri().query().unwrap_or_default()),
            Kind::Trace => traces::one(&**control, below(TRACES)),
            Kind::Routes => json(board::routes(&**control)),
            Kind::Route => (board::route(&**control, below(ROUTES)), None),
            Kind::Upstreams => json(json!({ "upstreams": control.upstreams() })),
            Kind::Certificates => json(json!({ "certificates": control.certificates() })),
            Kind::Reloads => json(control.reloads()),
            Kind::Telemetry => json(control.telemetry()),
            Kind::Stream => (self.stream(visitor), None),
            Kind::Reload => (api::reload(control).await, None),
            Kind::Endpoint => api::endpoint(control, request).await,
            Kind::Maintenance => api::maintenance(control, request).await,
            Kind::LogLevel => api::log_level(control, request).await,
            Kind::Sampling => api::sampling(control, request).await,
        };
        (told, answer, target)
    }

    /// Who looks at the page; nobody yet, if they have to log in first.
    async fn me(&self, door: &Door, visitor: &Visitor, headers: &HeaderMap, client: &Client) -> Page {
        let session = visitor.session.as_ref();
        let who = match session {
            Some(_) => Some(visitor.who.clone()),
            // a certificate may do, or there is no way in
            None => door.pass(Right::Look, headers, client).await.ok(),
        };
        enter::me(who.as_ref(), session, self.jaeger.as_deref().filter(|_| who.is_some()))
    }

    async fn login(
        &self,
        door: &Door,
        request: Request<Incoming>,
        from: IpAddr,
    ) -> ((Arc<str>, Option<Way>), Page, Option<String>) {
        // a browser names the page that asks; whoever does not is no browser, and has no cookie to lose
        if request.headers().contains_key(http::header::ORIGIN)
            && !origin::is_own(request.headers(), self.tls)
        {
            let refusal = Refusal::OtherPage;
            return (refusal.told(), refused(&refusal), None);
        }
        match enter::login(door, &self.sessions, request, from).await {
            Ok((answer, told)) => (told, answer, None),
            Err(LoginError::Unreadable(answer)) => (("-".into(), None), answer, None),
            Err(LoginError::Refused(refusal)) => (refusal.told(), refused(&refusal), None),
        }
    }

    fn stream(self: &Arc<Self>, visitor: Visitor) -> Page {
        let everything = visitor.who.may(Right::Browse);
        let site = Arc::clone(self);
        let still: Still = Box::new(move || {
            let Some(door) = &site.door else { return false };
            if let Some(session) = &visitor.session {
                site.sessions.touch(session);
                if !site.sessions.is_open(session) {
                    return false;
                }
            }
            match &visitor.who {
                Who::Named(known) => door.still_opens(known),
                Who::Anyone => !door.asks(),
            }
        });
        self.live.listen(&self.control, everything, still)
    }
}

/// A page: what it takes, and where it is. What stands in braces is whatever the path ends with.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) right: Right,
    pub(super) method: Asked,
    kind: Kind,
    pub(super) name: &'static str,
}

/// The page at this path.
fn known(path: &str) -> Option<Known> {
    let is = |page: &&Known| match page.name.split_once('{') {
        Some((beginning, _)) => path.starts_with(beginning),
        None => page.name == path || (matches!(page.kind, Kind::File) && page::file(path).is_some()),
    };
    PAGES.iter().find(is).copied()
}

/// Every page.
pub(super) const PAGES: [Known; 23] = {
    use Asked::{Get, Post};
    const fn at(name: &'static str, right: Right, method: Asked, kind: Kind) -> Known {
        Known { right, method, kind, name }
    }
    [
        at("/healthz", Right::Probe, Get, Kind::Alive),
        at("/readyz", Right::Probe, Get, Kind::Ready),
        at("/metrics", Right::Scrape, Get, Kind::Metrics),
        at("/status", Right::Look, Get, Kind::Status),
        at("/", Right::Shell, Get, Kind::File),
        at("/api/me", Right::Shell, Get, Kind::Me),
        at("/api/login", Right::Shell, Post, Kind::Login),
        at("/api/logout", Right::Shell, Post, Kind::Logout),
        at("/api/routes", Right::Look, Get, Kind::Routes),
        at("/api/routes/{route}", Right::Look, Get, Kind::Route),
        at("/api/upstreams", Right::Look, Get, Kind::Upstreams),
        at("/api/stream", Right::Find, Get, Kind::Stream),
        at("/api/traces", Right::Find, Get, Kind::Traces),
        at("/api/traces/{trace_id}", Right::Find, Get, Kind::Trace),
        at("/api/certificates", Right::Browse, Get, Kind::Certificates),
        at("/api/reloads", Right::Browse, Get, Kind::Reloads),
        at("/api/telemetry", Right::Browse, Get, Kind::Telemetry),
        at("/api/audit", Right::Audit, Get, Kind::Audit),
        at("/api/reload", Right::Change, Post, Kind::Reload),
        at("/api/endpoint", Right::Change, Post, Kind::Endpoint),
        at("/api/maintenance", Right::Change, Post, Kind::Maintenance),
        at("/api/log_level", Right::Change, Post, Kind::LogLevel),
        at("/api/sampling", Right::Change, Post, Kind::Sampling),
    ]
};

/// Where those are that have something behind them.
const TRACES: &str = "/api/traces/";
const ROUTES: &str = "/api/routes/";

/// What a page is asked for with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Get,
    Post,
}

#[derive(Clone, Copy)]
enum Kind {
    Alive,
    Ready,
    Metrics,
    Status,
    File,
    Me,
    Login,
    Logout,
    Audit,
    Traces,
    Trace,
    Routes,
    Route,
    Upstreams,
    Certificates,
    Reloads,
    Telemetry,
    Stream,
    Reload,
    Endpoint,
    Maintenance,
    LogLevel,
    Sampling,
}

impl Asked {
    /// The method, for people.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }

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
        Refusal::NoToken => (StatusCode::UNAUTHORIZED, "a token is needed"),
        Refusal::WrongToken => {
            (StatusCode::UNAUTHORIZED, "this opens nothing here: it is wrong, or has expired")
        }
        Refusal::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens: wait a minute"),
        Refusal::Forbidden(_) => (StatusCode::FORBIDDEN, "this token's role does not open this page"),
        Refusal::NoRole => (StatusCode::FORBIDDEN, "nothing that this token says is a role here"),
        Refusal::OtherSite(_) | Refusal::OtherPage => {
            (StatusCode::FORBIDDEN, "a page of another site has asked for this")
        }
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
        Refusal::Forbidden(_)
        | Refusal::NoRole
        | Refusal::OtherSite(_)
        | Refusal::OtherPage
        | Refusal::ReadOnly => {}
    }
    page
}

fn fixed(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}

/// What a change by a session has to show.
const CSRF: &str = "x-csrf-token";

/// No window of another site gets hold of ours, and no page of one embeds what we answer.
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What is no page for people needs no script, style, picture or frame.
const NOTHING_ALLOWED: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
