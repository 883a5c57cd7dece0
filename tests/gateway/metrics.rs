//! Metrics: names, labels and buckets of the promise, from closed sets only, and what is counted adds up.

use std::collections::BTreeSet;
use std::io::Read as _;

use flate2::read::GzDecoder;
use http::Method;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;

use crate::support::client::{get, get_admin_with, request};
use crate::support::gateway::upstream;
use crate::support::{
    Answer, Client, Collector, Gateway, Metrics, Mode, Origin, Raw, Seen, Stage, body, within,
};

const ORDERS: &str = "
[routes.order_read]
match = { methods = ['GET'], path = '/shop/orders/{order_id}' }
upstream = 'shop'
operation = 'order.read'
";

async fn stage(answer: Answer) -> Stage {
    let origin = Origin::start(answer).await;
    let upstream = upstream("shop", origin.address);
    Stage::around(origin, &[&upstream, ORDERS]).await
}

#[tokio::test]
async fn a_scraper_that_takes_gzip_gets_the_same_page_by_it() {
    let stage = stage(Answer::ok()).await;
    assert_eq!(stage.get("/shop/orders/42").await.status, 200);
    stage.gateway.log(1).await;
    let as_prometheus = [("accept-encoding", "gzip")];
    let page = get_admin_with(stage.gateway.admin_address(), "/metrics", &as_prometheus).await;
    assert_eq!(
        (page.status, page.header("content-encoding"), page.header("vary")),
        (200, Some("gzip"), Some("accept-encoding"))
    );
    let mut plain = String::new();
    GzDecoder::new(&*page.body).read_to_string(&mut plain).unwrap();
    for metrics in [Metrics::parse(plain), stage.gateway.metrics().await] {
        let route = [("http_route", "/shop/orders/{order_id}")];
        assert_eq!(metrics.count("http_server_request_duration_seconds_count", &route), 1);
    }

    let refused = [("accept-encoding", "gzip;q=0, identity")];
    let page = get_admin_with(stage.gateway.admin_address(), "/metrics", &refused).await;
    assert_eq!((page.status, page.header("content-encoding")), (200, None));
    assert!(page.text().contains("http_server_request_duration_seconds_count"));
}

#[tokio::test]
async fn names_labels_and_buckets_are_those_of_the_conventions() {
    let stage = stage(Answer::ok()).await;
    assert_eq!(stage.get("/shop/orders/42").await.status, 200);
    stage.gateway.log(1).await;
    let metrics = stage.gateway.metrics().await;
    let server = "http_server_request_duration_seconds";
    let client = "http_client_request_duration_seconds";
    let endpoint = stage.origin.address.to_string();
    let port = stage.origin.address.port().to_string();
    for (name, labels) in [
        (
            "http_server_request_duration_seconds_count",
            &[
                ("http_request_method", "GET"),
                ("http_route", "/shop/orders/{order_id}"),
                ("http_response_status_code", "200"),
                ("url_scheme", "http"),
                ("status_class", "2xx"),
                ("tracegate_operation", "order.read"),
                ("tracegate_upstream", "shop"),
            ][..],
        ),
        (
            "http_client_request_duration_seconds_count",
            &[
                ("http_request_method", "GET"),
                ("server_address", "127.0.0.1"),
                ("server_port", &port),
                ("http_response_status_code", "200"),
                ("status_class", "2xx"),
            ],
        ),
        ("http_server_request_body_size_bytes_count", &[("http_route", "/shop/orders/{order_id}")]),
        ("http_server_response_body_size_bytes_count", &[("http_route", "/shop/orders/{order_id}")]),
        ("tracegate_time_to_first_byte_seconds_count", &[("http_route", "/shop/orders/{order_id}")]),
        ("tracegate_overhead_seconds_count", &[("http_route", "/shop/orders/{order_id}")]),
        ("tracegate_requests_total", &[("tracegate_route", "order_read"), ("status_class", "2xx")]),
        ("tracegate_context_total", &[("outcome", "started")]),
        ("tracegate_endpoint_requests_total", &[("tracegate_endpoint", &endpoint)]),
    ] {
        assert_eq!(metrics.count(name, labels), 1, "{name} {labels:?}:\n{}", metrics.text);
    }
    let seconds =
        "0.001 0.0025 0.005 0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 30 60 120 300 +Inf";
    for name in [server, client] {
        let found = metrics.label_values(&format!("{name}_bucket"), "le");
        assert_eq!(found, seconds.split(' ').map(str::to_owned).collect::<BTreeSet<_>>(), "{name}");
    }
    let bytes = metrics.label_values("http_server_response_body_size_bytes_bucket", "le");
    let expected = (0..12).map(|n| (256_u64 << (2 * n)).to_string()).chain(["+Inf".to_owned()]);
    assert_eq!(bytes, expected.collect::<BTreeSet<_>>());
    for name in
        ["target_info", "process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"]
    {
        assert!(metrics.has(name), "{name}:\n{}", metrics.text);
    }
    assert!(!metrics.text.contains("quantile="), "histograms, not summaries");
}

