//! WebSocket by HTTP/1.1 upgrade: what asks for it, what agrees to it, and who then owns the upstream's side.
//!
//! Other upgrades are never offered to an upstream: behind `h2c` nobody here could see the requests.

pub mod frames;

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Version, request};
use hyper::upgrade::OnUpgrade;

use super::headers::has_token;
use super::pool::Lease;
use super::removal::Removal;
use crate::telemetry::Attempt;
use crate::telemetry::metrics::connections::OpenConnection;
use crate::upstream::InFlight;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("Upgrade");

/// Whether this request asks for a WebSocket and nothing else (RFC 6455 section 4.1).
pub(super) fn is_asked(head: &request::Parts) -> bool {
    head.method == Method::GET
        && head.version == Version::HTTP_11
        && has_token(&head.headers, header::CONNECTION, b"upgrade")
        && is_websocket(&head.headers)
}

/// Whether `Upgrade` names WebSocket and nothing else.
pub(super) fn is_websocket(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::UPGRADE).iter();
    let named = values.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    named && values.next().is_none()
}

/// Says so in a request or an answer, from which the fields of another connection have been stripped.
pub(super) fn state(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, UPGRADE);
    headers.insert(header::UPGRADE, WEBSOCKET);
}

/// The upstream's side of a tunnel. It is there once the connection's library has let go of it.
#[derive(Debug)]
pub struct Agreed {
    // the attempt ends before the connection goes
    attempt: Attempt,
    upgrade: Option<OnUpgrade>,
    idle: Option<Duration>,
    removal: Arc<Removal>,
    _lease: Lease,
    _open: OpenConnection,
    _in_flight: InFlight,
}

impl Agreed {
    /// The upstream has agreed to an attempt over this connection, on which nothing may pass for `idle`, and
    /// which ends with the time of its route.
    pub(super) fn new(
        upgrade: OnUpgrade,
        idle: Option<Duration>,
        attempt: Attempt,
        lease: Lease,
        in_flight: InFlight,
        removal: Arc<Removal>,
    ) -> Self {
        let open = lease.count_open();
        let upgrade = Some(upgrade);
        Self { attempt, upgrade, idle, removal, _lease: lease, _open: open, _in_flight: in_flight }
    }

    /// Tells when the time of its route is over.
    pub(super) fn removal(&self) -> Arc<Removal> {
        Arc::clone(&self.removal)
    }

    /// How long nothing may pass.
    pub(super) fn idle(&self) -> Option<Duration> {
        self.idle
    }

    /// The upstream's side, once.
    pub(super) fn upgrade(&mut self) -> Option<OnUpgrade> {
        self.upgrade.take()
    }

    /// The attempt that it is.
    pub(super) fn attempt(&mut self) -> &mut Attempt {
        &mut self.attempt
    }
}
