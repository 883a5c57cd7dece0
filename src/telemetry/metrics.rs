//! RED metrics and counters for Prometheus: a sink that finds its series by handle, never by label.
//!
//! Label values come only from closed sets: the configuration's keys and the vocabularies of this crate. Nothing of
//! a request's text becomes a label: the types of [`attribute`](super::attribute) have no room for it.

pub mod connections;
pub mod count;
pub mod dns;
pub mod endpoints;
mod exemplars;
pub mod family;
pub mod histogram;
pub mod issuers;
pub mod limits;
mod owned;
mod page;
mod process;
pub mod questions;
pub mod registry;
pub mod reloads;

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use ::metrics::{Counter, Gauge};

use self::connections::{Connections, Expiries, OpenConnection};
use self::count::Count;
use self::dns::Lookups;
use self::endpoints::EndpointState;
use self::histogram::Histogram;
use self::issuers::Fetches;
use self::limits::LimitSeries;
pub use self::page::Format;
use self::questions::QuestionSeries;
use self::registry::Registry;
use self::reloads::Reloads;
use super::attribute::{
    BOUND, Configured, ERROR_TYPE, HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, KEPT, Label,
    OUTCOME, REASON, RECEIVER, SERVER_ADDRESS, SERVER_PORT, STATUS_CLASS, TRACEGATE_BLAME,
    TRACEGATE_ENDPOINT, TRACEGATE_OPERATION, TRACEGATE_REASON, TRACEGATE_ROUTE, TRACEGATE_RULE,
    TRACEGATE_UPSTREAM, URL_SCHEME, VERSION, Word,
};
use super::balance::{ErrorBalance, LineBalance, SpanBalance, Tally};
use super::context::Origin;
use super::exchange::{Exchange, Method, Scheme, status_class};
use super::exemplar::{Candidates, Exemplar};
use super::operation::{AttemptRecord, EndpointLabels, Record, RouteLabels, Sink};
use super::outcome::ErrorType;
use super::recent;
use super::retry::NotRetried;
use super::sampling::RouteSampling;
use super::series::{EndpointHandles, RouteHandles, RouteSeries, RuleSeries, StreamHandles};
use super::settings;
use crate::failure::{Blame, Reason};
use crate::worker::Workers;

/// The metrics of one gateway.
pub struct Metrics {
    registry: Registry,
    contexts: [Counter; Origin::ALL.len()],
    active: ActiveGauges,
    attempts_active: ActiveGauges,
    unmatched: RouteLabels,
}

/// One gauge a method and scheme, made on first use.
type ActiveGauges = [[OnceLock<Gauge>; Scheme::ALL.len()]; Method::ALL.len()];

impl Metrics {
    /// Metrics by these settings.
    pub fn new(settings: &settings::Metrics) -> Arc<Self> {
        let registry = Registry::new(settings);
        registry.gauge(family::BUILD_INFO, &[VERSION.is(env!("CARGO_PKG_VERSION"))]).set(1);
        let context = |origin: Origin| registry.counter(family::CONTEXT, &[OUTCOME.is(origin.word())]);
        Arc::new(Self {
            contexts: Origin::ALL.map(context),
            active: ActiveGauges::default(),
            attempts_active: ActiveGauges::default(),
            unmatched: unmatched(),
            registry,
        })
    }

    /// The page. Takes milliseconds at many series: not on a worker thread.
    pub fn page(&self, format: Format) -> String {
        self.registry.render(format)
    }

    #[cfg(test)]
    pub(super) fn render(&self) -> String {
        self.page(Format::Text)
    }

    /// The page tells of these workers from now on.
    pub fn show_workers(&self, workers: &Workers) {
        self.registry.show_workers(workers);
    }

    /// The series of a listener's connections.
    pub fn connections(&self, listener: &Configured, tls: bool) -> Connections {
        Connections::new(&self.registry, listener, tls)
    }

    /// When the certificates of a listener expire, shown for as long as the answer is held.
    #[must_use]
    pub fn expiries(
        &self,
        listener: &Configured,
        certificates: impl IntoIterator<Item = (Configured, SystemTime)>,
    ) -> Expiries {
        Expiries::new(&self.registry, listener, certificates)
    }

    /// When our own certificate towards an upstream expires, shown for as long as the answer is held.
    #[must_use]
    pub fn upstream_expiry(&self, upstream: &Configured, expires: SystemTime) -> Expiries {
        Expiries::of_upstream(&self.registry, upstream, expires)
    }