/// The promise of labels, to the letter: no family has one more.
#[tokio::test]
async fn no_family_has_other_labels_than_those_that_are_promised() {
    let stage = stage(Answer::ok()).await;
    stage.get("/shop/orders/42").await;
    stage.origin.answer(Answer::reset());
    assert_eq!(stage.get("/shop/orders/42").await.status, 502);
    stage.gateway.log(2).await;
    let metrics = stage.gateway.metrics().await;
    let server = "http_request_method,http_response_status_code,http_route,status_class,tracegate_operation,\
                  tracegate_upstream,url_scheme";
    let client = "http_request_method,http_response_status_code,server_address,server_port,status_class,\
                  tracegate_operation,tracegate_upstream";
    // of an attempt without an answer there is no status
    let failed = "error_type,http_request_method,server_address,server_port,status_class,\
                  tracegate_operation,tracegate_upstream";
    for (name, labels) in [
        ("http_server_request_duration_seconds_count", &[server, &format!("error_type,{server}")][..]),
        ("http_client_request_duration_seconds_count", &[client, failed]),
        ("http_server_request_body_size_bytes_count", &["http_route"]),
        ("http_server_response_body_size_bytes_count", &["http_route"]),
        ("tracegate_time_to_first_byte_seconds_count", &["http_route"]),
        ("tracegate_overhead_seconds_count", &["http_route"]),
        ("http_server_active_requests", &["http_request_method,url_scheme"]),
        ("http_client_active_requests", &["http_request_method,url_scheme"]),
        ("tracegate_requests_total", &["status_class,tracegate_blame,tracegate_reason,tracegate_route"]),
        ("tracegate_endpoint_requests_total", &["tracegate_endpoint"]),
        ("tracegate_endpoint_failures_total", &["tracegate_endpoint,tracegate_reason"]),
        ("tracegate_connections_total", &["listener,outcome"]),
        ("tracegate_context_total", &["outcome"]),
        ("tracegate_telemetry_spans_total", &["outcome,reason,receiver"]),
        ("tracegate_telemetry_series", &["metric"]),
    ] {
        let labels: BTreeSet<String> = labels.iter().map(|labels| (*labels).to_owned()).collect();
        assert_eq!(metrics.label_names(name), labels, "{name}");
    }
    let histogram = |line: &&str| line.starts_with("tracegate_endpoint_") && line.contains("_bucket{");
    assert_eq!(metrics.text.lines().find(histogram), None, "endpoints come and go");
}

#[tokio::test]
async fn buckets_are_settable() {
    let stage = Stage::and(Answer::ok(), "[metrics]\nbuckets = [0.5, 2]\n").await;
    stage.get("/").await;
    let metrics = stage.gateway.metrics().await;
    let buckets = metrics.label_values("http_server_request_duration_seconds_bucket", "le");
    assert_eq!(buckets, ["0.5", "2", "+Inf"].map(str::to_owned).into());
}

