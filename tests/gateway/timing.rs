//! Timing: where the time of an attempt went, on its CLIENT span, and what the gateway itself took.

use std::time::Duration;

use http::Method;

use crate::support::client::{get, request};
use crate::support::collector::Span;
use crate::support::gateway::route;
use crate::support::stage::told;
use crate::support::{
    Answer, Authority, Client, Collector, Dns, Gate, Gateway, Link, Metrics, Origin, Reply, Stage, TcpLink,
    body, within,
};

/// The moments of an attempt, in milliseconds from its start, in the order in which they come.
const MOMENTS: [&str; 3] = ["tracegate.request_sent_ms", "tracegate.first_byte_ms", "tracegate.last_byte_ms"];

fn moments(span: &Span) -> Vec<Option<f64>> {
    MOMENTS.map(|key| span.attribute(key).map(|text| text.parse().unwrap())).into()
}

#[tokio::test]
async fn an_attempt_tells_when_each_part_was_over_and_how_many_bytes_passed() {
    let gate = Gate::new();
    let stage = Stage::new(Answer::status(200).chunked().data("first").gate(&gate).data("last")).await;
    let mut client = Client::http1(stage.gateway.address()).await;
    for (connection, path) in [("new", "/1"), ("reused", "/2")] {
        let answer = client.send(request(Method::POST, path, &[], body::full("twelve bytes"))).await.unwrap();
        gate.open();
        let told =
            answer.headers()["server-timing"].to_str().unwrap()["trace;desc=\"00-".len()..][..32].to_owned();
        assert_eq!(Reply::read(answer).await.text(), "firstlast");
        let attempt = stage.told(&told, 1).await.attempts.remove(0);
        assert_eq!(attempt.attribute("tracegate.connection"), Some(connection));
        assert_eq!(attempt.attribute("tracegate.connect_ms").is_some(), connection == "new");
        assert_eq!(attempt.attribute("http.request.body.size"), Some("12"));
        assert_eq!(attempt.attribute("http.response.body.size"), Some("9"));
        let moments = moments(&attempt);
        assert!(moments.iter().all(Option::is_some) && moments.is_sorted(), "{moments:?}");
        // the span ends with the last byte
        #[expect(clippy::cast_precision_loss, reason = "a few milliseconds")]
        let duration = (attempt.end - attempt.start) as f64 / 1e6;
        assert!((duration - moments[2].unwrap()).abs() < 0.001, "{duration} {moments:?}");
    }
}

#[tokio::test]
async fn a_moment_that_never_came_is_not_told() {
    for (answer, known) in [
        (Answer::reset(), [true, false, false]),
        (Answer::ok().announced(100).then_close(), [true, true, false]),
    ] {
        let stage = Stage::new(answer).await;
        let mut client = Client::http1(stage.gateway.address()).await;
        let _ = client.get("/").await;
        let attempt = stage.told_first(1).await.attempts.remove(0);
        let moments: Vec<bool> = moments(&attempt).iter().map(Option::is_some).collect();
        assert_eq!(moments, known, "{attempt:?}");
    }
}

/// How long a part is held up, by which it is told from the others.
const HELD: Duration = Duration::from_millis(60);

/// The parts of the way to a connection, in milliseconds, in the order in which they come.
const PARTS: [&str; 4] =
    ["tracegate.wait_ms", "tracegate.resolve_ms", "tracegate.connect_ms", "tracegate.handshake_ms"];

/// The indexes of [`PARTS`].
const WAIT: usize = 0;
const RESOLVE: usize = 1;
const CONNECT: usize = 2;
const HANDSHAKE: usize = 3;

fn parts(span: &Span) -> [Option<f64>; 4] {
    PARTS.map(|key| span.attribute(key).map(|text| text.parse().unwrap()))
}