    /// A connection to an endpoint, open for as long as the answer is held.
    #[must_use]
    pub fn endpoint_connection(&self, endpoint: &EndpointLabels) -> OpenConnection {
        let open = self.endpoint(endpoint).connections.clone();
        open.increment(1);
        OpenConnection(open)
    }

    /// The series of an endpoint's state; some only if its health is checked.
    pub fn endpoint_state(
        &self,
        upstream: &Configured,
        endpoint: &Configured,
        checked: bool,
    ) -> EndpointState {
        EndpointState::new(&self.registry, upstream, endpoint, checked)
    }

    /// Whether an upstream has so few usable endpoints that all of them are used.
    pub fn upstream_panic(&self, upstream: &Configured) -> Gauge {
        self.registry.owned_gauge(family::UPSTREAM_PANIC, &[TRACEGATE_UPSTREAM.is(upstream)])
    }

    /// What an upstream's circuit breaker refuses because of this bound.
    pub fn breaker_refusals(&self, upstream: &Configured, bound: &'static str) -> Counter {
        self.registry.owned_counter(family::BREAKER, &[TRACEGATE_UPSTREAM.is(upstream), BOUND.is(bound)])
    }

    /// The series of a rate limit.
    pub fn rate_limit(&self, rule: &Configured) -> LimitSeries {
        LimitSeries::new(&self.registry, rule)
    }

    /// The series of name lookups.
    pub fn lookups(&self) -> Lookups {
        Lookups::new(&self.registry)
    }

    /// The series of reloads.
    pub fn reloads(&self) -> Reloads {
        Reloads::new(&self.registry)
    }

    /// The series of the fetches of an issuer's keys, for this rule.
    pub fn issuer_fetches(&self, rule: &Configured) -> Fetches {
        Fetches::new(&self.registry, rule)
    }

    /// The series of what services say that this rule asks about requests.
    pub fn questions(&self, rule: &Configured) -> QuestionSeries {
        QuestionSeries::new(&self.registry, rule)
    }

