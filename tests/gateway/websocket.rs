//! Tunnels for `WebSocket`: agreed on by both sides, passed as they come, judged by how they end.

use tokio::net::{TcpListener, TcpStream};

use crate::support::collector::{Kind, Span};
use crate::support::gateway::upstream;
use crate::support::wire::{Head, Wire};
use crate::support::{Answer, Metrics, Raw, Reply, Stage, within};

const ASK: &str = "GET /chat HTTP/1.1\r\nhost: shop.test\r\nconnection: keep-alive, Upgrade\r\n\
    upgrade: WebSocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    sec-websocket-protocol: chat\r\n\r\n";

const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-protocol: chat\r\n\r\n";

/// A frame as a client sends it, masked.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 1, 9, 3];
    let head = [0x80 | opcode, 0x80 | u8::try_from(payload.len()).unwrap()];
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    head.into_iter().chain(mask).chain(payload).collect()
}

/// A frame as a server sends it.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    [&[0x80 | opcode, u8::try_from(payload.len()).unwrap()], payload].concat()
}

fn close(code: u16) -> [u8; 2] {
    code.to_be_bytes()
}

/// A gateway before a server that the test itself plays.
struct Chat {
    stage: Stage,
    listener: TcpListener,
}

impl Chat {
    async fn new(text: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let text = format!("[upstreams.shop]\nendpoints = ['http://{address}']\n{text}");
        Self { stage: Stage::and(Answer::ok(), &text).await, listener }
    }

    /// A client that has asked, and the server with the head that it got.
    async fn asked(&self, ask: &str) -> (Raw, Wire<TcpStream>, Head) {
        let client = Raw::sending(self.stage.gateway.address(), ask).await;
        let (stream, _) = within("a connection", self.listener.accept()).await.unwrap();
        let mut server = Wire::new(stream);
        let head = within("a head", server.head()).await.unwrap().unwrap();
        (client, server, head)
    }

    /// Both ends of a tunnel, and its trace.
    async fn open(&self) -> (Raw, Wire<TcpStream>, String) {
        let (mut client, mut server, _) = self.asked(ASK).await;
        server.write(AGREE.as_bytes()).await.unwrap();
        let head = client.head().await;
        assert_eq!(head.status(), 101);
        let told = head.fields.all("server-timing").remove(0)["trace;desc=\"00-".len()..][..32].to_owned();
        (client, server, told)
    }

    /// The SERVER and the CLIENT span; the third is of the opening.
    async fn spans(&self, trace_id: &str) -> (Span, Span) {
        let spans = self.stage.collector.trace(trace_id, 3).await;
        let one = |kind| spans.iter().find(|span| span.kind == kind).cloned().expect("a span of each kind");
        assert_eq!(one(Kind::Other).name, "stream opened");
        (one(Kind::Server), one(Kind::Client))
    }
}

/// A stage whose only exchange was a tunnel that its server has closed with this code, and the answer that it began with.
pub async fn closed_by_server(code: u16) -> (Stage, Reply) {
    let chat = Chat::new("").await;
    let (mut client, mut server, _) = chat.asked(ASK).await;
    server.write(AGREE.as_bytes()).await.unwrap();
    let reply = client.reply_to_head().await;
    server.write(&frame(8, &close(code))).await.unwrap();
    client.bytes(4).await;
    drop(server);
    client.rest().await;
    (chat.stage, reply)
}

fn open_connections(metrics: &Metrics) -> (u64, u64, u64) {
    let count = |name| metrics.count(name, &[]);
    (
        count("tracegate_connections_open"),
        count("tracegate_endpoint_connections"),
        count("tracegate_streams_active"),
    )
}

