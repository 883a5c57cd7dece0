//! Bounds on time: bodies that come in drops, answers that do, exchanges without an end, connections that grow old.

use std::time::{Duration, Instant};

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::client::{get, request};
use crate::support::gateway::all_to;
use crate::support::{Answer, Client, Gate, Gateway, Metrics, Origin, Raw, Reply, Stage, body, within};

/// How often a drop comes: often enough that nothing ever stands still.
const DROP: Duration = Duration::from_millis(50);

/// A body may be waited for so long for each 64 bytes.
const SLOW: &str = "[listeners.public]\ntimeouts.body = '400ms'\nlimits.body_progress = '64B'\n";

/// Feeds drops for as long as somebody takes them, or so many.
async fn drip(feeder: mpsc::Sender<bytes::Bytes>, drop: &'static [u8], most: usize) {
    let mut ticks = tokio::time::interval(DROP);
    for _ in 0..most {
        ticks.tick().await;
        if feeder.send(drop.into()).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_body_that_comes_in_drops_is_ended_although_it_never_stands_still() {
    let stage = Stage::and(Answer::ok(), SLOW).await;
    let mut raw =
        Raw::sending(stage.gateway.address(), "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 999\r\n\r\n")
            .await;
    raw.drips(b"a", DROP).await;
    let reply = raw.reply().await;
    assert_eq!((reply.status, reply.reason().as_deref()), (408, Some("client_timeout")));
    let told = stage.told(&reply.trace_id(), 1).await;
    assert_eq!(told.log["detail"], "slow_body");
    stage.origin.seen_when("the upload is broken off", |seen| seen[0].left).await;

    let mut client = Client::http2(stage.gateway.address()).await;
    let (feeder, body) = body::fed();
    let (reply, ()) =
        tokio::join!(client.ask(request(Method::POST, "/", &[], body)), drip(feeder, b"a", 400));
    assert_eq!((reply.status, reply.reason().as_deref()), (408, Some("client_timeout")), "in HTTP/2 too");
}

#[tokio::test]
async fn a_body_that_is_slow_but_not_too_slow_passes_and_so_do_the_messages_of_a_call() {
    let stage = Stage::and(Answer::ok(), SLOW).await;
    for (fields, drop) in [(&[][..], &[b'a'; 32][..]), (&[("content-type", "application/grpc")], b"a")] {
        let mut client = Client::http2(stage.gateway.address()).await;
        let (feeder, body) = body::fed();
        let (reply, ()) =
            tokio::join!(client.ask(request(Method::POST, "/", fields, body)), drip(feeder, drop, 24));
        assert_eq!(reply.status, 200, "{fields:?}");
    }
    let lengths: Vec<u64> = stage.origin.seen().iter().map(|seen| seen.body_bytes).collect();
    assert_eq!(lengths, [24 * 32, 24]);
}

#[tokio::test]
async fn the_time_for_a_request_includes_its_body_however_fast_that_comes() {
    let text = format!("{SLOW}[routes.all]\ntimeouts.request = '500ms'\n");
    let stage = Stage::and(Answer::ok(), &text).await;
    let mut raw =
        Raw::sending(stage.gateway.address(), "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999\r\n\r\n")
            .await;
    raw.drips(&[b'a'; 64], DROP).await;
    let reply = raw.reply().await;
    assert_eq!((reply.status, reply.reason().as_deref()), (408, Some("client_timeout")));
    assert_eq!(stage.told(&reply.trace_id(), 1).await.log["detail"], "total");
}

/// An upstream that answers with this head and then a drop after the other.
async fn dripping(head: &'static str, drop: &'static [u8]) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(head.as_bytes()).await;
                let mut ticks = tokio::time::interval(DROP);
                while stream.write_all(drop).await.is_ok() {
                    ticks.tick().await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn an_answer_of_known_length_that_comes_in_drops_is_ended_and_a_stream_lives_on() {
    let text = "[routes.all]\ntimeouts.stream_idle = '400ms'\nlimits.answer_progress = '64B'\n";
    let address = dripping("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n", b"a").await;
    let gateway = Gateway::start(&[&all_to(address), text]).await;
    for mut client in [gateway.client().await, Client::http2(gateway.address()).await] {
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.broken), (200, true));
        let line = gateway.logged(&reply.trace_id()).await;
        assert_eq!((&line["reason"], &line["detail"]), (&"stream_idle_timeout".into(), &"slow_body".into()));
    }

    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let address = dripping(head, b"1\r\na\r\n").await;
    let gateway = Gateway::start(&[&all_to(address), text]).await;
    let mut raw = Raw::sending(gateway.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    raw.head().await;
    raw.bytes(32 * b"1\r\na\r\n".len()).await;
    assert!(gateway.access_log().is_empty(), "four times what it may stand still, and it goes on");
}

#[tokio::test]
async fn an_exchange_without_an_end_is_ended_where_an_operator_wants_it_so() {
    let text = "[routes.all]\ntimeouts.exchange = '600ms'\n";
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let gateway = Gateway::start(&[&all_to(dripping(head, b"1\r\na\r\n").await), text]).await;
    for mut client in [gateway.client().await, Client::http2(gateway.address()).await] {
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.broken), (200, true));
        let line = gateway.logged(&reply.trace_id()).await;
        assert_eq!((&line["reason"], &line["detail"]), (&"upstream_timeout".into(), &"total".into()));
    }
    // and where the client is the one who does not come to an end
    let stage = Stage::and(Answer::status(200).zeros(1 << 30), text).await;
    let reader = Raw::sending(stage.gateway.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut client = Client::http2(stage.gateway.address()).await;
    let unread = client.send(get("/")).await.unwrap();
    for line in stage.gateway.log(2).await {
        assert_eq!((&line["reason"], &line["detail"]), (&"client_timeout".into(), &"total".into()), "{line}");
    }
    drop((reader, unread));
    // before there is an answer it is a request without one
    let stage = Stage::and(Answer::stall(), text).await;
    let reply = stage.get("/").await;
    assert_eq!((reply.status, reply.reason().as_deref()), (504, Some("upstream_timeout")));
}

fn retired(outcome: &'static str, count: u64) -> impl Fn(&Metrics) -> bool {
    move |metrics| {
        let labels = [("listener", "public"), ("outcome", outcome)];
        metrics.count("tracegate_connections_total", &labels) == count
    }
}

#[tokio::test]
async fn a_connection_that_has_served_enough_requests_is_ended_without_losing_one() {
    let stage = Stage::and(Answer::ok(), "[listeners.public]\nlimits.requests_per_connection = 3\n").await;
    let mut client = stage.client().await;
    for number in 1..=3 {
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.header("connection") == Some("close")), (200, number == 3));
    }
    client.closed().await;
    let mut client = Client::http2(stage.gateway.address()).await;
    for _ in 1..=3 {
        assert_eq!(client.get("/").await.status, 200);
    }
    client.closed().await;
    stage.gateway.metrics_when("both of them", retired("max_requests", 2)).await;
    assert_eq!(stage.gateway.log(6).await.len(), 6);
}