    /// States the resource: `target_info` carries its attributes as labels.
    pub fn target_info<'a>(&self, resource: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.registry.target_info(resource);
    }

    /// The spans that are made.
    pub fn spans_made(&self) -> Tally {
        Tally::new(self.registry.counter(family::SPANS_MADE, &[]))
    }

    /// The balance of spans meant for this receiver.
    pub fn span_balance(&self, receiver: &'static str) -> SpanBalance {
        let counter = |outcome, reason| {
            let labels = [RECEIVER.is(receiver), OUTCOME.is(outcome), REASON.is(reason)];
            self.registry.counter(family::SPANS, &labels)
        };
        SpanBalance::new(counter, self.registry.gauge(family::SPANS_QUEUED, &[RECEIVER.is(receiver)]))
    }

    /// The balance of the access log's lines.
    pub fn line_balance(&self) -> LineBalance {
        let tally =
            |outcome| Tally::new(self.registry.counter(family::ACCESS_RECORDS, &[OUTCOME.is(outcome)]));
        LineBalance { written: tally("written"), dropped: tally("dropped") }
    }

    /// The balance of error records.
    pub fn error_balance(&self) -> ErrorBalance {
        let counter = |outcome, reason| {
            self.registry.counter(family::ERROR_RECORDS, &[OUTCOME.is(outcome), REASON.is(reason)])
        };
        ErrorBalance::new(counter, self.registry.counter(family::ERROR_RECORDS_RESENT, &[]))
    }

    /// What counts the recent exchanges that are kept, and those that are no more.
    pub fn recent(&self) -> recent::Counts {
        let kept = |kept: &'static str| Tally::new(self.registry.counter(family::RECENT, &[KEPT.is(kept)]));
        let displaced = |kept: &'static str, reason: &'static str| {
            let labels = [KEPT.is(kept), REASON.is(reason)];
            Tally::new(self.registry.counter(family::RECENT_DISPLACED, &labels))
        };
        recent::Counts::new(kept, displaced)
    }

    /// What records carry of requests that found no route.
    pub fn unmatched(&self) -> &RouteLabels {
        &self.unmatched
    }

    fn active(&self, exchange: Exchange) -> &Gauge {
        let Exchange { method, scheme, .. } = exchange;
        self.gauge(&self.active, family::SERVER_ACTIVE, method, scheme)
    }

    fn attempts_active(&self, method: Method, endpoint: &EndpointLabels) -> &Gauge {
        let scheme = if endpoint.origin.starts_with("https:") { Scheme::Https } else { Scheme::Http };
        self.gauge(&self.attempts_active, family::CLIENT_ACTIVE, method, scheme)
    }

    fn gauge<'a>(
        &self,
        gauges: &'a ActiveGauges,
        family: family::Family,
        method: Method,
        scheme: Scheme,
    ) -> &'a Gauge {
        gauges[method.index()][scheme.index()].get_or_init(|| {
            let labels = [HTTP_REQUEST_METHOD.is(method.word()), URL_SCHEME.is(scheme.word())];
            self.registry.gauge(family, &labels)
        })
    }

    fn route<'a>(&self, route: &'a RouteLabels) -> &'a RouteHandles {
        route.series.own.get_or_init(|| {
            let histogram = |family| self.registry.histogram(family, &[HTTP_ROUTE.is(&route.template)]);
            RouteHandles {
                request_size: histogram(family::REQUEST_SIZE),
                response_size: histogram(family::RESPONSE_SIZE),
                first_byte: histogram(family::FIRST_BYTE),
                overhead: histogram(family::OVERHEAD),
                operation: operation_number(route.operation.as_deref()),
            }
        })
    }

    fn streams<'a>(&self, route: &'a RouteLabels) -> &'a StreamHandles {
        route.series.streams.get_or_init(|| {
            let labels = [HTTP_ROUTE.is(&route.template)];
            StreamHandles {
                active: self.registry.owned_gauge(family::STREAMS_ACTIVE, &labels),
                age: self.registry.histogram(family::STREAM_AGE, &labels),
            }
        })
    }

    fn endpoint<'a>(&self, endpoint: &'a EndpointLabels) -> &'a EndpointHandles {
        endpoint.series.own.get_or_init(|| {
            let labels = [TRACEGATE_ENDPOINT.is(&endpoint.endpoint)];
            EndpointHandles {
                requests: self.registry.owned_counter(family::ENDPOINT_REQUESTS, &labels),
                active: self.registry.owned_gauge(family::ENDPOINT_ACTIVE, &labels),
                connections: self.registry.owned_gauge(family::ENDPOINT_CONNECTIONS, &labels),
            }
        })
    }

    fn duration<'a>(&self, route: &'a RouteLabels, key: Key) -> Cow<'a, Histogram> {
        route.series.durations.get(key.number(), || {
            let scheme = key.scheme.map_or("", Scheme::word);
            let labels = [HTTP_ROUTE.is(&route.template), URL_SCHEME.is(scheme)];
            key.with_labels(&labels, route.operation.as_ref(), &route.upstream, |labels| {
                self.registry.histogram(family::SERVER_DURATION, labels)
            })
        })
    }

    fn attempt_duration<'a>(&self, record: &Record, attempt: &'a AttemptRecord) -> Cow<'a, Histogram> {
        // whoever is asked about a request takes no part in the operation that it is about
        let route = if attempt.question.is_some() { &self.unmatched } else { self.labels(record) };
        let endpoint = &attempt.endpoint;
        let key = Key::of_attempt(record, attempt, self.route(route).operation);
        endpoint.series.durations.get(key.number(), || {
            let port = endpoint.port.map_or("".into(), Word::number);
            let labels = [SERVER_ADDRESS.is(&endpoint.address), SERVER_PORT.is(port)];
            key.with_labels(&labels, route.operation.as_ref(), &endpoint.upstream, |labels| {
                self.registry.histogram(family::CLIENT_DURATION, labels)
            })
        })
    }

    fn requests<'a>(
        &self,
        route: &'a RouteLabels,
        status: Option<u16>,
        reason: Option<Reason>,
    ) -> Cow<'a, Count> {
        let class = status_class(status);
        let number = u128::from(class.as_bytes()[0]) << 8 | reason_number(reason);
        route.series.requests.get(number, || {
            let labels = [
                TRACEGATE_ROUTE.is(&route.route),
                STATUS_CLASS.is(class),
                TRACEGATE_REASON.is(reason.map_or("", Reason::word)),
                TRACEGATE_BLAME.is(reason.map_or("", |reason| reason.blame().word())),
            ];
            self.registry.owned_count(family::REQUESTS, &labels)
        })
    }

    fn count_rule(&self, route: &RouteLabels, rule: &Configured, reason: Reason) {
        let is = |known: &&RuleSeries| known.reason == reason && known.rule == *rule;
        let known = route.series.rules.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.iter().find(is) {
            return known.requests.increment(1);
        }
        drop(known);
        let labels = [TRACEGATE_RULE.is(rule), TRACEGATE_REASON.is(reason.word())];
        let requests = self.registry.owned_counter(family::RULES, &labels);
        requests.increment(1);
        let mut known = route.series.rules.write().unwrap_or_else(PoisonError::into_inner);
        if !known.iter().any(|known| is(&known)) {
            known.push(RuleSeries { rule: rule.clone(), reason, requests });
        }
    }

    fn retries<'a>(&self, route: &'a RouteLabels, outcome: Retry) -> Cow<'a, Counter> {
        route.series.retries.get(outcome.number(), || {
            let labels = [TRACEGATE_ROUTE.is(&route.route), OUTCOME.is(outcome.word())];
            self.registry.owned_counter(family::RETRIES, &labels)
        })
    }

    fn endpoint_failures<'a>(&self, endpoint: &'a EndpointLabels, reason: Reason) -> Cow<'a, Counter> {
        endpoint.series.failures.get(reason_number(Some(reason)), || {
            let labels = [TRACEGATE_ENDPOINT.is(&endpoint.endpoint), TRACEGATE_REASON.is(reason.word())];
            self.registry.owned_counter(family::ENDPOINT_FAILURES, &labels)
        })
    }

    fn labels<'a>(&'a self, record: &'a Record) -> &'a RouteLabels {
        record.route_labels().map_or(&self.unmatched, |route| route)
    }
}

