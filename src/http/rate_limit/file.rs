//! `[rate_limits.NAME]` and `[redis.NAME]` as written, and what they mean.

use std::fmt;
use std::time;

use http::HeaderName;
use http::uri::Authority;
use schemars::JsonSchema;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::bucket::Rate;
use super::{Key, OnFailure, Settings, store};
use crate::net::file::WrittenTls;
use crate::setting::check::nearest;
use crate::setting::leaf::{schema, text, words};
use crate::setting::secret::WrittenSecret;
use crate::setting::{Check, Count, Duration, Written};

/// A rate limit as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RateLimit {
    /// How many in each "per".
    requests: Written<Count>,
    /// The time that they are counted in. Default: `"1s"`.
    per: Written<Duration>,
    /// How many at once; as many as requests without it.
    burst: Written<Count>,
    /// Whose requests share a bucket. Default: `"address"`.
    key: Written<Key>,
    /// Bits of an IPv4 address that are one client. Default: `32`.
    ipv4_prefix: Written<Count>,
    /// Bits of an IPv6 address that are one client. Default: `64`.
    ipv6_prefix: Written<Count>,
    /// Clients that are remembered. Default: `100000`.
    max_keys: Written<Count>,
    /// Whether it counts and refuses nothing. Default: `false`.
    dry_run: Written<bool>,
    /// Whether answers carry `RateLimit` and `RateLimit-Policy`. Default: `true`.
    headers: Written<bool>,
    /// The Redis that holds the buckets; they are this gateway's own without it.
    redis: Written<String>,
    /// What happens while Redis is away: requests pass, are answered 503, or own buckets count; "open" without
    /// it.
    on_failure: Written<OnFailure>,
}

impl RateLimit {
    /// The limit as used, which may name one of the known; those that are right are the stores. `None` only after a problem has been noted.
    pub fn check(
        self,
        name: &str,
        known: &[String],
        stores: &[store::Settings],
        check: &Check<'_>,
    ) -> Option<Settings> {
        let requests_key = self.requests.key().clone();
        let requests: Option<u32> =
            self.requests.required(check, "write requests = 100, and per = \"1s\"").map(Into::into);
        let requests = requests?;
        let per = self.per.or(time::Duration::from_secs(1));
        let burst = self.burst.or(requests);
        let redis_key = self.redis.key().clone();
        let redis = self.redis.into_option();
        if let Some(redis) = &redis
            && !known.contains(redis)
        {
            let help = nearest(redis, known.iter().map(String::as_str)).map_or_else(
                || format!("add the table [redis.{redis}]"),
                |meant| format!("write \"{meant}\""),
            );
            check.wrong(&redis_key, format!("there is no redis \"{redis}\""), help);
        }
        if redis.is_none() && !self.on_failure.is_absent() {
            let help = "leave it out, or name a redis";
            check.wrong(self.on_failure.key(), "is never used: the buckets are this gateway's own", help);
        }
        // buckets count in nanoseconds here and in microseconds in Redis
        let (finest, unit) = if redis.is_some() { (1_000, "microsecond") } else { (1, "nanosecond") };
        if per.as_nanos() / u128::from(requests) < finest {
            let what = format!("is more than one request each {unit}");
            check.wrong(&requests_key, what, "write fewer, or a longer per");
        }
        let prefix = |written: Written<Count>, most: u8| {
            let key = written.key().clone();
            let bits = written.or(u32::from(most));
            u8::try_from(bits).ok().filter(|bits| *bits <= most).unwrap_or_else(|| {
                check.wrong(
                    &key,
                    format!("{bits} is more bits than an address has"),
                    format!("write 1 to {most}"),
                );
                most
            })
        };
        Some(Settings {
            name: name.into(),
            key: self.key.or(Key::Address),
            rate: Rate::new(requests, per, burst),
            ipv4_prefix: prefix(self.ipv4_prefix, 32),
            // a customer has at least a /64 to choose addresses from
            ipv6_prefix: if self.ipv6_prefix.is_absent() { 64 } else { prefix(self.ipv6_prefix, 128) },
            max_keys: self.max_keys.or(100_000),
            dry_run: self.dry_run.or(false),
            headers: self.headers.or(true),
            redis: redis.and_then(|redis| stores.iter().find(|known| *known.name == *redis)).cloned(),
            on_failure: self.on_failure.or(OnFailure::Open),
        })
    }
}

words!(OnFailure, [("open", Self::Open), ("closed", Self::Closed), ("local", Self::Local)]);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrTable;

        impl<'de> Visitor<'de> for WordOrTable {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("whose requests share a bucket")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Key, E> {
                match word {
                    "address" => Ok(Key::Address),
                    "route" => Ok(Key::Route),
                    "identity" => Ok(Key::Identity),
                    _ => Err(E::custom(format!("\"{word}\" is not a key\n{KEYS}"))),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Key, A::Error> {
                let wrong = || A::Error::custom(format!("is not a key\n{KEYS}"));
                let (kind, value): (String, String) = table.next_entry()?.ok_or_else(wrong)?;
                if table.next_entry::<String, String>()?.is_some() {
                    return Err(wrong());
                }
                match &*kind {
                    "header" => HeaderName::from_bytes(value.as_bytes()).map(Key::Header).map_err(|_| {
                        A::Error::custom(format!("\"{value}\" is not the name of a header field\n{KEYS}"))
                    }),
                    "claim" if !value.is_empty() => Ok(Key::Claim(value.into())),
                    _ => Err(wrong()),
                }
            }
        }

        deserializer.deserialize_any(WordOrTable)
    }
}

