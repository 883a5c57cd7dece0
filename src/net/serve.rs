//! A small HTTP server for our own pages and the demo's services: bounded, drained, no part of the traffic.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::places::{Answer, Place, Places};

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// The certificate that it has shown and that TLS has verified, in DER.
    pub certificate: Option<Arc<[u8]>>,
}

/// What a client may take up.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections open at once. One more waits, until one that asks for nothing has made room.
    pub connections: usize,
    /// The wait for a whole head, an idle connection's included.
    pub head: Duration,
    /// A connection is asked to end after this time.
    pub age: Duration,
    /// What an exchange may still take when its connection has been asked to end, because of its age.
    pub exchange: Duration,
    /// The same, because the server ends.
    pub grace: Duration,
    /// Whether HTTP/2 is spoken too, by prior knowledge.
    pub http2: bool,
}

/// Serves until told to stop; returns when the last connection is gone.
pub async fn serve<S, B>(listener: TcpListener, service: S, bounds: Bounds, stop: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    serve_each(listener, None, move |_| service.clone(), bounds, stop).await;
}

/// The same with a service for each client, and by TLS if there is a configuration of it.
pub async fn serve_each<S, B>(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    service: impl Fn(Client) -> S + Clone + Send + 'static,
    bounds: Bounds,
    stop: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let connections = TaskTracker::new();
    let places = Places::new(bounds.connections);
    while let Some((stream, peer, place)) = stop.run_until_cancelled(accept(&listener, &places)).await {
        let (service, builder, stop) = (service.clone(), builder(bounds), stop.clone());
        let (tls, address) = (tls.clone(), peer.ip().to_canonical());
        connections.spawn(async move {
            let mut client = Client { address, certificate: None };
            let stream = match tls {
                None => Either::Left(stream),
                Some(tls) => {
                    let handshake = timeout(bounds.head, TlsAcceptor::from(tls).accept(stream));
                    let accepted = tokio::select! {
                        accepted = handshake => accepted,
                        () = place.leaving() => return,
                    };
                    let Ok(Ok(stream)) = accepted else { return };
                    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    client.certificate = shown.map(|certificate| Arc::from(&**certificate));
                    Either::Right(stream)
                }
            };
            let (service, busy) = (service(client), place.busy());
            let service = service_fn(move |request| {
                let (open, answer) = (busy.open(), service.call(request));
                async move { answer.await.map(|answer| answer.map(|body| Answer::new(body, open))) }
            });
            let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
            let stopped = tokio::select! {
                // first: what has come meanwhile is served
                biased;
                _ = connection.as_mut() => return,
                () = stop.cancelled() => true,
                () = place.leaving() => false,
                () = sleep(bounds.age) => false,
            };
            if !stopped {
                if place.is_leaving() && !place.is_busy() {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    _ = timeout(bounds.exchange, connection.as_mut()) => return,
                    () = stop.cancelled() => {}
                }
            }
            connection.as_mut().graceful_shutdown();
            let _ = timeout(bounds.grace, connection).await;
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn builder(bounds: Bounds) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(bounds.head).max_buf_size(MAX_HEAD);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    if bounds.http2 { builder } else { builder.http1_only() }
}

async fn accept(listener: &TcpListener, places: &Places) -> (TcpStream, SocketAddr, Place) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                return (stream, peer, places.take().await);
            }
            Err(error) => {
                // no file descriptor is left, or the client has gone already
                tracing::debug!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The most bytes of a head that hyper buffers.
const MAX_HEAD: usize = 64 * 1024;
/// HTTP/2 streams of one connection.
const MAX_STREAMS: u32 = 64;
/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Semaphore;
    use tokio::task::JoinHandle;
    use tokio_util::sync::{CancellationToken, DropGuard};

    use super::{Bounds, serve};

    const LONG: Duration = Duration::from_mins(1);
    const SHORT: Duration = Duration::from_millis(20);
    const BOUNDS: Bounds =
        Bounds { connections: 8, head: LONG, age: LONG, exchange: LONG, grace: LONG, http2: false };

    async fn running(bounds: Bounds) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let service = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
        });
        (address, stop.clone(), tokio::spawn(serve(listener, service, bounds, stop)))
    }

    async fn all_of(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_slow_head_an_old_connection_and_an_idle_one_are_closed() {
        for bounds in [Bounds { head: SHORT, ..BOUNDS }, Bounds { age: SHORT, exchange: SHORT, ..BOUNDS }] {
            for sent in ["", "GET / HTTP/1.1\r\nHost", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"] {
                let (address, stop, _) = running(bounds).await;
                let _guard: DropGuard = stop.drop_guard();
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(sent.as_bytes()).await.unwrap();
                let answer =
                    tokio::time::timeout(LONG / 4, all_of(&mut stream)).await.expect("closed in time");
                assert_eq!(answer.contains("200 OK"), sent.ends_with("\r\n\r\n"), "{sent:?}: {answer:?}");
            }
        }
    }

    const LAST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn one_more_connection_waits_for_the_exchanges_of_the_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (begins, goes) = (Arc::clone(&begun), Arc::clone(&go));
        let service = service_fn(move |_: Request<Incoming>| {
            let (begins, goes) = (Arc::clone(&begins), Arc::clone(&goes));
            async move {
                begins.add_permits(1);
                goes.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
            }
        });
        tokio::spawn(serve(listener, service, Bounds { connections: 1, ..BOUNDS }, stop.clone()));
        let _guard = stop.drop_guard();
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(LAST).await.unwrap();
        begun.acquire().await.unwrap().forget();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(LAST).await.unwrap();
        let early = tokio::time::timeout(SHORT, begun.acquire()).await;
        assert!(early.is_err(), "served beside the first");
        go.add_permits(2);
        assert!(all_of(&mut first).await.contains("200 OK"));
        assert!(all_of(&mut second).await.contains("200 OK"));
    }

    #[tokio::test]
    async fn who_asks_for_nothing_makes_room_for_who_does() {
        let (address, stop, _) = running(Bounds { connections: 3, ..BOUNDS }).await;
        let _guard = stop.drop_guard();
        let mut idle = Vec::new();
        for sent in ["", "GET / HTTP/1.1\r\nHo", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"].repeat(2) {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            idle.push(stream);
        }
        for _ in 0..4 {
            let mut asking = TcpStream::connect(address).await.unwrap();
            asking.write_all(LAST).await.unwrap();
            let answer = tokio::time::timeout(LONG / 4, all_of(&mut asking)).await.expect("served in time");
            assert!(answer.contains("200 OK"), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn told_to_stop_it_closes_what_is_idle_and_ends() {
        let (address, stop, task) = running(BOUNDS).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        idle.readable().await.unwrap();
        stop.cancel();
        assert!(all_of(&mut idle).await.contains("200 OK"));
        task.await.unwrap();
    }
}