/// These parts took place and no others, together in the time until the request had been sent; and the one that was
/// held up took the time: half of it at least, for it may have begun a little after it was seen to.
fn assert_parts(span: &Span, connection: &str, took_place: &[usize], held: Option<usize>) {
    assert_eq!(span.attribute("tracegate.connection"), Some(connection), "{span:?}");
    let parts = parts(span);
    let found: Vec<usize> = (0..parts.len()).filter(|&part| parts[part].is_some()).collect();
    assert_eq!(found, took_place, "{span:?}");
    let sent = moments(span)[0].expect("it was sent");
    // each is rounded for itself
    assert!(parts.iter().flatten().sum::<f64>() <= sent + 0.01, "{parts:?} in {sent}");
    if let Some(held) = held {
        assert!(parts[held].unwrap() >= HELD.as_secs_f64() * 500.0, "{}: {span:?}", PARTS[held]);
    }
}

/// Waits until so many attempts have begun, and then for as long as a part is held up.
async fn hold(gateway: &Gateway, attempts: u64) {
    let begun = |metrics: &Metrics| metrics.count("http_client_active_requests", &[]) == attempts;
    gateway.metrics_when("the attempts to begin", begun).await;
    tokio::time::sleep(HELD).await;
}

/// An endpoint by name and TLS, over a link and a name server that can be held up.
struct Far {
    origin: Origin,
    link: TcpLink,
    dns: Dns,
    collector: Collector,
    gateway: Gateway,
    _directory: tempfile::TempDir,
}

impl Far {
    /// `names` keeps the name server from answering; `more` stands in the upstream's table.
    async fn new(protocol: &str, names: Option<&Gate>, more: &str) -> Self {
        let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
        authority.write(directory.path());
        let origin = Origin::start_tls(&authority.identity(&["shop.internal"]), Answer::ok()).await;
        let (link, dns, collector) =
            (TcpLink::to(origin.address), Dns::start().await, Collector::start().await);
        dns.set("shop.internal", &["127.0.0.1"], 60);
        if let Some(gate) = names {
            dns.hold(gate);
        }
        // those who ask at once share a connection of HTTP/2 if they are with one worker
        let text = format!(
            "workers = 1\n{}[upstreams.shop]\nprotocol = '{protocol}'\nendpoints = ['https://shop.internal:{}']\n\
             tls = {{ ca_file = 'ca.pem' }}\n{more}{}",
            dns.toml("60s"),
            link.address.port(),
            route("all", "/{*path}", "shop")
        );
        let gateway = Gateway::start_in(directory.path(), &[&text, &collector.grpc()]).await;
        Self { origin, link, dns, collector, gateway, _directory: directory }
    }

    /// Asks in a task of its own.
    async fn asking(&self) -> tokio::task::JoinHandle<Reply> {
        let mut client = self.gateway.client().await;
        tokio::spawn(async move { client.get("/").await })
    }

    /// The CLIENT span of what comes of it.
    async fn attempt(&self, asking: tokio::task::JoinHandle<Reply>) -> Span {
        let attempt = self.ended(asking).await;
        assert!(!attempt.error, "{attempt:?}");
        attempt
    }

    /// The same, however it ends.
    async fn ended(&self, asking: tokio::task::JoinHandle<Reply>) -> Span {
        let reply = within("the answer", asking).await.unwrap();
        let told = told(self.gateway.access_log(), &self.collector, &reply.trace_id(), 1).await;
        told.attempts.into_iter().next().unwrap()
    }
}

#[tokio::test]
async fn each_part_of_the_way_to_a_new_connection_is_told_and_none_of_one_that_is_used_again() {
    for protocol in ["http/1.1", "h2"] {
        let new = [RESOLVE, CONNECT, HANDSHAKE];
        let gate = Gate::new();
        let far = Far::new(protocol, Some(&gate), "").await;
        let asking = far.asking().await;
        hold(&far.gateway, 1).await;
        gate.open();
        assert_parts(&far.attempt(asking).await, "new", &new, Some(RESOLVE));
        assert!(far.dns.queries() > 0);
        for _ in 0..2 {
            assert_parts(&far.attempt(far.asking().await).await, "reused", &[], None);
        }
        assert_eq!(far.origin.connections().accepted, 1);

        let far = Far::new(protocol, None, "").await;
        far.link.set(Link::Stall);
        let asking = far.asking().await;
        hold(&far.gateway, 1).await;
        far.link.set(Link::Pass);
        assert_parts(&far.attempt(asking).await, "new", &new, Some(HANDSHAKE));
    }
}

