//! A loopback link that can be broken: everything sent to it goes on to somewhere else, until it does not.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the link does with what is sent over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Everything passes.
    Pass,
    /// Nothing moves, nothing closes.
    Stall,
    /// Connections are closed, new ones too.
    Cut,
    /// Connections are reset, new ones too.
    Reset,
}

/// A link to one address. It breaks when it drops.
pub struct TcpLink {
    /// Where it listens.
    pub address: SocketAddr,
    target: SocketAddr,
    link: Arc<watch::Sender<Link>>,
    task: JoinHandle<()>,
}

impl TcpLink {
    /// A link that passes everything on to this address.
    pub fn to(target: SocketAddr) -> Self {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = listener.local_addr().unwrap();
        let link = Arc::new(watch::Sender::new(Link::Pass));
        let task = tokio::spawn(accept(listener, target, Arc::clone(&link)));
        Self { address, target, link, task }
    }

    /// Does this from now on, to open connections too.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// Cuts what is open and refuses what is new, until it listens again.
    pub async fn refuse(&mut self) {
        self.set(Link::Cut);
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Passes everything again after it refused.
    pub fn listen_again(&mut self) {
        self.set(Link::Pass);
        self.task = tokio::spawn(accept(listen(self.address), self.target, Arc::clone(&self.link)));
    }
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address that accepts no connection and refuses none: its queue is full and nobody empties it.
pub struct Blackhole {
    /// Where nothing happens.
    pub address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Blackhole {
    /// Fills an address's queue.
    pub async fn start() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        // Linux queues one more than it was told to
        let queued = vec![TcpStream::connect(address).await.unwrap()];
        Self { address, _listener: listener, _queued: queued }
    }
}

/// An address where nobody listens: it was free a moment ago and is kept so by a bound socket.
pub struct Refusing {
    /// Where connections are refused.
    pub address: SocketAddr,
    _socket: TcpSocket,
}

impl Refusing {
    /// Binds, and does not listen.
    pub fn start() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self { address: socket.local_addr().unwrap(), _socket: socket }
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(1024).unwrap()
}

async fn accept(listener: TcpListener, target: SocketAddr, link: Arc<watch::Sender<Link>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(carry(stream, target, link.subscribe()));
    }
}

async fn carry(mut near: TcpStream, target: SocketAddr, mut link: watch::Receiver<Link>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    loop {
        let now = *link.borrow_and_update();
        match now {
            Link::Cut => return,
            Link::Reset => {
                let _ = near.set_zero_linger().and(far.set_zero_linger());
                return;
            }
            Link::Stall if link.changed().await.is_err() => return,
            Link::Stall => {}
            Link::Pass => tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => return,
                changed = link.changed() => if changed.is_err() { return },
            },
        }
    }
}
