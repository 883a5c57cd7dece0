//! A tunnel: two connections that have agreed on a WebSocket. Bytes pass both ways as they come, and how it ends
//! is how its operation ends.
//!
//! Nothing is altered. A direction holds back what its receiver does not take, at most one piece, and is not
//! read meanwhile: a slow reader slows its sender and nobody else.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::stall::Stall;
use super::record::{Recorded, RecordedBody};
use super::upgrade::frames::Frames;
use crate::failure::{Failure, Reason};
use crate::telemetry::exchange::Side;

/// How long the other side may take to close after one has.
const CLOSING: Duration = Duration::from_secs(5);

/// How much is read at once.
const PIECE: usize = 8 << 10;

/// The close codes by which a server says that it failed: internal error, service restart, try again later, bad
/// gateway (RFC 6455 section 7.4.1 and the registry it makes).
const FAILED: std::ops::RangeInclusive<u16> = 1011..=1014;

/// Where a connection's exchange leaves its tunnel for the connection's own task.
#[derive(Debug, Default, Clone)]
pub(super) struct Handover(Arc<Mutex<Option<Tunnel>>>);

impl Handover {
    /// What the client is sent; a tunnel's own body stays here, and with it the operation.
    pub(super) fn keep(
        &self,
        client: OnUpgrade,
        answer: http::Response<RecordedBody>,
    ) -> http::Response<RecordedBody> {
        answer.map(|mut body| {
            let recorded = body.take_tunnel();
            let tunnel = recorded.map(|recorded| Tunnel { client, recorded });
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = tunnel;
            body
        })
    }

