//! Upstreams: a named set of endpoints, one of which is picked for each attempt.

pub mod balance;
pub mod breaker;
pub mod budget;
pub mod endpoint;
pub mod file;
pub mod health;
pub mod outliers;
pub mod standing;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::ServerName;
use tokio::task::JoinSet;

pub use balance::Balance;
use breaker::Bound;
pub use breaker::Breaker;
use breaker::Counted;
use budget::Budget;
pub use endpoint::{Address, Connected, Endpoint};
pub use health::Probe;
pub use standing::InFlight;
use standing::{Rules, Standings, Status};

use crate::failure::{Failure, Reason};
use crate::net::{self, Resolver};
use crate::telemetry::attribute::Configured;
use crate::telemetry::context::format::Formats;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::operation::EndpointLabels;
use crate::telemetry::series::EndpointSeries;

/// An upstream as used: what `[upstreams.NAME]` means once it has been checked. What has equal
/// settings is carried over by a reload.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The key in the table.
    pub name: Box<str>,
    /// The service's own OpenTelemetry service name.
    pub service: Option<Box<str>>,
    /// At least one.
    pub endpoints: Vec<Address>,
    /// The weight of each endpoint, in their order.
    pub weights: Vec<u32>,
    /// By what an endpoint is picked, and kept from being picked.
    pub rules: Rules,
    /// How endpoints are checked, if they are.
    pub health: Option<health::Settings>,
    /// Bounds of the whole upstream.
    pub breaker: breaker::Bounds,
    /// What is spoken to the endpoints.
    pub protocol: Protocol,
    /// TLS towards `https` endpoints, with authorities loaded. Always there if an endpoint is `https`.
    pub tls: Option<Tls>,
    /// From the name's lookup to an established connection, TLS included.
    pub connect_timeout: Duration,
    /// Bounds of each endpoint's pool of connections.
    pub pool: Pool,
    /// How much may be retried; `None` is no bound.
    pub retry_budget: Option<budget::Settings>,
    /// The most bytes of an answer's header fields.
    pub header_bytes: usize,
    /// The formats in which it is told the trace context; in none, context and baggage are withheld.
    pub propagate: Formats,
}

impl Settings {
    /// Whether an endpoint is reached in the same way by these settings as by the others.
    fn reaches_as(&self, other: &Self) -> bool {
        (&self.name, &self.service, &self.tls) == (&other.name, &other.service, &other.tls)
            && self.connect_timeout == other.connect_timeout
    }

    /// Whether an endpoint's connections are kept in the same way by these settings as by the others.
    pub fn pools_as(&self, other: &Self) -> bool {
        (self.pool, self.protocol, self.header_bytes) == (other.pool, other.protocol, other.header_bytes)
            && self.breaker == other.breaker
    }
}

/// What is spoken to the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: by prior knowledge without TLS, by ALPN with it.
    Http2,
}

impl Protocol {
    /// Its name in a TLS handshake.
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// TLS towards an upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// The trusted authorities, and the protocol to agree on by ALPN.
    pub config: net::tls::Client,
    /// The name the certificate must have, if it is not the endpoint's host.
    pub server_name: Option<ServerName<'static>>,
    /// How long before its end our own certificate is warned of.
    pub warn: Duration,
}

impl Tls {
    /// The days that are left of our own certificate, if it expires within the time that is warned of.
    pub fn expiring(&self, now: SystemTime) -> Option<i64> {
        let expires = self.config.expires().filter(|expires| *expires < now + self.warn)?;
        Some(net::x509::days_left(now, expires))
    }
}

/// Bounds of one endpoint's pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// HTTP/1.1: connections open or being opened at once. HTTP/2: requests on the one that is shared.
    pub connections: usize,
    /// Requests that wait for a connection.
    pub pending: usize,
    /// How long a request waits for one.
    pub wait: Duration,
    /// How long an unused HTTP/1.1 connection is kept.
    pub idle: Duration,
}

/// A named set of endpoints.
#[derive(Debug)]
pub struct Upstream {
    endpoints: Box<[Arc<Endpoint>]>,
    standings: Arc<Standings>,
    health: Option<health::Settings>,
    breaker: Option<Arc<Breaker>>,
    budget: Option<Budget>,
    propagate: Formats,
}

/// Keeps the standings of an upstream's endpoints, and checks their health, until it drops.
#[derive(Debug)]
pub struct Watch {
    _tasks: JoinSet<()>,
}

/// The endpoint of one attempt.
#[derive(Debug)]
pub struct Picked {
    /// Its index in [`Upstream::endpoints`], to be avoided by the next attempt.
    pub index: usize,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Counts the request until it drops, and is told how it went: to be kept until the answer has ended.
    pub in_flight: InFlight,
}

