//! How much an upstream may send before its answer's head is there: informational answers (1xx) have no end of
//! their own, and HTTP/1.1 libraries pass over them one by one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::error::BodyError;
use crate::failure::{Detail, Reason};

/// The most bytes of informational answers before one final answer.
pub const INFORMATIONAL_BYTES: usize = 64 << 10;

/// The bytes that may still come, shared by a connection and whoever waits for a head on it.
#[derive(Debug, Clone)]
pub struct Headroom(Arc<AtomicUsize>);

impl Default for Headroom {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(UNBOUNDED)))
    }
}

impl Headroom {
    /// A head is waited for, which is to come within so many bytes.
    pub fn await_head(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// The head is there: what comes now is bounded by others.
    pub fn head_came(&self) {
        self.0.store(UNBOUNDED, Ordering::Relaxed);
    }

    /// So many bytes came.
    fn used(&self, bytes: usize) {
        let left = self.0.load(Ordering::Relaxed);
        if left != UNBOUNDED {
            // lost if the head is seen at this very moment: the next request on the connection starts afresh
            let rest = left.saturating_sub(bytes);
            let _ = self.0.compare_exchange(left, rest, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Everything has come that may, and no head was in it. It is asked before the next read: what has been read
    /// already may hold the head, and the beginning of a body.
    fn is_used_up(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// An upstream's connection that is broken off when its headroom is used up.
#[derive(Debug)]
pub struct Bounded<S> {
    stream: S,
    headroom: Headroom,
}

impl<S> Bounded<S> {
    /// The connection with this headroom.
    pub fn new(stream: S, headroom: Headroom) -> Self {
        Self { stream, headroom }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.headroom.is_used_up() {
            let (reason, detail) = (Reason::UpstreamProtocolError, Some(Detail::InformationalFlood));
            return Poll::Ready(Err(io::Error::other(BodyError { reason, detail })));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.headroom.used(buffer.filled().len() - before);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// No head is waited for.
const UNBOUNDED: usize = usize::MAX;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::{Bounded, Headroom};

    #[tokio::test]
    async fn what_comes_before_a_head_is_bounded_and_what_comes_after_is_not() {
        let headroom = Headroom::default();
        let mut stream = Bounded::new(&[7_u8; 64][..], headroom.clone());
        let mut buffer = [0; 8];
        for await_head in [false, true] {
            if await_head {
                headroom.await_head(12);
            }
            for _ in 0..2 {
                assert_eq!(stream.read(&mut buffer).await.expect("within the bound"), 8);
            }
        }
        assert!(stream.read(&mut buffer).await.is_err(), "16 of 12 bytes have come");
        headroom.head_came();
        assert_eq!(stream.read(&mut buffer).await.expect("the head is there"), 8);
    }
}
