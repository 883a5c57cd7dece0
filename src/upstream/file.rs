//! `[upstreams.NAME]` as written, and what it means.

mod resilience;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::{fmt, time};

use http::Uri;
use rustls::pki_types::ServerName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::json;

use self::resilience::{WrittenBreaker, WrittenHealth, WrittenOutliers};
use super::standing::Rules;
use super::{Address, Balance, Pool, Protocol, Settings, Tls, budget};
use crate::net;
use crate::net::file::CertificateName;
use crate::problem::Key;
use crate::setting::leaf::{text, words};
use crate::setting::{Check, Count, Duration, OrOff, Ratio, Size, Written};
use crate::telemetry::context::format::Formats;

/// An upstream as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Upstream {
    /// The service's own OpenTelemetry service.name: the edge in service graphs.
    service: Written<String>,
    /// Its servers: scheme, host and port, or the path of a Unix socket; or a table with a weight.
    endpoints: Written<Vec<Written<WrittenEndpoint>>>,
    /// Which endpoint is next: the less busy of two taken at random, or one after the other. Default: `"p2c"`.
    balance: Written<Balance>,
    /// Until an endpoint that has returned gets its full share. Default: `"10s"`.
    slow_start: Written<OrOff<Duration>>,
    /// If a smaller share of endpoints is usable, all are used. Default: `0.5`.
    panic_threshold: Written<OrOff<Ratio>>,
    /// How endpoints are asked for their health; they are not without it.
    health: Option<WrittenHealth>,
    /// When endpoints that fail are left alone for a while. Default: `{}`.
    outliers: OrOff<WrittenOutliers>,
    /// What bounds all its endpoints together; what is more is refused.
    breaker: WrittenBreaker,
    /// What its endpoints are spoken to in. Default: `"http/1.1"`.
    protocol: Written<Protocol>,
    /// How https endpoints are trusted, and told who we are.
    tls: Option<WrittenTls>,
    /// How long connecting may take, TLS included. Default: `"3s"`.
    connect_timeout: Written<Duration>,
    /// The connections to each endpoint.
    pool: WrittenPool,
    /// How many retries there may be of all routes together. Default: `{}`.
    retry_budget: Option<OrOff<WrittenBudget>>,
    /// Of an answer's header. Default: `"64KiB"`.
    header_bytes: Written<Size>,
    /// The formats in which trace context is told; false withholds context and baggage. Default: `["w3c"]`.
    propagate: Written<Propagate>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ ca_file = \"…\", server_name = \"…\", certificate_file = \"…\", key_file = \"…\" }")]
struct WrittenTls {
    /// The trusted authorities in PEM; the public ones without it.
    ca_file: Written<String>,
    /// The name in the endpoints' certificates; their host without it.
    server_name: Written<CertificateName>,
    /// Our own certificate in PEM, for endpoints that ask for one.
    certificate_file: Written<String>,
    /// Its private key in PEM.
    key_file: Written<String>,
    /// How long before our own certificate expires it is warned of. Default: `"14d"`.
    expiry_warning: Written<Duration>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenPool {
    /// To each endpoint; with "h2", requests at once on the shared one. Default: `1024`.
    connections: Written<Count>,
    /// Requests that wait for a connection. Default: `1024`.
    pending: Written<Count>,
    /// How long a request waits for one. Default: `"1s"`.
    wait: Written<Duration>,
    /// How long an unused one is kept; not with "h2". Default: `"4s"`.
    idle: Written<Duration>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ ratio = 0.2, min_per_second = 3, window = \"10s\" }, or \"off\"")]
struct WrittenBudget {
    /// The share of requests that may be sent again. Default: `0.2`.
    ratio: Written<Ratio>,
    /// Retries that may be in any case. Default: `3`.
    min_per_second: Written<Count>,
    /// Over which time they are counted. Default: `"10s"`.
    window: Written<Duration>,
}

