//! Connections of HTTP/1.1 on which nothing is said: they are parked, and nobody notices.

use std::time::{Duration, Instant};

use crate::support::gateway::all_to;
use crate::support::wire::Wire;
use crate::support::{Answer, Authority, Client, Gateway, Metrics, Origin, Raw, Stage, within};

const ASK: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Connections that are open, and those of them that are parked.
fn connections(metrics: &Metrics) -> (u64, u64) {
    let public = [("listener", "public")];
    let [open, parked] = ["open", "parked"].map(|what| format!("tracegate_connections_{what}"));
    (metrics.count(&open, &public), metrics.count(&parked, &public))
}

/// Waits until so many connections are open and so many of them are parked.
async fn stand(gateway: &Gateway, open: u64, parked: u64) {
    let what = format!("{open} connections, {parked} of them parked");
    gateway.metrics_when(&what, |metrics| connections(metrics) == (open, parked)).await;
}

/// A connection that has been served one request and is parked, the only one.
async fn parked(stage: &Stage) -> Raw {
    let mut raw = Raw::sending(stage.gateway.address(), ASK).await;
    assert_eq!(raw.reply().await.status, 200);
    stand(&stage.gateway, 1, 1).await;
    raw
}

/// Another connection has been served now and is parked: whatever might have been parked before is.
async fn another_is_parked(stage: &Stage, parked: u64) -> Raw {
    let mut another = Raw::sending(stage.gateway.address(), ASK).await;
    assert_eq!(another.reply().await.status, 200);
    stand(&stage.gateway, 2, parked).await;
    another
}

#[tokio::test]
async fn a_connection_is_parked_before_its_first_request_and_between_two_and_answers_each() {
    let stage = Stage::new(Answer::ok()).await;
    let mut raw = Raw::connect(stage.gateway.address()).await;
    for _ in 0..3 {
        stand(&stage.gateway, 1, 1).await;
        raw.send(ASK).await;
        assert_eq!(raw.reply().await.status, 200);
    }
    stand(&stage.gateway, 1, 1).await;
    drop(raw);
    stand(&stage.gateway, 0, 0).await;
    assert_eq!(stage.gateway.log(3).await.len(), 3, "the requests and nothing else");
}

#[tokio::test]
async fn a_parked_connection_answers_requests_that_come_in_one_piece_in_pieces_or_in_bytes() {
    let stage = Stage::new(Answer::ok()).await;
    let mut raw = parked(&stage).await;
    raw.send(ASK.repeat(3)).await;
    for _ in 0..3 {
        assert_eq!(raw.reply().await.text(), "hello");
    }
    stand(&stage.gateway, 1, 1).await;
    // an empty line before a request is passed over (RFC 9112 section 2.2)
    for piece in ["\r\n", "P", "RI", " / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n", "\r\nab"] {
        raw.send(piece).await;
        stage.gateway.metrics_when("it is read", |metrics| connections(metrics) == (1, 0)).await;
    }
    raw.send(["c", ASK].concat()).await;
    assert_eq!((raw.reply().await.status, raw.reply().await.status), (200, 200));
    assert_eq!(stage.origin.seen_when("all of them", |seen| seen.len() == 6).await[4].body_bytes, 3);
}

#[tokio::test]
async fn a_connection_is_parked_after_requests_whose_bodies_have_been_read() {
    let stage = Stage::new(Answer::ok()).await;
    let mut raw = Raw::connect(stage.gateway.address()).await;
    for upload in [
        "content-length: 5\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n",
    ] {
        raw.send(["POST / HTTP/1.1\r\nhost: a\r\n", upload].concat()).await;
        assert_eq!(raw.reply().await.status, 200);
        stand(&stage.gateway, 1, 1).await;
    }
    assert!(stage.origin.seen().iter().all(|seen| seen.body_bytes == 5));
}

#[tokio::test]
async fn half_a_head_is_not_parked_even_if_it_came_with_the_request_before() {
    let stage = Stage::new(Answer::ok()).await;
    let mut raw = Raw::sending(stage.gateway.address(), ASK).await;
    assert_eq!(raw.reply().await.status, 200);
    raw.send(&ASK[..20]).await;
    another_is_parked(&stage, 1).await;
    raw.send([&ASK[20..], &ASK[..20]].concat()).await;
    assert_eq!(raw.reply().await.status, 200);
    another_is_parked(&stage, 1).await;
    raw.send(&ASK[20..]).await;
    assert_eq!(raw.reply().await.header("connection"), None);
    stand(&stage.gateway, 1, 1).await;
}

