//! What every request pays for, piece by piece: its trace context in and out, its route, its header fields, and from
//! its record to the bytes that are exported.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, Version};
use tracegate::gateway::file::{self, Sources};
use tracegate::gateway::settings::Settings;
use tracegate::http::headers::{self, Fields, Peer};
use tracegate::http::route::Route;
use tracegate::http::routes::{Found, Routes};
use tracegate::telemetry::attribute::{Configured, Personal};
use tracegate::telemetry::context::format::{Format, Formats};
use tracegate::telemetry::context::{Context, Inbound};
use tracegate::telemetry::exchange::{Exchange, Method as Asked, Scheme, Version as Spoken};
use tracegate::telemetry::operation::{ConnectionFacts, EndpointLabels, RouteLabels};
use tracegate::telemetry::receivers::Receiver as _;
use tracegate::telemetry::receivers::otlp::OtlpReceiver;
use tracegate::telemetry::sampling::{RouteSampling, Sampling};
use tracegate::telemetry::series::{EndpointSeries, RouteSeries};
use tracegate::telemetry::settings::{Otlp, OtlpProtocol, Privacy, Receiver};
use tracegate::telemetry::{Attempt, Operation, Record, Recorder, Sink, Start, spans};

fn context(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("context");
    let inbound = Inbound { formats: vec![Format::W3c, Format::B3, Format::Jaeger].into(), ..Inbound::default() };
    for (name, fields) in [("no caller", vec![]), ("W3C", w3c()), ("W3C with state", with_state()), ("B3", b3())] {
        let headers = sent_by_curl(fields);
        let fields = Fields::of(&headers);
        group.bench_function(format!("parse, {name}"), |timed| {
            timed.iter_batched_ref(
                || headers.clone(),
                |headers| tracegate::http::context::extract(headers, fields, &inbound, true, None),
                BatchSize::SmallInput,
            );
        });
    }
    let recorder = recorder([]);
    for (name, formats) in [("W3C", Formats::W3C), ("every format", Formats::ALL)] {
        let operation = start(&recorder);
        let handle = operation.handle().clone();
        let span = handle.context.span_id;
        group.bench_function(format!("inject, {name}"), |timed| {
            timed.iter_batched_ref(
                || sent_by_curl(w3c()),
                |headers| tracegate::http::context::inject(headers, &handle, span, formats),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn route(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("route");
    for count in [10, 1_000, 10_000] {
        let settings = routes(count);
        let table = Routes::new(settings.routes.iter().map(|route| Arc::new(Route::unserved(route))));
        let (path, headers) = (format!("/r{}/42", count / 2), HeaderMap::new());
        assert!(matches!(table.find("shop.example", &path, &Method::GET, &headers), Found::Route(..)));
        group.bench_function(format!("one of {count}"), |timed| {
            timed.iter(|| table.find(black_box("shop.example"), black_box(&path), &Method::GET, &headers));
        });
    }
    group.finish();
}

fn fields(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("header");
    let peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), Scheme::Http, false);
    for (name, connection) in [("without Connection", None), ("with Connection", Some("keep-alive, x-own"))] {
        let mut headers = sent_by_curl(w3c());
        if let Some(connection) = connection {
            headers.insert("connection", HeaderValue::from_static(connection));
        }
        group.bench_function(format!("made fit for the upstream, {name}"), |timed| {
            timed.iter_batched_ref(
                || headers.clone(),
                |headers| {
                    let fields = Fields::of(headers);
                    headers::strip_hop_by_hop(headers, fields);
                    peer.forwarded(headers);
                    headers::add_via(headers, Version::HTTP_11);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn record(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("record");
    let ended = Arc::new(Ended::default());
    let recorder = recorder([Arc::clone(&ended) as Arc<dyn Sink>]);
    let (route, endpoint) = (Arc::new(route_labels()), Arc::new(endpoint_labels()));
    group.bench_function("an exchange with one attempt, to no sink", |timed| {
        timed.iter(|| exchange(&recorder, &route, &endpoint));
    });
    exchange(&recorder, &route, &endpoint);
    let record = ended.0.lock().ok().and_then(|mut last| last.take()).expect("an exchange has ended");
    let mut receiver = receiver();
    let privacy = Privacy::default();
    let spans = spans::preview(&record, &privacy).count();
    group.throughput(Throughput::Elements(spans as u64));
    group.bench_function("to OTLP bytes", |timed| {
        timed.iter(|| {
            receiver.add(&mut spans::preview(&record, &privacy));
            receiver.batch()
        });
    });
    group.finish();
}

criterion_group!(pieces, context, route, fields, record);
criterion_main!(pieces);

fn sent_by_curl(more: Vec<(&'static str, &'static str)>) -> HeaderMap {
    let usual = [("host", "shop.example"), ("user-agent", "curl/8.14.1"), ("accept", "*/*")];
    let field = |(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value));
    usual.into_iter().chain(more).map(field).collect()
}

fn w3c() -> Vec<(&'static str, &'static str)> {
    vec![("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
}

fn with_state() -> Vec<(&'static str, &'static str)> {
    [w3c(), vec![("tracestate", "rojo=00f067aa0ba902b7,ot=th:c;rv:0123456789abcd,congo=t61rcWkgMzE")]].concat()
}

fn b3() -> Vec<(&'static str, &'static str)> {
    vec![("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90")]
}

/// As they are written in a file, and checked.
fn routes(count: usize) -> Settings {
    let head = "[listeners.public]\naddress = \"127.0.0.1:0\"\n[upstreams.shop]\nendpoints = [\"http://127.0.0.1:1\"]\n";
    let one = |number| format!("[routes.r{number}]\nmatch = {{ path = \"/r{number}/{{id}}\" }}\nupstream = \"shop\"\n");
    let text = head.to_owned() + &(0..count).map(one).collect::<String>();
    let files = vec![("routes.toml".to_owned(), text)];
    file::load(&Sources { files, ..Sources::default() }).expect("the routes are right")
}

/// The last record that ended.
#[derive(Default)]
struct Ended(Mutex<Option<Arc<Record>>>);

impl Sink for Ended {
    fn operation_ended(&self, record: &Arc<Record>) {
        if let Ok(mut last) = self.0.lock() {
            *last = Some(Arc::clone(record));
        }
    }
}

fn recorder(sinks: impl IntoIterator<Item = Arc<dyn Sink>>) -> Arc<Recorder> {
    Recorder::new(Sampling { ratio: 1.0, ..Sampling::default() }, None, Privacy::default(), sinks)
}

fn start(recorder: &Arc<Recorder>) -> Operation {
    recorder.start(Start {
        listener: "public".into(),
        context: Context::from_headers([], []),
        exchange: Exchange { method: Asked::new("GET"), scheme: Scheme::Http, version: Spoken::Http11 },
        request_id: Personal::new(HeaderValue::from_static("4bf92f3577b34da6a3ce929d0e0e4736")),
        port: Some(8080),
        client: Personal::new(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        client_role: None,
        started: Instant::now(),
    })
}

fn exchange(recorder: &Arc<Recorder>, route: &Arc<RouteLabels>, endpoint: &Arc<EndpointLabels>) {
    let operation = start(recorder);
    let handle = operation.handle();
    handle.route(route);
    handle.attribute(0, b"42");
    let mut attempt = Attempt::start(handle, endpoint);
    attempt.connected(ConnectionFacts::default());
    handle.request_sent();
    attempt.head(200);
    handle.head(200);
    attempt.response_bytes(1012);
    handle.response_bytes(1012);
    attempt.complete();
    drop(attempt);
    handle.complete();
}

fn route_labels() -> RouteLabels {
    RouteLabels {
        route: Configured::new("order_read"),
        template: Configured::new("/shop/orders/{order_id}"),
        upstream_template: Configured::new("/orders/{order_id}"),
        operation: Some(Configured::new("order.read")),
        upstream: Configured::new("shop"),
        server: None,
        attributes: ["order.id".into()].into(),
        sampling: RouteSampling::default(),
        series: RouteSeries::default(),
    }
}

fn endpoint_labels() -> EndpointLabels {
    EndpointLabels {
        endpoint: Configured::new("shop.internal:9001"),
        address: Configured::new("shop.internal"),
        port: Some(9001),
        origin: Configured::new("http://shop.internal:9001"),
        upstream: Configured::new("shop"),
        service: Some(Configured::new("shop-api")),
        series: EndpointSeries::default(),
    }
}

fn receiver() -> OtlpReceiver {
    let receiver = Receiver {
        endpoint: "http://127.0.0.1:4318/v1/traces".into(),
        tls: None,
        headers: Vec::new(),
        gzip: false,
        timeout: Duration::from_secs(1),
        queue: 1,
        batch: 1,
        delay: Duration::from_secs(1),
        give_up_after: Duration::from_secs(1),
    };
    let resource = BTreeMap::from([("service.name".to_owned(), "api-gateway".to_owned())]);
    let settings = Otlp { protocol: OtlpProtocol::Http, receiver, metrics: None };
    OtlpReceiver::new(&settings, &resource).expect("the endpoint is a URL")
}
