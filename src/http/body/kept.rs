//! What is kept of a request's body as it passes, up to a bound, so that it can be sent once more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
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
    pieces: Pieces,
    /// The client has sent its last byte.
    ended: bool,
    turn: u32,
}

#[derive(Debug)]
struct Pieces {
    kept: VecDeque<Piece>,
    /// How many of them this turn has been given.
    given: usize,
    bytes: u64,
    /// How many bytes more may be kept; `None` once nothing is kept any more.
    room: Option<u64>,
}

#[derive(Debug, Clone)]
enum Piece {
    Data(Bytes),
    /// What came in drops: copied, as each of them takes more than it holds, and holds on to what it was read with.
    Gathered(BytesMut),
    Trailers(HeaderMap),
}

impl Piece {
    fn length(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Gathered(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }
}

/// Less than this is a drop.
const DROP: usize = 1 << 10;

impl Kept {
    /// Keeps at most so many bytes.
    pub(super) fn new(client: ClientBody, most: u64) -> Self {
        let state = State {
            ended: client.is_end_stream(),
            client,
            pieces: Pieces { kept: VecDeque::new(), given: 0, bytes: 0, room: Some(most) },
            turn: 0,
        };
        Self { shared: Arc::new(Mutex::new(state)), turn: 0 }
    }

    /// The same body from its beginning, for the next attempt; whoever read it so far reads no more. `None` if
    /// it was longer than what is kept.
    pub(super) fn again(&self) -> Option<Self> {
        let mut state = self.lock();
        state.pieces.room?;
        state.turn += 1;
        state.pieces.given = 0;
        Some(Self { shared: Arc::clone(&self.shared), turn: state.turn })
    }

    /// How many bytes are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().pieces.bytes
    }

    /// It will not be sent again: what this turn has been given is forgotten, and what comes is not kept.
    pub(super) fn release(&self) {
        self.lock().pieces.release();
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
        state.ended && state.pieces.given == state.pieces.kept.len()
    }

    /// How much this turn has still to be given.
    pub(super) fn size_hint(&self) -> SizeHint {
        let state = self.lock();
        let kept = state.pieces.to_be_given();
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
        if let Some(piece) = self.pieces.next() {
            return Poll::Ready(Some(Ok(match piece {
                Piece::Data(data) => Frame::data(data),
                Piece::Gathered(data) => Frame::data(data.freeze()),
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
            Poll::Ready(Some(Err(_))) => self.pieces.release(),
            Poll::Ready(Some(Ok(frame))) => {
                self.pieces.keep(frame);
                self.ended = frame.is_trailers() || self.client.is_end_stream();
            }
        }
        frame
    }
}

impl Pieces {
    /// The bytes that this turn has still to be given.
    fn to_be_given(&self) -> u64 {
        self.kept.iter().skip(self.given).map(|piece| piece.length() as u64).sum()
    }

    /// The next piece that this turn has not been given yet.
    fn next(&mut self) -> Option<Piece> {
        if self.room.is_none() {
            return self.kept.pop_front();
        }
        let piece = self.kept.get(self.given).cloned()?;
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
            // all of them have been given, so that none of them is given twice
            match self.kept.back_mut() {
                Some(Piece::Gathered(gathered)) if data.len() < DROP => gathered.extend_from_slice(data),
                _ if data.len() < DROP => self.kept.push_back(Piece::Gathered((&**data).into())),
                _ => self.kept.push_back(Piece::Data(data.clone())),
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.kept.push_back(Piece::Trailers(trailers.clone()));
        }
        self.given = self.kept.len();
    }

    fn release(&mut self) {
        self.room = None;
        self.kept.drain(..self.given);
        self.given = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_comes_in_drops_takes_no_more_than_its_bytes_and_is_given_again_as_it_came() {
        let mut pieces = Pieces { kept: VecDeque::new(), given: 0, bytes: 0, room: Some(70_000) };
        let text: Vec<u8> = (0..60_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        for drop in text.chunks(1) {
            pieces.keep(&Frame::data(Bytes::copy_from_slice(drop)));
            assert!(pieces.next().is_none(), "what has just come has been given");
        }
        assert_eq!((pieces.kept.len(), pieces.bytes), (1, 60_000));
        pieces.keep(&Frame::data(Bytes::from(vec![1; DROP])));
        pieces.keep(&Frame::data(Bytes::from_static(b"end")));
        assert_eq!((pieces.kept.len(), pieces.to_be_given()), (3, 0));

        pieces.given = 0;
        assert_eq!(pieces.to_be_given(), 60_000 + DROP as u64 + 3);
        let mut again = Vec::new();
        while let Some(piece) = pieces.next() {
            match piece {
                Piece::Data(data) => again.extend_from_slice(&data),
                Piece::Gathered(data) => again.extend_from_slice(&data),
                Piece::Trailers(_) => panic!("there are none"),
            }
        }
        assert!(again == [&text[..], &[1; DROP], b"end"].concat());

        pieces.keep(&Frame::data(Bytes::from(vec![0; 10_000])));
        assert!(pieces.room.is_none() && pieces.kept.is_empty(), "it is longer than what is kept");
    }
}