#[tokio::test]
async fn half_a_head_that_came_with_the_request_before_has_the_time_of_a_head() {
    let stage = Stage::and(Answer::ok(), "[listeners.public]\ntimeouts.head = '400ms'\n").await;
    let mut raw = Raw::sending(stage.gateway.address(), [ASK, &ASK[..20]].concat()).await;
    assert_eq!(raw.reply().await.status, 200);
    let reply = raw.reply().await;
    assert_eq!((reply.status, reply.reason().as_deref()), (408, Some("client_timeout")));
}

#[tokio::test]
async fn an_empty_line_after_a_body_is_no_head() {
    let stage = Stage::new(Answer::ok()).await;
    let upload = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello\r\n";
    let mut raw = Raw::sending(stage.gateway.address(), upload).await;
    assert_eq!(raw.reply().await.status, 200);
    stand(&stage.gateway, 1, 1).await;
    raw.send(ASK).await;
    assert_eq!(raw.reply().await.status, 200);
}

#[tokio::test]
async fn the_time_for_a_head_begins_with_its_first_byte_after_the_connection_was_parked() {
    let head = Duration::from_millis(400);
    let stage = Stage::and(Answer::ok(), "[listeners.public]\ntimeouts.head = '400ms'\n").await;
    let mut raw = parked(&stage).await;
    let began = Instant::now();
    raw.send(&ASK[..20]).await;
    let reply = raw.reply().await;
    assert_eq!((reply.status, reply.reason().as_deref()), (408, Some("client_timeout")));
    assert!(began.elapsed() >= head, "it was refused after {:?}", began.elapsed());
    assert!(raw.rest().await.is_empty());
    stand(&stage.gateway, 0, 0).await;
}

#[tokio::test]
async fn what_is_no_head_is_refused_after_the_connection_was_parked() {
    let stage = Stage::new(Answer::ok()).await;
    let mut raw = parked(&stage).await;
    raw.send("not a request\r\n\r\n").await;
    let reply = raw.reply().await;
    assert_eq!((reply.status, reply.reason().as_deref()), (400, Some("bad_request")));
    assert!(raw.rest().await.is_empty());
    // HTTP/2 comes first or not at all
    let mut raw = parked(&stage).await;
    raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(raw.rest().await.is_empty());
    assert_eq!(stage.gateway.log(4).await[3]["reason"], "bad_request");
}

#[tokio::test]
async fn a_parked_connection_is_closed_at_the_idle_timeout() {
    let idle = Duration::from_secs(4);
    let stage = Stage::and(Answer::ok(), "[listeners.public]\ntimeouts.idle = '4s'\n").await;
    let began = Instant::now();
    let mut raw = parked(&stage).await;
    assert!(raw.rest().await.is_empty());
    assert!(began.elapsed() >= idle, "it was closed after {:?}", began.elapsed());
    stand(&stage.gateway, 0, 0).await;
    let timed_out = [("listener", "public"), ("outcome", "timeout")];
    assert_eq!(stage.gateway.metrics().await.count("tracegate_connections_total", &timed_out), 1);
}

#[tokio::test]
async fn a_parked_connection_is_closed_when_the_gateway_goes_down() {
    let stage = Stage::new(Answer::ok()).await;
    let mut raw = parked(&stage).await;
    within("the end", stage.gateway.stop()).await;
    assert!(raw.rest().await.is_empty());
}

#[tokio::test]
async fn a_parked_connection_is_told_with_its_next_answer_that_the_gateway_leaves() {
    let stage = Stage::and(Answer::ok(), "[shutdown]\ndrain_delay = '10s'\n").await;
    let mut raw = parked(&stage).await;
    let pages = stage.gateway.admin_address();
    let stopping = tokio::spawn(stage.gateway.stop());
    let unready = async { while crate::support::client::get_admin(pages, "/readyz").await.status != 503 {} };
    within("/readyz to say 503", unready).await;
    raw.send(ASK).await;
    let reply = raw.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert!(raw.rest().await.is_empty());
    stopping.abort();
}

#[tokio::test]
async fn a_connection_that_grows_old_while_it_is_parked_is_told_with_its_next_answer() {
    let stage = Stage::and(Answer::ok(), "[listeners.public]\ntimeouts.connection_age = '200ms'\n").await;
    let mut raw = Raw::connect(stage.gateway.address()).await;
    stand(&stage.gateway, 1, 1).await;
    // it is older than two that grow old one after the other
    for _ in 0..2 {
        let mut other = stage.client().await;
        let closing = async { while other.get("/").await.header("connection") != Some("close") {} };
        within("an answer that says so", closing).await;
    }
    stand(&stage.gateway, 1, 1).await;
    raw.send(ASK).await;
    assert_eq!(raw.reply().await.header("connection"), Some("close"));
    assert!(raw.rest().await.is_empty());
    stand(&stage.gateway, 0, 0).await;
    let aged = [("listener", "public"), ("outcome", "max_age")];
    assert_eq!(stage.gateway.metrics().await.count("tracegate_connections_total", &aged), 3);
}

