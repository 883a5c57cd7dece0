//! Error records: what fails is told to Logstash, whole, accounted for, and at nobody's cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::Method;
use serde_json::{Value, json};
use tracegate::telemetry::balance::ErrorSums;

use crate::support::client::request;
use crate::support::gateway::{all_to, route, upstream};
use crate::support::link::Refusing;
use crate::support::{Answer, Authority, Client, Gateway, Logstash, Origin, Raw, Reply, body, within};

/// A gateway before nobody, every request to which fails, and which tells this receiver.
async fn failing(logstash: &Logstash, more: &str) -> (Refusing, Gateway) {
    let nobody = Refusing::start();
    let settings = logstash.settings() + more;
    let gateway = Gateway::start(&[&all_to(nobody.address), &settings]).await;
    (nobody, gateway)
}

/// So many requests that fail.
async fn fail(gateway: &Gateway, count: usize) {
    let mut client = gateway.client().await;
    for _ in 0..count {
        assert_eq!(client.get("/").await.status, 502);
    }
}

/// The balance of error records.
async fn balance(gateway: &Gateway) -> ErrorSums {
    let status = gateway.admin("/status").await.json();
    let records = &status["telemetry"]["error_records"];
    let number = |value: &Value| value.as_u64().expect("a number");
    ErrorSums {
        written: number(&records["written"]),
        dropped: ["queue_full", "shutdown"]
            .map(|reason| (reason, number(&records["dropped"][reason])))
            .into(),
        queued: number(&records["queued"]),
        resent: number(&records["resent"]),
    }
}

/// The balance, once it is of so many failed exchanges: the last one may end after its answer has been read.
async fn balanced(gateway: &Gateway, failed: usize) -> ErrorSums {
    balance_when(gateway, &format!("a balance of {failed} records"), |balance| sum(balance) == failed).await
}

/// The balance, once none of so many failed exchanges waits any more.
async fn settled(gateway: &Gateway, failed: usize) -> ErrorSums {
    let what = format!("{failed} records written or dropped");
    balance_when(gateway, &what, |balance| sum(balance) == failed && balance.queued == 0).await
}

async fn balance_when(gateway: &Gateway, what: &str, satisfied: impl Fn(&ErrorSums) -> bool) -> ErrorSums {
    let satisfied = async {
        loop {
            let balance = balance(gateway).await;
            if satisfied(&balance) {
                return balance;
            }
        }
    };
    within(what, satisfied).await
}

/// Comes back when the queue has been full once more.
async fn overflow(gateway: &Gateway) {
    let before = balance(gateway).await.all_dropped();
    balance_when(gateway, "a full queue", |balance| balance.all_dropped() > before).await;
}

fn sum(balance: &ErrorSums) -> usize {
    usize::try_from(balance.written + balance.queued + balance.all_dropped()).unwrap()
}

#[tokio::test]
async fn every_field_of_a_record_says_what_the_span_says() {
    let origin = Origin::start(Answer::reset()).await;
    let logstash = Logstash::start();
    let gateway = Gateway::start(&[
        &upstream("shop", origin.address),
        "[routes.order_pay]
        match = { methods = ['POST'], path = '/shop/orders/{order_id}/payment' }
        upstream = 'shop'
        strip_prefix = '/shop'
        operation = 'order.pay'
        attributes = { 'order.id' = { path = 'order_id' } }
        [telemetry]
        service_name = 'edge'
        [telemetry.resource]
        'deployment.environment.name' = 'test'
        'service.instance.id' = 'node-1'",
        &logstash.settings(),
    ])
    .await;
    let path = "/shop/orders/o-1001/payment?card=4111";
    let reply = gateway.ask(request(Method::POST, path, &[], body::full("pay!"))).await;
    assert_eq!(reply.status, 502);
    let line = logstash.of(&reply.trace_id()).await;
    let logged = gateway.logged(&reply.trace_id()).await;

    let span = logged["span_id"].as_str().unwrap();
    let event = &line["event"];
    let time = |value: &Value| humantime::parse_rfc3339(value.as_str().unwrap()).unwrap();
    let took = time(&event["end"]).duration_since(time(&event["start"])).unwrap();
    let expected = json!({
        "@timestamp": event["start"],
        "ecs": { "version": "8.17.0" },
        "message": "POST /shop/orders/{order_id}/payment: 502 upstream_reset",
        "log": { "level": "error" },
        "event": {
            "id": format!("{}-{span}", reply.trace_id()),
            "kind": "event", "category": ["web"], "type": ["access", "error"], "dataset": "tracegate.error",
            "reason": "upstream_reset", "outcome": "failure",
            "duration": u64::try_from(took.as_nanos()).unwrap(), "start": event["start"], "end": event["end"],
        },
        "trace": { "id": reply.trace_id() },
        "span": { "id": span },
        "transaction": { "id": span },
        "http": {
            "version": "1.1",
            "request": { "method": "POST", "body": { "bytes": 4 } },
            "response": { "status_code": 502, "body": { "bytes": reply.body.len() } },
        },
        "url": { "path": "/shop/orders/{order_id}/payment" },
        "error": { "type": "upstream_reset", "message": "The endpoint broke the connection before its answer." },
        "service": {
            "name": "edge", "version": env!("CARGO_PKG_VERSION"), "environment": "test",
            "node": { "name": "node-1" }, "target": { "name": "shop" },
        },
        "destination": { "address": "127.0.0.1", "port": origin.address.port() },
        "labels": {
            "route": "order_pay", "operation": "order.pay", "order_id": "o-1001", "attempt": "1",
            "blame": "upstream",
        },
    });
    assert_eq!(line, expected);
    let micros = logged["time"].as_str().unwrap().trim_end_matches('Z');
    assert!(event["start"].as_str().unwrap().starts_with(micros), "{logged}: one clock reading");
}

