//! Sends every export that the demo receives on to a receiver of the user's, such as Jaeger.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Uri;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// Takes exports without ever waiting; ends when the last clone is gone.
#[derive(Debug, Clone)]
pub(super) struct Forward {
    queue: mpsc::Sender<ExportTraceServiceRequest>,
    overflow: Arc<AtomicU64>,
}

/// How many spans were sent on.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Balance {
    pub(super) sent: u64,
    pub(super) lost: u64,
}

impl Forward {
    /// Sends to this receiver over gRPC.
    pub(super) fn start(target: &Uri) -> (Self, JoinHandle<Balance>) {
        let (queue, exports) = mpsc::channel(QUEUE);
        let overflow = Arc::new(AtomicU64::new(0));
        let channel = Endpoint::from(target.clone()).connect_timeout(TIMEOUT).timeout(TIMEOUT).connect_lazy();
        let task = tokio::spawn(run(TraceServiceClient::new(channel), exports, Arc::clone(&overflow)));
        (Self { queue, overflow }, task)
    }

    /// Takes a copy of an export, or counts its spans as lost if too many wait.
    pub(super) fn send(&self, export: &ExportTraceServiceRequest) {
        if let Err(TrySendError::Full(export) | TrySendError::Closed(export)) =
            self.queue.try_send(export.clone())
        {
            self.overflow.fetch_add(count(&export), Ordering::Relaxed);
        }
    }
}

async fn run(
    mut client: TraceServiceClient<Channel>,
    mut exports: mpsc::Receiver<ExportTraceServiceRequest>,
    overflow: Arc<AtomicU64>,
) -> Balance {
    let mut balance = Balance::default();
    while let Some(export) = exports.recv().await {
        let spans = count(&export);
        match client.export(export).await {
            Ok(_) => balance.sent += spans,
            Err(error) => {
                if balance.lost == 0 {
                    tracing::warn!(%error, "the receiver does not take the spans");
                }
                balance.lost += spans;
            }
        }
    }
    balance.lost += overflow.load(Ordering::Relaxed);
    balance
}

fn count(export: &ExportTraceServiceRequest) -> u64 {
    let scopes = export.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.map(|scope| scope.spans.len() as u64).sum()
}

/// Exports that wait.
const QUEUE: usize = 256;
/// For connecting, and for one export.
const TIMEOUT: Duration = Duration::from_secs(2);
