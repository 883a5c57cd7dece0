//! Requests that are sent again, and those that are not: when, where to, how often, and what is said of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Method;

use crate::support::client::{get, request};
use crate::support::gateway::{all_to, route};
use crate::support::link::{Blackhole, Refusing};
use crate::support::stage::{Told, told};
use crate::support::{
    Answer, Collector, Gate, Gateway, Link, Origin, Raw, Reply, Seen, Stage, TcpLink, body, within,
};

const HTTP2: &str = "[upstreams.shop]\nprotocol = 'h2'\n";

/// Every condition, and no waiting.
const ALL: &str = "[routes.all.retry]\nbackoff = '1ms'\nstatuses = [502, 503, 504]\n\
                   on = ['connect', 'reused', 'refused', 'reset', 'timeout']\n";

/// Answers so the first few times, and 200 from then on.
fn first(times: usize, answer: Answer) -> impl Fn(&Seen) -> Answer + Send + Sync + 'static {
    let count = AtomicUsize::new(0);
    move |_: &Seen| {
        if count.fetch_add(1, Ordering::Relaxed) < times { answer.clone() } else { Answer::ok() }
    }
}

/// What is said of a request that was sent again and succeeded.
fn assert_saved(told: &Told, reason: &str) {
    assert!(!told.server.error, "{:?}", told.server);
    assert_eq!(told.server.attribute("tracegate.reason"), None);
    assert_eq!(told.server.attribute("tracegate.not_retried"), None);
    let [first, second] = &told.attempts[..] else { panic!("two attempts: {:?}", told.attempts) };
    assert_eq!((first.error, first.attribute("error.type")), (true, Some(reason)));
    assert_eq!((first.attribute("http.request.resend_count"), second.error), (None, false));
    assert_eq!(second.attribute("http.request.resend_count"), Some("1"));
    assert_eq!((told.log["attempts"].as_u64(), told.log.get("reason")), (Some(2), None));
}

#[tokio::test]
async fn what_the_operator_names_is_sent_again_and_saved() {
    let timeout = "[routes.all.timeouts]\nattempt = '100ms'\n";
    for (answer, text, reason) in [
        (Answer::reset(), "", "upstream_reset"),
        (Answer::close(), "", "upstream_reset"),
        (Answer::reset(), HTTP2, "upstream_reset"),
        (Answer::raw("garbage\r\n\r\n"), "", "upstream_protocol_error"),
        (Answer::status(503), "", "503"),
        (Answer::status(503).zeros(1 << 20), "", "503"),
        (Answer::status(502).data("no"), HTTP2, "502"),
        (Answer::stall(), timeout, "upstream_timeout"),
        (Answer::stall(), &format!("{timeout}{HTTP2}"), "upstream_timeout"),
    ] {
        for method in [Method::GET, Method::PUT] {
            let stage = Stage::and(first(1, answer.clone()), &format!("{ALL}{text}")).await;
            let sent = if method == Method::PUT { body::full("order") } else { body::empty() };
            let reply = stage.gateway.ask(request(method.clone(), "/", &[], sent)).await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "hello"), "{answer:.100?} {text}");
            let told = stage.told(&reply.trace_id(), 2).await;
            assert_saved(&told, reason);
            let seen = stage.origin.seen();
            let spans: Vec<_> = told.attempts.iter().map(|attempt| attempt.id.clone()).collect();
            let parents: Vec<_> = seen.iter().map(|seen| seen.traceparent().1).collect();
            assert_eq!(parents, spans, "each attempt has its own context");
            if method == Method::PUT {
                assert_eq!(seen[1].body, b"order", "{seen:?}");
                let size = told.attempts[1].attribute("http.request.body.size");
                assert_eq!(size, Some("5"), "{:?}", told.attempts);
            }
            let labels = [("tracegate_route", "all"), ("outcome", "succeeded")];
            let counted = |metrics: &crate::support::metrics::Metrics| {
                metrics.count("tracegate_retries_total", &labels) == 1
            };
            stage.gateway.metrics_when("the retry", counted).await;
        }
    }
}

