//! Clients: one connection of HTTP/1.1 or HTTP/2 by hyper, and one of plain bytes for all hyper would not send.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::body::{self, Body};
use super::wire::{Fields, Wire};
use super::within;

/// One connection of a client. It closes when it drops.
pub struct Client {
    sender: Sender,
    driver: Option<JoinHandle<hyper::Result<()>>>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    /// HTTP/1.1 without TLS.
    pub async fn http1(address: SocketAddr) -> Self {
        Self::speak_http1(tcp(address).await).await
    }

    /// HTTP/2 without TLS, by prior knowledge.
    pub async fn http2(address: SocketAddr) -> Self {
        Self::speak_http2(tcp(address).await).await
    }

    /// TLS to this name; the protocol that the server chose is spoken.
    pub async fn tls(address: SocketAddr, name: &'static str, config: Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from(name).unwrap();
        let handshake = TlsConnector::from(config).connect(name, tcp(address).await);
        let stream = within("a TLS handshake", handshake).await.unwrap();
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            Self::speak_http2(stream).await
        } else {
            Self::speak_http1(stream).await
        }
    }

    async fn speak_http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        Self { sender: Sender::Http1(sender), driver: Some(tokio::spawn(connection)) }
    }

    async fn speak_http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        Self { sender: Sender::Http2(sender), driver: Some(tokio::spawn(connection)) }
    }

    /// Whether HTTP/2 is spoken.
    pub fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Sends a request and waits for the answer's head. HTTP/1.1 gets a `Host` if it has none.
    pub async fn send(&mut self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        let sent = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    let host = http::HeaderValue::from_static("shop.test");
                    request.headers_mut().entry(http::header::HOST).or_insert(host);
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    if request.uri().authority().is_none() {
                        let uri = format!("http://shop.test{}", request.uri());
                        *request.uri_mut() = uri.parse().unwrap();
                    }
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        within("an answer", sent).await
    }

    /// Sends a request and reads the whole answer.
    pub async fn ask(&mut self, request: Request<Body>) -> Reply {
        Reply::read(self.send(request).await.expect("an answer")).await
    }

    /// `GET` and the whole answer.
    pub async fn get(&mut self, path: &str) -> Reply {
        self.ask(get(path)).await
    }

    /// Another user of the same HTTP/2 connection, which lives as long as this one.
    pub fn another(&self) -> Self {
        let Sender::Http2(sender) = &self.sender else { panic!("HTTP/1.1 connections are not shared") };
        Self { sender: Sender::Http2(sender.clone()), driver: None }
    }

    /// Comes back when the connection is closed. The client must not send any more.
    pub async fn closed(mut self) {
        if let Some(driver) = &mut self.driver {
            let _ = within("a close", driver).await;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

/// A `GET` without a body.
pub fn get(path: &str) -> Request<Body> {
    request(Method::GET, path, &[], body::empty())
}

/// An admin page over a connection of its own.
pub async fn get_admin(address: SocketAddr, path: &str) -> Reply {
    get_admin_with(address, path, &[]).await
}

/// An admin page, asked for with these fields, over a connection of its own.
pub async fn get_admin_with(address: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Reply {
    let host = address.to_string();
    let fields = [&[("host", &*host)], fields].concat();
    Client::http1(address).await.ask(request(Method::GET, path, &fields, body::empty())).await
}

/// A request with these fields and this body.
pub fn request(method: Method, path: &str, fields: &[(&str, &str)], body: Body) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path);
    fields.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value)).body(body).unwrap()
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The header fields.
    pub headers: Fields,
    /// The body.
    pub body: Bytes,
    /// The trailer fields.
    pub trailers: Fields,
    /// The body broke off before its end.
    pub broken: bool,
}

impl Reply {
    /// Reads the whole answer.
    pub async fn read(response: Response<Incoming>) -> Self {
        let (parts, mut incoming) = response.into_parts();
        let (mut data, mut trailers, mut broken) = (Vec::new(), HeaderMap::new(), false);
        while let Some(frame) = within("a body", incoming.frame()).await {
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(piece)) => data.extend_from_slice(&piece),
                Ok(Err(frame)) => trailers = frame.into_trailers().unwrap_or_default(),
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        Self {
            status: parts.status.as_u16(),
            headers: Fields::from(&parts.headers),
            body: data.into(),
            trailers: Fields::from(&trailers),
            broken,
        }
    }

