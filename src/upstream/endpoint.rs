//! One address of an upstream: its labels, and how a connection to it is made.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use super::outliers::Outcomes;
use crate::failure::{Detail, Failure, Reason};
use crate::net::{self, Name, Socket, Stream, tls};
use crate::telemetry::operation::{ConnectionFacts, EndpointLabels};

/// One endpoint's address: `http://host:port`, `https://host:port` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Whether TLS is spoken.
    pub https: bool,
    /// A name or an IP literal, lower case, without brackets; or the path of a Unix socket.
    pub host: Box<str>,
    /// The port, the scheme's own if none was written; 0 for a Unix socket.
    pub port: u16,
}

impl Address {
    /// The path, if it is a Unix socket: no name of a host begins with a slash.
    pub fn unix(&self) -> Option<&Path> {
        self.host.starts_with('/').then(|| Path::new(&*self.host))
    }

    /// `host:port`, an IPv6 literal in brackets; `unix:/path` of a Unix socket.
    pub fn host_and_port(&self) -> String {
        if self.unix().is_some() {
            return format!("unix:{}", self.host);
        }
        format!("{}:{}", self.bracketed_host(), self.port)
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// The host, and the port unless it is the scheme's own: what a client writes into `Host`.
    pub fn authority(&self) -> String {
        if self.unix().is_some() {
            return "localhost".to_owned();
        }
        let own_port = if self.https { 443 } else { 80 };
        if self.port == own_port { self.bracketed_host() } else { self.host_and_port() }
    }

    fn bracketed_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() }
    }
}

/// One endpoint of an upstream.
#[derive(Debug)]
pub struct Endpoint {
    /// What every record of it carries.
    pub labels: Arc<EndpointLabels>,
    /// Its own host, and port unless it is the scheme's own: for requests that do not keep the client's host.
    pub authority: Box<str>,
    /// Its address, as configured.
    pub address: Address,
    /// None of a Unix socket.
    name: Option<Name>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    connect_timeout: Duration,
    dials: AtomicUsize,
    /// What requests count.
    pub(super) counts: Counts,
}

/// What the requests to one endpoint count, apart from what those to others do.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Counts {
    /// Requests on their way to it.
    pub(super) in_flight: AtomicUsize,
    /// How they went.
    pub(super) outcomes: Outcomes,
}

/// A new connection to an endpoint, ready for its first request.
#[derive(Debug)]
pub struct Connected {
    /// The connection, past its TLS handshake.
    pub stream: Stream,
    /// How it came about.
    pub facts: ConnectionFacts,
}

impl Endpoint {
    pub(super) fn new(
        address: &Address,
        name: Option<Name>,
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
        connect_timeout: Duration,
        labels: EndpointLabels,
    ) -> Self {
        Self {
            labels: Arc::new(labels),
            authority: address.authority().into(),
            address: address.clone(),
            name,
            tls,
            connect_timeout,
            dials: AtomicUsize::new(0),
            counts: Counts::default(),
        }
    }

    /// Makes a connection, within the upstream's connect timeout from the name's lookup to the end of the TLS
    /// handshake. The reason tells which part failed: `dns_failed`, `connect_timeout`, `connect_refused` …,
    /// `tls_failed`.
    pub async fn dial(&self) -> Result<Connected, Failure> {
        let mut facts = ConnectionFacts::default();
        let stream = self.dial_telling(&mut facts).await?;
        Ok(Connected { stream, facts })
    }

    /// The same, and each part is told the moment it is over, whatever becomes of the rest.
    pub async fn dial_telling(&self, facts: &mut ConnectionFacts) -> Result<Stream, Failure> {
        let started = Instant::now();
        let left = || self.connect_timeout.saturating_sub(started.elapsed());

        let Some(name) = &self.name else {
            let (stream, took) = net::dial::unix(Path::new(&*self.address.host), left()).await?;
            facts.connect = Some(took);
            return Ok(Stream::Plain(Socket::unix(stream)));
        };
        let addresses = name.addresses(left()).await?;
        facts.resolve = (!name.is_literal()).then(|| started.elapsed());

        let turn = self.dials.fetch_add(1, Ordering::Relaxed);
        let dialed = net::dial(&in_turn(&addresses, self.address.port, turn), left()).await?;
        (facts.peer, facts.connect) = (Some(dialed.peer), Some(dialed.took));
        let Some((config, name)) = &self.tls else {
            return Ok(Stream::Plain(Socket::tcp(dialed.stream)));
        };

        let session = tls::connect(config, name.clone(), Socket::tcp(dialed.stream));
        let Ok(session) = tokio::time::timeout(left(), session).await else {
            return Err(Failure::new(Reason::TlsFailed).detail(Detail::Timeout));
        };
        let (stream, handshake) = session?;
        facts.handshake = Some(handshake);
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// Whether the endpoint's name still stands for the address of this peer: a connection to one that it
    /// left behind should not be used again.
    pub fn is_current(&self, peer: SocketAddr) -> bool {
        self.name.as_ref().is_none_or(|name| name.is_current(peer.ip()))
    }
}

/// Where to dial: in each family the addresses take turns at being first, so that a name with many of them (a
/// headless Kubernetes service) gets its connections spread over all.
fn in_turn(addresses: &[IpAddr], port: u16, turn: usize) -> Vec<SocketAddr> {
    let peers = addresses.iter().map(|&address| SocketAddr::new(address, port));
    let (mut v6, mut v4): (Vec<_>, Vec<_>) = peers.partition(SocketAddr::is_ipv6);
    for family in [&mut v6, &mut v4] {
        let first = turn.checked_rem(family.len()).unwrap_or(0);
        family.rotate_left(first);
    }
    v6.append(&mut v4);
    v6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_urls_and_hosts_have_it() {
        for (https, host, port, host_and_port, authority) in [
            (false, "shop", 80, "shop:80", "shop"),
            (false, "shop", 443, "shop:443", "shop:443"),
            (true, "shop", 443, "shop:443", "shop"),
            (true, "192.0.2.1", 8443, "192.0.2.1:8443", "192.0.2.1:8443"),
            (false, "2001:db8::1", 80, "[2001:db8::1]:80", "[2001:db8::1]"),
        ] {
            let address = Address { https, host: host.into(), port };
            assert_eq!(address.host_and_port(), host_and_port);
            assert_eq!(address.authority(), authority);
        }
    }

    #[test]
    fn the_addresses_of_a_name_take_turns_at_being_first() {
        let addresses =
            ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"].map(|text| text.parse().unwrap());
        for (turn, expected) in [
            (0, ["[2001:db8::1]:80", "192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"]),
            (1, ["[2001:db8::1]:80", "192.0.2.2:80", "192.0.2.3:80", "192.0.2.1:80"]),
            (5, ["[2001:db8::1]:80", "192.0.2.3:80", "192.0.2.1:80", "192.0.2.2:80"]),
        ] {
            assert_eq!(in_turn(&addresses, 80, turn), expected.map(|text| text.parse().unwrap()), "{turn}");
        }
        assert_eq!(in_turn(&[], 80, 3), []);
    }
}
