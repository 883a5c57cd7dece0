//! When a body has ended, seen by who does not wait for its last poll.

use bytes::Bytes;
use http_body::{Body, Frame};

/// Whether nothing follows this frame. Who was told a length does not ask again once it has come: in HTTP/2 the
/// end is a frame of its own.
pub(crate) fn is_last(frame: &Frame<Bytes>, rest: &impl Body) -> bool {
    frame.is_trailers() || rest.is_end_stream() || rest.size_hint().exact() == Some(0)
}
