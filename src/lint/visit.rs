//! The requests: every route in every mood of its upstream, over HTTP/1.1 and HTTP/2, and what finds no route or
//! cannot be read, each with a canary of its own in every place.

use std::fmt::Write as _;

use super::canary::Canaries;
use super::credentials::Credentials;
use super::mood::{BINARY, MOODS, STRAY, WEBSOCKET, frames, grpc_message, stored};
use super::origin::{ANSWER, to_digits};
use crate::http::route::{AttributeSource, HeaderMatch, Host, Settings as Route};
use crate::http::sticky::Settings as Sticky;
use crate::listener::proxy::Versions;

/// A connection, and the request over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visit {
    /// What a proxy says before all else.
    pub(super) before: Vec<u8>,
    /// The name asked for in a TLS handshake.
    pub(super) server_name: String,
    /// The request.
    pub(super) message: Message,
}

/// A request, in the protocol in which it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Byte by byte, over HTTP/1.1 or what is none.
    Bytes(Vec<u8>),
    /// Over HTTP/2.
    Http2(Parts),
}

/// The parts of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// `Host`, or `:authority`.
    pub(super) host: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(String, String)>,
    /// What follows the answer's head, where that begins a tunnel.
    after: Vec<u8>,
}

/// Makes a canary for a part of a request.
type Canary<'a> = dyn FnMut(&'static str) -> String + 'a;

/// Every visit to a listener that serves these routes, before which a proxy may speak.
pub(super) fn visits<'a>(
    routes: impl IntoIterator<Item = &'a Route>,
    proxy: Option<Versions>,
    credentials: &Credentials,
    canaries: &mut Canaries,
) -> Vec<Visit> {
    let mut requests = Vec::new();
    for route in routes {
        let names = MOODS.iter().map(|(mood, _)| *mood).chain(BINARY.iter().map(|(mood, _)| *mood));
        for mood in names.filter(|mood| *mood != WEBSOCKET || route.websocket) {
            let request = format!("route {}, upstream {mood}", route.name);
            let verified = [None, Some(credentials)];
            // whoever is not let in meets no upstream, whatever its mood
            let verified = &verified[usize::from(mood != "answers" && !route.auth.is_empty())..];
            for credentials in verified.iter().take(1 + usize::from(!route.auth.is_empty())) {
                let parts = |canaries: &mut Canaries| {
                    to_route(route, mood, *credentials, &mut |part| canaries.send(part, &request))
                };
                requests.push((request.clone(), Message::Bytes(parts(canaries).http1())));
                if BY_HTTP2.contains(&mood) {
                    requests.push((request.clone(), Message::Http2(parts(canaries))));
                }
            }
        }
    }
    requests.extend(STRAY.iter().map(|(name, make)| {
        let request = (*name).to_owned();
        let bytes = make(&mut |part| canaries.send(part, &request)).into_bytes();
        (request, Message::Bytes(bytes))
    }));
    let nowhere = "no route, over HTTP/2".to_owned();
    let stray = nowhere_by_http2(&mut |part| canaries.send(part, &nowhere));
    requests.push((nowhere, Message::Http2(stray)));
    let visit = |(request, message): (String, Message)| {
        let mut canary = |part| canaries.send(part, &request);
        let server_name = format!("{}.test", canary("SNI").to_lowercase());
        Visit {
            before: proxy.map(|versions| spoken_for(versions, &mut canary)).unwrap_or_default(),
            server_name,
            message,
        }
    };
    requests.into_iter().map(visit).collect()
}

