//! What passes: methods, bodies, trailers, fields, in both directions and between the versions of HTTP.

use http::{HeaderMap, Method};

use crate::support::body::{self, Body};
use crate::support::client::{get, request};
use crate::support::gateway::all_to;
use crate::support::link::Refusing;
use crate::support::{Answer, Client, Gate, Gateway, Origin, Raw, Reply, Stage, within};

const HTTP2_UPSTREAM: &str = "[upstreams.shop]\nprotocol = 'h2'\n";

/// Every pair of versions: the client's, and what an upstream's table says more.
const VERSIONS: [(bool, &str); 4] =
    [(false, ""), (true, ""), (false, HTTP2_UPSTREAM), (true, HTTP2_UPSTREAM)];

async fn connect(gateway: &Gateway, http2: bool) -> Client {
    if http2 { Client::http2(gateway.address()).await } else { Client::http1(gateway.address()).await }
}

/// A gateway before this origin, the text merged over its table.
async fn before(origin: &Origin, text: &str) -> Gateway {
    Gateway::start(&[&all_to(origin.address), text]).await
}

#[tokio::test]
async fn every_method_passes_with_its_body_between_all_versions() {
    let origin = Origin::start(Answer::status(201).header("x-answer", "a").data("made")).await;
    for (http2, upstream) in VERSIONS {
        let gateway = before(&origin, upstream).await;
        let mut client = connect(&gateway, http2).await;
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"] {
            let count = origin.seen().len();
            let sent =
                request(method.parse().unwrap(), "/orders?a=1", &[("x-sent", "b")], body::full("some body"));
            let reply = client.ask(sent).await;
            assert_eq!(
                (reply.status, reply.header("x-answer"), &*reply.body),
                (201, Some("a"), &b"made"[..])
            );
            let seen =
                origin.seen_when("the request", |seen| seen.get(count).is_some_and(|s| s.complete)).await;
            let seen = &seen[count];
            assert_eq!((seen.method.as_str(), seen.target.as_str()), (method, "/orders?a=1"));
            assert_eq!((seen.header("x-sent"), &*seen.body), (Some("b"), &b"some body"[..]));
            assert_eq!(seen.header("host"), Some("shop.test"), "the host is kept");
            assert_eq!(seen.version, if upstream.is_empty() { "HTTP/1.1" } else { "HTTP/2.0" });
        }
    }
}

#[tokio::test]
async fn a_head_has_the_length_of_its_get_and_no_body() {
    let origin = Origin::start(Answer::ok()).await;
    let gateway = Gateway::before(origin.address).await;
    let two = "HEAD / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut raw = Raw::sending(gateway.address(), two).await;
    assert_eq!(raw.reply_to_head().await.header("content-length"), Some("5"));
    assert_eq!(raw.reply().await.text(), "hello");
}

#[tokio::test]
async fn answers_keep_their_framing() {
    let origin = Origin::start(Answer::ok()).await;
    let gateway = Gateway::before(origin.address).await;
    for (answer, length, coding, text) in [
        (Answer::ok(), Some("5"), None, "hello"),
        (Answer::ok().chunked(), None, Some("chunked"), "hello"),
        (Answer::ok().until_close(), None, Some("chunked"), "hello"),
        (Answer::status(200), Some("0"), None, ""),
        (Answer::status(204), None, None, ""),
        (Answer::status(304).header("etag", "\"a\""), None, None, ""),
    ] {
        origin.answer(answer.clone());
        let mut raw = Raw::sending(gateway.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let reply = raw.reply().await;
        let framing = (reply.header("content-length"), reply.header("transfer-encoding"));
        assert_eq!((framing, reply.text().as_str()), ((length, coding), text), "{answer:?}");
        assert!(!reply.broken);
    }
}

#[tokio::test]
async fn requests_keep_their_framing() {
    for (sent, length, coding) in [
        ("content-length: 4\r\n\r\nbody", Some("4"), None),
        ("transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", None, Some("chunked")),
    ] {
        let stage = Stage::new(Answer::ok()).await;
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{sent}");
        let mut raw = Raw::sending(stage.gateway.address(), head).await;
        assert_eq!(raw.reply().await.status, 200);
        let seen = stage.origin.only().await;
        assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (length, coding));
        assert_eq!(seen.body, b"body");
    }
}

