//! Upstreams that refuse, break, dawdle, lie or move: each failure has its word and harms nobody else.

use std::collections::BTreeSet;

use http::Method;

use crate::support::client::{get, request};
use crate::support::gateway::{all_to, route, upstream};
use crate::support::link::{Blackhole, Refusing};
use crate::support::{
    Answer, Client, Dns, Gate, Gateway, Link, Origin, Reply, Seen, Stage, TcpLink, body, within,
};

const HTTP2: &str = "[upstreams.shop]\nprotocol = 'h2'\n";

/// The table of ways to break before the head, for both versions where both have the way.
#[tokio::test]
async fn what_breaks_before_the_head_is_answered_with_its_reason() {
    let long = "a".repeat(256 << 10);
    let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(10_000);
    let garbage = |text: &str| (Answer::raw(text.to_owned()), "", 502, "upstream_protocol_error");
    for (answer, text, status, reason) in [
        (Answer::reset(), "", 502, "upstream_reset"),
        (Answer::close(), "", 502, "upstream_reset"),
        (Answer::reset(), HTTP2, 502, "upstream_reset"),
        garbage("garbage\r\n\r\n"),
        garbage("HTTP/1.1 abc\r\n\r\n"),
        garbage("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
        garbage("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
        garbage("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"),
        garbage("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
        (Answer::raw(flood).then_stall(), "", 502, "upstream_protocol_error"),
        (Answer::ok().header("x-long", &long), "", 502, "response_too_large"),
        (Answer::stall(), "[routes.all.timeouts]\nrequest = '50ms'\n", 504, "upstream_timeout"),
        (Answer::stall(), "[routes.all.timeouts]\nattempt = '50ms'\n", 504, "upstream_timeout"),
    ] {
        let stage = Stage::and(answer.clone(), text).await;
        let reply = stage.get("/").await;
        assert_eq!(
            (reply.status, reply.reason().as_deref()),
            (status, Some(reason)),
            "{text} {answer:.200?}"
        );
        let told = stage.told(&reply.trace_id(), 1).await;
        assert_eq!(told.attempts[0].attribute("error.type"), Some(reason), "{answer:.200?}");
        stage.origin.answer(Answer::ok());
        assert_eq!(stage.get("/").await.status, 200, "the next request is not harmed by {answer:.200?}");
    }
}

#[tokio::test]
async fn what_breaks_in_the_body_breaks_at_the_client_too_and_is_on_record() {
    let idle = "[routes.all.timeouts]\nstream_idle = '50ms'\n";
    for (answer, text, reason) in [
        (Answer::ok().announced(100).then_close(), "", "upstream_truncated"),
        (Answer::ok().announced(100).then_reset(), "", "upstream_truncated"),
        (Answer::ok().chunked().then_close(), "", "upstream_truncated"),
        (Answer::ok().chunked().then_reset(), HTTP2, "upstream_truncated"),
        (Answer::ok().announced(100).then_stall(), idle, "stream_idle_timeout"),
        (Answer::ok().chunked().then_stall(), idle, "stream_idle_timeout"),
    ] {
        let stage = Stage::and(answer.clone(), text).await;
        for http2 in [false, true] {
            let address = stage.gateway.address();
            let mut client = if http2 { Client::http2(address).await } else { Client::http1(address).await };
            let reply = client.get("/").await;
            assert!(reply.broken, "never completed as if it were whole: {reply:?} for {answer:?}");
            let told = stage.told(&reply.trace_id(), 1).await;
            assert_eq!((told.log["reason"].as_str(), reply.status), (Some(reason), 200), "{answer:?}");
            assert!(told.server.error && told.attempts[0].error);
        }
    }
}

/// Answers that a client would read otherwise than the gateway does.
#[tokio::test]
async fn an_answer_has_one_length_or_is_refused() {
    let chunks = "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for length in [2, 50] {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{chunks}");
        let stage = Stage::new(Answer::raw(answer)).await;
        let reply = stage.get("/").await;
        assert_eq!(
            (reply.text().as_str(), reply.broken, reply.header("content-length")),
            ("hello", false, None)
        );
        assert!(stage.told(&reply.trace_id(), 1).await.log.get("reason").is_none());
    }
    for (method, fields) in [
        (Method::GET, "transfer-encoding: gzip\r\n"),
        (Method::GET, "transfer-encoding: chunked, identity\r\ncontent-length: 5\r\n"),
        (Method::HEAD, "content-length: 2\r\ncontent-length: 3\r\n"),
        (Method::HEAD, "content-length: -5\r\n"),
        (Method::HEAD, "content-length: 99999999999999999999\r\n"),
    ] {
        let stage = Stage::new(Answer::raw(format!("HTTP/1.1 200 OK\r\n{fields}\r\n"))).await;
        let reply = stage.client().await.ask(request(method, "/", &[], body::empty())).await;
        assert_eq!(reply.status, 502, "{fields}");
        let told = stage.told(&reply.trace_id(), 1).await;
        assert_eq!(told.log["reason"], "upstream_protocol_error", "{fields}");
    }
    let twice = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n";
    let stage = Stage::new(Answer::raw(twice)).await;
    let reply = stage.client().await.ask(request(Method::HEAD, "/", &[], body::empty())).await;
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("5")));
}