/// Prometheus asks for OpenMetrics first: it gets every series of the other format, and `# EOF`.
#[tokio::test]
async fn the_page_is_openmetrics_for_those_who_ask_for_it() {
    let stage = stage(Answer::ok()).await;
    stage.get("/shop/orders/42").await;
    stage.gateway.log(1).await;
    let open = stage.gateway.open_metrics().await;
    assert!(open.text.ends_with("\n# EOF\n") && !open.text.contains("\n\n"), "{}", open.text);
    for line in [
        "# TYPE tracegate_requests counter",
        "# TYPE http_server_request_duration_seconds histogram",
        "# UNIT http_server_request_duration_seconds seconds",
        "# UNIT http_server_response_body_size_bytes bytes",
        "# TYPE target info",
        "# TYPE process_cpu_seconds counter",
        "# UNIT process_cpu_seconds seconds",
    ] {
        assert!(open.text.lines().any(|other| other == line), "{line}\n{}", open.text);
    }
    let bounds =
        |metrics: &Metrics| metrics.label_values("http_server_request_duration_seconds_bucket", "le");
    let text = stage.gateway.metrics().await;
    assert!(bounds(&open).contains("1.0") && bounds(&text).contains("1"));
    let but_bounds = |metrics: &Metrics| {
        let series = metrics.series().into_iter();
        series.filter(|series| !series.contains("\"le\"")).collect::<BTreeSet<_>>()
    };
    assert_eq!(but_bounds(&open), but_bounds(&text));
}

/// A click on an exemplar must open a trace: its ids are those of spans that a receiver has accepted.
#[tokio::test]
async fn exemplars_are_published_once_their_spans_are_accepted() {
    const SERVER: &str = "http_server_request_duration_seconds_bucket";
    const CLIENT: &str = "http_client_request_duration_seconds_bucket";
    let stage = stage(Answer::ok()).await;
    stage.collector.mode(Mode::Stall);
    let first = stage.get("/shop/orders/1").await;
    stage.collector.wait_for_spans(2).await;
    let page = stage.gateway.open_metrics().await;
    assert!(!page.text.contains("trace_id"), "the collector has not said yet: {}", page.text);

    stage.collector.mode(Mode::Accept);
    let page = stage
        .gateway
        .open_metrics_when("two exemplars", |page| {
            page.exemplars(SERVER).len() == 1 && page.exemplars(CLIENT).len() == 1
        })
        .await;
    let told = stage.told(&first.trace_id(), 1).await;
    for (name, span) in [(SERVER, &told.server), (CLIENT, &told.attempts[0])] {
        let exemplar = page.exemplars(name).remove(0);
        assert_eq!((&exemplar["trace_id"], &exemplar["span_id"]), (&span.trace_id, &span.id));
    }
    assert!(!stage.gateway.metrics().await.text.contains("trace_id"), "the text format has no exemplars");
}

#[tokio::test]
async fn what_is_not_exported_is_no_exemplar() {
    let (origin, collector) = (Origin::start(Answer::ok()).await, Collector::start().await);
    let upstream = upstream("shop", origin.address);
    let ratio = "[telemetry.sampling]\nratio = 0.0\n";
    let gateway = Gateway::start(&[&upstream, ORDERS, ratio, &collector.http()]).await;
    gateway.get("/shop/orders/1").await;
    // the batch is refused in part, and nobody knows which part
    collector.mode(Mode::Partial(1));
    let sampled = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
    gateway.ask(request(Method::GET, "/shop/orders/2", &sampled, body::empty())).await;
    let accounted = |metrics: &Metrics| {
        let spans = |outcome| metrics.count("tracegate_telemetry_spans_total", &[("outcome", outcome)]);
        (spans("unsampled"), spans("exported"), spans("dropped")) == (2, 1, 1)
    };
    gateway.metrics_when("both requests are accounted for", accounted).await;
    let page = gateway.open_metrics().await;
    assert!(!page.text.contains("trace_id"), "{}", page.text);
}