#[tokio::test]
async fn requests_are_counted_across_parking() {
    let stage = Stage::and(Answer::ok(), "[listeners.public]\nlimits.requests_per_connection = 2\n").await;
    let mut raw = parked(&stage).await;
    raw.send(ASK).await;
    assert_eq!(raw.reply().await.header("connection"), Some("close"));
    assert!(raw.rest().await.is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_not_parked() {
    let length = 64 << 20;
    let script = move |seen: &crate::support::Seen| {
        if seen.target == "/long" { Answer::ok().zeros(length) } else { Answer::ok() }
    };
    let stage = Stage::new(script).await;
    let mut raw = Raw::sending(stage.gateway.address(), ASK.replace("/ ", "/long ")).await;
    let head = raw.head().await;
    assert_eq!(head.status(), 200);
    another_is_parked(&stage, 1).await;
    assert_eq!(raw.bytes(usize::try_from(length).unwrap()).await.len() as u64, length);
    stand(&stage.gateway, 1, 1).await;
}

#[tokio::test]
async fn what_is_left_of_a_body_after_its_answer_is_never_a_request() {
    let stage = Stage::new(Answer::ok().early()).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let upload = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", smuggled.len());
    let mut raw = Raw::sending(stage.gateway.address(), upload).await;
    assert_eq!(raw.reply().await.status, 200);
    let mut another = Raw::sending(stage.gateway.address(), ASK).await;
    assert_eq!(another.reply().await.status, 200);
    stage.gateway.metrics_when("the other is parked", |metrics| connections(metrics).1 > 0).await;
    raw.try_send(smuggled).await;
    raw.rest().await;
    assert!(stage.origin.seen().iter().all(|seen| seen.target == "/"));
}

#[tokio::test]
async fn a_parked_connection_may_become_a_tunnel() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!("[upstreams.shop]\nendpoints = ['http://{}']\n", listener.local_addr().unwrap());
    let stage = Stage::and(Answer::ok(), &text).await;
    let mut raw = Raw::connect(stage.gateway.address()).await;
    stand(&stage.gateway, 1, 1).await;
    let ask = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    raw.send(ask).await;
    let (stream, _) = within("a connection", listener.accept()).await.unwrap();
    let mut server = Wire::new(stream);
    within("a head", server.head()).await.unwrap().unwrap();
    let agree = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    server.write(agree.as_bytes()).await.unwrap();
    assert_eq!(raw.head().await.status(), 101);
    server.write(b"\x81\x02hi").await.unwrap();
    assert_eq!(&raw.bytes(4).await[..], b"\x81\x02hi");
}

#[tokio::test]
async fn a_connection_that_was_refused_an_upgrade_is_kept_though_not_parked() {
    let stage = Stage::new(Answer::ok()).await;
    let ask = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    let mut raw = Raw::sending(stage.gateway.address(), ask).await;
    assert_eq!(raw.reply().await.status, 200);
    let _other = another_is_parked(&stage, 1).await;
    raw.send(ASK).await;
    assert_eq!(raw.reply().await.status, 200);
}

#[tokio::test]
async fn a_parked_connection_keeps_its_tls_session() {
    let (origin, authority) = (Origin::start(Answer::ok()).await, Authority::new());
    let directory = tempfile::tempdir().unwrap();
    authority.identity(&["shop.test"]).write(directory.path());
    let tls = "[listeners.public]\ntls = { certificate_file = 'server.pem', key_file = 'server-key.pem' }\n";
    let gateway = Gateway::start_in(directory.path(), &[&all_to(origin.address), tls]).await;
    let mut client = Client::tls(gateway.address(), "shop.test", authority.client(&["http/1.1"])).await;
    for _ in 0..3 {
        stand(&gateway, 1, 1).await;
        assert_eq!(client.get("/").await.status, 200);
    }
    stand(&gateway, 1, 1).await;
    within("the end", gateway.stop()).await;
    client.closed().await;
}

#[tokio::test]
async fn a_connection_of_http2_is_not_parked() {
    let stage = Stage::new(Answer::ok()).await;
    let mut client = Client::http2(stage.gateway.address()).await;
    assert_eq!(client.get("/").await.status, 200);
    another_is_parked(&stage, 1).await;
    assert_eq!(client.get("/").await.status, 200);
}