#[tokio::test]
async fn many_requests_wait_for_one_dialling_in_vain_not_for_one_each() {
    for protocol in ["h2", "http/1.1"] {
        let hole = Blackhole::start().await;
        let text = format!(
            "[upstreams.shop]\nprotocol = '{protocol}'\nconnect_timeout = '500ms'\n\
             [routes.all.timeouts]\nrequest = '2s'\n"
        );
        let gateway = Gateway::start(&[&all_to(hole.address), &text]).await;
        let asked: Vec<_> = (0..8).map(|_| gateway.get("/")).collect();
        for reply in futures_util::future::join_all(asked).await {
            assert_eq!(reply.reason().as_deref(), Some("connect_timeout"), "{protocol}");
        }
    }
}

#[tokio::test]
async fn a_stream_may_last_longer_than_a_request_as_long_as_it_moves() {
    let (one, two) = (Gate::new(), Gate::new());
    let answer = Answer::status(200).data("a").gate(&one).data("b").gate(&two).data("c").chunked();
    let text = "[routes.all.timeouts]\nrequest = '200ms'\nattempt = '200ms'\nstream_idle = '20s'\n";
    let stage = Stage::and(answer, text).await;
    let mut client = stage.client().await;
    let open = client.send(get("/")).await.unwrap();
    // while it is open, another request runs into the very timeout that the open one has outlived
    stage.origin.answer(Answer::stall());
    assert_eq!(stage.get("/").await.status, 504);
    one.open();
    two.open();
    let reply = Reply::read(open).await;
    assert_eq!((reply.text().as_str(), reply.broken), ("abc", false));
}

