//! What the upstream sends, as it comes: counted by nobody here, bounded in standing still, ending its attempt.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::error::BodyError;
use super::stall::Stall;
use crate::failure::{Detail, Failure, Reason};
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
        let mut body =
            Self { incoming, stall: Stall::new(idle), handle, attempt, lease, _in_flight: in_flight };
        if body.incoming.is_end_stream() {
            body.end();
        }
        body
    }

    fn end(&mut self) {
        if let Some(mut attempt) = self.attempt.take() {
            attempt.complete();
        }
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    fn broken(&mut self, failure: &Failure) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.handle.fail(failure);
        if let Some(mut attempt) = self.attempt.take() {
            attempt.fail(failure);
        }
        self.lease = None;
        Poll::Ready(Some(Err(failure.into())))
    }
}

impl http_body::Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending if self.stall.poll_over(cx) => {
                return self.broken(&Failure::new(Reason::StreamIdleTimeout));
            }
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        self.stall.moved();
        match frame {
            None => self.end(),
            Some(Ok(_)) if self.incoming.is_end_stream() => self.end(),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                // a stated failure of the request's body (too large, too slow) is the cause, not the effect
                let truncated = (Reason::UpstreamTruncated, Some(Detail::InBody));
                let failure = Failure::from(self.handle.failure().unwrap_or(truncated));
                return self.broken(&failure.because(error));
            }
        }
        Poll::Ready(
            frame.map(|frame| frame.map_err(|_| BodyError::from(&Failure::new(Reason::UpstreamTruncated)))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
