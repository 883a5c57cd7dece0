//! gRPC: messages and trailers pass both ways, a call ends by its status, its time is the client's.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;

use crate::support::body::{self, Body};
use crate::support::client::request;
use crate::support::gateway::upstream;
use crate::support::{Answer, Client, Gate, Reply, Seen, Stage, within};

const HTTP2_UPSTREAM: &str = "[upstreams.shop]\nprotocol = 'h2'\n";
const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");

/// A message as gRPC frames it.
fn message(text: &str) -> Bytes {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0], &length[..], text.as_bytes()].concat().into()
}

fn answer() -> Answer {
    Answer::status(200).header("content-type", "application/grpc+proto").chunked()
}

fn call(fields: &[(&str, &str)], body: Body) -> Request<Body> {
    let fields = [&[GRPC, ("te", "trailers")], fields].concat();
    request(Method::POST, "/shop.Orders/Create", &fields, body)
}

async fn stage(answer: Answer, text: &str) -> (Stage, Client) {
    let stage = Stage::and(answer, &format!("{HTTP2_UPSTREAM}{text}")).await;
    let client = Client::http2(stage.gateway.address()).await;
    (stage, client)
}

fn reasons(stage: &crate::support::Metrics) -> u64 {
    stage.count("tracegate_requests_total", &[("tracegate_reason", "grpc_status")])
}

#[tokio::test]
async fn a_unary_call_passes_with_its_trailers_both_ways() {
    let answer = answer().data(message("made")).trailer("grpc-status", "0").trailer("x-checksum", "abc");
    let (stage, mut client) = stage(answer, "").await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sent", "def".parse().unwrap());
    let reply = client.ask(call(&[], body::with_trailers("order", trailers))).await;
    assert_eq!((reply.status, reply.body.clone()), (200, message("made")));
    assert_eq!(reply.header("content-type"), Some("application/grpc+proto"));
    let trailers = ["grpc-status", "x-checksum"].map(|name| reply.trailers.get(name));
    assert_eq!(trailers, [Some("0"), Some("abc")]);
    let seen = stage.origin.only().await;
    assert_eq!((seen.trailers.get("x-sent"), seen.header("te")), (Some("def"), Some("trailers")));
    let told = stage.told(&reply.trace_id(), 1).await;
    for span in [&told.server, &told.attempts[0]] {
        let named = ["rpc.system", "rpc.grpc.status_code", "tracegate.reason"];
        assert_eq!(named.map(|name| span.attribute(name)), [Some("grpc"), Some("0"), None]);
        assert!(!span.error);
    }
    assert_eq!(told.log["grpc_status"], 0);
}

/// OpenTelemetry's conventions: the server's span is an error where the server failed, the client's for all but OK.
#[tokio::test]
async fn a_failed_call_is_told_by_its_status_whether_in_trailers_or_in_the_head() {
    let (stage, mut client) = stage(answer(), "").await;
    let mut failed = 0;
    for code in 0..=18_u16 {
        let server_failed = matches!(code, 2 | 4 | 12..=15 | 17..);
        for in_head in [false, true] {
            let status = code.to_string();
            stage.origin.answer(if in_head {
                answer().header("grpc-status", &status).header("grpc-message", "planted")
            } else {
                answer().data(message("a")).trailer("grpc-status", &status)
            });
            let reply = client.ask(call(&[], body::empty())).await;
            let at = if in_head { &reply.headers } else { &reply.trailers };
            assert_eq!((reply.status, at.get("grpc-status")), (200, Some(&*status)), "as it came");
            let told = stage.told(&reply.trace_id(), 1).await;
            let recorded = if code > 16 { "2".to_owned() } else { status };
            let reason = server_failed.then_some("grpc_status");
            let (server, attempt) = (&told.server, &told.attempts[0]);
            assert_eq!(server.attribute("rpc.grpc.status_code"), Some(&*recorded));
            assert_eq!(
                (server.attribute("tracegate.reason"), server.error),
                (reason, server_failed),
                "{code}"
            );
            assert_eq!(server.attribute("error.type"), reason, "{code}");
            assert_eq!(attempt.attribute("rpc.grpc.status_code"), Some(&*recorded));
            assert_eq!(attempt.error, code != 0, "{code}: {attempt:?}");
            assert_eq!(told.log["reason"].as_str(), reason, "{code}");
            assert_eq!(told.log["grpc_status"].as_u64(), recorded.parse().ok());
            assert!(!told.log.to_string().contains("planted"), "what a service says stays its own");
            failed += u64::from(server_failed);
        }
    }
    stage.gateway.metrics_when("every failure counted", |metrics| reasons(metrics) == failed).await;
}

