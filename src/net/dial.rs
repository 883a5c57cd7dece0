//! Opening a TCP connection to whichever address of a peer answers first: happy eyeballs, RFC 8305.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};

use crate::failure::{Failure, Reason};

/// An established connection.
#[derive(Debug)]
pub struct Dialed {
    /// The connection, with `TCP_NODELAY` and keepalive set.
    pub stream: TcpStream,
    /// The address that answered.
    pub peer: SocketAddr,
    /// How long it took, over all addresses that were tried.
    pub took: Duration,
}

/// Connects to the first of these addresses that answers, within the timeout as a whole.
///
/// The families take turns, IPv6 first; the next address is tried when one fails, or after [`STAGGER`]
/// beside those that still hang. Fails with `connect_timeout`, with `connect_refused` if every address was
/// refused or cannot be reached, with `overloaded` if this process or host has no socket to spare, and
/// with `dns_failed` if there is no address.
pub async fn dial(addresses: &[SocketAddr], timeout: Duration) -> Result<Dialed, Failure> {
    let started = Instant::now();
    match tokio::time::timeout(timeout, race(addresses, connect)).await {
        Ok(Ok((peer, stream))) => Ok(Dialed { stream, peer, took: started.elapsed() }),
        Ok(Err(Some((peer, error)))) => {
            Err(Failure::new(reason(&error)).because(format!("connecting to {peer}: {error}")))
        }
        Ok(Err(None)) => Err(Failure::new(Reason::DnsFailed).because("no address to connect to")),
        Err(elapsed) => Err(Failure::new(Reason::ConnectTimeout).because(elapsed)),
    }
}

/// Connects to a Unix socket; tells how long it took. Fails with `connect_timeout`, and with `connect_refused` if
/// nobody listens there, or nobody lets us in.
pub async fn unix(path: &Path, timeout: Duration) -> Result<(UnixStream, Duration), Failure> {
    let started = Instant::now();
    match tokio::time::timeout(timeout, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => Ok((stream, started.elapsed())),
        Ok(Err(error)) => {
            let what = format!("connecting to unix:{}: {error}", path.display());
            Err(Failure::new(reason(&error)).because(what))
        }
        Err(elapsed) => Err(Failure::new(Reason::ConnectTimeout).because(elapsed)),
    }
}

/// Runs the attempts; the first success wins and cancels the others, else the last error stands for all.
async fn race<T, F>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), Option<(SocketAddr, io::Error)>>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = interleaved(addresses).into_iter();
    let mut running = FuturesUnordered::new();
    let mut last_error = None;
    loop {
        if let Some(address) = waiting.next() {
            let attempt = connect(address);
            running.push(async move { (address, attempt.await) });
        }
        tokio::select! {
            finished = running.next() => match finished {
                Some((address, Ok(stream))) => return Ok((address, stream)),
                Some((address, Err(error))) => last_error = Some((address, error)),
                None => return Err(last_error),
            },
            () = tokio::time::sleep(STAGGER), if waiting.len() > 0 => {}
        }
    }
}

/// The addresses with the families taking turns, IPv6 first, each family in its given order.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut v6 = addresses.iter().filter(|address| address.is_ipv6());
    let mut v4 = addresses.iter().filter(|address| address.is_ipv4());
    let mut turns = Vec::with_capacity(addresses.len());
    while turns.len() < addresses.len() {
        turns.extend(v6.next());
        turns.extend(v4.next());
    }
    turns
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

/// Out of file descriptors or local ports is our own bound; all else that is not a timeout is a refusal,
/// of the peer or of the network on the way to it.
fn reason(error: &io::Error) -> Reason {
    if let Some(EMFILE | ENFILE) = error.raw_os_error() {
        return Reason::Overloaded;
    }
    match error.kind() {
        ErrorKind::TimedOut => Reason::ConnectTimeout,
        ErrorKind::AddrNotAvailable | ErrorKind::OutOfMemory => Reason::Overloaded,
        _ => Reason::ConnectRefused,
    }
}

