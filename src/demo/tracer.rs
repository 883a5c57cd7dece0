//! How an embedded service is traced: by OpenTelemetry's own SDK, as a real one would be. What it makes of the
//! context that the gateway sends, and what the gateway makes of its, is seen in the demo's trees.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer as _, TracerProvider};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_http::{HeaderExtractor, HeaderInjector, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider, Span};
use tokio::net::lookup_host;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::net::once;

/// Starts spans of one service.
#[derive(Debug, Clone)]
pub(super) struct Tracer {
    sdk: SdkTracer,
    _in_use: Arc<DropGuard>,
}

/// A span that goes on; it ends, and is sent, when it drops.
#[derive(Debug)]
pub(super) struct ActiveSpan {
    tracer: Tracer,
    span: Span,
    /// Whether the end was seen; a span that drops before was cut off.
    ended: bool,
}

impl Tracer {
    /// A tracer for this service. The task ends when the tracer, its clones and its spans are gone and the
    /// last span has been sent.
    pub(super) fn start(service: &'static str, collector: String) -> (Self, JoinHandle<()>) {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("http://{collector}/v1/traces"))
            .with_http_client(Client { collector: collector.into(), runtime: Handle::current() })
            .with_timeout(TIMEOUT)
            .build()
            .expect("a client is there and the endpoint is a URL");
        let soon = BatchConfigBuilder::default().with_scheduled_delay(DELAY).build();
        let provider = SdkTracerProvider::builder()
            .with_resource(Resource::builder().with_service_name(service).build())
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(soon).build())
            .build();
        let over = CancellationToken::new();
        let tracer =
            Self { sdk: provider.tracer("tracegate.demo"), _in_use: over.clone().drop_guard().into() };
        let task = tokio::spawn(async move {
            over.cancelled().await;
            // it waits for its own thread, which waits for an export on this runtime
            let last = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(TIMEOUT)).await;
            if let Ok(Err(error)) = last {
                tracing::warn!(service, %error, "spans were lost");
            }
        });
        (tracer, task)
    }

    /// The span of a request that this service got, under the caller's.
    pub(super) fn server(&self, headers: &HeaderMap, name: &str) -> ActiveSpan {
        let caller =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
        self.span(&caller, SpanKind::Server, name)
    }

    fn span(&self, parent: &Context, kind: SpanKind, name: &str) -> ActiveSpan {
        let span =
            self.sdk.span_builder(name.to_owned()).with_kind(kind).start_with_context(&self.sdk, parent);
        ActiveSpan { tracer: self.clone(), span, ended: false }
    }
}

impl ActiveSpan {
    /// A span under this one.
    pub(super) fn child(&self, kind: SpanKind, name: &str) -> Self {
        self.tracer.span(&self.context(), kind, name)
    }

    /// Tells a called service the context that makes its span stand under this one.
    pub(super) fn inject(&self, headers: &mut HeaderMap) {
        TraceContextPropagator::new().inject_context(&self.context(), &mut HeaderInjector(headers));
    }

    fn context(&self) -> Context {
        Context::new().with_remote_span_context(self.span.span_context().clone())
    }

    /// Gives the span its final name, once it is known.
    pub(super) fn rename(&mut self, name: String) {
        self.span.update_name(name);
    }

    /// States an attribute.
    pub(super) fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.span.set_attribute(KeyValue::new(key, value));
    }

    /// Ends the span: it did what it should.
    pub(super) fn end(mut self) {
        self.ended = true;
    }

    /// Ends the span as failed, with the value of `error.type`.
    pub(super) fn fail(mut self, error_type: &str) {
        self.ended = true;
        self.failed(error_type);
    }

    fn failed(&mut self, error_type: &str) {
        self.set("error.type", error_type.to_owned());
        self.span.set_status(Status::error(""));
    }
}

impl Drop for ActiveSpan {
    fn drop(&mut self) {
        if !self.ended {
            self.failed("cancelled");
        }
        self.span.end();
    }
}

/// Sends exports to the collector. The SDK asks from a thread of its own, which knows no runtime.
#[derive(Debug)]
struct Client {
    /// Its host and port; the name is looked up anew for each export.
    collector: Arc<str>,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let collector = Arc::clone(&self.collector);
        let export = async move {
            let address = lookup_host(&*collector).await?.next().ok_or(io::ErrorKind::NotFound)?;
            once::send(address, request.map(Full::new), TIMEOUT).await
        };
        Ok(self.runtime.spawn(export).await??)
    }
}

/// For one export, and for the last one.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long finished spans wait for others: they are to be seen at once.
const DELAY: Duration = Duration::from_millis(100);
