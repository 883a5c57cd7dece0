//! Every metric family: its name, kind, unit, labels and help, in one table.

use crate::telemetry::attribute::Label;

/// A family of series.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// The name on the page.
    pub name: &'static str,
    /// What kind of series it has.
    pub kind: Kind,
    /// The labels that its series may have; a series leaves out what its exchange has none of. Of
    /// [`Kind::Info`], those that are known here.
    pub labels: &'static [&'static str],
    /// What it means, for people.
    pub help: &'static str,
}

impl Family {
    /// The family, which is asked for with these labels and has no others: the reference would not tell of them.
    pub(super) fn with(&self, labels: &[Label<'_>]) -> &Self {
        let unknown = labels.iter().find(|label| !self.labels.contains(&label.key()));
        debug_assert!(unknown.is_none(), "{} has no label {unknown:?}", self.name);
        self
    }
}

/// The kind of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Always 1; says what it has to say in its labels.
    Info,
    /// A histogram of seconds, with the configured buckets.
    Seconds,
    /// A histogram of seconds, with buckets for what takes microseconds.
    Short,
    /// A histogram of seconds, with buckets for what lasts hours.
    Long,
    /// A histogram of bytes.
    Bytes,
}

/// Declares the families, so that none is left out of [`ALL`].
macro_rules! families {
    ($($name:ident = $kind:ident $text:literal [$($label:literal),*], $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $name: Family =
                Family { name: $text, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )+

        /// Every family.
        pub const ALL: &[Family] = &[$($name,)+];
    };
}

families! {
    SERVER_DURATION = Seconds "http_server_request_duration_seconds" ["http_request_method", "http_route", "http_response_status_code", "url_scheme", "error_type", "status_class", "tracegate_operation", "tracegate_upstream"],
        "Duration of requests that were no streams, from the head to the last byte of the answer.";
    SERVER_ACTIVE = Gauge "http_server_active_requests" ["http_request_method", "url_scheme"], "Requests in progress.";
    REQUEST_SIZE = Bytes "http_server_request_body_size_bytes" ["http_route"], "Size of request bodies that were read.";
    RESPONSE_SIZE = Bytes "http_server_response_body_size_bytes" ["http_route"], "Size of answers' bodies that were sent.";
    CLIENT_DURATION = Seconds "http_client_request_duration_seconds" ["http_request_method", "server_address", "server_port", "http_response_status_code", "error_type", "status_class", "tracegate_operation", "tracegate_upstream"],
        "Duration of attempts at endpoints that were no streams, from their start to the last byte of the answer.";
    CLIENT_ACTIVE = Gauge "http_client_active_requests" ["http_request_method", "url_scheme"], "Attempts in progress.";
    REQUESTS = Counter "tracegate_requests_total" ["tracegate_route", "status_class", "tracegate_reason", "tracegate_blame"], "Requests by route, status class, reason and blame.";
    RULES = Counter "tracegate_rules_total" ["tracegate_rule", "tracegate_reason"],
        "Requests that a rule of the configuration refused, by the rule and the reason.";
    UNCOMPRESSED = Counter "tracegate_uncompressed_total" ["tracegate_route"],
        "Answers that passed uncompressed because as many as the route allows were compressed at the time.";
    FIRST_BYTE = Seconds "tracegate_time_to_first_byte_seconds" ["http_route"],
        "From the head of the request to the head of the answer.";
    OVERHEAD = Short "tracegate_overhead_seconds" ["http_route"],
        "The gateway's own time: the duration of a request, no stream, less the time spent in attempts and in asking who may call.";
    STREAMS_ACTIVE = Gauge "tracegate_streams_active" ["http_route"], "Open streams.";
    STREAM_AGE = Long "tracegate_stream_age_seconds" ["http_route"],
        "How old streams became, from the head of the request to their end.";
    RETRIES = Counter "tracegate_retries_total" ["tracegate_route", "outcome"], "Attempts after the first of a request, by how they ended, and those that were not made, by why.";
    ENDPOINT_REQUESTS = Counter "tracegate_endpoint_requests_total" ["tracegate_endpoint"], "Attempts at this endpoint.";
    ENDPOINT_FAILURES = Counter "tracegate_endpoint_failures_total" ["tracegate_endpoint", "tracegate_reason"], "Failed attempts at this endpoint.";
    ENDPOINT_ACTIVE = Gauge "tracegate_endpoint_active_requests" ["tracegate_endpoint"], "Attempts in progress at this endpoint.";
    ENDPOINT_CONNECTIONS = Gauge "tracegate_endpoint_connections" ["tracegate_endpoint"], "Open connections to this endpoint.";
    ENDPOINT_USABLE = Gauge "tracegate_endpoint_usable" ["tracegate_endpoint", "tracegate_upstream"],
        "Whether requests may go to this endpoint: it is in use and well, or in use where so few are well that all are taken.";
    ENDPOINT_HEALTHY = Gauge "tracegate_endpoint_healthy" ["tracegate_endpoint", "tracegate_upstream"], "Whether this endpoint's health checks pass.";
    ENDPOINT_EJECTED = Gauge "tracegate_endpoint_ejected" ["tracegate_endpoint", "tracegate_upstream"], "Whether this endpoint is ejected for its failures.";
    ENDPOINT_IN_USE = Gauge "tracegate_endpoint_in_use" ["tracegate_endpoint", "tracegate_upstream"], "0 while an operator has taken this endpoint out.";
    ENDPOINT_CHECKS = Counter "tracegate_endpoint_health_checks_total" ["tracegate_endpoint", "tracegate_upstream", "outcome"],
        "Health checks of this endpoint by outcome. They are no requests.";
    ENDPOINT_EJECTIONS = Counter "tracegate_endpoint_ejections_total" ["tracegate_endpoint", "tracegate_upstream", "outcome"],
        "How often this endpoint was ejected, or refused to be for want of others.";
    UPSTREAM_PANIC = Gauge "tracegate_upstream_panic" ["tracegate_upstream"],
        "1 while so few endpoints are usable that all in use are taken.";
    BREAKER = Counter "tracegate_breaker_refusals_total" ["tracegate_upstream", "bound"],
        "Requests that an upstream's circuit breaker refused, by its bound.";
    CONNECTIONS = Counter "tracegate_connections_total" ["listener", "outcome"], "Client connections by what became of them.";
    CONNECTIONS_OPEN = Gauge "tracegate_connections_open" ["listener"], "Open client connections.";
    CONNECTIONS_PARKED = Gauge "tracegate_connections_parked" ["listener"],
        "Those of them on which nothing is said: new ones, and HTTP/1.1 without a request for two seconds. They hold no buffers.";
    TLS_HANDSHAKES = Counter "tracegate_tls_handshakes_total" ["listener", "outcome"], "TLS handshakes with clients by how they ended.";
    CERTIFICATE_EXPIRY = Gauge "tracegate_certificate_expiry_timestamp_seconds" ["listener", "certificate"],
        "When a certificate, or one that leads to its authority, expires, in seconds since 1970.";
    UPSTREAM_EXPIRY = Gauge "tracegate_upstream_certificate_expiry_timestamp_seconds" ["tracegate_upstream"],
        "When our own certificate towards an upstream, or one that leads to its authority, expires, in seconds since 1970.";
    CONTEXT = Counter "tracegate_context_total" ["outcome"], "Requests by how their trace context came to be.";
    RATE_LIMIT_DECISIONS = Counter "tracegate_rate_limit_decisions_total" ["tracegate_rule", "outcome"], "Requests by what a rate limit decided.";
    RATE_LIMIT_KEYS = Gauge "tracegate_rate_limit_keys" ["tracegate_rule"], "Clients in a rate limit's own table.";
    RATE_LIMIT_EVICTIONS = Counter "tracegate_rate_limit_evictions_total" ["tracegate_rule"],
        "Clients that a rate limit forgot before their share was whole again, because its table was full.";
    AUTH_CALLS = Counter "tracegate_auth_calls_total" ["tracegate_rule", "outcome"], "Requests that a service was asked about, by what came of it.";
    JWKS_FETCHES = Counter "tracegate_jwks_fetches_total" ["tracegate_rule", "outcome"], "Fetches of an issuer's keys by outcome.";
    JWKS_KEYS = Gauge "tracegate_jwks_keys" ["tracegate_rule"], "Keys of an issuer that can verify tokens, as last fetched.";
    JWKS_FETCHED = Gauge "tracegate_jwks_fetched_timestamp_seconds" ["tracegate_rule"],
        "When an issuer's keys were last fetched, in seconds since 1970.";
    DNS_LOOKUPS = Counter "tracegate_dns_lookups_total" ["outcome"], "Lookups of endpoints' names by outcome.";
    RELOADS = Counter "tracegate_reloads_total" ["outcome"],
        "Reloads of the configuration by outcome: applied, unchanged or refused.";
    CONFIG_GENERATION = Gauge "tracegate_config_generation" [],
        "Which configuration is in force: 1 since the start, one more with each that is applied.";
    CONFIG_HASH = Gauge "tracegate_config_hash" [],
        "A number made of the configuration in force: equal for gateways that are configured alike.";
    CONFIG_SUCCESSFUL = Gauge "tracegate_config_last_reload_successful" [],
        "Whether the last reload was not refused; 1 before the first.";
    CONFIG_TIMESTAMP = Gauge "tracegate_config_last_reload_success_timestamp_seconds" [],
        "When the configuration was last found in force or put in force.";
    CONFIG_LAST_GOOD = Gauge "tracegate_config_last_good" [],
        "1 while the last good configuration is in force because the configured files are broken, else 0.";
    CONFIG_RESTART = Gauge "tracegate_config_keys_awaiting_restart" [],
        "Keys whose new values count after a restart only.";
    SPANS = Counter "tracegate_telemetry_spans_total" ["receiver", "outcome", "reason"],
        "Spans by what became of them: exported, unsampled or dropped, and why.";
    SPANS_MADE = Counter "tracegate_telemetry_spans_made_total" [],
        "Spans of operations and attempts that have ended and of streams that have opened, sampled or not.";
    SPANS_QUEUED = Gauge "tracegate_telemetry_spans_queued" ["receiver"],
        "Spans that wait for this receiver or are on their way to it.";
    ACCESS_RECORDS = Counter "tracegate_access_records_total" ["outcome"], "Access log lines written and dropped.";
    ERROR_RECORDS = Counter "tracegate_error_records_total" ["outcome", "reason"],
        "Records of failed exchanges for Logstash: written or dropped, and why.";
    ERROR_RECORDS_RESENT = Counter "tracegate_error_records_resent_total" [],
        "Error records written once more, because a connection broke that may have lost them.";
    RECENT = Counter "tracegate_recent_exchanges_total" ["kept"],
        "Exchanges that were kept to be looked at, by why: error, refused, slow or sample.";
    RECENT_DISPLACED = Counter "tracegate_recent_displaced_total" ["kept", "reason"],
        "Exchanges that were to be kept to be looked at and are no more, by why.";
    SERIES = Gauge "tracegate_telemetry_series" ["metric"], "Series of each metric that is shown, histograms counted once.";
    TARGET_INFO = Info "target_info" [], "The resource that these metrics are of; always 1.";
    BUILD_INFO = Info "tracegate_build_info" ["version"], "The running version; always 1.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" [], "Total user and system CPU time spent in seconds.";
    PROCESS_START = Gauge "process_start_time_seconds" [], "Start time of the process since unix epoch in seconds.";
    PROCESS_THREADS = Gauge "process_threads" [], "Number of OS threads in the process.";
    PROCESS_RESIDENT = Gauge "process_resident_memory_bytes" [], "Resident memory size in bytes.";
    PROCESS_VIRTUAL = Gauge "process_virtual_memory_bytes" [], "Virtual memory size in bytes.";
    PROCESS_VIRTUAL_MAX = Gauge "process_virtual_memory_max_bytes" [],
        "Maximum amount of virtual memory available in bytes; 0: no limit.";
    PROCESS_FILES = Gauge "process_open_fds" [], "Number of open file descriptors.";
    PROCESS_FILES_MAX = Gauge "process_max_fds" [], "Maximum number of open file descriptors; 0: no limit.";
    WORKER_CONNECTIONS = Gauge "tracegate_worker_connections" ["worker"],
        "Client connections of each worker thread: one stays with the worker that it was given to.";
    RUNTIME_TASKS = Gauge "tracegate_runtime_tasks" [],
        "Tasks that are alive: of connections, HTTP/2 streams, health checks and the gateway itself.";
}

/// Upper bounds of the histograms of seconds, unless others are set: a superset of the convention's.
pub const SECOND_BUCKETS: [f64; 20] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0,
    60.0, 120.0, 300.0,
];

/// Upper bounds of the histograms of what takes microseconds, in seconds.
pub const SHORT_BUCKETS: [f64; 16] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0,
];

/// Upper bounds of the histograms of what lasts hours, in seconds: up to a day.
pub const LONG_BUCKETS: [f64; 14] =
    [1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0, 43_200.0, 86_400.0];

/// Upper bounds of the byte histograms: 256 × 4ⁿ up to 1 GiB.
pub const BYTE_BUCKETS: [u32; 12] = {
    let mut bounds = [256; 12];
    let mut index = 1;
    while index < bounds.len() {
        bounds[index] = bounds[index - 1] * 4;
        index += 1;
    }
    bounds
};