/// One request to a route, whose upstream answers in this mood.
fn to_route(route: &Route, mood: &str, credentials: Option<&Credentials>, canary: &mut Canary<'_>) -> Parts {
    let answer = match MOODS.iter().find(|(name, _)| *name == mood) {
        Some((_, answer)) => answer(canary).into_bytes(),
        None => BINARY
            .iter()
            .find(|(name, _)| *name == mood)
            .map(|(_, answer)| answer(canary))
            .unwrap_or_default(),
    };
    let (grpc, websocket) = (mood.starts_with("grpc"), mood == WEBSOCKET);
    let method = route.matches.methods.first().map_or("POST", |method| method.as_str());
    let method = if websocket { "GET" } else { method };
    let text = format!("{{\"{}\":\"{}\"}}", canary("name in the body"), canary("body"));
    let body = match method {
        "GET" | "HEAD" | "OPTIONS" => Vec::new(),
        _ if grpc => [grpc_message(&canary("gRPC message")), grpc_message(&canary("gRPC message"))].concat(),
        _ if mood == "answers compressed" => stored(&text),
        _ => text.into_bytes(),
    };
    let (name, value) = (canary("query key"), canary("query value"));
    let target = format!("{}?{name}={value}&page={}", path(route, canary), canary("query value"));
    let host = match route.matches.hosts.first() {
        Some(Host::Exact(host)) => host.to_string(),
        Some(Host::Wildcard(suffix)) => format!("{}.{suffix}", canary("Host").to_lowercase()),
        None => format!("{}.test", canary("Host")),
    };
    let mut fields = Vec::new();
    for (name, condition) in &route.matches.headers {
        let value = match condition {
            HeaderMatch::Exact(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
            HeaderMatch::Present => canary("value of a matched field"),
        };
        fields.push((name.to_string(), value));
    }
    let kind = if grpc { "application/grpc" } else { "application/json" };
    fields.push(("content-type".into(), kind.into()));
    fields.push((ANSWER.into(), to_digits(&answer)));
    if mood == "answers compressed" && !body.is_empty() {
        fields.push(("content-encoding".into(), "gzip".into()));
    }
    let verified = credentials.map(|credentials| credentials.fields(route, canary)).unwrap_or_default();
    let mut others = client_fields(route, canary);
    others.retain(|(name, _)| !verified.iter().any(|(known, _)| known == name));
    fields.extend(verified.into_iter().chain(others));
    let mut after = Vec::new();
    if websocket {
        fields.push(("upgrade".into(), "websocket".into()));
        fields.push(("connection".into(), "Upgrade".into()));
        fields.push(("sec-websocket-version".into(), "13".into()));
        fields.push(("sec-websocket-key".into(), canary("Sec-WebSocket-Key")));
        fields.push(("sec-websocket-protocol".into(), canary("Sec-WebSocket-Protocol")));
        // once by a mask that changes nothing, so that it would be seen if it came out
        after = frames(Some([0; 4]), &canary("frame"), &canary("reason for closing"));
    }
    let trailers = if body.is_empty() {
        Vec::new()
    } else {
        vec![(format!("x-{}", canary("trailer's name").to_lowercase()), canary("trailer"))]
    };
    Parts { method: method.to_owned(), target, host, fields, body, trailers, after }
}

impl Parts {
    /// As HTTP/1.1 has it.
    fn http1(&self) -> Vec<u8> {
        let Self { method, target, host, fields, body, trailers, after } = self;
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n");
        for (name, value) in fields {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if after.is_empty() {
            head += "connection: close\r\n";
        }
        if trailers.is_empty() {
            head += "content-length: 0\r\n\r\n";
            return [head.as_bytes(), after].concat();
        }
        head += "transfer-encoding: chunked\r\n\r\n";
        let mut tail = "\r\n0\r\n".to_owned();
        for (name, value) in trailers {
            let _ = write!(tail, "{name}: {value}\r\n");
        }
        let length = format!("{:x}\r\n", body.len());
        [head.as_bytes(), length.as_bytes(), body, tail.as_bytes(), b"\r\n"].concat()
    }
}

/// What finds no route, with every pseudo-header that a client may write.
fn nowhere_by_http2(canary: &mut Canary<'_>) -> Parts {
    Parts {
        method: canary("method").to_uppercase(),
        target: format!("/{}?{}={}", canary("unmatched path"), canary("query key"), canary("query value")),
        host: format!("{}.test", canary(":authority")),
        fields: vec![(format!("x-{}", canary("field name").to_lowercase()), canary("field"))],
        body: canary("body").into_bytes(),
        trailers: vec![(format!("x-{}", canary("trailer's name").to_lowercase()), canary("trailer"))],
        after: Vec::new(),
    }
}

/// What a proxy says of a client, in the PROXY protocol: in version 2 with what else it knows.
fn spoken_for(versions: Versions, canary: &mut Canary<'_>) -> Vec<u8> {
    if versions == Versions::V1 {
        return b"PROXY TCP4 203.0.113.77 203.0.113.1 40000 443\r\n".to_vec();
    }
    let mut rest = vec![203, 0, 113, 77, 203, 0, 113, 1, 0x9c, 0x40, 0x01, 0xbb];
    for (kind, part) in
        [(AUTHORITY, "authority of the proxy"), (UNIQUE_ID, "id of the proxy"), (OWN, "word of the proxy")]
    {
        let text = canary(part);
        rest.extend([kind, 0, u8::try_from(text.len()).expect("a short text")]);
        rest.extend(text.into_bytes());
    }
    let length = u16::try_from(rest.len()).expect("a few short texts").to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &length, &rest].concat()
}

/// What is asked for over HTTP/2 as well: where the client's side of it makes a difference.
const BY_HTTP2: [&str; 6] =
    ["answers", "fails", "breaks its body", "ends with trailers", "grpc fails", "grpc streams and fails"];

/// Types of what version 2 of the PROXY protocol may carry ("Type-Length-Value").
const AUTHORITY: u8 = 0x02;
const UNIQUE_ID: u8 = 0x05;
const OWN: u8 = 0xe0;

/// A path of the route. Parameters that are business attributes are exported because the operator said so.
fn path(route: &Route, canary: &mut Canary<'_>) -> String {
    let exported = |parameter: &str| {
        route
            .attributes
            .iter()
            .any(|(_, source)| matches!(source, AttributeSource::Path(name) if **name == *parameter))
    };
    let mut path = String::new();
    let mut rest = &*route.matches.path;
    while let Some((before, after)) = rest.split_once('{') {
        path.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        let name = name.trim_start_matches('*');
        path.push_str(&if exported(name) { "lint".to_owned() } else { canary("path") });
        rest = after;
    }
    path + rest
}

/// The fields that clients send and that say something about them.
fn client_fields(route: &Route, canary: &mut Canary<'_>) -> Vec<(String, String)> {
    let claims =
        format!("{{\"sub\":\"{}\",\"email\":\"{}@shop.test\"}}", canary("JWT claim"), canary("JWT claim"));
    let token = |text: &str| super::search::base64_text(text);
    let jwt = format!("{}.{}.{}", token("{\"alg\":\"none\"}"), token(&claims), canary("JWT signature"));
    let basic = token(&format!("{}:{}", canary("user"), canary("password")));
    let sticky = |sticky: &Sticky| format!("{}={}; ", sticky.cookie, canary("sticky cookie"));
    let cookie = route.sticky.as_ref().map(sticky).unwrap_or_default();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    vec![
        ("authorization".into(), format!("Bearer {jwt}")),
        ("proxy-authorization".into(), format!("Basic {basic}")),
        ("x-api-key".into(), canary("API key")),
        ("cookie".into(), format!("{cookie}{}={}", canary("cookie name"), canary("cookie"))),
        ("user-agent".into(), canary("User-Agent")),
        ("referer".into(), format!("https://shop.test/{}", canary("Referer"))),
        ("origin".into(), format!("https://{}.test", canary("Origin"))),
        ("from".into(), format!("{}@shop.test", canary("From"))),
        ("accept".into(), format!("text/html, {}/*", canary("Accept"))),
        ("accept-encoding".into(), format!("gzip, br, zstd, {}", canary("Accept-Encoding"))),
        ("te".into(), "trailers".into()),
        ("grpc-timeout".into(), canary("grpc-timeout")),
        ("accept-language".into(), canary("Accept-Language")),
        ("x-request-id".into(), canary("X-Request-Id")),
        ("x-forwarded-for".into(), canary("X-Forwarded-For")),
        ("x-forwarded-host".into(), canary("X-Forwarded-Host")),
        ("forwarded".into(), format!("for={}", canary("Forwarded"))),
        ("via".into(), format!("1.1 {}", canary("Via"))),
        ("traceparent".into(), trace.to_owned()),
        (
            "tracestate".into(),
            format!("{}={}", canary("tracestate key").to_lowercase(), canary("tracestate")),
        ),
        ("baggage".into(), format!("{}={}", canary("baggage key"), canary("baggage"))),
        ("b3".into(), canary("b3")),
        ("uber-trace-id".into(), canary("uber-trace-id")),
        (format!("x-{}", canary("field name").to_lowercase()), canary("field")),
    ]
}