    /// The tunnel, if the connection has become one.
    pub(super) fn take(&self) -> Option<Tunnel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A tunnel that owns its operation. Dropped before its end, it was cut by whoever has said so, or by its client.
#[derive(Debug)]
pub(super) struct Tunnel {
    client: OnUpgrade,
    recorded: Recorded,
}

impl Tunnel {
    /// Passes bytes until the end, and states what kind of end it was.
    pub(super) async fn run(mut self) {
        let Some(agreed) = self.recorded.agreed() else { return };
        let (idle, Some(upstream)) = (agreed.idle(), agreed.upgrade()) else { return };
        let removal = agreed.removal();
        // the client's side breaks if it left before it had the answer
        let Ok(client) = self.client.await else { return };
        let Ok(upstream) = upstream.await else {
            return end(self.recorded, Some(Reason::UpstreamTruncated));
        };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        let (mut up, mut down) = (Way::default(), Way::default());
        let (mut stall, handle) = (Stall::new(idle), self.recorded.handle().clone());
        let Some(agreed) = self.recorded.agreed() else { return };
        let mut first_close = None;
        let mut ended = None;
        let mut closing = pin!(None::<tokio::time::Sleep>);
        let passing = poll_fn(|cx| {
            let before = up.passed + down.passed;
            let upwards = up.poll(cx, &mut client, &mut upstream, |bytes| handle.request_bytes(bytes));
            let downwards = down.poll(cx, &mut upstream, &mut client, |bytes| {
                handle.response_bytes(bytes);
                agreed.attempt().response_bytes(bytes);
            });
            let upwards_closed = up.frames.close().is_some();
            first_close = first_close.or_else(|| {
                let (side, way) = if upwards_closed { (Side::Client, &up) } else { (Side::Upstream, &down) };
                Some((side, way.frames.close()?.code))
            });
            // a side that ends is told by the way that reads from it or writes to it
            let side = match (&upwards, &downwards) {
                (Poll::Ready(Ended::Reading), _) | (_, Poll::Ready(Ended::Writing)) => Some(Side::Client),
                (_, Poll::Ready(Ended::Reading)) | (Poll::Ready(Ended::Writing), _) => Some(Side::Upstream),
                (Poll::Pending, Poll::Pending) => None,
            };
            ended = ended.or(side);
            match (&upwards, &downwards) {
                (Poll::Pending, Poll::Pending) if up.passed + down.passed != before => {
                    stall.moved();
                    let _ = stall.poll_over(cx);
                    Poll::Pending
                }
                (Poll::Pending, Poll::Pending) if stall.poll_over(cx) => Poll::Ready(true),
                (Poll::Pending, Poll::Pending) => Poll::Pending,
                // the client has sent its last byte: the upstream may still answer
                (Poll::Ready(Ended::Reading), Poll::Pending) => {
                    if closing.is_none() {
                        closing.set(Some(tokio::time::sleep(CLOSING)));
                    }
                    let timer = closing.as_mut().as_pin_mut().expect("set above");
                    ready!(timer.poll(cx));
                    Poll::Ready(false)
                }
                _ => Poll::Ready(false),
            }
        });
        let (idle_over, removed) = tokio::select! {
            idle_over = passing => (idle_over, false),
            () = removal.over() => (false, true),
        };
        if let Some((side, code)) = first_close {
            handle.closed(side, code);
        }
        let reason = match (first_close, ended) {
            (Some((Side::Upstream, code)), _) if FAILED.contains(&code) => Some(Reason::WebsocketClose),
            (Some(_), _) => None,
            (None, _) if removed => Some(Reason::RouteRemoved),
            (None, _) if idle_over => Some(Reason::StreamIdleTimeout),
            (None, Some(Side::Client)) => Some(Reason::ClientGone),
            (None, _) => Some(Reason::UpstreamTruncated),
        };
        end(self.recorded, reason);
    }
}

/// The end that was seen. What cut the connection on purpose has said so, and goes before.
fn end(mut recorded: Recorded, reason: Option<Reason>) {
    recorded.state_cut();
    let stated = recorded.handle().failure().map(Failure::from);
    let failure = stated.or_else(|| reason.map(Failure::new));
    if let Some(failure) = &failure {
        recorded.handle().fail(failure);
    }
    if let Some(agreed) = recorded.agreed() {
        match &failure {
            Some(failure) => agreed.attempt().fail(failure),
            None => {
                agreed.attempt().complete();
            }
        }
    }
    if failure.as_ref().is_none_or(|failure| failure.reason == Reason::WebsocketClose) {
        recorded.end();
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    frames: Frames,
    /// What has been read and not been taken.
    held: BytesMut,
    passed: u64,
    unflushed: bool,
    read_all: bool,
    ended: bool,
}

/// How a direction ended: at the side that it reads from, or at the one that it writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Reading,
    Writing,
}

impl Way {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        mut count: impl FnMut(usize),
    ) -> Poll<Ended> {
        if self.ended {
            return Poll::Ready(Ended::Reading);
        }
        let mut scratch = [0; PIECE];
        loop {
            while !self.held.is_empty() {
                match ready!(Pin::new(&mut *to).poll_write(cx, &self.held)) {
                    Ok(written) if written > 0 => self.held.advance(written),
                    _ => return Poll::Ready(Ended::Writing),
                }
            }
            if self.read_all {
                let shut: io::Result<()> = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.ended = true;
                return Poll::Ready(if shut.is_ok() { Ended::Reading } else { Ended::Writing });
            }
            let mut piece = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *from).poll_read(cx, &mut piece) {
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => {}
                Poll::Ready(_) => {
                    self.read_all = true;
                    continue;
                }
                Poll::Pending => {
                    if self.unflushed {
                        if ready!(Pin::new(&mut *to).poll_flush(cx)).is_err() {
                            return Poll::Ready(Ended::Writing);
                        }
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
            let piece = piece.filled();
            self.frames.saw(piece);
            self.passed += piece.len() as u64;
            self.unflushed = true;
            count(piece.len());
            let written = match Pin::new(&mut *to).poll_write(cx, piece) {
                Poll::Ready(Ok(written)) if written > 0 => written,
                Poll::Ready(_) => return Poll::Ready(Ended::Writing),
                Poll::Pending => 0,
            };
            self.held.extend_from_slice(&piece[written..]);
        }
    }
}
