//! How long a client may take.

use std::time::Duration;

/// Waits of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From a head's first byte to its last.
    pub head: Duration,
    /// A connection with no request on it.
    pub idle: Duration,
    /// A request's body that stands still.
    pub body: Duration,
}
