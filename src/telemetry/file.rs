//! `[telemetry]` and `[metrics]` as written, and what they mean.

mod logstash;
mod receivers;

use std::collections::BTreeMap;

use http::HeaderName;

use schemars::JsonSchema;
use serde::Deserialize;

use self::logstash::WrittenLogstash;
use self::receivers::{WrittenOtlp, WrittenZipkin};
use super::privacy;
use super::sampling::{Force, Keep, Sampling};
use super::settings::{self, AccessLog, ClientAddress, Privacy, Settings};
use crate::setting::leaf::words;
use crate::setting::secret::WrittenSecret;
use crate::setting::{Check, Count, Duration, OrOff, Ratio, Size, Written};

/// `[telemetry]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Telemetry {
    /// The name that traces are searched by. Default: `"tracegate"`.
    service_name: Written<String>,
    /// Further attributes of all spans, such as "deployment.environment.name".
    resource: BTreeMap<String, Written<String>>,
    /// Where spans go by OTLP. Default: `{}`.
    otlp: OrOff<WrittenOtlp>,
    /// Where spans go in Zipkin's format. Default: `"off"`.
    zipkin: Option<OrOff<WrittenZipkin>>,
    /// Where records of failed exchanges go: one JSON line each. Default: `"off"`.
    logstash: Option<OrOff<WrittenLogstash>>,
    /// Which traces are kept. The caller's decision counts; the ratio is for new traces.
    sampling: WrittenSampling,
    /// What of the client may leave.
    privacy: WrittenPrivacy,
    /// One JSON line a request.
    access_log: WrittenAccessLog,
    /// Exchanges that are kept in memory, for the live page.
    recent: WrittenRecent,
}

/// `[metrics]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Metrics {
    /// Upper bounds of the duration histograms in seconds, ascending; those of the conventions and more without
    /// it.
    buckets: Written<Vec<Written<f64>>>,
    /// Series of one metric; further labels count as _other. Default: `10000`.
    max_series: Written<Count>,
    /// An answer whose body goes on for longer is a stream. Default: `"30s"`.
    stream_after: Written<OrOff<Duration>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenSampling {
    /// The share of new traces that is kept. Default: `1.0`.
    ratio: Written<Ratio>,
    /// Whether the gateway's spans of errors are kept, whatever had been decided. Default: `true`.
    keep_errors: Written<bool>,
    /// And of what took longer than the route's `slow_after`. Default: `true`.
    keep_slow: Written<bool>,
    /// And of more than one attempt. Default: `true`.
    keep_retried: Written<bool>,
    /// What the receivers bear; bounds all but what is forced. Default: `"off"`.
    max_spans_per_second: Written<OrOff<Count>>,
    /// How an authorised caller demands a trace of one request.
    force: Option<WrittenForce>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ header = \"x-tracegate-force\", token = { env = \"…\" } }")]
