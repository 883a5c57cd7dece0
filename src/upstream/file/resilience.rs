//! `health`, `outliers` and `breaker` of an upstream as written, and what they mean.

use std::fmt;
use std::time;

use http::uri::{Authority, PathAndQuery};
use schemars::JsonSchema;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::problem::Key;
use crate::setting::leaf::{schema, text, words};
use crate::setting::{Check, Count, Duration, OrOff, Ratio, Written};
use crate::upstream::breaker::Bounds;
use crate::upstream::health;
use crate::upstream::outliers::Outliers;

/// Active health checks as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ path = \"/healthz\" }, { check = \"grpc\" } or { check = \"tcp\" }")]
pub(super) struct WrittenHealth {
    /// What is asked: an HTTP path, the gRPC health service, or a connection. Default: `"http"`.
    check: Written<Kind>,
    /// The path that tells of health.
    path: Written<Path>,
    /// The Host of a check; the endpoint's own without it.
    host: Written<Host>,
    /// Statuses that pass: one, or a range. Default: `["200-299"]`.
    statuses: Written<Vec<Written<Statuses>>>,
    /// The service that gRPC's health service is asked for. Default: `""`.
    service: Written<String>,
    /// Between two checks of one endpoint. Default: `"5s"`.
    interval: Written<Duration>,
    /// The share of the interval, more or less, at random. Default: `0.1`.
    jitter: Written<Ratio>,
    /// Of a check, connecting included. Default: `"2s"`.
    timeout: Written<Duration>,
    /// Passed checks that make it healthy. Default: `2`.
    rise: Written<Count>,
    /// Failed checks that make it unhealthy. Default: `3`.
    fall: Written<Count>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Grpc,
    Tcp,
}

impl WrittenHealth {
    /// The settings as used; `None` only after a problem has been noted. `http2` is whether the endpoints are
    /// spoken to so.
    pub(super) fn check(self, http2: bool, check: &Check<'_>) -> Option<health::Settings> {
        let kind_key = self.check.key().clone();
        let kind = self.check.or(Kind::Http);
        if kind == Kind::Grpc && !http2 {
            check.wrong(&kind_key, "\"grpc\" needs HTTP/2", "write protocol = \"h2\" for this upstream");
        }
        let unused: [(&Key, bool, &[Kind]); 4] = [
            (self.path.key(), self.path.is_absent(), &[Kind::Http]),
            (self.statuses.key(), self.statuses.is_absent(), &[Kind::Http]),
            (self.service.key(), self.service.is_absent(), &[Kind::Grpc]),
            (self.host.key(), self.host.is_absent(), &[Kind::Http, Kind::Grpc]),
        ];
        for (key, absent, kinds) in unused {
            if !absent && !kinds.contains(&kind) {
                check.wrong(key, "is not used by this kind of check", "leave it out, or write another check");
            }
        }
        let host = self.host.into_option().map(|Host(host)| host);
        let asked = match kind {
            Kind::Http => health::Check::Http {
                path: self.path.required(check, "write the path that tells of health: \"/healthz\"")?.0,
                host,
                statuses: check_statuses(self.statuses, check),
            },
            Kind::Grpc => {
                health::Check::Grpc { service: self.service.into_option().unwrap_or_default().into(), host }
            }
            Kind::Tcp => health::Check::Tcp,
        };
        Some(health::Settings {
            check: asked,
            interval: self.interval.or(time::Duration::from_secs(5)),
            jitter: self.jitter.or(0.1),
            timeout: self.timeout.or(time::Duration::from_secs(2)),
            rise: self.rise.or(2),
            fall: self.fall.or(3),
        })
    }
}

fn check_statuses(written: Written<Vec<Written<Statuses>>>, check: &Check<'_>) -> Vec<(u16, u16)> {
    let key = written.key().clone();
    let Some(listed) = written.into_option() else { return vec![(200, 299)] };
    if listed.is_empty() {
        check.wrong(&key, "is empty: no check would pass", "write [\"200-299\"]");
    }
    listed.into_iter().filter_map(Written::into_option).map(|Statuses(first, last)| (first, last)).collect()
}

/// Outlier ejection as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct WrittenOutliers {
    /// Failures in a row that eject an endpoint. Default: `5`.
    consecutive: Written<OrOff<Count>>,
    /// The share of failures in a window that ejects it. Default: `0.85`.
    share: Written<OrOff<Ratio>>,
    /// Requests that a window must have for that. Default: `50`.
    requests: Written<Count>,
    /// The length of a window. Default: `"10s"`.
    window: Written<Duration>,
    /// How long it is ejected the first time; then twice, three times as long. Default: `"30s"`.
    ejection: Written<Duration>,
    /// The longest that it is ejected. Default: `"5m"`.
    max_ejection: Written<Duration>,
    /// The share of endpoints ejected at once; one may always be, the last never. Default: `0.1`.
    max_ejected: Written<Ratio>,
}