impl Upstream {
    /// The upstream as used, with authorities loaded; `None` only after a problem has been noted.
    pub fn check(self, name: &str, admin: SocketAddr, check: &Check<'_>) -> Option<Settings> {
        let protocol = self.protocol.or(Protocol::Http1);
        let key = self.endpoints.key().clone();
        let endpoints = self.endpoints.required(check, "write endpoints = [\"http://127.0.0.1:9001\"]")?;
        if endpoints.is_empty() {
            check.wrong(&key, "is empty", "write at least one: [\"http://127.0.0.1:9001\"]");
        }
        // of those that are right, and so in the order of the addresses
        let right = endpoints.iter().filter_map(Written::get).filter(|endpoint| endpoint.address.is_some());
        let weights: Vec<u32> = right.map(|endpoint| endpoint.weight).collect();
        let endpoints: Vec<_> =
            endpoints.into_iter().map(|written| written.map(|endpoint| endpoint.address)).collect();
        refuse_admin(&endpoints, admin, check);
        refuse_repeated(&endpoints, check);
        let tls = check_tls(self.tls, protocol, &endpoints, &key, check);
        let health = match self.health {
            Some(health) => Some(health.check(protocol == Protocol::Http2, check)?),
            None => None,
        };
        let slow_start = self.slow_start.or(Some(time::Duration::from_secs(10)));
        let panic_threshold =
            self.panic_threshold.into_option().map_or(Some(0.5), |share| share.into_option().map(f64::from));
        Some(Settings {
            name: name.into(),
            service: self.service.into_option().map(Into::into),
            weights,
            rules: Rules {
                balance: self.balance.or(Balance::PowerOfTwoChoices),
                outliers: self.outliers.into_option().map(|outliers| outliers.check(check)),
                slow_start,
                panic_threshold,
            },
            health,
            breaker: self.breaker.check(),
            endpoints: endpoints.into_iter().filter_map(Written::into_option).collect(),
            protocol,
            tls,
            connect_timeout: self.connect_timeout.or(time::Duration::from_secs(3)),
            pool: self.pool.check(),
            retry_budget: check_budget(self.retry_budget, check),
            header_bytes: self.header_bytes.or(64 << 10),
            propagate: check_propagate(self.propagate, check),
        })
    }
}

impl WrittenPool {
    fn check(self) -> Pool {
        Pool {
            connections: self.connections.or(1024),
            pending: self.pending.or(1024),
            wait: self.wait.or(time::Duration::from_secs(1)),
            // Below the five seconds after which Node.js closes, so that it never closes under a request.
            idle: self.idle.or(time::Duration::from_secs(4)),
        }
    }
}

fn check_budget(written: Option<OrOff<WrittenBudget>>, check: &Check<'_>) -> Option<budget::Settings> {
    let default = budget::Settings::default();
    let Some(written) = written else { return Some(default) };
    let written = written.into_option()?;
    let key = written.window.key().clone();
    let window = written.window.or(default.window);
    let seconds = window.as_secs();
    if !(1..=budget::LONGEST).contains(&seconds) || window != time::Duration::from_secs(seconds) {
        let help = format!("write whole seconds from \"1s\" to \"{}s\"", budget::LONGEST);
        check.wrong(&key, "cannot be counted by the second", help);
    }
    Some(budget::Settings {
        ratio: written.ratio.or(default.ratio),
        min_per_second: written.min_per_second.or(default.min_per_second),
        window,
    })
}

/// TLS as used, if an endpoint speaks it.
fn check_tls(
    tls: Option<WrittenTls>,
    protocol: Protocol,
    endpoints: &[Written<Address>],
    key: &Key,
    check: &Check<'_>,
) -> Option<Tls> {
    let https = || endpoints.iter().filter(|endpoint| endpoint.get().is_some_and(|address| address.https));
    let all_read = endpoints.iter().all(|endpoint| endpoint.get().is_some());
    let mut warn = EXPIRY_WARNING;
    let (ca_file, server_name, own) = match tls {
        Some(tls) => {
            warn = tls.expiry_warning.or(warn);
            (Some(tls.ca_file), Some(tls.server_name), Some((tls.certificate_file, tls.key_file)))
        }
        None => (None, None, None),
    };
    if https().next().is_none() {
        if let (Some(ca_file), true) = (ca_file, all_read) {
            let table = ca_file.key().parent().unwrap_or_default();
            let help = format!("write https:// in {key}, or leave tls out");
            check.wrong(&table, "is never used: no endpoint is https", help);
        }
        return None;
    }
    let named = server_name.as_ref().is_some_and(|name| !name.is_absent());
    for endpoint in https().filter(|_| !named) {
        let host = endpoint.get().map(|address| address.host.to_string()).unwrap_or_default();
        if ServerName::try_from(host.clone()).is_err() {
            let what = format!("no certificate can be made out to \"{host}\"");
            check.wrong(
                endpoint.key(),
                what,
                "write the name in its certificate: tls = { server_name = \"…\" }",
            );
        }
    }
    let (ca_key, ca_file) =
        ca_file.map_or((key.clone(), None), |file| (file.key().clone(), file.into_option()));
    let path = ca_file.as_ref().map(|file| check.path(file));
    let own = match own.map(|(certificate, private)| own_certificate(certificate, private, check)) {
        Some(Err(Noted)) => return None,
        Some(Ok(own)) => own,
        None => None,
    };
    let own = own.as_ref().map(|(certificate, private)| (&**certificate, &**private));
    match net::tls::client_config(path.as_deref(), own, &[protocol.alpn()]) {
        Ok(config) => {
            let server_name = server_name.and_then(Written::into_option).map(CertificateName::into_inner);
            Some(Tls { config, server_name, warn })
        }
        Err(error) => {
            let what =
                ca_file.map_or(error.clone(), |file| format!("the file \"{file}\" cannot be used: {error}"));
            check.wrong(&ca_key, what, "name a file with the trusted authorities' certificates in PEM");
            None
        }
    }
}

