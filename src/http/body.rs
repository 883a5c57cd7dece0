//! Bodies in both directions: frames pass as they come, through one wrapper each way that counts, bounds and ends.

mod client;
pub(super) mod compressed;
pub(super) mod copied;
pub(super) mod end;
pub(super) mod error;
mod kept;
pub(super) mod request;
pub(super) mod stall;
pub(super) mod upstream;

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

pub use compressed::{CompressedBody, Place};
pub use copied::CopiedBody;
pub use error::BodyError;
pub use request::RequestBody;
pub use upstream::UpstreamBody;

use super::upgrade::Agreed;

/// An answer's body.
#[derive(Debug)]
pub enum Body {
    /// No bytes at all.
    Empty,
    /// The gateway's own answer.
    Full(Option<Bytes>),
    /// What the upstream sends, as it comes.
    Upstream(Box<UpstreamBody>),
    /// The same, with a copy of its beginning.
    Copied(Box<CopiedBody>),
    /// Another body, compressed.
    Compressed(Box<CompressedBody>),
    /// None: the connection becomes a tunnel.
    Tunnel(Box<Agreed>),
}

impl Body {
    /// When it is over, if it has to be.
    pub(super) fn ends(&self) -> Option<Instant> {
        match self {
            Self::Upstream(body) => body.ends(),
            Self::Copied(body) => body.ends(),
            Self::Compressed(body) => body.ends(),
            Self::Empty | Self::Full(_) | Self::Tunnel(_) => None,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty | Self::Tunnel(_) => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Upstream(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Copied(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Compressed(body) => Pin::new(&mut **body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_none(),
            Self::Upstream(body) => body.is_end_stream(),
            Self::Copied(body) => body.is_end_stream(),
            Self::Compressed(body) => body.is_end_stream(),
            Self::Tunnel(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Upstream(body) => body.size_hint(),
            Self::Copied(body) => body.size_hint(),
            Self::Compressed(body) => body.size_hint(),
            Self::Tunnel(_) => SizeHint::default(),
        }
    }
}