#[tokio::test]
async fn both_sides_agree_and_bytes_pass_unaltered_both_ways() {
    let chat = Chat::new("").await;
    let (mut client, mut server, head) = chat.asked(ASK).await;
    assert_eq!(head.start, "GET /chat HTTP/1.1");
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
    ] {
        assert_eq!(head.fields.all(name), [value], "{name}");
    }
    assert!(head.fields.has("traceparent"));
    // the first frame comes with the agreement
    server.write(&[AGREE.as_bytes(), &frame(1, b"welcome")].concat()).await.unwrap();
    let answer = client.head().await;
    assert_eq!(answer.status(), 101);
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("sec-websocket-protocol", "chat"),
    ] {
        assert_eq!(answer.fields.all(name), [value], "{name}");
    }
    assert_eq!(client.bytes(9).await, frame(1, b"welcome"));
    for text in [&b"hello"[..], b"", b"\0\xff"] {
        client.send(masked(2, text)).await;
        assert_eq!(within("a frame", server.bytes(6 + text.len())).await.unwrap(), masked(2, text));
        server.write(&frame(2, text)).await.unwrap();
        assert_eq!(client.bytes(2 + text.len()).await, frame(2, text));
    }
}

#[tokio::test]
async fn a_megabyte_passes_each_way_at_once() {
    let chat = Chat::new("").await;
    let (mut client, mut server, _) = chat.open().await;
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|number| number.to_le_bytes()[0] ^ 0x5a).collect();
    let both = async {
        let up = async {
            client.send(&bytes).await;
            client.bytes(bytes.len()).await
        };
        let down = async {
            let came = server.bytes(bytes.len()).await.unwrap();
            server.write(&bytes).await.unwrap();
            came
        };
        tokio::join!(up, down)
    };
    let (down, up) = within("a megabyte each way", both).await;
    assert!(down == bytes && up == bytes);
}

#[tokio::test]
async fn a_tunnel_is_seen_while_it_is_open_and_counted_as_a_stream() {
    let chat = Chat::new("").await;
    let (mut client, mut server, trace_id) = chat.open().await;
    let [opened] = &chat.stage.collector.trace(&trace_id, 1).await[..] else { panic!("one span so far") };
    assert_eq!(
        (&*opened.name, opened.attribute("http.response.status_code")),
        ("stream opened", Some("101"))
    );
    let gateway = &chat.stage.gateway;
    gateway.metrics_when("one open tunnel", |metrics| open_connections(metrics) == (1, 1, 1)).await;
    client.send(masked(1, b"hello")).await;
    within("a frame", server.bytes(11)).await.unwrap();
    server.write(&frame(1, b"hi")).await.unwrap();
    client.bytes(4).await;
    server.write(&frame(8, &close(1000))).await.unwrap();
    client.bytes(4).await;
    client.send(masked(8, &close(1000))).await;
    within("a frame", server.bytes(8)).await.unwrap();
    drop(server);
    assert!(client.rest().await.is_empty());

    let (server, attempt) = chat.spans(&trace_id).await;
    for span in [&server, &attempt] {
        assert_eq!((span.attribute("tracegate.reason"), span.error), (None, false), "{span:?}");
        assert_eq!(span.attribute("http.response.status_code"), Some("101"));
    }
    assert_eq!(server.attribute("tracegate.websocket.close_code"), Some("1000"));
    assert_eq!(server.attribute("tracegate.websocket.closed_by"), Some("upstream"));
    let sizes = ["http.request.body.size", "http.response.body.size"];
    assert_eq!(sizes.map(|name| attempt.attribute(name)), [Some("19"), Some("8")]);
    let line = gateway.logged(&trace_id).await;
    assert_eq!(
        (&line["status"], &line["close_code"], &line["closed_by"]),
        (&101.into(), &1000.into(), &"upstream".into())
    );
    assert_eq!((&line["request_bytes"], &line["response_bytes"]), (&19.into(), &8.into()));
    let metrics =
        gateway.metrics_when("no open tunnel", |metrics| open_connections(metrics) == (0, 0, 0)).await;
    assert_eq!(metrics.count("tracegate_stream_age_seconds_count", &[]), 1);
    assert_eq!(metrics.count("http_server_request_duration_seconds_count", &[]), 0);
    assert_eq!(metrics.count("http_client_request_duration_seconds_count", &[]), 0);
}

