//! Names and their addresses: resolved in the background again whenever an answer's time is over.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::failure::{Detail, Failure, Reason};

/// How names are resolved: `[dns]` once it has been checked.
#[derive(Debug, Clone)]
pub struct DnsSettings {
    /// Servers to ask; empty takes the system's, and its search list.
    pub servers: Vec<SocketAddr>,
    /// An answer is kept at least this long.
    pub min_ttl: Duration,
    /// An answer is kept at most this long.
    pub max_ttl: Duration,
}

/// A name whose addresses are kept up to date, from its first use until it drops.
///
/// The last good answer stays while the servers fail or deny the name; they are asked again after
/// `min_ttl`, then at growing intervals of at most [`MAX_BACKOFF`]. An IP literal is its own answer.
#[derive(Debug)]
pub struct Name {
    host: Arc<str>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Literal(Arc<[IpAddr]>),
    Watched(Resolver, OnceLock<Watch>),
}

/// The task that keeps a name up to date, and what it publishes.
#[derive(Debug)]
struct Watch {
    published: watch::Receiver<Known>,
    _task: AbortOnDropHandle<()>,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// The first lookup is on its way.
    NotYet,
    /// The last good answer.
    Addresses(Arc<[IpAddr]>),
    /// There was no good answer yet, because of this.
    Nothing(Arc<str>),
}

impl Name {
    /// Whether the host is an IP address and nothing has to be found.
    pub fn is_literal(&self) -> bool {
        matches!(self.source, Source::Literal(_))
    }

    /// The addresses, at least one. The first users wait for the first lookup, at most this long; without a
    /// good answer, `dns_failed`.
    pub async fn addresses(&self, timeout: Duration) -> Result<Arc<[IpAddr]>, Failure> {
        let mut published = match &self.source {
            Source::Literal(address) => return Ok(Arc::clone(address)),
            Source::Watched(resolver, watch) => self.watched(resolver, watch).published.clone(),
        };
        let first = published.wait_for(|known| *known != Known::NotYet);
        let Ok(known) = tokio::time::timeout(timeout, first).await else {
            let failure = Failure::new(Reason::DnsFailed).detail(Detail::Timeout);
            return Err(failure.because(format!("no answer yet for {}", self.host)));
        };
        match known.as_deref() {
            Ok(Known::Addresses(addresses)) => Ok(Arc::clone(addresses)),
            Ok(Known::Nothing(why)) => Err(Failure::new(Reason::DnsFailed).because(why.to_string())),
            Ok(Known::NotYet) | Err(_) => Err(Failure::new(Reason::ShuttingDown)),
        }
    }

    /// Whether the name still stands for this address.
    pub fn is_current(&self, address: IpAddr) -> bool {
        match &self.source {
            Source::Literal(literal) => literal.contains(&address),
            Source::Watched(_, watch) => watch.get().is_some_and(|watch| {
                matches!(&*watch.published.borrow(), Known::Addresses(current) if current.contains(&address))
            }),
        }
    }

    fn watched<'a>(&self, resolver: &Resolver, watch: &'a OnceLock<Watch>) -> &'a Watch {
        watch.get_or_init(|| {
            let (publish, published) = watch::channel(Known::NotYet);
            let (host, resolver) = (Arc::clone(&self.host), resolver.clone());
            let task = tokio::spawn(async move {
                keep_current(&host, resolver.lifetime, &publish, || resolver.lookup(&host)).await;
            });
            Watch { published, _task: AbortOnDropHandle::new(task) }
        })
    }
}

