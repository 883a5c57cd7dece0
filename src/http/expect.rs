//! `Expect: 100-continue` end to end, and the informational answers (1xx) it lives by.
//!
//! hyper sends `100 Continue` to the client at the first poll of the body, so the body is not polled until
//! the upstream said 100 or has been silent for [`EXPECT_WAIT`] (RFC 9110 section 10.1.1). An upstream that
//! answers at once never opens the gate: its answer goes back, and the body is never sent.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::StatusCode;
use tokio::time::Sleep;

/// How long an upstream may be silent before the body is sent all the same.
pub const EXPECT_WAIT: Duration = Duration::from_secs(1);

/// The most informational answers (1xx) taken from an upstream before one final answer.
pub const MAX_INFORMATIONAL: u32 = 32;

/// The informational answers of one attempt: read, counted, bounded, not passed on.
#[derive(Debug, Default)]
pub struct Informational {
    count: AtomicU32,
    continued: AtomicBool,
    exchange: AtomicWaker,
    gate: AtomicWaker,
}

impl Informational {
    /// The upstream sent a 1xx.
    pub fn came(&self, status: StatusCode) {
        if status == StatusCode::CONTINUE {
            self.continued.store(true, Ordering::Release);
            self.gate.wake();
        }
        if self.count.fetch_add(1, Ordering::AcqRel) == MAX_INFORMATIONAL {
            self.exchange.wake();
        }
    }

    /// Ready when there were more than [`MAX_INFORMATIONAL`].
    pub fn poll_flood(&self, cx: &Context<'_>) -> Poll<()> {
        self.exchange.register(cx.waker());
        if self.count.load(Ordering::Acquire) > MAX_INFORMATIONAL { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_continued(&self, cx: &Context<'_>) -> Poll<()> {
        self.gate.register(cx.waker());
        if self.continued.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Holds a request's body back.
#[derive(Debug)]
pub struct Gate {
    informational: Arc<Informational>,
    wait: Pin<Box<Sleep>>,
}

impl Gate {
    /// A gate that these informational answers open.
    pub fn new(informational: &Arc<Informational>) -> Self {
        Self { informational: Arc::clone(informational), wait: Box::pin(tokio::time::sleep(EXPECT_WAIT)) }
    }

    /// Ready when the body may be asked for.
    pub fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.informational.poll_continued(cx).is_ready() {
            return Poll::Ready(());
        }
        self.wait.as_mut().poll(cx)
    }
}
