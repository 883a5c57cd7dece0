//! `[dns]` as written, and what it means.

use std::net::{IpAddr, SocketAddr};
use std::time;

use serde::{Deserialize, Deserializer};

use super::DnsSettings;
use crate::setting::leaf::text;
use crate::setting::{Check, Duration, Written};

/// How names are resolved, as written.
#[derive(Debug, Deserialize)]
pub struct Dns {
    servers: Written<Vec<Written<Server>>>,
    min_ttl: Written<Duration>,
    max_ttl: Written<Duration>,
}

impl Dns {
    /// The settings as used.
    pub fn check(self, check: &Check<'_>) -> DnsSettings {
        let key = self.min_ttl.key().clone();
        let settings = DnsSettings {
            servers: self.servers.into_elements().map(|Server(address)| address).collect(),
            min_ttl: self.min_ttl.or(time::Duration::from_secs(1)),
            max_ttl: self.max_ttl.or(time::Duration::from_mins(5)),
        };
        if settings.min_ttl > settings.max_ttl {
            let max = settings.max_ttl.as_secs_f64();
            check.wrong(&key, format!("is longer than max_ttl ({max}s)"), "write the shorter of both here");
        }
        settings
    }
}

/// A name server, on port 53 unless another one is written.
#[derive(Debug, Clone, Copy)]
struct Server(SocketAddr);

impl Server {
    fn parse(text: &str) -> Result<Self, String> {
        let bare = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
        let help = r#"write "10.0.0.2" or "10.0.0.2:53""#;
        text.parse()
            .or_else(|_| bare())
            .map(Self)
            .map_err(|_| format!("\"{text}\" is not an IP address\n{help}"))
    }
}

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an address", Self::parse)
    }
}
