//! The HTTP client of receivers: posts to one URL over one connection, which is kept.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::Answer;
use crate::net::{self, retry_after, tls};
use crate::telemetry::settings::Receiver;

/// Posts to one URL. Its errors are sentences for the operator.
#[derive(Debug)]
pub(super) struct Client {
    uri: Uri,
    host: Box<str>,
    port: u16,
    tls: Option<tls::ClientTls>,
    version: Version,
    headers: HeaderMap,
    timeout: Duration,
    kept: Option<Connection>,
}

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// HTTP/1.1
    Http1,
    /// HTTP/2, in clear text by prior knowledge.
    Http2,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) trailers: HeaderMap,
}

impl Client {
    /// A client for this receiver that posts to this path, or the URL's own, and sends these fields beside
    /// the configured ones.
    pub(super) fn new(
        settings: &Receiver,
        version: Version,
        path: Option<PathAndQuery>,
        fields: HeaderMap,
    ) -> Result<Self, http::Error> {
        let url: Uri = settings.endpoint.parse()?;
        let authority = url.authority().cloned();
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tls = settings.tls.clone();
        let mut parts = url.into_parts();
        parts.path_and_query = path.or(parts.path_and_query);
        let uri = Uri::from_parts(parts)?;
        let mut headers = fields;
        headers
            .insert(USER_AGENT, HeaderValue::from_static(concat!("tracegate/", env!("CARGO_PKG_VERSION"))));
        for (name, secret) in &settings.headers {
            let mut value = HeaderValue::from_str(secret.expose())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        if let (Version::Http1, Some(authority)) = (version, authority) {
            headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
        }
        Ok(Self {
            port: uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 }),
            uri,
            host: host.into(),
            tls,
            version,
            headers,
            timeout: settings.timeout,
            kept: None,
        })
    }

    /// Posts a body and reads the answer, within the receiver's timeout. Whatever does not end well ends the
    /// connection too.
    pub(super) async fn post(&mut self, body: Bytes) -> Result<Reply, String> {
        let limit = self.timeout;
        timeout(limit, self.exchange(body))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
    }

    async fn exchange(&mut self, body: Bytes) -> Result<Reply, String> {
        let (connection, response) = self.send(self.request(body)).await?;
        let (head, body) = response.into_parts();
        let collected = Limited::new(body, MAX_ANSWER).collect().await;
        let collected: Collected<Bytes> = collected.map_err(|error| told(&*error))?;
        self.kept = Some(connection);
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            trailers: collected.trailers().cloned().unwrap_or_default(),
            body: collected.to_bytes(),
        })
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = match self.version {
            Version::Http2 => self.uri.clone(),
            Version::Http1 => self.uri.path_and_query().cloned().map_or(Uri::from_static("/"), Uri::from),
        };
        *request.headers_mut() = self.headers.clone();
        request
    }

    async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Connection, Response<Incoming>), String> {
        if let Some(mut kept) = self.kept.take() {
            match kept.try_send(request).await {
                Ok(response) => return Ok((kept, response)),
                // closed meanwhile: what was not sent may be sent on a new connection
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(told(error.error())),
                },
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.try_send(request).await.map_err(|error| told(error.error()))?;
        Ok((connection, response))
    }

    async fn connect(&self) -> Result<Connection, String> {
        let found = lookup_host((&*self.host, self.port)).await;
        let addresses: Vec<_> = found.map_err(|error| format!("{}: {error}", self.host))?.collect();
        let stream = net::dial(&addresses, self.timeout).await.map_err(|failure| told(&failure))?.stream;
        let stream = match &self.tls {
            None => net::Stream::Plain(net::Socket::tcp(stream)),
            Some(tls) => {
                let connected =
                    tls::connect(&tls.config, tls.server_name.clone(), net::Socket::tcp(stream)).await;
                net::Stream::Tls(Box::new(connected.map_err(|failure| told(&failure))?.0))
            }
        };
        Connection::over(stream, self.version).await.map_err(|error| told(&error))
    }
}

