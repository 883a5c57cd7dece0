//! What is said on one connection: HTTP/1.1 or HTTP/2, as its first bytes tell.
//!
//! Where nothing is said the connection is *parked*: there is its socket, its session and its bounds, and nothing
//! else. What hyper keeps for HTTP/1.1, most of it two buffers of 8 KiB, comes with the next byte, and goes when
//! the client has been quiet for a while.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWrite as _;

use super::record::RecordedBody;
use super::streams::Streams;
use crate::listener::activity::Activity;
use crate::listener::connection::Begins;
use crate::listener::{Connection, Limits};

/// HTTP/2 windows towards clients: what one body, and all bodies of a connection, may have under way.
/// Uploads that their upstreams do not take stall others only if there are sixty-four of them.
const HTTP2_STREAM_WINDOW: u32 = 256 << 10;
const HTTP2_CONNECTION_WINDOW: u32 = 16 << 20;

/// What of an answer is kept for a client that has no window for it, beside the piece handed out last.
const HTTP2_SEND_BUFFER: usize = 64 << 10;

/// Streams that a client may reset before they are looked at, and those it may make us reset, before its
/// connection is closed.
const HTTP2_RESETS: usize = 20;
const HTTP2_ERRORS: usize = 100;

/// How much more than the listener's limits hyper takes, so that the limits are what a client meets.
const HEAD_ROOM: usize = 8 << 10;

/// Up to so many fields hyper reads a head on the stack; with any bound of its own it allocates for every head.
const INLINE_FIELDS: usize = 100;

/// How often a quiet HTTP/2 connection is asked whether it is still there, and how long it may take to say so.
const HTTP2_PING: Duration = Duration::from_secs(30);
const HTTP2_PONG: Duration = Duration::from_secs(10);

/// What reads the connections of a listener.
#[derive(Debug)]
pub(super) struct Library {
    http1: http1::Builder,
    /// The most bytes of a head.
    head: usize,
    streams: u32,
}

impl Library {
    /// Within these limits, and a little beyond.
    pub(super) fn new(limits: &Limits) -> Self {
        let head = HEAD_ROOM + 2 * (limits.header_bytes + limits.uri_bytes);
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(head);
        if limits.header_count > INLINE_FIELDS {
            http1.max_headers(2 * limits.header_count);
        }
        Self { http1, head, streams: limits.http2_streams }
    }

    fn http2(&self, streams: Streams) -> http2::Builder<Streams> {
        let mut library = http2::Builder::new(streams);
        library
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            .max_header_list_size(u32::try_from(self.head).unwrap_or(u32::MAX))
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .max_send_buf_size(HTTP2_SEND_BUFFER)
            .max_pending_accept_reset_streams(HTTP2_RESETS)
            .max_local_error_reset_streams(HTTP2_ERRORS)
            .keep_alive_interval(HTTP2_PING)
            .keep_alive_timeout(HTTP2_PONG);
        library
    }
}

type Io = TokioIo<Box<Connection>>;
type End = Result<(), Box<dyn Error + Send + Sync>>;

/// What is said on one connection, up to its end or to its upgrade.
pub(super) struct Conversation<'a, S: HttpService<Incoming>> {
    library: &'a Library,
    streams: &'a Streams,
    service: S,
    activity: Arc<Activity>,
    state: State<S>,
}

/// Boxed where it is large: most connections are parked most of the time.
enum State<S: HttpService<Incoming>> {
    Parked(Box<Connection>),
    Http1(Box<http1::UpgradeableConnection<Io, S>>),
    Http2(Box<http2::Connection<Io, S, Streams>>),
    Ending(Box<Connection>),
    Over,
}

impl<'a, S> Conversation<'a, S>
where
    S: HttpService<Incoming, ResBody = RecordedBody, Error = Infallible> + Copy + Unpin,
    S::Future: Send + 'static,
{
    /// What is said on this connection is answered by the service; HTTP/2 has these streams.
    pub(super) fn new(
        library: &'a Library,
        streams: &'a Streams,
        connection: Box<Connection>,
        service: S,
    ) -> Self {
        let activity = connection.activity();
        Self { library, streams, service, activity, state: State::Parked(connection) }
    }

    /// It ends as soon as nothing is under way.
    pub(super) fn graceful_shutdown(self: Pin<&mut Self>) {
        let this = self.get_mut();
        match &mut this.state {
            State::Http1(spoken) => Pin::new(&mut **spoken).graceful_shutdown(),
            State::Http2(spoken) => Pin::new(&mut **spoken).graceful_shutdown(),
            State::Parked(_) => {
                if let State::Parked(connection) = std::mem::replace(&mut this.state, State::Over)
                    && this.activity.served() > 0
                {
                    this.state = State::Ending(connection);
                }
            }
            State::Ending(_) | State::Over => {}
        }
    }

    /// The first byte has come, or will not.
    fn begin(&mut self, begins: Begins) {
        let State::Parked(mut connection) = std::mem::replace(&mut self.state, State::Over) else { return };
        if begins != Begins::Nothing {
            connection.unpark();
        }
        self.state = match begins {
            Begins::Nothing => State::Ending(connection),
            Begins::Http1 => {
                let spoken = self.library.http1.serve_connection(TokioIo::new(connection), self.service);
                State::Http1(Box::new(spoken.with_upgrades()))
            }
            Begins::Http2 => {
                let library = self.library.http2(self.streams.clone());
                State::Http2(Box::new(library.serve_connection(TokioIo::new(connection), self.service)))
            }
        };
    }

    /// Parks an HTTP/1.1 connection that is quiet: answers are flushed and bodies have been read. hyper, which is
    /// between two requests then, ends at once when it is asked to, and the connection takes no notice. Were it not, it
    /// would go on, and end after what is under way.
    fn poll_park(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let State::Http1(spoken) = &mut self.state else { return Poll::Pending };
        Pin::new(&mut **spoken).graceful_shutdown();
        let ended = Pin::new(&mut **spoken).poll(cx);
        self.activity.set_quiet(false);
        ready!(ended)?;
        if let State::Http1(spoken) = std::mem::replace(&mut self.state, State::Over)
            && let Some(parts) = spoken.into_parts()
        {
            let mut connection = parts.io.into_inner();
            connection.park(&parts.read_buf);
            self.state = State::Parked(connection);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Future for Conversation<'_, S>
where
    S: HttpService<Incoming, ResBody = RecordedBody, Error = Infallible> + Copy + Unpin,
    S::Future: Send + 'static,
{
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Http1(spoken) => {
                    let end = Pin::new(&mut **spoken).poll(cx);
                    if end.is_ready() || !this.activity.is_quiet() {
                        return end.map_err(Into::into);
                    }
                    ready!(this.poll_park(cx))?;
                }
                State::Http2(spoken) => return Pin::new(&mut **spoken).poll(cx).map_err(Into::into),
                State::Parked(connection) => match ready!(connection.poll_begin(cx)) {
                    Ok(begins) => this.begin(begins),
                    Err(error) if this.activity.served() == 0 => return Poll::Ready(Err(error.into())),
                    // between two requests that is an end like any other
                    Err(_) => this.begin(Begins::Nothing),
                },
                State::Ending(connection) => {
                    return Pin::new(connection).poll_shutdown(cx).map_err(Into::into);
                }
                State::Over => return Poll::Ready(Ok(())),
            }
        }
    }
}