#[tokio::test]
async fn what_fails_is_recorded_and_what_the_upstream_refuses_only_on_request() {
    for client_errors in [false, true] {
        let origin = Origin::start(Answer::ok()).await;
        let logstash = Logstash::start();
        let told = format!("{}client_errors = {client_errors}\n", logstash.settings());
        let shop = upstream("shop", origin.address) + &route("all", "/shop/{*rest}", "shop");
        let gateway = Gateway::start(&[&shop, &told]).await;
        let mut expected = Vec::new();
        for (status, recorded) in [(200, false), (304, false), (404, client_errors), (500, true)] {
            origin.answer(Answer::status(status));
            let reply = gateway.get("/shop/").await;
            if recorded {
                let kind = status.to_string();
                expected.push((reply.trace_id(), "upstream_status", kind));
            }
        }
        let refused = gateway.get("/elsewhere").await;
        expected.push((refused.trace_id(), "no_route", "no_route".to_owned()));
        origin.answer(Answer::ok().announced(100).then_close());
        let broken = gateway.get("/shop/").await;
        assert!(broken.broken);
        expected.push((broken.trace_id(), "upstream_truncated", "upstream_truncated".to_owned()));
        origin.answer(Answer::stall());
        let raw = Raw::sending(gateway.address(), "GET /shop/ HTTP/1.1\r\nhost: a\r\n\r\n").await;
        origin.seen_when("the last request", |seen| seen.len() == 6).await;
        raw.reset();
        let gone = gateway.access_log().line("the client's leaving", |line| line["status"] == 499).await;
        let gone = gone["trace_id"].as_str().unwrap().to_owned();
        expected.push((gone, "client_gone", "client_gone".to_owned()));

        gateway.stop().await;
        let lines = logstash.seen_when("the end", |seen| seen.ended == 1).await.lines;
        let told: Vec<_> = lines
            .iter()
            .map(|line| {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                (text(&line["trace"]["id"]), text(&line["event"]["reason"]), text(&line["error"]["type"]))
            })
            .collect();
        let expected: Vec<_> =
            expected.into_iter().map(|(trace, reason, kind)| (trace, reason.to_owned(), kind)).collect();
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn tls_is_spoken_to_whom_the_operator_trusts_and_to_nobody_else() {
    let (ours, other) = (Authority::new(), Authority::new());
    let logstash = Logstash::start_tls(&ours.identity(&["logstash.test"]));
    for (authority, trusted) in [(&ours, true), (&other, false)] {
        let directory = tempfile::tempdir().unwrap();
        authority.write(directory.path());
        let tls =
            "tls = { ca_file = 'ca.pem', server_name = 'logstash.test' }\n[shutdown]\nflush = '300ms'\n";
        let nobody = Refusing::start();
        let texts = [&all_to(nobody.address), &format!("{}{tls}", logstash.settings())];
        let gateway = Gateway::start_in(directory.path(), &texts.map(String::as_str)).await;
        let before = logstash.seen().lines.len();
        fail(&gateway, 3).await;
        if trusted {
            assert_eq!(settled(&gateway, 3).await.written, 3);
            logstash.events(before + 3).await;
        } else {
            assert_eq!(balanced(&gateway, 3).await.queued, 3);
        }
        gateway.stop().await;
        // by TLS's own end, without which the last lines might be cut off by anybody
        logstash.seen_when("the end", |seen| seen.ended == 1).await;
    }
    assert_eq!(logstash.seen().lines.len(), 3);
}

#[tokio::test]
async fn what_waits_at_shutdown_is_written_and_the_connection_ends_in_order() {
    let logstash = Logstash::start();
    let (_nobody, gateway) = failing(&logstash, "").await;
    fail(&gateway, 100).await;
    gateway.stop().await;
    let seen = logstash.seen_when("the end", |seen| seen.ended == 1).await;
    assert_eq!((seen.lines.len(), seen.ids().len(), seen.torn), (100, 100, 0));
}

#[tokio::test]
async fn a_receiver_that_is_killed_gets_everything_when_it_is_back() {
    let mut logstash = Logstash::start();
    let (_nobody, gateway) = failing(&logstash, "").await;
    fail(&gateway, 20).await;
    logstash.events(20).await;
    logstash.kill().await;
    fail(&gateway, 20).await;
    assert_eq!(balanced(&gateway, 40).await.all_dropped(), 0);
    logstash.revive();
    let lines = logstash.events(40).await;
    let balance = settled(&gateway, 40).await;
    assert_eq!((balance.written, balance.all_dropped()), (40, 0), "{balance:?}");
    // what had been read before the kill may have been lost with whoever read it
    assert!(balance.resent >= 20, "{balance:?}");
    let again: Vec<_> = lines.iter().map(|line| line["event"]["id"].as_str().unwrap()).collect();
    assert!(again.len() >= 60 && again[..20] == again[20..40], "the same ones again, first: {again:?}");
    // nothing of it goes on for ever
    fail(&gateway, 1).await;
    logstash.events(41).await;
    assert_eq!(settled(&gateway, 41).await.resent, balance.resent);
}

#[tokio::test]
async fn what_a_receiver_had_not_read_when_it_was_killed_comes_again() {
    let mut logstash = Logstash::start();
    let (_nobody, gateway) = failing(&logstash, "").await;
    logstash.stall();
    fail(&gateway, 30).await;
    assert_eq!(settled(&gateway, 30).await.written, 30, "the system has taken them");
    assert_eq!(logstash.seen().lines.len(), 0);
    logstash.kill().await;
    logstash.revive();
    assert_eq!(logstash.events(30).await.len(), 30);
    let balance = balance_when(&gateway, "30 records written again", |balance| balance.resent == 30).await;
    assert_eq!((balance.written, sum(&balance)), (30, 30));
}

#[tokio::test]
async fn a_receiver_that_stalls_slows_nobody_down_and_what_waits_is_bounded() {
    let logstash = Logstash::start();
    let (_nobody, gateway) = failing(&logstash, "queue = 50\ntimeout = '1h'\n").await;
    logstash.stall();
    let begun = Instant::now();
    let mut failed = 0;
    // as many as the systems' buffers hold at both ends, and then some
    while balance(&gateway).await.all_dropped() == 0 {
        fail(&gateway, 500).await;
        failed += 500;
    }
    let stalled = balanced(&gateway, failed).await;
    assert!(stalled.queued <= 50 + 32, "the queue and one batch: {stalled:?}");
    assert!(begun.elapsed() < crate::support::DEADLINE);
    logstash.read();
    let balance = settled(&gateway, failed).await;
    assert_eq!(balance.resent, 0, "{balance:?}");
    logstash.events(usize::try_from(balance.written).unwrap()).await;
}

#[tokio::test]
async fn a_receiver_that_is_dead_costs_no_request_and_what_waits_is_bounded() {
    let nobody = Refusing::start();
    let dead = format!("[telemetry.logstash]\naddress = 'tcp://{}'\nqueue = 10\n", nobody.address);
    let quick = "[shutdown]\nflush = '50ms'\n";
    let gateway = Gateway::start(&[&all_to(nobody.address), &dead, quick]).await;
    fail(&gateway, 1000).await;
    let balance = balanced(&gateway, 1000).await;
    assert!(balance.written == 0 && balance.queued <= 10 + 32, "{balance:?}");
    let dropped = [("outcome", "dropped"), ("reason", "queue_full")];
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("tracegate_error_records_total", &dropped), balance.all_dropped());
    within("the gateway's end", gateway.stop()).await;
}

#[tokio::test]
async fn the_balance_holds_while_the_receiver_is_killed_stalled_and_revived_under_load() {
    let mut logstash = Logstash::start();
    let (_nobody, gateway) = failing(&logstash, "queue = 200\n").await;
    let gateway = Arc::new(gateway);
    let over = Arc::new(AtomicBool::new(false));
    let load = |_| {
        let (address, over) = (gateway.address(), Arc::clone(&over));
        tokio::spawn(async move {
            let (mut client, mut failed) = (Client::http1(address).await, 0);
            while !over.load(Ordering::Relaxed) {
                let reply: Reply = client.get("/").await;
                assert_eq!(reply.status, 502);
                failed += 1;
            }
            failed
        })
    };
    let clients: Vec<_> = (0..4).map(load).collect();
    for round in 0..3 {
        let seen = logstash.seen().ids().len();
        logstash.events(seen + 50).await;
        if round == 1 {
            logstash.stall();
            overflow(&gateway).await;
        }
        logstash.kill().await;
        overflow(&gateway).await;
        logstash.revive();
    }
    over.store(true, Ordering::Relaxed);
    let mut failed = 0;
    for client in clients {
        failed += within("a client's end", client).await.unwrap();
    }
    let balance = settled(&gateway, failed).await;
    let count = |number: usize| u64::try_from(number).unwrap();
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("tracegate_error_records_total", &[]), count(failed));
    assert_eq!(metrics.count("tracegate_error_records_resent_total", &[]), balance.resent);
    let gateway = Arc::into_inner(gateway).expect("the clients have ended");
    gateway.stop().await;
    let seen = logstash.seen_when("the end", |seen| seen.ended >= 1).await;
    // what a stalled receiver had taken into its own buffers went with it
    let distinct = count(seen.ids().len());
    assert!((150..=balance.written).contains(&distinct), "{distinct} of {balance:?}");
}
