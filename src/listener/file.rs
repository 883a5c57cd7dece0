//! `[listeners.NAME]` as written, and what it means.

mod tls;

use std::time;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use self::tls::WrittenTls;
use super::addresses::WrittenAddresses;
use super::proxy::Versions;
use super::timeouts::Pace;
use super::{Address, Limits, Settings, Timeouts};
use crate::setting::leaf::{schema, text, words};
use crate::setting::network::Network;
use crate::setting::{Check, Count, Duration, OrOff, Size, Written};
use crate::telemetry::context::Inbound;
use crate::telemetry::context::format::{Format, Trust};

/// A listener as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Listener {
    /// Where it listens: an IP address and a port, or the path of a Unix socket.
    address: Written<Address>,
    /// Whether other processes may listen on the same port. Default: `false`.
    reuse_port: Written<bool>,
    /// Who may open the Unix socket, in octal. Default: `"0660"`.
    socket_mode: Written<Mode>,
    /// What the trusted proxies begin their connections with. Default: `"off"`.
    proxy_protocol: Written<OrOff<Versions>>,
    /// TLS towards clients; plain without it.
    tls: Option<WrittenTls>,
    /// Whose X-Forwarded-* is believed. Default: `[]`.
    trusted_proxies: Written<Vec<Written<Network>>>,
    /// Whose requests are let in, by address; everybody's without it.
    addresses: WrittenAddresses,
    /// What of the trace context of clients is taken.
    context: WrittenContext,
    /// What bounds its clients.
    limits: WrittenLimits,
    /// How long its clients may take.
    timeouts: WrittenTimeouts,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ inbound = \"continue\", formats = [\"w3c\"] }")]
