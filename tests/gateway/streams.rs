//! Streams: seen from their opening on, kept out of the durations of requests, judged by how they end.

use http::Method;

use crate::support::client::{get, request};
use crate::support::collector::{Kind, Span};
use crate::support::{Answer, Client, Gate, Metrics, Reply, Stage, body};

const DURATIONS: [&str; 3] = [
    "http_server_request_duration_seconds_count",
    "http_client_request_duration_seconds_count",
    "tracegate_overhead_seconds_count",
];

fn events() -> Answer {
    Answer::status(200)
        .header("content-type", "text/event-stream; charset=utf-8")
        .chunked()
        .data("data: 1\n\n")
}

/// The answer's trace, of which only the head has been read.
fn trace_id(answer: &http::Response<hyper::body::Incoming>) -> String {
    let told = answer.headers()["server-timing"].to_str().unwrap();
    told["trace;desc=\"00-".len()..][..32].to_owned()
}

/// The SERVER span, the one of the opening, and the CLIENT span.
fn sorted(spans: &[Span]) -> (Span, Span, Span) {
    let one = |kind| spans.iter().find(|span| span.kind == kind).cloned().expect("a span of each kind");
    assert_eq!(spans.len(), 3, "{spans:#?}");
    (one(Kind::Server), one(Kind::Other), one(Kind::Client))
}

fn open_streams(metrics: &Metrics) -> u64 {
    metrics.count("tracegate_streams_active", &[("http_route", "/{*path}")])
}

#[tokio::test]
async fn a_stream_is_seen_while_it_is_open_and_its_age_is_no_duration() {
    let gate = Gate::new();
    let stage = Stage::new(events().gate(&gate).data("data: 2\n\n")).await;
    let mut client = stage.client().await;
    let answer = client.send(get("/events")).await.unwrap();
    let trace_id = trace_id(&answer);

    let [opened] = &stage.collector.trace(&trace_id, 1).await[..] else { panic!("one span so far") };
    assert_eq!((&*opened.name, opened.kind, opened.error), ("stream opened", Kind::Other, false));
    assert_eq!(opened.attribute("tracegate.route"), Some("all"));
    stage.gateway.metrics_when("one open stream", |metrics| open_streams(metrics) == 1).await;

    gate.open();
    assert_eq!(Reply::read(answer).await.text(), "data: 1\n\ndata: 2\n\n");
    let (server, opened, client) = sorted(&stage.collector.trace(&trace_id, 3).await);
    assert_eq!((&opened.parent, &client.parent), (&server.id, &server.id));
    assert_eq!(server.attribute("tracegate.stream"), Some("true"));
    assert!(!server.error && !client.error && opened.end <= server.end);

    let metrics = stage.gateway.metrics_when("no open stream", |metrics| open_streams(metrics) == 0).await;
    for name in DURATIONS {
        assert_eq!(metrics.count(name, &[]), 0, "{name}");
    }
    for name in [
        "tracegate_stream_age_seconds_count",
        "tracegate_time_to_first_byte_seconds_count",
        "tracegate_requests_total",
    ] {
        assert_eq!(metrics.count(name, &[]), 1, "{name}");
    }
}

#[tokio::test]
async fn an_answer_that_goes_on_for_long_becomes_a_stream() {
    let gate = Gate::new();
    let slowly = Answer::status(200).chunked().data("a").gate(&gate).data("b");
    let stage = Stage::and(slowly, "[metrics]\nstream_after = '1ms'\n").await;
    let mut client = stage.client().await;
    let answer = client.send(get("/slow")).await.unwrap();
    // takes longer than a millisecond
    for _ in 0..3 {
        assert_eq!(open_streams(&stage.gateway.metrics().await), 0, "nothing says so yet");
    }
    gate.open();
    let trace_id = trace_id(&answer);
    assert_eq!(Reply::read(answer).await.text(), "ab");
    sorted(&stage.collector.trace(&trace_id, 3).await);
    stage.gateway.log(1).await;
    let metrics = stage.gateway.metrics().await;
    assert_eq!(metrics.count("tracegate_stream_age_seconds_count", &[]), 1);
    for name in DURATIONS {
        assert_eq!(metrics.count(name, &[]), 0, "{name}");
    }
}

/// gRPC says the same of one message and of many: its streams show by going on.
#[tokio::test]
async fn a_call_whose_messages_go_on_for_long_is_a_stream_like_any_other() {
    let gate = Gate::new();
    let messages =
        Answer::status(200).header("content-type", "application/grpc").data("a").gate(&gate).data("b");
    let text = "[upstreams.shop]\nprotocol = 'h2'\n[metrics]\nstream_after = '1ms'\n";
    let stage = Stage::and(messages.trailer("grpc-status", "0"), text).await;
    let mut client = Client::http2(stage.gateway.address()).await;
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    let call = request(Method::POST, "/shop.Orders/Watch", &fields, body::empty());
    let answer = client.send(call).await.unwrap();
    // takes longer than a millisecond
    for _ in 0..3 {
        assert_eq!(open_streams(&stage.gateway.metrics().await), 0, "nothing says so yet");
    }
    gate.open();
    let trace_id = trace_id(&answer);
    assert_eq!(Reply::read(answer).await.text(), "ab");
    let (server, _, attempt) = sorted(&stage.collector.trace(&trace_id, 3).await);
    assert_eq!(server.attribute("tracegate.stream"), Some("true"));
    assert!(!server.error && !attempt.error);
    assert!(attempt.attribute("tracegate.first_byte_ms").is_some());
    stage.gateway.log(1).await;
    let metrics = stage.gateway.metrics().await;
    for name in ["tracegate_stream_age_seconds_count", "tracegate_time_to_first_byte_seconds_count"] {
        assert_eq!(metrics.count(name, &[]), 1, "{name}");
    }
    for name in DURATIONS {
        assert_eq!(metrics.count(name, &[]), 0, "{name}");
    }
}

#[tokio::test]
async fn without_a_bound_only_the_content_type_makes_a_stream() {
    let stage = Stage::and(Answer::ok().zeros(1 << 20), "[metrics]\nstream_after = 'off'\n").await;
    let reply = stage.get("/").await;
    let told = stage.told(&reply.trace_id(), 1).await;
    assert_eq!(told.server.attribute("tracegate.stream"), None);
    assert_eq!(stage.gateway.metrics().await.count(DURATIONS[0], &[]), 1);
}

/// A client that has heard enough closes a stream as it should; an upstream that breaks off does not.
#[tokio::test]
async fn a_stream_is_judged_by_how_it_ends() {
    let gate = Gate::new();
    for (answer, leaves, reason, error) in [
        (events(), false, None, None),
        (events().gate(&gate), true, Some("client_gone"), None),
        (events().then_close(), false, Some("upstream_truncated"), Some("upstream_truncated")),
    ] {
        let stage = Stage::new(answer).await;
        let mut client = Client::http1(stage.gateway.address()).await;
        let answer = client.send(get("/events")).await.unwrap();
        let trace_id = trace_id(&answer);
        if leaves {
            drop((answer, client));
        } else {
            Reply::read(answer).await;
        }
        let (server, _, attempt) = sorted(&stage.collector.trace(&trace_id, 3).await);
        for span in [server, attempt] {
            assert_eq!(span.attribute("tracegate.reason"), reason, "{span:?}");
            assert_eq!((span.attribute("error.type"), span.error), (error, error.is_some()), "{span:?}");
        }
    }
}
