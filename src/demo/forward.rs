//! Sends every export that the demo receives on to a receiver of the user's, such as Jaeger.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Uri;
use rustls::pki_types::ServerName;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinHandle;

use crate::net::tls::{ClientTls, client_config};
use crate::telemetry::receivers::otlp::OtlpReceiver;
use crate::telemetry::receivers::{Answer, Receiver as _};
use crate::telemetry::settings::{Otlp, OtlpProtocol, Receiver};

/// Takes exports without ever waiting; ends when the last clone is gone.
#[derive(Debug, Clone)]
pub(super) struct Forward {
    queue: mpsc::Sender<Export>,
    overflow: Arc<AtomicU64>,
}

/// How many spans were sent on.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Balance {
    pub(super) sent: u64,
    pub(super) lost: u64,
}

/// An encoded `ExportTraceServiceRequest`.
#[derive(Debug)]
pub(super) struct Export {
    pub(super) message: Vec<u8>,
    /// How many spans are in it.
    pub(super) spans: u64,
}

impl Forward {
    /// Sends to this receiver over gRPC.
    pub(super) fn start(target: &Uri) -> io::Result<(Self, JoinHandle<Balance>)> {
        let receiver = receiver(target).map_err(|error| io::Error::other(format!("{target}: {error}")))?;
        let (queue, exports) = mpsc::channel(QUEUE);
        let overflow = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(run(receiver, exports, Arc::clone(&overflow)));
        Ok((Self { queue, overflow }, task))
    }

    /// Takes an export, or counts its spans as lost if too many wait.
    pub(super) fn send(&self, export: Export) {
        if let Err(TrySendError::Full(export) | TrySendError::Closed(export)) = self.queue.try_send(export) {
            self.overflow.fetch_add(export.spans, Ordering::Relaxed);
        }
    }
}

fn receiver(target: &Uri) -> Result<OtlpReceiver, Box<dyn std::error::Error + Send + Sync>> {
    let host = target.host().ok_or("the address has no host")?;
    let tls = match target.scheme_str() {
        Some("https") => {
            let config = client_config(None, None, &[b"h2"])?;
            Some(ClientTls { config, server_name: ServerName::try_from(host.to_owned())? })
        }
        _ => None,
    };
    let settings = Receiver {
        endpoint: target.to_string().into(),
        tls,
        headers: Vec::new(),
        gzip: false,
        timeout: TIMEOUT,
        // what follows is for queues that batch
        queue: QUEUE,
        batch: 1,
        delay: Duration::ZERO,
        give_up_after: TIMEOUT,
    };
    let settings = Otlp { protocol: OtlpProtocol::Grpc, receiver: settings, metrics: None };
    Ok(OtlpReceiver::new(&settings, &BTreeMap::new())?)
}

async fn run(
    mut receiver: OtlpReceiver,
    mut exports: mpsc::Receiver<Export>,
    overflow: Arc<AtomicU64>,
) -> Balance {
    let mut balance = Balance::default();
    while let Some(Export { message, spans }) = exports.recv().await {
        match receiver.send(receiver.pack(message)).await {
            Answer::Accepted => balance.sent += spans,
            Answer::Partly { rejected, .. } => {
                let rejected = spans.min(rejected as u64);
                balance.sent += spans - rejected;
                balance.lost += rejected;
            }
            Answer::Refused(why) | Answer::Later { why, .. } => {
                if balance.lost == 0 {
                    tracing::warn!(why, "the receiver does not take the spans");
                }
                balance.lost += spans;
            }
        }
    }
    balance.lost += overflow.load(Ordering::Relaxed);
    balance
}

/// Exports that wait.
const QUEUE: usize = 256;
/// For one export.
const TIMEOUT: Duration = Duration::from_secs(2);