/// How long an attempt has for itself before the next address is tried beside it (RFC 8305 section 5).
pub const STAGGER: Duration = Duration::from_millis(250);
/// A silent connection is probed after this long.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
/// The time between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// "Too many open files", in this process and on this host: the same numbers on Linux, macOS and the BSDs.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Mutex;

    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    const V6: &str = "[2001:db8::1]:80";
    const V6_TOO: &str = "[2001:db8::2]:80";
    const V4: &str = "192.0.2.1:80";
    const V4_TOO: &str = "192.0.2.2:80";

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_ipv6_goes_first() {
        let cases: [(&[&str], &[&str]); 5] = [
            (&[], &[]),
            (&[V4], &[V4]),
            (&[V4, V6], &[V6, V4]),
            (&[V4, V4_TOO, V6, V6_TOO], &[V6, V4, V6_TOO, V4_TOO]),
            (&[V4, V4_TOO, V6], &[V6, V4, V4_TOO]),
        ];
        for (given, expected) in cases {
            assert_eq!(interleaved(&addresses(given)), addresses(expected), "{given:?}");
        }
    }

    /// What an address does in a test, so many milliseconds after it was tried.
    #[derive(Clone, Copy)]
    enum Peer {
        Answers(u64),
        Refuses(u64),
        Hangs,
    }
    use Peer::{Answers, Hangs, Refuses};

    /// Races the peers, IPv6 first; tells who won, when each was tried, and when the race was over.
    async fn run(peers: &[(&str, Peer)]) -> (Option<String>, Vec<u128>, u128) {
        let started = Instant::now();
        let tried = Mutex::new(Vec::new());
        let texts: Vec<&str> = peers.iter().map(|(text, _)| *text).collect();
        let addresses = addresses(&texts);
        let result = race(&addresses, |address| {
            tried.lock().unwrap().push(started.elapsed().as_millis());
            let (_, peer) = *peers.iter().find(|(text, _)| *text == address.to_string()).unwrap();
            async move {
                match peer {
                    Answers(after) => {
                        tokio::time::sleep(Duration::from_millis(after)).await;
                        Ok(())
                    }
                    Refuses(after) => {
                        tokio::time::sleep(Duration::from_millis(after)).await;
                        Err(ErrorKind::ConnectionRefused.into())
                    }
                    Hangs => pending().await,
                }
            }
        });
        let winner = tokio::time::timeout(Duration::from_secs(10), result).await;
        let winner = winner.ok().and_then(Result::ok).map(|(address, ())| address.to_string());
        (winner, tried.into_inner().unwrap(), started.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_address_that_answers_wins_and_a_hanging_one_costs_a_quarter_second() {
        type Case = (&'static [(&'static str, Peer)], Option<&'static str>, &'static [u128], u128);
        let cases: [Case; 8] = [
            (&[(V6, Answers(10)), (V4, Answers(1))], Some(V6), &[0], 10),
            (&[(V6, Hangs), (V4, Answers(20))], Some(V4), &[0, 250], 270),
            (&[(V6, Refuses(5)), (V4, Answers(20))], Some(V4), &[0, 5], 25),
            (&[(V6, Answers(300)), (V4, Answers(100))], Some(V6), &[0, 250], 300),
            (&[(V6, Answers(400)), (V4, Answers(100))], Some(V4), &[0, 250], 350),
            (&[(V6, Hangs), (V4, Hangs), (V4_TOO, Answers(1))], Some(V4_TOO), &[0, 250, 500], 501),
            (&[(V6, Refuses(1)), (V4, Refuses(2))], None, &[0, 1], 3),
            (&[(V6, Hangs), (V4, Refuses(0))], None, &[0, 250], 10_000),
        ];
        for (index, (peers, winner, tried, over)) in cases.into_iter().enumerate() {
            let expected = (winner.map(str::to_owned), tried.to_vec(), over);
            assert_eq!(run(peers).await, expected, "case {index}");
        }
    }

    #[tokio::test]
    async fn a_connection_has_nodelay_and_keepalive_set() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dialed = dial(&[address], Duration::from_secs(5)).await.unwrap();
        assert_eq!(dialed.peer, address);
        assert!(dialed.stream.nodelay().unwrap());
        assert!(SockRef::from(&dialed.stream).keepalive().unwrap());
    }

    #[tokio::test]
    async fn a_closed_port_is_passed_over_for_an_open_one() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = closed_port().await;
        let peers = [closed, open.local_addr().unwrap()];
        assert_eq!(dial(&peers, Duration::from_secs(5)).await.unwrap().peer, peers[1]);
    }

    #[tokio::test]
    async fn every_way_to_fail_has_its_reason() {
        let refused = dial(&[closed_port().await], Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(refused.reason, Reason::ConnectRefused);
        let nowhere = dial(&[], Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(nowhere.reason, Reason::DnsFailed);
        for (error, expected) in [
            (io::Error::from_raw_os_error(EMFILE), Reason::Overloaded),
            (io::Error::from_raw_os_error(ENFILE), Reason::Overloaded),
            (ErrorKind::AddrNotAvailable.into(), Reason::Overloaded),
            (ErrorKind::TimedOut.into(), Reason::ConnectTimeout),
            (ErrorKind::HostUnreachable.into(), Reason::ConnectRefused),
            (ErrorKind::NetworkUnreachable.into(), Reason::ConnectRefused),
        ] {
            assert_eq!(reason(&error), expected, "{error}");
        }
    }

    #[tokio::test]
    async fn a_peer_that_never_answers_is_a_connect_timeout() {
        // A listener that accepts nobody: once its queue of one is full, the kernel leaves a SYN unanswered.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&addresses(&["127.0.0.1:0"])[0].into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        let failure = loop {
            assert!(held.len() < 16, "the queue never filled");
            match dial(&[address], Duration::from_millis(100)).await {
                Ok(dialed) => held.push(dialed),
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure.reason, Reason::ConnectTimeout);
    }

    async fn closed_port() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }
}
