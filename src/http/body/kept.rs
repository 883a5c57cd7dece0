//! What is kept of a request's body as it passes, up to a bound, so that it can be sent once more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::client::ClientBody;
use super::error::BodyError;
use crate::failure::Reason;

/// A body that is kept, held by whoever may send it again and read by one attempt after the other.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    shared: Arc<Mutex<State>>,
    /// Which attempt reads through this.
    turn: u32,
}

#[derive(Debug)]
struct State {
    client: ClientBody,
    pieces: VecDeque<Piece>,
    /// How many of the pieces this turn has been given.
    given: usize,
    bytes: u64,
    /// How many bytes more may be kept; `None` once nothing is kept any more.
    room: Option<u64>,
    /// The client has sent its last byte.
    ended: bool,
    turn: u32,
}

#[derive(Debug, Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Kept {
    /// Keeps at most so many bytes.
    pub(super) fn new(client: ClientBody, most: u64) -> Self {
        let state = State {
            ended: client.is_end_stream(),
            client,
            pieces: VecDeque::new(),
            given: 0,
            bytes: 0,
            room: Some(most),
            turn: 0,
        };
        Self { shared: Arc::new(Mutex::new(state)), turn: 0 }
    }

    /// The same body from its beginning, for the next attempt; whoever read it so far reads no more. `None` if
    /// it was longer than what is kept.
    pub(super) fn again(&self) -> Option<Self> {
        let mut state = self.lock();
        state.room?;
        state.turn += 1;
        state.given = 0;
        Some(Self { shared: Arc::clone(&self.shared), turn: state.turn })
    }

    /// How many bytes are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// It will not be sent again: what this turn has been given is forgotten, and what comes is not kept.
    pub(super) fn release(&self) {
        self.lock().release();
    }

    /// The next frame, kept or from the client.
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.lock();
        if state.turn != self.turn {
            let error = BodyError { reason: Reason::UpstreamReset, detail: None };
            return Poll::Ready(Some(Err(error)));
        }
        state.poll_frame(cx)
    }

    /// Whether this turn has been given everything.
    pub(super) fn is_end_stream(&self) -> bool {
        let state = self.lock();
        state.ended && state.given == state.pieces.len()
    }

    /// How much this turn has still to be given.
    pub(super) fn size_hint(&self) -> SizeHint {
        let state = self.lock();
        let length = |piece: &Piece| match piece {
            Piece::Data(data) => data.len() as u64,
            Piece::Trailers(_) => 0,
        };
        let kept: u64 = state.pieces.iter().skip(state.given).map(length).sum();
        if state.ended {
            return SizeHint::with_exact(kept);
        }
        let client = state.client.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(kept + client.lower());
        if let Some(upper) = client.upper() {
            hint.set_upper(kept + upper);
        }
        hint
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.next() {
            return Poll::Ready(Some(Ok(match piece {
                Piece::Data(data) => Frame::data(data),
                Piece::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = self.client.poll_frame(cx);
        match &frame {
            Poll::Pending => {}
            Poll::Ready(None) => self.ended = true,
            // it has been stated, and no attempt can do better
            Poll::Ready(Some(Err(_))) => self.release(),
            Poll::Ready(Some(Ok(frame))) => {
                self.keep(frame);
                self.ended = frame.is_trailers() || self.client.is_end_stream();
            }
        }
        frame
    }

    /// The next piece that this turn has not been given yet.
    fn next(&mut self) -> Option<Piece> {
        if self.room.is_none() {
            return self.pieces.pop_front();
        }
        let piece = self.pieces.get(self.given).cloned()?;
        self.given += 1;
        Some(piece)
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(room) = self.room else { return };
        if let Some(data) = frame.data_ref() {
            let length = data.len() as u64;
            let Some(rest) = room.checked_sub(length) else { return self.release() };
            self.room = Some(rest);
            self.bytes += length;
            self.pieces.push_back(Piece::Data(data.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.pieces.push_back(Piece::Trailers(trailers.clone()));
        }
        self.given = self.pieces.len();
    }

    fn release(&mut self) {
        self.room = None;
        self.pieces.drain(..self.given);
        self.given = 0;
    }
}
