//! A connected socket, of TCP or of this machine alone (Unix), as one type to read from and write to.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::worker;

/// How long several slices may be that are joined to be written as one: to tell the system of each takes longer than
/// to copy so many bytes.
const JOINED: usize = 2048;

/// A connected socket. It is with the runtime it was made in until a [worker](crate::worker) asks it for something: from
/// then on it is with the runtime of that worker, which hears of it without being told by another thread.
#[derive(Debug)]
pub struct Socket {
    kind: Kind,
    worker: Option<worker::Id>,
    /// It has just been moved: the runtime does not know yet what has come, and what there is room for.
    moved: Moved,
}

#[derive(Debug, Default)]
struct Moved {
    reads: bool,
    writes: bool,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// It could not be moved to another worker.
    Lost,
}

/// A connected socket that no runtime has been told of yet.
#[derive(Debug)]
pub enum Unregistered {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl Unregistered {
    /// Registers it with this runtime. Fails where the system takes no more.
    pub fn register(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(stream) => Socket::tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Socket::unix(UnixStream::from_std(stream)?),
        })
    }
}

impl Socket {
    /// A TCP socket, which this runtime knows.
    pub fn tcp(stream: TcpStream) -> Self {
        Self::new(Kind::Tcp(stream))
    }

    /// A Unix socket, which this runtime knows.
    pub fn unix(stream: UnixStream) -> Self {
        Self::new(Kind::Unix(stream))
    }

    fn new(kind: Kind) -> Self {
        Self { kind, worker: worker::current(), moved: Moved::default() }
    }

    /// Whether the other end is on this machine, whatever its address.
    pub fn is_unix(&self) -> bool {
        matches!(self.kind, Kind::Unix(_))
    }

    /// Reads what has come first, and leaves it there. A Unix socket has nothing to show.
    pub async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match &self.kind {
            Kind::Tcp(stream) => stream.peek(bytes).await,
            Kind::Unix(_) | Kind::Lost => Ok(0),
        }
    }

    /// Moves it to where it is wanted, if it is not there.
    fn here(&mut self) -> io::Result<()> {
        let worker = worker::current();
        if worker.is_some() && worker != self.worker { self.move_to(worker) } else { Ok(()) }
    }

    #[cold]
    fn move_to(&mut self, worker: Option<worker::Id>) -> io::Result<()> {
        self.kind = match std::mem::replace(&mut self.kind, Kind::Lost) {
            Kind::Tcp(stream) => Kind::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Kind::Unix(stream) => Kind::Unix(UnixStream::from_std(stream.into_std()?)?),
            Kind::Lost => Kind::Lost,
        };
        self.worker = worker;
        self.moved = Moved { reads: true, writes: true };
        Ok(())
    }

    /// What the system says to the first reading or writing after a move: whether the other end has closed it, above all,
    /// before anything is sent. `None`: the runtime will tell when it is possible.
    #[cold]
    fn ask_system<T>(&self, ask: impl FnOnce(&socket2::Socket) -> io::Result<T>) -> Option<io::Result<T>> {
        let socket = match &self.kind {
            Kind::Tcp(stream) => SockRef::from(stream),
            Kind::Unix(stream) => SockRef::from(stream),
            Kind::Lost => return None,
        };
        match ask(&socket) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                None
            }
            said => Some(said),
        }
    }
}

/// Passes a call on to whichever socket it is.
macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().kind {
            Kind::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Kind::Unix(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Kind::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.here()?;
        if std::mem::take(&mut self.moved.reads)
            && let Some(read) = self.ask_system(|mut socket| socket.read(buffer.initialize_unfilled()))
        {
            buffer.advance(read?);
            return Poll::Ready(Ok(()));
        }
        either!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.here()?;
        if std::mem::take(&mut self.moved.writes)
            && let Some(written) = self.ask_system(|mut socket| socket.write(bytes))
        {
            return Poll::Ready(written);
        }
        either!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if let [slice] = slices {
            self.poll_write(context, slice)
        } else if length <= JOINED {
            self.poll_write(context, join(slices, &mut [0; JOINED]))
        } else {
            self.here()?;
            either!(self, stream => stream.poll_write_vectored(context, slices))
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            Kind::Tcp(stream) => stream.is_write_vectored(),
            Kind::Unix(stream) => stream.is_write_vectored(),
            Kind::Lost => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(context))
    }
}

/// All the slices one after another. There is room for them.
fn join<'a>(slices: &[IoSlice<'_>], room: &'a mut [u8]) -> &'a [u8] {
    let mut length = 0;
    for slice in slices {
        room[length..length + slice.len()].copy_from_slice(slice);
        length += slice.len();
    }
    &room[..length]
}
