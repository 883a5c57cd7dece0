//! Listeners: bind, accept, bound, drain. Every accepted connection is handed to a protocol.

pub mod activity;
pub mod address;
pub mod addresses;
pub mod bound;
pub mod connection;
pub mod drain;
pub mod file;
pub mod frames;
pub mod inherited;
pub mod per_client;
pub mod proxy;
pub mod timeouts;
pub mod tls;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio_util::task::TaskTracker;

use activity::Fate;
pub use address::Address;
use bound::Bound;
pub use connection::Connection;
pub use drain::Drain;
use drain::Moment;
pub use inherited::Inherited;
use per_client::{OfClient, PerClient};
pub use timeouts::Timeouts;
pub use tls::Tls;
use tls::handshake;

use crate::net::{Socket, Unregistered};
use crate::telemetry::context::Inbound;
use crate::telemetry::metrics::connections::{ConnectionOutcome, Connections, Handshake};
use crate::view::View;
use crate::worker::Workers;

/// Waits between attempts to accept while there are no file descriptors left.
const BACK_OFF: std::ops::Range<Duration> = Duration::from_millis(10)..Duration::from_secs(1);

/// How long nothing more is said of not being able to accept, once it has been said.
const TELL_AGAIN: Duration = Duration::from_mins(1);

/// What is spoken on a listener.
pub trait Protocol: Send + Sync + 'static {
    /// Serves one connection to its end; [`Drain`] tells when to leave.
    fn serve(self: Arc<Self>, connection: Box<Connection>, drain: Drain) -> impl Future<Output = ()> + Send;
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    entrance: Arc<Entrance>,
    socket: Bound,
}

/// What every connection of a listener passes.
#[derive(Debug)]
struct Entrance {
    name: Arc<str>,
    open: Arc<AtomicUsize>,
    clients: Arc<PerClient>,
    series: Connections,
}

/// What new connections of a listener are served by; a reload replaces it whole. Those that are open keep theirs.
#[derive(Debug)]
pub struct Serving<P> {
    /// How they are accepted.
    pub settings: Settings,
    /// What is spoken on them.
    pub protocol: Arc<P>,
}

impl Listener {
    /// Takes the socket that was handed over for it, else binds; connections are counted in these series. Fails
    /// where the address cannot be had.
    pub fn bind(settings: &Settings, inherited: &mut Inherited, series: Connections) -> io::Result<Self> {
        let socket = match inherited.take(&settings.name, &settings.address)? {
            Some(socket) => socket,
            None => Bound::bind(&settings.address, settings.reuse_port, settings.socket_mode)?,
        };
        let (open, clients) = Default::default();
        let entrance = Arc::new(Entrance { name: Arc::clone(&settings.name), open, clients, series });
        Ok(Self { entrance, socket })
    }

    /// Where it is bound, the port included.
    pub fn address(&self) -> &Address {
        self.socket.address()
    }

    /// Accepts until the drain says no more, and then whoever has come by then; each connection is a task of the
    /// tracker, on one of the workers.
    pub async fn run<P: Protocol>(
        self,
        serving: View<Serving<P>>,
        drain: Drain,
        tasks: TaskTracker,
        workers: Workers,
    ) {
        let Self { entrance, socket: listening } = self;
        let series = &entrance.series;
        let mut back_off = BACK_OFF.start;
        let mut told: Option<Instant> = None;
        let mut closing = pin!(drain.after(Moment::Leaving));
        loop {
            let accepted = tokio::select! {
                accepted = listening.accept() => accepted,
                _ = closing.as_mut() => break,
            };
            match accepted {
                Ok((socket, peer)) => {
                    back_off = BACK_OFF.start;
                    entrance.admit(socket, peer, serving.current(), &drain, &tasks, &workers);
                }
                Err(error) if is_of_one_connection(&error) => {
                    series.count(ConnectionOutcome::AcceptError);
                }
                Err(error) => {
                    series.count(ConnectionOutcome::AcceptError);
                    if told.is_none_or(|told| told.elapsed() > TELL_AGAIN) {
                        told = Some(Instant::now());
                        tracing::error!(listener = %entrance.name, %error, "cannot accept; backing off");
                    }
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF.end);
                }
            }
        }
        // their connections are made already: closing the socket would reset them
        for (socket, peer) in listening.rest() {
            entrance.admit(socket, peer, serving.current(), &drain, &tasks, &workers);
        }
    }
}

impl Entrance {
    fn admit<P: Protocol>(
        self: &Arc<Self>,
        socket: Unregistered,
        peer: SocketAddr,
        serving: Arc<Serving<P>>,
        drain: &Drain,
        tasks: &TaskTracker,
        workers: &Workers,
    ) {
        let series = &self.series;
        let Some(place) = Place::take(&self.open, serving.settings.limits.connections) else {
            series.count(ConnectionOutcome::RefusedLimit);
            return;
        };
        let open = (series.open(), place);
        let (entrance, drain) = (Arc::clone(self), drain.clone());
        workers.spawn(tasks, async move {
            let socket = match socket.register() {
                Ok(socket) => socket,
                Err(error) => {
                    entrance.series.count(ConnectionOutcome::AcceptError);
                    tracing::error!(listener = %entrance.name, %error, "a connection cannot be registered");
                    return;
                }
            };
            entrance.series.count(ConnectionOutcome::Accepted);
            // boxed: it is over soon, and a connection lasts
            let entering = Box::pin(entrance.enter(&serving.settings, socket, peer));
            if let Some((connection, of_client)) = entering.await {
                let activity = connection.activity();
                Arc::clone(&serving.protocol).serve(connection, drain).await;
                if let Some(fate) = activity.fate() {
                    entrance.series.count(outcome(fate));
                }
                drop(of_client);
            }
            drop(open);
        });
    }

