//! Upstreams: a named set of endpoints, one of which is picked for each attempt.

pub mod file;

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

/// An upstream as used: what `[upstreams.NAME]` means once it has been checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The key in the table.
    pub name: Box<str>,
    /// The service's own OpenTelemetry service name.
    pub service: Option<Box<str>>,
    /// At least one.
    pub endpoints: Vec<Address>,
    /// How an endpoint is picked.
    pub balance: Balance,
    /// What is spoken to the endpoints.
    pub protocol: Protocol,
    /// TLS towards `https` endpoints, with authorities and certificates loaded; ALPN is set by `protocol`.
    pub tls: Option<Tls>,
    /// From the first SYN to an established connection, TLS included.
    pub connect_timeout: Duration,
    /// Bounds of each endpoint's pool of connections.
    pub pool: Pool,
    /// The most bytes of an answer's header fields.
    pub header_bytes: usize,
}

/// One endpoint's address: `http://host:port` or `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Whether TLS is spoken.
    pub https: bool,
    /// A name or an IP literal, lower case, without brackets.
    pub host: Box<str>,
    /// The port, the scheme's own if none was written.
    pub port: u16,
}

/// How an endpoint is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Of two taken at random the one with fewer requests in flight.
    PowerOfTwoChoices,
    /// One after the other.
    RoundRobin,
}

/// What is spoken to the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: by prior knowledge without TLS, by ALPN with it.
    Http2,
}

/// TLS towards an upstream.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Trusted authorities, client certificate and ALPN.
    pub config: Arc<ClientConfig>,
    /// The name the certificate must have, if it is not the endpoint's host.
    pub server_name: Option<ServerName<'static>>,
}

/// Bounds of one endpoint's pool.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    /// Connections open or being opened at once.
    pub connections: usize,
    /// Requests that wait for a connection.
    pub pending: usize,
    /// How long a request waits for one.
    pub wait: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
}