#[tokio::test]
async fn an_endpoint_that_comes_back_is_used_again() {
    let origin = Origin::start(Answer::ok()).await;
    let mut link = TcpLink::to(origin.address);
    let gateway = Gateway::before(link.address).await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/").await.status, 200);
    link.refuse().await;
    let refused = client.get("/").await;
    assert_eq!((refused.status, refused.reason().as_deref()), (502, Some("connect_refused")));
    link.listen_again();
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_unused_fails_no_request() {
    for text in ["", HTTP2] {
        let origin = Origin::start(Answer::ok()).await;
        let link = TcpLink::to(origin.address);
        let gateway = Gateway::start(&[&all_to(link.address), text]).await;
        let mut client = gateway.client().await;
        for _ in 0..20 {
            assert_eq!(client.get("/").await.status, 200, "{text}");
            link.set(Link::Cut);
            origin.open_connections(0).await;
            link.set(Link::Pass);
        }
        assert_eq!(origin.seen().len(), 20, "no request came twice");
    }
}

#[tokio::test]
async fn a_request_with_a_body_is_never_sent_twice() {
    let stage =
        Stage::new(|seen: &Seen| if seen.target == "/bad" { Answer::reset() } else { Answer::ok() }).await;
    let mut client = stage.client().await;
    assert_eq!(client.get("/").await.status, 200);
    for _ in 0..5 {
        let count = stage.origin.seen().len();
        let reply = client.ask(request(Method::POST, "/bad", &[], body::full("order"))).await;
        assert_eq!((reply.status, reply.reason().as_deref()), (502, Some("upstream_reset")));
        assert_eq!(stage.origin.seen().len(), count + 1);
        assert_eq!(stage.told(&reply.trace_id(), 1).await.attempts.len(), 1);
    }
}

#[tokio::test]
async fn a_link_that_breaks_in_mid_answer_breaks_the_answer() {
    for (link, reason) in [
        (Link::Stall, "stream_idle_timeout"),
        (Link::Cut, "upstream_truncated"),
        (Link::Reset, "upstream_truncated"),
    ] {
        let gate = Gate::new();
        let origin = Origin::start(Answer::status(200).data("a").gate(&gate).data("b")).await;
        let way = TcpLink::to(origin.address);
        let idle = "[routes.all.timeouts]\nstream_idle = '300ms'\n";
        let gateway = Gateway::start(&[&all_to(way.address), idle]).await;
        let mut client = gateway.client().await;
        let answer = client.send(get("/")).await.unwrap();
        way.set(link);
        assert!(Reply::read(answer).await.broken);
        assert_eq!(gateway.log(1).await[0]["reason"], reason);
    }
}

#[tokio::test]
async fn a_service_that_has_moved_is_found_when_its_ttl_ends() {
    let old = Origin::start(Answer::status(200).data("old").header("connection", "close").then_close()).await;
    let port = old.address.port();
    let new = Origin::start_at(([127, 0, 0, 2], port).into(), Answer::status(200).data("new")).await;
    let dns = Dns::start().await;
    dns.set("shop.internal", &["127.0.0.1"], 3600);
    let text = format!("[upstreams.shop]\nendpoints = ['http://shop.internal:{port}']\n");
    let gateway = Gateway::start(&[&dns.toml("20ms"), &text, &route("all", "/{*path}", "shop")]).await;
    assert_eq!(gateway.get("/").await.text(), "old");
    dns.set("shop.internal", &["127.0.0.2"], 3600);
    drop(old);
    let moved = async { while gateway.get("/").await.status != 200 {} };
    within("the new address", moved).await;
    assert!(!new.seen().is_empty());
    // a name that is gone for a while does not take the service down
    dns.forget("shop.internal");
    let asked = dns.queries();
    let served = async {
        while dns.queries() < asked + 2 {
            assert_eq!(gateway.get("/").await.status, 200, "the last known address is used");
        }
    };
    within("two more questions", served).await;
}

#[tokio::test]
async fn a_name_with_a_dead_address_is_reached_by_the_live_one() {
    let origin = Origin::start(Answer::ok()).await;
    let dns = Dns::start().await;
    let port = origin.address.port();
    dns.set("shop.internal", &["127.0.0.9", "::1", "127.0.0.1"], 60);
    let text = format!("[upstreams.shop]\nendpoints = ['http://shop.internal:{port}']\n");
    let gateway = Gateway::start(&[&dns.toml("60s"), &text, &route("all", "/{*path}", "shop")]).await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn round_robin_takes_the_endpoints_in_turn() {
    let named = |name: &'static str| Origin::start(Answer::status(200).data(name));
    let origins = [named("a").await, named("b").await, named("c").await];
    let gateway =
        Gateway::start(&[&several(&origins, "round_robin"), &route("all", "/{*path}", "shop")]).await;
    let mut client = gateway.client().await;
    let mut turns = Vec::new();
    for _ in 0..9 {
        turns.push(client.get("/").await.text());
    }
    assert_eq!(turns[..3].iter().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!((&turns[..3], &turns[3..6]), (&turns[3..6], &turns[6..]));
}

#[tokio::test]
async fn two_choices_spare_the_endpoint_that_is_slow() {
    let gate = Gate::new();
    let slow = Origin::start(Answer::status(200).gate(&gate)).await;
    let fast = Origin::start(Answer::ok()).await;
    let origins = [slow, fast];
    let gateway = Gateway::start(&[&several(&origins, "p2c"), &route("all", "/{*path}", "shop")]).await;
    let mut held = tokio::task::JoinSet::new();
    // until one request is held by the slow endpoint
    let stuck = async {
        while origins[0].seen().is_empty() {
            let mut client = gateway.client().await;
            let fast = origins[1].seen().len();
            held.spawn(async move { client.get("/").await.status });
            while origins[0].seen().is_empty() && origins[1].seen().len() == fast {
                tokio::task::yield_now().await;
            }
        }
    };
    within("a request at the slow endpoint", stuck).await;
    let mut client = gateway.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(origins[0].seen().len(), 1, "it has one request in flight, the other none");
    gate.open();
    assert!(within("held requests", held.join_all()).await.iter().all(|status| *status == 200));
}

#[tokio::test]
async fn an_endpoint_that_takes_no_connection_ends_by_the_connect_timeout() {
    let hole = Blackhole::start().await;
    let text = format!("{}connect_timeout = '50ms'\n", upstream("shop", hole.address));
    let gateway = Gateway::start(&[&text, &route("all", "/{*path}", "shop")]).await;
    let reply = gateway.get("/").await;
    assert_eq!((reply.status, reply.reason().as_deref()), (504, Some("connect_timeout")));
}

#[tokio::test]
async fn one_endpoint_that_refuses_is_named_on_its_own_series() {
    let refusing = Refusing::start();
    let gateway = Gateway::before(refusing.address).await;
    assert_eq!(gateway.get("/").await.status, 502);
    let endpoint = refusing.address.to_string();
    let labels = [("tracegate_endpoint", endpoint.as_str()), ("tracegate_reason", "connect_refused")];
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("tracegate_endpoint_failures_total", &labels), 1, "{}", metrics.text);
}

fn several(origins: &[Origin], balance: &str) -> String {
    let endpoints: Vec<String> =
        origins.iter().map(|origin| format!("'http://{}'", origin.address)).collect();
    format!("[upstreams.shop]\nbalance = '{balance}'\nendpoints = [{}]\n", endpoints.join(", "))
}