#[tokio::test]
async fn an_old_connection_is_ended_when_its_exchanges_are_over() {
    let gate = Gate::new();
    let held = Answer::status(200).chunked().data("first").gate(&gate).data("last");
    let script =
        move |seen: &crate::support::Seen| if seen.target == "/held" { held.clone() } else { Answer::ok() };
    let stage = Stage::and(script, "[listeners.public]\ntimeouts.connection_age = '200ms'\n").await;
    let begun = Instant::now();
    let mut client = stage.client().await;
    let closing = async { while client.get("/").await.header("connection") != Some("close") {} };
    within("an answer that says so", closing).await;
    assert!(begun.elapsed() >= Duration::from_millis(200));
    client.closed().await;

    let mut client = Client::http2(stage.gateway.address()).await;
    let answer = client.send(get("/held")).await.unwrap();
    let mut other = client.another();
    let going_away = async { while other.send(get("/")).await.is_ok_and(|answer| answer.status() == 200) {} };
    within("GOAWAY", going_away).await;
    gate.open();
    let reply = Reply::read(answer).await;
    assert_eq!((reply.text().as_str(), reply.broken), ("firstlast", false), "what was open goes on");
    drop(other);
    client.closed().await;
    stage.gateway.metrics_when("both of them", retired("max_age", 2)).await;
    let log = stage.gateway.log(3).await;
    assert!(log.iter().all(|line| line["status"] == 200 && line.get("reason").is_none()), "{log:?}");
}

#[tokio::test]
async fn nothing_of_this_ends_a_connection_that_nobody_has_bounded() {
    let origin = Origin::start(Answer::ok()).await;
    let gateway = Gateway::before(origin.address).await;
    let mut client = gateway.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.header("connection"), None);
    }
}