#[tokio::test]
async fn trailers_pass_both_ways_between_all_versions() {
    for (http2, upstream) in VERSIONS {
        let origin = Origin::start(Answer::ok().trailer("x-checksum", "abc")).await;
        let gateway = before(&origin, upstream).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sent-checksum", "def".parse().unwrap());
        let fields = [("te", "trailers"), ("trailer", "x-sent-checksum")];
        let sent = request(Method::POST, "/", &fields, body::with_trailers("body", trailers));
        let reply = connect(&gateway, http2).await.ask(sent).await;
        assert_eq!(reply.trailers.get("x-checksum"), Some("abc"), "to http2 {http2}, {upstream}");
        let seen = origin.only().await;
        assert_eq!(seen.trailers.get("x-sent-checksum"), Some("def"), "from http2 {http2}, {upstream}");
        assert_eq!(seen.header("te"), Some("trailers"));
        assert_eq!(seen.header("trailer"), Some("x-sent-checksum"));
    }
}

#[tokio::test]
async fn a_body_is_asked_for_when_the_upstream_wants_it() {
    let stage = Stage::new(Answer::ok().after("100 Continue")).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
    let mut raw = Raw::sending(stage.gateway.address(), head).await;
    assert_eq!(raw.head().await.status(), 100);
    raw.send("body").await;
    assert_eq!(raw.reply().await.status, 200);
    assert_eq!(stage.origin.only().await.body, b"body");
}

#[tokio::test]
async fn a_body_that_the_upstream_refuses_is_never_asked_for() {
    let stage = Stage::new(Answer::status(417).early().then_close()).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
    let mut raw = Raw::sending(stage.gateway.address(), head).await;
    assert_eq!(raw.head().await.status(), 417);
    assert_eq!(stage.origin.seen()[0].body_bytes, 0);
}

