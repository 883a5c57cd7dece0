//! The admin address: health, metrics and status, apart from the traffic.

pub mod file;

use std::net::SocketAddr;

/// The admin listener as used: what `[admin]` and `[probes]` mean once they have been checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where `/metrics`, `/status`, `/healthz` and `/readyz` are served. Loopback only while there are no tokens.
    pub address: SocketAddr,
    /// Where `/healthz` and `/readyz` are served alone, for container probes.
    pub probes: Option<SocketAddr>,
}
