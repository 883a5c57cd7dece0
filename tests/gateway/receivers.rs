//! Receivers of spans: what they are sent, over what, and what they cost while they are away.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Map, Value, json};

use crate::support::client::{get_admin, request};
use crate::support::collector::{Kind, Span};
use crate::support::gateway::{all_to, route, upstream};
use crate::support::load::{Busy, load};
use crate::support::process::Process;
use crate::support::{
    Answer, Authority, Balance, Client, Collector, Gateway, Metrics, Origin, Protocol, Seen, body, within,
};

#[tokio::test]
async fn zipkin_is_sent_every_field_of_what_otlp_is_sent() {
    let answer = |seen: &Seen| if seen.target == "/broken" { Answer::status(503) } else { Answer::ok() };
    let (origin, collector) = (Origin::start(answer).await, Collector::start().await);
    let service = "[telemetry]\nservice_name = 'api-gateway'\nresource.\"service.namespace\" = 'shop'\n";
    let receivers = [collector.table(Protocol::Grpc), collector.table(Protocol::Zipkin)].concat();
    let routes = [upstream("shop", origin.address), route("all", "/{path}", "shop")].concat();
    let gateway = Gateway::start(&[&routes, service, &receivers]).await;
    let parent = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
    for (target, fields) in [("/fine", &[][..]), ("/broken", &[]), ("/no/route", &[]), ("/fine", &parent)] {
        gateway.ask(request(Method::GET, target, fields, body::empty())).await;
    }
    let (spans, json) = (collector.wait_for_spans(7).await, collector.wait_for_zipkin(7).await);
    assert_eq!((spans.len(), json.len()), (7, 7));
    for span in &spans {
        let found = json.iter().find(|json| json["id"] == span.id).expect("the same span");
        assert_eq!(*found, zipkin(span), "{}", span.name);
    }
    let headers = collector.batches().into_iter().find(|batch| batch.protocol == Protocol::Zipkin).unwrap();
    assert_eq!(headers.headers["content-type"], "application/json");
}

/// The span as OpenTelemetry's specification makes it one of Zipkin.
fn zipkin(span: &Span) -> Value {
    let mut json = Map::new();
    json.insert("traceId".to_owned(), json!(span.trace_id));
    json.insert("id".to_owned(), json!(span.id));
    if !span.parent.is_empty() {
        json.insert("parentId".to_owned(), json!(span.parent));
    }
    json.insert("name".to_owned(), json!(span.name));
    json.insert("timestamp".to_owned(), json!(span.start / 1000));
    json.insert("duration".to_owned(), json!(((span.end - span.start) / 1000).max(1)));
    json.insert("localEndpoint".to_owned(), json!({ "serviceName": "api-gateway" }));
    let mut tags: Map<String, Value> =
        span.attributes.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let resource = span.resource.iter().filter(|(key, _)| *key != "service.name");
    tags.extend(resource.map(|(key, value)| (key.clone(), json!(value))));
    tags.insert("otel.scope.name".to_owned(), json!("tracegate"));
    tags.insert("otel.scope.version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    if span.error {
        tags.insert("otel.status_code".to_owned(), json!("ERROR"));
        tags.insert("error".to_owned(), json!(""));
    }
    json.insert("tags".to_owned(), tags.into());
    json.insert("kind".to_owned(), json!(if span.kind == Kind::Server { "SERVER" } else { "CLIENT" }));
    if span.kind == Kind::Client {
        let port: u16 = span.attribute("network.peer.port").unwrap().parse().unwrap();
        let address = span.attribute("network.peer.address").unwrap();
        let remote = json!({ "serviceName": "shop-api", "ipv4": address, "port": port });
        json.insert("remoteEndpoint".to_owned(), remote);
    }
    json.into()
}

#[tokio::test]
async fn a_receiver_by_tls_is_verified_and_told_who_the_gateway_is() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.write(directory.path());
    authority.identity(&["gateway.test"]).write(directory.path());
    let own = "certificate_file = 'server.pem', key_file = 'server-key.pem'";
    let origin = Origin::start(Answer::ok()).await;
    for protocol in Protocol::ALL {
        let server = authority.mutual(&authority.identity(&["collector.test"]));
        let collector = Collector::start_tls(server).await;
        for (tls, exported) in [
            (format!("ca_file = 'ca.pem', server_name = 'collector.test', {own}"), 2),
            ("ca_file = 'ca.pem', server_name = 'collector.test'".to_owned(), 0),
            (format!("ca_file = 'ca.pem', server_name = 'other.test', {own}"), 0),
            (format!("server_name = 'collector.test', {own}"), 0),
        ] {
            let table = collector.table(protocol);
            let receiver = format!("{table}tls = {{ {tls} }}\ngive_up_after = '300ms'\n");
            let gateway = Gateway::start_in(directory.path(), &[&all_to(origin.address), &receiver]).await;
            gateway.get("/").await;
            let decided = |balance: &Balance| balance.made == 2 && balance.queued == 0;
            let balance = gateway.balance_when("a decision", protocol.receiver(), decided).await;
            assert_eq!(balance.exported, exported, "{protocol:?} {tls}");
        }
    }
}

