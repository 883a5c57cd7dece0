//! One accepted connection, as the stream that the protocol's library reads and writes.
//!
//! It owns the connection's timer, which the library could not: a head that does not come to its end, a
//! connection that stands idle and a client that does not take what it is sent have bounds of their own. And
//! it sees what HTTP/1 libraries answer on their own account: bytes that are written while no exchange is
//! open refuse a head that could not be read. The protocol answers in their place, and so has it on record.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::activity::{Activity, Fate};
use super::frames::Guard;
use super::timeouts::{Timeouts, Waiting};
use super::tls::Session;
use crate::failure::{Detail, Failure, Reason};
use crate::net::{Socket, Stream};
use crate::telemetry::metrics::connections::Parking;

/// How long, and for how many bytes, a closed connection is still read, so that the client can read the last
/// answer before its own bytes are answered with a reset (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// The first bytes of HTTP/2 with prior knowledge (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// After how long without an exchange an HTTP/1.1 connection is [parked](Connection::park). A connection that is busy
/// is woken as often, for nothing.
const PARKS_AFTER: Duration = Duration::from_secs(2);

/// An accepted connection.
pub struct Connection {
    stream: Incoming,
    peer: SocketAddr,
    security: Security,
    timeouts: Timeouts,
    activity: Arc<Activity>,
    refuse: Option<Refuse>,
    /// How much of the HTTP/2 preface has been seen; `None` once it is known not to come.
    preface: Option<usize>,
    /// What bounds the frames of HTTP/2.
    guard: Option<Guard>,
    /// When the first byte of a head came that no exchange has taken yet.
    head_since: Option<Instant>,
    /// That head's first line has not come to its end yet.
    in_target: bool,
    /// Exchanges that had begun when the head's first byte came.
    head_after: usize,
    /// Exchanges whose every byte has been handed to the kernel.
    flushed: usize,
    /// Own bytes that take the place of the library's refusal.
    refusal: Option<Vec<u8>>,
    /// What the client has not taken yet is waited for.
    stalled: Waiting,
    read_closed: bool,
    timer: Option<Pin<Box<Sleep>>>,
    linger: Option<(Instant, usize)>,
    idle_over: bool,
    parking: Parking,
    /// What has been read and not been asked for yet.
    ahead: Vec<u8>,
}

/// What a connection begins with, after it has been parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// Nothing will come any more.
    Nothing,
    /// A request of HTTP/1.1, or what is none.
    Http1,
    /// The preface of HTTP/2.
    Http2,
}

/// How a connection is secured.
enum Security {
    /// Not at all, and it need not be.
    Plain,
    /// Not at all, where TLS should be spoken.
    PlainOnTls,
    Tls(Session),
}

/// Makes the answer to a head that could not be read, and has it on record.
pub type Refuse = Arc<dyn Fn(Refusal) -> Vec<u8> + Send + Sync>;

/// Why a head could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The library refused it with this status; `in_target`: its first line had not come to an end.
    Status {
        /// The status the library chose.
        status: u16,
        /// Not even the request target was complete.
        in_target: bool,
    },
    /// It was not complete in time.
    Slow,
}

/// A connection coming in.
type Incoming = Stream<TlsStream<Socket>>;

impl Connection {
    /// A connection in plain text.
    pub fn plain(stream: Socket, peer: SocketAddr, timeouts: Timeouts, parking: Parking) -> Self {
        Self::new(Stream::Plain(stream), peer, timeouts, parking)
    }

    /// A connection whose TLS handshake is done.
    pub fn tls(
        stream: TlsStream<Socket>,
        session: Session,
        peer: SocketAddr,
        timeouts: Timeouts,
        parking: Parking,
    ) -> Self {
        let security = Security::Tls(session);
        Self { security, ..Self::new(Stream::Tls(Box::new(stream)), peer, timeouts, parking) }
    }

    /// A connection in plain text where TLS should be spoken: its requests are to be told so.
    pub fn plain_on_tls(stream: Socket, peer: SocketAddr, timeouts: Timeouts, parking: Parking) -> Self {
        Self { security: Security::PlainOnTls, ..Self::plain(stream, peer, timeouts, parking) }
    }

    fn new(stream: Incoming, peer: SocketAddr, timeouts: Timeouts, parking: Parking) -> Self {
        Self {
            stream,
            peer,
            security: Security::Plain,
            timeouts,
            activity: Arc::default(),
            refuse: None,
            preface: Some(0),
            guard: None,
            head_since: None,
            in_target: true,
            head_after: 0,
            flushed: 0,
            refusal: None,
            stalled: Waiting::default(),
            read_closed: false,
            timer: None,
            linger: None,
            idle_over: false,
            parking,
            ahead: Vec::new(),
        }
    }

