//! The moods of an upstream, and the requests of those who find no route or cannot be read: bytes with canaries in
//! them.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Makes bytes with canaries in them.
pub(super) type Answer = fn(&mut dyn FnMut(&'static str) -> String) -> String;

/// The same, where they are no text.
type Binary = fn(&mut dyn FnMut(&'static str) -> String) -> Vec<u8>;

/// What an upstream may answer, well or badly.
pub(super) const MOODS: &[(&str, Answer)] = &[
    ("answers", |canary| {
        let body = format!("{{\"name\":\"{}\"}}", canary("answer's body"));
        format!(
            "HTTP/1.1 200 {}\r\nserver: {}\r\nset-cookie: s={}\r\nx-{}: 1\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            canary("reason phrase"),
            canary("answer's field"),
            canary("Set-Cookie"),
            canary("answer's field name"),
            body.len()
        )
    }),
    ("sends elsewhere", |canary| {
        let place =
            format!("https://{}:{}@shop.test/{}", canary("userinfo"), canary("userinfo"), canary("Location"));
        format!("HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    }),
    ("fails", |canary| {
        let body = format!("panicked at {}", canary("error's text"));
        let phrase = canary("reason phrase");
        format!("HTTP/1.1 500 {phrase}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }),
    ("refuses", |canary| {
        let body = canary("error's text");
        format!("HTTP/1.1 422 No\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }),
    ("closes unanswered", |_| String::new()),
    ("breaks its head", |canary| format!("HTTP/1.1 200 OK\r\nx: {}", canary("broken head"))),
    ("speaks no HTTP", |canary| format!("SSH-2.0-{}\r\n\r\n", canary("greeting"))),
    ("breaks its length", |canary| {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", canary("length"))
    }),
    ("breaks its body", |canary| {
        format!("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{}", canary("broken body"))
    }),
    ("breaks its chunks", |canary| {
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}\r\n", canary("broken chunk"))
    }),
    ("ends with trailers", |canary| {
        let (name, value) = (canary("trailer's name"), canary("trailer"));
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\nx-{name}: {value}\r\n\r\n"
        )
    }),
    ("grpc fails", |canary| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 13\r\ngrpc-message: {}\r\n\
             grpc-status-details-bin: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            canary("grpc-message"),
            canary("grpc-status-details-bin")
        )
    }),
];

/// What an upstream may answer that is no text.
pub(super) const BINARY: &[(&str, Binary)] = &[
    ("answers compressed", |canary| {
        let body = stored(&format!("{{\"name\":\"{}\"}}", canary("answer's compressed body")));
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    }),
    ("grpc streams and fails", |canary| {
        let mut answer =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\
              trailer: grpc-status, grpc-message\r\nconnection: close\r\n\r\n"
                .to_vec();
        for _ in 0..2 {
            let message = grpc_message(&canary("gRPC answer"));
            answer.extend(format!("{:x}\r\n", message.len()).into_bytes());
            answer.extend(message);
            answer.extend(b"\r\n");
        }
        let message = canary("grpc-message");
        answer.extend(format!("0\r\ngrpc-status: 14\r\ngrpc-message: {message}\r\n\r\n").into_bytes());
        answer
    }),
    ("becomes a WebSocket", |canary| {
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-accept: {}\r\nsec-websocket-protocol: {}\r\n\r\n",
            canary("Sec-WebSocket-Accept"),
            canary("Sec-WebSocket-Protocol")
        );
        let frames = frames(None, &canary("answer's frame"), &canary("answer's reason for closing"));
        [head.into_bytes(), frames].concat()
    }),
];

/// The mood of [`BINARY`] that is asked for by a WebSocket.
pub(super) const WEBSOCKET: &str = "becomes a WebSocket";

/// A text as gzip that holds it as it stands.
pub(super) fn stored(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).expect("it is written to memory")
}

/// A message of gRPC with this text in its first field.
pub(super) fn grpc_message(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    [&[0, 0, 0, 0, length + 2, 1 << 3 | 2, length], text.as_bytes()].concat()
}

/// A WebSocket's frames with these texts: one that says something, a ping, and one that closes.
pub(super) fn frames(mask: Option<[u8; 4]>, text: &str, reason: &str) -> Vec<u8> {
    let frame = |opcode: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).expect("a short text");
        let masked = if mask.is_some() { 0x80 } else { 0 };
        let key = mask.as_ref().map_or(&[][..], |mask| &mask[..]);
        let payload = payload.iter().enumerate();
        let payload =
            payload.map(|(at, byte)| byte ^ mask.map_or(0, |mask| mask[at % 4])).collect::<Vec<_>>();
        [&[0x80 | opcode, masked | length], key, &payload].concat()
    };
    let close = [&1011_u16.to_be_bytes(), reason.as_bytes()].concat();
    [frame(1, text.as_bytes()), frame(9, text.as_bytes()), frame(8, &close)].concat()
}

/// What finds no route, or cannot be read at all.
pub(super) const STRAY: &[(&str, Answer)] = &[
    ("no route", |canary| {
        let (path, query) = (canary("unmatched path"), canary("query value"));
        format!("GET /{path}/x?q={query} HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")
    }),
    ("unknown method", |canary| {
        let method = canary("method").to_uppercase();
        format!("{method} / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")
    }),
    ("absolute form with a user", |canary| {
        let (user, password) = (canary("userinfo"), canary("userinfo"));
        format!("GET http://{user}:{password}@a.test/ HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")
    }),
    ("ambiguous path", |canary| {
        format!(
            "GET /%2f{}/%00 HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n",
            canary("unmatched path")
        )
    }),
    ("invalid host", |canary| {
        format!("GET / HTTP/1.1\r\nhost: {}/x y\r\nconnection: close\r\n\r\n", canary("Host"))
    }),
    ("malformed trace", |canary| {
        let trace = canary("malformed traceparent");
        format!("GET / HTTP/1.1\r\nhost: a.test\r\ntraceparent: 00-{trace}-01\r\nconnection: close\r\n\r\n")
    }),
    ("unknown coding", |canary| {
        let coding = canary("transfer coding");
        format!("POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: {coding}\r\nconnection: close\r\n\r\n")
    }),
    ("no HTTP", |canary| format!("{} {}\r\n\r\n", canary("garbage"), canary("garbage"))),
    ("broken field", |canary| {
        let (name, value) = (canary("broken field"), canary("broken field"));
        format!("GET / HTTP/1.1\r\nhost: a.test\r\n{name} {value}\r\n\r\n")
    }),
    ("broken chunk", |canary| {
        let chunk = canary("broken chunk");
        format!(
            "POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{chunk}\r\n"
        )
    }),
    ("half a head", |canary| format!("GET /{} HTTP/1.1\r\nhost: ", canary("half a head"))),
    ("long target", |canary| {
        let long = "x".repeat(128 << 10);
        format!("GET /{}{long} HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n", canary("long target"))
    }),
    ("large field", |canary| {
        let long = "x".repeat(256 << 10);
        format!(
            "GET / HTTP/1.1\r\nhost: a.test\r\nx-large: {}{long}\r\nconnection: close\r\n\r\n",
            canary("large field")
        )
    }),
];
