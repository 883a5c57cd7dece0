//! `[telemetry.otlp]` and `[telemetry.zipkin]` as written, and what they mean.

use std::collections::BTreeMap;
use std::time;

use http::{HeaderName, HeaderValue, Uri};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::net::file::WrittenTls;
use crate::problem::Key;
use crate::setting::leaf::words;
use crate::setting::secret::WrittenSecret;
use crate::setting::{Check, Count, Duration, OrOff, Secret, Written};
use crate::telemetry::settings::{Otlp, OtlpProtocol, Receiver};

/// `[telemetry.otlp]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "a table with endpoint, protocol …, or \"off\"")]
pub(super) struct WrittenOtlp {
    /// Scheme, host and port; over HTTP port 4318 without it, and without a path /v1/traces is added. Default:
    /// `"http://127.0.0.1:4317"`.
    endpoint: Written<String>,
    /// How OTLP is spoken. Default: `"grpc"`.
    protocol: Written<OtlpProtocol>,
    /// At which interval metrics are pushed, too. Default: `"off"`.
    metrics: Written<OrOff<Duration>>,
    /// Further header fields; their values are secrets.
    headers: BTreeMap<String, WrittenSecret>,
    /// How batches are compressed. Default: `"none"`.
    compression: Written<Compression>,
    /// Of one export. Default: `"10s"`.
    timeout: Written<Duration>,
    /// TLS, with an https:// endpoint.
    tls: WrittenTls,
    /// Spans that wait to be exported; more are dropped. Default: `16384`.
    queue: Written<Count>,
    /// Spans of one export; as many as `queue`, where that is less. Default: `2048`.
    batch: Written<Count>,
    /// How long a span waits for its batch to fill. Default: `"1s"`.
    delay: Written<Duration>,
    /// How long a batch is tried before it is dropped. Default: `"30s"`.
    give_up_after: Written<Duration>,
}

/// `[telemetry.zipkin]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "a table with endpoint …, or \"off\"")]
pub(super) struct WrittenZipkin {
    /// Scheme, host and port; without a path /api/v2/spans is added. Default:
    /// `"http://127.0.0.1:9411/api/v2/spans"`.
    endpoint: Written<String>,
    /// Further header fields; their values are secrets.
    headers: BTreeMap<String, WrittenSecret>,
    /// How batches are compressed. Default: `"none"`.
    compression: Written<Compression>,
    /// Of one export. Default: `"10s"`.
    timeout: Written<Duration>,
    /// TLS, with an https:// endpoint.
    tls: WrittenTls,
    /// Spans that wait to be exported; more are dropped. Default: `16384`.
    queue: Written<Count>,
    /// Spans of one export; as many as `queue`, where that is less. Default: `2048`.
    batch: Written<Count>,
    /// How long a span waits for its batch to fill. Default: `"1s"`.
    delay: Written<Duration>,
    /// How long a batch is tried before it is dropped. Default: `"30s"`.
    give_up_after: Written<Duration>,
}

impl WrittenOtlp {
    /// The receiver as used; `None` only after a problem has been noted.
    pub(super) fn check(self, check: &Check<'_>) -> Option<Otlp> {
        let protocol = self.protocol.or(OtlpProtocol::Grpc);
        let key = self.endpoint.key().clone();
        let (default, alpn): (_, &[u8]) = match protocol {
            OtlpProtocol::Grpc => ("http://127.0.0.1:4317", b"h2"),
            OtlpProtocol::Http => ("http://127.0.0.1:4318", b"http/1.1"),
        };
        let endpoint = Endpoint::check(self.endpoint.or(default.to_owned()), key, default, check);
        let endpoint = endpoint.and_then(|endpoint| match protocol {
            OtlpProtocol::Grpc => endpoint.without_path(default, check),
            OtlpProtocol::Http => Some(endpoint.with_path("/v1/traces")),
        });
        let common = Common {
            headers: self.headers,
            compression: self.compression,
            timeout: self.timeout,
            tls: self.tls,
            queue: self.queue,
            batch: self.batch,
            delay: self.delay,
            give_up_after: self.give_up_after,
        };
        Some(Otlp {
            protocol,
            metrics: self.metrics.or(None),
            receiver: common.check(endpoint, alpn, check)?,
        })
    }
}

