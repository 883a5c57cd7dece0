//! A tiny receiver of spans on a loopback port, for the demo and the lint: hands on what is posted to it, over
//! HTTP or as gRPC, as the bytes of a message.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::serve::{Bounds, serve};

/// The path that OTLP over gRPC posts spans to.
pub const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Serves on a free port until told to stop. Every uncompressed message is taken, with the path that it was
/// posted to, by `take`, which says what becomes of it: 200, 400 or 404.
pub async fn start<T, F>(take: T, stop: CancellationToken) -> io::Result<(SocketAddr, JoinHandle<()>)>
where
    T: Fn(String, Bytes) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = StatusCode> + Send,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let service = service_fn(move |request: Request<Incoming>| {
        let take = take.clone();
        async move {
            let grpc = request.headers().get(CONTENT_TYPE);
            let grpc = grpc.is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes()));
            Ok::<_, Infallible>(if grpc { called(request, take).await } else { posted(request, take).await })
        }
    });
    Ok((address, tokio::spawn(serve(listener, service, BOUNDS, stop))))
}

async fn posted<F: Future<Output = StatusCode>>(
    request: Request<Incoming>,
    take: impl Fn(String, Bytes) -> F,
) -> Response<Body> {
    let compressed = request.headers().contains_key(CONTENT_ENCODING);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let status = match read(request).await {
        _ if method != Method::POST => StatusCode::NOT_FOUND,
        _ if compressed => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Some(message) => take(path, message).await,
        None => StatusCode::BAD_REQUEST,
    };
    // an empty answer is the message that says nothing: all was taken in
    answer(status, "application/x-protobuf", Full::default().boxed())
}

/// OTLP/gRPC: a message, uncompressed, after a zero byte and its length.
async fn called<F: Future<Output = StatusCode>>(
    request: Request<Incoming>,
    take: impl Fn(String, Bytes) -> F,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let body = read(request).await.unwrap_or_default();
    let status = match &body[..] {
        [0, _, _, _, _, ..] => match take(path, body.slice(5..)).await {
            StatusCode::OK => GRPC_OK,
            StatusCode::NOT_FOUND => GRPC_UNIMPLEMENTED,
            _ => GRPC_INVALID_ARGUMENT,
        },
        [1, ..] => GRPC_UNIMPLEMENTED,
        _ => GRPC_INVALID_ARGUMENT,
    };
    let mut trailers = HeaderMap::new();
    trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status));
    let nothing = Full::from(Bytes::from_static(&[0; 5])).with_trailers(ready(Some(Ok(trailers))));
    answer(StatusCode::OK, GRPC, nothing.boxed())
}

type Body = BoxBody<Bytes, Infallible>;

async fn read(request: Request<Incoming>) -> Option<Bytes> {
    let body = Limited::new(request.into_body(), MAX_EXPORT).collect().await;
    body.ok().map(Collected::to_bytes)
}

fn answer(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

const GRPC: &str = "application/grpc";
const GRPC_OK: &str = "0";
const GRPC_INVALID_ARGUMENT: &str = "3";
const GRPC_UNIMPLEMENTED: &str = "12";
const BOUNDS: Bounds = Bounds {
    connections: 256,
    head: Duration::from_secs(30),
    age: Duration::from_hours(1),
    exchange: Duration::from_secs(1),
    grace: Duration::from_secs(1),
    http2: true,
};
/// The most bytes of one export.
const MAX_EXPORT: usize = 16 * 1024 * 1024;