/// Looks the name up and publishes what is found, for ever.
async fn keep_current<F>(
    host: &str,
    lifetime: Lifetime,
    publish: &watch::Sender<Known>,
    lookup: impl Fn() -> F,
) where
    F: Future<Output = Result<Answer, LookupError>>,
{
    let mut failures = 0;
    loop {
        let wait = match lookup().await {
            Ok(answer) => {
                if failures > 0 {
                    tracing::info!(name = host, failures, "name resolves again");
                }
                failures = 0;
                let ttl_seconds = answer.ttl.as_secs();
                tracing::debug!(name = host, addresses = ?answer.addresses, ttl_seconds, "name resolved");
                publish.send_replace(Known::Addresses(answer.addresses.into()));
                lifetime.of(answer.ttl)
            }
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    tracing::warn!(name = host, %error, "name does not resolve");
                }
                publish.send_if_modified(|known| {
                    let nothing = !matches!(known, Known::Addresses(_));
                    if nothing {
                        *known = Known::Nothing(error.to_string().into());
                    }
                    nothing
                });
                lifetime.backoff(failures)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Makes [`Name`]s, and asks for them: the hosts file first, then the servers.
#[derive(Clone)]
pub struct Resolver {
    dns: Arc<TokioResolver>,
    lifetime: Lifetime,
    told: Option<Told>,
}

/// Is told of each lookup whether it found an address.
type Told = Arc<dyn Fn(bool) + Send + Sync>;

impl Resolver {
    /// A resolver by these settings. Without usable system settings the hosts file still counts, and
    /// `localhost`.
    pub fn new(settings: &DnsSettings) -> Self {
        let (config, options) = if settings.servers.is_empty() {
            hickory_resolver::system_conf::read_system_conf().unwrap_or_else(|error| {
                tracing::warn!(%error, "the system names no dns server");
                (ResolverConfig::default(), ResolverOpts::default())
            })
        } else {
            let servers = settings.servers.iter().copied().map(server).collect();
            (ResolverConfig::from_name_servers(servers), ResolverOpts::default())
        };
        Self { dns: Arc::new(client(config, options)), lifetime: Lifetime::new(settings), told: None }
    }

    /// The same resolver, which tells of each lookup whether it found an address.
    #[must_use]
    pub fn telling(mut self, told: impl Fn(bool) + Send + Sync + 'static) -> Self {
        self.told = Some(Arc::new(told));
        self
    }

    /// A name to keep up to date: a host without port, an IP literal without brackets.
    pub fn name(&self, host: &str) -> Name {
        let source = match host.parse() {
            Ok(address) => Source::Literal([address].into()),
            Err(_) => Source::Watched(self.clone(), OnceLock::new()),
        };
        Name { host: host.into(), source }
    }

    async fn lookup(&self, host: &str) -> Result<Answer, LookupError> {
        let answer = self.ask(host).await;
        if let Some(told) = &self.told {
            told(answer.is_ok());
        }
        answer
    }

    async fn ask(&self, host: &str) -> Result<Answer, LookupError> {
        let hosts = tokio::fs::read_to_string(HOSTS_FILE).await.unwrap_or_default();
        let addresses = hosts_entries(&hosts, host);
        if !addresses.is_empty() {
            return Ok(Answer { addresses, ttl: HOSTS_FILE_TTL });
        }
        // hosts are ASCII by now, and may hold what IDNA forbids, such as `shop_api`
        let found = self.dns.lookup_ip(rr::Name::from_ascii(host)?).await?;
        // CNAME records on the way count too: the address is good for as long as the whole way is
        let ttl = found.as_lookup().answers().iter().map(|record| record.ttl).min().unwrap_or(0);
        let addresses: Vec<IpAddr> = found.iter().take(MAX_ADDRESSES).collect();
        if addresses.is_empty() {
            return Err("the name has no address".into());
        }
        Ok(Answer { addresses, ttl: Duration::from_secs(ttl.into()) })
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

type LookupError = Box<dyn Error + Send + Sync>;

/// Addresses, at least one, and how long they are good for.
struct Answer {
    addresses: Vec<IpAddr>,
    ttl: Duration,
}

/// How long answers are kept, whatever their TTL says.
#[derive(Debug, Clone, Copy)]
struct Lifetime {
    min: Duration,
    max: Duration,
}

impl Lifetime {
    fn new(settings: &DnsSettings) -> Self {
        let min = settings.min_ttl.max(SHORTEST);
        Self { min, max: settings.max_ttl.max(min) }
    }

    fn of(self, ttl: Duration) -> Duration {
        ttl.clamp(self.min, self.max)
    }

    /// The wait after the n-th failure in a row.
    fn backoff(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.min.saturating_mul(1 << doublings).min(MAX_BACKOFF.max(self.min))
    }
}

/// Each name keeps its own answer, and the hosts file is read when a name is looked up: hickory does neither.
fn client(config: ResolverConfig, mut options: ResolverOpts) -> TokioResolver {
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
        .expect("only settings of TLS and DNSSEC can be wrong, and there are none")
}

fn server(address: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

/// The addresses of a host in the text of a hosts file: `address name name… # comment`.
fn hosts_entries(text: &str, host: &str) -> Vec<IpAddr> {
    let entry = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    text.lines().filter_map(entry).take(MAX_ADDRESSES).collect()
}

/// The longest wait after a failure, unless `min_ttl` is longer.
pub const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The most addresses of one name that are kept.
const MAX_ADDRESSES: usize = 32;
/// Keeps a `min_ttl` of nothing from becoming a busy loop.
const SHORTEST: Duration = Duration::from_millis(10);
const HOSTS_FILE: &str = "/etc/hosts";
/// A changed hosts file counts after this long.
const HOSTS_FILE_TTL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::{RData, Record, RecordType};
    use tokio::net::UdpSocket;
    use tokio::time::Instant;

    use super::*;

    const OLD: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const NEW: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const PATIENCE: Duration = Duration::from_secs(20);

    fn lifetime(min: u64, max: u64) -> Lifetime {
        Lifetime { min: Duration::from_secs(min), max: Duration::from_secs(max) }
    }

    #[test]
    fn a_ttl_is_kept_within_its_bounds() {
        for (ttl, expected) in [(0, 5), (5, 5), (6, 6), (300, 300), (301, 300)] {
            assert_eq!(lifetime(5, 300).of(Duration::from_secs(ttl)), Duration::from_secs(expected));
        }
    }

    #[test]
    fn a_failing_name_is_asked_for_at_growing_intervals_up_to_half_a_minute() {
        let waits = |min, failures| lifetime(min, 300).backoff(failures).as_secs();
        assert_eq!([1, 2, 3, 4, 5, 100].map(|failures| waits(5, failures)), [5, 10, 20, 30, 30, 30]);
        assert_eq!(waits(60, 3), 60);
    }

    #[test]
    fn settings_that_would_spin_are_mended() {
        let settings = DnsSettings { servers: vec![], min_ttl: Duration::ZERO, max_ttl: Duration::ZERO };
        let lifetime = Lifetime::new(&settings);
        assert_eq!((lifetime.min, lifetime.max), (SHORTEST, SHORTEST));
    }

    #[test]
    fn hosts_files_are_read_as_they_are_found() {
        let text =
            "# shop\n127.0.0.1\tlocalhost\n192.0.2.1 Shop.example shop # mes\n\n::1 shop\nfe80::1%lo0 mes\n";
        let cases: [(&str, &[&str]); 4] = [
            ("shop", &["192.0.2.1", "::1"]),
            ("shop.example", &["192.0.2.1"]),
            ("mes", &[]),
            ("192.0.2.1", &[]),
        ];
        for (host, expected) in cases {
            let expected: Vec<IpAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(hosts_entries(text, host), expected, "{host}");
        }
    }

    /// Runs [`keep_current`] over scripted answers until they are used up; tells at which second each lookup
    /// took place and what was published after it.
    async fn run(script: Vec<Result<(IpAddr, u64), &'static str>>) -> Vec<(u64, Known)> {
        let (publish, published) = watch::channel(Known::NotYet);
        let (started, lookups) = (Instant::now(), AtomicUsize::new(0));
        let seen = Mutex::new(Vec::new());
        let lookup = || {
            let index = lookups.fetch_add(1, Ordering::Relaxed);
            seen.lock().unwrap().push((started.elapsed().as_secs(), published.borrow().clone()));
            let scripted = script.get(index).copied();
            async move {
                match scripted {
                    Some(Ok((address, ttl))) => {
                        Ok(Answer { addresses: vec![address], ttl: Duration::from_secs(ttl) })
                    }
                    Some(Err(error)) => Err(error.into()),
                    None => std::future::pending().await,
                }
            }
        };
        let watching = keep_current("shop", lifetime(5, 300), &publish, lookup);
        let _ = tokio::time::timeout(Duration::from_hours(1), watching).await;
        seen.into_inner().unwrap()
    }

    fn known(address: IpAddr) -> Known {
        Known::Addresses([address].into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_again_when_its_time_is_over() {
        let seen = run(vec![Ok((OLD, 60)), Ok((NEW, 1)), Ok((NEW, 86_400))]).await;
        assert_eq!(seen, [(0, Known::NotYet), (60, known(OLD)), (65, known(NEW)), (365, known(NEW))]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_answer_outlives_failures() {
        let seen = run(vec![Ok((OLD, 60)), Err("servfail"), Err("servfail"), Ok((NEW, 60))]).await;
        let expected = [(0, Known::NotYet), (60, known(OLD)), (65, known(OLD)), (75, known(OLD))];
        assert_eq!(seen[..4], expected);
        assert_eq!(seen[4], (135, known(NEW)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_never_resolved_tells_why_until_it_does() {
        let seen = run(vec![Err("no such name"), Ok((NEW, 60))]).await;
        let nothing = Known::Nothing("no such name".into());
        assert_eq!(seen, [(0, Known::NotYet), (5, nothing), (65, known(NEW))]);
    }

    /// A DNS server on loopback that gives one address, or none, to every name.
    struct Stub {
        address: SocketAddr,
        answer: Arc<Mutex<Option<Ipv4Addr>>>,
        queries: watch::Receiver<usize>,
        _task: AbortOnDropHandle<()>,
    }

    impl Stub {
        async fn start(answer: Option<Ipv4Addr>) -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let answer = Arc::new(Mutex::new(answer));
            let current = Arc::clone(&answer);
            let (count, queries) = watch::channel(0);
            let task = tokio::spawn(async move {
                let mut buffer = [0; 1500];
                loop {
                    let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
                    let query = Message::from_vec(&buffer[..length]).unwrap();
                    let response = respond(&query, *current.lock().unwrap());
                    socket.send_to(&response.to_vec().unwrap(), client).await.unwrap();
                    count.send_modify(|count| *count += 1);
                }
            });
            Self { address, answer, queries, _task: AbortOnDropHandle::new(task) }
        }

        fn answers(&self, answer: Option<Ipv4Addr>) {
            *self.answer.lock().unwrap() = answer;
        }

        /// A resolver that asks this server, and again very soon.
        fn resolver(&self) -> Resolver {
            let soon = Duration::from_millis(10);
            Resolver::new(&DnsSettings { servers: vec![self.address], min_ttl: soon, max_ttl: soon })
        }

        /// Waits until the name has been asked for again, both families, after this call.
        async fn asked_again(&mut self) {
            let seen = *self.queries.borrow();
            let again = self.queries.wait_for(|&count| count >= seen + 4);
            tokio::time::timeout(PATIENCE, again).await.unwrap().unwrap();
        }
    }

    fn respond(query: &Message, answer: Option<Ipv4Addr>) -> Message {
        let mut response = Message::response(query.id, query.op_code);
        let question = query.queries[0].clone();
        match answer {
            None => response.metadata.response_code = ResponseCode::NXDomain,
            Some(address) if question.query_type() == RecordType::A => {
                let record = Record::from_rdata(question.name().clone(), 0, RData::A(address.into()));
                response.add_answer(record);
            }
            Some(_) => {}
        }
        response.add_query(question);
        response
    }

    /// Waits until the name stands for this address.
    async fn moved_to(name: &Name, address: IpAddr) {
        let Source::Watched(resolver, watch) = &name.source else { unreachable!("a watched name") };
        let mut published = name.watched(resolver, watch).published.clone();
        let arrived = published.wait_for(|known| *known == Known::Addresses([address].into()));
        tokio::time::timeout(PATIENCE, arrived).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_moved_service_is_found_when_its_ttl_ends() {
        let stub = Stub::start(Some(Ipv4Addr::new(192, 0, 2, 1))).await;
        let name = stub.resolver().name("shop.test");
        assert!(!name.is_current(OLD));
        assert_eq!(*name.addresses(PATIENCE).await.unwrap(), [OLD]);
        assert!(name.is_current(OLD) && !name.is_current(NEW));
        stub.answers(Some(Ipv4Addr::new(192, 0, 2, 2)));
        moved_to(&name, NEW).await;
        assert!(name.is_current(NEW) && !name.is_current(OLD));
    }

    #[tokio::test]
    async fn a_name_in_ascii_form_is_asked_for_as_it_is_written() {
        let stub = Stub::start(Some(Ipv4Addr::new(192, 0, 2, 1))).await;
        for host in
            ["xn--bcher-kva.test", "xn--p1ai", "XN--BCHER-KVA.test", "xn--0.test", "_shop.test", "a--b.test"]
        {
            let name = stub.resolver().name(host);
            assert_eq!(*name.addresses(PATIENCE).await.unwrap(), [OLD], "{host}");
        }
    }

    #[tokio::test]
    async fn a_name_that_stops_resolving_keeps_its_addresses() {
        let mut stub = Stub::start(Some(Ipv4Addr::new(192, 0, 2, 1))).await;
        let name = stub.resolver().name("shop.test");
        assert_eq!(*name.addresses(PATIENCE).await.unwrap(), [OLD]);
        stub.answers(None);
        stub.asked_again().await;
        assert_eq!(*name.addresses(PATIENCE).await.unwrap(), [OLD]);
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_fails_until_it_does() {
        let stub = Stub::start(None).await;
        let name = stub.resolver().name("shop.test");
        let failure = name.addresses(PATIENCE).await.unwrap_err();
        assert_eq!((failure.reason, failure.detail), (Reason::DnsFailed, None));
        stub.answers(Some(Ipv4Addr::new(192, 0, 2, 2)));
        moved_to(&name, NEW).await;
    }

    #[tokio::test]
    async fn a_name_is_asked_for_from_its_first_use_until_it_drops() {
        let mut stub = Stub::start(Some(Ipv4Addr::new(192, 0, 2, 1))).await;
        let (unused, used) = (stub.resolver().name("unused.test"), stub.resolver().name("used.test"));
        used.addresses(PATIENCE).await.unwrap();
        stub.asked_again().await;
        let Source::Watched(_, watch) = &unused.source else { unreachable!("a watched name") };
        assert!(watch.get().is_none());

        let Source::Watched(_, watch) = &used.source else { unreachable!("a watched name") };
        let mut published = watch.get().unwrap().published.clone();
        drop(used);
        let ended = async { while published.changed().await.is_ok() {} };
        tokio::time::timeout(PATIENCE, ended).await.expect("the task ends with its name");
    }

    #[tokio::test]
    async fn a_silent_server_costs_no_more_than_the_user_waits() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = vec![silent.local_addr().unwrap()];
        let soon = Duration::from_millis(10);
        let resolver = Resolver::new(&DnsSettings { servers, min_ttl: soon, max_ttl: soon });
        let failure = resolver.name("shop.test").addresses(soon).await.unwrap_err();
        assert_eq!((failure.reason, failure.detail), (Reason::DnsFailed, Some(Detail::Timeout)));
    }

    #[tokio::test]
    async fn without_any_server_literals_and_localhost_still_resolve() {
        let soon = Duration::from_millis(10);
        let dns = Arc::new(client(ResolverConfig::default(), ResolverOpts::default()));
        let resolver = Resolver { dns, lifetime: Lifetime { min: soon, max: soon }, told: None };
        for (host, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("::1", Some("::1")),
            ("localhost", Some("127.0.0.1")),
            ("shop.test", None),
        ] {
            let name = resolver.name(host);
            match (name.addresses(PATIENCE).await, expected) {
                (Ok(found), Some(expected)) => {
                    assert!(found.contains(&expected.parse().unwrap()), "{host}: {found:?}");
                    assert!(name.is_current(expected.parse().unwrap()));
                }
                (Err(failure), None) => assert_eq!(failure.reason, Reason::DnsFailed, "{host}"),
                (found, _) => panic!("{host}: {found:?}"),
            }
        }
    }
}
