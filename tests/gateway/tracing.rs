//! Traces: the caller's goes on or one starts, the upstream hangs under the attempt, spans say all there is.

use http::Method;

use crate::support::body::{self};
use crate::support::client::request;
use crate::support::gateway::{all_to, route, upstream};
use crate::support::{
    Answer, Client, Collector, Gateway, Mode, Origin, Protocol, Reply, Stage, Told, within,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

async fn ask(gateway: &Gateway, fields: &[(&str, &str)]) -> Reply {
    gateway.ask(request(Method::GET, "/orders/42?token=secret", fields, body::empty())).await
}

#[tokio::test]
async fn the_upstream_hangs_under_the_attempt_and_the_attempt_under_the_request() {
    let stage = Stage::new(Answer::ok()).await;
    let reply = ask(&stage.gateway, &[("traceparent", &format!("00-{TRACE}-{CALLER}-01"))]).await;
    let told = stage.told(TRACE, 1).await;
    let (trace_id, span_id, flags) = stage.origin.only().await.traceparent();
    assert_eq!((reply.trace_id().as_str(), trace_id.as_str(), flags.as_str()), (TRACE, TRACE, "01"));
    assert_eq!(told.server.parent, CALLER);
    assert_eq!(told.attempts[0].parent, told.server.id);
    assert_eq!(span_id, told.attempts[0].id);
    let timing = format!("trace;desc=\"00-{TRACE}-{}-01\"", told.server.id);
    assert_eq!(reply.headers.all("server-timing"), [timing]);
}

#[tokio::test]
async fn a_request_without_a_trace_starts_one_with_random_ids() {
    let stage = Stage::new(Answer::ok()).await;
    let reply = ask(&stage.gateway, &[("tracestate", "left=over")]).await;
    let told = stage.told(&reply.trace_id(), 1).await;
    let seen = stage.origin.only().await;
    assert_eq!(seen.traceparent(), (reply.trace_id(), told.attempts[0].id.clone(), "03".to_owned()));
    // of the caller's there is nothing, of ours how likely it was to be sampled
    assert_eq!((told.server.parent.as_str(), seen.header("tracestate")), ("", Some("ot=th:0")));
}

#[tokio::test]
async fn what_is_malformed_is_ignored_as_a_whole_and_counted() {
    let stage = Stage::new(Answer::ok()).await;
    let valid = format!("00-{TRACE}-{CALLER}-01");
    let malformed = [
        String::new(),
        "garbage".to_owned(),
        format!("00-{}-{CALLER}-01", TRACE.to_uppercase()),
        format!("00-{}-{CALLER}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00-{TRACE}-{CALLER}"),
        format!("00-{TRACE}-{CALLER}-01-more"),
        format!("00-{TRACE}-{CALLER}-1"),
        format!("00-{TRACE}-{CALLER}-zz"),
        format!("ff-{TRACE}-{CALLER}-01"),
        format!("0-{TRACE}-{CALLER}-01"),
        format!("00{TRACE}{CALLER}01"),
        format!("{valid},{valid}x"),
    ];
    for (number, value) in malformed.iter().enumerate() {
        let reply = ask(&stage.gateway, &[("traceparent", value), ("tracestate", "a=1")]).await;
        assert_eq!(reply.status, 200, "{value}");
        assert_ne!(reply.trace_id(), TRACE, "{value}");
        let seen = &stage.origin.seen()[number];
        assert_eq!(
            (seen.traceparent().0, seen.header("tracestate")),
            (reply.trace_id(), Some("ot=th:0")),
            "{value}"
        );
        assert_eq!(stage.told(&reply.trace_id(), 1).await.server.parent, "", "{value}");
    }
    let two =
        [("traceparent", valid.as_str()), ("traceparent", &format!("00-{TRACE}-{}-01", "1".repeat(16)))];
    assert_ne!(ask(&stage.gateway, &two).await.trace_id(), TRACE, "two that contradict each other");
    let metrics = stage.gateway.metrics().await;
    let count = metrics.count("tracegate_context_total", &[("outcome", "malformed")]);
    assert!(count == malformed.len() as u64 + 1, "{count}");
}

#[tokio::test]
async fn what_a_higher_version_says_is_understood_and_answered_with_version_00() {
    for (sent, flags) in [
        (format!("01-{TRACE}-{CALLER}-01-what-comes-later"), "01"),
        (format!("cc-{TRACE}-{CALLER}-03"), "03"),
        (format!("00-{TRACE}-{CALLER}-ff"), "03"),
        (format!("00-{TRACE}-{CALLER}-03"), "03"),
    ] {
        let stage = Stage::new(Answer::ok()).await;
        ask(&stage.gateway, &[("traceparent", &sent)]).await;
        let (trace_id, _, told) = stage.origin.only().await.traceparent();
        assert_eq!((trace_id.as_str(), told.as_str()), (TRACE, flags), "{sent}");
    }
}

#[tokio::test]
async fn the_state_of_a_trace_is_one_list_of_at_most_32() {
    let stage = Stage::new(Answer::ok()).await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let members = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    for (sent, expected) in [
        (vec!["a=1,b=2".to_owned()], Some("a=1,b=2".to_owned())),
        (vec!["a=1".to_owned(), "b=2".to_owned()], Some("a=1,b=2".to_owned())),
        (vec![members(32)], Some(members(32))),
        (vec!["not a state".to_owned()], None),
    ] {
        let count = stage.origin.seen().len();
        let mut fields = vec![("traceparent", parent.as_str())];
        fields.extend(sent.iter().map(|value| ("tracestate", value.as_str())));
        ask(&stage.gateway, &fields).await;
        let seen = &stage.origin.seen()[count];
        let told = seen.headers.all("tracestate").join(" | ").replace(", ", ",");
        assert_eq!(told, expected.unwrap_or_default(), "{sent:?}");
        assert_eq!(seen.traceparent().0, TRACE, "a bad state does not end the trace");
    }
    for span in stage.collector.trace(TRACE, 8).await {
        assert_eq!(span.trace_state, "", "what others wrote is passed on, not exported");
    }
}

#[tokio::test]
async fn an_unsampled_request_carries_its_trace_all_the_same() {
    let stage = Stage::new(Answer::ok()).await;
    for (flags, expected) in [("00", "00"), ("02", "02")] {
        let count = stage.origin.seen().len();
        ask(&stage.gateway, &[("traceparent", &format!("00-{TRACE}-{CALLER}-{flags}"))]).await;
        let (trace_id, span_id, told) = stage.origin.seen()[count].traceparent();
        assert_eq!((trace_id.as_str(), told.as_str()), (TRACE, expected));
        assert_ne!(span_id, CALLER);
    }
    // what is exported after them was not preceded by their spans
    let reply = ask(&stage.gateway, &[]).await;
    stage.told(&reply.trace_id(), 1).await;
    assert_eq!(stage.collector.spans().len(), 2);
    let unsampled = [("outcome", "unsampled")];
    let metrics = stage.gateway.metrics().await;
    assert_eq!(metrics.count("tracegate_telemetry_spans_total", &unsampled), 4, "{}", metrics.text);
}

#[tokio::test]
async fn a_ratio_of_nothing_exports_nothing_and_a_callers_wish_goes_before_it() {
    let stage = Stage::and(Answer::ok(), "[telemetry.sampling]\nratio = 0.0\n").await;
    let reply = ask(&stage.gateway, &[]).await;
    assert_eq!(stage.origin.only().await.traceparent(), {
        let (_, span_id, _) = stage.origin.seen()[0].traceparent();
        (reply.trace_id(), span_id, "02".to_owned())
    });
    ask(&stage.gateway, &[("traceparent", &format!("00-{TRACE}-{CALLER}-01"))]).await;
    let told = stage.told(TRACE, 1).await;
    assert_eq!(told.server.attribute("tracegate.sampled_because"), Some("parent"));
    assert_eq!(stage.collector.spans().len(), 2);
}

#[tokio::test]
async fn both_spans_say_what_the_conventions_want() {
    let origin = Origin::start(Answer::ok()).await;
    let texts = [
        upstream("shop", origin.address),
        "[routes.read]
        match = { hosts = ['shop.test'], path = '/shop/orders/{order_id}' }
        upstream = 'shop'
        strip_prefix = '/shop'
        operation = 'order.read'
        [telemetry]
        service_name = 'edge'
        [telemetry.resource]
        'deployment.environment.name' = 'test'"
            .to_owned(),
    ];
    let stage = Stage::around(origin, &texts.each_ref().map(String::as_str)).await;
    let mut client = stage.client().await;
    client.get("/shop/orders/1").await;
    let reply = client.get("/shop/orders/42?token=secret").await;
    let Told { server, attempts, .. } = stage.told(&reply.trace_id(), 1).await;
    let attempt = &attempts[0];
    let port = stage.origin.address.port().to_string();
    let url = format!("http://127.0.0.1:{port}/orders/{{order_id}}");

    assert_eq!((server.name.as_str(), server.error), ("GET /shop/orders/{order_id}", false));
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("url.path", "/shop/orders/{order_id}"),
        ("http.route", "/shop/orders/{order_id}"),
        ("http.response.status_code", "200"),
        ("network.protocol.version", "1.1"),
        ("server.address", "shop.test"),
        ("tracegate.route", "read"),
        ("tracegate.upstream", "shop"),
        ("tracegate.operation", "order.read"),
        ("tracegate.sampled_because", "ratio"),
    ] {
        assert_eq!(server.attribute(key), Some(value), "SERVER {key}: {server:#?}");
    }
    assert_eq!((attempt.name.as_str(), attempt.error), ("GET /orders/{order_id}", false));
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.template", "/orders/{order_id}"),
        ("url.full", url.as_str()),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
        ("network.peer.address", "127.0.0.1"),
        ("network.peer.port", &port),
        ("http.response.status_code", "200"),
        ("service.peer.name", "shop-api"),
        ("peer.service", "shop-api"),
    ] {
        assert_eq!(attempt.attribute(key), Some(value), "CLIENT {key}: {attempt:#?}");
    }
    for span in [&server, attempt] {
        for key in ["error.type", "tracegate.reason", "tracegate.blame", "http.request.resend_count"] {
            assert_eq!(span.attribute(key), None, "{key}: nothing failed");
        }
        assert!(span.start < span.end && server.start <= span.start && span.end <= server.end);
        assert_eq!(span.resource["service.name"], "edge");
        assert_eq!(span.resource["deployment.environment.name"], "test");
        let all = format!("{span:?}");
        assert!(!all.contains("secret") && !all.contains("/42"), "client text: {all}");
    }
}