#[tokio::test]
async fn nothing_is_sent_again_that_may_have_been_processed_and_must_not_be_twice() {
    for (answer, text) in [
        (Answer::reset(), ""),
        (Answer::close(), ""),
        (Answer::status(503), ""),
        (Answer::stall(), "[routes.all.timeouts]\nattempt = '50ms'\n"),
        // pingora#979
        (Answer::reset(), HTTP2),
    ] {
        for method in [Method::POST, Method::PATCH] {
            let stage = Stage::and(first(1, answer.clone()), &format!("{ALL}{text}")).await;
            let reply = stage.gateway.ask(request(method, "/", &[], body::full("order"))).await;
            assert!(reply.status >= 500, "{answer:?}");
            let told = stage.told(&reply.trace_id(), 1).await;
            assert_eq!(told.server.attribute("tracegate.not_retried"), Some("not_idempotent"), "{answer:?}");
            assert_eq!(told.log["not_retried"], "not_idempotent");
            assert_eq!(stage.origin.seen().len(), 1);
            let record = stage.logstash.of(&reply.trace_id()).await;
            assert_eq!(record["labels"]["not_retried"], "not_idempotent", "{record}");
        }
    }
}

#[tokio::test]
async fn the_operator_may_say_that_a_post_can_be_repeated() {
    let text = format!("{ALL}non_idempotent = true\n");
    let stage = Stage::and(first(2, Answer::reset()), &text).await;
    let reply = stage.gateway.ask(request(Method::POST, "/", &[], body::full("order"))).await;
    assert_eq!(reply.status, 200);
    let seen = stage.origin.seen();
    assert!(seen.len() == 3 && seen[2].body == b"order", "{seen:?}");
    assert_eq!(stage.told(&reply.trace_id(), 3).await.log["attempts"], 3);
}

#[tokio::test]
async fn by_default_a_dead_endpoint_costs_no_request_whatever_its_method() {
    let (origin, refusing) = (Origin::start(Answer::ok()).await, Refusing::start());
    let text = two(refusing.address, origin.address);
    let gateway = Gateway::start(&[&text, &route("all", "/{*path}", "shop")]).await;
    let mut client = gateway.client().await;
    for _ in 0..20 {
        for method in [Method::GET, Method::POST] {
            let reply = client.ask(request(method, "/", &[], body::full("order"))).await;
            assert_eq!(reply.status, 200);
        }
    }
    let seen = origin.seen();
    assert_eq!(seen.len(), 40);
    assert!(seen.iter().all(|seen| seen.body == b"order"));
    let labels = [("outcome", "succeeded")];
    // after five failures in a row it is ejected
    assert!(gateway.metrics().await.count("tracegate_retries_total", &labels) >= 5);
}

#[tokio::test]
async fn by_default_the_only_endpoint_is_not_dialled_twice() {
    let stage = Stage::new(Answer::ok()).await;
    let refusing = Refusing::start();
    let text = format!("[upstreams.shop]\nendpoints = ['http://{}']\n", refusing.address);
    let gateway = Gateway::start(&[&all_to(refusing.address), &text, &stage.collector.grpc()]).await;
    let reply = gateway.get("/").await;
    let told = told(gateway.access_log(), &stage.collector, &reply.trace_id(), 1).await;
    assert_eq!((reply.status, told.log.get("not_retried")), (502, None));
    // unless the operator wants it
    let connect = "[routes.all.retry]\nattempts = 4\non = ['connect']\nbackoff = '1ms'\n";
    let gateway = Gateway::start(&[&all_to(refusing.address), connect, &stage.collector.grpc()]).await;
    let reply = gateway.get("/").await;
    let told =
        crate::support::stage::told(gateway.access_log(), &stage.collector, &reply.trace_id(), 4).await;
    assert_eq!((reply.status, &told.log["not_retried"]), (502, &"attempts_used".into()));
    let count: Vec<_> =
        told.attempts.iter().map(|span| span.attribute("http.request.resend_count")).collect();
    assert_eq!(count, [None, Some("1"), Some("2"), Some("3")]);
}

