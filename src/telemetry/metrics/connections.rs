//! What becomes of a listener's connections.

use std::time::SystemTime;

use ::metrics::{Counter, Gauge};

use super::family;
use super::registry::Registry;
use crate::telemetry::attribute::{CERTIFICATE, Configured, LISTENER, OUTCOME, TRACEGATE_UPSTREAM};

/// What became of a connection: the label `outcome` of `tracegate_connections_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionOutcome {
    /// It was accepted and handed to the protocol.
    Accepted,
    /// The listener had as many as it may.
    RefusedLimit,
    /// Its client had as many as one may.
    RefusedClientLimit,
    /// A trusted proxy did not say who its client is.
    ProxyProtocol,
    /// The operating system gave none, for want of file descriptors for example.
    AcceptError,
    /// No TLS session.
    TlsFailed,
    /// It took too long: over its handshake, over a head, or with nothing to say.
    Timeout,
    /// It was old, and its client asked to make a new one.
    MaxAge,
    /// It had served as many requests as one may, and its client was asked to make a new one.
    MaxRequests,
    /// It sent a head that was refused.
    RefusedHead,
    /// It sent a flood of HTTP/2 frames.
    Flood,
    /// It broke.
    Broken,
}

impl ConnectionOutcome {
    /// Every outcome.
    pub const ALL: [Self; 12] = [
        Self::Accepted,
        Self::RefusedLimit,
        Self::RefusedClientLimit,
        Self::ProxyProtocol,
        Self::AcceptError,
        Self::TlsFailed,
        Self::Timeout,
        Self::MaxAge,
        Self::MaxRequests,
        Self::RefusedHead,
        Self::Flood,
        Self::Broken,
    ];

    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::RefusedLimit => "refused_limit",
            Self::RefusedClientLimit => "refused_client_limit",
            Self::ProxyProtocol => "proxy_protocol",
            Self::AcceptError => "accept_error",
            Self::TlsFailed => "tls_failed",
            Self::Timeout => "timeout",
            Self::MaxAge => "max_age",
            Self::MaxRequests => "max_requests",
            Self::RefusedHead => "refused_head",
            Self::Flood => "flood",
            Self::Broken => "broken",
        }
    }
}

/// How a client's TLS handshake ended: the label `outcome` of `tracegate_tls_handshakes_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// There is a session.
    Done,
    /// The client showed no certificate, where one is required.
    NoCertificate,
    /// Its certificate is not signed by a trusted authority, or otherwise not usable.
    Untrusted,
    /// Its certificate is out of date.
    Expired,
    /// Its certificate has been revoked.
    Revoked,
    /// It asked for a name that is not served.
    UnknownName,
    /// It and we share no version or cipher of TLS.
    Incompatible,
    /// It and we share no protocol.
    Alpn,
    /// It ended the handshake with an alert: it does not trust our certificate, for example.
    RefusedByClient,
    /// It spoke HTTP without TLS, and was told so.
    PlainHttp,
    /// It sent what is not TLS, or broke its rules.
    Malformed,
    /// It left.
    ClientGone,
    /// It took too long.
    Timeout,
}

impl Handshake {
    /// Every end.
    pub const ALL: [Self; 13] = [
        Self::Done,
        Self::NoCertificate,
        Self::Untrusted,
        Self::Expired,
        Self::Revoked,
        Self::UnknownName,
        Self::Incompatible,
        Self::Alpn,
        Self::RefusedByClient,
        Self::PlainHttp,
        Self::Malformed,
        Self::ClientGone,
        Self::Timeout,
    ];

    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NoCertificate => "no_certificate",
            Self::Untrusted => "untrusted",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::UnknownName => "unknown_name",
            Self::Incompatible => "incompatible",
            Self::Alpn => "alpn",
            Self::RefusedByClient => "refused_by_client",
            Self::PlainHttp => "plain_http",
            Self::Malformed => "malformed",
            Self::ClientGone => "client_gone",
            Self::Timeout => "timeout",
        }
    }
}

