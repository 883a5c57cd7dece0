//! A tiny OTLP receiver: spans over gRPC and over HTTP/protobuf on one loopback port.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::{Status, async_trait};
use tower::ServiceExt;

use super::event::Event;
use super::forward::Forward;
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
        let grpc = TraceServiceServer::new(self.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MAX_EXPORT);
        let service = service_fn(move |request: Request<Incoming>| {
            let (collector, grpc) = (self.clone(), grpc.clone());
            async move {
                match (request.method(), request.uri().path()) {
                    (&Method::POST, "/v1/traces") => Ok::<_, Infallible>(collector.posted(request).await),
                    _ => grpc.oneshot(request).await,
                }
            }
        });
        Ok((address, tokio::spawn(serve(listener, service, Bounds { http2: true, ..BOUNDS }, stop))))
    }

    /// OTLP/HTTP: a POST of protobuf, uncompressed.
    async fn posted(&self, request: Request<Incoming>) -> Response<Body> {
        if request.headers().contains_key(CONTENT_ENCODING) {
            return answer(StatusCode::UNSUPPORTED_MEDIA_TYPE, Bytes::new());
        }
        let body = Limited::new(request.into_body(), MAX_EXPORT).collect().await;
        let export = body.ok().and_then(|body| ExportTraceServiceRequest::decode(body.to_bytes()).ok());
        let Some(export) = export else {
            return answer(StatusCode::BAD_REQUEST, Bytes::new());
        };
        self.received(export).await;
        answer(StatusCode::OK, ExportTraceServiceResponse::default().encode_to_vec().into())
    }

    async fn received(&self, export: ExportTraceServiceRequest) {
        if let Some(forward) = &self.forward {
            forward.send(&export);
        }
        // nobody listens only when the demo has ended
        let _ = self.events.send(Event::Received(Span::received(export))).await;
    }
}

#[async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        self.received(request.into_inner()).await;
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn answer(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut answer = Response::new(Body::new(Full::new(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    answer
}

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
    use prost::Message;
    use tokio::sync::mpsc;
    use tokio_util::sync::{CancellationToken, DropGuard};
    use tonic::codec::CompressionEncoding;

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
    async fn spans_are_received_over_grpc_plain_and_compressed() {
        let (address, mut received, _guard) = running(None).await;
        let client = TraceServiceClient::connect(format!("http://{address}")).await.unwrap();
        client.clone().export(export("plain")).await.unwrap();
        assert_eq!(names(&mut received).await, ["plain"]);
        client.send_compressed(CompressionEncoding::Gzip).export(export("small")).await.unwrap();
        assert_eq!(names(&mut received).await, ["small"]);
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
            let (forward, task) = Forward::start(&target.parse().unwrap());
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