/// A kept connection closes as it is used again: the origin reads the next request and is gone.
#[tokio::test]
async fn by_default_a_kept_connection_that_closes_as_it_is_used_again_fails_no_idempotent_request() {
    for text in ["", HTTP2] {
        for method in [Method::GET, Method::PUT, Method::DELETE, Method::POST] {
            let origin = Origin::start(Answer::ok()).await;
            let link = TcpLink::to(origin.address);
            let collector = Collector::start().await;
            let gateway = Gateway::start(&[&all_to(link.address), text, &collector.grpc()]).await;
            let mut client = gateway.client().await;
            assert_eq!(client.get("/first").await.status, 200);
            // it comes to the origin, and the connection breaks before the answer
            let held = Gate::new();
            let (cut, gate) = (Arc::new(AtomicUsize::new(0)), held.clone());
            origin.answer(move |_: &Seen| match cut.fetch_add(1, Ordering::Relaxed) {
                0 => Answer::status(200).gate(&gate),
                _ => Answer::ok(),
            });
            let asked = request(method.clone(), "/second", &[], body::full("order"));
            let asking = tokio::spawn(async move { client.ask(asked).await });
            origin.seen_when("the second request", |seen| seen.len() == 2).await;
            link.set(Link::Reset);
            origin.open_connections(0).await;
            link.set(Link::Pass);
            let reply = within("an answer", asking).await.unwrap();
            let saved = method != Method::POST;
            let attempts = if saved { 2 } else { 1 };
            let told = told(gateway.access_log(), &collector, &reply.trace_id(), attempts).await;
            if saved {
                assert_eq!(reply.status, 200, "{method} {text}");
                assert_saved(&told, "upstream_reset");
                assert_eq!(origin.seen()[2].body, b"order");
            } else {
                assert_eq!((reply.status, reply.reason().as_deref()), (502, Some("upstream_reset")));
                assert_eq!(told.log["not_retried"], "not_idempotent");
                assert_eq!(origin.seen().len(), 2);
            }
        }
    }
}

#[tokio::test]
async fn an_http2_stream_that_was_not_processed_is_sent_again_whatever_its_method() {
    for refusal in [h2::Refuse::Stream, h2::Refuse::GoAway] {
        let origin = h2::Refusing::start(refusal).await;
        let text = "[upstreams.shop]\nprotocol = 'h2'\n";
        let collector = Collector::start().await;
        let gateway = Gateway::start(&[&all_to(origin.address), text, &collector.grpc()]).await;
        let reply = gateway.ask(request(Method::POST, "/", &[], body::full("order"))).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "order"), "{refusal:?}");
        let told = told(gateway.access_log(), &collector, &reply.trace_id(), 2).await;
        assert_saved(&told, "upstream_reset");
        assert_eq!(told.attempts[0].attribute("tracegate.detail"), Some("stream_refused"));
    }
}

#[tokio::test]
async fn the_next_attempt_goes_to_another_endpoint_when_the_time_for_one_is_over() {
    let (slow, good) = (Origin::start(Answer::stall()).await, Origin::start(Answer::ok()).await);
    let text = format!("{ALL}[routes.all.timeouts]\nattempt = '100ms'\n");
    let upstreams = two(slow.address, good.address);
    let gateway = Gateway::start(&[&upstreams, &route("all", "/{*path}", "shop"), &text]).await;
    let mut client = gateway.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(good.seen().len(), 10, "each request ended there");
    assert!(!slow.seen().is_empty(), "and some began at the slow one");
}

