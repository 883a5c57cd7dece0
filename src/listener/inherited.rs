//! Sockets that whoever started us hands over (`LISTEN_FDS`): they listen on while one process follows another.

use std::env;
use std::io;

use listenfd::ListenFd;

use super::address::Address;
use super::bound::Bound;

/// Sockets that were handed over and that no listener has taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Offered>);

#[derive(Debug)]
struct Offered {
    /// By `LISTEN_FDNAMES`.
    name: Option<String>,
    socket: Raw,
}

#[derive(Debug)]
enum Raw {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Inherited {
    /// What the environment offers: `LISTEN_FDS` sockets, meant for this process if `LISTEN_PID` is there, by
    /// the names of `LISTEN_FDNAMES`. To be called once, while the process has no other thread.
    pub fn from_environment() -> Self {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut offered = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..offered.len() {
            let name = names.next().filter(|name| !name.is_empty());
            let tcp = offered.take_tcp_listener(index).ok().flatten().map(Raw::Tcp);
            let unix = || offered.take_unix_listener(index).ok().flatten().map(Raw::Unix);
            sockets.extend(tcp.or_else(unix).map(|socket| Offered { name, socket }));
        }
        Self(sockets)
    }

    /// The socket for this listener: that of its name, else the one that is bound to its address.
    pub(super) fn take(&mut self, listener: &str, address: &Address) -> io::Result<Option<Bound>> {
        let named = self.0.iter().position(|offered| offered.name.as_deref() == Some(listener));
        let bound = || self.0.iter().position(|offered| offered.socket.is_bound_to(address));
        named.or_else(bound).map(|index| self.0.swap_remove(index).socket.listen()).transpose()
    }

    /// How many nobody has taken.
    pub fn left(&self) -> usize {
        self.0.len()
    }
}

impl Raw {
    fn is_bound_to(&self, address: &Address) -> bool {
        match (self, address) {
            (Self::Tcp(socket), Address::Tcp(address)) => {
                socket.local_addr().is_ok_and(|found| found == *address)
            }
            (Self::Unix(socket), Address::Unix(path)) => {
                socket.local_addr().is_ok_and(|found| found.as_pathname() == Some(path))
            }
            _ => false,
        }
    }

    fn listen(self) -> io::Result<Bound> {
        match self {
            Self::Tcp(socket) => Bound::tcp(socket),
            Self::Unix(socket) => Bound::unix(socket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_takes_the_socket_of_its_name_else_that_of_its_address() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let tcp = |name: Option<&str>| {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = Address::Tcp(socket.local_addr().unwrap());
            (Offered { name: name.map(Into::into), socket: Raw::Tcp(socket) }, address)
        };
        let (named, named_address) = tcp(Some("public"));
        let (other, other_address) = tcp(Some("tracegate.socket"));
        let unix = Raw::Unix(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let mut inherited = Inherited(vec![named, other, Offered { name: None, socket: unix }]);
        let mut take = |name, address: &Address| {
            inherited.take(name, address).unwrap().map(|bound| bound.address().clone())
        };
        assert_eq!(take("public", &other_address), Some(named_address));
        assert_eq!(take("internal", &other_address), Some(other_address.clone()));
        assert_eq!(take("internal", &other_address), None);
        let address = Address::Unix(path.as_path().into());
        assert_eq!(take("local", &address), Some(address.clone()));
        assert_eq!(inherited.left(), 0);
    }
}
