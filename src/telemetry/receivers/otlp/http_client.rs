//! The HTTP client of opentelemetry-otlp: hyper with our own TLS, one connection, and eyes for the answer.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, RETRY_AFTER};
use http::uri::{Scheme, Uri};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use opentelemetry_http::HttpError;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::net::tls;

/// Posts to one server over a connection that is kept. Whoever calls it bounds the time.
#[derive(Debug)]
pub(super) struct HttpClient {
    host: Box<str>,
    port: u16,
    authority: HeaderValue,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    kept: tokio::sync::Mutex<Option<Connection>>,
    seen: Mutex<Option<Seen>>,
}

type Connection = SendRequest<Full<Bytes>>;

/// What the exporting library does not tell of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) rejected_spans: usize,
}

impl HttpClient {
    /// A client for this URL's server, which trusts these authorities, or the public ones.
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, HttpError> {
        let url: Uri = url.parse()?;
        let authority = url.authority().ok_or("the endpoint has no host")?;
        let host = authority.host().trim_matches(['[', ']']);
        let tls = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => {
                Some((tls::client_config(ca_file, None, &[])?, ServerName::try_from(host.to_owned())?))
            }
            _ => None,
        };
        Ok(Self {
            host: host.into(),
            port: authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 }),
            authority: HeaderValue::from_str(authority.as_str())?,
            tls,
            kept: tokio::sync::Mutex::new(None),
            seen: Mutex::new(None),
        })
    }

    /// What was seen of the last answer, once.
    pub(super) fn take_seen(&self) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn post(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = request.into_parts();
        head.uri = head.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
        head.headers.insert(HOST, self.authority.clone());
        let request = Request::from_parts(head, Full::new(body));

        let mut kept = self.kept.lock().await;
        let (connection, response) = self.send(kept.take(), request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        *kept = Some(connection);

        let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Seen {
            status: head.status.as_u16(),
            retry_after: retry_after.map(Duration::from_secs),
            rejected_spans: if head.status.is_success() { rejected_spans(&body) } else { 0 },
        });
        Ok(Response::from_parts(head, body))
    }

    async fn send(
        &self,
        kept: Option<Connection>,
        request: Request<Full<Bytes>>,
    ) -> Result<(Connection, Response<Incoming>), HttpError> {
        let mut request = request;
        if let Some(mut connection) = kept {
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((connection, response)),
                // closed meanwhile: what was not sent may be sent on a new connection
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.send_request(request).await?;
        Ok((connection, response))
    }

    async fn connect(&self) -> Result<Connection, HttpError> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => handshake(stream).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                handshake(connector.connect(name.clone(), stream).await?).await
            }
        }
    }
}

impl opentelemetry_http::HttpClient for HttpClient {
    fn send_bytes<'client, 'sending>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sending>>
    where
        'client: 'sending,
        Self: 'sending,
    {
        Box::pin(self.post(request))
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Connection, HttpError> {
    let (connection, driver) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    Ok(connection)
}

fn rejected_spans(body: &Bytes) -> usize {
    let answer = ExportTraceServiceResponse::decode(body.clone()).unwrap_or_default();
    let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
    usize::try_from(rejected).unwrap_or(0)
}

/// The most bytes of an answer that are read.
const MAX_ANSWER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::Request;
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceResponse,
    };
    use prost::Message as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::{HttpClient, Seen};

    fn partial_success(rejected_spans: i64) -> Vec<u8> {
        let partial = ExportTracePartialSuccess { rejected_spans, error_message: String::new() };
        ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
    }

    #[tokio::test]
    async fn it_sees_what_the_library_does_not_tell_and_keeps_its_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let partial = partial_success(7);
        let answers = [
            [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", partial.len()).into_bytes(), partial]
                .concat(),
            b"HTTP/1.1 503 Away\r\nretry-after: 3\r\ncontent-length: 0\r\n\r\n".to_vec(),
        ];
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heads = Vec::new();
            for answer in answers {
                let mut head = vec![0; 1024];
                let read = stream.read(&mut head).await.unwrap();
                heads.push(String::from_utf8_lossy(&head[..read]).into_owned());
                stream.write_all(&answer).await.unwrap();
            }
            heads
        });

        let url = format!("http://{address}/v1/traces");
        let client = HttpClient::new(&url, None).unwrap();
        let expected = [
            Seen { status: 200, retry_after: None, rejected_spans: 7 },
            Seen { status: 503, retry_after: Some(Duration::from_secs(3)), rejected_spans: 0 },
        ];
        for expected in expected {
            client.post(Request::post(&url).body(Bytes::from_static(b"spans")).unwrap()).await.unwrap();
            assert_eq!(client.take_seen(), Some(expected));
            assert_eq!(client.take_seen(), None);
        }
        for head in server.await.unwrap() {
            assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
            assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
        }
    }
}
