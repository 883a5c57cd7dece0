//! `[admin]` and `[probes]` as written, and what they mean.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;

use super::Settings;
use crate::setting::{Address, Check, Written};

/// The admin listener as written.
#[derive(Debug, Deserialize)]
pub struct Admin {
    address: Written<Address>,
}

/// The probes' listener as written.
#[derive(Debug, Deserialize)]
pub struct Probes {
    address: Written<Address>,
}

impl Admin {
    /// Where it listens, as written.
    pub fn address(&self) -> &Written<Address> {
        &self.address
    }

    /// Where it listens, as used.
    pub fn used_address(&self) -> SocketAddr {
        self.address.get().map_or(DEFAULT, |address| (*address).into())
    }

    /// The settings as used.
    pub fn check(self, probes: Probes, check: &Check<'_>) -> Settings {
        let address = self.used_address();
        if !address.ip().is_loopback() {
            let what =
                format!("\"{address}\" is not a loopback address, and nobody is asked for a token there");
            let help = format!("write \"127.0.0.1:{}\"; [probes] may listen anywhere", address.port());
            check.wrong(self.address.key(), what, help);
        }
        Settings { address, probes: probes.address.into_option().map(Into::into) }
    }
}

impl Probes {
    /// Where it listens.
    pub fn address(&self) -> &Written<Address> {
        &self.address
    }
}

const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