impl Upstream {
    /// An upstream by these settings. Nothing is resolved or dialled before it is used.
    ///
    /// An endpoint that the previous upstream of this name has, and that is reached in the same way, is carried
    /// over with its requests in flight, what is known of its name, and its series. However it is reached, what
    /// operators have taken out stays out, and what was unhealthy or ejected stays so while the rules are the same.
    pub fn new(
        settings: &Settings,
        resolver: &Resolver,
        metrics: &Metrics,
        previous: Option<(&Settings, &Self)>,
    ) -> Arc<Self> {
        let same_way =
            previous.filter(|(before, _)| before.reaches_as(settings)).map(|(_, upstream)| upstream);
        let known = |address: &Address| {
            same_way?.endpoints.iter().find(|endpoint| endpoint.address == *address).map(Arc::clone)
        };
        let endpoints = settings.endpoints.iter().map(|address| {
            if let Some(endpoint) = known(address) {
                return endpoint;
            }
            let tls = address.https.then(|| {
                let tls = settings.tls.as_ref().expect("an https endpoint comes with settings of TLS");
                (Arc::clone(&tls.config), server_name(tls, address))
            });
            let name = address.unix().is_none().then(|| resolver.name(&address.host));
            let labels = labels(settings, address);
            Arc::new(Endpoint::new(address, name, tls, settings.connect_timeout, labels))
        });
        let endpoints: Box<[_]> = endpoints.collect();
        let members = endpoints.iter().map(Arc::clone).zip(settings.weights.iter().copied());
        let checked = settings.health.is_some();
        let standings = Standings::new(&settings.name, members, settings.rules, checked, metrics);
        if let Some((before, upstream)) = previous {
            standings.carry_over(&upstream.standings, before.health == settings.health);
        }
        let same_bounds = previous.filter(|(before, _)| before.breaker == settings.breaker);
        let breaker = match same_bounds {
            Some((_, upstream)) => upstream.breaker.clone(),
            None => Breaker::new(&settings.name, settings.breaker, metrics),
        };
        Arc::new(Self {
            standings: Arc::new(standings),
            health: settings.health.clone(),
            breaker,
            budget: settings.retry_budget.map(Budget::new),
            propagate: settings.propagate,
            endpoints,
        })
    }

    /// Keeps its endpoints' standings from now on: checks their health by this probe, ends ejections and slow
    /// starts.
    pub fn watch(&self, probe: Option<&Arc<dyn Probe>>) -> Watch {
        let mut tasks = JoinSet::new();
        let standings = Arc::clone(&self.standings);
        tasks.spawn(async move { standings.keep().await });
        if let Some(breaker) = &self.breaker {
            tasks.spawn(Arc::clone(breaker).tell());
        }
        if let (Some(settings), Some(probe)) = (&self.health, probe) {
            for (index, endpoint) in self.endpoints.iter().enumerate() {
                let (settings, probe) = (settings.clone(), Arc::clone(probe));
                let (endpoint, standings) = (Arc::clone(endpoint), Arc::clone(&self.standings));
                tasks.spawn(health::watch(settings, probe, endpoint, standings, index));
            }
        }
        Watch { _tasks: tasks }
    }

    /// An operator takes an endpoint, `host:port`, out or back in; `false` if there is none like that. Requests
    /// that are on their way to it are not disturbed.
    pub fn set_in_use(&self, endpoint: &str, in_use: bool) -> bool {
        self.standings.set_in_use(endpoint, in_use)
    }

    /// How its endpoints stand, in their order.
    pub fn statuses(&self) -> Vec<Status> {
        self.standings.statuses()
    }

    /// Whether so few endpoints are usable that all in use are taken.
    pub fn is_in_panic(&self) -> bool {
        self.standings.is_in_panic()
    }

    /// Its circuit breaker, if anything is bounded.
    pub fn breaker(&self) -> Option<&Arc<Breaker>> {
        self.breaker.as_ref()
    }

    /// The formats in which it is told the trace context; in none, context and baggage are withheld.
    pub fn propagate(&self) -> Formats {
        self.propagate
    }

    /// What its routes' retries are taken from; `None` is no bound.
    pub fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    /// All its endpoints, as configured.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// An endpoint for one attempt. Those already tried, by index, are avoided as long as there are others.
    /// Fails with `breaker_open` and `no_endpoint`.
    pub fn pick(&self, tried: &[usize]) -> Result<Picked, Failure> {
        let counted = self.count()?;
        let index = self.standings.pick(tried).ok_or(Reason::NoEndpoint)?;
        Ok(self.picked(index, counted))
    }

    /// Whether there is a usable endpoint beside this one and those tried before.
    pub fn has_other(&self, index: usize, before: &[usize]) -> bool {
        self.standings.has_other(index, before)
    }

