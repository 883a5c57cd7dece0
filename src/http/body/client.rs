//! What the client sends, as it comes: counted, bounded in size and in the time that it takes.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::error::BodyError;
use super::stall::Stall;
use crate::failure::{Detail, Failure, Reason};
use crate::http::headers::strip_trailers;
use crate::listener::activity::Activity;
use crate::listener::timeouts::Pace;
use crate::telemetry::Handle;

/// What the client sends. Whatever is wrong with it is stated here.
#[derive(Debug)]
pub(super) struct ClientBody {
    incoming: Incoming,
    handle: Handle,
    stall: Stall,
    limit: Option<Limit>,
    /// Whose connection has more of it; `None` once it has come to its end.
    unread: Option<Arc<Activity>>,
}

/// What is left of the most bytes allowed, and the rule that says so.
#[derive(Debug)]
struct Limit {
    remaining: u64,
    rule: Arc<str>,
}

impl ClientBody {
    /// What comes on this connection, at this pace or faster.
    pub(super) fn new(incoming: Incoming, handle: Handle, pace: Pace, connection: &Arc<Activity>) -> Self {
        connection.body_begins();
        let unread = Some(Arc::clone(connection));
        Self { incoming, handle, stall: Stall::at(Some(pace)), limit: None, unread }
    }

    /// Refuses what is longer than this, by this rule: at once where the length is announced, else when it is
    /// passed.
    pub(super) fn limit(&mut self, bytes: u64, rule: &Arc<str>) -> Result<(), Failure> {
        if self.incoming.size_hint().lower() > bytes {
            return Err(Failure::new(Reason::BodyTooLarge).rule(rule));
        }
        self.limit = Some(Limit { remaining: bytes, rule: Arc::clone(rule) });
        Ok(())
    }

    /// It may stand still for as long as it likes.
    pub(super) fn stream(&mut self) {
        self.stall = Stall::new(None);
    }

    /// Whether nothing more will come.
    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// How much may still come.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// The next frame.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending if self.stall.poll_over(cx) => {
                return self.broken(Reason::ClientTimeout, Detail::SlowBody);
            }
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        let ended = match &frame {
            None => true,
            Some(Ok(frame)) => frame.is_trailers() || self.incoming.is_end_stream(),
            Some(Err(_)) => false,
        };
        if ended && let Some(connection) = self.unread.take() {
            connection.body_ended();
        }
        match frame {
            None => Poll::Ready(None),
            Some(Err(error)) => {
                let (reason, detail) = client_side(&error);
                self.broken(reason, detail)
            }
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    strip_trailers(trailers);
                }
                if let Some(data) = frame.data_ref() {
                    self.handle.request_bytes(data.len());
                    let length = data.len() as u64;
                    self.stall.came(length);
                    if let Some(limit) = &mut self.limit {
                        let Some(rest) = limit.remaining.checked_sub(length) else {
                            let error =
                                BodyError { reason: Reason::BodyTooLarge, detail: Some(Detail::InBody) };
                            self.handle.fail(&Failure::from(error).rule(&limit.rule));
                            return Poll::Ready(Some(Err(error)));
                        };
                        limit.remaining = rest;
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn broken(&self, reason: Reason, detail: Detail) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let error = BodyError { reason, detail: Some(detail) };
        self.handle.fail(&error.into());
        Poll::Ready(Some(Err(error)))
    }
}

/// What a broken request body means: broken framing is the client's mistake, the rest is its leaving.
fn client_side(error: &hyper::Error) -> (Reason, Detail) {
    let framing = error.is_parse()
        || error.source().is_some_and(|source| is_invalid_data(source) || is_malformed(source));
    if framing { (Reason::BadRequest, Detail::BrokenBody) } else { (Reason::ClientGone, Detail::BrokenBody) }
}

/// An HTTP/2 stream that the library has reset because of what came on it (RFC 9113 section 8.1.1).
fn is_malformed(source: &(dyn Error + 'static)) -> bool {
    let reset = source.downcast_ref::<h2::Error>().filter(|error| error.is_library());
    reset.is_some_and(|error| error.reason() == Some(h2::Reason::PROTOCOL_ERROR))
}

fn is_invalid_data(source: &(dyn Error + 'static)) -> bool {
    source.downcast_ref::<std::io::Error>().is_some_and(|error| {
        matches!(error.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData)
    })
}
