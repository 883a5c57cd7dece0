//! The address of a socket as written: `"127.0.0.1:8080"`, `"[::1]:8080"`.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer};

use super::leaf::{schema, text};

/// The address of a socket of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(SocketAddr);

impl Address {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("\"{text}\" is not an IP address and a port\n{HELP}"))
    }
}

const HELP: &str = r#"write both: "127.0.0.1:8080", "0.0.0.0:8080" or "[::]:8080""#;

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an address", Self::parse)
    }
}

schema!(Address, { "type": "string", "examples": ["127.0.0.1:8080", "0.0.0.0:8080", "[::]:8080"], "pattern": "^.+:[0-9]{1,5}$" });

impl From<Address> for SocketAddr {
    fn from(written: Address) -> Self {
        written.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_and_a_port() {
        for (text, good) in [
            ("127.0.0.1:0", true),
            ("[::1]:8080", true),
            ("localhost:8080", false),
            ("127.0.0.1", false),
            (":8080", false),
            ("::1:8080", false),
            ("http://127.0.0.1:8080", false),
        ] {
            assert_eq!(Address::parse(text).is_ok(), good, "{text}");
        }
    }
}
