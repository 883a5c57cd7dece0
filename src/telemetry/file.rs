//! `[telemetry]` and `[metrics]` as written, and what they mean.

mod logstash;

use std::collections::BTreeMap;
use std::time;

use http::{HeaderName, Uri};
use serde::{Deserialize, Deserializer};

use self::logstash::WrittenLogstash;
use super::privacy;
use super::sampling::Sampling;
use super::settings::{AccessLog, ClientAddress, Otlp, OtlpProtocol, Privacy, Settings};
use crate::net;
use crate::problem::Key;
use crate::setting::leaf::word;
use crate::setting::secret::WrittenSecret;
use crate::setting::{Check, Count, Duration, OrOff, Written};

/// `[telemetry]` as written.
#[derive(Debug, Deserialize)]
pub struct Telemetry {
    service_name: Written<String>,
    resource: BTreeMap<String, Written<String>>,
    otlp: OrOff<WrittenOtlp>,
    logstash: Option<OrOff<WrittenLogstash>>,
    sampling: WrittenSampling,
    privacy: WrittenPrivacy,
    access_log: WrittenAccessLog,
}

/// `[metrics]` as written.
#[derive(Debug, Deserialize)]
pub struct Metrics {
    buckets: Written<Vec<Written<f64>>>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a table with endpoint, protocol …, or \"off\"")]
struct WrittenOtlp {
    endpoint: Written<String>,
    protocol: Written<OtlpProtocol>,
    headers: BTreeMap<String, WrittenSecret>,
    compression: Written<Compression>,
    timeout: Written<Duration>,
    tls: WrittenTls,
    queue: Written<Count>,
    batch: Written<Count>,
    delay: Written<Duration>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "{ ca_file = \"…\" }")]
struct WrittenTls {
    ca_file: Written<String>,
}

#[derive(Debug, Deserialize)]
struct WrittenSampling {
    ratio: Written<f64>,
}

#[derive(Debug, Deserialize)]
struct WrittenPrivacy {
    client_address: Written<ClientAddress>,
    query_keys: Written<Vec<Written<String>>>,
    headers: Written<Vec<Written<String>>>,
}

#[derive(Debug, Deserialize)]
struct WrittenAccessLog {
    enabled: Written<bool>,
    file: Written<String>,
}

impl Telemetry {
    /// The settings as used. Where a problem has been noted, they are not to be used.
    pub fn check(self, metrics: Metrics, check: &Check<'_>) -> Settings {
        let service_name_key = self.service_name.key().clone();
        let service_name: String = self.service_name.or("tracegate".to_owned());
        if service_name.trim().is_empty() {
            check.wrong(
                &service_name_key,
                "is empty",
                "write the name that traces are searched by: \"api-gateway\"",
            );
        }
        let resource = |(name, value): (String, Written<String>)| {
            if name == "service.name" {
                check.wrong(value.key(), "has its own key", "write telemetry.service_name");
            }
            Some((name.into(), value.into_option()?.into()))
        };
        Settings {
            service_name: service_name.into(),
            resource: self.resource.into_iter().filter_map(resource).collect(),
            otlp: self.otlp.into_option().and_then(|otlp| otlp.check(check)),
            logstash: self.logstash.and_then(OrOff::into_option).and_then(|logstash| logstash.check(check)),
            sampling: self.sampling.check(check),
            privacy: self.privacy.check(check),
            access_log: AccessLog {
                enabled: self.access_log.enabled.or(true),
                file: self.access_log.file.into_option().map(|file| check.path(file)),
            },
            buckets: metrics.check(check),
        }
    }
}

impl WrittenOtlp {
    /// The receiver as used; `None` only after a problem has been noted.
    fn check(self, check: &Check<'_>) -> Option<Otlp> {
        let protocol = self.protocol.or(OtlpProtocol::Grpc);
        let key = self.endpoint.key().clone();
        let endpoint = self.endpoint.or(default_endpoint(protocol).to_owned());
        let endpoint = check_endpoint(&endpoint, protocol, &key, check);
        let header = |(name, secret): (String, WrittenSecret)| {
            let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
            if parsed.is_none() {
                let what = format!("\"{name}\" is not the name of a header field");
                check.wrong(&secret.key(), what, "write a name such as \"authorization\"");
            }
            let value = secret.read(check)?;
            if http::HeaderValue::from_str(value.expose()).is_err() {
                check.wrong(
                    &secret.key(),
                    "cannot be sent in a header field",
                    "leave out line breaks in the secret",
                );
            }
            Some((parsed?, value))
        };
        let headers = self.headers.into_iter().filter_map(header).collect();
        let ca_key = self.tls.ca_file.key().clone();
        let ca_file = self.tls.ca_file.into_option().map(|file| check.path(file));
        if let Some(Err(error)) =
            ca_file.as_deref().map(|file| net::tls::client_config(Some(file), None, &[]))
        {
            let what = format!("the file cannot be used: {error}");
            check.wrong(&ca_key, what, "name a file with the trusted authorities' certificates in PEM");
        }
        let (queue, batch) = (self.queue.or(16_384), self.batch.key().clone());
        let batch_size = self.batch.or(512);
        if batch_size > queue {
            let what = format!("{batch_size} spans never gather in a queue of {queue}");
            check.wrong(&batch, what, format!("write at most {queue}"));
        }
        Some(Otlp {
            endpoint: endpoint?,
            protocol,
            headers,
            gzip: self.compression.or(Compression::None) == Compression::Gzip,
            timeout: self.timeout.or(time::Duration::from_secs(10)),
            ca_file,
            queue,
            batch: batch_size,
            delay: self.delay.or(time::Duration::from_secs(1)),
        })
    }
}

