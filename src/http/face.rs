//! How answers look to a client, whoever made them: what its request prefers, what its route adds to every answer.
//!
//! A failure may come from any layer, or from before all of them. So that its answer carries the route's header
//! rules, CORS fields and error page all the same, these are no layers: [`Manner`] is taken from the request when
//! its route is found, and `rescue`, which sees every answer, has it applied.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};

use super::accept::prefers_html;
use super::cors::{self, Cors};
use super::exchange::{Response, Routed};
use super::grpc::is_grpc;
use super::headers::Fields;
use super::page::Page;
use super::pattern::Facts;
use super::rules::Rules;
use super::shaping::Shaping;
use crate::failure::Reason;
use crate::telemetry::Handle;

/// What a route adds to all its answers, the gateway's own among them.
#[derive(Debug)]
pub struct Face {
    cors: Option<Arc<Cors>>,
    hsts: Option<HeaderValue>,
    rules: Rules,
    page: Option<Arc<Page>>,
    maintenance_page: Option<Arc<Page>>,
    replaces_upstream: bool,
}

impl Face {
    /// The face of a route that is shaped so; `None` if it adds nothing.
    pub fn new(shaping: &Shaping) -> Option<Arc<Self>> {
        let face = Self {
            cors: shaping.cors.clone(),
            hsts: shaping.hsts.clone(),
            rules: shaping.response_rules.clone(),
            page: shaping.error_page.page.clone(),
            maintenance_page: shaping.maintenance.page.clone(),
            replaces_upstream: shaping.error_page.replaces_upstream,
        };
        let plain = face.cors.is_none()
            && face.hsts.is_none()
            && face.rules.is_empty()
            && face.page.is_none()
            && face.maintenance_page.is_none()
            && !face.replaces_upstream;
        (!plain).then(|| Arc::new(face))
    }

    /// Whether preflights are answered.
    pub(super) fn answers_preflights(&self) -> bool {
        self.cors.is_some()
    }

    fn page(&self, reason: Reason) -> Option<&Page> {
        let own = self.maintenance_page.as_deref().filter(|_| reason == Reason::Maintenance);
        own.or(self.page.as_deref())
    }
}

/// How the answer to one request must look.
#[derive(Debug, Default)]
pub(super) struct Manner {
    /// The request is gRPC, and so must its answers be.
    pub(super) grpc: bool,
    /// The client would rather have a page for people.
    pub(super) html: bool,
    faced: Option<Faced>,
}

/// What the face of the route makes of the request.
#[derive(Debug)]
struct Faced {
    face: Arc<Face>,
    /// What `Access-Control-Allow-Origin` says.
    allowed_origin: Option<HeaderValue>,
    https: bool,
    preflight: bool,
}

impl Manner {
    /// What the request itself asks for.
    pub(super) fn of(headers: &HeaderMap, fields: Fields) -> Self {
        Self {
            grpc: fields.have(Fields::CONTENT_TYPE) && is_grpc(headers),
            html: fields.have(Fields::ACCEPT) && prefers_html(headers),
            faced: None,
        }
    }

    /// The route is known.
    pub(super) fn facing(&mut self, face: Option<&Arc<Face>>, request: &Routed) {
        let Some(face) = face else { return };
        let headers = &request.head.headers;
        let cors = face.cors.as_ref();
        self.faced = Some(Faced {
            face: Arc::clone(face),
            allowed_origin: cors.and_then(|cors| cors.allows(headers.get(header::ORIGIN)?)),
            https: face.hsts.is_some() && request.peer.is_https(headers),
            preflight: cors.is_some() && cors::is_preflight(&request.head.method, headers),
        });
    }

    /// The page that tells of a failure for this reason; `None` for those who have not asked for one.
    pub(super) fn page(&self, reason: Reason) -> Option<Cow<'_, Page>> {
        let own = || self.faced.as_ref().and_then(|faced| faced.face.page(reason));
        self.html.then(|| own().map_or_else(|| Cow::Owned(Page::built_in()), Cow::Borrowed))
    }

    /// Whether the gateway tells of this answer's failure in the upstream's place.
    pub(super) fn replaces(&self, answer: &Response) -> bool {
        self.faced.as_ref().is_some_and(|faced| faced.face.replaces_upstream)
            && answer.status().is_server_error()
            && !is_grpc(answer.headers())
    }

    /// Adds to an answer what the route adds to all of them.
    pub(super) fn dress(&self, answer: &mut Response, own: bool, handle: &Handle) {
        let Some(Faced { face, allowed_origin, https, preflight }) = &self.faced else { return };
        let headers = answer.headers_mut();
        let facts = Facts::of_exchange(handle);
        if own {
            face.rules.apply_beside(headers, &facts);
        } else {
            face.rules.apply(headers, &facts);
        }
        if let Some(cors) = &face.cors {
            cors.say(headers, allowed_origin.as_ref(), *preflight);
        }
        // not without TLS (RFC 6797 section 7.2)
        if let (Some(hsts), true) = (&face.hsts, https) {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }
}
