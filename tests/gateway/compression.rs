//! Answers are compressed for clients that want it, where the route says so, and stay what they are.

use std::io::Read;

use http_body_util::BodyExt;

use crate::support::client::{get, request};
use crate::support::{Answer, Gate, Raw, Reply, Stage, body, within};

const JSON: (&str, &str) = ("content-type", "application/json");

/// What most browsers say.
const ANY: (&str, &str) = ("accept-encoding", "gzip, deflate, br, zstd");

/// One route `all` that compresses, with these keys more.
async fn compressing(answer: Answer, keys: &str) -> Stage {
    Stage::and(answer, &format!("[routes.all.compression]\n{keys}\n")).await
}

async fn ask(stage: &Stage, method: &str, fields: &[(&str, &str)]) -> Reply {
    stage.gateway.ask(request(method.parse().unwrap(), "/", fields, body::empty())).await
}

/// JSON of some 70 KiB that is no mere repetition.
fn text() -> String {
    let items: Vec<String> =
        (0..3000_u64).map(|n| format!("{{\"n\":{n},\"x\":{}}}", n * n * 7919 % 10007)).collect();
    format!("{{\"id\":\"o-1\",\"items\":[{}]}}", items.join(","))
}

fn json() -> Answer {
    Answer::status(200).header(JSON.0, JSON.1).data(text())
}

fn decoded(coding: Option<&str>, body: &[u8]) -> String {
    let mut plain = Vec::new();
    match coding {
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut plain).unwrap(),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut plain).unwrap(),
        Some("zstd") => zstd::stream::read::Decoder::new(body).unwrap().read_to_end(&mut plain).unwrap(),
        other => panic!("{other:?}"),
    };
    String::from_utf8(plain).unwrap()
}

/// The answer has passed as it came.
fn is_plain(reply: &Reply) -> bool {
    reply.header("content-encoding").is_none() && reply.body == text()
}

#[tokio::test]
async fn each_coding_decodes_to_what_the_upstream_sent() {
    for answer in [json(), json().chunked(), json().until_close()] {
        let stage = compressing(answer, "").await;
        for (accept, expected) in [
            ("gzip", "gzip"),
            ("br", "br"),
            ("zstd", "zstd"),
            ("gzip, br, zstd", "zstd"),
            ("gzip, br;q=0.5", "gzip"),
            ("*", "zstd"),
        ] {
            let reply = ask(&stage, "GET", &[("accept-encoding", accept)]).await;
            assert_eq!(reply.header("content-encoding"), Some(expected), "{accept}");
            assert_eq!(decoded(Some(expected), &reply.body), text(), "{accept}");
            assert_eq!(reply.header("vary"), Some("accept-encoding"));
            assert!(reply.body.len() < text().len() / 2 && !reply.broken, "{accept}");
        }
        let plain = ask(&stage, "GET", &[]).await;
        assert!(is_plain(&plain));
        assert_eq!(
            plain.header("vary"),
            Some("accept-encoding"),
            "a cache must not take it for the other one"
        );
    }
}

#[tokio::test]
async fn nothing_is_compressed_unless_a_route_or_the_defaults_ask_for_it() {
    let off = Stage::new(json()).await;
    let reply = ask(&off, "GET", &[ANY]).await;
    assert!(is_plain(&reply) && reply.header("vary").is_none());
    let defaults = Stage::and(json(), "[defaults.route.compression]\ncodings = ['br']\n").await;
    assert_eq!(ask(&defaults, "GET", &[ANY]).await.header("content-encoding"), Some("br"));
    let but_one = "[routes.all]\ncompression = 'off'\n[defaults.route.compression]\ncodings = ['br']\n";
    assert!(is_plain(&ask(&Stage::and(json(), but_one).await, "GET", &[ANY]).await));
}