impl WrittenOutliers {
    /// The settings as used.
    pub(super) fn check(self, check: &Check<'_>) -> Outliers {
        let (share_key, max_key) = (self.share.key().clone(), self.max_ejection.key().clone());
        let outliers = Outliers {
            consecutive: self
                .consecutive
                .into_option()
                .map_or(Some(5), |count| count.into_option().map(Into::into)),
            share: self.share.into_option().map_or(Some(0.85), |share| share.into_option().map(Into::into)),
            requests: self.requests.or(50),
            window: self.window.or(time::Duration::from_secs(10)),
            ejection: self.ejection.or(time::Duration::from_secs(30)),
            max_ejection: self.max_ejection.or(time::Duration::from_mins(5)),
            max_ejected: self.max_ejected.or(0.1),
        };
        if outliers.share.is_some_and(|share| share <= 0.0) {
            check.wrong(
                &share_key,
                "would eject whoever does not fail",
                "write a share such as 0.85, or \"off\"",
            );
        }
        if outliers.max_ejection < outliers.ejection {
            let ejection = outliers.ejection.as_secs_f64();
            check.wrong(
                &max_key,
                format!("is shorter than ejection ({ejection}s)"),
                "write a longer time here",
            );
        }
        outliers
    }
}

/// A circuit breaker as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct WrittenBreaker {
    /// Requests in flight to all endpoints together. Default: `"off"`.
    requests: Written<OrOff<Count>>,
    /// Connections open to all endpoints together. Default: `"off"`.
    connections: Written<OrOff<Count>>,
    /// Requests that wait for a connection of any endpoint. Default: `"off"`.
    pending: Written<OrOff<Count>>,
}

impl WrittenBreaker {
    /// The bounds as used.
    pub(super) fn check(self) -> Bounds {
        let bound = |written: Written<OrOff<Count>>| written.into_option()?.into_option().map(Into::into);
        Bounds {
            requests: bound(self.requests),
            connections: bound(self.connections),
            pending: bound(self.pending),
        }
    }
}

/// The path that a check asks for.
#[derive(Debug)]
struct Path(Box<str>);

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a path", |path| {
            if path.starts_with('/') && path.parse::<PathAndQuery>().is_ok() {
                return Ok(Self(path.into()));
            }
            Err(format!("\"{path}\" is not a path\nwrite one that begins with /: \"/healthz\""))
        })
    }
}

schema!(Path, { "type": "string", "examples": ["/healthz"], "pattern": "^/" });

/// The `Host` of a check.
#[derive(Debug)]
struct Host(Box<str>);

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a host", |host| {
            if host.parse::<Authority>().is_ok_and(|authority| !authority.as_str().contains('@')) {
                return Ok(Self(host.into()));
            }
            Err(format!("\"{host}\" is not a host\nwrite a name, with or without port: \"shop.internal\""))
        })
    }
}

schema!(Host, { "type": "string", "examples": ["shop.internal"], "pattern": "^[^/@]+$" });

/// One status or a range of them.
#[derive(Debug, PartialEq)]
struct Statuses(u16, u16);

impl Statuses {
    fn parse(written: &str) -> Option<Self> {
        let (first, last) = written.split_once('-').unwrap_or((written, written));
        let status = |text: &str| text.parse().ok().filter(|status| (100..=599).contains(status));
        let (first, last): (u16, u16) = (status(first)?, status(last)?);
        (first <= last).then_some(Self(first, last))
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrRange;

        impl Visitor<'_> for NumberOrRange {
            type Value = Statuses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status, or a range such as \"200-299\"")
            }

            fn visit_i64<E: Error>(self, status: i64) -> Result<Statuses, E> {
                self.visit_str(&status.to_string())
            }

            fn visit_u64<E: Error>(self, status: u64) -> Result<Statuses, E> {
                self.visit_str(&status.to_string())
            }

            fn visit_str<E: Error>(self, written: &str) -> Result<Statuses, E> {
                let help = "write a status from 100 to 599, or a range such as \"200-299\"";
                let wrong = || E::custom(format!("\"{written}\" is not a range of statuses\n{help}"));
                Statuses::parse(written).ok_or_else(wrong)
            }
        }

        deserializer.deserialize_any(NumberOrRange)
    }
}

schema!(Statuses, { "anyOf": [{ "type": "integer", "minimum": 100, "maximum": 599 }, { "type": "string", "examples": ["200-299"], "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$" }] });

words!(Kind, [("http", Self::Http), ("grpc", Self::Grpc), ("tcp", Self::Tcp)]);

#[cfg(test)]
mod tests {
    use super::Statuses;

    #[test]
    fn statuses_are_one_or_a_range() {
        for (written, range) in [
            ("200", Some((200, 200))),
            ("200-399", Some((200, 399))),
            ("399-200", None),
            ("99", None),
            ("600", None),
            ("2xx", None),
            ("", None),
            ("200-", None),
        ] {
            assert_eq!(
                Statuses::parse(written),
                range.map(|(first, last)| Statuses(first, last)),
                "{written}"
            );
        }
    }
}
