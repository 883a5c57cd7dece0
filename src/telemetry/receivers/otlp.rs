//! The OTLP receiver: opentelemetry-otlp over gRPC and over HTTP/protobuf, its own retries off.
//!
//! The library answers with text. Over HTTP our own client sees status, `Retry-After` and partial success;
//! over gRPC the status code stands in the text, and a partial success shows only in the library's own log.

mod http_client;

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use opentelemetry_otlp::{
    Compression, Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
    WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, ClientTlsConfig};

use self::http_client::HttpClient;
use super::{Answer, Receiver};
use crate::telemetry::settings::{Otlp, OtlpProtocol};

/// A receiver that speaks OTLP.
#[derive(Debug)]
pub struct OtlpReceiver {
    exporter: SpanExporter,
    /// What sees the answers over HTTP.
    http: Option<Arc<HttpClient>>,
    timeout: Duration,
}

impl OtlpReceiver {
    /// A receiver by these settings. It connects when there is something to export. To be called inside the
    /// runtime that exports.
    pub fn new(settings: &Otlp, resource: &Resource) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let (mut exporter, http) = match settings.protocol {
            OtlpProtocol::Grpc => (grpc(settings)?, None),
            OtlpProtocol::Http => {
                let client = Arc::new(HttpClient::new(&settings.endpoint, settings.ca_file.as_deref())?);
                (http(settings, Arc::clone(&client))?, Some(client))
            }
        };
        exporter.set_resource(resource);
        Ok(Self { exporter, http, timeout: settings.timeout })
    }

    async fn answer(&mut self, spans: Vec<SpanData>) -> Answer {
        let count = spans.len();
        let Ok(result) = timeout(self.timeout, self.exporter.export(spans)).await else {
            return Answer::Failed(format!("no answer within {:?}", self.timeout));
        };
        let seen = self.http.as_ref().and_then(|client| client.take_seen());
        match (result, seen) {
            (Ok(()), None) => Answer::Accepted,
            (Ok(()), Some(seen)) => match seen.rejected_spans {
                0 => Answer::Accepted,
                rejected => {
                    Answer::Rejected { spans: rejected.min(count), why: "partial success".to_owned() }
                }
            },
            (Err(error), Some(seen)) => match (seen.status, seen.retry_after) {
                (429 | 502..=504, Some(wait)) => Answer::RetryAfter(wait),
                (429 | 502..=504, None) => Answer::Failed(text(error)),
                _ => Answer::Rejected { spans: count, why: text(error) },
            },
            (Err(error), None) => {
                let why = text(error);
                if is_final(&why) { Answer::Rejected { spans: count, why } } else { Answer::Failed(why) }
            }
        }
    }
}

impl Receiver for OtlpReceiver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn export(&mut self, spans: Vec<SpanData>) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(self.answer(spans))
    }
}

/// The word for this receiver in labels and logs.
pub const NAME: &str = "otlp";

fn grpc(settings: &Otlp) -> Result<SpanExporter, Box<dyn Error + Send + Sync>> {
    let mut headers = HeaderMap::new();
    for (name, secret) in &settings.headers {
        let mut value = HeaderValue::from_str(secret.expose())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&*settings.endpoint)
        .with_timeout(settings.timeout)
        .with_metadata(MetadataMap::from_headers(headers))
        .with_retry_policy(RetryPolicy::disabled());
    if settings.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    if settings.endpoint.starts_with("https:") {
        let tls = match &settings.ca_file {
            None => ClientTlsConfig::new().with_webpki_roots(),
            Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(file)?)),
        };
        builder = builder.with_tls_config(tls);
    }
    Ok(builder.build()?)
}

fn http(settings: &Otlp, client: Arc<HttpClient>) -> Result<SpanExporter, Box<dyn Error + Send + Sync>> {
    let headers: HashMap<String, String> = settings
        .headers
        .iter()
        .map(|(name, secret)| (name.as_str().to_owned(), secret.expose().to_owned()))
        .collect();
    let mut builder = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(&*settings.endpoint)
        .with_timeout(settings.timeout)
        .with_headers(headers)
        .with_retry_policy(RetryPolicy::disabled())
        .with_shared_http_client(client);
    if settings.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    Ok(builder.build()?)
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn text(error: OTelSdkError) -> String {
    match error {
        OTelSdkError::InternalFailure(text) => text,
        other => other.to_string(),
    }
}

/// Whether the gRPC status in the library's text says that sending again is of no use (OTLP specification,
/// "Failures"). `Unknown` is what a broken connection looks like, so it is tried again.
fn is_final(why: &str) -> bool {
    const FINAL: [&str; 8] = [
        "InvalidArgument",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "FailedPrecondition",
        "Unimplemented",
        "Internal",
        "Unauthenticated",
    ];
    let code = why.split_once("gRPC code: ").map_or("", |(_, code)| code);
    let code = code.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    FINAL.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::is_final;

    #[test]
    fn only_some_status_codes_are_final() {
        let cases = [
            ("TonicTracesClient export failed with gRPC code: Unauthenticated", true),
            ("TonicTracesClient export failed with gRPC code: InvalidArgument: x", true),
            ("TonicTracesClient export failed with gRPC code: Unavailable: tcp connect error", false),
            ("TonicTracesClient export failed with gRPC code: ResourceExhausted", false),
            ("TonicTracesClient export failed with gRPC code: Unknown: transport error", false),
            ("something else that mentions Internal", false),
        ];
        for (why, expected) in cases {
            assert_eq!(is_final(why), expected, "{why}");
        }
    }
}