#[tokio::test]
async fn what_must_not_be_compressed_passes_as_it_came() {
    let of = |kind: &str| Answer::status(200).header("content-type", kind).data(text());
    for (what, answer) in [
        ("a picture", of("image/png")),
        ("no type", Answer::status(200).data(text())),
        ("an event stream", of("text/event-stream; charset=utf-8")),
        ("gRPC", of("application/grpc+json")),
        ("no-transform", json().header("cache-control", "public, no-transform")),
        ("a digest", json().header("content-digest", "sha-256=:AAAA:")),
        (
            "a part",
            Answer::status(206).header(JSON.0, JSON.1).header("content-range", "bytes 0-9/10").data(text()),
        ),
    ] {
        let reply =
            ask(&compressing(answer, "types = ['text/*', 'application/*', '*+json']").await, "GET", &[ANY])
                .await;
        assert!(is_plain(&reply), "{what}");
    }
    let encoded = ask(&compressing(json().header("content-encoding", "br"), "").await, "GET", &[ANY]).await;
    assert_eq!((encoded.headers.all("content-encoding"), encoded.body), (vec!["br"], text().into()));
    let stage = compressing(json(), "").await;
    for (what, fields) in [
        ("a range", &[ANY, ("range", "bytes=0-9")][..]),
        ("a client that forbids it", &[ANY, ("cache-control", "no-transform")]),
        ("a client that refuses all", &[("accept-encoding", "gzip;q=0, br;q=0, zstd;q=0")]),
        ("a client of another coding", &[("accept-encoding", "deflate")]),
    ] {
        assert!(is_plain(&ask(&stage, "GET", fields).await), "{what}");
    }
}

#[tokio::test]
async fn a_head_is_told_what_a_get_would_get() {
    let answer = |length: u64| {
        let plain = Answer::status(200).header(JSON.0, JSON.1).announced(length);
        plain.header("etag", "\"v1\"").header("accept-ranges", "bytes")
    };
    let stage = compressing(answer(4096), "min_size = '1KiB'").await;
    let head = ask(&stage, "HEAD", &[ANY]).await;
    assert_eq!((head.status, head.header("content-encoding")), (200, Some("zstd")));
    assert_eq!((head.header("vary"), head.header("etag")), (Some("accept-encoding"), Some("W/\"v1\"")));
    assert_eq!((head.header("content-length"), head.header("accept-ranges")), (None, None));
    let plain = ask(&stage, "HEAD", &[]).await;
    assert_eq!((plain.header("content-length"), plain.header("etag")), (Some("4096"), Some("\"v1\"")));
    assert_eq!(plain.header("vary"), Some("accept-encoding"));
    let short = compressing(answer(1023), "min_size = '1KiB'").await;
    let head = ask(&short, "HEAD", &[ANY]).await;
    assert_eq!((head.header("content-length"), head.header("content-encoding")), (Some("1023"), None));
}

#[tokio::test]
async fn a_304_has_the_tag_and_the_vary_of_the_answer_that_it_stands_for() {
    let stage = compressing(Answer::status(304).header("etag", "\"v1\""), "").await;
    for (fields, tag) in [(&[ANY][..], "W/\"v1\""), (&[], "\"v1\"")] {
        let reply = ask(&stage, "GET", fields).await;
        assert_eq!((reply.status, reply.header("etag")), (304, Some(tag)));
        assert_eq!(reply.header("vary"), Some("accept-encoding"));
    }
}

#[tokio::test]
async fn short_answers_and_those_without_a_body_are_left_alone() {
    for (length, compressed) in [(99, false), (100, true)] {
        let answer = Answer::status(200).header(JSON.0, JSON.1).data("a".repeat(length));
        let reply = ask(&compressing(answer, "min_size = '100B'").await, "GET", &[ANY]).await;
        assert_eq!(reply.header("content-encoding").is_some(), compressed, "{length}");
    }
    for status in [204, 304] {
        let stage = compressing(Answer::status(status).header(JSON.0, JSON.1), "").await;
        let reply = ask(&stage, "GET", &[ANY]).await;
        assert_eq!((reply.status, reply.header("content-encoding")), (status, None));
    }
}

#[tokio::test]
async fn a_strong_etag_becomes_weak_and_vary_is_added_to() {
    for (tag, expected) in [("\"v1\"", "W/\"v1\""), ("W/\"v1\"", "W/\"v1\"")] {
        let answer = json().header("etag", tag).header("vary", "origin").header("accept-ranges", "bytes");
        let stage = compressing(answer, "").await;
        let reply = ask(&stage, "GET", &[ANY]).await;
        assert_eq!(reply.header("etag"), Some(expected));
        assert_eq!(reply.headers.all("vary").join(", "), "origin, accept-encoding");
        assert_eq!((reply.header("accept-ranges"), reply.header("content-length")), (None, None));
        assert_eq!(ask(&stage, "GET", &[]).await.header("etag"), Some(tag), "uncompressed it is the same");
    }
}