/// How long before its end our own certificate is warned of.
const EXPIRY_WARNING: time::Duration = time::Duration::from_hours(14 * 24);

/// A problem has been noted.
struct Noted;

/// The files of our own certificate and its key, which belong together, for endpoints that ask for one.
fn own_certificate(
    certificate: Written<String>,
    private: Written<String>,
    check: &Check<'_>,
) -> Result<Option<(PathBuf, PathBuf)>, Noted> {
    let (certificate_key, private_key) = (certificate.key().clone(), private.key().clone());
    let path = |written: Written<String>| written.into_option().map(|file| check.path(file));
    let (certificate, private) = match (path(certificate), path(private)) {
        (Some(certificate), Some(private)) => (certificate, private),
        (None, None) => return Ok(None),
        (Some(_), None) => {
            check.wrong(&certificate_key, "has no key", "write key_file beside it");
            return Err(Noted);
        }
        (None, Some(_)) => {
            check.wrong(&private_key, "has no certificate", "write certificate_file beside it");
            return Err(Noted);
        }
    };
    if check.does_without(&certificate) || check.does_without(&private) {
        return Ok(None);
    }
    if let Err(error) = net::tls::client_config(None, Some((&certificate, &private)), &[]) {
        let help = "name our own certificate in PEM, and the key that belongs to it";
        check.wrong(&certificate_key, format!("the file cannot be used: {error}"), help);
        return Err(Noted);
    }
    Ok(Some((certificate, private)))
}

fn check_propagate(written: Written<Propagate>, check: &Check<'_>) -> Formats {
    let key = written.key().clone();
    let Some(Propagate(listed)) = written.into_option() else { return Formats::W3C };
    let Some(listed) = listed else { return Formats::NONE };
    if listed.is_empty() {
        check.wrong(&key, "is empty", "write false to withhold context and baggage, or [\"w3c\"]");
    }
    listed.iter().filter_map(Written::get).fold(Formats::NONE, |all, format| all.and(*format))
}

/// Our own admin address as an endpoint would open it to every client.
fn refuse_admin(endpoints: &[Written<Address>], admin: SocketAddr, check: &Check<'_>) {
    for endpoint in endpoints {
        let Some(address) = endpoint.get().filter(|address| address.unix().is_none()) else { continue };
        if leads_to(&address.host, admin.ip()) && address.port == admin.port() && admin.port() != 0 {
            let what = "is the gateway's own admin address, which would be open to every client";
            check.wrong(endpoint.key(), what, "write the address of the service");
        }
    }
}

/// Whether a host leads to what listens at this address of this machine, as far as it can be told without asking
/// anybody: names of loopback (RFC 6761 section 6.3), and addresses however they are written.
fn leads_to(host: &str, listening: IpAddr) -> bool {
    let listening = listening.to_canonical();
    let host = host.trim_end_matches('.');
    let written = host.parse().ok().or_else(|| old_address(host).map(IpAddr::V4));
    if let Some(ip) = written.map(|ip: IpAddr| ip.to_canonical()) {
        // to connect to no address in particular is to connect to this machine
        let here = ip.is_unspecified() || (listening.is_unspecified() && ip.is_loopback());
        return ip == listening || here;
    }
    let is_local = host == "localhost" || host.ends_with(".localhost");
    is_local && (listening.is_loopback() || listening.is_unspecified())
}

