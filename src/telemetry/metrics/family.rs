//! Every metric family: its name, kind, unit and help, in one table.

/// A family of series.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// The name on the page.
    pub name: &'static str,
    /// What kind of series it has.
    pub kind: Kind,
    /// What it means, for people.
    pub help: &'static str,
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
    ($($name:ident = $kind:ident $text:literal, $help:literal;)+) => {
        $(#[doc = $help] pub const $name: Family = Family { name: $text, kind: Kind::$kind, help: $help };)+

        /// Every family.
        pub const ALL: &[Family] = &[$($name,)+];
    };
}

families! {
    SERVER_DURATION = Seconds "http_server_request_duration_seconds",
        "Duration of requests that were no streams, from the head to the last byte of the answer.";
    SERVER_ACTIVE = Gauge "http_server_active_requests", "Requests in progress.";
    REQUEST_SIZE = Bytes "http_server_request_body_size_bytes", "Size of request bodies that were read.";
    RESPONSE_SIZE = Bytes "http_server_response_body_size_bytes", "Size of answers' bodies that were sent.";
    CLIENT_DURATION = Seconds "http_client_request_duration_seconds",
        "Duration of attempts at endpoints that were no streams, from their start to the last byte of the answer.";
    CLIENT_ACTIVE = Gauge "http_client_active_requests", "Attempts in progress.";
    REQUESTS = Counter "tracegate_requests_total", "Requests by route, status class, reason and blame.";
    RULES = Counter "tracegate_rules_total",
        "Requests that a rule of the configuration refused, by the rule and the reason.";
    UNCOMPRESSED = Counter "tracegate_uncompressed_total",
        "Answers that passed uncompressed because as many as the route allows were compressed at the time.";
    FIRST_BYTE = Seconds "tracegate_time_to_first_byte_seconds",
        "From the head of the request to the head of the answer.";
    OVERHEAD = Short "tracegate_overhead_seconds",
        "The gateway's own time: the duration of a request, no stream, less the time spent in attempts and in asking who may call.";
    STREAMS_ACTIVE = Gauge "tracegate_streams_active", "Open streams.";
    STREAM_AGE = Long "tracegate_stream_age_seconds",
        "How old streams became, from the head of the request to their end.";
    RETRIES = Counter "tracegate_retries_total", "Attempts after the first of a request, by how they ended, and those that were not made, by why.";
    ENDPOINT_REQUESTS = Counter "tracegate_endpoint_requests_total", "Attempts at this endpoint.";
    ENDPOINT_FAILURES = Counter "tracegate_endpoint_failures_total", "Failed attempts at this endpoint.";
    ENDPOINT_ACTIVE = Gauge "tracegate_endpoint_active_requests", "Attempts in progress at this endpoint.";
    ENDPOINT_CONNECTIONS = Gauge "tracegate_endpoint_connections", "Open connections to this endpoint.";
    ENDPOINT_USABLE = Gauge "tracegate_endpoint_usable",
        "Whether requests may go to this endpoint: it is in use and well, or in use where so few are well that all are taken.";
    ENDPOINT_HEALTHY = Gauge "tracegate_endpoint_healthy", "Whether this endpoint's health checks pass.";
    ENDPOINT_EJECTED = Gauge "tracegate_endpoint_ejected", "Whether this endpoint is ejected for its failures.";
    ENDPOINT_IN_USE = Gauge "tracegate_endpoint_in_use", "0 while an operator has taken this endpoint out.";
    ENDPOINT_CHECKS = Counter "tracegate_endpoint_health_checks_total",
        "Health checks of this endpoint by outcome. They are no requests.";
    ENDPOINT_EJECTIONS = Counter "tracegate_endpoint_ejections_total",
        "How often this endpoint was ejected, or refused to be for want of others.";
    UPSTREAM_PANIC = Gauge "tracegate_upstream_panic",
        "1 while so few endpoints are usable that all in use are taken.";
    BREAKER = Counter "tracegate_breaker_refusals_total",
        "Requests that an upstream's circuit breaker refused, by its bound.";
    CONNECTIONS = Counter "tracegate_connections_total", "Client connections by what became of them.";
    CONNECTIONS_OPEN = Gauge "tracegate_connections_open", "Open client connections.";
    TLS_HANDSHAKES = Counter "tracegate_tls_handshakes_total", "TLS handshakes with clients by how they ended.";
    CERTIFICATE_EXPIRY = Gauge "tracegate_certificate_expiry_timestamp_seconds",
        "When a certificate, or one that leads to its authority, expires, in seconds since 1970.";
    UPSTREAM_EXPIRY = Gauge "tracegate_upstream_certificate_expiry_timestamp_seconds",
        "When our own certificate towards an upstream, or one that leads to its authority, expires, in seconds since 1970.";
    CONTEXT = Counter "tracegate_context_total", "Requests by how their trace context came to be.";
    RATE_LIMIT_DECISIONS = Counter "tracegate_rate_limit_decisions_total", "Requests by what a rate limit decided.";
    RATE_LIMIT_KEYS = Gauge "tracegate_rate_limit_keys", "Clients in a rate limit's own table.";
    RATE_LIMIT_EVICTIONS = Counter "tracegate_rate_limit_evictions_total",
        "Clients that a rate limit forgot before their share was whole again, because its table was full.";
    AUTH_CALLS = Counter "tracegate_auth_calls_total", "Requests that a service was asked about, by what came of it.";
    JWKS_FETCHES = Counter "tracegate_jwks_fetches_total", "Fetches of an issuer's keys by outcome.";
    JWKS_KEYS = Gauge "tracegate_jwks_keys", "Keys of an issuer that can verify tokens, as last fetched.";
    JWKS_FETCHED = Gauge "tracegate_jwks_fetched_timestamp_seconds",
        "When an issuer's keys were last fetched, in seconds since 1970.";
    DNS_LOOKUPS = Counter "tracegate_dns_lookups_total", "Lookups of endpoints' names by outcome.";
    RELOADS = Counter "tracegate_reloads_total",
        "Reloads of the configuration by outcome: applied, unchanged or refused.";
    CONFIG_GENERATION = Gauge "tracegate_config_generation",
        "Which configuration is in force: 1 since the start, one more with each that is applied.";
    CONFIG_HASH = Gauge "tracegate_config_hash",
        "A number made of the configuration in force: equal for gateways that are configured alike.";
    CONFIG_SUCCESSFUL = Gauge "tracegate_config_last_reload_successful",
        "Whether the last reload was not refused; 1 before the first.";
    CONFIG_TIMESTAMP = Gauge "tracegate_config_last_reload_success_timestamp_seconds",
        "When the configuration was last found in force or put in force.";
    CONFIG_LAST_GOOD = Gauge "tracegate_config_last_good",
        "1 while the last good configuration is in force because the configured files are broken, else 0.";
    CONFIG_RESTART = Gauge "tracegate_config_keys_awaiting_restart",
        "Keys whose new values count after a restart only.";
    SPANS = Counter "tracegate_telemetry_spans_total",
        "Spans by what became of them: exported, unsampled or dropped, and why.";
    SPANS_MADE = Counter "tracegate_telemetry_spans_made_total",
        "Spans of operations and attempts that have ended and of streams that have opened, sampled or not.";
    SPANS_QUEUED = Gauge "tracegate_telemetry_spans_queued",
        "Spans that wait for this receiver or are on their way to it.";
    ACCESS_RECORDS = Counter "tracegate_access_records_total", "Access log lines written and dropped.";
    ERROR_RECORDS = Counter "tracegate_error_records_total",
        "Records of failed exchanges for Logstash: written or dropped, and why.";
    ERROR_RECORDS_RESENT = Counter "tracegate_error_records_resent_total",
        "Error records written once more, because a connection broke that may have lost them.";
    RECENT = Counter "tracegate_recent_exchanges_total",
        "Exchanges that were kept to be looked at, by why: error, refused, slow or sample.";
    RECENT_DISPLACED = Counter "tracegate_recent_displaced_total",
        "Exchanges that were to be kept to be looked at and are no more, by why.";
    SERIES = Gauge "tracegate_telemetry_series", "Series of each metric that is shown, histograms counted once.";
    TARGET_INFO = Info "target_info", "The resource that these metrics are of; always 1.";
    BUILD_INFO = Info "tracegate_build_info", "The running version; always 1.";
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
