//! One page from one URL, over a connection of its own: for what the gateway reads now and then.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST, USER_AGENT};
use http::response::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::tls::{self, ClientTls};
use super::{Name, Resolver, Socket, Stream, dial};

/// A page to be fetched.
#[derive(Debug)]
pub struct Page {
    target: PathAndQuery,
    host: HeaderValue,
    name: Name,
    port: u16,
    tls: Option<ClientTls>,
    authorization: Option<HeaderValue>,
}

/// A page whose body is still to come. Dropped, it closes the connection.
#[derive(Debug)]
pub struct Coming {
    /// The answer's head.
    pub head: Parts,
    /// The answer's body.
    pub body: Incoming,
    _sender: SendRequest<Empty<Bytes>>,
    _driven: AbortOnDropHandle<hyper::Result<()>>,
}

impl Page {
    /// The page at this URL, which has been checked to have a host; over TLS if that is given.
    pub fn new(url: &Uri, tls: Option<ClientTls>, resolver: &Resolver) -> Self {
        let host = url.host().unwrap_or_default();
        let port = url.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let authority = url.authority().map_or("", |authority| authority.as_str());
        Self {
            target: url.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")),
            host: HeaderValue::from_str(authority).expect("an authority may stand in a field"),
            name: resolver.name(host.trim_matches(['[', ']'])),
            port,
            tls,
            authorization: None,
        }
    }

    /// The same page, asked for with this in `Authorization`.
    #[must_use]
    pub fn with_authorization(self, authorization: HeaderValue) -> Self {
        Self { authorization: Some(authorization), ..self }
    }

    /// Fetches it within this time, if it has at most so many bytes. The error is a sentence for the operator.
    pub async fn get(&self, most: usize, within: Duration) -> Result<Response<Bytes>, String> {
        let deadline = Instant::now() + within;
        let fetched = timeout_at(deadline, self.exchange(most, deadline)).await;
        fetched.unwrap_or_else(|_| Err(format!("no answer within {within:?}")))
    }

    /// Asks for it and waits this long for the head; the body takes the time it takes. The error is a sentence for
    /// the operator.
    pub async fn open(&self, within: Duration) -> Result<Coming, String> {
        let deadline = Instant::now() + within;
        let opened = timeout_at(deadline, self.begin(deadline)).await;
        opened.unwrap_or_else(|_| Err(format!("no answer within {within:?}")))
    }

    async fn exchange(&self, most: usize, deadline: Instant) -> Result<Response<Bytes>, String> {
        let Coming { head, body, _sender, _driven } = self.begin(deadline).await?;
        let body = Limited::new(body, most).collect().await.map_err(|error| error.to_string())?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    async fn begin(&self, deadline: Instant) -> Result<Coming, String> {
        let left = || deadline.saturating_duration_since(Instant::now());
        let told = |failure: crate::failure::Failure| {
            let source = std::error::Error::source(&failure).map(|source| format!(": {source}"));
            format!("{failure}{}", source.unwrap_or_default())
        };
        let addresses = self.name.addresses(left()).await.map_err(told)?;
        let addresses: Vec<_> = addresses.iter().map(|address| (*address, self.port).into()).collect();
        let stream = Socket::tcp(dial(&addresses, left()).await.map_err(told)?.stream);
        let stream = match &self.tls {
            None => Stream::Plain(stream),
            Some(tls) => {
                let connected = tls::connect(&tls.config, tls.server_name.clone(), stream).await;
                Stream::Tls(Box::new(connected.map_err(told)?.0))
            }
        };
        let broken = |error: hyper::Error| error.to_string();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driven = AbortOnDropHandle::new(tokio::spawn(connection));
        let mut request = Request::get(Uri::from(self.target.clone()))
            .header(HOST, &self.host)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("tracegate/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .expect("a target and plain fields");
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        Ok(Coming { head, body, _sender: sender, _driven: driven })
    }
}