#[tokio::test]
async fn a_body_is_sent_again_up_to_the_stated_size_and_not_above() {
    for (length, kept) in [(1 << 10, true), ((1 << 10) + 1, false)] {
        for announced in [true, false] {
            for text in ["", HTTP2] {
                let stage =
                    Stage::and(first(1, Answer::status(503)), &format!("{ALL}body = '1KiB'\n{text}")).await;
                let bytes = Bytes::from(vec![b'x'; length]);
                let sent = if announced {
                    body::full(bytes.clone())
                } else {
                    let (one, two) = (bytes.slice(..100), bytes.slice(100..));
                    body::frames(vec![hyper::body::Frame::data(one), hyper::body::Frame::data(two)])
                };
                let reply = stage.gateway.ask(request(Method::PUT, "/", &[], sent)).await;
                let told = stage.told(&reply.trace_id(), if kept { 2 } else { 1 }).await;
                if kept {
                    assert_eq!(reply.status, 200);
                    assert!(stage.origin.seen().iter().all(|seen| seen.body == bytes), "{length}");
                } else {
                    assert_eq!(reply.status, 503, "{length} {announced}");
                    assert_eq!(told.server.attribute("tracegate.not_retried"), Some("body_not_kept"));
                }
            }
        }
    }
}

#[tokio::test]
async fn what_the_client_has_not_sent_yet_follows_when_it_comes() {
    let stage = Stage::and(first(1, Answer::status(503).early()), ALL).await;
    let (feeder, fed) = body::fed();
    let mut client = stage.client().await;
    feeder.send(Bytes::from_static(b"one ")).await.unwrap();
    let asked = request(Method::PUT, "/", &[], fed);
    let asking = tokio::spawn(async move { client.ask(asked).await });
    stage.origin.seen_when("both attempts", |seen| seen.len() == 2).await;
    feeder.send(Bytes::from_static(b"two")).await.unwrap();
    drop(feeder);
    let reply = within("an answer", asking).await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(stage.origin.seen()[1].body, b"one two");
}

#[tokio::test]
async fn a_budget_bounds_the_retries_of_all_routes_of_an_upstream() {
    let stage = Stage::and(
        Answer::status(503),
        &format!(
            "{ALL}attempts = 2\n[upstreams.shop.retry_budget]\nratio = 0.0\nmin_per_second = 1\nwindow = '60s'\n\
             {}[routes.other.retry]\nattempts = 2\nstatuses = [503]\nbackoff = '1ms'\n",
            route("other", "/other", "shop")
        ),
    )
    .await;
    let mut client = stage.client().await;
    for round in 0..50 {
        assert_eq!(client.get(if round % 2 == 0 { "/" } else { "/other" }).await.status, 503);
    }
    let count = stage.origin.seen().len();
    assert!((50 + 60..=50 + 61).contains(&count) || count == 100, "{count}");
    for _ in 0..30 {
        client.get("/").await;
    }
    let metrics = stage.gateway.metrics().await;
    let exhausted = metrics.count("tracegate_retries_total", &[("outcome", "budget_exhausted")]);
    let made = metrics.count("tracegate_retries_total", &[("outcome", "failed")]);
    assert_eq!((exhausted + made, made), (80, 60), "{}", metrics.text);
    let reply = client.get("/").await;
    assert_eq!(stage.told(&reply.trace_id(), 1).await.log["not_retried"], "budget_exhausted");
}

#[tokio::test]
async fn the_upstream_is_given_the_time_that_it_asks_for_within_bounds() {
    let soon = Stage::and(first(1, Answer::status(503).header("retry-after", "1")), ALL).await;
    let asked = std::time::Instant::now();
    assert_eq!(soon.get("/").await.status, 200);
    assert!(asked.elapsed().as_secs_f64() >= 1.0);
    let late = Stage::and(first(1, Answer::status(503).header("retry-after", "60")), ALL).await;
    let reply = late.get("/").await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("60")), "the client is told");
    assert_eq!(late.told(&reply.trace_id(), 1).await.log["not_retried"], "retry_after");
}

