//! An answer's body, compressed as it passes.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::Body;
use super::error::BodyError;
use crate::http::compression::Coding;

/// Compresses a body. While more of it is to come it is kept back only as long as there is more at once: what the
/// upstream has sent, the client gets, however slowly the rest comes.
#[derive(Debug)]
pub struct CompressedBody {
    body: Body,
    encoder: Option<Encoder>,
    /// Whether the encoder may hold something back.
    held: bool,
    trailers: Option<HeaderMap>,
    _place: Place,
}

/// A place among those that are compressed at once.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Place {
    /// A place, if fewer than this many are taken.
    pub fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let place = Self(Arc::clone(taken));
        // dropped again if it is one too many
        (taken.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl CompressedBody {
    /// This body by this coding.
    pub fn new(body: Body, coding: Coding, place: Place) -> Self {
        Self { body, encoder: Some(Encoder::new(coding)), held: false, trailers: None, _place: place }
    }

    /// When it is over, if it has to be.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.body.ends()
    }

    fn finish(&mut self) -> Option<Bytes> {
        let rest = self.encoder.take()?.finish();
        self.held = false;
        Some(rest)
    }
}

impl http_body::Body for CompressedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut taken = 0;
        while self.encoder.is_some() {
            if taken > MOST_AT_ONCE {
                // others have a turn
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let this = &mut *self;
            let Some(encoder) = &mut this.encoder else { break };
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Pending => {
                    if std::mem::take(&mut this.held) {
                        return Poll::Ready(Some(Ok(Frame::data(encoder.flush()))));
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        taken += data.len();
                        encoder.write(&data);
                        this.held = true;
                        if this.body.is_end_stream() {
                            return Poll::Ready(this.finish().map(|rest| Ok(Frame::data(rest))));
                        }
                        if encoder.ready() >= ENOUGH {
                            return Poll::Ready(Some(Ok(Frame::data(encoder.take()))));
                        }
                    }
                    Err(frame) => {
                        this.trailers = frame.into_trailers().ok();
                        return Poll::Ready(this.finish().map(|rest| Ok(Frame::data(rest))));
                    }
                },
                Poll::Ready(None) => return Poll::Ready(this.finish().map(|rest| Ok(Frame::data(rest)))),
            }
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// What compresses, into memory.
enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> Self {
        match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL))),
            Coding::Brotli => Self::Brotli(Box::new(brotli::CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER,
                BROTLI_LEVEL,
                WINDOW_LOG,
            ))),
            Coding::Zstd => {
                let window = zstd::zstd_safe::CParameter::WindowLog(WINDOW_LOG);
                let encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL);
                let encoder = encoder.and_then(|mut encoder| encoder.set_parameter(window).map(|()| encoder));
                Self::Zstd(encoder.expect(INFALLIBLE))
            }
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(encoder) => encoder,
            Self::Brotli(encoder) => encoder,
            Self::Zstd(encoder) => encoder,
        }
    }

    fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }

    fn write(&mut self, data: &[u8]) {
        self.writer().write_all(data).expect(INFALLIBLE);
    }

    fn ready(&mut self) -> usize {
        self.output().len()
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(self.output()).into()
    }

    fn flush(&mut self) -> Bytes {
        self.writer().flush().expect(INFALLIBLE);
        self.take()
    }

    fn finish(self) -> Bytes {
        let whole: io::Result<Vec<u8>> = match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        };
        whole.expect(INFALLIBLE).into()
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "gzip",
            Self::Brotli(_) => "br",
            Self::Zstd(_) => "zstd",
        })
    }
}

const INFALLIBLE: &str = "an encoder with parameters of ours does not fail to write into memory";

/// As much compressed data is sent on without waiting for more.
const ENOUGH: usize = 8 << 10;

/// As much is compressed before other tasks have a turn.
const MOST_AT_ONCE: usize = 256 << 10;

/// What pays while somebody waits: about as fast as the network, and most of what there is to gain.
const GZIP_LEVEL: u32 = 4;
const BROTLI_LEVEL: u32 = 4;
const ZSTD_LEVEL: i32 = 3;

/// Memory against ratio: how far back (2¹⁸ bytes) repetition is looked for.
const WINDOW_LOG: u32 = 18;
const BROTLI_BUFFER: usize = 4 << 10;
