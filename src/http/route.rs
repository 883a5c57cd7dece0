//! A route: what a request must look like for it, and what becomes of the request then.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use tower::util::BoxCloneSyncService;

use super::exchange::{Request, Response};
use super::face::Face;
use super::in_flight::Bound;
use super::maintenance::Switched;
use super::pointer::Pointer;
use super::removal::Removal;
use super::retry::Rule;
use super::shaping::Shaping;
use super::split::Choice;
use super::sticky;
use crate::failure::{Failure, Reason};
use crate::listener::addresses::Addresses;
use crate::telemetry::attribute::Configured;
use crate::telemetry::operation::RouteLabels;
use crate::telemetry::sampling::RouteSampling;
use crate::telemetry::series::RouteSeries;

/// A route as it serves: its settings' facts and its stack of policies, built once.
#[derive(Debug)]
pub struct Route {
    /// What a request must look like.
    pub matches: Match,
    /// Where its requests go.
    pub target: Target,
    /// Where they go as well, if its traffic is split.
    pub others: Box<[Target]>,
    /// Chooses for each request, if there is something to choose.
    pub choice: Option<Box<Choice>>,
    /// How many of its requests may be in flight.
    pub in_flight: Option<Arc<Bound>>,
    /// Whether a policy reads the path's parameters.
    pub reads_parameters: bool,
    /// From the head of the request to the end of the answer's head.
    pub request_timeout: Option<Duration>,
    /// From the head of the request to the end of the answer.
    pub exchange_timeout: Option<Duration>,
    /// Tells its streams when its time is over.
    pub removal: Arc<Removal>,
    /// Whether it is in maintenance.
    pub maintenance: Switched,
    /// What it adds to all its answers.
    pub face: Option<Arc<Face>>,
}

/// One upstream of a route, and what stands before it.
#[derive(Debug)]
pub struct Target {
    /// What records of requests carry that go there.
    pub labels: Arc<RouteLabels>,
    /// Everything between the table and the upstream.
    pub stack: Stack,
}

/// A route's policies with the forwarding below them: the one place where types are erased.
pub type Stack = BoxCloneSyncService<Request, Response, Failure>;

/// An answer that a stack is working on.
pub type Answering = <Stack as tower::Service<Request>>::Future;

impl Route {
    /// Whether it answers the preflights of browsers (CORS).
    pub fn answers_preflights(&self) -> bool {
        self.face.as_ref().is_some_and(|face| face.answers_preflights())
    }

    /// Its target of this index: the first one, then the others.
    pub fn target(&self, index: usize) -> &Target {
        index.checked_sub(1).and_then(|other| self.others.get(other)).unwrap_or(&self.target)
    }

    /// All its targets.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        std::iter::once(&self.target).chain(&self.others)
    }

    /// What the records of a route with these settings carry, where this upstream is chosen; it has no name if the
    /// route answers without one.
    pub fn labels(settings: &Settings, upstream: &str) -> RouteLabels {
        let server = settings.matches.hosts.iter().find_map(|host| match host {
            Host::Exact(name) => Some(Configured::new(name.clone())),
            Host::Wildcard(_) => None,
        });
        RouteLabels {
            route: Configured::new(settings.name.clone()),
            template: Configured::new(settings.matches.path.clone()),
            upstream_template: Configured::new(settings.rewrite.template(&settings.matches.path)),
            operation: settings.operation.clone().map(Configured::new),
            upstream: Configured::new(upstream),
            server,
            attributes: settings.attributes.iter().map(|(key, _)| key.clone()).collect(),
            sampling: settings.sampling,
            series: RouteSeries::default(),
        }
    }

    /// A route by these settings that is found as any other, and serves nothing: what it would do is asked of it,
    /// and nothing is sent.
    pub fn unserved(settings: &Settings) -> Self {
        let refuse = |_: Request| std::future::ready(Err(Failure::new(Reason::NoEndpoint)));
        let upstream = settings.upstreams.first().map_or("", |(name, _)| &**name);
        Self {
            matches: settings.matches.clone(),
            target: Target {
                labels: Arc::new(Self::labels(settings, upstream)),
                stack: BoxCloneSyncService::new(tower::service_fn(refuse)),
            },
            others: Box::default(),
            choice: None,
            in_flight: None,
            reads_parameters: true,
            request_timeout: None,
            exchange_timeout: None,
            removal: Arc::default(),
            maintenance: Switched::default(),
            face: Face::new(&settings.shaping),
        }
    }

    #[cfg(test)]
    pub(super) fn for_tests(name: &str, matches: Match) -> Self {
        let settings = Settings {
            name: name.into(),
            matches,
            listeners: None,
            upstreams: vec![("none".into(), 1)],
            sticky: None,
            rewrite: Rewrite::Keep,
            host: UpstreamHost::Keep,
            timeouts: Timeouts {
                request: None,
                exchange: None,
                attempt: None,
                stream_idle: None,
                tunnel_idle: None,
                field: None,
            },
            websocket: true,
            retry: None,
            in_flight: None,
            rate_limits: Vec::new(),
            body_bytes: None,
            answer_progress: 1,
            operation: None,
            attributes: Vec::new(),
            addresses: None,
            auth: Vec::new(),
            sampling: RouteSampling::default(),
            shaping: Shaping::default(),
        };
        Self::unserved(&settings)
    }
}

