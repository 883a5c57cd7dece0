//! Telemetry as used: what `[telemetry]` and `[metrics]` mean once they have been checked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::sampling::Sampling;
use crate::net::tls::ClientTls;
use crate::setting::Secret;

/// All settings of telemetry.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `service.name`.
    pub service_name: Box<str>,
    /// Further resource attributes (`deployment.environment.name`), sorted by key.
    pub resource: Vec<(Box<str>, Box<str>)>,
    /// The OTLP receiver; `None` is off.
    pub otlp: Option<Otlp>,
    /// The Zipkin receiver; `None` is off.
    pub zipkin: Option<Receiver>,
    /// The receiver of error records; `None` is off.
    pub logstash: Option<Logstash>,
    /// Which traces are exported.
    pub sampling: Sampling,
    /// What of the client may leave.
    pub privacy: Privacy,
    /// The access log.
    pub access_log: AccessLog,
    /// The metrics.
    pub metrics: Metrics,
    /// The recent exchanges that are kept for people to look at.
    pub recent: Recent,
}

/// The bounds of what is kept of recent exchanges.
#[derive(Debug, Clone)]
pub struct Recent {
    /// The most that failed by fault of the gateway or the upstream.
    pub errors: usize,
    /// The most that failed by fault of their client.
    pub refused: usize,
    /// The most that were the slowest of their route, or tried more than once.
    pub slow: usize,
    /// The most of the rest.
    pub samples: usize,
    /// Samples of one route are at least so far apart.
    pub sample_every: Duration,
    /// The memory that all may take together, in bytes.
    pub bytes: u64,
    /// The most routes whose last hour is kept.
    pub routes: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            errors: 1000,
            refused: 500,
            slow: 500,
            samples: 1000,
            sample_every: Duration::from_millis(200),
            bytes: 16 << 20,
            routes: 500,
        }
    }
}

/// The metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Upper bounds of the duration histograms' buckets in seconds, ascending; none: the default ones.
    pub buckets: Vec<f64>,
    /// The most series of one metric; what comes later counts as `_other`.
    pub max_series: usize,
    /// An answer whose body goes on for longer is a stream; `None`: only if its head says so.
    pub stream_after: Option<Duration>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { buckets: Vec::new(), max_series: 10_000, stream_after: Some(Duration::from_secs(30)) }
    }
}

/// An OTLP receiver.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// gRPC or HTTP/protobuf.
    pub protocol: OtlpProtocol,
    /// What it has in common with others; with gRPC the endpoint is `http://host:port` or `https://…`.
    pub receiver: Receiver,
    /// How often metrics are pushed to it; `None`: never.
    pub metrics: Option<Duration>,
}

/// What all receivers of spans have.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// The full URL that spans are posted to.
    pub endpoint: Box<str>,
    /// How it is trusted, and told who we are, if the endpoint is `https://…`.
    pub tls: Option<ClientTls>,
    /// Further header fields; their values are secrets.
    pub headers: Vec<(http::HeaderName, Secret)>,
    /// Whether batches are compressed.
    pub gzip: bool,
    /// How long one export may take.
    pub timeout: Duration,
    /// The most spans that wait to be exported.
    pub queue: usize,
    /// The most spans of one export.
    pub batch: usize,
    /// How long a span waits for its batch to fill.
    pub delay: Duration,
    /// How long a batch is tried.
    pub give_up_after: Duration,
}

/// How OTLP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// `grpc`
    Grpc,
    /// `http/protobuf`
    Http,
}

/// The receiver of error records: JSON lines over TCP.
#[derive(Debug, Clone)]
pub struct Logstash {
    /// A name or an IP address, without brackets.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// How it is trusted, and told who we are; `None` is plain text.
    pub tls: Option<ClientTls>,
    /// Whether answers from 400 to 499 that were passed on are recorded too.
    pub client_errors: bool,
    /// The most records that wait to be written.
    pub queue: usize,
    /// How long finding the address, connecting and the handshake may take together.
    pub connect_timeout: Duration,
    /// How long a write may stand still before the connection is given up.
    pub timeout: Duration,
}

/// What of the client may leave the process. All off by default.
#[derive(Debug, Clone, Default)]
pub struct Privacy {
    /// The client's address on spans, in the access log and in error records.
    pub client_address: ClientAddress,
    /// Keys of the query that are named where they occur, without their values.
    pub query_keys: Arc<[Box<str>]>,
    /// Fields of requests' headers that are recorded with their values, each as the attribute it becomes:
    /// `http.request.header.x-tenant`.
    pub headers: Arc<[Arc<str>]>,
}

/// How much of the client's address may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAddress {
    /// Nothing.
    #[default]
    Off,
    /// The first 24 bits of IPv4, 48 of IPv6.
    Truncated,
    /// All of it.
    Full,
}

/// The access log: one JSON line an operation.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// Whether it is written.
    pub enabled: bool,
    /// A file to append to, reopened on SIGUSR1; `None` is standard output.
    pub file: Option<PathBuf>,
}