impl Sink for Metrics {
    fn operation_started(&self, record: &Record) {
        self.contexts[record.context.origin as usize].increment(1);
        self.active(record.exchange).increment(1);
    }

    fn operation_ended(&self, record: &Arc<Record>) {
        self.active(record.exchange).decrement(1);
        let route = self.labels(record);
        let (status, duration) = (record.status(), record.duration());
        let reason = record.failure().map(|(reason, _)| reason);
        self.requests(route, status, reason).increment();
        if let (Some(rule), Some(reason)) = (record.rule(), reason) {
            self.count_rule(route, rule, reason);
        }

        if let Some(why) = record.why_not_retried() {
            self.retries(route, Retry::Not(why)).increment(1);
        }
        if record.was_left_uncompressed() {
            let labels = [TRACEGATE_ROUTE.is(&route.route)];
            self.registry.owned_counter(family::UNCOMPRESSED, &labels).increment(1);
        }
        let own = self.route(route);
        own.request_size.record_bytes(record.request_body_bytes());
        own.response_size.record_bytes(record.response_body_bytes());
        if let Some(first_byte) = record.time_to_first_byte() {
            own.first_byte.record_duration(first_byte);
        }
        if record.is_stream() {
            let streams = self.streams(route);
            streams.age.record_duration(duration);
            if record.was_stream_told() {
                streams.active.decrement(1);
            }
        } else {
            self.duration(route, Key::of_operation(record)).record_duration(duration);
            let in_calls: Duration = record.calls().map(AttemptRecord::duration).sum();
            own.overhead.record_duration(duration.saturating_sub(in_calls));
        }
    }

    fn stream_opened(&self, opening: &Arc<Record>) {
        self.streams(self.labels(opening)).active.increment(1);
    }

    fn operation_leaves(&self, record: &Record, candidates: &mut Candidates) {
        let exemplar = |span_id, duration, ended| Exemplar {
            trace_id: record.context.trace_id,
            span_id,
            duration,
            at: record.started_at + ended,
            taken: record.started + ended,
        };
        if !record.is_stream() {
            let duration = record.duration();
            let own = exemplar(record.context.span_id, duration, duration);
            let series = self.duration(self.labels(record), Key::of_operation(record));
            candidates.add(series.exemplified(), own);
        }
        for attempt in record.calls().filter(|attempt| !attempt.stream) {
            let own = exemplar(attempt.span_id, attempt.duration(), attempt.ended);
            candidates.add(self.attempt_duration(record, attempt).exemplified(), own);
        }
    }

