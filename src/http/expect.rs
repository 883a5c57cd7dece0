//! `Expect: 100-continue` end to end: the client's body is asked for when the upstream wants it, not before.
//!
//! hyper sends `100 Continue` to the client at the first poll of the body, so the body is not polled until
//! the upstream said 100 or has been silent for [`EXPECT_WAIT`] (RFC 9110 section 10.1.1). An upstream that
//! answers at once never opens the gate: its answer goes back, and the body is never sent.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::Notify;
use tokio::time::Sleep;

/// How long an upstream may be silent before the body is sent all the same.
pub const EXPECT_WAIT: Duration = Duration::from_secs(1);

/// The most informational answers (1xx) taken from an upstream before one final answer.
pub const MAX_INFORMATIONAL: u32 = 32;

/// The informational answers of one attempt: read, counted, bounded, not passed on.
#[derive(Debug, Default)]
pub struct Informational {
    count: AtomicU32,
    continued: Notify,
    flooded: Notify,
}

impl Informational {
    /// The upstream sent a 1xx.
    pub fn came(&self, status: StatusCode) {
        if status == StatusCode::CONTINUE {
            self.continued.notify_one();
        }
        if self.count.fetch_add(1, Ordering::Relaxed) == MAX_INFORMATIONAL {
            self.flooded.notify_one();
        }
    }

    /// Ends when there were more than [`MAX_INFORMATIONAL`].
    pub async fn flood(&self) {
        self.flooded.notified().await;
    }
}

/// Holds a request's body back.
pub struct Gate {
    open: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    wait: Pin<Box<Sleep>>,
}

impl Gate {
    /// A gate that these informational answers open.
    pub fn new(informational: &Arc<Informational>) -> Self {
        let informational = Arc::clone(informational);
        Self {
            open: Box::pin(async move { informational.continued.notified().await }),
            wait: Box::pin(tokio::time::sleep(EXPECT_WAIT)),
        }
    }

    /// Ready when the body may be asked for.
    pub fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.open.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.wait.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}
