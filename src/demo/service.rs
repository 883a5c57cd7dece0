//! What the embedded services share: a free port, a JSON request in, a JSON answer out, a span around it.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::tracer::{ActiveSpan, Tracer};
use crate::net::serve::{Bounds, serve};

/// A service of the demo.
pub(super) trait Service: Send + Sync + 'static {
    /// Answers a call, asked for by method and segments of the path.
    fn answer(
        &self,
        asked: (&str, &[&str]),
        call: &mut Call,
    ) -> impl Future<Output = Result<Answer, Break>> + Send;
}

/// A request to a service.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    /// The request's JSON, or null.
    pub(super) body: Value,
    /// The SERVER span around the call.
    pub(super) span: ActiveSpan,
}

/// An answer of a service.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
    /// The order it is about, told in `x-order-id` and in the body.
    pub(super) order: Option<String>,
}

/// The service breaks the connection instead of answering.
#[derive(Debug)]
pub(super) struct Break;

impl Call {
    /// The template this call matches: the span's name and route.
    pub(super) fn matched(&mut self, template: &str) {
        self.span.rename(format!("{} {template}", self.method));
        self.span.set("http.route", template.to_owned());
    }
}

impl Answer {
    /// An answer with this body.
    pub(super) fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body, order: None }
    }

    /// An answer that says what went wrong.
    pub(super) fn error(status: StatusCode, error: &str) -> Self {
        Self::new(status, json!({ "error": error }))
    }

    /// The same answer, about this order.
    pub(super) fn about(mut self, order: &str) -> Self {
        self.body["order_id"] = order.into();
        self.order = Some(order.to_owned());
        self
    }
}

/// Serves on this address until told to stop.
pub(super) async fn start<S: Service>(
    address: SocketAddr,
    service: Arc<S>,
    tracer: Tracer,
    stop: CancellationToken,
) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let serving = service_fn(move |request| exchange(Arc::clone(&service), tracer.clone(), request));
    Ok((address, tokio::spawn(serve(listener, serving, BOUNDS, stop))))
}

async fn exchange<S: Service>(
    service: Arc<S>,
    tracer: Tracer,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    if head.uri.path() == HEALTH {
        return Ok(Response::new(Full::from("ok")));
    }
    let mut span = tracer.server(&head.headers, head.method.as_str());
    span.set("http.request.method", head.method.as_str().to_owned());
    span.set("url.scheme", "http");
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(io::Error::other)?.to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let segments: Vec<&str> = head.uri.path().split('/').skip(1).collect();
    let mut call = Call { method: head.method.clone(), body, span };
    let Ok(answer) = service.answer((head.method.as_str(), &segments), &mut call).await else {
        call.span.fail("connection_reset");
        // hyper closes the connection without a word
        return Err(io::ErrorKind::ConnectionReset.into());
    };
    let mut span = call.span;
    span.set("http.response.status_code", i64::from(answer.status.as_u16()));
    if let Some(order) = &answer.order {
        span.set("order.id", order.clone());
    }
    if answer.status.is_server_error() {
        span.fail(answer.status.as_str());
    } else {
        span.end();
    }
    let mut response = Response::new(Full::from(answer.body.to_string()));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(order) = answer.order.and_then(|order| HeaderValue::try_from(order).ok()) {
        response.headers_mut().insert("x-order-id", order);
    }
    Ok(response)
}

/// A free port of the loopback interface.
pub(super) const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Where a service says that it is there, untraced.
const HEALTH: &str = "/healthz";
/// What the clients of a service may take up. Idle connections outlive those of the gateway's pool.
pub(super) const BOUNDS: Bounds = Bounds {
    connections: 256,
    head: Duration::from_secs(30),
    age: Duration::from_hours(1),
    exchange: Duration::from_secs(1),
    grace: Duration::from_secs(1),
    http2: false,
};
/// The most bytes of a request.
const MAX_BODY: usize = 64 * 1024;