    fn attempt_started(&self, record: &Record, attempt: &AttemptRecord) {
        let endpoint = self.endpoint(&attempt.endpoint);
        endpoint.requests.increment(1);
        endpoint.active.increment(1);
        self.attempts_active(attempt.method(record), &attempt.endpoint).increment(1);
    }

    fn attempt_ended(&self, record: &Record, attempt: &AttemptRecord) {
        if attempt.resend_count > 0 {
            let outcome = if attempt.failure.is_none() { Retry::Succeeded } else { Retry::Failed };
            self.retries(self.labels(record), outcome).increment(1);
        }
        self.endpoint(&attempt.endpoint).active.decrement(1);
        self.attempts_active(attempt.method(record), &attempt.endpoint).decrement(1);
        if !attempt.stream {
            self.attempt_duration(record, attempt).record_duration(attempt.duration());
        }
        // a 4xx is the endpoint's right, and a client that leaves is not its fault
        let refused = attempt.failure.is_some_and(|(reason, _)| reason == Reason::UpstreamStatus)
            && attempt.status.is_some_and(|status| status < 500);
        if let Some((reason, _)) = attempt.failure
            && reason.blame() == Blame::Upstream
            && !refused
        {
            self.endpoint_failures(&attempt.endpoint, reason).increment(1);
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// What became of a retry.
#[derive(Clone, Copy)]
enum Retry {
    Succeeded,
    Failed,
    Not(NotRetried),
}

impl Retry {
    fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Not(why) => why.word(),
        }
    }

    fn number(self) -> u128 {
        match self {
            Self::Succeeded => 0,
            Self::Failed => 1,
            Self::Not(why) => 2 + u128::from(why.index()),
        }
    }
}

/// What distinguishes the duration series of one route, or of one endpoint.
#[derive(Clone, Copy)]
struct Key {
    method: Method,
    scheme: Option<Scheme>,
    status: Option<u16>,
    error: Option<ErrorType>,
    operation: u64,
}

impl Key {
    fn of_operation(record: &Record) -> Self {
        Self {
            method: record.exchange.method,
            scheme: Some(record.exchange.scheme),
            status: record.status(),
            error: ErrorType::of_operation(record),
            operation: 0,
        }
    }

    fn of_attempt(record: &Record, attempt: &AttemptRecord, operation: u64) -> Self {
        Self {
            method: attempt.method(record),
            scheme: None,
            status: attempt.status,
            error: ErrorType::of_attempt(attempt),
            operation,
        }
    }

    /// The key of a [`Table`](super::series::Table).
    fn number(self) -> u128 {
        let scheme = self.scheme.map_or(0, |scheme| 1 + scheme.index());
        let error = match self.error {
            None => 0,
            Some(ErrorType::Reason(reason)) => reason_number(Some(reason)),
            // which status it is stands in the number already
            Some(ErrorType::Status(_)) => 0xff,
        };
        let status = self.status.map_or(0, |status| if is_known(status) { u128::from(status) } else { 1 });
        let exchange = (scheme << 4 | self.method.index()) as u128;
        u128::from(self.operation) << 64 | error << 24 | status << 8 | exchange
    }

