//! HTTP/2 on both sides: nobody waits for a slow reader, and floods of frames end their connection.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http::Method;
use http_body_util::BodyExt;
use serde_json::Value;

use crate::support::client::{get, request};
use crate::support::collector::Kind;
use crate::support::gateway::{all_to, route};
use crate::support::{Answer, Client, Gateway, Metrics, Origin, Raw, Reply, Seen, Stage, body, within};

const HTTP2_UPSTREAM: &str = "[upstreams.shop]\nprotocol = 'h2'\n";

/// How HTTP/2 begins: the preface and empty settings.
fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET /` of `a`, as HPACK without a table or Huffman's code.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x01, 1, b'a'];
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

fn floods(metrics: &Metrics) -> u64 {
    metrics.count("tracegate_connections_total", &[("listener", "public"), ("outcome", "flood")])
}

/// Every kind of flood: what is sent over and over, by its number.
fn flood(kind: &str, number: u32) -> Vec<u8> {
    let stream = 2 * number + 1;
    match kind {
        "rapid reset" => {
            [frame(1, END_HEADERS | END_STREAM, stream, GET), frame(3, 0, stream, &8_u32.to_be_bytes())]
                .concat()
        }
        "CONTINUATION" if number == 0 => frame(1, END_STREAM, 1, GET),
        "CONTINUATION" => frame(9, 0, 1, &[0, 1, b'x', 1, b'y']),
        "SETTINGS" => frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]),
        "PING" => frame(6, 0, 0, &[0; 8]),
        "empty DATA" | "small DATA" if number == 0 => frame(1, END_HEADERS, 1, GET),
        "empty DATA" => frame(0, 0, 1, &[]),
        "small DATA" => frame(0, 0, 1, b"x"),
        "empty HEADERS" => frame(1, END_HEADERS | END_STREAM, stream, &[]),
        "HEADERS beyond the streams" => frame(1, END_HEADERS, stream, GET),
        "WINDOW_UPDATE" => frame(8, 0, 0, &1_u32.to_be_bytes()),
        "PRIORITY" => frame(2, 0, stream, &[0, 0, 0, 0, 1]),
        "unknown frames" => frame(0x77, 0, 0, b"x"),
        _ => unreachable!("{kind}"),
    }
}

const FLOODS: [&str; 11] = [
    "rapid reset",
    "CONTINUATION",
    "SETTINGS",
    "PING",
    "empty DATA",
    "small DATA",
    "empty HEADERS",
    "HEADERS beyond the streams",
    "WINDOW_UPDATE",
    "PRIORITY",
    "unknown frames",
];

#[tokio::test]
async fn every_flood_of_frames_ends_its_connection_and_is_counted() {
    // requests get no answer, so that nothing is earned by them
    let script = |seen: &Seen| if seen.target == "/well" { Answer::ok() } else { Answer::stall() };
    let stage = Stage::new(script).await;
    let mut well = Client::http2(stage.gateway.address()).await;
    for (count, kind) in (1..).zip(FLOODS) {
        let mut raw = Raw::sending(stage.gateway.address(), preface()).await;
        let flooding = async {
            // what is answered is read, as a clever flood does
            for batch in 0..200_u32 {
                let bytes: Vec<u8> =
                    (batch * 500..(batch + 1) * 500).flat_map(|number| flood(kind, number)).collect();
                if !raw.pours(&bytes).await {
                    return;
                }
            }
            // the kernel may have taken all of it
            raw.rest().await;
        };
        let begun = Instant::now();
        within(kind, flooding).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{kind}: it ended, but by some other bound");
        stage.gateway.metrics_when(kind, |metrics| floods(metrics) == count).await;
        assert_eq!(well.get("/well").await.status, 200, "others do not notice");
    }
    // what was going on on such a connection ends for this reason
    let opening = [preface(), frame(1, END_HEADERS | END_STREAM, 1, GET)].concat();
    let count = stage.origin.seen().len();
    let mut raw = Raw::sending(stage.gateway.address(), opening).await;
    stage.origin.seen_when("the request", |seen| seen.len() > count).await;
    raw.pours(&flood("PING", 1).repeat(5000)).await;
    let cut = |line: &Value| line["detail"] == "flood";
    let told = stage.gateway.access_log().line("a stream that was cut off", cut).await;
    assert_eq!(told["reason"], "bad_request");
    // and whatever has begun, is on record once
    let log = recorded_once(&stage).await;
    let reasons: BTreeSet<_> = log.iter().filter_map(|line| line["reason"].as_str()).collect();
    assert_eq!(reasons, BTreeSet::from(["bad_request", "client_gone"]));
}

/// The access log, once nothing goes on any more: for each of its lines there is one SERVER span, one for each attempt, and each is
/// counted once.
async fn recorded_once(stage: &Stage) -> Vec<Value> {
    let idle = |metrics: &Metrics| metrics.count("http_server_active_requests", &[]) == 0;
    let metrics = stage.gateway.metrics_when("nothing is active", idle).await;
    let requests = usize::try_from(metrics.count("tracegate_requests_total", &[])).unwrap();
    let log = stage.gateway.log(requests).await;
    assert_eq!(log.len(), requests);
    let ids: BTreeSet<_> = log.iter().map(|line| line["span_id"].as_str().unwrap()).collect();
    let attempts: u64 = log.iter().map(|line| line["attempts"].as_u64().unwrap()).sum();
    let attempts = usize::try_from(attempts).unwrap();
    let spans = stage.collector.wait_for_spans(requests + attempts).await;
    let servers = spans.iter().filter(|span| span.kind == Kind::Server).map(|span| span.id.as_str());
    assert_eq!((spans.len(), servers.collect::<BTreeSet<_>>()), (requests + attempts, ids.clone()));
    assert_eq!(ids.len(), requests);
    log
}

#[tokio::test]
async fn each_stream_that_its_client_resets_at_once_is_on_record_once_as_its_clients_leaving() {
    const STREAMS: u32 = 15;
    let stage = Stage::new(Answer::stall()).await;
    let mut raw = Raw::sending(stage.gateway.address(), preface()).await;
    // the reset comes in one packet with the request
    raw.send((0..STREAMS).flat_map(|number| flood("rapid reset", number)).collect::<Vec<_>>()).await;
    stage.gateway.log(STREAMS as usize).await;
    // and once the request has got to the origin
    for stream in (STREAMS..2 * STREAMS).map(|number| 2 * number + 1) {
        let before = stage.origin.seen().len();
        raw.send(frame(1, END_HEADERS | END_STREAM, stream, GET)).await;
        stage.origin.seen_when("the request", |seen| seen.len() > before).await;
        raw.send(frame(3, 0, stream, &8_u32.to_be_bytes())).await;
    }
    stage.gateway.log(2 * STREAMS as usize).await;
    let log = recorded_once(&stage).await;
    assert_eq!(log.len(), 2 * STREAMS as usize);
    for line in &log {
        assert_eq!((&line["reason"], &line["status"]), (&"client_gone".into(), &499.into()), "{line}");
    }
    let gone = [("tracegate_reason", "client_gone"), ("tracegate_blame", "client"), ("status_class", "none")];
    let metrics = stage.gateway.metrics().await;
    assert_eq!(metrics.count("tracegate_requests_total", &gone), u64::from(2 * STREAMS));
    assert_eq!(floods(&metrics), 0);
    stage.origin.seen_when("the upstream is left alone", |seen| seen.iter().all(|seen| seen.left)).await;
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_announced_is_the_clients_mistake() {
    let stage = Stage::new(Answer::ok()).await;
    // POST / of a, content-length: 9
    let head = [&[0x83][..], &GET[1..], &[0x0f, 0x0d, 1, b'9']].concat();
    let sent = [preface(), frame(1, END_HEADERS, 1, &head), frame(0, 0, 1, b"abc")].concat();
    let mut raw = Raw::sending(stage.gateway.address(), sent).await;
    stage.origin.seen_when("the request's beginning", |seen| seen.len() == 1).await;
    raw.send(frame(0, END_STREAM, 1, b"def")).await;
    let line = &stage.gateway.log(1).await[0];
    assert_eq!((&line["reason"], &line["detail"]), (&"bad_request".into(), &"broken_body".into()), "{line}");
}

#[tokio::test]
async fn a_busy_connection_is_no_flood() {
    let stage = Stage::new(Answer::ok()).await;
    let mut client = Client::http2(stage.gateway.address()).await;
    for _ in 0..3000 {
        assert_eq!(client.get("/").await.status, 200);
    }
    // each piece of an answer is worth a few windows given back
    stage.origin.answer(Answer::ok().zeros(64 << 20));
    let answer = client.send(get("/")).await.unwrap();
    assert_eq!(body::count(answer.into_body()).await.unwrap(), (64 << 20) + 5);
    assert_eq!(floods(&stage.gateway.metrics().await), 0);
}

#[tokio::test]
async fn a_stream_whose_client_takes_nothing_is_reset_and_the_others_go_on() {
    for upstream in ["", HTTP2_UPSTREAM] {
        let script = |seen: &Seen| match seen.target.as_str() {
            "/large" => Answer::status(200).zeros(1 << 30),
            _ => Answer::ok(),
        };
        let text = format!("{upstream}[listeners.public.timeouts]\nbody = '300ms'\n");
        let stage = Stage::and(script, &text).await;
        let mut client = Client::http2(stage.gateway.address()).await;
        let held = client.send(get("/large")).await.unwrap();
        let line = stage
            .gateway
            .access_log()
            .line("the slow reader", |line| line["reason"] == "client_timeout")
            .await;
        assert_eq!((&line["detail"], &line["status"]), (&"slow_reader".into(), &200.into()));
        assert!(line["response_bytes"].as_u64().unwrap() < 4 << 20, "it was not read into memory: {line}");
        stage.origin.seen_when("the upstream is left alone", |seen| seen[0].left).await;
        assert_eq!(client.get("/").await.status, 200, "the connection goes on");
        assert!(Reply::read(held).await.broken);
        let told = stage.told(line["trace_id"].as_str().unwrap(), 1).await;
        for span in [&told.server, &told.attempts[0]] {
            assert_eq!(span.attribute("tracegate.detail"), Some("slow_reader"));
        }
    }
}

#[tokio::test]
async fn a_reader_that_is_slow_but_reads_is_left_alone() {
    let stage =
        Stage::and(Answer::status(200).zeros(2 << 20), "[listeners.public.timeouts]\nbody = '500ms'\n").await;
    let mut client = Client::http2(stage.gateway.address()).await;
    let mut answer = client.send(get("/")).await.unwrap();
    let mut read = 0;
    while let Some(frame) = within("a frame", answer.body_mut().frame()).await {
        read += frame.expect("not reset").into_data().map_or(0, |data| data.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(read, 2 << 20, "in more than two seconds");
}

#[tokio::test]
async fn answers_that_are_not_taken_stall_no_other_on_a_shared_upstream_connection() {
    let script = |seen: &Seen| match seen.target.as_str() {
        "/large" => Answer::status(200).zeros(1 << 30),
        _ => Answer::ok(),
    };
    let stage = Stage::and(script, &format!("workers = 1\n{HTTP2_UPSTREAM}")).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut client = stage.client().await;
        let answer = client.send(get("/large")).await.unwrap();
        held.push((client, answer));
    }
    stage.origin.seen_when("forty requests", |seen| seen.len() == 40).await;
    for _ in 0..50 {
        assert_eq!(stage.get("/").await.text(), "hello");
    }
    assert_eq!(stage.origin.connections().accepted, 1);
}

#[tokio::test]
async fn uploads_that_are_not_taken_stall_no_other_of_the_same_client() {
    let script = |seen: &Seen| if seen.target == "/held" { Answer::stall().early() } else { Answer::ok() };
    let stage = Stage::new(script).await;
    let mut client = Client::http2(stage.gateway.address()).await;
    let mut uploads = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut other = client.another();
        uploads.spawn(async move {
            let _ = other.send(request(Method::POST, "/held", &[], body::zeros(64 << 20))).await;
        });
    }
    stage.origin.seen_when("twenty uploads", |seen| seen.len() == 20).await;
    let reply = client.ask(request(Method::POST, "/", &[], body::zeros(1 << 20))).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn more_requests_than_one_upstream_connection_takes_get_another() {
    let stage = Stage::and(Answer::stall(), HTTP2_UPSTREAM).await;
    let mut client = Client::http2(stage.gateway.address()).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let mut other = client.another();
        waiting.spawn(async move {
            let _ = other.send(get("/")).await;
        });
    }
    stage.origin.seen_when("a hundred requests at once", |seen| seen.len() == 100).await;
    assert_eq!(stage.origin.connections().open, 2);
    stage.origin.answer(Answer::ok());
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(stage.origin.connections().accepted, 2, "it has room");
}

#[tokio::test]
async fn an_upstream_may_want_fewer_requests_at_once_on_one_connection() {
    let origin = Origin::start_with_streams(4, Answer::stall()).await;
    let gateway =
        Gateway::start(&[&all_to(origin.address), HTTP2_UPSTREAM, &route("more", "/more", "shop")]).await;
    let client = Client::http2(gateway.address()).await;
    let mut waiting = tokio::task::JoinSet::new();
    for count in 1..=12 {
        let mut other = client.another();
        waiting.spawn(async move {
            let _ = other.send(get("/")).await;
        });
        origin.seen_when("one more request", |seen| seen.len() == count).await;
    }
    assert_eq!(origin.connections().open, 3);
}

#[tokio::test]
async fn a_large_body_passes_each_way_between_http2_and_http2() {
    let stage = Stage::and(Answer::ok().zeros(8 << 20), HTTP2_UPSTREAM).await;
    let mut client = Client::http2(stage.gateway.address()).await;
    let answer = client.send(request(Method::POST, "/", &[], body::zeros(8 << 20))).await.unwrap();
    assert_eq!(body::count(answer.into_body()).await.unwrap(), (8 << 20) + 5);
    assert_eq!(stage.origin.only().await.body_bytes, 8 << 20);
    let line = stage.gateway.log(1).await.remove(0);
    assert_eq!(line["response_bytes"].as_u64(), Some((8 << 20) + 5));
}