impl WrittenZipkin {
    /// The receiver as used; `None` only after a problem has been noted.
    pub(super) fn check(self, check: &Check<'_>) -> Option<Receiver> {
        const DEFAULT: &str = "http://127.0.0.1:9411/api/v2/spans";
        let key = self.endpoint.key().clone();
        let endpoint = Endpoint::check(self.endpoint.or(DEFAULT.to_owned()), key, DEFAULT, check);
        let common = Common {
            headers: self.headers,
            compression: self.compression,
            timeout: self.timeout,
            tls: self.tls,
            queue: self.queue,
            batch: self.batch,
            delay: self.delay,
            give_up_after: self.give_up_after,
        };
        common.check(endpoint.map(|endpoint| endpoint.with_path("/api/v2/spans")), b"http/1.1", check)
    }
}

/// What all receivers have, but for the endpoint.
struct Common {
    headers: BTreeMap<String, WrittenSecret>,
    compression: Written<Compression>,
    timeout: Written<Duration>,
    tls: WrittenTls,
    queue: Written<Count>,
    batch: Written<Count>,
    delay: Written<Duration>,
    give_up_after: Written<Duration>,
}

impl Common {
    fn check(self, endpoint: Option<Endpoint>, alpn: &[u8], check: &Check<'_>) -> Option<Receiver> {
        let headers = self.headers.into_iter().filter_map(|(name, secret)| header(&name, &secret, check));
        let headers = headers.collect();
        let (queue, batch) = (self.queue.or(16_384), self.batch.key().clone());
        let batch_size = self.batch.or(2048.min(queue));
        if batch_size > queue {
            let what = format!("{batch_size} spans never gather in a queue of {queue}");
            check.wrong(&batch, what, format!("write at most {queue}"));
        }
        // files are looked at even if they are not needed
        let peer = endpoint.as_ref().and_then(Endpoint::https_host);
        let tls = self.tls.check(peer.unwrap_or(("localhost", &Key::root())), &[alpn], check);
        Some(Receiver {
            tls: if peer.is_some() { Some(tls?) } else { None },
            endpoint: endpoint?.url.into(),
            headers,
            gzip: self.compression.or(Compression::None) == Compression::Gzip,
            timeout: self.timeout.or(time::Duration::from_secs(10)),
            queue,
            batch: batch_size,
            delay: self.delay.or(time::Duration::from_secs(1)),
            give_up_after: self.give_up_after.or(time::Duration::from_secs(30)),
        })
    }
}

fn header(name: &str, secret: &WrittenSecret, check: &Check<'_>) -> Option<(HeaderName, Secret)> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
    if parsed.is_none() {
        let what = format!("\"{name}\" is not the name of a header field");
        check.wrong(&secret.key(), what, "write a name such as \"authorization\"");
    }
    let value = secret.read(check)?;
    if HeaderValue::from_str(value.expose()).is_err() {
        let what = "cannot be sent in a header field";
        check.wrong(&secret.key(), what, "leave out line breaks in the secret");
    }
    Some((parsed?, value))
}

/// A URL with scheme and host.
struct Endpoint {
    url: String,
    uri: Uri,
    key: Key,
}

impl Endpoint {
    fn check(url: String, key: Key, default: &str, check: &Check<'_>) -> Option<Self> {
        let wrong = |what: &str| {
            check.wrong(&key, what, format!("write scheme, host and port: \"{default}\""));
            None
        };
        let Ok(uri) = url.parse::<Uri>() else { return wrong("is not a URL") };
        let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return wrong("does not begin with http:// or https://");
        };
        if authority.as_str().contains('@') {
            return wrong("names a user; credentials belong into headers, as a secret");
        }
        Some(Self { url, uri, key })
    }

    /// The same with this path, unless it has one.
    fn with_path(self, path: &str) -> Self {
        let has_path = self.url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        if has_path { self } else { Self { url: self.url + path, ..self } }
    }

    /// The same without a path, of which there must be none.
    fn without_path(self, default: &str, check: &Check<'_>) -> Option<Self> {
        if self.uri.path() != "/" {
            let help = format!("write scheme, host and port: \"{default}\"");
            check.wrong(&self.key, "has a path, which gRPC does not take", help);
            return None;
        }
        Some(Self { url: self.url.trim_end_matches('/').to_owned(), ..self })
    }

    /// The host and the key, if it is reached by TLS.
    fn https_host(&self) -> Option<(&str, &Key)> {
        let host = self.uri.host()?.trim_matches(['[', ']']);
        (self.uri.scheme_str() == Some("https")).then_some((host, &self.key))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    None,
}

words!(Compression, [("gzip", Self::Gzip), ("none", Self::None)]);

words!(OtlpProtocol, [("grpc", Self::Grpc), ("http/protobuf", Self::Http)]);