/// A route as used: what `[routes.NAME]` means once it has been checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The key in the table.
    pub name: Box<str>,
    /// What a request must look like.
    pub matches: Match,
    /// The listeners it is served on; `None` is all.
    pub listeners: Option<Vec<Arc<str>>>,
    /// The upstreams' keys and weights: all above zero, and none only if the route answers without one.
    pub upstreams: Vec<(Box<str>, u32)>,
    /// What brings a client back to its endpoint, if anything does.
    pub sticky: Option<sticky::Settings>,
    /// How the path changes on its way to the upstream.
    pub rewrite: Rewrite,
    /// Whether the client's `Host` goes upstream (the default), or the endpoint's own name.
    pub host: UpstreamHost,
    /// How long an exchange may take.
    pub timeouts: Timeouts,
    /// Whether a client may ask for a WebSocket.
    pub websocket: bool,
    /// What is sent again; `None` is nothing.
    pub retry: Option<Rule>,
    /// The most requests in flight; `None` is no bound.
    pub in_flight: Option<usize>,
    /// The limits of its rate, by key, in the order in which they are asked.
    pub rate_limits: Vec<Box<str>>,
    /// The most bytes of a request's body; `None` is no bound.
    pub body_bytes: Option<u64>,
    /// How many bytes must come, within the time that an answer may stand still, of one whose length is known.
    pub answer_progress: u64,
    /// The business operation, `order.create`.
    pub operation: Option<Box<str>>,
    /// Business attributes: key and where its value is read.
    pub attributes: Vec<(Box<str>, AttributeSource)>,
    /// Whose requests are let in, by address; `None` is everybody's.
    pub addresses: Option<Addresses>,
    /// The keys of the rules that may let a request pass; none asks for nothing.
    pub auth: Vec<Box<str>>,
    /// Which of its operations are exported.
    pub sampling: RouteSampling,
    /// How it shapes what passes.
    pub shaping: Shaping,
}

/// What a request must look like for a route.
#[derive(Debug, Clone)]
pub struct Match {
    /// Hosts, lower case, without port; empty is any.
    pub hosts: Vec<Host>,
    /// The path template in matchit's syntax, beginning with `/`.
    pub path: Box<str>,
    /// Methods; empty is any.
    pub methods: Vec<Method>,
    /// Header fields that must be there.
    pub headers: Vec<(HeaderName, HeaderMatch)>,
}

/// A host to match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// This very host.
    Exact(Box<str>),
    /// `*.` and this suffix: one or more labels stand before it.
    Wildcard(Box<str>),
}

/// What a header field must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderMatch {
    /// It is there, with any value.
    Present,
    /// One of its values is exactly this.
    Exact(HeaderValue),
}

/// How the path changes on its way to the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// Not at all.
    Keep,
    /// This prefix goes.
    StripPrefix(Box<str>),
    /// This template with the route's path parameters filled in: `/v2/orders/{order_id}`.
    Template(Box<str>),
}

impl Rewrite {
    /// The template of the path that goes upstream.
    pub fn template<'a>(&'a self, path: &'a str) -> &'a str {
        match self {
            Self::Keep => path,
            Self::StripPrefix(prefix) => {
                let rest = path.strip_prefix(&**prefix).unwrap_or(path);
                if rest.is_empty() { "/" } else { rest }
            }
            Self::Template(template) => template,
        }
    }
}

/// What goes upstream as `Host` or `:authority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamHost {
    /// What the client sent.
    Keep,
    /// The endpoint's own name and port.
    Endpoint,
}

/// How long an exchange may take. `None` is "off".
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// From the head of the request to the end of the answer's head.
    pub request: Option<Duration>,
    /// From the head of the request to the last byte of the answer.
    pub exchange: Option<Duration>,
    /// The same for one attempt.
    pub attempt: Option<Duration>,
    /// An answer's body that stands still.
    pub stream_idle: Option<Duration>,
    /// A tunnel through which nothing passes.
    pub tunnel_idle: Option<Duration>,
    /// The field that tells the upstream how many milliseconds it has.
    pub field: Option<HeaderName>,
}

/// What a client may make of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// A WebSocket.
    Websocket,
}

impl AttributeSource {
    /// Where it is read, in words.
    pub fn told(&self) -> String {
        match self {
            Self::Path(name) => format!("the path's {{{name}}}"),
            Self::RequestHeader(name) => format!("the request's {name}"),
            Self::ResponseHeader(name) => format!("the answer's {name}"),
            Self::ResponseJson(pointer) => format!("the answer's JSON, {pointer}"),
        }
    }
}

/// Where a business attribute's value is read.
#[derive(Debug, Clone)]
pub enum AttributeSource {
    /// A parameter of the path template.
    Path(Box<str>),
    /// A field of the request's header.
    RequestHeader(HeaderName),
    /// A field of the answer's header.
    ResponseHeader(HeaderName),
    /// A value in the answer's body, if that is JSON: in its first 16 KiB, unencoded.
    ResponseJson(Pointer),
}