/// An IPv4 address in one of the forms of old: one to four numbers, octal and hexadecimal ones too, of which the
/// last stands for all bytes that are left (POSIX, `inet_addr`).
fn old_address(host: &str) -> Option<Ipv4Addr> {
    let number = |text: &str| {
        let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let octal = text.strip_prefix('0').filter(|digits| !digits.is_empty());
        let (radix, digits) = match (hexadecimal, octal) {
            (Some(digits), _) => (16, digits),
            (None, Some(digits)) => (8, digits),
            (None, None) => (10, text),
        };
        u32::from_str_radix(digits, radix)
            .ok()
            .filter(|_| digits.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    };
    let numbers: Vec<u32> = host.split('.').map(number).collect::<Option<_>>()?;
    let (last, bytes) = numbers.split_last().filter(|(_, bytes)| bytes.len() < 4)?;
    let left = 32 - 8 * u32::try_from(bytes.len()).ok()?;
    let fits = bytes.iter().all(|byte| *byte < 256) && u64::from(*last) < 1 << left;
    let high = bytes.iter().fold(0, |address, byte| address << 8 | u64::from(*byte));
    let address = high << left | u64::from(*last);
    fits.then(|| u32::try_from(address).ok().map(Ipv4Addr::from)).flatten()
}

fn refuse_repeated(endpoints: &[Written<Address>], check: &Check<'_>) {
    for (index, endpoint) in endpoints.iter().enumerate() {
        let before = &endpoints[..index];
        if endpoint.get().is_some() && before.iter().any(|other| other.get() == endpoint.get()) {
            check.wrong(endpoint.key(), "is written twice", "write each endpoint once");
        }
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            Err(format!(
                "\"{text}\" {what}\nwrite scheme, host and port: \"http://10.0.0.7:9001\", or \"unix:/run/shop.sock\""
            ))
        };
        if let Some(path) = text.strip_prefix("unix:") {
            if !(path.starts_with('/') && path.len() > 1) {
                return wrong("is not a whole path");
            }
            return Ok(Self { https: false, host: path.into(), port: 0 });
        }
        let Ok(uri) = text.parse::<Uri>() else { return wrong("is not a URL") };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return wrong("does not begin with http:// or https://");
        };
        let https = match scheme {
            "http" => false,
            "https" => true,
            _ => return wrong("is neither http nor https"),
        };
        if authority.as_str().contains('@') {
            // Not repeated: it may be a password.
            let help = "write the URL without it; a header is the place for credentials";
            return Err(format!("the URL names a user\n{help}"));
        }
        if uri.path() != "/" {
            return wrong("has a path, which belongs to the routes (strip_prefix, rewrite_path)");
        }
        if uri.query().is_some() || text.contains('#') {
            return wrong("has a query or a fragment");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let after_host = authority.as_str().get(authority.host().len()..).unwrap_or_default();
        let port = match (after_host, authority.port_u16()) {
            ("", _) => {
                if https {
                    443
                } else {
                    80
                }
            }
            (_, Some(port @ 1..)) => port,
            _ => return wrong("has no port between 1 and 65535"),
        };
        if host.is_empty() { wrong("has no host") } else { Ok(Self { https, host: host.into(), port }) }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a URL", Self::parse)
    }
}

/// An endpoint's URL, or a table of it and its weight. What is wrong in the table has been noted.
#[derive(Debug)]
struct WrittenEndpoint {
    address: Option<Address>,
    weight: u32,
}

impl<'de> Deserialize<'de> for WrittenEndpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UrlOrTable;

        impl<'de> Visitor<'de> for UrlOrTable {
            type Value = WrittenEndpoint;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, or { url = \"…\", weight = 3 },")
            }

            fn visit_str<E: Error>(self, url: &str) -> Result<WrittenEndpoint, E> {
                let address = Some(Address::parse(url).map_err(E::custom)?);
                Ok(WrittenEndpoint { address, weight: 1 })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<WrittenEndpoint, A::Error> {
                let help = "write { url = \"http://127.0.0.1:9001\", weight = 3 }";
                let (mut address, mut weight) = (None, 1);
                while let Some(key) = table.next_key::<String>()? {
                    match key.as_str() {
                        "url" => address = Some(table.next_value::<Written<Address>>()?.into_option()),
                        "weight" => weight = table.next_value::<Written<Weight>>()?.or(1),
                        other => return Err(A::Error::custom(format!("{other} is not a key here\n{help}"))),
                    }
                }
                let address = address.ok_or_else(|| A::Error::custom(format!("has no url\n{help}")))?;
                Ok(WrittenEndpoint { address, weight })
            }
        }

        deserializer.deserialize_any(UrlOrTable)
    }
}