#[tokio::test]
async fn there_is_no_retry_for_which_no_time_would_be_left() {
    let text = format!("{ALL}[routes.all.timeouts]\nrequest = '500ms'\n");
    let stage = Stage::and(first(1, Answer::status(503).header("retry-after", "1")), &text).await;
    let reply = stage.get("/").await;
    assert_eq!(reply.status, 503);
    assert_eq!(stage.told(&reply.trace_id(), 1).await.log["not_retried"], "out_of_time");
}

#[tokio::test]
async fn the_time_for_the_whole_request_bounds_all_attempts_together() {
    let timeouts = "[routes.all.timeouts]\nattempt = '200ms'\nrequest = '500ms'\n";
    let stage = Stage::and(Answer::stall(), &format!("{ALL}attempts = 8\n{timeouts}")).await;
    let reply = stage.get("/").await;
    assert_eq!((reply.status, reply.reason().as_deref()), (504, Some("upstream_timeout")));
    let told = stage.told(&reply.trace_id(), 3).await;
    let details: Vec<_> = told.attempts.iter().map(|span| span.attribute("tracegate.detail")).collect();
    assert_eq!(details, [Some("per_try"), Some("per_try"), Some("total")]);
    assert_eq!(told.log["detail"], "total");
}

#[tokio::test]
async fn a_client_that_leaves_while_a_retry_is_waited_for_is_gone_and_nothing_is_sent_any_more() {
    let text = format!("{ALL}retry_after = '1h'\n[routes.all.timeouts]\nrequest = 'off'\n");
    let stage = Stage::and(Answer::status(503).header("retry-after", "600"), &text).await;
    let raw = Raw::sending(stage.gateway.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let failed = |metrics: &crate::support::metrics::Metrics| {
        metrics.count("tracegate_endpoint_failures_total", &[("tracegate_reason", "upstream_status")]) == 1
    };
    stage.gateway.metrics_when("the first attempt's end", failed).await;
    raw.reset();
    let told = stage.told_first(1).await;
    assert_eq!((&told.log["reason"], &told.log["status"]), (&"client_gone".into(), &499.into()));
    assert_eq!(told.attempts[0].attribute("error.type"), Some("503"), "the attempt keeps its own end");
    assert_eq!(stage.origin.seen().len(), 1);
}

#[tokio::test]
async fn a_listed_grpc_status_is_retried_if_nothing_but_the_status_came() {
    let status = |code: &str| {
        Answer::status(200).header("content-type", "application/grpc").header("grpc-status", code)
    };
    let text = format!("{HTTP2}[routes.all.retry]\ngrpc_statuses = ['unavailable']\nnon_idempotent = true\n");
    for (code, attempts) in [("14", 2), ("13", 1)] {
        let stage = Stage::and(first(1, status(code)), &text).await;
        let fields = [("content-type", "application/grpc")];
        let asked = request(Method::POST, "/shop.Orders/Create", &fields, body::full("message"));
        let reply = stage.gateway.ask(asked).await;
        assert_eq!(reply.status, 200);
        assert_eq!(stage.origin.seen().len(), attempts, "{code}");
    }
}

#[tokio::test]
async fn retries_can_be_turned_off_and_are_inherited() {
    for (text, attempts) in [
        ("[routes.all]\nretry = 'off'\n", 1),
        ("[defaults.route]\nretry = 'off'\n", 1),
        ("[defaults.route.retry]\nstatuses = [503]\nbackoff = '1ms'\n", 3),
        ("[defaults.route.retry]\nstatuses = [503]\nbackoff = '1ms'\n[routes.all.retry]\nattempts = 2\n", 2),
        ("", 1),
    ] {
        let stage = Stage::and(Answer::status(503), text).await;
        let reply = stage.get("/").await;
        assert_eq!(stage.told(&reply.trace_id(), attempts).await.attempts.len(), attempts, "{text}");
    }
}

#[tokio::test]
async fn a_retried_request_is_kept_by_sampling_whatever_had_been_decided() {
    let text = format!("{ALL}[telemetry.sampling]\nratio = 0.0\n");
    let stage = Stage::and(first(1, Answer::status(503)), &text).await;
    let reply = stage.get("/").await;
    let told = stage.told(&reply.trace_id(), 2).await;
    assert_eq!(told.server.attribute("tracegate.sampled_because"), Some("retried"));
}

#[tokio::test]
async fn the_upstream_is_told_how_much_time_is_left_where_the_operator_names_a_field() {
    let text = "[routes.all.timeouts]\nfield = 'x-request-timeout-ms'\nattempt = '5s'\nrequest = '20s'\n";
    let stage = Stage::and(Answer::ok(), text).await;
    let fields = [("x-request-timeout-ms", "999999")];
    let reply = stage.gateway.ask(request(Method::GET, "/", &fields, body::empty())).await;
    assert_eq!(reply.status, 200);
    let seen = stage.origin.only().await;
    let told: Vec<_> = seen.headers.all("x-request-timeout-ms");
    let [left] = told[..] else { panic!("one value: {told:?}") };
    assert!((1..=5000).contains(&left.parse::<u64>().unwrap()), "{left}");
}

/// An endpoint that dies under load loses no request that can be repeated.
#[tokio::test]
async fn an_endpoint_that_dies_and_comes_back_under_load_loses_no_request() {
    let origins = [Origin::start(Answer::ok()).await, Origin::start(Answer::ok()).await];
    let mut link = TcpLink::to(origins[0].address);
    let budget = "retry_budget = { ratio = 1.0 }\n";
    let text = format!("{}{budget}", two(link.address, origins[1].address));
    let gateway = Gateway::start(&[&text, &route("all", "/{*path}", "shop"), ALL]).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut client = gateway.client().await;
        clients.spawn(async move {
            for _ in 0..100 {
                let reply: Reply = Reply::read(client.send(get("/")).await.unwrap()).await;
                assert_eq!((reply.status, reply.broken), (200, false), "{}", reply.text());
            }
        });
    }
    for _ in 0..5 {
        let seen = origins[1].seen().len();
        link.refuse().await;
        origins[1].seen_when("more requests", |now| now.len() >= (seen + 40).min(400)).await;
        link.listen_again();
    }
    within("every client", clients.join_all()).await;
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_with_what_to_write() {
    for (text, words) in [
        ("attempts = 9", "9 is more than are recorded"),
        ("on = ['conect']", "\"conect\" is none of"),
        ("statuses = [200]", "200 is no failure"),
        ("grpc_statuses = ['ok']", "\"ok\" is no failure of gRPC"),
        ("backoff = '2s'\nmax_backoff = '1s'", "max_backoff: is less than backoff"),
        ("[upstreams.shop.retry_budget]\nwindow = '1500ms'", "cannot be counted by the second"),
        ("[routes.all.timeouts]\nfield = 'no field'", "is not the name of a header field"),
    ] {
        let refusing = Refusing::start();
        let text = format!("[routes.all.retry]\n{text}\n");
        let why = Gateway::refusal(&[&all_to(refusing.address), &text]).await;
        assert!(why.contains(words), "{text}: {why}");
    }
}

#[tokio::test]
async fn an_endpoint_that_takes_no_connection_is_left_for_one_that_does() {
    let (hole, origin) = (Blackhole::start().await, Origin::start(Answer::ok()).await);
    let text = format!("{}connect_timeout = '100ms'\n", two(hole.address, origin.address));
    let gateway = Gateway::start(&[&text, &route("all", "/{*path}", "shop")]).await;
    let mut client = gateway.client().await;
    for _ in 0..8 {
        assert_eq!(client.get("/").await.status, 200);
    }
}

fn two(one: std::net::SocketAddr, other: std::net::SocketAddr) -> String {
    format!("[upstreams.shop]\nservice = 'shop-api'\nendpoints = ['http://{one}', 'http://{other}']\n")
}

/// An HTTP/2 server by hand, which takes no stream of its first connection.
mod h2 {
    use std::net::SocketAddr;

    use bytes::Bytes;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;

    #[derive(Debug, Clone, Copy)]
    pub enum Refuse {
        Stream,
        GoAway,
    }

    pub struct Refusing {
        pub address: SocketAddr,
        task: JoinHandle<()>,
    }

    impl Refusing {
        pub async fn start(refuse: Refuse) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let task = tokio::spawn(async move {
                let mut count = 0;
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let refuse = (count == 0).then_some(refuse);
                    count += 1;
                    connections.spawn(serve(stream, refuse));
                }
            });
            Self { address, task }
        }
    }

    impl Drop for Refusing {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    async fn serve(stream: TcpStream, mut refuse: Option<Refuse>) {
        if let Some(Refuse::GoAway) = refuse {
            go_away(stream).await;
            return;
        }
        let mut connection = ::h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            if refuse.take().is_some() {
                respond.send_reset(::h2::Reason::REFUSED_STREAM);
                continue;
            }
            tokio::spawn(async move {
                let mut body = request.into_body();
                let mut sent = Vec::new();
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                    sent.extend_from_slice(&data);
                }
                let mut answer = respond.send_response(http::Response::new(()), false).unwrap();
                answer.send_data(Bytes::from(sent), true).unwrap();
            });
        }
    }

    const HEADERS: u8 = 1;

    /// SETTINGS, and after the first stream GOAWAY whose last stream is none.
    async fn go_away(mut stream: TcpStream) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            if head[3] == HEADERS {
                break;
            }
        }
        let go_away = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        stream.write_all(&go_away).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }
}