/// What is pushed is what is scraped, under OpenTelemetry's names, with the last of it at the end.
#[tokio::test]
async fn metrics_are_pushed_by_otlp_beside_the_scrape() {
    for (interval, grpc) in [("10ms", true), ("10ms", false), ("1h", true)] {
        let (origin, collector) = (Origin::start(Answer::ok()).await, Collector::start().await);
        let otlp = if grpc { collector.grpc() } else { collector.http() };
        let push = format!("{otlp}metrics = '{interval}'\n");
        let gateway = Gateway::start(&[&upstream("shop", origin.address), ORDERS, &push]).await;
        let trace_id = gateway.get("/shop/orders/1").await.trace_id();
        // with an hour between two pushes there is one: at the end
        let running = if interval == "1h" {
            gateway.stop().await;
            None
        } else {
            Some(gateway)
        };
        let exemplar_of = |metrics: &[Metric]| {
            let metric = metrics.iter().find(|metric| metric.name == "http.server.request.duration")?;
            let Some(Data::Histogram(histogram)) = &metric.data else { panic!("{metric:?}") };
            let point = &histogram.data_points[0];
            assert_eq!((point.count, point.bucket_counts.iter().sum(), &*metric.unit), (1, 1, "s"));
            let exemplar = point.exemplars.first()?;
            Some(exemplar.trace_id.clone())
        };
        let pushed = collector.metrics_when("an exemplar", |metrics| exemplar_of(metrics).is_some()).await;
        let expected = u128::from_str_radix(&trace_id, 16).unwrap().to_be_bytes();
        assert_eq!(exemplar_of(&pushed), Some(expected.to_vec()));
        assert!(pushed.iter().any(|metric| metric.name == "tracegate.requests"));
        drop(running);
    }
}

/// Whatever the labels, a metric is no larger than its budget, and every request is still counted.
#[tokio::test]
async fn a_metric_that_is_full_counts_what_comes_as_other() {
    let stage = Stage::and(Answer::ok(), "[metrics]\nmax_series = 2\n").await;
    let methods = [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH];
    for method in &methods {
        stage.gateway.ask(request(method.clone(), "/", &[], body::empty())).await;
    }
    stage.gateway.log(methods.len()).await;
    let metrics = stage.gateway.metrics().await;
    let count = "http_server_request_duration_seconds_count";
    assert_eq!(metrics.count(count, &[]), 5);
    let other = [("http_request_method", "_other"), ("http_route", "_other"), ("status_class", "_other")];
    assert_eq!(metrics.count(count, &other), 3);
    for (metric, series) in [("http_server_request_duration_seconds", 3), ("tracegate_requests_total", 1)] {
        assert_eq!(metrics.count("tracegate_telemetry_series", &[("metric", metric)]), series, "{metric}");
    }
}

/// A request like no other: to the route, by a method that it does not have, to no route.
fn odd_request(number: u32) -> String {
    let line = match number % 3 {
        0 => format!("GET /shop/orders/{number}?q={number}"),
        1 => format!("M{number} /shop/orders/{number}"),
        _ => format!("GET /elsewhere/{number}"),
    };
    format!("{line} HTTP/1.1\r\nhost: h{number}.test\r\nuser-agent: agent-{number}\r\n\r\n")
}

/// What a client writes is in no label, however much it tries.
#[tokio::test]
async fn ten_thousand_paths_hosts_and_methods_add_no_series() {
    let origin = Origin::start(Answer::ok()).await;
    let gateway = Gateway::start(&[&upstream("shop", origin.address), ORDERS]).await;
    let mut raw = Raw::connect(gateway.address()).await;
    let mut ask = async |from: u32, to: u32| {
        for pipelined in (from..to).step_by(100) {
            let numbers = pipelined..pipelined + 100;
            raw.send(numbers.clone().map(odd_request).collect::<String>()).await;
            for number in numbers {
                let expected = [200, 405, 404][number as usize % 3];
                assert_eq!(raw.reply().await.status, expected);
            }
        }
    };
    ask(0, 100).await;
    gateway.log(100).await;
    let series = |metrics: &Metrics| {
        let all = metrics.series().into_iter();
        all.filter(|series| !series.contains("process_")).collect::<BTreeSet<_>>()
    };
    let before = series(&gateway.metrics().await);
    ask(100, 10_000).await;
    gateway.log(10_000).await;
    let metrics = gateway.metrics().await;
    let after = series(&metrics);
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(metrics.count("tracegate_requests_total", &[]), 10_000);
    assert_eq!(metrics.count("http_server_request_duration_seconds_count", &[]), 10_000);
}