impl JsonSchema for WrittenEndpoint {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Endpoint".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let url = json!({
            "type": "string",
            "examples": ["http://10.0.0.7:9001", "unix:/run/shop.sock"],
            "pattern": "^(https?://[^@/]+/?|unix:/.+)$"
        });
        json_schema!({ "anyOf": [
            url,
            { "type": "object", "additionalProperties": false, "required": ["url"], "properties": {
                "url": url,
                "weight": { "type": "integer", "minimum": 1, "maximum": MOST_WEIGHT, "default": 1,
                    "description": "How often it is picked beside the others." }
            } }
        ] })
    }
}

/// How often an endpoint is picked beside the others.
#[derive(Debug, Clone, Copy)]
struct Weight(u32);

impl From<Weight> for u32 {
    fn from(written: Weight) -> Self {
        written.0
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let weight = u32::from(Count::deserialize(deserializer)?);
        if weight > MOST_WEIGHT {
            let help =
                format!("write a whole number from 1 to {MOST_WEIGHT}: only its ratio to the others counts");
            return Err(D::Error::custom(format!("{weight} is out of bounds\n{help}")));
        }
        Ok(Self(weight))
    }
}

/// The heaviest weight.
const MOST_WEIGHT: u32 = 100;

/// A list of formats, or `false`.
#[derive(Debug)]
struct Propagate(Option<Vec<Written<Formats>>>);

impl<'de> Deserialize<'de> for Propagate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Listed;

        impl<'de> Visitor<'de> for Listed {
            type Value = Propagate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list such as [\"w3c\"], or false,")
            }

            fn visit_bool<E: Error>(self, propagate: bool) -> Result<Propagate, E> {
                if propagate {
                    return Err(E::custom("is true, where a list belongs\nwrite [\"w3c\"], or false"));
                }
                Ok(Propagate(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut listed: A) -> Result<Propagate, A::Error> {
                let mut formats = Vec::new();
                while let Some(format) = listed.next_element()? {
                    formats.push(format);
                }
                Ok(Propagate(Some(formats)))
            }
        }

        deserializer.deserialize_any(Listed)
    }
}

impl JsonSchema for Propagate {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Propagate".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let listed = generator.subschema_for::<Vec<Formats>>();
        json_schema!({ "anyOf": [listed, { "const": false }] })
    }
}

words!(
    Formats,
    [("w3c", Self::W3C), ("b3", Self::B3), ("b3multi", Self::B3_MULTI), ("jaeger", Self::JAEGER)]
);

words!(Balance, [("p2c", Self::PowerOfTwoChoices), ("round_robin", Self::RoundRobin)]);

words!(Protocol, [("http/1.1", Self::Http1), ("h2", Self::Http2)]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_scheme_a_host_and_a_port() {
        for (text, https, host, port) in [
            ("http://127.0.0.1:9001", false, "127.0.0.1", 9001),
            ("http://Shop.Internal/", false, "shop.internal", 80),
            ("https://shop.internal", true, "shop.internal", 443),
            ("http://[::1]:9001", false, "::1", 9001),
            ("unix:/run/Shop.sock", false, "/run/Shop.sock", 0),
        ] {
            assert_eq!(Address::parse(text), Ok(Address { https, host: host.into(), port }), "{text}");
        }
    }

    #[test]
    fn anything_more_or_less_is_refused() {
        for (text, what) in [
            ("127.0.0.1:9001", "http://"),
            ("unix:shop.sock", "not a whole path"),
            ("unix:", "not a whole path"),
            ("shop", "http://"),
            ("", "is not a URL"),
            ("ftp://shop", "neither http nor https"),
            ("http://me:secret@shop", "names a user"),
            ("http://shop/orders", "has a path"),
            ("http://shop?a=b", "query"),
            ("http://shop#a", "fragment"),
            ("http://shop:0", "no port"),
            ("http://shop:99999", "no port"),
            ("http://shop:", "no port"),
        ] {
            let error = Address::parse(text).expect_err(text);
            assert!(error.contains(what) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