#[tokio::test]
async fn statuses_are_errors_by_the_conventions() {
    let stage = Stage::new(Answer::ok()).await;
    for (status, server_error, client_error, reason) in [
        (200, None, None, None),
        (304, None, None, None),
        (404, None, Some("404"), None),
        (429, None, Some("429"), None),
        (500, Some("500"), Some("500"), Some("upstream_status")),
        (503, Some("503"), Some("503"), Some("upstream_status")),
    ] {
        stage.origin.answer(Answer::status(status));
        let reply = stage.get("/").await;
        assert_eq!((reply.status, reply.reason()), (status, None), "passed on as it came");
        let Told { server, attempts, log } = stage.told(&reply.trace_id(), 1).await;
        assert_eq!(
            (server.error, server.attribute("error.type")),
            (server_error.is_some(), server_error),
            "{status}"
        );
        let attempt = &attempts[0];
        assert_eq!(
            (attempt.error, attempt.attribute("error.type")),
            (client_error.is_some(), client_error),
            "{status}"
        );
        assert_eq!(server.attribute("tracegate.reason"), reason, "{status}");
        assert_eq!(log["reason"].as_str().filter(|word| !word.is_empty()), reason, "{status}");
    }
}

#[tokio::test]
async fn a_method_that_nobody_knows_is_other() {
    let stage = Stage::new(Answer::ok()).await;
    let reply = stage.gateway.ask(request("BREW".parse().unwrap(), "/pot", &[], body::empty())).await;
    let Told { server, attempts, .. } = stage.told(&reply.trace_id(), 1).await;
    assert_eq!(
        (server.name.as_str(), server.attribute("http.request.method")),
        ("HTTP /{*path}", Some("_OTHER"))
    );
    assert_eq!(attempts[0].attribute("http.request.method"), Some("_OTHER"));
    assert_eq!(stage.origin.only().await.method, "BREW");
}

