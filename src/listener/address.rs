//! Where a listener listens: an IP address and a port, or a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// The address of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(Arc<Path>),
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const HELP: &str =
            r#"write "127.0.0.1:8080", "0.0.0.0:8080", "[::]:8080" or "unix:/run/tracegate.sock""#;
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.as_bytes() {
                [b'/', _, ..] if path.len() <= LONGEST_PATH => Ok(Self::Unix(Path::new(path).into())),
                [b'/', _, ..] => Err(format!("\"{text}\" is longer than {LONGEST_PATH} bytes\n{HELP}")),
                _ => Err(format!("\"{text}\" is not a whole path\n{HELP}")),
            };
        }
        let wrong = |_| format!("\"{text}\" is neither an IP address and a port nor a Unix socket\n{HELP}");
        text.parse().map(Self::Tcp).map_err(wrong)
    }

    /// The IP address and the port, unless it is a Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

/// The system has room for one byte more, which ends the path.
const LONGEST_PATH: usize = 107;

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn an_address_is_an_ip_and_a_port_or_the_path_of_a_socket() {
        for (text, good) in [
            ("127.0.0.1:0", true),
            ("[::1]:8080", true),
            ("unix:/run/tracegate.sock", true),
            ("localhost:8080", false),
            ("127.0.0.1", false),
            (":8080", false),
            ("http://127.0.0.1:8080", false),
            ("unix:tracegate.sock", false),
            ("unix:/", false),
            ("unix:", false),
            ("/run/tracegate.sock", false),
        ] {
            let parsed = Address::parse(text);
            assert_eq!(parsed.is_ok(), good, "{text}");
            assert!(parsed.is_err() || parsed.unwrap().to_string() == text);
        }
        assert!(Address::parse(&format!("unix:/{}", "a".repeat(106))).is_ok());
        assert!(Address::parse(&format!("unix:/{}", "a".repeat(107))).is_err());
    }
}
