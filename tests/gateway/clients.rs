//! Clients that leave, dawdle or do nothing: bounded, on record, and gone without a trace in memory.

use std::time::{Duration, Instant};

use http::Method;

use crate::support::client::{get, request};
use crate::support::{Answer, Client, Metrics, Raw, Seen, Stage, body, within};

const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n";

fn quiet(metrics: &Metrics) -> bool {
    let active = ["http_server_active_requests", "http_client_active_requests"];
    active.iter().all(|name| metrics.count(name, &[]) == 0)
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_is_on_record_and_so_is_the_attempt() {
    for reset in [true, false] {
        let stage = Stage::new(Answer::stall()).await;
        let raw = Raw::sending(stage.gateway.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        stage.origin.seen_when("the request", |seen| !seen.is_empty()).await;
        if reset {
            raw.reset();
        } else {
            drop(raw);
        }
        let told = stage.told_first(1).await;
        assert_eq!(
            (told.log["reason"].as_str(), told.log["status"].as_u64()),
            (Some("client_gone"), Some(499))
        );
        assert_eq!(told.server.attribute("http.response.status_code"), None);
        for span in [&told.server, &told.attempts[0]] {
            assert_eq!((span.error, span.attribute("error.type")), (true, Some("client_gone")));
        }
        stage.origin.seen_when("the gateway left too", |seen| seen[0].left).await;
        stage.gateway.metrics_when("nothing is active", quiet).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_body_is_on_record_with_what_it_got() {
    for http2 in [false, true] {
        let stage = Stage::new(Answer::ok().chunked().then_stall()).await;
        let address = stage.gateway.address();
        let mut client = if http2 { Client::http2(address).await } else { Client::http1(address).await };
        let mut answer = client.send(get("/")).await.unwrap();
        within("a piece", http_body_util::BodyExt::frame(answer.body_mut())).await.unwrap().unwrap();
        drop((answer, client));
        let told = stage.told_first(1).await;
        assert_eq!(
            (told.log["reason"].as_str(), &told.log["response_bytes"]),
            (Some("client_gone"), &5.into())
        );
        assert_eq!(told.server.attribute("http.response.status_code"), Some("200"));
        assert!(told.server.error, "a broken exchange");
        stage.origin.seen_when("the gateway left too", |seen| seen[0].left).await;
        stage.gateway.metrics_when("nothing is active", quiet).await;
    }
}

#[tokio::test]
async fn an_http2_stream_that_its_client_cancels_ends_alone() {
    let stage = Stage::new(Answer::stall()).await;
    let mut client = Client::http2(stage.gateway.address()).await;
    let mut other = client.another();
    let cancelled = tokio::spawn(async move { other.send(get("/")).await.is_ok() });
    stage.origin.seen_when("the request", |seen| !seen.is_empty()).await;
    cancelled.abort();
    assert_eq!(stage.told_first(1).await.log["reason"], "client_gone");
    stage.origin.answer(Answer::ok());
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_within_its_own_body_is_on_record() {
    for reset in [true, false] {
        let stage = Stage::new(Answer::ok()).await;
        let raw = Raw::sending(stage.gateway.address(), format!("{POST}ab")).await;
        let half = |seen: &[Seen]| seen.first().is_some_and(|seen| seen.body_bytes == 2);
        stage.origin.seen_when("half a body", half).await;
        if reset {
            raw.reset();
        } else {
            drop(raw);
        }
        let told = stage.told_first(1).await;
        assert_eq!(
            (told.log["reason"].as_str(), &told.log["request_bytes"]),
            (Some("client_gone"), &2.into())
        );
        assert_eq!(told.log["status"], 499, "nobody was there to be answered");
        assert_eq!(told.server.attribute("http.response.status_code"), None);
        stage.origin.seen_when("the gateway left too", |seen| seen[0].left).await;
    }
}

#[tokio::test]
async fn a_body_with_broken_framing_is_the_clients_mistake() {
    let stage = Stage::new(Answer::ok()).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\nnot a size\r\n";
    let reply = Raw::sending(stage.gateway.address(), head).await.reply().await;
    assert_eq!((reply.status, reply.reason().as_deref()), (400, Some("bad_request")));
    let told = stage.told(&reply.trace_id(), 1).await;
    assert_eq!(told.log["detail"], "broken_body");
    assert!(!stage.origin.seen()[0].complete, "half a body is never passed on as a whole one");
}

#[tokio::test]
async fn a_head_that_is_almost_http2_is_answered_and_on_record() {
    let stage = Stage::new(Answer::ok()).await;
    let head = "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n";
    let reply = Raw::sending(stage.gateway.address(), head).await.reply().await;
    assert_eq!((reply.status, reply.reason().as_deref()), (400, Some("bad_request")));
    stage.told(&reply.trace_id(), 0).await;
}

#[tokio::test]
async fn a_slow_head_is_answered_and_its_connection_closed() {
    let stage = Stage::and(Answer::ok(), "[listeners.public.timeouts]\nhead = '50ms'\n").await;
    let mut raw = Raw::sending(stage.gateway.address(), "GET / HTTP/1.1\r\nhost:").await;
    let reply = raw.reply().await;
    assert_eq!((reply.status, reply.reason().as_deref()), (408, Some("client_timeout")));
    assert!(raw.rest().await.is_empty(), "closed");
    let told = stage.told(&reply.trace_id(), 0).await;
    assert_eq!(told.log["detail"], "slow_head");
    // the time for a head counts from its first byte, on a connection that was in use too
    let mut raw = Raw::sending(stage.gateway.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(raw.reply().await.status, 200);
    raw.send("GET /").await;
    assert_eq!(raw.reply().await.status, 408);
}

#[tokio::test]
async fn a_slow_body_is_answered_and_the_upstream_left_alone() {
    let stage = Stage::and(Answer::ok(), "[listeners.public.timeouts]\nbody = '50ms'\n").await;
    let mut raw = Raw::sending(stage.gateway.address(), format!("{POST}ab")).await;
    let reply = raw.reply().await;
    assert_eq!((reply.status, reply.reason().as_deref()), (408, Some("client_timeout")));
    stage.origin.seen_when("the upload is broken off", |seen| seen[0].left).await;
    let mut client = Client::http2(stage.gateway.address()).await;
    let (feeder, body) = body::fed();
    let sending = client.ask(request(Method::POST, "/", &[], body));
    feeder.send("ab".into()).await.unwrap();
    assert_eq!(sending.await.status, 408, "in HTTP/2 too");
}

#[tokio::test]
async fn heads_that_are_not_http_are_answered_and_on_record() {
    let stage = Stage::new(Answer::ok()).await;
    for bytes in [
        "garbage\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/9.9\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nno colon here\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}",
    ] {
        let mut raw = Raw::sending(stage.gateway.address(), bytes).await;
        raw.finish().await;
        let reply = raw.reply().await;
        assert_eq!((reply.status, reply.reason().as_deref()), (400, Some("bad_request")), "{bytes:?}");
        assert_eq!(stage.told(&reply.trace_id(), 0).await.log["route"].as_str().unwrap_or_default(), "");
    }
    assert!(stage.origin.seen().is_empty());
}

#[tokio::test]
async fn heads_beyond_every_bound_are_refused_by_name() {
    let stage = Stage::new(Answer::ok()).await;
    let long = "a".repeat(200 << 10);
    let many = "a: b\r\n".repeat(1000);
    for (head, status) in [
        (format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431),
    ] {
        let mut raw = Raw::connect(stage.gateway.address()).await;
        // the refusal may come before all has been sent
        raw.try_send(&head).await;
        let reply = raw.reply().await;
        assert_eq!(reply.status, status);
        assert_eq!(stage.told(&reply.trace_id(), 0).await.log["status"], status);
    }
}

#[tokio::test]
async fn five_hundred_idle_connections_close_at_the_idle_timeout() {
    idle_connections_close(500).await;
}

#[tokio::test]
#[ignore = "needs 4,000 open files"]
async fn two_thousand_idle_connections_close_at_the_idle_timeout() {
    idle_connections_close(2000).await;
}

async fn idle_connections_close(count: usize) {
    let stage = Stage::and(Answer::ok(), "[listeners.public.timeouts]\nidle = '300ms'\n").await;
    let open = |metrics: &Metrics| metrics.count("tracegate_connections_open", &[("listener", "public")]);
    let mut idle = Vec::new();
    for number in 0..count {
        let mut raw = Raw::connect(stage.gateway.address()).await;
        if number % 2 == 0 {
            raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert_eq!(raw.reply().await.status, 200);
        }
        idle.push(raw);
    }
    for mut raw in idle {
        assert!(raw.rest().await.is_empty(), "an idle connection that ends is no request and no answer");
    }
    let metrics = stage.gateway.metrics_when("no connection is open", |metrics| open(metrics) == 0).await;
    assert!(quiet(&metrics));
    let log = stage.gateway.log(count / 2).await;
    assert_eq!(log.len(), count / 2, "the requests, and nothing for idle connections");
}

#[tokio::test]
async fn an_http2_connection_without_a_request_is_idle_and_no_slow_head() {
    let idle = Duration::from_millis(600);
    let timeouts = "[listeners.public.timeouts]\nhead = '20ms'\nidle = '600ms'\n";
    let stage = Stage::and(Answer::ok(), timeouts).await;
    let began = Instant::now();
    // the preface and an empty SETTINGS frame
    let mut raw =
        Raw::sending(stage.gateway.address(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0").await;
    raw.rest().await;
    assert!(began.elapsed() >= idle, "it was closed after {:?}", began.elapsed());
    // the beginning of the preface alone may be that of a head
    let began = Instant::now();
    let mut raw = Raw::sending(stage.gateway.address(), "PRI * HTTP/2.0\r\n").await;
    raw.rest().await;
    assert!(began.elapsed() >= Duration::from_millis(20));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_on_record() {
    let text = "[listeners.public.timeouts]\nidle = '300ms'\nbody = '300ms'\n";
    let stage = Stage::and(Answer::status(200).zeros(1 << 30), text).await;
    let raw = Raw::sending(stage.gateway.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let told = stage.told_first(1).await;
    assert_eq!(
        (told.log["reason"].as_str(), told.log["detail"].as_str()),
        (Some("client_timeout"), Some("slow_reader"))
    );
    assert!(told.log["response_bytes"].as_u64().unwrap() < 64 << 20, "it was not read into memory");
    drop(raw);
}

#[tokio::test]
async fn a_client_that_finishes_sending_still_gets_its_answer_or_counts_as_gone() {
    let stage = Stage::new(Answer::ok()).await;
    let mut raw = Raw::sending(stage.gateway.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    raw.finish().await;
    let answered = !raw.rest().await.is_empty();
    let log = stage.gateway.log(1).await.remove(0);
    assert_eq!(log["reason"] == "client_gone", !answered, "{log}");
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed_and_the_others_go_on() {
    let stage = Stage::and(Answer::ok(), "[listeners.public.limits]\nconnections = 2\n").await;
    let (mut one, mut two) = (stage.client().await, stage.client().await);
    assert_eq!((one.get("/").await.status, two.get("/").await.status), (200, 200));
    let mut three = Raw::connect(stage.gateway.address()).await;
    three.try_send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(three.try_reply().await.is_none(), "closed, without a word");
    let refused = [("listener", "public"), ("outcome", "refused_limit")];
    let metrics = stage.gateway.metrics().await;
    assert_eq!(metrics.count("tracegate_connections_total", &refused), 1);
    assert_eq!((one.get("/").await.status, two.get("/").await.status), (200, 200));
    drop((one, two));
    let open = |metrics: &Metrics| metrics.count("tracegate_connections_open", &[("listener", "public")]);
    stage.gateway.metrics_when("no connection is open", |metrics| open(metrics) == 0).await;
    assert_eq!(stage.get("/").await.status, 200, "there is room again");
}
