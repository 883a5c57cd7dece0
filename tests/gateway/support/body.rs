//! Bodies to send: whole, counted, fed by hand, with trailers.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

/// A body a client sends.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Bytes of a large body are sent in pieces of this size.
pub const PIECE: usize = 64 * 1024;

/// A body whose length is known.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    full(Bytes::new())
}

/// These frames, of unknown length.
pub fn frames(frames: Vec<Frame<Bytes>>) -> Body {
    StreamBody::new(stream::iter(frames.into_iter().map(Ok))).boxed_unsync()
}

/// A text of unknown length, and trailers after it.
pub fn with_trailers(text: &'static str, trailers: HeaderMap) -> Body {
    frames(vec![Frame::data(Bytes::from_static(text.as_bytes())), Frame::trailers(trailers)])
}

/// So many zeros, made as they are wanted.
pub fn zeros(count: u64) -> Body {
    let pieces = stream::unfold(count, |left| async move {
        let piece = zero_piece(left)?;
        let left = left - piece.len() as u64;
        Some((Ok(Frame::data(piece)), left))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// At most one piece of so many zeros; `None` once none are left.
pub fn zero_piece(left: u64) -> Option<Bytes> {
    static ZEROS: [u8; PIECE] = [0; PIECE];
    let length = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
    (length > 0).then(|| Bytes::from_static(&ZEROS[..length]))
}

/// A body fed by hand; it ends when the feeder drops.
pub fn fed() -> (mpsc::Sender<Bytes>, Body) {
    let (feeder, pieces) = mpsc::channel(1);
    let frames = stream::unfold(pieces, |mut pieces| async move {
        pieces.recv().await.map(|piece| (Ok(Frame::data(piece)), pieces))
    });
    (feeder, StreamBody::new(frames).boxed_unsync())
}

/// Counts a body's bytes without keeping them. `Err` if it broke off.
pub async fn count<B>(mut body: B) -> Result<u64, B::Error>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    let mut count = 0;
    while let Some(frame) = body.frame().await {
        count += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(count)
}