    /// What comes before the protocol: who the client is, whether it may have one more connection, TLS. `None`:
    /// it is refused, which has been counted.
    async fn enter(
        &self,
        settings: &Settings,
        mut socket: Socket,
        peer: SocketAddr,
    ) -> Option<(Box<Connection>, Option<OfClient>)> {
        let deadline = tokio::time::Instant::now() + settings.timeouts.handshake;
        let (mut client, mut is_local) = (peer, socket.is_unix());
        if let Some(versions) = settings.proxy_protocol
            && (is_local || settings.trusts(peer.ip()))
        {
            match tokio::time::timeout_at(deadline, proxy::read(&mut socket, versions)).await {
                Ok(Ok(Some(told))) => (client, is_local) = (told, false),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    self.series.count(ConnectionOutcome::ProxyProtocol);
                    tracing::debug!(%error, "a proxy did not say who its client is");
                    return None;
                }
                Err(_) => {
                    self.series.count(ConnectionOutcome::Timeout);
                    return None;
                }
            }
        }
        // who speaks for many clients is not one of them
        let most =
            settings.limits.connections_per_client.filter(|_| !is_local && !settings.trusts(client.ip()));
        let place = most.map(|most| self.clients.enter(client.ip(), most));
        if let Some(None) = place {
            self.series.count(ConnectionOutcome::RefusedClientLimit);
            return None;
        }
        let connection = match &settings.tls {
            None => Connection::plain(socket, client, settings.timeouts, self.series.parking()),
            Some(tls) => {
                let tls = Arc::clone(tls);
                self.encrypted(tls, socket, client, settings.timeouts, deadline).await?
            }
        };
        Some((Box::new(connection), place.flatten()))
    }

    /// The connection past its handshake; `None` if there is no session, which has been counted.
    async fn encrypted(
        &self,
        tls: Arc<Tls>,
        socket: Socket,
        client: SocketAddr,
        timeouts: Timeouts,
        deadline: tokio::time::Instant,
    ) -> Option<Connection> {
        if let Ok(true) = tokio::time::timeout_at(deadline, begins_like_http(&socket)).await {
            self.series.handshake(Handshake::PlainHttp);
            self.series.count(ConnectionOutcome::TlsFailed);
            return Some(Connection::plain_on_tls(socket, client, timeouts, self.series.parking()));
        }
        match handshake::accept(tls, socket, deadline).await {
            Ok((stream, session)) => {
                self.series.handshake(Handshake::Done);
                Some(Connection::tls(stream, session, client, timeouts, self.series.parking()))
            }
            Err((end, error)) => {
                self.series.handshake(end);
                let slow = end == Handshake::Timeout;
                self.series.count(if slow {
                    ConnectionOutcome::Timeout
                } else {
                    ConnectionOutcome::TlsFailed
                });
                tracing::debug!(%error, outcome = end.word(), "TLS handshake with a client failed");
                None
            }
        }
    }
}

/// One of the connections that a listener may have open at once. The bound may change between two of them.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        if open.fetch_add(1, Ordering::Relaxed) < most {
            return Some(Self(Arc::clone(open)));
        }
        open.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A TLS handshake begins with the byte 22, a request of HTTP with a capital letter.
async fn begins_like_http(socket: &Socket) -> bool {
    let mut first = [0];
    socket.peek(&mut first).await.is_ok_and(|read| read == 1 && first[0].is_ascii_uppercase())
}

fn outcome(fate: Fate) -> ConnectionOutcome {
    match fate {
        Fate::Refused => ConnectionOutcome::RefusedHead,
        Fate::TimedOut => ConnectionOutcome::Timeout,
        Fate::Aged => ConnectionOutcome::MaxAge,
        Fate::Spent => ConnectionOutcome::MaxRequests,
        Fate::Flooded => ConnectionOutcome::Flood,
        Fate::Broken => ConnectionOutcome::Broken,
    }
}

/// The connection was gone before it was accepted: nothing is wrong with the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

impl Settings {
    /// Whether this address is a proxy whose word on the client counts.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&address.to_canonical()))
    }
}

/// A listener as used: what `[listeners.NAME]` means once it has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The key in the table.
    pub name: Arc<str>,
    /// Where to bind. Port 0 takes a free one.
    pub address: Address,
    /// Whether another process may listen on the same IP address and port.
    pub reuse_port: bool,
    /// Who may open a Unix socket, as the mode of its file.
    pub socket_mode: u32,
    /// Which versions of the PROXY protocol its trusted proxies speak.
    pub proxy_protocol: Option<proxy::Versions>,
    /// TLS, with certificate and key loaded; `None` is plain text.
    pub tls: Option<Arc<Tls>>,
    /// Whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whose requests are let in, by address; `None` is everybody's.
    pub addresses: Option<addresses::Addresses>,
    /// What becomes of the trace context that clients send.
    pub context: Inbound,
    /// Bounds of what one client may ask for.
    pub limits: Limits,
    /// How long a client may take.
    pub timeouts: Timeouts,
}

/// Bounds of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight at once; `None` is no bound but the gateway's.
    pub in_flight: Option<usize>,
    /// Connections open at once.
    pub connections: usize,
    /// The same of one client.
    pub connections_per_client: Option<usize>,
    /// Bytes of a request's header fields, names and values.
    pub header_bytes: usize,
    /// Fields of a request's header.
    pub header_count: usize,
    /// Bytes of the request target.
    pub uri_bytes: usize,
    /// HTTP/2 streams open at once on one connection.
    pub http2_streams: u32,
    /// Requests of one connection, after which its client is asked to make a new one; `None` is any number.
    pub requests_per_connection: Option<usize>,
}