#[tokio::test]
async fn a_retry_that_finds_no_place_does_not_hide_why_the_first_attempt_failed() {
    // the breaker has room for one, which somebody else takes while the retry waits
    let gate = Gate::new();
    let held = Answer::status(200).gate(&gate).data("held");
    let script = move |seen: &Seen| match seen.target.as_str() {
        "/held" => held.clone(),
        _ => Answer::status(503).header("retry-after", "1"),
    };
    let text = format!("{ALL}attempts = 8\n[upstreams.shop.breaker]\nrequests = 1\n");
    let stage = Stage::and(script, &text).await;
    let mut client = stage.client().await;
    let first = tokio::spawn(async move { client.get("/").await });
    stage.origin.seen_when("the first attempt", |seen| seen.len() == 1).await;
    let mut other = stage.client().await;
    let holding = tokio::spawn(async move { while other.get("/held").await.status != 200 {} });
    let taken = |seen: &[Seen]| seen.iter().any(|seen| seen.target == "/held");
    stage.origin.seen_when("the place is taken", taken).await;
    let reply = within("the first answer", first).await.unwrap();
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    let line = stage.gateway.logged(&reply.trace_id()).await;
    assert_eq!(
        (&line["reason"], &line["not_retried"]),
        (&"upstream_status".into(), &"no_place".into()),
        "{line}"
    );
    gate.open();
    within("the other answer", holding).await.unwrap();

    // there is no endpoint any more when its turn comes
    let text = format!("{ALL}[routes.all.timeouts]\nattempt = '300ms'\n");
    let stage = Stage::and(Answer::stall(), &text).await;
    let mut client = stage.client().await;
    let asking = tokio::spawn(async move { client.get("/").await });
    stage.origin.seen_when("the attempt", |seen| seen.len() == 1).await;
    assert!(stage.gateway.set_in_use("shop", stage.origin.address, false));
    let reply = within("the answer", asking).await.unwrap();
    assert_eq!((reply.status, reply.reason().as_deref()), (504, Some("upstream_timeout")));
    let line = stage.gateway.logged(&reply.trace_id()).await;
    assert_eq!(line["not_retried"], "no_place", "{line}");
}
