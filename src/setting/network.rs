//! A network as written: `"10.0.0.0/8"`, or a single address.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer};

use super::leaf::{schema, text};

/// A network, or a single address.
#[derive(Debug, Clone, Copy)]
pub struct Network(pub IpNet);

impl Network {
    fn parse(text: &str) -> Result<Self, String> {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        let network = text.parse().or_else(|_| address());
        network
            .map(|network| Self(canonical(network)))
            .map_err(|_| format!("\"{text}\" is not a network\nwrite \"10.0.0.0/8\" or \"fd00::/8\""))
    }
}

/// Clients that come over IPv6 with an IPv4 address count by that (RFC 4291 section 2.5.5.2), so that networks of them do,
/// too.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(six) = network else { return network };
    let length = six.prefix_len().checked_sub(96);
    let four = length.zip(six.addr().to_ipv4_mapped());
    four.and_then(|(length, address)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a network", Self::parse)
    }
}

schema!(Network, { "type": "string", "examples": ["10.0.0.0/8", "fd00::/8"], "pattern": "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$" });

#[cfg(test)]
mod tests {
    use super::Network;

    #[test]
    fn an_ipv4_network_counts_as_one_however_it_is_written() {
        for (written, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("fd00::/8", "fd00::/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(Network::parse(written).unwrap().0.to_string(), expected, "{written}");
        }
    }
}