#[tokio::test]
async fn informational_answers_are_read_and_not_passed_on() {
    let answer = Answer::ok().after("103 Early Hints\r\nlink: </a.css>").after("102 Processing");
    let stage = Stage::new(answer).await;
    let mut raw = Raw::sending(stage.gateway.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(raw.reply().await.text(), "hello");
}

#[tokio::test]
async fn requests_share_connections_on_both_sides() {
    let stage = Stage::new(Answer::ok()).await;
    let mut client = stage.client().await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(stage.origin.connections().accepted, 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let answer = |seen: &crate::support::Seen| Answer::status(200).data(seen.target.clone());
    let stage = Stage::new(answer).await;
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut raw = Raw::sending(stage.gateway.address(), one("/1") + &one("/2") + &one("/3")).await;
    for path in ["/1", "/2", "/3"] {
        assert_eq!(raw.reply().await.text(), path);
    }
}

#[tokio::test]
async fn http2_requests_on_one_connection_do_not_wait_for_each_other() {
    let gate = Gate::new();
    let held = gate.clone();
    let answer = move |seen: &crate::support::Seen| match seen.target.as_str() {
        "/held" => Answer::status(200).gate(&held).data("held"),
        _ => Answer::ok(),
    };
    for upstream in ["", HTTP2_UPSTREAM] {
        let origin = Origin::start(answer.clone()).await;
        let gateway = before(&origin, upstream).await;
        let mut client = Client::http2(gateway.address()).await;
        let mut other = Client::http2(gateway.address()).await;
        let held = tokio::spawn(async move { other.get("/held").await });
        origin.seen_when("the held request", |seen| seen.len() == 1).await;
        assert_eq!(client.get("/").await.status, 200);
        gate.open();
        assert_eq!(within("the held answer", held).await.unwrap().text(), "held");
    }
}

#[tokio::test]
async fn fields_of_one_connection_end_there_in_both_directions() {
    let answer = Answer::ok()
        .header("connection", "x-private-answer, keep-alive")
        .header("keep-alive", "timeout=7")
        .header("x-private-answer", "1")
        .header("proxy-connection", "keep-alive")
        .header("set-cookie", "a=1")
        .header("set-cookie", "b=2");
    let stage = Stage::new(answer).await;
    let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: X-Private, Upgrade, HTTP2-Settings\r\n\
        x-private: 1\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\nkeep-alive: timeout=5\r\n\
        proxy-connection: keep-alive\r\nte: gzip\r\nproxy-authorization: basic eDp5\r\nx-public: 1\r\n\r\n";
    let reply = Raw::sending(stage.gateway.address(), head).await.reply().await;
    for gone in ["keep-alive", "x-private-answer", "proxy-connection"] {
        assert!(!reply.headers.has(gone), "{gone} reached the client");
    }
    assert_eq!(reply.headers.all("set-cookie"), ["a=1", "b=2"]);
    let seen = stage.origin.only().await;
    for gone in [
        "x-private",
        "upgrade",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "proxy-authorization",
    ] {
        assert!(!seen.headers.has(gone), "{gone} reached the upstream");
    }
    assert_eq!(seen.header("x-public"), Some("1"));
}

#[tokio::test]
async fn a_client_cannot_cut_the_trace_with_the_connection_field() {
    let stage = Stage::new(Answer::ok()).await;
    let fields = "connection: traceparent, tracestate, x-request-id, x-forwarded-for, host";
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n");
    let reply = Raw::sending(stage.gateway.address(), head).await.reply().await;
    let seen = stage.origin.only().await;
    assert_eq!(seen.traceparent().0, reply.trace_id());
    assert_eq!((seen.header("host"), seen.header("x-forwarded-for")), (Some("a"), Some("127.0.0.1")));
    assert!(seen.headers.has("x-request-id"));
}

#[tokio::test]
async fn the_upstream_is_told_who_asked_by_the_rule_of_trust() {
    let sent = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("forwarded", "for=203.0.113.9"),
        ("via", "1.0 edge"),
    ];
    let here = "127.0.0.1";
    for (trusted, expected) in [
        ("", [here, "http", "shop.test", "for=127.0.0.1;proto=http"]),
        (
            "[listeners.public]\ntrusted_proxies = ['127.0.0.0/8']\n",
            ["203.0.113.9, 127.0.0.1", "https", "shop.example", "for=203.0.113.9, for=127.0.0.1;proto=http"],
        ),
    ] {
        let stage = Stage::and(Answer::ok(), trusted).await;
        let reply = stage.gateway.ask(request(Method::GET, "/", &sent, body::empty())).await;
        let seen = stage.origin.only().await;
        let fields = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"];
        assert_eq!(fields.map(|field| seen.headers.all(field).join(", ")), expected);
        assert_eq!(seen.headers.all("via").join(", "), "1.0 edge, 1.1 tracegate");
        assert_eq!(reply.header("via"), Some("1.1 tracegate"));
    }
}

#[tokio::test]
async fn a_route_may_send_the_endpoints_own_name_as_host() {
    let stage = Stage::and(Answer::ok(), "[routes.all]\nhost = 'endpoint'\n").await;
    stage.get("/").await;
    let expected = stage.origin.address.to_string();
    assert_eq!(stage.origin.only().await.header("host"), Some(expected.as_str()));
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_what_it_understands() {
    let stage = Stage::new(Answer::ok().chunked()).await;
    let mut raw = Raw::sending(stage.gateway.address(), "GET / HTTP/1.0\r\n\r\n").await;
    let text = String::from_utf8(raw.rest().await.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 ") && !head.to_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(body, "hello");
    assert_eq!(stage.origin.only().await.header("via"), Some("1.0 tracegate"));
}

#[tokio::test]
async fn cookies_that_http2_has_split_are_one_field_in_http1() {
    let stage = Stage::new(Answer::ok()).await;
    let sent = request(Method::GET, "/", &[("cookie", "a=1"), ("cookie", "b=2")], body::empty());
    Client::http2(stage.gateway.address()).await.ask(sent).await;
    assert_eq!(stage.origin.only().await.headers.all("cookie"), ["a=1; b=2"]);
}

#[tokio::test]
async fn large_bodies_stream_both_ways() {
    const SIZE: u64 = 8 << 20;
    for (http2, upstream) in VERSIONS {
        let origin = Origin::start(Answer::status(200).zeros(SIZE)).await;
        let gateway = before(&origin, upstream).await;
        let mut client = connect(&gateway, http2).await;
        let answer = client.send(request(Method::POST, "/", &[], body::zeros(SIZE))).await.unwrap();
        assert_eq!(within("the body", body::count(answer.into_body())).await.unwrap(), SIZE);
        assert_eq!(origin.only().await.body_bytes, SIZE);
        let log = gateway.log(1).await;
        assert_eq!((&log[0]["request_bytes"], &log[0]["response_bytes"]), (&SIZE.into(), &SIZE.into()));
    }
}

#[tokio::test]
async fn a_body_passes_piece_by_piece_without_waiting_for_its_end() {
    for (http2, upstream) in VERSIONS {
        let gate = Gate::new();
        let origin =
            Origin::start(Answer::status(200).data("first").gate(&gate).data("second").early().chunked())
                .await;
        let gateway = before(&origin, upstream).await;
        let (feeder, body) = body::fed();
        let mut client = connect(&gateway, http2).await;
        let sending = client.send(request(Method::POST, "/", &[], body));
        feeder.send("piece".into()).await.unwrap();
        // the head and the first piece come while the request's body is still open
        let mut answer = sending.await.unwrap();
        let first =
            within("a piece", http_body_util::BodyExt::frame(answer.body_mut())).await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "first");
        gate.open();
        drop(feeder);
        assert_eq!(Reply::read(answer).await.text(), "second");
    }
}

#[tokio::test]
async fn an_early_answer_that_keeps_its_connection_ends_the_upload_too() {
    let text = "[listeners.public.timeouts]\nhead = '50ms'\n";
    let stage = Stage::and(Answer::status(413).early().then_stall(), text).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\n";
    let mut raw = Raw::sending(stage.gateway.address(), head).await;
    assert_eq!(raw.reply().await.status, 413);
    raw.try_send("late").await;
    assert!(raw.rest().await.is_empty(), "closed, without an answer that nobody asked for");
    stage.origin.open_connections(0).await;
}

#[tokio::test]
async fn what_has_no_place_in_trailers_goes_and_the_rest_passes() {
    let misplaced = "connection: close\r\ntransfer-encoding: chunked\r\ncontent-length: 9\r\nhost: evil\r\n";
    let answer = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\n{misplaced}x-sum: 1\r\n\r\n"
    );
    let sent = format!(
        "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
         2\r\nok\r\n0\r\n{misplaced}x-sum: 1\r\n\r\n"
    );
    // towards HTTP/2, where a stream with fields of a connection is malformed
    let stage = Stage::and(Answer::ok(), "[upstreams.shop]\nprotocol = 'h2'\n").await;
    let reply = Raw::sending(stage.gateway.address(), &sent).await.reply().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let seen = &stage.origin.seen()[0];
    assert_eq!((&*seen.body, seen.trailers.0.len()), (&b"ok"[..], 1), "{:?}", seen.trailers);
    assert_eq!(seen.trailers.get("x-sum"), Some("1"));

    let stage = Stage::new(Answer::raw(answer)).await;
    let mut client = Client::http2(stage.gateway.address()).await;
    let reply = client.ask(request(Method::GET, "/", &[("te", "trailers")], body::empty())).await;
    assert_eq!((reply.status, reply.broken, reply.text()), (200, false, "ok".to_owned()));
    assert_eq!((reply.trailers.0.len(), reply.trailers.get("x-sum")), (1, Some("1")), "{:?}", reply.trailers);
}

#[tokio::test]
async fn an_exchange_that_ends_with_trailers_is_whole() {
    let stage = Stage::new(Answer::ok().trailer("x-sum", "1")).await;
    for http2 in [false, true] {
        let address = stage.gateway.address();
        let mut client = if http2 { Client::http2(address).await } else { Client::http1(address).await };
        let reply = client.ask(request(Method::GET, "/", &[("te", "trailers")], body::empty())).await;
        assert_eq!((reply.trailers.get("x-sum"), reply.broken), (Some("1"), false));
        let told = stage.told(&reply.trace_id(), 1).await;
        assert_eq!(told.log.get("reason"), None, "{}", told.log);
        assert!(!told.server.error && !told.attempts[0].error);
    }
}

/// HTTP/1.1 has a `Host` in every request (RFC 9112 section 3.2), HTTP/1.0 need not.
#[tokio::test]
async fn a_request_without_a_host_goes_on_with_the_endpoints() {
    let stage = Stage::new(Answer::ok()).await;
    let reply = Raw::sending(stage.gateway.address(), "GET / HTTP/1.0\r\n\r\n").await.reply().await;
    assert_eq!(reply.status, 200);
    assert_eq!(stage.origin.only().await.header("host"), Some(&*stage.origin.address.to_string()));
}

#[tokio::test]
async fn an_early_answer_ends_an_upload() {
    let stage = Stage::new(Answer::status(413).early().then_close()).await;
    let (feeder, body) = body::fed();
    let mut client = stage.client().await;
    let sending = client.send(request(Method::POST, "/", &[], body));
    feeder.send("piece".into()).await.unwrap();
    assert_eq!(sending.await.unwrap().status(), 413);
}

#[tokio::test]
async fn methods_for_other_kinds_of_proxies_are_refused() {
    let stage = Stage::new(Answer::ok()).await;
    for (head, status, reason) in [
        ("CONNECT shop.test:443 HTTP/1.1\r\nhost: shop.test:443\r\n\r\n", 501, "unsupported"),
        ("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", 405, "method_not_allowed"),
    ] {
        let reply = Raw::sending(stage.gateway.address(), head).await.reply().await;
        assert_eq!((reply.status, reply.reason().as_deref()), (status, Some(reason)));
        assert_eq!(reply.headers.has("allow"), status == 405);
    }
    assert!(stage.origin.seen().is_empty());
}

#[tokio::test]
async fn a_request_id_is_continued_or_made_and_told_to_both_sides() {
    let stage = Stage::new(Answer::ok().header("x-request-id", "the-upstreams-own")).await;
    for (sent, continued) in [(Some("req-42"), true), (Some("two words"), false), (None, false)] {
        let count = stage.origin.seen().len();
        let fields: Vec<_> = sent.iter().map(|id| ("x-request-id", *id)).collect();
        let reply = stage.gateway.ask(request(Method::GET, "/", &fields, body::empty())).await;
        let told = reply.headers.all("x-request-id");
        assert_eq!(told, stage.origin.seen()[count].headers.all("x-request-id"));
        assert_eq!((told.len(), told.first().copied() == sent), (1, continued), "{sent:?}");
    }
}

/// Every one of these is two requests to one reader and one to another, or none at all.
#[tokio::test]
async fn a_request_of_two_lengths_is_refused_or_ends_its_connection() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for fields in [
        "content-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        "content-length: 3, 4\r\n\r\nabc",
        "content-length: +3\r\n\r\nabc",
        "content-length: -1\r\n\r\n",
        "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: identity\r\n\r\n",
        "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "x: y\r\n z\r\n\r\n",
        "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let stage = Stage::new(Answer::ok()).await;
        let sent = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}{smuggled}");
        let answers = Raw::sending(stage.gateway.address(), sent).await.rest().await;
        let answers = String::from_utf8_lossy(&answers).into_owned();
        assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{fields:?}: {answers}");
        assert!(stage.origin.seen().iter().all(|seen| seen.target == "/"), "{fields:?}");
        for seen in stage.origin.seen() {
            assert!(!seen.headers.has("content-length"), "chunked alone goes on: {seen:?}");
        }
    }
}