#[tokio::test]
async fn an_attempt_that_waits_for_a_connection_says_how_long() {
    // for a place in the pool
    let gate = Gate::new();
    let pool = "[upstreams.shop.pool]\nconnections = 1\nwait = '20s'\n";
    let stage = Stage::and(Answer::status(200).gate(&gate).data("a"), pool).await;
    let mut asking = Vec::new();
    for attempts in 1..=2 {
        let mut client = stage.client().await;
        asking.push(tokio::spawn(async move { client.get("/").await }));
        hold(&stage.gateway, attempts).await;
    }
    gate.open();
    let mut attempts = Vec::new();
    for asking in asking {
        let reply = within("the answer", asking).await.unwrap();
        attempts.push(stage.told(&reply.trace_id(), 1).await.attempts.remove(0));
    }
    // the address is one: nothing is resolved
    assert_parts(&attempts[0], "new", &[CONNECT], None);
    assert_parts(&attempts[1], "reused", &[WAIT], Some(WAIT));

    // for one that another attempt is dialling
    let far = Far::new("h2", None, "").await;
    far.link.set(Link::Stall);
    let first = far.asking().await;
    hold(&far.gateway, 1).await;
    let second = far.asking().await;
    hold(&far.gateway, 2).await;
    far.link.set(Link::Pass);
    assert_parts(&far.attempt(first).await, "new", &[RESOLVE, CONNECT, HANDSHAKE], Some(HANDSHAKE));
    assert_parts(&far.attempt(second).await, "reused", &[WAIT], Some(WAIT));
}

#[tokio::test]
async fn an_attempt_that_comes_by_no_connection_tells_how_far_it_got() {
    let assert_far = |span: &Span, reason: &str, parts_told: &[usize]| {
        assert_eq!(span.attribute("error.type"), Some(reason), "{span:?}");
        assert_eq!(span.attribute("tracegate.connection"), None, "{span:?}");
        let told = parts(span);
        let found: Vec<usize> = (0..told.len()).filter(|&part| told[part].is_some()).collect();
        assert_eq!(found, parts_told, "{span:?}");
        assert_eq!(span.attribute("network.peer.port").is_some(), found.contains(&CONNECT), "{span:?}");
    };
    for protocol in ["http/1.1", "h2"] {
        let far = Far::new(protocol, None, "connect_timeout = '300ms'\n").await;
        far.link.set(Link::Stall);
        let attempt = far.ended(far.asking().await).await;
        assert_far(&attempt, "tls_failed", &[RESOLVE, CONNECT]);
        assert_eq!(attempt.attribute("tracegate.detail"), Some("timeout"));
    }
    // it is the request's time that is over, in the middle of the handshake
    let far = Far::new("http/1.1", None, "[defaults.route.timeouts]\nattempt = '300ms'\n").await;
    far.link.set(Link::Stall);
    let attempt = far.ended(far.asking().await).await;
    assert_far(&attempt, "upstream_timeout", &[RESOLVE, CONNECT]);

    let gate = Gate::new();
    let pool = "[upstreams.shop.pool]\nconnections = 1\nwait = '60ms'\n";
    let stage = Stage::and(Answer::status(200).gate(&gate), pool).await;
    let mut client = stage.client().await;
    let held = tokio::spawn(async move { client.get("/").await });
    stage.origin.seen_when("the first request", |seen| !seen.is_empty()).await;
    let reply = stage.get("/").await;
    let attempt = stage.told(&reply.trace_id(), 1).await.attempts.remove(0);
    assert_far(&attempt, "pool_timeout", &[WAIT]);
    assert!(parts(&attempt)[WAIT].unwrap() >= 60.0, "{attempt:?}");
    gate.open();
    within("the first answer", held).await.unwrap();
}

