//! `[telemetry]` and `[metrics]` as written, and what they mean.

mod receivers;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use self::receivers::{WrittenOtlp, WrittenZipkin};
use super::sampling::Sampling;
use super::settings::{AccessLog, ClientAddress, Privacy, Settings};
use crate::setting::leaf::word;
use crate::setting::{Check, OrOff, Written};

/// `[telemetry]` as written.
#[derive(Debug, Deserialize)]
pub struct Telemetry {
    service_name: Written<String>,
    resource: BTreeMap<String, Written<String>>,
    otlp: OrOff<WrittenOtlp>,
    zipkin: Option<OrOff<WrittenZipkin>>,
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
struct WrittenSampling {
    ratio: Written<f64>,
}

#[derive(Debug, Deserialize)]
struct WrittenPrivacy {
    client_address: Written<ClientAddress>,
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
            zipkin: self.zipkin.and_then(OrOff::into_option).and_then(|zipkin| zipkin.check(check)),
            sampling: self.sampling.check(check),
            privacy: Privacy { client_address: self.privacy.client_address.or(ClientAddress::Off) },
            access_log: AccessLog {
                enabled: self.access_log.enabled.or(true),
                file: self.access_log.file.into_option().map(|file| check.path(file)),
            },
            buckets: metrics.check(check),
        }
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

impl<'de> Deserialize<'de> for ClientAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, &[("off", Self::Off), ("truncated", Self::Truncated), ("full", Self::Full)])
    }
}
