//! The request's body on its way to the upstream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::client::ClientBody;
use super::end::is_last;
use super::error::BodyError;
use super::kept::Kept;
use crate::failure::{Detail, Failure, Reason};
use crate::http::expect::Gate;
use crate::listener::activity::Activity;
use crate::listener::timeouts::Pace;
use crate::telemetry::Handle;

/// A request's body on its way to the upstream: as it comes, or kept to be sent once more; held back while the
/// client waits for `100 Continue`.
#[derive(Debug)]
pub struct RequestBody {
    from: From,
    handle: Handle,
    gate: Option<Gate>,
    progress: Progress,
}

#[derive(Debug)]
enum From {
    /// There is no body, or somebody else has it.
    Nothing,
    /// Boxed: most requests have none, and all move through the library.
    Client(Box<ClientBody>),
    Kept(Kept),
}

impl RequestBody {
    /// Wraps what the client sends on this connection, at this pace or faster.
    pub fn new(incoming: Incoming, handle: Handle, pace: Pace, connection: &Arc<Activity>) -> Self {
        let progress = Progress::default();
        let from = if incoming.is_end_stream() {
            progress.set(Progress::SENT);
            handle.has_no_body();
            From::Nothing
        } else {
            From::Client(Box::new(ClientBody::new(incoming, handle.clone(), pace, connection)))
        };
        Self { from, handle, gate: None, progress }
    }

    /// No body at all: of a request that is the gateway's own.
    pub fn none(handle: Handle) -> Self {
        let progress = Progress::default();
        progress.set(Progress::SENT);
        Self { from: From::Nothing, handle, gate: None, progress }
    }

    /// Refuses what is longer than this, by this rule: at once where the length is announced, else when it is
    /// passed.
    pub fn limit(&mut self, bytes: u64, rule: &Arc<str>) -> Result<(), Failure> {
        match &mut self.from {
            From::Client(client) => client.limit(bytes, rule),
            From::Nothing | From::Kept(_) => Ok(()),
        }
    }

    /// The messages of a stream, between which nothing may come for as long as the stream goes on.
    pub fn stream(&mut self) {
        if let From::Client(client) = &mut self.from {
            client.stream();
        }
    }

    /// Holds the body back until the gate opens.
    pub fn hold(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    /// How far the body has come, to be asked when it is no longer at hand.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// The body for one attempt; what stays here is nothing.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let from = std::mem::replace(&mut self.from, From::Nothing);
        Self { from, handle: self.handle.clone(), gate: None, progress: self.progress.clone() }
    }

    /// The body for one attempt, of which at most so many bytes are kept as it passes. What stays here is what
    /// can be sent [`again`](Self::again). `None` if it is known to be longer.
    pub fn share(&mut self, most: Option<u64>) -> Option<Self> {
        if self.is_end() {
            return Some(self.take());
        }
        if let From::Client(client) = &self.from {
            let most = most.filter(|most| client.size_hint().lower() <= *most)?;
            let From::Client(client) = std::mem::replace(&mut self.from, From::Nothing) else { return None };
            self.from = From::Kept(Kept::new(*client, most));
        }
        let From::Kept(kept) = &self.from else { return None };
        let from = From::Kept(kept.clone());
        Some(Self { from, handle: self.handle.clone(), gate: None, progress: self.progress.clone() })
    }

    /// Makes what was kept the body of another attempt, from the beginning; what an earlier attempt holds of it
    /// is void. `false` if it was longer than what is kept.
    pub fn again(&mut self) -> bool {
        let From::Kept(kept) = &self.from else { return true };
        let Some(kept) = kept.again() else { return false };
        self.from = From::Kept(kept);
        self.progress = Progress::default();
        true
    }

    /// How many bytes of it are kept.
    pub fn kept_bytes(&self) -> u64 {
        match &self.from {
            From::Kept(kept) => kept.bytes(),
            From::Nothing | From::Client(_) => 0,
        }
    }

    /// It will not be sent again.
    pub fn release(&self) {
        if let From::Kept(kept) = &self.from {
            kept.release();
        }
    }

    fn is_end(&self) -> bool {
        match &self.from {
            From::Nothing => true,
            From::Client(client) => client.is_end_stream(),
            From::Kept(kept) => kept.is_end_stream(),
        }
    }

    fn sent(&self) {
        self.progress.set(Progress::SENT);
        self.handle.request_sent();
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
        let polled = match &mut self.from {
            From::Nothing => Poll::Ready(None),
            From::Client(client) => client.poll_frame(cx),
            From::Kept(kept) => kept.poll_frame(cx),
        };
        let Poll::Ready(frame) = polled else {
            self.progress.set(Progress::CLIENTS_TURN);
            // nobody waits for the rest: it is not sent on as if it were whole
            let gone = BodyError { reason: Reason::ClientGone, detail: Some(Detail::BrokenBody) };
            return self.progress.poll_over(cx).map(|()| Some(Err(gone)));
        };
        self.progress.moved();
        self.progress.set(Progress::UPSTREAMS_TURN);
        match &frame {
            None => self.sent(),
            Some(Ok(frame)) if is_last(frame, &*self) => self.sent(),
            Some(_) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            From::Nothing => SizeHint::with_exact(0),
            From::Client(client) => client.size_hint(),
            From::Kept(kept) => kept.size_hint(),
        }
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
        // it may have been given up before, by a connection that did not take it
        progress.0.over.store(false, Ordering::Release);
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