#[tokio::test]
async fn spans_end_with_the_last_byte() {
    let gate = crate::support::Gate::new();
    let stage = Stage::new(Answer::status(200).data("first").gate(&gate).data("last")).await;
    let mut client = stage.client().await;
    let answer = client.send(crate::support::client::get("/")).await.unwrap();
    // another exchange from start to end, while the first one's answer is half way
    stage.origin.answer(Answer::ok());
    let other = stage.get("/").await;
    stage.told(&other.trace_id(), 1).await;
    assert_eq!(stage.collector.spans().len(), 2, "the span of an open answer");
    gate.open();
    let reply = Reply::read(answer).await;
    assert_eq!(reply.text(), "firstlast");
    stage.told(&reply.trace_id(), 1).await;
}

#[tokio::test]
async fn both_protocols_of_otlp_bring_the_same() {
    let origin = Origin::start(Answer::ok()).await;
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let collector = Collector::start().await;
        let otlp = collector.table(protocol);
        let headers = "[telemetry.otlp.headers]\nx-tenant = { env = 'OTEL_BSP_SCHEDULE_DELAY' }\n";
        let gateway = Gateway::start(&[&all_to(origin.address), &otlp, headers]).await;
        let reply = gateway.get("/").await;
        let spans = collector.trace(&reply.trace_id(), 2).await;
        assert_eq!(spans.len(), 2);
        let batches = collector.batches();
        assert!(
            batches.iter().all(|batch| batch.protocol == protocol && batch.headers["x-tenant"] == "10"),
            "{batches:?}"
        );
    }
}

