//! Listeners: bind, accept, bound, drain. Every accepted connection is handed to a protocol.

pub mod activity;
pub mod connection;
pub mod drain;
pub mod file;
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
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::task::TaskTracker;

use activity::Fate;
pub use connection::Connection;
pub use drain::Drain;
use drain::Moment;
pub use timeouts::Timeouts;
pub use tls::Tls;
use tls::handshake;

use crate::telemetry::context::Inbound;
use crate::telemetry::metrics::connections::{ConnectionOutcome, Connections, Handshake};
use crate::view::View;

/// Connections the kernel holds until they are accepted.
const BACKLOG: u32 = 4096;

/// Waits between attempts to accept while there are no file descriptors left.
const BACK_OFF: std::ops::Range<Duration> = Duration::from_millis(10)..Duration::from_secs(1);

/// How long nothing more is said of not being able to accept, once it has been said.
const TELL_AGAIN: Duration = Duration::from_mins(1);

/// What is spoken on a listener.
pub trait Protocol: Send + Sync + 'static {
    /// Serves one connection to its end; [`Drain`] tells when to leave.
    fn serve(self: Arc<Self>, connection: Connection, drain: Drain) -> impl Future<Output = ()> + Send;
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    name: Arc<str>,
    socket: TcpListener,
    address: SocketAddr,
    open: Arc<AtomicUsize>,
    series: Arc<Connections>,
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
    /// Binds; connections are counted in these series. Fails where the address cannot be had.
    pub fn bind(settings: &Settings, series: Arc<Connections>) -> io::Result<Self> {
        let socket = match settings.address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(settings.address)?;
        let socket = socket.listen(BACKLOG)?;
        let address = socket.local_addr()?;
        Ok(Self { name: Arc::clone(&settings.name), socket, address, open: Arc::default(), series })
    }

    /// Where it is bound, the port included.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until the drain says no more; each connection is a task of the tracker.
    pub async fn run<P: Protocol>(self, serving: View<Serving<P>>, drain: Drain, tasks: TaskTracker) {
        let mut back_off = BACK_OFF.start;
        let mut told: Option<Instant> = None;
        let mut closing = pin!(drain.after(Moment::Leaving));
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = closing.as_mut() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    back_off = BACK_OFF.start;
                    self.admit(stream, peer, &serving.current(), &drain, &tasks);
                }
                Err(error) if is_of_one_connection(&error) => {
                    self.series.count(ConnectionOutcome::AcceptError);
                }
                Err(error) => {
                    self.series.count(ConnectionOutcome::AcceptError);
                    if told.is_none_or(|told| told.elapsed() > TELL_AGAIN) {
                        told = Some(Instant::now());
                        tracing::error!(listener = %self.name, %error, "cannot accept; backing off");
                    }
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF.end);
                }
            }
        }
    }

    fn admit<P: Protocol>(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        serving: &Serving<P>,
        drain: &Drain,
        tasks: &TaskTracker,
    ) {
        let settings = &serving.settings;
        let Some(place) = Place::take(&self.open, settings.limits.connections) else {
            self.series.count(ConnectionOutcome::RefusedLimit);
            return;
        };
        self.series.count(ConnectionOutcome::Accepted);
        let open = (self.series.open(), place);
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let (tls, timeouts) = (settings.tls.clone(), settings.timeouts);
        let (protocol, drain) = (Arc::clone(&serving.protocol), drain.clone());
        let series = Arc::clone(&self.series);
        tasks.spawn(async move {
            let connection = match tls {
                None => Connection::plain(stream, peer, timeouts),
                Some(tls) => match encrypted(tls, stream, peer, timeouts, &series).await {
                    Some(connection) => connection,
                    None => return,
                },
            };
            let activity = connection.activity();
            protocol.serve(connection, drain).await;
            if let Some(fate) = activity.fate() {
                series.count(outcome(fate));
            }
            drop(open);
        });
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

/// The connection past its handshake; `None` if there is no session, which has been counted.
async fn encrypted(
    tls: Arc<Tls>,
    stream: TcpStream,
    peer: SocketAddr,
    timeouts: Timeouts,
    series: &Connections,
) -> Option<Connection> {
    let started = tokio::time::Instant::now();
    let first = tokio::time::timeout(timeouts.handshake, begins_like_http(&stream)).await;
    if let Ok(true) = first {
        series.handshake(Handshake::PlainHttp);
        series.count(ConnectionOutcome::TlsFailed);
        return Some(Connection::plain_on_tls(stream, peer, timeouts));
    }
    let left = timeouts.handshake.saturating_sub(started.elapsed());
    match handshake::accept(tls, stream, left).await {
        Ok((stream, session)) => {
            series.handshake(Handshake::Done);
            Some(Connection::tls(stream, session, peer, timeouts))
        }
        Err((end, error)) => {
            series.handshake(end);
            let slow = end == Handshake::Timeout;
            series.count(if slow { ConnectionOutcome::Timeout } else { ConnectionOutcome::TlsFailed });
            tracing::debug!(%error, outcome = end.word(), "TLS handshake with a client failed");
            None
        }
    }
}

/// A TLS handshake begins with the byte 22, a request of HTTP with a capital letter.
async fn begins_like_http(stream: &TcpStream) -> bool {
    let mut first = [0];
    stream.peek(&mut first).await.is_ok_and(|read| read == 1 && first[0].is_ascii_uppercase())
}

fn outcome(fate: Fate) -> ConnectionOutcome {
    match fate {
        Fate::Refused => ConnectionOutcome::RefusedHead,
        Fate::TimedOut => ConnectionOutcome::Timeout,
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
    pub address: SocketAddr,
    /// TLS, with certificate and key loaded; `None` is plain text.
    pub tls: Option<Arc<Tls>>,
    /// Whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<IpNet>,
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
