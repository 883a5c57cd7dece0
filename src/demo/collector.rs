//! A tiny OTLP receiver: spans over gRPC and over HTTP/protobuf on one loopback port.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::event::Event;
use super::forward::{Export, Forward};
use super::otlp::ExportTraceServiceRequest;
use super::service::BOUNDS;
use super::span::Span;
use crate::net::serve::{Bounds, serve};

/// Where received spans go.
#[derive(Debug, Clone)]
pub(super) struct Collector {
    /// Told of every span.
    pub(super) events: mpsc::Sender<Event>,
    /// A receiver that gets every export as well.
    pub(super) forward: Option<Forward>,
}

impl Collector {
    /// Serves on a free loopback port until told to stop.
    pub(super) async fn start(self, stop: CancellationToken) -> io::Result<(SocketAddr, JoinHandle<()>)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let service = service_fn(move |request: Request<Incoming>| {
            let collector = self.clone();
            async move {
                Ok::<_, Infallible>(match (request.method(), request.uri().path()) {
                    (&Method::POST, "/v1/traces") => collector.posted(request).await,
                    (&Method::POST, GRPC_PATH) => collector.called(request).await,
                    _ => answer(StatusCode::NOT_FOUND, "text/plain", Full::default().boxed()),
                })
            }
        });
        Ok((address, tokio::spawn(serve(listener, service, Bounds { http2: true, ..BOUNDS }, stop))))
    }

    /// OTLP/HTTP: a POST of protobuf, uncompressed.
    async fn posted(&self, request: Request<Incoming>) -> Response<Body> {
        let compressed = request.headers().contains_key(CONTENT_ENCODING);
        let status = match read(request).await {
            _ if compressed => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Some(message) if self.received(&message).await => StatusCode::OK,
            _ => StatusCode::BAD_REQUEST,
        };
        // an empty answer is the message that says nothing: all was taken in
        answer(status, "application/x-protobuf", Full::default().boxed())
    }

    /// OTLP/gRPC: a message, uncompressed, after a zero byte and its length.
    async fn called(&self, request: Request<Incoming>) -> Response<Body> {
        let body = read(request).await.unwrap_or_default();
        let status = match &body[..] {
            [1, ..] => GRPC_UNIMPLEMENTED,
            [0, _, _, _, _, message @ ..] if self.received(message).await => GRPC_OK,
            _ => GRPC_INVALID_ARGUMENT,
        };
        let mut trailers = HeaderMap::new();
        trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status));
        let nothing = Full::from(Bytes::from_static(&[0; 5])).with_trailers(ready(Some(Ok(trailers))));
        answer(StatusCode::OK, "application/grpc", nothing.boxed())
    }

    async fn received(&self, message: &[u8]) -> bool {
        let Ok(export) = ExportTraceServiceRequest::decode(message) else { return false };
        if let Some(forward) = &self.forward {
            let scopes = export.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
            let spans = scopes.map(|scope| scope.spans.len() as u64).sum();
            forward.send(Export { message: message.to_vec(), spans });
        }
        // nobody listens only when the demo has ended
        let _ = self.events.send(Event::Received(Span::received(export))).await;
        true
    }
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

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const GRPC_OK: &str = "0";
const GRPC_INVALID_ARGUMENT: &str = "3";
const GRPC_UNIMPLEMENTED: &str = "12";
/// The most bytes of one export.
const MAX_EXPORT: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use bytes::Bytes;
    use http::Request;
    use http_body_util::Full;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use prost::Message as _;
    use tokio::sync::mpsc;
    use tokio_util::sync::{CancellationToken, DropGuard};
    use tonic::Code;
    use tonic::codec::CompressionEncoding;
    use tonic::transport::Endpoint;

    use super::Collector;
    use crate::demo::event::Event;
    use crate::demo::forward::Forward;
    use crate::net::once;

    async fn running(forward: Option<Forward>) -> (SocketAddr, mpsc::Receiver<Event>, DropGuard) {
        let (events, received) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let (address, _) = Collector { events, forward }.start(stop.clone()).await.unwrap();
        (address, received, stop.drop_guard())
    }

    fn export(name: &str) -> ExportTraceServiceRequest {
        let span = Span { name: name.into(), trace_id: vec![1; 16], span_id: vec![2; 8], ..Span::default() };
        let nameless = Span { name: "no ids".into(), ..Span::default() };
        let scope_spans = vec![ScopeSpans { spans: vec![span, nameless], ..ScopeSpans::default() }];
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }],
        }
    }

    async fn names(received: &mut mpsc::Receiver<Event>) -> Vec<String> {
        match received.recv().await {
            Some(Event::Received(spans)) => spans.into_iter().map(|span| span.name).collect(),
            other => panic!("{other:?}"),
        }
    }

    async fn post(address: SocketAddr, request: http::request::Builder, body: impl Into<Bytes>) -> u16 {
        let request = request.body(Full::new(body.into())).unwrap();
        once::send(address, request, Duration::from_secs(5)).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn spans_are_received_over_grpc_but_for_compressed_ones() {
        let (address, mut received, _guard) = running(None).await;
        let channel = Endpoint::new(format!("http://{address}")).unwrap().connect_lazy();
        let client = TraceServiceClient::new(channel);
        client.clone().export(export("plain")).await.unwrap();
        assert_eq!(names(&mut received).await, ["plain"]);
        let refused = client.send_compressed(CompressionEncoding::Gzip).export(export("small")).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
        assert!(received.try_recv().is_err());
    }

    #[tokio::test]
    async fn spans_are_received_over_http_and_garbage_is_refused() {
        let (address, mut received, _guard) = running(None).await;
        let traces = || Request::post("/v1/traces");
        assert_eq!(post(address, traces(), export("posted").encode_to_vec()).await, 200);
        assert_eq!(names(&mut received).await, ["posted"]);
        assert_eq!(post(address, traces(), "no protobuf").await, 400);
        assert_eq!(post(address, traces().header("content-encoding", "gzip"), "").await, 415);
        assert!(received.try_recv().is_err());
    }

    #[tokio::test]
    async fn every_export_is_sent_on_if_wanted_and_counted_as_lost_if_nobody_is_there() {
        let (jaeger, mut arrived, _guard) = running(None).await;
        for (target, sent, lost) in [(format!("http://{jaeger}"), 2, 0), ("http://127.0.0.1:1".into(), 0, 2)]
        {
            let (forward, task) = Forward::start(&target.parse().unwrap()).unwrap();
            let (address, mut received, guard) = running(Some(forward)).await;
            assert_eq!(post(address, Request::post("/v1/traces"), export("one").encode_to_vec()).await, 200);
            assert_eq!(names(&mut received).await, ["one"]);
            drop(guard);
            // the collector's end is the forwarder's
            assert!(received.recv().await.is_none());
            let balance = task.await.unwrap();
            assert_eq!((balance.sent, balance.lost), (sent, lost), "{target}");
        }
        assert_eq!(names(&mut arrived).await, ["one"]);
    }
}