/// The series of one listener's connections.
#[derive(Debug)]
pub struct Connections {
    outcomes: [Counter; ConnectionOutcome::ALL.len()],
    open: Gauge,
    parked: Gauge,
    /// Only where TLS is spoken.
    handshakes: Option<[Counter; Handshake::ALL.len()]>,
}

impl Connections {
    pub(super) fn new(registry: &Registry, listener: &Configured, tls: bool) -> Self {
        let counter = |outcome: ConnectionOutcome| {
            registry.counter(family::CONNECTIONS, &[LISTENER.is(listener), OUTCOME.is(outcome.word())])
        };
        let handshake = |end: Handshake| {
            registry.counter(family::TLS_HANDSHAKES, &[LISTENER.is(listener), OUTCOME.is(end.word())])
        };
        Self {
            handshakes: tls.then(|| Handshake::ALL.map(handshake)),
            outcomes: ConnectionOutcome::ALL.map(counter),
            open: registry.gauge(family::CONNECTIONS_OPEN, &[LISTENER.is(listener)]),
            parked: registry.gauge(family::CONNECTIONS_PARKED, &[LISTENER.is(listener)]),
        }
    }

    /// Something became of a connection.
    pub fn count(&self, outcome: ConnectionOutcome) {
        self.outcomes[outcome as usize].increment(1);
    }

    /// A TLS handshake ended.
    pub fn handshake(&self, end: Handshake) {
        if let Some(handshakes) = &self.handshakes {
            handshakes[end as usize].increment(1);
        }
    }

    /// A connection is open for as long as the answer is held.
    #[must_use]
    pub fn open(&self) -> OpenConnection {
        self.open.increment(1);
        OpenConnection(self.open.clone())
    }

    /// A connection that is parked.
    #[must_use]
    pub fn parking(&self) -> Parking {
        let mut parking = Parking { parked: self.parked.clone(), is_parked: false };
        parking.park();
        parking
    }
}

/// When certificates expire, a listener's or our own towards an upstream, on the page for as long as this is held.
#[derive(Debug)]
pub struct Expiries(#[expect(dead_code, reason = "held")] Vec<Gauge>);

impl Expiries {
    pub(super) fn new(
        registry: &Registry,
        listener: &Configured,
        certificates: impl IntoIterator<Item = (Configured, SystemTime)>,
    ) -> Self {
        let gauge = |(certificate, expires): (Configured, SystemTime)| {
            let labels = [LISTENER.is(listener), CERTIFICATE.is(&certificate)];
            moment(registry.owned_gauge(family::CERTIFICATE_EXPIRY, &labels), expires)
        };
        Self(certificates.into_iter().map(gauge).collect())
    }

    pub(super) fn of_upstream(registry: &Registry, upstream: &Configured, expires: SystemTime) -> Self {
        let labels = [TRACEGATE_UPSTREAM.is(upstream)];
        Self(vec![moment(registry.owned_gauge(family::UPSTREAM_EXPIRY, &labels), expires)])
    }
}

fn moment(gauge: Gauge, moment: SystemTime) -> Gauge {
    gauge.set(moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    gauge
}

/// An open connection, client's or endpoint's, counted until it drops.
#[derive(Debug)]
pub struct OpenConnection(pub(super) Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// Whether one connection is parked, counted while it is.
#[derive(Debug)]
pub struct Parking {
    parked: Gauge,
    is_parked: bool,
}

impl Parking {
    /// It is now.
    pub fn park(&mut self) {
        if !std::mem::replace(&mut self.is_parked, true) {
            self.parked.increment(1);
        }
    }

    /// It is no longer.
    pub fn unpark(&mut self) {
        if std::mem::replace(&mut self.is_parked, false) {
            self.parked.decrement(1);
        }
    }

    /// Whether it is.
    pub fn is_parked(&self) -> bool {
        self.is_parked
    }
}

impl Drop for Parking {
    fn drop(&mut self) {
        self.unpark();
    }
}