    /// The address at the other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// The TLS session, where one is spoken.
    pub fn session(&self) -> Option<&Session> {
        match &self.security {
            Security::Tls(session) => Some(session),
            Security::Plain | Security::PlainOnTls => None,
        }
    }

    /// Whether it is in plain text where TLS should be spoken.
    pub fn is_plain_on_tls(&self) -> bool {
        matches!(self.security, Security::PlainOnTls)
    }

    /// What the connection and its exchanges know of each other.
    pub fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    /// Who answers a head that could not be read.
    pub fn on_refusal(&mut self, refuse: Refuse) {
        self.refuse = Some(refuse);
    }

    /// Nobody reads it until it [begins](Self::poll_begin) again. It does so at once if what has been read `ahead`, with
    /// a request that is over, is more than empty lines (RFC 9112 section 2.2).
    pub fn park(&mut self, ahead: &[u8]) {
        match ahead.iter().position(|byte| !b"\r\n".contains(byte)) {
            Some(begin) => {
                self.head_begins(&ahead[begin..]);
                self.ahead.splice(..0, ahead[begin..].iter().copied());
            }
            None => self.parking.park(),
        }
    }

    /// It is read again.
    pub fn unpark(&mut self) {
        self.parking.unpark();
    }

    /// What a parked connection begins with. Whoever reads it then is given the bytes that tell it, too.
    pub fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Begins>> {
        loop {
            if !self.ahead.is_empty() && self.preface.is_none() {
                return Poll::Ready(Ok(Begins::Http1));
            }
            if self.is_http2() {
                return Poll::Ready(Ok(Begins::Http2));
            }
            let mut scratch = [0; PREFACE.len()];
            let mut buffer = ReadBuf::new(&mut scratch[self.preface.unwrap_or(0)..]);
            ready!(self.poll_read_more(cx, &mut buffer))?;
            match (buffer.filled(), self.ahead.is_empty()) {
                ([], true) => return Poll::Ready(Ok(Begins::Nothing)),
                ([], false) => return Poll::Ready(Ok(Begins::Http1)),
                (bytes, _) => self.ahead.extend_from_slice(bytes),
            }
        }
    }

    fn is_http2(&self) -> bool {
        self.preface == Some(PREFACE.len())
    }

    /// Something was read: is it the HTTP/2 preface, a flood of frames, does a head begin?
    fn saw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(seen) = self.preface {
            let expected = &PREFACE[seen..];
            let length = expected.len().min(bytes.len());
            self.preface = (bytes[..length] == expected[..length]).then_some(seen + length);
            if self.is_http2() {
                self.activity.set_http2();
                let guard = self.guard.get_or_insert_with(Guard::new);
                if !guard.admits(&bytes[length..], self.activity.progress()) {
                    self.activity.meets(Fate::Flooded);
                    self.activity.cut(&Failure::new(Reason::BadRequest).detail(Detail::Flood));
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        }
        if self.activity.open() > 0 {
            // a body, or what the client sends ahead
            self.head_since = None;
            return Ok(());
        }
        self.head_begins(bytes);
        Ok(())
    }

    /// These bytes are a head's, perhaps its first.
    fn head_begins(&mut self, bytes: &[u8]) {
        let served = self.activity.served();
        if self.head_since.is_none() || self.head_after != served {
            self.head_since = Some(Instant::now());
            self.head_after = served;
            self.in_target = true;
        }
        self.in_target = self.in_target && !bytes.contains(&b'\n');
    }

    /// When the reading that is being waited for is over; `None` while an exchange has its own bounds.
    fn read_deadline(&self) -> Option<Instant> {
        if self.activity.open() > 0 || self.flushed != self.activity.served() {
            return None;
        }
        match self.head_since.filter(|_| self.has_begun_head()) {
            Some(since) => Some(since + self.timeouts.head),
            None => Some(self.activity.idle_since() + self.timeouts.idle),
        }
    }

    /// A head has begun that no exchange has taken. With HTTP/2 it cannot be told from the frames of a connection
    /// without a request, its first ones included: both are idle.
    fn has_begun_head(&self) -> bool {
        let untaken = self.head_after == self.activity.served();
        self.head_since.is_some() && untaken && !self.is_http2()
    }

    /// When it has been quiet for so long that it is to be parked, unless it is, or a head or a body has not come to
    /// its end. Asked while nothing but the next head is waited for.
    fn parks_at(&self) -> Option<Instant> {
        let may_park = !self.parking.is_parked()
            && !self.has_begun_head()
            && !self.activity.has_unread()
            && !self.activity.was_asked_for_upgrade()
            && !self.is_http2();
        may_park.then(|| self.activity.idle_since() + PARKS_AFTER)
    }

    /// Wakes the task when it is to be parked, and says so then; tells whether the time to read is over.
    fn poll_read_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.read_deadline() else { return Poll::Pending };
        if let Some(parks_at) = self.parks_at().filter(|parks_at| *parks_at < deadline) {
            ready!(self.poll_deadline(cx, parks_at));
            self.activity.set_quiet(true);
        }
        self.poll_deadline(cx, deadline)
    }