#[tokio::test]
async fn the_moments_of_an_attempt_come_when_they_come() {
    let half = HELD.as_secs_f64() * 500.0;
    for (text, http2) in [("", false), ("[upstreams.shop]\nprotocol = 'h2'\n", true)] {
        let (head, rest) = (Gate::new(), Gate::new());
        let answer = Answer::status(200).gate(&head).data("first").gate(&rest).data("last");
        let stage = Stage::and(answer, text).await;
        let address = stage.gateway.address();
        let mut client = if http2 { Client::http2(address).await } else { Client::http1(address).await };
        let (feeder, sent) = body::fed();
        let asking = tokio::spawn(async move {
            let answer = client.send(request(Method::POST, "/", &[], sent)).await.unwrap();
            (client, answer)
        });
        stage.origin.seen_when("the head", |seen| !seen.is_empty()).await;
        hold(&stage.gateway, 1).await;
        drop(feeder);
        stage.origin.seen_when("the whole request", |seen| seen[0].complete).await;
        hold(&stage.gateway, 1).await;
        head.open();
        let (_client, answer) = within("the answer's head", asking).await.unwrap();
        hold(&stage.gateway, 1).await;
        rest.open();
        let trace_id =
            answer.headers()["server-timing"].to_str().unwrap()["trace;desc=\"00-".len()..][..32].to_owned();
        assert_eq!(Reply::read(answer).await.text(), "firstlast");
        let attempt = stage.told(&trace_id, 1).await.attempts.remove(0);
        let moments: Vec<f64> = moments(&attempt).into_iter().flatten().collect();
        let [request_sent, first, last] = moments[..] else { panic!("{attempt:?}") };
        let took = [request_sent, first - request_sent, last - first];
        assert!(took.iter().all(|took| *took >= half), "http2 {http2}: {took:?}");
    }
}

/// The sum of a histogram over all its series, in seconds.
fn sum(metrics: &Metrics, name: &str) -> f64 {
    let samples = metrics.text.lines().filter(|line| line.starts_with(name));
    samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

/// "Is it the gateway?": what is not spent in attempts is its own.
#[tokio::test]
async fn the_overhead_is_what_a_request_takes_beside_its_attempts() {
    let gate = Gate::new();
    let stage = Stage::new(Answer::status(200).gate(&gate).data("late")).await;
    let mut client = stage.client().await;
    let asking = tokio::spawn(async move { client.send(get("/")).await.map(Reply::read).unwrap().await });
    hold(&stage.gateway, 1).await;
    gate.open();
    assert_eq!(within("the answer", asking).await.unwrap().text(), "late");
    stage.gateway.log(1).await;
    let metrics = stage.gateway.metrics().await;
    let [request, attempt, own] = [
        "http_server_request_duration_seconds_sum",
        "http_client_request_duration_seconds_sum",
        "tracegate_overhead_seconds_sum",
    ]
    .map(|name| sum(&metrics, name));
    assert!(attempt >= HELD.as_secs_f64() / 2.0 && own > 0.0, "{attempt} {own}");
    assert!((request - attempt - own).abs() < 1e-6, "{request} is not {attempt} and {own}");
}

/// The gateway's own time is told in steps that show it.
#[tokio::test]
async fn the_overhead_has_buckets_for_microseconds() {
    let stage = Stage::new(Answer::ok()).await;
    stage.get("/").await;
    stage.gateway.log(1).await;
    let metrics = stage.gateway.metrics().await;
    let bounds = metrics.label_values("tracegate_overhead_seconds_bucket", "le");
    for bound in ["0.00001", "0.000025", "0.0001", "0.001", "1", "+Inf"] {
        assert!(bounds.contains(bound), "{bound}: {bounds:?}");
    }
    assert_eq!(metrics.count("tracegate_overhead_seconds_count", &[]), 1);
}
