//! What the upstream sends, as it comes: counted by nobody here, bounded in standing still, ending its attempt.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::error::BodyError;
use super::stall::Stall;
use crate::failure::{Failure, Reason};
use crate::http::pool::Lease;
use crate::telemetry::{Attempt, Handle};
use crate::upstream::InFlight;

/// The body of an upstream's answer. Owns the attempt, the connection and the endpoint's place in flight:
/// they end with its last byte, or with its drop.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    stall: Stall,
    handle: Handle,
    attempt: Option<Attempt>,
    lease: Option<Lease>,
    broken: Option<BodyError>,
    _in_flight: InFlight,
}

impl UpstreamBody {
    /// The body that belongs to this attempt; it may stand still for `idle`.
    pub fn new(
        incoming: Incoming,
        idle: Option<Duration>,
        handle: Handle,
        attempt: Attempt,
        lease: Lease,
        in_flight: InFlight,
    ) -> Self {
        let (attempt, lease) = (Some(attempt), Some(lease));
        let stall = Stall::new(idle);
        let mut body = Self { incoming, stall, handle, attempt, lease, broken: None, _in_flight: in_flight };
        if body.incoming.is_end_stream() {
            body.end();
        }
        body
    }

    fn end(&mut self) {
        if let (Some(mut attempt), Some(lease)) = (self.attempt.take(), self.lease.take()) {
            lease.give_back(attempt.complete());
        }
    }

    /// The body breaks at the next poll: what came before it is written to the client meanwhile, the head
    /// above all, which hyper would otherwise drop unwritten.
    fn broken(
        &mut self,
        failure: &Failure,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.handle.fail(failure);
        if let Some(mut attempt) = self.attempt.take() {
            attempt.fail(failure);
        }
        self.lease = None;
        self.broken = Some(failure.into());
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl http_body::Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.broken {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending if self.stall.poll_over(cx) => {
                return self.broken(&Reason::StreamIdleTimeout.into(), cx);
            }
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        self.stall.moved();
        match frame {
            None => {
                self.end();
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                if let (Some(attempt), Some(data)) = (&mut self.attempt, frame.data_ref()) {
                    attempt.response_bytes(data.len());
                }
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                // a stated failure of the request's body (too large, too slow) is the cause, not the effect
                let failure =
                    Failure::from(self.handle.failure().unwrap_or((Reason::UpstreamTruncated, None)));
                self.broken(&failure.because(error), cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