    /// Whether the deadline has passed; wakes the task when it will. The timer is moved only when it fires,
    /// or when something is due before.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let at = tokio::time::Instant::from_std(deadline);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                self.timer = None;
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }

    /// The time to read is over.
    fn read_is_over(&mut self) {
        let slow = self.has_begun_head();
        self.read_closed = true;
        self.activity.set_quiet(false);
        if slow && let Some(refuse) = &self.refuse {
            self.refusal = Some(refuse(Refusal::Slow));
        } else {
            self.idle_over = true;
            self.activity.meets(Fate::TimedOut);
        }
    }

    /// These bytes are the library's own answer to a head that it could not read.
    fn is_refusal(&self) -> bool {
        let nothing_to_say = self.activity.open() == 0 && self.flushed == self.activity.served();
        nothing_to_say && self.preface.is_none() && self.refuse.is_some()
    }

    /// Takes the bytes of a refusal, if these are one. `true`: they are dealt with.
    fn take_refusal(&mut self, bytes: &[u8]) -> bool {
        if self.refusal.is_some() {
            return true;
        }
        if !self.is_refusal() {
            return false;
        }
        let status = bytes.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let refuse = self.refuse.as_ref().expect("asked for in is_refusal");
        self.refusal =
            Some(refuse(Refusal::Status { status: status.unwrap_or(400), in_target: self.in_target }));
        true
    }

    fn poll_write_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(refusal) = self.refusal.as_mut().filter(|refusal| !refusal.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, refusal))?;
            refusal.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    /// Bounds how long the client may leave unread what it was sent; `taken` is how much of it a result stands for.
    fn poll_stalled<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
        taken: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        let pace = self.timeouts.body;
        if let Poll::Ready(done) = &result {
            let bytes = done.as_ref().map_or(usize::MAX, taken);
            self.stalled.came(bytes as u64, pace);
            return result;
        }
        let too_slow = self.stalled.deadline(pace).into_std();
        let over = self.activity.ends().filter(|over| *over < too_slow);
        ready!(self.poll_deadline(cx, over.unwrap_or(too_slow)));
        let detail = if over.is_some() { Detail::Total } else { Detail::SlowReader };
        self.activity.meets(Fate::TimedOut);
        self.activity.cut(&Failure::new(Reason::ClientTimeout).detail(detail));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_read_more(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read_closed {
            ready!(self.poll_write_refusal(cx))?;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                match buffer.filled().get(before..) {
                    Some(bytes) if !bytes.is_empty() => self.saw(bytes)?,
                    _ => self.read_closed = true,
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.poll_read_over(cx));
                self.read_is_over();
                ready!(self.poll_write_refusal(cx))?;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (until, mut left) = *self.linger.get_or_insert_with(|| (Instant::now() + LINGER, LINGER_BYTES));
        let mut scratch = [0; 4096];
        while left > 0 && !self.read_closed {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    left = left.saturating_sub(buffer.filled().len());
                    self.linger = Some((until, left));
                }
                Poll::Ready(_) => break,
                Poll::Pending => return self.poll_deadline(cx, until),
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let taken = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..taken]);
            self.ahead = self.ahead.split_off(taken);
            return Poll::Ready(Ok(()));
        }
        self.poll_read_more(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.take_refusal(bytes) {
            ready!(self.poll_write_refusal(cx))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_stalled(cx, written, |written| *written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.take_refusal(slices.first().map_or(&[], |slice| slice)) {
            ready!(self.poll_write_refusal(cx))?;
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.poll_stalled(cx, written, |written| *written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_refusal(cx))?;
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // all that there was has been taken
        let flushed = self.poll_stalled(cx, flushed, |()| usize::MAX);
        if flushed.is_ready() && self.activity.open() == 0 && self.flushed != self.activity.served() {
            self.flushed = self.activity.served();
            // the library asked for the next head before this answer's end, when nothing bounded the wait
            if let Some(deadline) = self.read_deadline() {
                let parks_at = self.parks_at().unwrap_or(deadline);
                if self.poll_deadline(cx, deadline.min(parks_at)).is_ready() {
                    cx.waker().wake_by_ref();
                }
            }
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.is_quiet() {
            // it is to be parked, and not to end
            return Poll::Ready(Ok(()));
        }
        if self.linger.is_none() {
            ready!(self.poll_write_refusal(cx))?;
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if self.idle_over {
                return Poll::Ready(Ok(()));
            }
            // after a slow head was refused, its rest may still come
            self.read_closed = self.read_closed && self.refusal.is_none();
        }
        ready!(self.poll_linger(cx));
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("tls", &self.is_tls()).finish_non_exhaustive()
    }
}