#[tokio::test]
async fn that_a_receiver_is_away_is_one_line_of_the_log() {
    let (origin, mut collector) = (Origin::start(Answer::ok()).await, Collector::start().await);
    let text = format!("{}{}delay = '1ms'\n", all_to(origin.address), collector.grpc());
    let process = Process::start(&text, None).await;
    collector.kill().await;
    let mut client = Client::http1(process.address).await;
    for _ in 0..20 {
        client.get("/").await;
    }
    let said = |word: &str| process.diagnostics().lines().filter(|line| line.contains(word)).count();
    let away = async {
        while said("is away") == 0 {
            tokio::task::yield_now().await;
        }
    };
    within("the line", away).await;
    collector.revive().await;
    let back = async {
        while said("is back") == 0 {
            tokio::task::yield_now().await;
        }
    };
    within("the line", back).await;
    assert_eq!((said("is away"), said("is back")), (1, 1), "{}", process.diagnostics());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_costs_no_request_and_no_growing_memory() {
    a_dead_collector_costs_no_growing_memory(8000, |answers, _| answers < 1500).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes"]
async fn a_dead_collector_costs_no_growing_memory_in_ten_minutes_of_load() {
    const TEN_MINUTES: Duration = Duration::from_mins(10);
    a_dead_collector_costs_no_growing_memory(16_384, |_, elapsed| elapsed < TEN_MINUTES).await;
}

/// Fills a queue of so many spans, and then goes on for as long as this says so.
async fn a_dead_collector_costs_no_growing_memory(
    queue: u64,
    go_on: impl Fn(u64, Duration) -> bool + Send + Sync + 'static,
) {
    const CLIENTS: usize = 4;
    const KIB: u64 = 1 << 10;
    // the largest records that a client can cause, and a head that none of them may hold on to
    let (id, state) = ("x".repeat(128), format!("a={},b={}", "x".repeat(250), "x".repeat(250)));
    let rest = "x".repeat(6000);
    let [unsampled, sampled] = [
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ]
    .map(|parent| {
        [("traceparent", parent), ("tracestate", &state), ("x-request-id", &id), ("x-rest", &rest)]
    });
    let (origin, mut collector) = (Busy::start().await, Collector::start().await);
    collector.kill().await;
    let text = format!(
        "{}{}queue = {queue}\n[telemetry.access_log]\nenabled = false\n",
        all_to(origin.address),
        collector.grpc()
    );
    let process = Process::start(&text, None).await;
    let balance = async || {
        let page = get_admin(process.admin, "/metrics").await;
        Balance::of(&Metrics::parse(page.text()), "otlp")
    };
    load(process.address, CLIENTS, &unsampled, |answers| answers < 500).join_all().await;
    let empty = process.peak_memory();
    // and use up what the allocator has in reserve
    while balance().await.dropped_as("queue_full") < 2000 {
        load(process.address, CLIENTS, &sampled, |answers| answers < 500).join_all().await;
    }
    let full = process.peak_memory();
    // README: the queue and one batch, of at most 2 KiB a span
    let (growth, ceiling) = (full.saturating_sub(empty), (queue + 512) * 2);
    assert!(growth < ceiling, "{growth} KiB for a full queue, {ceiling} are promised");

    let started = Instant::now();
    let asking = load(process.address, CLIENTS, &sampled, move |answers| go_on(answers, started.elapsed()));
    let answers: u64 = asking.join_all().await.into_iter().sum();
    // the kernel sums per thread and may be a little behind
    let growth = process.peak_memory().saturating_sub(full);
    assert!(growth < 4 * KIB, "{growth} KiB more after {answers} requests");
    let balance = balance().await;
    assert!(balance.adds_up() && balance.exported == 0 && balance.made > 2 * answers, "{balance:?}");
}