/// Who sends what last: a close frame with this code, or none.
#[derive(Debug, Clone, Copy)]
enum Last {
    Client(Option<u16>),
    Upstream(Option<u16>),
}

#[tokio::test]
async fn a_tunnel_is_judged_by_how_it_ends() {
    for (last, reason, error) in [
        (Last::Client(Some(1000)), None, None),
        (Last::Client(Some(1001)), None, None),
        (Last::Client(Some(1011)), None, None),
        (Last::Upstream(Some(1001)), None, None),
        (Last::Upstream(Some(1008)), None, None),
        (Last::Upstream(Some(4999)), None, None),
        (Last::Upstream(Some(1011)), Some("websocket_close"), Some("websocket_close")),
        (Last::Upstream(Some(1014)), Some("websocket_close"), Some("websocket_close")),
        (Last::Client(None), Some("client_gone"), None),
        (Last::Upstream(None), Some("upstream_truncated"), Some("upstream_truncated")),
    ] {
        let chat = Chat::new("").await;
        let (mut client, mut server, trace_id) = chat.open().await;
        match last {
            Last::Client(code) => {
                if let Some(code) = code {
                    client.send(masked(8, &close(code))).await;
                    within("a frame", server.bytes(8)).await.unwrap();
                }
                drop(client);
                within("the end", server.rest()).await.unwrap();
                drop(server);
            }
            Last::Upstream(code) => {
                if let Some(code) = code {
                    server.write(&frame(8, &close(code))).await.unwrap();
                    client.bytes(4).await;
                }
                drop(server);
                client.rest().await;
            }
        }
        let (server, attempt) = chat.spans(&trace_id).await;
        for span in [&server, &attempt] {
            assert_eq!(span.attribute("tracegate.reason"), reason, "{last:?}: {span:?}");
            assert_eq!(
                (span.attribute("error.type"), span.error),
                (error, error.is_some()),
                "{last:?}: {span:?}"
            );
        }
        let (side, code) = match last {
            Last::Client(code) => ("client", code),
            Last::Upstream(code) => ("upstream", code),
        };
        let line = chat.stage.gateway.logged(&trace_id).await;
        assert_eq!(line["close_code"].as_u64(), code.map(u64::from), "{last:?}: {line}");
        assert_eq!(line["closed_by"].as_str(), code.map(|_| side), "{last:?}: {line}");
        assert_eq!(line["reason"].as_str(), reason, "{last:?}: {line}");
    }
}

