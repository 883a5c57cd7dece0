//! Listeners: bind, accept, bound, drain. Every accepted connection is handed to a protocol.

pub mod file;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::ServerConfig;

/// A listener as used: what `[listeners.NAME]` means once it has been checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The key in the table.
    pub name: Arc<str>,
    /// Where to bind. Port 0 takes a free one.
    pub address: SocketAddr,
    /// TLS, with certificate and key loaded; `None` is plain text.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bounds of what one client may ask for.
    pub limits: Limits,
    /// How long a client may take.
    pub timeouts: Timeouts,
}

/// Bounds of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once.
    pub connections: usize,
    /// Bytes of a request's header fields, names and values.
    pub header_bytes: usize,
    /// Fields of a request's header.
    pub header_count: usize,
    /// Bytes of the request target.
    pub uri_bytes: usize,
    /// HTTP/2 streams open at once on one connection.
    pub http2_streams: u32,
}

/// Waits of a listener.
#[derive(Debug, Clone, Copy)]
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