struct WrittenContext {
    /// Whether a client's trace goes on: always, never, or if it comes by a trusted proxy. Default:
    /// `"continue"`.
    inbound: Written<Trust>,
    /// The formats that are read, the one that goes first first. Default: `["w3c"]`.
    formats: Written<Vec<Written<Format>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenLimits {
    /// Connections open at once. Default: `10000`.
    connections: Written<Count>,
    /// The same of one address, or one /64 of IPv6. Default: `"off"`.
    connections_per_client: Written<OrOff<Count>>,
    /// Requests that came by this listener, at once. Default: `"off"`.
    in_flight: Written<OrOff<Count>>,
    /// Of a request's header, names and values. Default: `"64KiB"`.
    header_bytes: Written<Size>,
    /// Fields of a request's header. Default: `100`.
    header_count: Written<Count>,
    /// Of a request's target. Default: `"8KiB"`.
    uri_bytes: Written<Size>,
    /// Requests at once on one HTTP/2 connection. Default: `128`.
    http2_streams: Written<Count>,
    /// Of one connection, which is ended gracefully after them. Default: `"off"`.
    requests_per_connection: Written<OrOff<Count>>,
    /// The least that must come of a request's body, or be taken of an answer, within each `timeouts.body` in which
    /// it is waited for. Default: `"1KiB"`.
    body_progress: Written<OrOff<Size>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenTimeouts {
    /// The TLS handshake, from accept on. Default: `"10s"`.
    handshake: Written<Duration>,
    /// A head, from its first byte to its last. Default: `"10s"`.
    head: Written<Duration>,
    /// A connection without a request. Default: `"60s"`.
    idle: Written<Duration>,
    /// A request's body that stands still, an answer that is not taken. Default: `"30s"`.
    body: Written<Duration>,
    /// A connection that is older, by up to a tenth more, is ended gracefully. Default: `"off"`.
    connection_age: Written<OrOff<Duration>>,
}

impl Listener {
    /// Where it listens.
    pub fn address(&self) -> &Written<Address> {
        &self.address
    }

    /// The listener as used, with certificate and key loaded; `None` only after a problem has been noted.
    pub fn check(self, name: &str, check: &Check<'_>) -> Option<Settings> {
        let address = self.address.required(check, "write address = \"0.0.0.0:8080\"");
        let is_unix = matches!(address, Some(Address::Unix(_)));
        if is_unix && self.reuse_port.get() == Some(&true) {
            let what = "has no port to be shared";
            check.wrong(self.reuse_port.key(), what, "leave it out: a Unix socket is handed over as it is");
        }
        if address.is_some() && !is_unix && !self.socket_mode.is_absent() {
            check.wrong(self.socket_mode.key(), "is for Unix sockets", "leave it out");
        }
        let tls = self.tls.map(|tls| tls.check(check));
        let trusts_nobody = self.trusted_proxies.get().is_none_or(Vec::is_empty);
        let proxy_key = self.proxy_protocol.key().clone();
        let proxy_protocol = self.proxy_protocol.into_option().and_then(OrOff::into_option);
        if proxy_protocol.is_some() && address.is_some() && !is_unix && trusts_nobody {
            let help = "name the proxies in trusted_proxies, or write \"off\"";
            check.wrong(&proxy_key, "nobody is trusted: trusted_proxies is empty", help);
        }
        let context = self.context.check(trusts_nobody, check);
        Some(Settings {
            name: name.into(),
            address: address?,
            reuse_port: self.reuse_port.or(false),
            socket_mode: self.socket_mode.into_option().map_or(0o660, |Mode(mode)| mode),
            proxy_protocol,
            tls: tls.and_then(|tls| tls),
            trusted_proxies: self.trusted_proxies.into_elements().map(|Network(net)| net).collect(),
            addresses: self.addresses.check(check),
            context,
            timeouts: self.timeouts.check(self.limits.progress()),
            limits: self.limits.check(),
        })
    }
}

impl WrittenContext {
    fn check(self, trusts_nobody: bool, check: &Check<'_>) -> Inbound {
        let (trust_key, key) = (self.inbound.key().clone(), self.formats.key().clone());
        let trust = self.inbound.or(Trust::Continue);
        if trust == Trust::TrustedOnly && trusts_nobody {
            let help = "name those in trusted_proxies, or write \"restart\"";
            check.wrong(&trust_key, "nobody is trusted: trusted_proxies is empty", help);
        }
        let default = Inbound { trust, ..Inbound::default() };
        if self.formats.is_absent() {
            return default;
        }
        let written = self.formats.get().map_or(0, Vec::len);
        let formats: Box<[Format]> = self.formats.into_elements().collect();
        if written == 0 {
            check.wrong(&key, "is empty: no trace would go on", "write [\"w3c\"], or inbound = \"restart\"");
        }
        let repeated = |(index, format): (usize, &Format)| formats[..index].contains(format);
        if formats.iter().enumerate().any(repeated) {
            check.wrong(
                &key,
                "names a format twice",
                "write each format once, the one that goes first first",
            );
        }
        Inbound { formats, ..default }
    }
}

impl WrittenLimits {
    /// How many bytes of a body have to come within its time.
    fn progress(&self) -> u64 {
        let written = self.body_progress.get();
        written.map_or(1 << 10, |written| written.into_option().map_or(1, Into::into))
    }

    fn check(self) -> Limits {
        Limits {
            connections: self.connections.or(10_000),
            connections_per_client: self
                .connections_per_client
                .into_option()
                .and_then(OrOff::into_option)
                .map(Into::into),
            in_flight: self.in_flight.into_option().and_then(OrOff::into_option).map(Into::into),
            header_bytes: self.header_bytes.or(64 << 10),
            header_count: self.header_count.or(100),
            uri_bytes: self.uri_bytes.or(8 << 10),
            http2_streams: self.http2_streams.or(128),
            requests_per_connection: self
                .requests_per_connection
                .into_option()
                .and_then(OrOff::into_option)
                .map(Into::into),
        }
    }
}

impl WrittenTimeouts {
    fn check(self, progress: u64) -> Timeouts {
        let seconds = time::Duration::from_secs;
        Timeouts {
            handshake: self.handshake.or(seconds(10)),
            head: self.head.or(seconds(10)),
            idle: self.idle.or(seconds(60)),
            body: Pace { within: self.body.or(seconds(30)), least: progress },
            connection_age: self.connection_age.or(None),
        }
    }
}

/// Who may open a Unix socket.
#[derive(Debug, Clone, Copy)]
struct Mode(u32);

impl Mode {
    fn parse(text: &str) -> Result<Self, String> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 && text.bytes().all(|digit| digit.is_ascii_digit()) => Ok(Self(mode)),
            _ => Err(format!("\"{text}\" is no mode of a file\nwrite \"0660\": owner and group")),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an address", Self::parse)
    }
}

schema!(Address, { "type": "string", "examples": ["0.0.0.0:8080", "[::]:8080", "unix:/run/tracegate.sock"], "pattern": "^(unix:/.+|.+:[0-9]{1,5})$" });

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a text such as \"0660\"", Mode::parse)
    }
}

schema!(Mode, { "type": "string", "examples": ["0660"], "pattern": "^[0-7]{3,4}$" });

words!(Versions, [("v1", Self::V1), ("v2", Self::V2), ("any", Self::Any)]);

words!(
    Trust,
    [("continue", Self::Continue), ("restart", Self::Restart), ("trusted-only", Self::TrustedOnly)]
);

words!(Format, [("w3c", Self::W3c), ("b3", Self::B3), ("jaeger", Self::Jaeger)]);
