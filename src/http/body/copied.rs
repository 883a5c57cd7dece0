//! An answer's body whose beginning is copied as it passes, for the values that a route reads from it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use super::end::is_last;
use super::error::BodyError;
use super::upstream::UpstreamBody;
use crate::http::pointer::Pointer;
use crate::telemetry::Handle;

/// Passes an upstream's body on as it comes. What is copied of it is read once: when it has ended, however it
/// did, or when there is as much as is ever copied.
#[derive(Debug)]
pub struct CopiedBody {
    body: Box<UpstreamBody>,
    copy: Vec<u8>,
    reader: Option<Reader>,
}

/// What the copy is for.
#[derive(Debug)]
struct Reader {
    handle: Handle,
    /// Each with the index of its business attribute.
    pointers: Arc<[(usize, Pointer)]>,
}

impl CopiedBody {
    /// This body, of which business attributes are read by these pointers.
    pub fn new(body: Box<UpstreamBody>, handle: Handle, pointers: Arc<[(usize, Pointer)]>) -> Self {
        let length = usize::try_from(body.size_hint().lower()).unwrap_or(MOST).min(MOST);
        Self { body, copy: Vec::with_capacity(length), reader: Some(Reader { handle, pointers }) }
    }

    /// When it is over, if it has to be.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.body.ends()
    }

    fn copy(&mut self, data: &[u8]) {
        if self.reader.is_some() {
            let room = MOST - self.copy.len();
            self.copy.extend_from_slice(&data[..data.len().min(room)]);
            if data.len() > room {
                self.read(false);
            }
        }
    }

    fn read(&mut self, whole: bool) {
        let copy = std::mem::take(&mut self.copy);
        let Some(Reader { handle, pointers }) = self.reader.take() else { return };
        for (index, pointer) in &*pointers {
            if let Some(value) = pointer.find(&copy, whole) {
                handle.attribute(*index, value.as_bytes());
            }
        }
    }
}

impl http_body::Body for CopiedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut *self.body).poll_frame(cx));
        match &frame {
            None => self.read(true),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.copy(data);
                }
                if is_last(frame, &self.body) {
                    self.read(true);
                }
            }
            Some(Err(_)) => self.read(false),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for CopiedBody {
    fn drop(&mut self) {
        // the order may exist although nobody waited for its number; the operation ends after its body
        self.read(false);
    }
}

/// The most bytes of a body that are copied.
const MOST: usize = 16 * 1024;