fn default_endpoint(protocol: OtlpProtocol) -> &'static str {
    match protocol {
        OtlpProtocol::Grpc => "http://127.0.0.1:4317",
        OtlpProtocol::Http => "http://127.0.0.1:4318",
    }
}

/// The URL as used. Over HTTP, one without a path gets the path of the standard.
fn check_endpoint(written: &str, protocol: OtlpProtocol, key: &Key, check: &Check<'_>) -> Option<Box<str>> {
    let wrong = |what: &str| {
        let help = format!("write scheme, host and port: \"{}\"", default_endpoint(protocol));
        check.wrong(key, what, help);
        None
    };
    let Ok(uri) = written.parse::<Uri>() else { return wrong("is not a URL") };
    let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return wrong("does not begin with http:// or https://");
    };
    if authority.as_str().contains('@') {
        return wrong("names a user; credentials belong into headers, as a secret");
    }
    let has_path = written.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    match protocol {
        OtlpProtocol::Grpc if uri.path() != "/" => wrong("has a path, which gRPC does not take"),
        OtlpProtocol::Grpc => Some(written.trim_end_matches('/').into()),
        OtlpProtocol::Http if has_path => Some(written.into()),
        OtlpProtocol::Http => Some(format!("{written}/v1/traces").into()),
    }
}

impl WrittenSampling {
    fn check(self, check: &Check<'_>) -> Sampling {
        let key = self.ratio.key().clone();
        let ratio = self.ratio.or(1.0);
        if !(0.0..=1.0).contains(&ratio) {
            check.wrong(
                &key,
                format!("{ratio} is not a share of the traces"),
                "write a number from 0.0 to 1.0",
            );
        }
        Sampling { ratio }
    }
}

impl WrittenPrivacy {
    fn check(self, check: &Check<'_>) -> Privacy {
        let help = "write the bare key: \"page\"";
        let query_key = |key: Written<String>| {
            let at = key.key().clone();
            let name = key.into_option()?;
            if name.is_empty() || name.contains(['&', '=', '?', '#', '%']) {
                check.wrong(&at, format!("\"{name}\" is not a key of a query"), help);
            }
            Some(name.into())
        };
        let header = |written: Written<String>| {
            let at = written.key().clone();
            let name = written.into_option()?;
            let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
                let what = format!("\"{name}\" is not the name of a header field");
                check.wrong(&at, what, "write a name such as \"x-tenant\"");
                return None;
            };
            if let Some(why) = privacy::never_leaves(name.as_str()) {
                check.wrong(&at, format!("{name} {why}"), "leave it out");
            }
            Some(format!("{}{name}", privacy::HEADER).into())
        };
        Privacy {
            client_address: self.client_address.or(ClientAddress::Off),
            query_keys: self.query_keys.into_option().into_iter().flatten().filter_map(query_key).collect(),
            headers: self.headers.into_option().into_iter().flatten().filter_map(header).collect(),
        }
    }
}

impl Metrics {
    fn check(self, check: &Check<'_>) -> Vec<f64> {
        let key = self.buckets.key().clone();
        let Some(buckets) = self.buckets.into_option() else { return BUCKETS.to_vec() };
        if buckets.is_empty() || buckets.len() > MOST_BUCKETS {
            let what = format!("has {} bounds", buckets.len());
            check.wrong(&key, what, format!("write 1 to {MOST_BUCKETS}, or leave it out"));
        }
        let mut below = 0.0;
        for bucket in &buckets {
            let Some(&bound) = bucket.get() else { continue };
            if !bound.is_finite() || bound <= below {
                let what = format!("{bound} is not above {below}");
                check.wrong(bucket.key(), what, "write finite numbers of seconds above 0, ascending");
            } else {
                below = bound;
            }
        }
        buckets.into_iter().filter_map(Written::into_option).collect()
    }
}

/// In seconds: a superset of what the semantic conventions advise.
const BUCKETS: [f64; 20] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0,
    60.0, 120.0, 300.0,
];

/// Each bucket is a series for every combination of labels.
const MOST_BUCKETS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    None,
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, &[("gzip", Self::Gzip), ("none", Self::None)])
    }
}

impl<'de> Deserialize<'de> for OtlpProtocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, &[("grpc", Self::Grpc), ("http/protobuf", Self::Http)])
    }
}

impl<'de> Deserialize<'de> for ClientAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, &[("off", Self::Off), ("truncated", Self::Truncated), ("full", Self::Full)])
    }
}