schema!(Key, { "anyOf": [{ "enum": ["address", "route", "identity"] }, { "type": "object", "properties": { "header": { "type": "string" }, "claim": { "type": "string" } }, "additionalProperties": false, "minProperties": 1, "maxProperties": 1 }] });

const KEYS: &str =
    r#"write "address", "route", "identity", { header = "x-api-key" } or { claim = "tenant" }"#;

/// A Redis as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Redis {
    /// Where it is.
    address: Written<Address>,
    /// The number of the database. Default: `0`.
    database: Written<Database>,
    /// Who we are, if not the default user.
    username: Written<String>,
    /// Our password.
    password: Option<WrittenSecret>,
    /// TLS, with rediss:// in the address.
    tls: WrittenTls,
    /// How long a request waits for an answer. Default: `"50ms"`.
    timeout: Written<Duration>,
    /// How long connecting may take, TLS included. Default: `"1s"`.
    connect_timeout: Written<Duration>,
}

impl Redis {
    /// The Redis as used; `None` only after a problem has been noted.
    pub fn check(self, name: &str, check: &Check<'_>) -> Option<store::Settings> {
        let key = self.address.key().clone();
        let address = self.address.required(check, EXAMPLE)?;
        let tls = if address.tls {
            Some(self.tls.check((&address.host, &key), &[], check)?)
        } else {
            if !self.tls.is_absent() {
                let table = key.parent().unwrap_or_default().child("tls");
                check.wrong(
                    &table,
                    "is never used: the address is redis://",
                    "write rediss:// in the address",
                );
            }
            None
        };
        let password = match self.password {
            None => None,
            Some(secret) => Some(secret.read(check)?),
        };
        Some(store::Settings {
            name: name.into(),
            host: address.host,
            port: address.port,
            database: self.database.into_option().map_or(0, |Database(number)| number),
            username: self.username.into_option().map(Into::into),
            password,
            tls,
            timeout: self.timeout.or(time::Duration::from_millis(50)),
            connect_timeout: self.connect_timeout.or(time::Duration::from_secs(1)),
        })
    }
}

/// `redis://host:port` or `rediss://host:port`.
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
            Some(("redis", rest)) => (false, rest),
            Some(("rediss", rest)) => (true, rest),
            _ => return wrong("does not begin with redis:// or rediss://"),
        };
        if rest.contains('@') {
            // not repeated: it may be a password
            return Err("the address names a user\nwrite username and password beside it".to_owned());
        }
        let Ok(authority) = rest.parse::<Authority>() else { return wrong("is not a host and a port") };
        let host = authority.host().trim_matches(['[', ']']);
        let after_host = authority.as_str().get(authority.host().len()..).unwrap_or_default();
        match (after_host, authority.port_u16()) {
            _ if host.is_empty() => wrong("has no host"),
            ("", _) => Ok(Self { tls, host: host.into(), port: 6379 }),
            (_, Some(port @ 1..)) => Ok(Self { tls, host: host.into(), port }),
            _ => wrong("has no port between 1 and 65535"),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an address", Self::parse)
    }
}

schema!(Address, { "type": "string", "examples": ["redis://redis.internal:6379"], "pattern": "^rediss?://[^@/]+$" });

const EXAMPLE: &str = r#"write address = "redis://redis.internal:6379", or rediss:// for TLS"#;

/// The number of a database, from 0.
#[derive(Debug, Clone, Copy)]
struct Database(u16);

impl<'de> Deserialize<'de> for Database {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Database;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number of a database")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Database, E> {
                let wrong = |_| E::custom(format!("{number} is not a database\nwrite 0 to 65535"));
                u16::try_from(number).map(Database).map_err(wrong)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Database, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

schema!(Database, { "type": "integer", "minimum": 0, "maximum": 65535 });

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn an_address_is_a_host_perhaps_a_port_and_never_a_password() {
        for (text, tls, host, port) in [
            ("redis://127.0.0.1:6380", false, "127.0.0.1", 6380),
            ("rediss://redis.internal", true, "redis.internal", 6379),
            ("redis://[::1]:5000", false, "::1", 5000),
        ] {
            assert_eq!(Address::parse(text), Ok(Address { tls, host: host.into(), port }), "{text}");
        }
        for (text, what) in [
            ("127.0.0.1:6379", "does not begin"),
            ("http://127.0.0.1", "does not begin"),
            ("redis://:hunter2@redis", "names a user"),
            ("redis://redis:0", "no port"),
            ("redis://:6379", "no host"),
            ("redis://redis/1", "is not a host"),
        ] {
            let error = Address::parse(text).expect_err(text);
            assert!(error.contains(what) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