#[tokio::test]
async fn a_call_that_ends_without_a_status_has_an_unknown_one() {
    let (stage, mut client) = stage(answer().data(message("a")), "").await;
    let reply = client.ask(call(&[], body::empty())).await;
    let told = stage.told(&reply.trace_id(), 1).await;
    assert_eq!(
        (told.log["grpc_status"].as_u64(), told.log["reason"].as_str()),
        (Some(2), Some("grpc_status"))
    );
    // and whoever does not answer 200 has not spoken gRPC
    stage.origin.answer(Answer::status(503));
    let reply = client.ask(call(&[], body::empty())).await;
    assert_eq!((reply.status, reply.reason()), (503, None));
    let told = stage.told(&reply.trace_id(), 1).await;
    assert_eq!(
        (told.log["grpc_status"].as_u64(), told.log["reason"].as_str()),
        (None, Some("upstream_status"))
    );
}

#[tokio::test]
async fn messages_pass_both_ways_one_by_one() {
    let gates = [Gate::new(), Gate::new()];
    let answer = answer()
        .early()
        .data(message("0"))
        .gate(&gates[0])
        .data(message("1"))
        .gate(&gates[1])
        .data(message("2"))
        .trailer("grpc-status", "0");
    let (stage, mut client) = stage(answer, "[routes.all.timeouts]\nrequest = '100ms'\n").await;
    let (feeder, body) = body::fed();
    let mut answer = client.send(call(&[], body)).await.unwrap();
    let mut next = async || within("a message", answer.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(next().await.into_data().unwrap(), message("0"), "before the client has said a word");
    // longer than a request may take: its time ends with the head
    tokio::time::sleep(Duration::from_millis(150)).await;
    for gate in &gates {
        feeder.send(message("?")).await.unwrap();
        gate.open();
        assert!(next().await.is_data());
    }
    drop(feeder);
    let trailers = next().await.into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(stage.gateway.log(1).await[0]["reason"].as_str(), None);
}

#[tokio::test]
async fn a_stream_of_messages_may_take_longer_than_a_request_as_long_as_they_come() {
    let text = "[routes.all.timeouts]\nrequest = '150ms'\nattempt = '120ms'\n[listeners.public.timeouts]\nbody = '50ms'\n";
    let (stage, mut client) = stage(answer().trailer("grpc-status", "0"), text).await;
    let (feeder, body) = body::fed();
    let mut other = client.another();
    let uploading = tokio::spawn(async move { other.ask(call(&[], body)).await });
    for _ in 0..10 {
        feeder.send(message("part")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    drop(feeder);
    let reply = within("the answer", uploading).await.unwrap();
    assert_eq!((reply.status, reply.trailers.get("grpc-status")), (200, Some("0")));
    // one that stands still is not waited for
    let (_feeder, body) = body::fed();
    let reply = client.ask(call(&[], body)).await;
    assert_eq!(reply.header("grpc-status"), Some("4"));
    assert_eq!(stage.gateway.logged(&reply.trace_id()).await["reason"], "client_timeout");
}

#[tokio::test]
async fn a_stream_is_idle_only_if_nothing_comes_from_either_side() {
    let answer = answer().early().data(message("0")).then_stall();
    let (stage, mut client) = stage(answer, "[routes.all.timeouts]\nstream_idle = '150ms'\n").await;
    let (feeder, body) = body::fed();
    let answer = client.send(call(&[], body)).await.unwrap();
    for _ in 0..8 {
        feeder.send(message("part")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(stage.gateway.access_log().is_empty(), "400 ms, and it goes on");
    let reply = Reply::read(answer).await;
    assert!(reply.broken);
    assert_eq!(stage.gateway.log(1).await[0]["reason"], "stream_idle_timeout");
}

#[tokio::test]
async fn the_clients_time_bounds_a_call_that_has_no_answer_yet() {
    let (stage, mut client) = stage(Answer::stall(), "[routes.all.timeouts]\nrequest = '10s'\n").await;
    let reply = client.ask(call(&[("grpc-timeout", "50m")], body::empty())).await;
    assert_eq!(
        (reply.status, reply.header("grpc-status")),
        (200, Some("4")),
        "DEADLINE_EXCEEDED, trailers only"
    );
    assert_eq!((reply.header("content-type"), reply.body.len()), (Some("application/grpc"), 0));
    let told = stage.told(&reply.trace_id(), 1).await;
    let said = ["reason", "detail"].map(|key| told.log[key].as_str());
    assert_eq!(said, [Some("upstream_timeout"), Some("grpc_timeout")]);
    stage.origin.seen_when("the upstream is left alone", |seen| seen[0].left).await;
}

#[tokio::test]
async fn the_clients_time_bounds_a_call_in_mid_stream() {
    let (stage, mut client) = stage(answer().data(message("0")).then_stall(), "").await;
    let reply = client.ask(call(&[("grpc-timeout", "100m")], body::empty())).await;
    assert_eq!((reply.status, reply.body.clone(), reply.broken), (200, message("0"), false));
    assert_eq!(reply.trailers.get("grpc-status"), Some("4"));
    let told = stage.told(&reply.trace_id(), 1).await;
    assert_eq!(told.log["detail"], "grpc_timeout");
    assert!(told.server.error && told.attempts[0].error);
    stage.origin.seen_when("the upstream is left alone", |seen| seen[0].left).await;
}

#[tokio::test]
async fn the_upstream_is_told_how_much_time_is_left() {
    let (stage, mut client) = stage(answer().trailer("grpc-status", "0"), "").await;
    client.ask(call(&[("grpc-timeout", "20S")], body::empty())).await;
    client.ask(call(&[("grpc-timeout", "soon")], body::empty())).await;
    client.ask(call(&[], body::empty())).await;
    let timeout = |seen: &Seen| seen.header("grpc-timeout").map(str::to_owned);
    let [some, odd, none] = &stage.origin.seen().iter().map(timeout).collect::<Vec<_>>()[..] else {
        panic!("three")
    };
    let left = some.as_ref().and_then(|left| left.strip_suffix('u')).expect("microseconds");
    assert!((1..20_000_000).contains(&left.parse::<u64>().unwrap()), "{left}");
    assert_eq!((odd.as_deref(), none), (Some("soon"), &None));
}

#[tokio::test]
async fn a_client_that_leaves_a_call_ends_it_upstream() {
    let (stage, mut client) = stage(answer().data(message("0")).then_stall(), "").await;
    let answer = client.send(call(&[], body::empty())).await.unwrap();
    drop(answer);
    stage.origin.seen_when("the gateway left too", |seen| seen[0].left).await;
    assert_eq!(stage.told_first(1).await.log["reason"], "client_gone");
}

#[tokio::test]
async fn a_call_that_is_over_is_ended_upstream_although_its_client_goes_on_sending() {
    let (stage, mut client) = stage(answer().early().data(message("0")).then_stall(), "").await;
    let (_feeder, body) = body::fed();
    let reply = client.ask(call(&[("grpc-timeout", "100m")], body)).await;
    assert_eq!(reply.trailers.get("grpc-status"), Some("4"));
    stage.origin.seen_when("the gateway left", |seen| seen[0].left).await;
}

#[tokio::test]
async fn a_call_on_a_removed_route_ends_with_a_status_after_the_grace() {
    let kept = "[routes.kept]\nmatch.path = '/kept'\nupstream = 'shop'\n[reload]\ngrace = '50ms'\n";
    let (stage, mut client) = stage(answer().data(message("0")).then_stall(), kept).await;
    let answer = client.send(call(&[], body::empty())).await.unwrap();
    let shop = upstream("shop", stage.origin.address);
    stage.reload(&[&shop, HTTP2_UPSTREAM, kept]);
    let reply = Reply::read(answer).await;
    assert_eq!((reply.trailers.get("grpc-status"), reply.broken), (Some("14"), false));
    assert_eq!(stage.told(&reply.trace_id(), 1).await.log["reason"], "route_removed");
}