    /// Whether this endpoint is one of those that are picked.
    pub fn is_usable(&self, index: usize) -> bool {
        self.standings.may_be_picked(index)
    }

    /// This very endpoint for one attempt, for those who were there before; if it is not usable, another one. Fails
    /// as [`Upstream::pick`] does.
    pub fn pick_again(&self, index: usize) -> Result<Picked, Failure> {
        if !self.is_usable(index) {
            return self.pick(&[]);
        }
        let counted = self.count()?;
        Ok(self.picked(index, counted))
    }

    fn count(&self) -> Result<Option<Counted>, Failure> {
        match &self.breaker {
            Some(breaker) => breaker.enter(Bound::Requests),
            None => Ok(None),
        }
    }

    fn picked(&self, index: usize, counted: Option<Counted>) -> Picked {
        let in_flight = self.standings.enter(index, counted);
        Picked { index, endpoint: Arc::clone(&self.endpoints[index]), in_flight }
    }
}

/// The name an endpoint's certificate must have.
fn server_name(tls: &Tls, address: &Address) -> ServerName<'static> {
    tls.server_name.clone().unwrap_or_else(|| {
        let host = address.host.to_string();
        ServerName::try_from(host).expect("the host of an https endpoint has been checked")
    })
}

fn labels(settings: &Settings, address: &Address) -> EndpointLabels {
    let endpoint = address.host_and_port();
    let origin = match address.unix() {
        None => format!("{}://{endpoint}", address.scheme()),
        // as nginx writes it: what follows the second colon is the path
        Some(_) => format!("{}://{endpoint}:", address.scheme()),
    };
    EndpointLabels {
        origin: Configured::new(origin),
        endpoint: Configured::new(endpoint),
        address: Configured::new(address.host.clone()),
        port: address.unix().is_none().then_some(address.port),
        upstream: Configured::new(settings.name.clone()),
        service: settings.service.clone().map(Configured::new),
        series: EndpointSeries::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::failure::Detail;
    use crate::net::{DnsSettings, pem, tls};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn address(https: bool, host: &str, port: u16) -> Address {
        Address { https, host: host.into(), port }
    }

    fn settings(endpoints: Vec<Address>) -> Settings {
        let config = tls::client_config(Some(Path::new("certs/gateway.pem")), None, &[b"h2"]).unwrap();
        let wait = Duration::from_secs(1);
        Settings {
            name: "shop".into(),
            service: Some("shop-api".into()),
            weights: vec![1; endpoints.len()],
            endpoints,
            rules: Rules {
                balance: Balance::PowerOfTwoChoices,
                outliers: None,
                slow_start: None,
                panic_threshold: None,
            },
            health: None,
            breaker: breaker::Bounds::default(),
            protocol: Protocol::Http2,
            tls: Some(Tls { config, server_name: None, warn: Duration::ZERO }),
            connect_timeout: PATIENCE,
            pool: Pool { connections: 1, pending: 1, wait, idle: wait },
            retry_budget: None,
            header_bytes: 65_536,
            propagate: Formats::W3C,
        }
    }

    fn resolver() -> Resolver {
        let soon = Duration::from_millis(10);
        // a port of loopback where nobody answers: names are not found, the hosts file and localhost are
        Resolver::new(&DnsSettings {
            servers: vec![([127, 0, 0, 1], 9).into()],
            min_ttl: soon,
            max_ttl: soon,
        })
    }

    fn metrics() -> Arc<Metrics> {
        Metrics::new(&crate::telemetry::settings::Metrics::default())
    }

    fn upstream(endpoints: Vec<Address>) -> Arc<Upstream> {
        Upstream::new(&settings(endpoints), &resolver(), &metrics(), None)
    }

    #[tokio::test]
    async fn a_request_counts_as_in_flight_until_its_guard_drops() {
        let upstream = upstream(vec![address(false, "192.0.2.1", 80)]);
        let in_flight = || upstream.statuses()[0].in_flight;
        let picked = [upstream.pick(&[]).unwrap(), upstream.pick(&[]).unwrap()];
        assert_eq!(in_flight(), 2);
        let [first, second] = picked;
        drop(first.in_flight);
        assert_eq!(in_flight(), 1);
        drop(second);
        assert_eq!(in_flight(), 0);
    }

    #[tokio::test]
    async fn the_next_attempt_goes_to_an_endpoint_that_was_not_tried() {
        let upstream = upstream((1..=3).map(|port| address(false, "192.0.2.1", port)).collect());
        let mut tried = Vec::new();
        for _ in 0..3 {
            let picked = upstream.pick(&tried).unwrap();
            assert!(Arc::ptr_eq(&picked.endpoint, &upstream.endpoints()[picked.index]));
            assert!(!tried.contains(&picked.index));
            tried.push(picked.index);
        }
        assert!(upstream.pick(&tried).is_ok(), "all were tried: any will do");
        assert_eq!(self::upstream(vec![]).pick(&[]).unwrap_err().reason, Reason::NoEndpoint);
    }

    #[tokio::test]
    async fn an_endpoint_is_labelled_as_it_was_configured() {
        let upstream = upstream(vec![address(true, "::1", 443)]);
        let endpoint = &upstream.endpoints()[0];
        let labels = &endpoint.labels;
        assert_eq!(&*labels.endpoint, "[::1]:443");
        assert_eq!((&*labels.address, labels.port), ("::1", Some(443)));
        assert_eq!(&*labels.origin, "https://[::1]:443");
        assert_eq!((&*labels.upstream, labels.service.as_deref()), ("shop", Some("shop-api")));
        assert_eq!(&*endpoint.authority, "[::1]");
    }

    #[tokio::test]
    async fn a_unix_socket_is_an_endpoint_without_a_port() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shop.sock");
        let host = path.to_str().unwrap();
        let upstream = upstream(vec![address(false, host, 0)]);
        let endpoint = &upstream.endpoints()[0];
        let labels = &endpoint.labels;
        assert_eq!(*labels.endpoint, *format!("unix:{host}"));
        assert_eq!((&*labels.address, labels.port), (host, None));
        assert_eq!(*labels.origin, *format!("http://unix:{host}:"));
        assert_eq!(&*endpoint.authority, "localhost");
        assert_eq!(endpoint.dial().await.unwrap_err().reason, Reason::ConnectRefused);
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        let facts = endpoint.dial().await.unwrap().facts;
        assert_eq!((facts.peer, facts.resolve, facts.connect.is_some()), (None, None, true));
    }

    #[tokio::test]
    async fn a_plain_endpoint_is_dialled_by_address_and_by_name() {
        for (host, by_name) in [("127.0.0.1", false), ("localhost", true)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let peer = listener.local_addr().unwrap();
            let upstream = upstream(vec![address(false, host, peer.port())]);
            let endpoint = &upstream.endpoints()[0];
            let connected = endpoint.dial().await.unwrap();
            assert!(matches!(connected.stream, net::Stream::Plain(_)));
            let facts = connected.facts;
            assert_eq!((facts.peer, facts.reused, facts.waited), (Some(peer), false, None));
            assert_eq!(facts.resolve.is_some(), by_name);
            assert!(facts.connect.is_some() && facts.handshake.is_none());
            assert!(endpoint.is_current(peer));
            assert!(!endpoint.is_current(([192, 0, 2, 9], peer.port()).into()));
        }
    }

    #[tokio::test]
    async fn an_https_endpoint_is_spoken_to_in_the_protocol_that_was_configured() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let echo = async {
            let chain = pem::certificates(Path::new("certs/gateway.pem")).unwrap();
            let key = pem::private_key(Path::new("certs/gateway-key.pem")).unwrap();
            let mut config = rustls::ServerConfig::builder_with_provider(tls::provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .unwrap();
            config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.flush().await.unwrap();
        };
        let client = async {
            let upstream = upstream(vec![address(true, "127.0.0.1", port)]);
            let mut connected = upstream.endpoints()[0].dial().await.unwrap();
            assert!(connected.facts.handshake.is_some());
            let net::Stream::Tls(session) = &connected.stream else { panic!("it speaks TLS") };
            assert_eq!(session.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            assert!(connected.stream.is_write_vectored());
            connected.stream.write_all(b"ping").await.unwrap();
            let mut bytes = [0; 4];
            connected.stream.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"ping");
        };
        tokio::join!(echo, client);
    }

    #[tokio::test]
    async fn the_reason_tells_which_part_of_the_way_failed() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mute = silent.local_addr().unwrap().port();
        let short = Duration::from_millis(50);
        for (address, timeout, expected) in [
            (address(false, "no-such-name.invalid", 80), PATIENCE, (Reason::DnsFailed, None)),
            (address(false, "127.0.0.1", closed), PATIENCE, (Reason::ConnectRefused, None)),
            (address(true, "127.0.0.1", mute), short, (Reason::TlsFailed, Some(Detail::Timeout))),
        ] {
            let settings = Settings { connect_timeout: timeout, ..settings(vec![address.clone()]) };
            let upstream = Upstream::new(&settings, &resolver(), &metrics(), None);
            let failure = upstream.endpoints()[0].dial().await.unwrap_err();
            assert_eq!((failure.reason, failure.detail), expected, "{address:?}");
        }
    }
}