#[tokio::test]
async fn requests_for_no_single_host_are_refused() {
    let stage = Stage::new(Answer::ok()).await;
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: user@a\r\n\r\n",
    ] {
        let reply = Raw::sending(stage.gateway.address(), head).await.reply().await;
        assert_eq!((reply.status, reply.reason().as_deref()), (400, Some("bad_request")), "{head:?}");
    }
    let absolute = "GET http://b/x HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(Raw::sending(stage.gateway.address(), absolute).await.reply().await.status, 200);
    let seen = stage.origin.only().await;
    assert_eq!((seen.header("host"), seen.target.as_str()), (Some("b"), "/x"), "the target's host counts");
}

#[tokio::test]
async fn many_clients_at_once_all_get_their_own_answers() {
    let answer = |seen: &crate::support::Seen| Answer::status(200).data(seen.target.clone());
    let stage = Stage::new(answer).await;
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..32 {
        let mut client = connect(&stage.gateway, number % 2 == 0).await;
        clients.spawn(async move {
            for round in 0..16 {
                let path = format!("/{number}/{round}");
                assert_eq!(client.ask(get(&path) as http::Request<Body>).await.text(), path);
            }
        });
    }
    within("all clients", clients.join_all()).await;
    let spans = stage.collector.wait_for_spans(2 * 32 * 16).await;
    assert_eq!(spans.len(), 2 * 32 * 16, "one SERVER and one CLIENT span each");
}

#[tokio::test]
async fn an_answer_of_our_own_tells_whether_the_connection_goes_on_behind_a_body_that_nobody_read() {
    let gateway = Gateway::start(&[&all_to(Refusing::start().address)]).await;
    for (sent, announced) in [(10, 10), (1000, 60_000)] {
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {announced}\r\n\r\n");
        let mut raw = Raw::sending(gateway.address(), head + &"x".repeat(sent)).await;
        let reply = raw.reply().await;
        let whole = sent == announced;
        assert_eq!((reply.status, reply.header("connection")), (502, (!whole).then_some("close")), "{sent}");
        if whole {
            raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert_eq!(raw.reply().await.status, 502);
        }
    }
}
