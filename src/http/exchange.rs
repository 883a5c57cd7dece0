//! A request and an answer between the gateway's own stages: facts are fields, not extensions of the message.

use std::sync::Arc;

use http::{Extensions, HeaderName, HeaderValue, Uri, request};
use tokio::time::Instant;

use super::body::{Body, RequestBody};
use super::headers::{Fields, Peer};
use super::identity::Identity;
use super::split::Returning;
use crate::telemetry::Handle;

/// An answer on its way to the client.
pub type Response = http::Response<Body>;

/// A request that has found its route. Boxed: it moves through every layer.
pub type Request = Box<Routed>;

/// What a [`Request`] is.
#[derive(Debug)]
pub struct Routed {
    /// Method, target, version and header fields; the target's path is normalised.
    pub head: request::Parts,
    /// What the head is made of again, once it has been sent and may be sent again.
    pub(super) kept_head: Option<KeptHead>,
    /// What the gateway acts on of what the client sent in the header.
    pub(super) fields: Fields,
    /// The host it is for, lower case and without port; empty if it names none. It is the client's text.
    pub host: String,
    /// The body.
    pub body: RequestBody,
    /// Where facts are stated.
    pub handle: Handle,
    /// Who is at the other end of the client's connection.
    pub(super) peer: Arc<Peer>,
    /// The values of the route's path parameters; none if the route does not read them.
    pub parameters: Parameters,
    /// Who was verified, if a rule of `[auth]` did so: what is above that layer sees nobody.
    pub identity: Option<Arc<Identity>>,
    /// When the answer's head must be there.
    pub deadline: Option<Instant>,
    /// When the exchange must be over.
    pub ends: Option<Instant>,
    /// What a cookie says of where it was before; only where the route asks for it.
    pub returning: Option<Returning>,
}

/// A head that may be sent once more, but for its method. A list is half the price of a second header, and leaves the
/// header itself to the library, which uses its memory for the answer's.
#[derive(Debug)]
pub(super) struct KeptHead {
    uri: Uri,
    fields: Vec<(HeaderName, HeaderValue)>,
    extensions: Extensions,
}

impl KeptHead {
    pub(super) fn of(head: &request::Parts) -> Self {
        let fields = head.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
        Self { uri: head.uri.clone(), fields: fields.collect(), extensions: head.extensions.clone() }
    }

    /// Puts it back where it was.
    pub(super) fn restore(self, head: &mut request::Parts) {
        head.uri = self.uri;
        head.headers = self.fields.into_iter().collect();
        head.extensions = self.extensions;
    }
}

/// The values of a route's path parameters, in the order of the template.
pub type Parameters = Vec<Box<str>>;