    /// Makes something with these labels and those that both duration histograms have. What was not
    /// answered has no status.
    fn with_labels<T>(
        self,
        own: &[Label<'_>],
        operation: Option<&Configured>,
        upstream: &Configured,
        make: impl FnOnce(&[Label<'_>]) -> T,
    ) -> T {
        let error = |error| match error {
            ErrorType::Reason(reason) => reason.word().into(),
            ErrorType::Status(status) => status_word(status),
        };
        let mut labels = own.to_vec();
        labels.push(HTTP_REQUEST_METHOD.is(self.method.word()));
        labels.extend(self.status.map(|status| HTTP_RESPONSE_STATUS_CODE.is(status_word(status))));
        labels.extend(self.error.map(|known| ERROR_TYPE.is(error(known))));
        labels.push(STATUS_CLASS.is(status_class(self.status)));
        labels.push(TRACEGATE_OPERATION.is(operation.map_or("".into(), Word::from)));
        labels.push(TRACEGATE_UPSTREAM.is(upstream));
        make(&labels)
    }
}

/// A number for a business operation, made of its name: nothing has to be remembered of those that are gone.
fn operation_number(operation: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    operation.hash(&mut hasher);
    hasher.finish()
}

/// The reason in a number that [`RouteSeries`] has its requests by.
pub(super) fn reason_of(number: u128) -> Option<Reason> {
    u8::try_from((number & 0xff).checked_sub(1)?).ok().and_then(Reason::from_index)
}

fn reason_number(reason: Option<Reason>) -> u128 {
    reason.map_or(0, |reason| 1 + u128::from(reason.index()))
}

/// The status as text; three digits that no class knows are `_OTHER`.
fn status_word(status: u16) -> Word<'static> {
    if is_known(status) { Word::number(status) } else { "_OTHER".into() }
}

fn is_known(status: u16) -> bool {
    (100..=599).contains(&status)
}

/// The series of requests that found no route.
fn unmatched() -> RouteLabels {
    RouteLabels {
        route: Configured::default(),
        template: Configured::default(),
        upstream_template: Configured::default(),
        operation: None,
        upstream: Configured::default(),
        server: None,
        attributes: Box::default(),
        sampling: RouteSampling::default(),
        series: RouteSeries::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Metrics;
    use super::connections::ConnectionOutcome;
    use super::family;
    use crate::failure::{Failure, Reason};
    use crate::telemetry::attribute::Configured;
    use crate::telemetry::operation::Attempt;
    use crate::telemetry::settings;
    use crate::telemetry::testing::{self, Bench};

    fn bench() -> (Arc<Metrics>, Bench) {
        let metrics = Metrics::new(&settings::Metrics { buckets: vec![0.5, 60.0], ..Default::default() });
        (Arc::clone(&metrics), Bench::new(metrics))
    }

    /// The lines of the page that contain all of these.
    fn lines(page: &str, parts: &[&str]) -> Vec<String> {
        page.lines().filter(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned).collect()
    }

    #[test]
    fn a_request_that_succeeds_is_counted_by_route_and_by_endpoint() {
        let (metrics, bench) = bench();
        let operation = bench.start("GET");
        operation.handle().route(&bench.route);
        let mut attempt = Attempt::start(operation.handle(), &bench.endpoint);
        let active = lines(&metrics.render(), &["_active_requests{", " 1"]);
        assert_eq!(active.len(), 3, "server, client, endpoint: {active:?}");
        testing::answered(&mut attempt, 200);
        drop(attempt);
        operation.handle().request_bytes(100);
        operation.handle().response_bytes(2000);
        testing::answer(operation, 200);

        let page = metrics.render();
        for line in [
            r#"http_server_request_duration_seconds_count{http_route="/shop/orders/{order_id}",url_scheme="http",http_request_method="GET",http_response_status_code="200",status_class="2xx",tracegate_operation="order.read",tracegate_upstream="shop"} 1"#,
            r#"http_client_request_duration_seconds_bucket{server_address="shop.internal",server_port="9001",http_request_method="GET",http_response_status_code="200",status_class="2xx",tracegate_operation="order.read",tracegate_upstream="shop",le="60"} 1"#,
            r#"http_server_request_body_size_bytes_bucket{http_route="/shop/orders/{order_id}",le="256"} 1"#,
            r#"http_server_response_body_size_bytes_bucket{http_route="/shop/orders/{order_id}",le="1024"} 0"#,
            r#"http_server_response_body_size_bytes_bucket{http_route="/shop/orders/{order_id}",le="1073741824"} 1"#,
            r#"tracegate_time_to_first_byte_seconds_count{http_route="/shop/orders/{order_id}"} 1"#,
            r#"tracegate_overhead_seconds_count{http_route="/shop/orders/{order_id}"} 1"#,
            r#"tracegate_requests_total{tracegate_route="order_read",status_class="2xx",tracegate_reason="",tracegate_blame=""} 1"#,
            r#"tracegate_endpoint_requests_total{tracegate_endpoint="shop.internal:9001"} 1"#,
            r#"tracegate_context_total{outcome="started"} 1"#,
            r#"http_server_active_requests{http_request_method="GET",url_scheme="http"} 0"#,
            r#"http_client_active_requests{http_request_method="GET",url_scheme="http"} 0"#,
        ] {
            assert!(page.lines().any(|other| other == line), "{line}\n\n{page}");
        }
        assert!(!page.contains("quantile=") && !page.contains("error_type"), "{page}");
    }

    #[test]
    fn an_error_type_stands_only_where_the_span_is_an_error() {
        let cases: [(Option<Reason>, Option<u16>, &str); 6] = [
            (Some(Reason::NoRoute), Some(404), r#"status_code="404",status_class="4xx""#),
            (None, Some(404), r#"status_code="404",status_class="4xx""#),
            (
                Some(Reason::UpstreamStatus),
                Some(503),
                r#"status_code="503",error_type="503",status_class="5xx""#,
            ),
            (
                Some(Reason::ConnectRefused),
                Some(502),
                r#"="502",error_type="connect_refused",status_class="5xx""#,
            ),
            (Some(Reason::UpstreamStatus), Some(999), r#"="_OTHER",error_type="_OTHER",status_class="none""#),
            (None, None, r#"http_request_method="GET",error_type="client_gone",status_class="none""#),
        ];
        for (reason, status, labels) in cases {
            let (metrics, bench) = bench();
            let operation = bench.start("GET");
            operation.handle().route(&bench.route);
            if let Some(reason) = reason {
                operation.handle().fail(&Failure::new(reason));
            }
            match status {
                Some(status) => testing::answer(operation, status),
                None => drop(operation),
            }
            let found = lines(&metrics.render(), &["http_server_request_duration_seconds_count", labels]);
            assert_eq!(found.len(), 1, "{reason:?} {status:?}\n{}", metrics.render());
        }
    }

    #[test]
    fn a_retry_is_counted_and_each_attempt_has_its_own_reason() {
        let (metrics, bench) = bench();
        let operation = bench.start("POST");
        operation.handle().route(&bench.route);
        let mut first = Attempt::start(operation.handle(), &bench.endpoint);
        first.fail(&Failure::new(Reason::ConnectRefused));
        drop(first);
        let mut second = Attempt::start(operation.handle(), &bench.endpoint);
        testing::answered(&mut second, 503);
        drop(second);
        operation.handle().fail(&Failure::new(Reason::UpstreamStatus));
        testing::answer(operation, 503);
        let page = metrics.render();
        for parts in [
            &["tracegate_retries_total{tracegate_route=\"order_read\",outcome=\"failed\"} 1"][..],
            &["tracegate_endpoint_failures_total", "connect_refused", " 1"],
            &["tracegate_endpoint_failures_total", "upstream_status", " 1"],
            &[
                "http_client_request_duration_seconds_count",
                "error_type=\"connect_refused\",status_class=\"none\"",
            ],
            &["http_client_request_duration_seconds_count", "error_type=\"503\",status_class=\"5xx\""],
            &["tracegate_requests_total", "upstream_status", "tracegate_blame=\"upstream\"} 1"],
        ] {
            assert_eq!(lines(&page, parts).len(), 1, "{parts:?}\n{page}");
        }
    }

    #[test]
    fn what_clients_send_makes_no_series() {
        let (metrics, bench) = bench();
        let send = |round: u32| {
            let operation = bench.start(&format!("METHOD{round}"));
            operation.handle().fail(&Failure::new(Reason::NoRoute));
            testing::answer(operation, 404);
        };
        send(0);
        let before = metrics.render().lines().count();
        (1..1000).for_each(send);
        let page = metrics.render();
        assert_eq!(page.lines().count(), before);
        let found =
            lines(&page, &["http_server_request_duration_seconds_count", r#"http_route="","#, "_OTHER"]);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn every_family_on_the_page_has_its_help_and_its_type() {
        let (metrics, bench) = bench();
        testing::answer(bench.start("GET"), 200);
        let connections = metrics.connections(&Configured::new("public"), false);
        connections.count(ConnectionOutcome::Accepted);
        let open = connections.open();
        metrics.target_info([("service.name", "api-gateway")]);
        let page = metrics.render();
        assert!(page.contains("target_info{service_name=\"api-gateway\"} 1"));
        assert!(page.contains("tracegate_connections_open{listener=\"public\"} 1"));
        assert!(page.contains("process_resident_memory_bytes "));
        drop(open);
        assert!(metrics.render().contains("tracegate_connections_open{listener=\"public\"} 0"));
        for family in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = family.split(' ').next().unwrap();
            assert!(page.contains(&format!("# HELP {name} ")), "{name}");
            assert!(family::ALL.iter().any(|known| known.name == name), "{name}");
        }
    }
}
