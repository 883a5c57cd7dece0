//! `[telemetry.logstash]` as written, and what it means.

use std::time;

use http::uri::Authority;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::net::file::WrittenTls;
use crate::setting::leaf::{schema, text};
use crate::setting::{Check, Count, Duration, Written};
use crate::telemetry::settings::Logstash;

/// The receiver of error records as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "a table with address …, or \"off\"")]
pub(super) struct WrittenLogstash {
    /// Where the input with the codec `json_lines` is.
    address: Written<Address>,
    /// TLS, with tls:// in the address.
    tls: WrittenTls,
    /// Whether answers from 400 to 499 that are passed on are recorded, too. Default: `false`.
    client_errors: Written<bool>,
    /// Records that wait to be written. Default: `4096`.
    queue: Written<Count>,
    /// How long connecting may take, TLS included. Default: `"3s"`.
    connect_timeout: Written<Duration>,
    /// How long a write may stand still. Default: `"30s"`.
    timeout: Written<Duration>,
}

impl WrittenLogstash {
    /// The receiver as used; `None` only after a problem has been noted.
    pub(super) fn check(self, check: &Check<'_>) -> Option<Logstash> {
        let key = self.address.key().clone();
        let address = self.address.required(check, EXAMPLE)?;
        let tls = if address.tls {
            Some(self.tls.check((&address.host, &key), &[], check)?)
        } else {
            if !self.tls.is_absent() {
                let table = key.parent().unwrap_or_default().child("tls");
                check.wrong(&table, "is never used: the address is tcp://", "write tls:// in the address");
            }
            None
        };
        Some(Logstash {
            host: address.host,
            port: address.port,
            tls,
            client_errors: self.client_errors.or(false),
            queue: self.queue.or(4096),
            connect_timeout: self.connect_timeout.or(time::Duration::from_secs(3)),
            timeout: self.timeout.or(time::Duration::from_secs(30)),
        })
    }
}

/// `tcp://host:port` or `tls://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    tls: bool,
    host: Box<str>,
    port: u16,
}

impl Address {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("\"{text}\" {what}\n{EXAMPLE}"));
        let (tls, rest) = match text.split_once("://") {
            Some(("tcp", rest)) => (false, rest),
            Some(("tls", rest)) => (true, rest),
            _ => return wrong("does not begin with tcp:// or tls://"),
        };
        if rest.contains('@') {
            // not repeated: it may be a password
            return Err(format!("the address names a user, which is never sent\n{EXAMPLE}"));
        }
        let Ok(authority) = rest.parse::<Authority>() else { return wrong("is not a host and a port") };
        let host = authority.host().trim_matches(['[', ']']);
        match authority.port_u16() {
            Some(port @ 1..) if !host.is_empty() => Ok(Self { tls, host: host.into(), port }),
            _ => wrong("has no host, or no port between 1 and 65535"),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an address", Self::parse)
    }
}

schema!(Address, { "type": "string", "examples": ["tcp://logstash.internal:5000"], "pattern": "^(tcp|tls)://[^@/]+:[0-9]{1,5}$" });

const EXAMPLE: &str = r#"write address = "tcp://logstash.internal:5000", or tls://"#;

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn an_address_is_tcp_or_tls_a_host_and_a_port() {
        for (text, tls, host, port) in [
            ("tcp://127.0.0.1:5000", false, "127.0.0.1", 5000),
            ("tls://logstash.internal:6514", true, "logstash.internal", 6514),
            ("tcp://[::1]:5000", false, "::1", 5000),
        ] {
            assert_eq!(Address::parse(text), Ok(Address { tls, host: host.into(), port }), "{text}");
        }
        for (text, what) in [
            ("127.0.0.1:5000", "does not begin"),
            ("udp://127.0.0.1:5000", "does not begin"),
            ("tcp://me:hunter2@logstash:5000", "names a user"),
            ("tcp://logstash", "no port"),
            ("tcp://logstash:0", "no port"),
            ("tcp://:5000", "no host"),
            ("tcp://logstash:5000/x", "is not a host"),
        ] {
            let error = Address::parse(text).expect_err(text);
            assert!(error.contains(what) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