#[tokio::test]
async fn a_tunnel_through_which_nothing_passes_ends_with_a_reason() {
    let chat = Chat::new("[routes.all.timeouts]\ntunnel_idle = '100ms'\nrequest = '20ms'\n").await;
    let (mut client, mut server, trace_id) = chat.open().await;
    // each frame within the time, all of them beyond it and beyond the request's
    for _ in 0..6 {
        client.send(masked(9, b"")).await;
        within("a frame", server.bytes(6)).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    assert!(client.rest().await.is_empty());
    within("the end", server.rest()).await.unwrap();
    let (server, _) = chat.spans(&trace_id).await;
    assert_eq!(server.attribute("error.type"), Some("stream_idle_timeout"));
}

#[tokio::test]
async fn a_leaving_gateway_waits_for_tunnels_and_cuts_what_is_left_for_a_stated_reason() {
    let chat = Chat::new("[shutdown]\ndeadline = '300ms'\n").await;
    let (mut closing, mut server, first) = chat.open().await;
    let (mut staying, mut other, second) = chat.open().await;
    let Chat { stage, .. } = chat;
    let address = stage.gateway.address();
    let stopping = tokio::spawn(stage.gateway.stop());
    let closed = async { while TcpStream::connect(address).await.is_ok() {} };
    within("the listener to close", closed).await;
    closing.send(masked(8, &close(1001))).await;
    within("a frame", server.bytes(8)).await.unwrap();
    drop((closing, server));
    assert!(staying.rest().await.is_empty(), "cut");
    within("the end", other.rest()).await.unwrap();
    let log = within("the gateway's end", stopping).await.unwrap();
    assert_eq!(log.of(&first).await["reason"].as_str(), None);
    assert_eq!(log.of(&second).await["reason"], "shutting_down");
}

#[tokio::test]
async fn what_the_upstream_refuses_is_an_ordinary_answer() {
    let chat = Chat::new("").await;
    let (mut client, mut server, _) = chat.asked(ASK).await;
    server.write(b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (403, "no"));
    let told = chat.stage.told(&reply.trace_id(), 1).await;
    assert_eq!(told.server.attribute("tracegate.stream"), None);
    // and the connection goes on, on both sides
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    within("a head", server.head()).await.unwrap().unwrap();
}

#[tokio::test]
async fn nothing_but_a_websocket_is_offered_to_an_upstream() {
    let chat = Chat::new("").await;
    for ask in [
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket, h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nupgrade: h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: TLS/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\ncontent-length: 4\r\n\r\nbody",
    ] {
        let (mut client, mut server, head) = chat.asked(ask).await;
        for gone in ["upgrade", "connection", "http2-settings"] {
            assert!(!head.fields.has(gone), "{ask:?}: {head:?}");
        }
        // an upstream that switches all the same breaks the protocol
        server.write(AGREE.as_bytes()).await.unwrap();
        let reply = client.reply().await;
        assert_eq!(
            (reply.status, reply.reason().as_deref()),
            (502, Some("upstream_protocol_error")),
            "{ask:?}"
        );
    }
}

#[tokio::test]
async fn a_route_may_do_without_websockets() {
    let chat = Chat::new("[routes.all]\nupgrade = []\n").await;
    let (_client, _server, head) = chat.asked(ASK).await;
    assert!(!head.fields.has("upgrade") && !head.fields.has("connection"), "{head:?}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_and_its_upstream_with_it() {
    let chat = Chat::new("[listeners.public.timeouts]\nbody = '200ms'\n").await;
    let (client, mut server, trace_id) = chat.open().await;
    let piece = vec![0x5a; 64 << 10];
    let filling = async { while server.write(&piece).await.is_ok() {} };
    within("the gateway to give up", filling).await;
    let line = chat.stage.gateway.logged(&trace_id).await;
    assert_eq!(
        (line["reason"].as_str(), line["detail"].as_str()),
        (Some("client_timeout"), Some("slow_reader"))
    );
    drop(client);
}

#[tokio::test]
async fn a_tunnel_on_a_removed_route_has_its_grace_and_one_on_another_lives_on() {
    let kept = "[routes.kept]\nmatch.path = '/kept'\nupstream = 'shop'\n[reload]\ngrace = '50ms'\n";
    let chat = Chat::new(kept).await;
    let (mut removed, mut server, first) = chat.open().await;
    let (mut staying, mut other, _) = chat.asked(&ASK.replacen("/chat", "/kept", 1)).await;
    other.write(AGREE.as_bytes()).await.unwrap();
    assert_eq!(staying.head().await.status(), 101);
    let shop = upstream("shop", chat.listener.local_addr().unwrap());
    chat.stage.reload(&[&shop, kept]);
    assert!(removed.rest().await.is_empty());
    within("the end", server.rest()).await.unwrap();
    assert_eq!(chat.stage.gateway.logged(&first).await["reason"], "route_removed");
    staying.send(masked(9, b"")).await;
    within("a frame", other.bytes(6)).await.unwrap();
}
