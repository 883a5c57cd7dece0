//! What becomes of a listener's connections.

use ::metrics::{Counter, Gauge};

use super::family;
use super::registry::Registry;

/// What became of a connection: the label `outcome` of `tracegate_connections_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionOutcome {
    /// It was accepted and handed to the protocol.
    Accepted,
    /// The listener had as many as it may.
    RefusedLimit,
    /// The operating system gave none, for want of file descriptors for example.
    AcceptError,
    /// No TLS session.
    TlsFailed,
    /// It took too long: over its handshake, over a head, or with nothing to say.
    Timeout,
    /// It sent a head that was refused.
    RefusedHead,
    /// It broke.
    Broken,
}

impl ConnectionOutcome {
    /// Every outcome.
    pub const ALL: [Self; 7] = [
        Self::Accepted,
        Self::RefusedLimit,
        Self::AcceptError,
        Self::TlsFailed,
        Self::Timeout,
        Self::RefusedHead,
        Self::Broken,
    ];

    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::RefusedLimit => "refused_limit",
            Self::AcceptError => "accept_error",
            Self::TlsFailed => "tls_failed",
            Self::Timeout => "timeout",
            Self::RefusedHead => "refused_head",
            Self::Broken => "broken",
        }
    }
}

/// The series of one listener's connections.
#[derive(Debug)]
pub struct Connections {
    outcomes: [Counter; ConnectionOutcome::ALL.len()],
    open: Gauge,
}

impl Connections {
    pub(super) fn new(registry: &Registry, listener: &str) -> Self {
        let counter = |outcome: ConnectionOutcome| {
            registry.counter(family::CONNECTIONS, &[("listener", listener), ("outcome", outcome.word())])
        };
        Self {
            outcomes: ConnectionOutcome::ALL.map(counter),
            open: registry.gauge(family::CONNECTIONS_OPEN, &[("listener", listener)]),
        }
    }

    /// Something became of a connection.
    pub fn count(&self, outcome: ConnectionOutcome) {
        self.outcomes[outcome as usize].increment(1);
    }

    /// A connection is open for as long as the answer is held.
    #[must_use]
    pub fn open(&self) -> OpenConnection {
        self.open.increment(1);
        OpenConnection(self.open.clone())
    }
}

/// An open connection, client's or endpoint's, counted until it drops.
#[derive(Debug)]
pub struct OpenConnection(pub(super) Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}
