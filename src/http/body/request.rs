//! The request's body on its way to the upstream.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::error::BodyError;
use super::stall::Stall;
use crate::failure::{Detail, Failure, Reason};
use crate::http::expect::Gate;
use crate::telemetry::Handle;

/// A request's body on its way to the upstream: counted, bounded in size and in standing still, held back
/// while the client waits for `100 Continue`.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    handle: Handle,
    stall: Stall,
    limit: Option<Limit>,
    gate: Option<Gate>,
    progress: Progress,
}

/// What is left of the most bytes allowed, and the rule that says so.
#[derive(Debug)]
struct Limit {
    remaining: u64,
    rule: Arc<str>,
}

impl RequestBody {
    /// Wraps what the client sends; it may stand still for `stall`.
    pub fn new(incoming: Incoming, handle: Handle, stall: Duration) -> Self {
        let progress = Progress::default();
        if incoming.is_end_stream() {
            progress.set(Progress::SENT);
            handle.request_sent();
        }
        Self { incoming, handle, stall: Stall::new(Some(stall)), limit: None, gate: None, progress }
    }

    /// Refuses what is longer than this, by this rule: at once where the length is announced, else when it is
    /// passed.
    pub fn limit(&mut self, bytes: u64, rule: &Arc<str>) -> Result<(), Failure> {
        if self.incoming.size_hint().lower() > bytes {
            return Err(Failure::new(Reason::BodyTooLarge).rule(rule));
        }
        self.limit = Some(Limit { remaining: bytes, rule: Arc::clone(rule) });
        Ok(())
    }

    /// The messages of a stream, between which nothing may come for as long as the stream goes on.
    pub fn stream(&mut self) {
        self.stall = Stall::new(None);
    }

    /// Holds the body back until the gate opens.
    pub fn hold(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    /// How far the body has come, to be asked when it is no longer at hand.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    fn sent(&self) {
        self.progress.set(Progress::SENT);
        self.handle.request_sent();
    }

    fn broken(&self, reason: Reason, detail: Detail) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let error = BodyError { reason, detail: Some(detail) };
        self.handle.fail(&error.into());
        Poll::Ready(Some(Err(error)))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.poll_open(cx));
            self.gate = None;
        }
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending if self.stall.poll_over(cx) => {
                return self.broken(Reason::ClientTimeout, Detail::SlowBody);
            }
            Poll::Pending => {
                self.progress.set(Progress::CLIENTS_TURN);
                // nobody waits for the rest: it is not sent on as if it were whole
                let gone = BodyError { reason: Reason::ClientGone, detail: Some(Detail::BrokenBody) };
                return self.progress.poll_over(cx).map(|()| Some(Err(gone)));
            }
            Poll::Ready(frame) => frame,
        };
        let this = &mut *self;
        this.stall.moved();
        this.progress.moved();
        this.progress.set(Progress::UPSTREAMS_TURN);
        match frame {
            None => {
                this.sent();
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                let (reason, detail) = client_side(&error);
                this.broken(reason, detail)
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.handle.request_bytes(data.len());
                    let length = data.len() as u64;
                    if let Some(limit) = &mut this.limit {
                        let Some(rest) = limit.remaining.checked_sub(length) else {
                            let error =
                                BodyError { reason: Reason::BodyTooLarge, detail: Some(Detail::InBody) };
                            this.handle.fail(&Failure::from(error).rule(&limit.rule));
                            return Poll::Ready(Some(Err(error)));
                        };
                        limit.remaining = rest;
                    }
                }
                if frame.is_trailers() || this.incoming.is_end_stream() {
                    this.sent();
                }
                Poll::Ready(Some(Ok(frame)))
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

/// How far a request's body has come.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Come>);

#[derive(Debug, Default)]
struct Come {
    state: AtomicU8,
    /// How often something came.
    moves: AtomicU32,
    over: AtomicBool,
    waiting: AtomicWaker,
}

/// Whoever wants the body. The rest of it is not sent once this has dropped.
#[derive(Debug)]
pub(crate) struct Wanted(Progress);

impl Wanted {
    /// The body that comes so far is wanted.
    pub(crate) fn new(progress: Progress) -> Self {
        Self(progress)
    }

    /// Whether its last byte has been taken by the upstream's connection.
    pub(crate) fn is_sent(&self) -> bool {
        self.0.is_sent()
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.0.over.store(true, Ordering::Release);
        self.0.0.waiting.wake();
    }
}

impl Progress {
    const UPSTREAMS_TURN: u8 = 0;
    const CLIENTS_TURN: u8 = 1;
    const SENT: u8 = 2;

    fn set(&self, state: u8) {
        self.0.state.store(state, Ordering::Release);
    }

    fn moved(&self) {
        self.0.moves.fetch_add(1, Ordering::Relaxed);
    }

    fn poll_over(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.waiting.register(cx.waker());
        if self.0.over.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// How often something came; it may wrap.
    pub fn moves(&self) -> u32 {
        self.0.moves.load(Ordering::Relaxed)
    }

    /// The last byte has been taken by the upstream's connection.
    pub fn is_sent(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == Self::SENT
    }

    /// The upstream's connection wants more, and the client has not sent it.
    pub fn is_clients_turn(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == Self::CLIENTS_TURN
    }
}

/// What a broken request body means: broken framing is the client's mistake, the rest is its leaving.
fn client_side(error: &hyper::Error) -> (Reason, Detail) {
    let framing = error.is_parse() || error.source().is_some_and(is_invalid_data);
    if framing { (Reason::BadRequest, Detail::BrokenBody) } else { (Reason::ClientGone, Detail::BrokenBody) }
}

fn is_invalid_data(source: &(dyn Error + 'static)) -> bool {
    source.downcast_ref::<std::io::Error>().is_some_and(|error| {
        matches!(error.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData)
    })
}