#[tokio::test]
async fn what_waits_is_exported_at_shutdown() {
    let origin = Origin::start(Answer::ok()).await;
    let collector = Collector::start().await;
    let patient = "[telemetry.otlp]\ndelay = '1h'\n";
    let gateway = Gateway::start(&[&all_to(origin.address), &collector.grpc(), patient]).await;
    for _ in 0..5 {
        gateway.get("/").await;
    }
    gateway.log(5).await;
    assert!(collector.spans().is_empty());
    gateway.stop().await;
    assert_eq!(collector.spans().len(), 10);
}

#[tokio::test]
async fn a_dead_collector_fails_no_request_and_holds_no_shutdown() {
    let origin = Origin::start(Answer::ok()).await;
    let refusing = crate::support::link::Refusing::start();
    let text = format!(
        "[telemetry.otlp]\nendpoint = 'http://{}'\nqueue = 20\nbatch = 10\n[shutdown]\nflush = '50ms'\n",
        refusing.address
    );
    let gateway = Gateway::start(&[&all_to(origin.address), &text]).await;
    let mut client = gateway.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let dropped = [("outcome", "dropped")];
    let metrics = gateway
        .metrics_when("dropped spans", |metrics| {
            metrics.count("tracegate_telemetry_spans_total", &dropped) > 0
        })
        .await;
    assert!(metrics.count("tracegate_telemetry_spans_total", &[("outcome", "exported")]) == 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_collector_that_stalls_or_is_unavailable_gets_the_spans_later_or_they_are_counted() {
    for mode in [Mode::Stall, Mode::Unavailable, Mode::Partial(1)] {
        let origin = Origin::start(Answer::ok()).await;
        let collector = Collector::start().await;
        let hasty = "[telemetry.otlp]\ntimeout = '100ms'\n";
        let gateway = Gateway::start(&[&all_to(origin.address), &collector.http(), hasty]).await;
        collector.mode(mode);
        assert_eq!(gateway.get("/").await.status, 200);
        collector.wait_for_batches(1).await;
        collector.mode(match mode {
            Mode::Partial(_) => mode,
            _ => Mode::Accept,
        });
        let all = |metrics: &crate::support::Metrics| {
            let outcome = |word| metrics.count("tracegate_telemetry_spans_total", &[("outcome", word)]);
            outcome("exported") + outcome("dropped") == 2
        };
        let metrics = gateway.metrics_when("both spans accounted for", all).await;
        let dropped = metrics.count("tracegate_telemetry_spans_total", &[("outcome", "dropped")]);
        match mode {
            Mode::Partial(_) => assert_eq!(dropped, 1, "one was rejected: {dropped}"),
            _ => assert_eq!(dropped, 0, "{mode:?} passes, the spans wait: {dropped}"),
        }
    }
}

#[tokio::test]
async fn every_request_of_a_connection_has_a_trace_of_its_own() {
    let stage = Stage::new(Answer::ok()).await;
    for http2 in [false, true] {
        let address = stage.gateway.address();
        let mut client = if http2 { Client::http2(address).await } else { Client::http1(address).await };
        let one = client.get("/").await.trace_id();
        let two = client.get("/").await.trace_id();
        assert_ne!(one, two);
        let told = stage.told(&two, 1).await;
        assert_eq!(told.server.attribute("network.protocol.version"), Some(if http2 { "2" } else { "1.1" }));
    }
}

#[tokio::test]
async fn a_trace_goes_on_through_two_gateways() {
    let origin = Origin::start(Answer::ok()).await;
    let collector = Collector::start().await;
    let inner = Gateway::start(&[&all_to(origin.address), &collector.grpc()]).await;
    let outer = Gateway::start(&[
        &upstream("inner", inner.address()),
        &route("all", "/{*path}", "inner"),
        &collector.grpc(),
    ])
    .await;
    let reply = within("an answer", outer.get("/")).await;
    let spans = collector.trace(&reply.trace_id(), 4).await;
    let roots = spans.iter().filter(|span| span.parent.is_empty()).count();
    let linked = spans.iter().filter(|span| spans.iter().any(|other| other.id == span.parent)).count();
    assert_eq!((roots, linked), (1, 3), "one nested trace: {spans:#?}");
    assert_eq!(origin.only().await.headers.all("via").join(", "), "1.1 tracegate, 1.1 tracegate");
}
