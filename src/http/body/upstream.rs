//! What the upstream sends, as it comes: counted by nobody here, bounded in time, ending its attempt.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::end::is_last;
use super::error::BodyError;
use super::request::Progress;
use super::stall::Stall;
use crate::failure::{Detail, Failure, Reason};
use crate::http::grpc::{self, Call};
use crate::http::headers::strip_trailers;
use crate::http::pool::Lease;
use crate::http::removal::{Removal, Watched};
use crate::listener::timeouts::Pace;
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
    /// When the exchange is over, if it has to be.
    ends: Option<Pin<Box<Sleep>>>,
    call: Option<Box<Called>>,
    removal: Watched,
    in_flight: InFlight,
}

/// A call of gRPC that this is the answer to.
#[derive(Debug)]
struct Called {
    deadline: Option<Pin<Box<Sleep>>>,
    /// Its messages may come while the answer's do not.
    request: Progress,
    moves: u32,
    is_over: bool,
}

impl UpstreamBody {
    /// The body that belongs to this attempt, at this pace or faster; it ends early when its route's time is over.
    pub fn new(
        incoming: Incoming,
        pace: Option<Pace>,
        handle: Handle,
        attempt: Attempt,
        lease: Lease,
        in_flight: InFlight,
        removal: Arc<Removal>,
    ) -> Self {
        let (attempt, lease) = (Some(attempt), Some(lease));
        let stall = Stall::at(pace);
        let (ends, call, removal) = (None, None, Watched::new(removal));
        let mut body = Self { incoming, stall, handle, attempt, lease, ends, call, removal, in_flight };
        if body.incoming.is_end_stream() {
            body.end();
        }
        body
    }

    /// It is over by then, whatever is missing of it.
    pub(in crate::http) fn end_by(&mut self, ends: Instant) {
        if self.attempt.is_some() {
            self.ends = Some(Box::pin(tokio::time::sleep_until(ends)));
        }
    }

    /// When it is over, if it has to be.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.ends.as_ref().map(|ends| ends.deadline())
    }

    /// It answers this call, whose head had no status; the request's messages may still come.
    pub(in crate::http) fn answers(&mut self, call: Call, request: Progress) {
        if self.attempt.is_none() {
            // no trailers either
            return grpc::ended(&self.handle, None, &mut self.in_flight, grpc::UNKNOWN);
        }
        let deadline = call.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        let moves = request.moves();
        self.call = Some(Box::new(Called { deadline, request, moves, is_over: false }));
    }

    /// How the call ended, by its trailers.
    fn call_ended(&mut self, trailers: Option<&HeaderMap>) {
        if self.call.is_some() {
            let status = trailers.and_then(grpc::status).unwrap_or(grpc::UNKNOWN);
            grpc::ended(&self.handle, self.attempt.as_mut(), &mut self.in_flight, status);
        }
    }

    /// Nothing has come for too long, in either direction where a call's messages go both ways.
    fn is_stalled(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(call) = &mut self.call {
            let moves = call.request.moves();
            if moves != call.moves {
                call.moves = moves;
                self.stall.moved();
            }
        }
        self.stall.poll_over(cx)
    }

    /// The time that the client gave the call is over: the messages end here, with a status.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Frame<Bytes>> {
        let Some(call) = &mut self.call else { return Poll::Pending };
        let Some(deadline) = &mut call.deadline else { return Poll::Pending };
        ready!(deadline.as_mut().poll(cx));
        let failure = Failure::new(Reason::UpstreamTimeout).detail(Detail::GrpcTimeout);
        Poll::Ready(self.end_call(&failure))
    }

    /// The call's answer ends here, with a status.
    fn end_call(&mut self, failure: &Failure) -> Frame<Bytes> {
        if let Some(call) = &mut self.call {
            call.is_over = true;
        }
        self.handle.fail(failure);
        if let Some(mut attempt) = self.attempt.take() {
            attempt.fail(failure);
        }
        self.lease = None;
        Frame::trailers(grpc::ending(failure.reason))
    }

    /// The route has been removed, and the grace is over.
    fn removed(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let failure = Failure::from(Reason::RouteRemoved);
        if self.call.is_some() {
            return Poll::Ready(Some(Ok(self.end_call(&failure))));
        }
        self.broken(&failure)
    }

    /// The time for the whole exchange is over.
    fn too_long(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let failure = Failure::new(Reason::UpstreamTimeout).detail(Detail::Total);
        if self.call.is_some() {
            return Poll::Ready(Some(Ok(self.end_call(&failure))));
        }
        self.broken(&failure)
    }

    fn is_over(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.is_over)
    }

    fn end(&mut self) {
        if let (Some(mut attempt), Some(lease)) = (self.attempt.take(), self.lease.take()) {
            lease.give_back(attempt.complete());
            self.in_flight.succeeded();
        }
    }

    /// The body breaks here.
    fn broken(&mut self, failure: &Failure) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.handle.fail(failure);
        self.in_flight.failed(failure);
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
        if self.is_over() {
            return Poll::Ready(None);
        }
        if self.removal.is_over() {
            return self.removed();
        }
        if let Some(ends) = &mut self.ends
            && ends.as_mut().poll(cx).is_ready()
        {
            return self.too_long();
        }
        let this = &mut *self;
        let came = match &mut this.lease {
            Some(lease) => lease.poll_frame(&mut this.incoming, cx),
            None => Pin::new(&mut this.incoming).poll_frame(cx),
        };
        let frame = match came {
            Poll::Pending if self.is_stalled(cx) => {
                let mut failure = Failure::new(Reason::StreamIdleTimeout);
                if self.stall.is_in_drops() {
                    failure = failure.detail(Detail::SlowBody);
                }
                return self.broken(&failure);
            }
            Poll::Pending if self.stall.is_long() && self.removal.poll_over(cx) => {
                return self.removed();
            }
            Poll::Pending => return self.poll_deadline(cx).map(|trailers| Some(Ok(trailers))),
            Poll::Ready(frame) => frame,
        };
        match frame {
            None => {
                self.call_ended(None);
                self.end();
                Poll::Ready(None)
            }
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    strip_trailers(trailers);
                }
                if let Some(data) = frame.data_ref() {
                    self.stall.came(data.len() as u64);
                    if let Some(attempt) = &mut self.attempt {
                        attempt.response_bytes(data.len());
                    }
                }
                // a call's status comes after its last byte
                let is_over = frame.is_trailers() || self.incoming.is_end_stream();
                if is_over || self.call.is_none() && is_last(&frame, &self.incoming) {
                    self.call_ended(frame.trailers_ref());
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                // a stated failure of the request's body (too large, too slow) is the cause, not the effect
                let failure =
                    Failure::from(self.handle.failure().unwrap_or((Reason::UpstreamTruncated, None)));
                self.broken(&failure.because(error))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream() || self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