#[tokio::test]
async fn what_the_upstream_has_sent_the_client_gets_before_the_rest_comes() {
    for coding in ["gzip", "br", "zstd"] {
        let gate = Gate::new();
        let answer = Answer::status(200).header(JSON.0, JSON.1).data("[1,").gate(&gate).data("2]").chunked();
        let stage = compressing(answer, "").await;
        let mut client = stage.client().await;
        let mut asked = get("/");
        asked.headers_mut().insert("accept-encoding", coding.parse().unwrap());
        let mut answer = client.send(asked).await.unwrap();
        let mut body = Vec::new();
        // in as many frames as it takes, while the upstream holds the rest back
        while beginning(coding, &body) != "[1," {
            let frame = within("a flushed frame", answer.frame()).await.unwrap().unwrap();
            body.extend_from_slice(&frame.into_data().unwrap());
        }
        gate.open();
        while let Some(frame) = within("the rest", answer.frame()).await {
            body.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        assert_eq!(decoded(Some(coding), &body), "[1,2]", "{coding}");
    }
}

/// As much as can be decoded of a body that has not ended.
fn beginning(coding: &str, body: &[u8]) -> String {
    let mut reader: Box<dyn Read + '_> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(body)),
        "br" => Box::new(brotli::Decompressor::new(body, 4096)),
        _ => Box::new(zstd::stream::read::Decoder::new(body).unwrap()),
    };
    let (mut plain, mut byte) = (Vec::new(), [0]);
    while matches!(reader.read(&mut byte), Ok(1)) {
        plain.push(byte[0]);
    }
    String::from_utf8(plain).unwrap()
}

#[tokio::test]
async fn a_broken_body_is_not_completed_as_if_it_were_whole() {
    for (coding, answer) in [
        ("gzip", json().announced(1 << 20).then_close()),
        ("br", json().chunked().then_reset()),
        ("zstd", json().chunked().then_close()),
    ] {
        let stage = compressing(answer, "").await;
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: {coding}\r\n\r\n");
        let mut raw = Raw::sending(stage.gateway.address(), head).await;
        let head = raw.head().await;
        assert_eq!((head.status(), head.fields.get("content-encoding")), (200, Some(coding)));
        let rest = raw.rest().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{coding}: the last chunk says that it is whole");
        let log = stage.gateway.log(1).await.remove(0);
        assert_eq!(log["blame"], "upstream", "{coding}: {log}");
    }
}

#[tokio::test]
async fn trailers_follow_a_compressed_body() {
    let stage = compressing(json().trailer("x-sum", "1"), "").await;
    let reply = ask(&stage, "GET", &[ANY, ("te", "trailers")]).await;
    assert_eq!(decoded(reply.header("content-encoding"), &reply.body), text());
    assert_eq!((reply.trailers.get("x-sum"), reply.broken), (Some("1"), false));
}

#[tokio::test]
async fn the_record_has_the_plain_value_and_the_bytes_that_were_sent() {
    let keys = "[routes.all.attributes]\n'order.id' = { response_json = '/id' }\n";
    let stage = compressing(json(), keys).await;
    let reply = ask(&stage, "GET", &[ANY]).await;
    let told = stage.told(&reply.trace_id(), 1).await;
    assert_eq!(told.log["attributes"]["order.id"], "o-1");
    assert_eq!(told.log["response_bytes"], reply.body.len());
    assert!(told.log.get("reason").is_none_or(serde_json::Value::is_null), "{}", told.log);
}

#[tokio::test]
async fn more_than_are_compressed_at_once_pass_as_they_are_and_are_counted() {
    let gate = Gate::new();
    let answer = json().gate(&gate).data(" ").chunked();
    let stage = compressing(answer, "at_once = 1").await;
    let mut clients = [stage.client().await, stage.client().await];
    let mut answers = Vec::new();
    for client in &mut clients {
        let mut asked = get("/");
        asked.headers_mut().insert("accept-encoding", "br".parse().unwrap());
        answers.push(client.send(asked).await.unwrap());
    }
    gate.open();
    let [first, second] = [answers.remove(0), answers.remove(0)];
    let (first, second) = (Reply::read(first).await, Reply::read(second).await);
    let whole = format!("{} ", text());
    assert_eq!(decoded(first.header("content-encoding"), &first.body), whole);
    assert_eq!((second.header("content-encoding"), second.text()), (None, whole));
    let counted = |count| {
        move |metrics: &crate::support::Metrics| {
            metrics.count("tracegate_uncompressed_total", &[("tracegate_route", "all")]) == count
        }
    };
    stage.gateway.metrics_when("the one that passed as it was", counted(1)).await;
    // the place is free again
    let mut asked = get("/");
    asked.headers_mut().insert("accept-encoding", "br".parse().unwrap());
    assert_eq!(stage.gateway.ask(asked).await.header("content-encoding"), Some("br"));
}
