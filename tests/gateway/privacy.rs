//! Nothing of the client reaches any signal unless it is listed: canaries in every place, looked for everywhere.

use crate::support::gateway::upstream;
use crate::support::{Answer, Collector, Gateway, Logstash, Origin, Raw, Stage};

/// What must not be found, each in a place of its own.
const CANARIES: [&str; 14] = [
    "canary-path",
    "canary-key",
    "canary-value",
    "canary-field",
    "canary-header",
    "canary-cookie",
    "canary-host",
    "canary-user",
    "canary-agent",
    "canary-state",
    "canary-baggage",
    "canary-body",
    "canary-answer",
    "canary-id",
];

/// A request with all of them, to a path of the route or to none.
fn request(prefix: &str) -> String {
    format!(
        "POST {prefix}/canary-path?canary-key=canary-value&page=canary-value HTTP/1.1\r\n\
         host: canary-host.test\r\ncanary-field: canary-header\r\nx-tenant: acme\r\ncookie: a=canary-cookie\r\n\
         authorization: Basic canary-user\r\nuser-agent: canary-agent\r\nx-request-id: canary-id\r\n\
         traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
         tracestate: a=canary-state\r\nbaggage: b=canary-baggage\r\ncontent-length: 11\r\n\r\ncanary-body"
    )
}

/// What each signal says after requests with canaries that fail in several ways.
async fn signals(listed: &str) -> Vec<(&'static str, String)> {
    let origin = Origin::start(Answer::ok()).await;
    let (collector, logstash) = (Collector::start().await, Logstash::start());
    let route = "[routes.known]
        match = { path = '/known/{name}' }
        upstream = 'shop'
        attributes = { 'order.id' = { response_json = '/id' } }";
    let shop = upstream("shop", origin.address);
    let gateway = Gateway::start(&[&shop, route, &collector.grpc(), &logstash.settings(), listed]).await;
    let said = "canary-answer: \u{1}canary-answer";
    for answer in [
        Answer::status(500)
            .header("canary-answer", "canary-answer")
            .header("content-type", "application/json")
            .data(r#"{"id":"canary answer: canary-answer"}"#),
        Answer::raw(format!("HTTP/1.1 200 OK\r\n{said}\r\n\r\n")),
        Answer::status(200)
            .header("grpc-message", "canary-answer")
            .header("grpc-status", "13")
            .announced(9)
            .then_close(),
    ] {
        origin.answer(answer);
        let mut raw = Raw::sending(gateway.address(), request("/known")).await;
        raw.try_reply().await;
    }
    Raw::sending(gateway.address(), request("/unknown")).await.reply().await;
    let userinfo = "GET http://canary-user:canary-value@canary-host.test/known/a HTTP/1.1\r\nhost: a\r\n\r\n";
    Raw::sending(gateway.address(), userinfo).await.reply().await;
    Raw::sending(gateway.address(), "canary-path \u{1} canary-header\r\n\r\n").await.rest().await;

    let spans = collector.wait_for_spans(9).await;
    let log = gateway.log(6).await;
    let page = gateway.metrics().await.text;
    let status = gateway.admin("/status").await.text();
    let records = logstash.events(6).await;
    vec![
        ("spans", format!("{spans:?}")),
        ("access log", serde_json::to_string(&log).unwrap()),
        ("error records", serde_json::to_string(&records).unwrap()),
        ("metrics", page),
        ("status", status),
    ]
}

#[tokio::test]
async fn no_signal_has_anything_that_is_not_listed() {
    for (signal, text) in signals("").await {
        for canary in CANARIES.into_iter().chain(["acme", "page"]) {
            assert!(!text.contains(canary), "{canary} in the {signal}: {text}");
        }
    }
}

#[tokio::test]
async fn what_is_listed_stands_on_spans_and_records_and_not_on_metrics() {
    let listed = "[telemetry.privacy]\nquery_keys = ['page', 'sort']\nheaders = ['X-Tenant']\n";
    for (signal, text) in signals(listed).await {
        for canary in CANARIES {
            assert!(!text.contains(canary), "{canary} in the {signal}: {text}");
        }
        let parts = match signal {
            "spans" => &[r#""url.query": "page""#, r#""http.request.header.x-tenant": "acme""#][..],
            "access log" => &[r#""query":"page""#, r#""headers":{"x-tenant":"acme"}"#],
            "error records" => &[r#""query":"page""#, r#""header_x_tenant":"acme""#],
            _ => {
                assert!(!text.contains("acme") && !text.contains("\"page\""), "{signal}: {text}");
                &[]
            }
        };
        for part in parts {
            assert!(text.contains(part), "{part} in the {signal}: {text}");
        }
    }
}

#[tokio::test]
async fn a_clients_address_leaves_as_far_as_it_is_allowed() {
    for (allowed, expected) in [("off", None), ("truncated", Some("127.0.0.0")), ("full", Some("127.0.0.1"))]
    {
        let text = format!("[telemetry.privacy]\nclient_address = '{allowed}'\n");
        let stage = Stage::and(Answer::status(500), &text).await;
        let reply = stage.get("/").await;
        let told = stage.told(&reply.trace_id(), 1).await;
        let record = stage.logstash.of(&reply.trace_id()).await;
        assert_eq!(told.server.attribute("client.address"), expected);
        assert_eq!(told.log["client"].as_str(), expected);
        assert_eq!(record["client"]["address"].as_str(), expected);
    }
}

#[tokio::test]
async fn credentials_and_addresses_cannot_be_listed() {
    let nobody = crate::support::link::Refusing::start();
    for (listed, what) in [
        ("headers = ['Authorization']", "holds credentials"),
        ("headers = ['x-forwarded-for']", "client_address"),
        ("headers = ['tracestate']", "belongs to others"),
        ("headers = ['user-agent']", "one person's device"),
        ("headers = ['two words']", "is not the name of a header field"),
        ("query_keys = ['page=1']", "is not a key"),
    ] {
        let text = format!("[telemetry.privacy]\n{listed}\n");
        let refusal = Gateway::refusal(&[&crate::support::gateway::all_to(nobody.address), &text]).await;
        assert!(refusal.contains(what), "{listed}: {refusal}");
    }
}
