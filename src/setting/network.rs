//! A network as written: `"10.0.0.0/8"`, or a single address.

use std::net::IpAddr;

use ipnet::IpNet;
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
            .map(Self)
            .map_err(|_| format!("\"{text}\" is not a network\nwrite \"10.0.0.0/8\" or \"fd00::/8\""))
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a network", Self::parse)
    }
}

schema!(Network, { "type": "string", "examples": ["10.0.0.0/8", "fd00::/8"], "pattern": "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$" });
