//! One request over a connection of its own: for the health check and the demo, never for traffic.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{self, Either};
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Sends a request by HTTP/1.1 and reads the whole answer, within this time. Dropped, it closes the connection.
///
/// `Host` is the address, unless the request names one.
pub async fn send(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
    within: Duration,
) -> io::Result<Response<Bytes>> {
    timeout(within, exchange(address, request)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

async fn exchange(address: SocketAddr, mut request: Request<Full<Bytes>>) -> io::Result<Response<Bytes>> {
    let host = HeaderValue::from_str(&address.to_string()).map_err(io::Error::other)?;
    request.headers_mut().entry(HOST).or_insert(host);
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let answer = pin!(async move {
        let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Response::from_parts(head, body))
    });
    // the connection may well end first, with the answer read but not yet taken
    match future::select(answer, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, answer)) => answer.await,
    }
}

/// The most bytes of an answer's body.
const MAX_BODY: usize = 16 * 1024 * 1024;
