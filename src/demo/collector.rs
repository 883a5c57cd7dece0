//! A tiny OTLP receiver: spans over gRPC and over HTTP/protobuf on one loopback port.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::event::Event;
use super::forward::{Export, Forward};
use super::otlp::ExportTraceServiceRequest;
use super::span::Span;
use crate::net::collect;

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
        let take = move |path, message| {
            let collector = self.clone();
            async move { collector.received(path, message).await }
        };
        collect::start(take, stop).await
    }

    async fn received(&self, path: String, message: Bytes) -> StatusCode {
        if !["/v1/traces", collect::GRPC_PATH].contains(&&*path) {
            return StatusCode::NOT_FOUND;
        }
        let Ok(export) = ExportTraceServiceRequest::decode(&*message) else { return StatusCode::BAD_REQUEST };
        if let Some(forward) = &self.forward {
            let scopes = export.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
            let spans = scopes.map(|scope| scope.spans.len() as u64).sum();
            forward.send(Export { message: message.to_vec(), spans });
        }
        // nobody listens only when the demo has ended
        let _ = self.events.send(Event::Received(Span::received(export))).await;
        StatusCode::OK
    }
}

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
