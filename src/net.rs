//! Connections going out: names, dialling, TLS. Used by receivers of telemetry and by upstreams alike.

pub mod file;
pub mod tls;

use std::net::SocketAddr;
use std::time::Duration;

/// How names are resolved: `[dns]` once it has been checked.
#[derive(Debug, Clone)]
pub struct DnsSettings {
    /// Servers to ask; empty takes the system's.
    pub servers: Vec<SocketAddr>,
    /// An answer is kept at least this long.
    pub min_ttl: Duration,
    /// An answer is kept at most this long.
    pub max_ttl: Duration,
}