#[tokio::test]
async fn requests_spans_and_log_lines_add_up_whatever_became_of_them() {
    let answer = |seen: &Seen| match seen.target.as_str() {
        "/reset" => Answer::reset(),
        "/truncated" => Answer::ok().announced(100).then_close(),
        "/stall" => Answer::stall(),
        "/error" => Answer::status(500),
        _ => Answer::ok(),
    };
    let stage = Stage::and(answer, "[routes.all.timeouts]\nrequest = '50ms'\n").await;
    let paths = ["/", "/reset", "/truncated", "/stall", "/error", "/%00", "/", "/gone"];
    let mut clients = tokio::task::JoinSet::new();
    for (number, path) in paths.into_iter().cycle().take(80).enumerate() {
        let address = stage.gateway.address();
        clients.spawn(async move {
            let mut client =
                if number % 2 == 0 { Client::http1(address).await } else { Client::http2(address).await };
            let answer = client.send(get(path)).await;
            // every eighth leaves with the answer's head
            if let (Ok(answer), true) = (answer, path != "/gone") {
                crate::support::Reply::read(answer).await;
            }
        });
    }
    within("all clients", clients.join_all()).await;
    let log = stage.gateway.log(80).await;
    assert_eq!(log.len(), 80);
    // what was reset on a kept connection was tried once more
    let attempts: Vec<u64> = log.iter().map(|line| line["attempts"].as_u64().unwrap()).collect();
    assert_eq!(attempts.iter().filter(|attempts| **attempts > 0).count(), 70, "all but the refused paths");
    let attempts: u64 = attempts.iter().sum();
    let spans = usize::try_from(80 + attempts).unwrap();
    assert_eq!(stage.collector.wait_for_spans(spans).await.len(), spans);
    let metrics = stage
        .gateway
        .metrics_when("every span is accounted for", |metrics| {
            metrics.count("tracegate_telemetry_spans_total", &[("outcome", "exported")]) == spans as u64
        })
        .await;
    for name in ["tracegate_requests_total", "http_server_request_duration_seconds_count"] {
        assert_eq!(metrics.count(name, &[]), 80, "{name}");
    }
    assert_eq!(metrics.count("tracegate_access_records_total", &[("outcome", "written")]), 80);
    assert_eq!(metrics.count("tracegate_access_records_total", &[]), 80, "none was dropped");
    assert_eq!(metrics.count("http_client_request_duration_seconds_count", &[]), attempts);
    for name in
        ["http_server_active_requests", "http_client_active_requests", "tracegate_endpoint_active_requests"]
    {
        assert_eq!(metrics.count(name, &[]), 0, "{name}");
    }
}

#[tokio::test]
async fn admin_pages_are_apart_from_the_traffic() {
    let stage = Stage::new(Answer::ok()).await;
    for (path, status) in
        [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/status", 200), ("/no", 404)]
    {
        assert_eq!(stage.gateway.admin(path).await.status, status, "{path}");
    }
    assert_eq!(stage.gateway.admin("/healthz").await.text().trim(), "ok");
    stage.get("/").await;
    let metrics = stage.gateway.metrics().await;
    assert_eq!(metrics.count("tracegate_requests_total", &[]), 1, "scrapes are no requests");
    let foreign = request(Method::GET, "/metrics", &[("host", "evil.example")], body::empty());
    let reply = Client::http1(stage.gateway.admin_address()).await.ask(foreign).await;
    assert!(reply.status >= 400, "a page for another host is not for us: {}", reply.status);
}
