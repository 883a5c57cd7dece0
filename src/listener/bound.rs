//! A socket that listens: bound by us, or inherited from whoever started us.

use std::fs;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::address::Address;
use crate::net::Unregistered;

/// Connections the kernel holds until they are accepted.
const BACKLOG: u32 = 4096;

/// Who is at the other end of a Unix socket: this machine.
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A socket that listens.
#[derive(Debug)]
pub struct Bound {
    socket: Kind,
    address: Address,
    /// A file that goes with the socket, if we have made it.
    file: Option<File>,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    /// Binds. `shared` lets another process listen on the same IP address and port; `mode` is who may open a
    /// Unix socket. A socket's file that nobody listens on any more is replaced.
    pub fn bind(address: &Address, shared: bool, mode: u32) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let socket = match address {
                    SocketAddr::V4(_) => TcpSocket::new_v4(),
                    SocketAddr::V6(_) => TcpSocket::new_v6(),
                }?;
                socket.set_reuseaddr(true)?;
                socket.set_reuseport(shared)?;
                socket.bind(*address)?;
                Self::tcp(socket.listen(BACKLOG)?.into_std()?)
            }
            Address::Unix(path) => {
                remove_stale(path)?;
                let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.bind(&SockAddr::unix(path)?)?;
                let file = File::new(path)?;
                // before it listens: nobody has come in by then
                fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
                socket.listen(i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
                let bound = Self::unix(socket.into())?;
                Ok(Self { address: address.clone(), file: Some(file), ..bound })
            }
        }
    }

    /// A TCP socket that listens already.
    pub fn tcp(socket: std::net::TcpListener) -> io::Result<Self> {
        let address = Address::Tcp(socket.local_addr()?);
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Kind::Tcp(TcpListener::from_std(socket)?), address, file: None })
    }

    /// A Unix socket that listens already. Its file is somebody else's.
    pub fn unix(socket: net::UnixListener) -> io::Result<Self> {
        let path = socket.local_addr()?.as_pathname().unwrap_or(Path::new("")).into();
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Kind::Unix(UnixListener::from_std(socket)?),
            address: Address::Unix(path),
            file: None,
        })
    }

    /// Where it listens, the port included.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection. Whoever comes by a Unix socket counts as 127.0.0.1.
    pub async fn accept(&self) -> io::Result<(Unregistered, SocketAddr)> {
        match &self.socket {
            Kind::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok(tcp(stream.into_std()?, peer))
            }
            Kind::Unix(socket) => Ok((Unregistered::Unix(socket.accept().await?.0.into_std()?), LOCAL)),
        }
    }

    /// Those who have connected and have not been accepted yet; the socket closes behind the last of them, where it
    /// would have reset them.
    pub fn rest(self) -> impl Iterator<Item = (Unregistered, SocketAddr)> {
        let Self { socket, address: _, file } = self;
        // nobody finds it any more
        drop(file);
        // the runtime knows of a connection only some time after the system
        let (tcp_socket, unix) = match socket {
            Kind::Tcp(socket) => (socket.into_std().ok(), None),
            Kind::Unix(socket) => (None, socket.into_std().ok()),
        };
        iter::from_fn(move || match (&tcp_socket, &unix) {
            (Some(socket), _) => {
                let (stream, peer) = socket.accept().ok()?;
                stream.set_nonblocking(true).ok()?;
                Some(tcp(stream, peer))
            }
            (None, Some(socket)) => {
                let (stream, _) = socket.accept().ok()?;
                stream.set_nonblocking(true).ok()?;
                Some((Unregistered::Unix(stream), LOCAL))
            }
            (None, None) => None,
        })
    }
}

fn tcp(stream: std::net::TcpStream, peer: SocketAddr) -> (Unregistered, SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    (Unregistered::Tcp(stream), peer)
}

/// The file of a socket that we have bound. It goes with the socket, unless another has taken its place.
#[derive(Debug)]
struct File {
    path: PathBuf,
    identity: (u64, u64),
}

impl File {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), identity: identity(path)? })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Removes the file of a socket that nobody listens on: who was killed has left it.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    match net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_unix_socket_has_its_mode_replaces_a_stale_one_and_takes_its_file_along() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.sock");
        let address = Address::Unix(path.as_path().into());
        // left behind by somebody who was killed
        drop(net::UnixListener::bind(&path).unwrap());
        let bound = Bound::bind(&address, false, 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(bound.address(), &address);

        let (connected, accepted) = tokio::join!(tokio::net::UnixStream::connect(&path), bound.accept());
        assert!(connected.is_ok());
        assert_eq!(accepted.unwrap().1, LOCAL);
        let second = Bound::bind(&address, false, 0o640).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse, "somebody listens");
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_not_ours_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.sock");
        let address = Address::Unix(path.as_path().into());
        fs::write(&path, "precious").unwrap();
        assert_eq!(Bound::bind(&address, false, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

        fs::remove_file(&path).unwrap();
        let bound = Bound::bind(&address, false, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let successor = net::UnixListener::bind(&path).unwrap();
        drop(bound);
        assert!(path.exists(), "the successor's");
        drop(successor);
    }

    #[tokio::test]
    async fn who_has_connected_is_still_accepted_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let unix = Address::Unix(directory.path().join("gateway.sock").as_path().into());
        for address in [Address::Tcp(([127, 0, 0, 1], 0).into()), unix] {
            let bound = Bound::bind(&address, false, 0o600).unwrap();
            let connected: Vec<Box<dyn std::any::Any>> = match bound.address() {
                Address::Tcp(at) => (0..3).map(|_| Box::new(std::net::TcpStream::connect(at)) as _).collect(),
                Address::Unix(at) => (0..3).map(|_| Box::new(net::UnixStream::connect(at)) as _).collect(),
            };
            assert_eq!(bound.rest().count(), connected.len(), "{address}");
        }
    }

    #[tokio::test]
    async fn a_port_can_be_shared_by_those_who_agree() {
        let any = Address::Tcp(([127, 0, 0, 1], 0).into());
        let first = Bound::bind(&any, true, 0).unwrap();
        assert!(Bound::bind(first.address(), true, 0).is_ok());
        assert!(Bound::bind(first.address(), false, 0).is_err());
    }
}
