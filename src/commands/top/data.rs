//! What the admin API answers, as far as it is shown. What a newer gateway adds is passed over, what an older one
//! leaves out is empty.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The event `routes`, and `/api/routes`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Routes {
    pub(super) routes: Vec<Row>,
    /// Routes whose figures are not kept.
    pub(super) left_out: u64,
}

/// A route with its figures.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Row {
    /// Empty for what found no route.
    pub(super) name: String,
    pub(super) template: String,
    pub(super) methods: Vec<String>,
    pub(super) upstreams: Vec<String>,
    pub(super) operation: Option<String>,
    pub(super) trouble: Trouble,
    pub(super) now: Option<Window>,
    pub(super) recent: Option<Window>,
    pub(super) hour: Option<Window>,
    pub(super) phases: BTreeMap<String, f64>,
    pub(super) example: Option<Summary>,
}

/// What is the matter with a route.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Trouble {
    pub(super) level: Level,
    pub(super) why: String,
    pub(super) reason: Option<String>,
    pub(super) phase: Option<String>,
}

/// How much a route needs a look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Failing,
    Maintenance,
    Slow,
    Refusing,
    Fine,
    Idle,
    /// A word that this version does not know.
    #[default]
    #[serde(other)]
    Other,
}

/// Figures of a stretch of time.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Window {
    pub(super) requests: u64,
    /// A second.
    pub(super) rate: f64,
    pub(super) error_ratio: f64,
    pub(super) reasons: BTreeMap<String, u64>,
    pub(super) p50_ms: Option<f64>,
    pub(super) p95_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
}

/// `/api/routes/NAME`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Charts {
    pub(super) minutes: Option<Points>,
}

/// A route's last hour, point by point, the oldest first.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Points {
    pub(super) requests: Vec<u64>,
    pub(super) errors: Vec<u64>,
    pub(super) p95_ms: Vec<Option<f64>>,
}

/// The event `upstreams`, and `/api/upstreams`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Upstreams {
    pub(super) upstreams: Vec<Upstream>,
}

/// An upstream.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) endpoints: Vec<Endpoint>,
    /// So few are usable that all are tried.
    pub(super) panic: bool,
    pub(super) breaker: BTreeMap<String, Bound>,
}

/// An endpoint of an upstream.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Endpoint {
    #[serde(rename = "endpoint")]
    pub(super) address: String,
    pub(super) state: String,
    pub(super) in_flight: u64,
    pub(super) weight: f64,
    pub(super) health: String,
    /// Whether an operator lets it be used.
    pub(super) in_use: bool,
    pub(super) ejected_for_seconds: Option<f64>,
    pub(super) returned_seconds_ago: Option<f64>,
}

/// A bound of a breaker.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Bound {
    pub(super) most: u64,
    pub(super) now: u64,
    pub(super) refused: u64,
}

/// `/api/traces`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Traces {
    pub(super) traces: Vec<Summary>,
}

/// The event `trace`, and a member of `/api/traces`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Summary {
    pub(super) number: u64,
    pub(super) trace_id: String,
    /// RFC 3339, UTC.
    pub(super) time: String,
    pub(super) route: Option<String>,
    pub(super) operation: Option<String>,
    pub(super) upstream: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) method: String,
    pub(super) template: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) reason: Option<String>,
    pub(super) blame: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) attempts: u64,
    pub(super) duration_ms: f64,
    pub(super) first_byte_ms: Option<f64>,
    pub(super) dominant: Option<String>,
    pub(super) attributes: BTreeMap<String, String>,
}

/// `/api/traces/TRACE_ID`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Trace {
    pub(super) exchanges: Vec<Exchange>,
}

/// An exchange, whole.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Exchange {
    #[serde(flatten)]
    pub(super) summary: Summary,
    pub(super) listener: String,
    pub(super) protocol: String,
    pub(super) rule: Option<String>,
    pub(super) grpc_status: Option<u64>,
    pub(super) not_retried: Option<String>,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) phases_ms: BTreeMap<String, f64>,
    pub(super) attempt_list: Vec<Attempt>,
}

/// One try at one endpoint.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Attempt {
    pub(super) number: u64,
    pub(super) endpoint: String,
    pub(super) connection: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) reason: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) start_ms: f64,
    pub(super) duration_ms: f64,
    pub(super) parts: Vec<Part>,
}

/// A phase of an attempt.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Part {
    pub(super) phase: String,
    pub(super) start_ms: f64,
    pub(super) duration_ms: f64,
}

/// The event `telemetry`, and `/api/telemetry`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Telemetry {
    pub(super) spans_made: u64,
    pub(super) spans: BTreeMap<String, Spans>,
    pub(super) access_records_written: u64,
    pub(super) access_records_dropped: u64,
    pub(super) balanced: bool,
    pub(super) recent: Recent,
}

/// What became of the spans meant for a receiver.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Spans {
    pub(super) exported: u64,
    pub(super) unsampled: BTreeMap<String, u64>,
    pub(super) dropped: BTreeMap<String, u64>,
    pub(super) queued: u64,
}

/// What is kept of recent exchanges.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Recent {
    pub(super) kept: BTreeMap<String, u64>,
    pub(super) bytes: u64,
}

/// The event `reloads`, and `/api/reloads`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reloads {
    pub(super) generation: u64,
    pub(super) hash: String,
    pub(super) awaiting_restart: Vec<String>,
    /// What was changed at run time, by its name.
    pub(super) overrides: BTreeMap<String, serde_json::Value>,
    /// The newest first.
    #[serde(rename = "reloads")]
    pub(super) history: Vec<Reload>,
}

/// A reload.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reload {
    pub(super) at: String,
    pub(super) trigger: String,
    pub(super) outcome: String,
    pub(super) generation: u64,
    pub(super) difference: Difference,
    pub(super) problems: Vec<String>,
}

/// What a reload changed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Difference {
    pub(super) added: Listed,
    pub(super) removed: Listed,
    pub(super) changed: Listed,
    pub(super) files: Listed,
}

/// The first of many.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Listed {
    pub(super) count: u64,
    pub(super) first: Vec<String>,
}

/// `/api/certificates`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Certificates {
    pub(super) certificates: Vec<Certificate>,
}

/// A listener's certificate.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Certificate {
    pub(super) listener: String,
    #[serde(rename = "certificate")]
    pub(super) name: String,
    pub(super) expires: String,
    pub(super) days_left: f64,
    pub(super) soon: bool,
}

/// The event `hello`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Hello {
    pub(super) version: String,
}

/// The event `lagged`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Lagged {
    pub(super) missed: u64,
}
