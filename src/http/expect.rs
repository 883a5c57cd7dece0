//! `Expect: 100-continue` end to end.
//!
//! hyper sends `100 Continue` to the client at the first poll of the body, so the body is not polled until
//! the upstream said 100 or has been silent for [`EXPECT_WAIT`] (RFC 9110 section 10.1.1). An upstream that
//! answers at once never opens the gate: its answer goes back, and the body is never sent.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::StatusCode;
use tokio::time::Sleep;

/// How long an upstream may be silent before the body is sent all the same.
pub const EXPECT_WAIT: Duration = Duration::from_secs(1);

/// Whether the upstream has asked for the body: the one thing that its informational answers are read for.
#[derive(Debug, Default)]
pub struct Continue {
    came: AtomicBool,
    gate: AtomicWaker,
}

impl Continue {
    /// The upstream sent a 1xx.
    pub fn informed(&self, status: StatusCode) {
        if status == StatusCode::CONTINUE {
            self.came.store(true, Ordering::Release);
            self.gate.wake();
        }
    }

    fn poll_came(&self, cx: &Context<'_>) -> Poll<()> {
        self.gate.register(cx.waker());
        if self.came.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Holds a request's body back.
#[derive(Debug)]
pub struct Gate {
    asked: Arc<Continue>,
    wait: Pin<Box<Sleep>>,
}

impl Gate {
    /// A gate that opens when the upstream has asked.
    pub fn new(asked: &Arc<Continue>) -> Self {
        Self { asked: Arc::clone(asked), wait: Box::pin(tokio::time::sleep(EXPECT_WAIT)) }
    }

    /// Ready when the body may be asked for.
    pub fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.asked.poll_came(cx).is_ready() {
            return Poll::Ready(());
        }
        self.wait.as_mut().poll(cx)
    }
}