struct WrittenForce {
    /// The field, which never goes further. Default: `"x-tracegate-force"`.
    header: Written<String>,
    /// Its value, 16 characters or more.
    token: WrittenSecret,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenPrivacy {
    /// How much of the client's address is recorded. Default: `"off"`.
    client_address: Written<ClientAddress>,
    /// Keys of the query that are named, without their values. Default: `[]`.
    query_keys: Written<Vec<Written<String>>>,
    /// Fields of the request that are recorded with their values. Default: `[]`.
    headers: Written<Vec<Written<String>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenAccessLog {
    /// Whether it is written. Default: `true`.
    enabled: Written<bool>,
    /// A file to append to, reopened on SIGUSR1; standard output without it.
    file: Written<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenRecent {
    /// Exchanges that failed. Default: `1000`.
    errors: Written<Count>,
    /// Exchanges that the gateway refused by the client's fault. Default: `500`.
    refused: Written<Count>,
    /// The slowest of each route, and those tried more than once. Default: `500`.
    slow: Written<Count>,
    /// Samples of all others. Default: `1000`.
    samples: Written<Count>,
    /// The shortest time between two samples of one route. Default: `"200ms"`.
    sample_every: Written<Duration>,
    /// What all of them may take. Default: `"16MiB"`.
    memory: Written<Size>,
    /// Routes that have figures. Default: `500`.
    routes: Written<Count>,
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
            zipkin: self.zipkin.and_then(OrOff::into_option).and_then(|zipkin| zipkin.check(check)),
            logstash: self.logstash.and_then(OrOff::into_option).and_then(|logstash| logstash.check(check)),
            sampling: self.sampling.check(check),
            privacy: self.privacy.check(check),
            access_log: AccessLog {
                enabled: self.access_log.enabled.or(true),
                file: self.access_log.file.into_option().map(|file| check.output_path(file)),
            },
            metrics: metrics.check(check),
            recent: self.recent.check(),
        }
    }
}

impl WrittenSampling {
    fn check(self, check: &Check<'_>) -> Sampling {
        let default = Sampling::default();
        Sampling {
            ratio: self.ratio.or(default.ratio),
            keep: Keep {
                errors: self.keep_errors.or(default.keep.errors),
                slow: self.keep_slow.or(default.keep.slow),
                retried: self.keep_retried.or(default.keep.retried),
            },
            max_spans_per_second: match self.max_spans_per_second.into_option() {
                None => default.max_spans_per_second,
                Some(written) => written.into_option().map(Into::into),
            },
            force: self.force.and_then(|force| force.check(check)),
        }
    }
}

impl WrittenRecent {
    fn check(self) -> settings::Recent {
        let default = settings::Recent::default();
        settings::Recent {
            errors: self.errors.or(default.errors),
            refused: self.refused.or(default.refused),
            slow: self.slow.or(default.slow),
            samples: self.samples.or(default.samples),
            sample_every: self.sample_every.or(default.sample_every),
            bytes: self.memory.or(default.bytes),
            routes: self.routes.or(default.routes),
        }
    }
}

impl WrittenForce {
    fn check(self, check: &Check<'_>) -> Option<Force> {
        let (key, token_key) = (self.header.key().clone(), self.token.key());
        let name = self.header.or("x-tracegate-force".to_owned());
        let header = HeaderName::from_bytes(name.as_bytes()).ok();
        let own = |name: &HeaderName| {
            let name = name.as_str();
            name.starts_with("x-") && !TAKEN.iter().any(|taken| name.starts_with(taken))
        };
        if !header.as_ref().is_some_and(own) {
            let what = format!("\"{name}\" cannot be a field of its own");
            check.wrong(&key, what, "write a name that nothing else uses, such as \"x-tracegate-force\"");
        }
        let token = self.token.read(check)?;
        if token.expose().len() < SHORTEST_TOKEN {
            let help = format!("make it {SHORTEST_TOKEN} characters or more: openssl rand -hex 16");
            check.wrong(&token_key, "is short enough to be guessed", help);
        }
        Some(Force { header: header?, token })
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
    fn check(self, check: &Check<'_>) -> settings::Metrics {
        let default = settings::Metrics::default();
        settings::Metrics {
            max_series: self.max_series.or(default.max_series),
            stream_after: self.stream_after.or(default.stream_after),
            buckets: check_buckets(self.buckets, check),
        }
    }
}

/// The bounds as used; none where none are written.
fn check_buckets(written: Written<Vec<Written<f64>>>, check: &Check<'_>) -> Vec<f64> {
    let key = written.key().clone();
    let Some(buckets) = written.into_option() else { return Vec::new() };
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

/// How fields begin that the gateway reads or writes.
const TAKEN: [&str; 3] = ["x-b3-", "x-forwarded-", "x-request-id"];

/// In bytes.
const SHORTEST_TOKEN: usize = 16;

/// Each bucket is a series for every combination of labels.
const MOST_BUCKETS: usize = 64;

words!(ClientAddress, [("off", Self::Off), ("truncated", Self::Truncated), ("full", Self::Full)]);