/// A connection; it closes when this drops.
#[derive(Debug)]
enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    async fn over(stream: net::Stream, version: Version) -> hyper::Result<Self> {
        let stream = TokioIo::new(stream);
        match version {
            Version::Http1 => {
                let (sender, driver) = http1::handshake(stream).await?;
                tokio::spawn(driver);
                Ok(Self::Http1(sender))
            }
            Version::Http2 => {
                let (sender, driver) = http2::handshake(TokioExecutor::new(), stream).await?;
                tokio::spawn(driver);
                Ok(Self::Http2(sender))
            }
        }
    }

    async fn try_send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

impl Reply {
    /// What a status other than 2xx means for a batch, with what the body says of it (OTLP specification,
    /// "OTLP/HTTP Response"; Zipkin has no rule of its own). Whoever answers with a page for people, a login or a
    /// notice, has taken nothing, whatever the status.
    pub(super) fn refusal(&self, said: impl FnOnce() -> String) -> Option<Answer> {
        let status = self.status.as_u16();
        if self.status.is_success() {
            let why = || Answer::Later { wait: None, why: "the answer is a page for people".to_owned() };
            return self.is_page().then(why);
        }
        let why = match said() {
            said if said.is_empty() => format!("status {status}"),
            said => format!("status {status}: {said}"),
        };
        Some(match status {
            429 | 502..=504 => Answer::Later { wait: retry_after(&self.headers, SystemTime::now()), why },
            _ => Answer::Refused(why),
        })
    }

    fn is_page(&self) -> bool {
        let kind = self.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        kind.get(..PAGE.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(PAGE))
    }
}

const PAGE: &[u8] = b"text/html";

/// An error with its causes, as one sentence.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let error_text = error.to_string();
        if !text.contains(&error_text) {
            text = format!("{text}: {error_text}");
        }
        cause = error.source();
    }
    text
}

/// The most bytes of an answer that are read.
const MAX_ANSWER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::{Client, Version};
    use crate::setting::Secret;
    use crate::telemetry::settings::Receiver;
    use crate::telemetry::testing;

    fn client(endpoint: &str, timeout: Duration) -> Client {
        let headers = vec![(HeaderName::from_static("x-key"), Secret::new("opensesame"))];
        let settings = Receiver { headers, timeout, ..testing::receiver(endpoint) };
        let fields =
            HeaderMap::from_iter([("content-type".parse().unwrap(), HeaderValue::from_static("a/b"))]);
        Client::new(&settings, Version::Http1, None, fields).unwrap()
    }

    #[tokio::test]
    async fn it_keeps_its_connection_and_makes_another_when_that_has_been_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut heads = Vec::new();
            for requests in [2, 1] {
                let (mut stream, _) = listener.accept().await.unwrap();
                for _ in 0..requests {
                    let mut head = vec![0; 1024];
                    let read = stream.read(&mut head).await.unwrap();
                    heads.push(String::from_utf8_lossy(&head[..read]).into_owned());
                    stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                }
            }
            heads
        });
        let mut client = client(&format!("http://{address}/api/v2/spans?a=b"), Duration::from_secs(10));
        for _ in 0..3 {
            let reply = client.post(Bytes::from_static(b"spans")).await.unwrap();
            assert_eq!((reply.status.as_u16(), &reply.body[..]), (202, &b"ok"[..]));
        }
        for head in server.await.unwrap() {
            assert!(head.starts_with("POST /api/v2/spans?a=b HTTP/1.1\r\n"), "{head}");
            for field in [&*format!("host: {address}"), "content-type: a/b", "x-key: opensesame"] {
                assert!(head.contains(&format!("{field}\r\n")), "{head}");
            }
        }
        assert!(!format!("{client:?}").contains("opensesame"));
    }

    #[tokio::test]
    async fn a_receiver_that_never_answers_costs_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let why = client(&url, Duration::from_millis(20)).post(Bytes::new()).await.unwrap_err();
        assert_eq!(why, "no answer within 20ms");
    }

    #[tokio::test]
    async fn what_stands_in_the_way_is_told_with_its_cause() {
        for (url, expected) in [
            ("http://127.0.0.1:1/", "onnection refused"),
            ("http://no.such.host.invalid/", "no.such.host.invalid"),
        ] {
            let why = client(url, Duration::from_secs(10)).post(Bytes::new()).await.unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
    }
}
