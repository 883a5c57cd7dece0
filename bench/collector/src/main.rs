//! An OTLP receiver that counts spans: over gRPC and over HTTP/protobuf, gzip or not, on one loopback port.
//!
//! `GET /count` says how many exports, spans and bytes came; `GET /reset` begins anew; `GET /stall` takes exports
//! from then on without ever answering them.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{pending, ready};
use std::io::Read;
use std::rc::Rc;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// What has come so far.
#[derive(Default)]
struct Count {
    exports: Cell<u64>,
    spans: Cell<u64>,
    bytes: Cell<u64>,
    stalls: Cell<bool>,
}

fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(4317_u16);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, serve(port))
}

async fn serve(port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let count = Rc::new(Count::default());
    loop {
        let (stream, _) = listener.accept().await?;
        let count = Rc::clone(&count);
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| answer(request, Rc::clone(&count)));
            let connections = auto::Builder::new(Local);
            let _ = connections.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    count: Rc<Count>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let path = request.uri().path().to_owned();
    let compressed = request.headers().get("content-encoding").is_some_and(|coding| coding == "gzip");
    let grpc = request
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if count.stalls.get() && (grpc || path == "/v1/traces") {
        pending::<()>().await;
    }
    if grpc {
        let mut rest = &body[..];
        while let [flag, a, b, c, d, message @ ..] = rest {
            let length = (u32::from_be_bytes([*a, *b, *c, *d]) as usize).min(message.len());
            count.add(&message[..length], *flag == 1);
            rest = &message[length..];
        }
        let trailers =
            HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]);
        let nothing = Full::from(Bytes::from_static(&[0; 5])).with_trailers(ready(Some(Ok(trailers))));
        return Ok(typed("application/grpc", nothing.boxed()));
    }
    match path.as_str() {
        "/v1/traces" => {
            count.add(&body, compressed);
            Ok(typed("application/x-protobuf", Full::default().boxed()))
        }
        "/reset" => {
            for number in [&count.exports, &count.spans, &count.bytes] {
                number.set(0);
            }
            count.stalls.set(false);
            Ok(typed("application/json", Full::from("{}\n").boxed()))
        }
        "/stall" => {
            count.stalls.set(true);
            Ok(typed("application/json", Full::from("{}\n").boxed()))
        }
        _ => {
            let (exports, spans, bytes) = (count.exports.get(), count.spans.get(), count.bytes.get());
            let told = serde_json::json!({ "exports": exports, "spans": spans, "bytes": bytes });
            Ok(typed("application/json", Full::from(told.to_string()).boxed()))
        }
    }
}

impl Count {
    fn add(&self, message: &[u8], compressed: bool) {
        let mut plain = Vec::new();
        let read = !compressed || GzDecoder::new(message).read_to_end(&mut plain).is_ok();
        let spans = if compressed { count_spans(&plain) } else { count_spans(message) };
        let Some(spans) = spans.filter(|_| read) else {
            return eprintln!("an export of {} bytes cannot be read", message.len());
        };
        self.exports.set(self.exports.get() + 1);
        self.spans.set(self.spans.get() + spans);
        self.bytes.set(self.bytes.get() + message.len() as u64);
    }
}

/// The spans of an `ExportTraceServiceRequest`. What is in them is not looked at: the collector has the core of the load
/// and of the upstream, and while it works neither does.
fn count_spans(request: &[u8]) -> Option<u64> {
    const RESOURCE_SPANS: u32 = 1;
    const SCOPE_SPANS: u32 = 2;
    const SPANS: u32 = 2;
    let mut spans = 0;
    for resource in messages(request, RESOURCE_SPANS)? {
        for scope in messages(resource, SCOPE_SPANS)? {
            spans += messages(scope, SPANS)?.len() as u64;
        }
    }
    Some(spans)
}

/// What a message has of this field; `None` if it is none.
fn messages(mut message: &[u8], wanted: u32) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let (field, wire_type) = decode_key(&mut message).ok()?;
        if wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
            let (content, rest) = message.split_at_checked(length)?;
            message = rest;
            if field == wanted {
                found.push(content);
            }
        } else {
            skip_field(wire_type, field, &mut message, DecodeContext::default()).ok()?;
        }
    }
    Some(found)
}

fn typed(kind: &'static str, body: BoxBody<Bytes, Infallible>) -> Response<BoxBody<Bytes, Infallible>> {
    Response::builder().header("content-type", kind).body(body).expect("a valid answer")
}

/// Runs what is not `Send` where it was made.
#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}