    /// The first value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The reason of the gateway's own answer.
    pub fn reason(&self) -> Option<String> {
        (self.header("content-type") == Some("application/problem+json"))
            .then(|| self.json()["reason"].as_str().expect("a reason").to_owned())
    }

    /// The trace's id, as every answer tells it in `Server-Timing`.
    pub fn trace_id(&self) -> String {
        let mine = |value: &&str| value.starts_with("trace;desc=\"00-");
        let values = self.headers.all("server-timing");
        let value = values.into_iter().rfind(mine).expect("Server-Timing: trace on every answer");
        value["trace;desc=\"00-".len()..][..32].to_owned()
    }
}

/// One connection of plain bytes.
pub struct Raw {
    wire: Wire<TcpStream>,
}

impl Raw {
    /// Connects and says nothing.
    pub async fn connect(address: SocketAddr) -> Self {
        Self { wire: Wire::new(tcp(address).await) }
    }

    /// Connects and sends these bytes.
    pub async fn sending(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Self {
        let mut raw = Self::connect(address).await;
        raw.send(bytes).await;
        raw
    }

    /// Sends these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("a write", self.wire.write(bytes.as_ref())).await.unwrap();
    }

    /// Sends as many of these bytes as the gateway takes.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("a write", self.wire.write(bytes.as_ref())).await;
    }

    /// Sends these bytes while it reads and drops whatever comes; `false` once the gateway has closed.
    pub async fn pours(&mut self, bytes: &[u8]) -> bool {
        let (mut from, mut to) = self.wire.stream.split();
        let mut scratch = vec![0; 16 << 10];
        let mut sending = std::pin::pin!(to.write_all(bytes));
        loop {
            tokio::select! {
                sent = sending.as_mut() => return sent.is_ok(),
                read = from.read(&mut scratch) => if !read.is_ok_and(|read| read > 0) {
                    return false;
                }
            }
        }
    }

    /// Sends these bytes over and over, in this time, until something comes or the gateway has closed.
    pub async fn drips(&mut self, bytes: &[u8], every: std::time::Duration) {
        let (from, mut to) = self.wire.stream.split();
        let mut ticks = tokio::time::interval(every);
        let dripping = async {
            loop {
                tokio::select! {
                    _ = from.readable() => return,
                    _ = ticks.tick() => if to.write_all(bytes).await.is_err() {
                        return;
                    }
                }
            }
        };
        within("the end of the drops", dripping).await;
    }

    /// Sends nothing more, but still reads.
    pub async fn finish(&mut self) {
        self.wire.stream.shutdown().await.unwrap();
    }

    /// The next head, an informational one too.
    pub async fn head(&mut self) -> super::wire::Head {
        within("a head", self.wire.head()).await.unwrap().expect("an answer before the close")
    }

    /// The next so many bytes.
    pub async fn bytes(&mut self, count: usize) -> Bytes {
        within("bytes", self.wire.bytes(count)).await.unwrap()
    }

    /// The next whole answer.
    pub async fn reply(&mut self) -> Reply {
        let head = self.head().await;
        self.reply_after(head).await
    }

    async fn reply_after(&mut self, head: super::wire::Head) -> Reply {
        let framing = head.answer_framing();
        let body = within("a body", self.wire.body(framing)).await;
        let broken = body.is_err();
        let (body, trailers) = body.unwrap_or_default();
        Reply { status: head.status(), headers: head.fields, body, trailers, broken }
    }

    /// The next whole answer, if there is one before the close.
    pub async fn try_reply(&mut self) -> Option<Reply> {
        let head = within("a head or a close", self.wire.head()).await.ok()??;
        Some(self.reply_after(head).await)
    }

    /// The next answer to a `HEAD`.
    pub async fn reply_to_head(&mut self) -> Reply {
        let head = self.head().await;
        Reply {
            status: head.status(),
            headers: head.fields,
            body: Bytes::new(),
            trailers: Fields::default(),
            broken: false,
        }
    }

    /// Everything up to the gateway's close; what a reset cuts off is lost.
    pub async fn rest(&mut self) -> Bytes {
        within("a close", self.wire.rest()).await.unwrap_or_default()
    }

    /// Leaves with a reset.
    pub fn reset(self) {
        self.wire.stream.set_zero_linger().unwrap();
    }
}

async fn tcp(address: SocketAddr) -> TcpStream {
    let stream = within("a connection", TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}
