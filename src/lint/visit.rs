//! The requests: every route in every mood of its upstream, and what finds no route or cannot be read, each with
//! a canary of its own in every place.

use std::fmt::Write as _;

use super::canary::Canaries;
use super::origin::{ANSWER, to_digits};
use crate::http::route::{AttributeSource, HeaderMatch, Host, Settings as Route};

/// A request, byte by byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visit {
    /// What goes over the connection.
    pub(super) bytes: Vec<u8>,
    /// The name asked for in a TLS handshake.
    pub(super) server_name: String,
}

/// Every visit to a listener that serves these routes.
pub(super) fn visits<'a>(routes: impl IntoIterator<Item = &'a Route>, canaries: &mut Canaries) -> Vec<Visit> {
    let mut visits = Vec::new();
    for route in routes {
        for mood in MOODS {
            visits.push(to_route(route, mood, canaries));
        }
    }
    visits.extend(STRAY.iter().map(|(name, make)| {
        let request = (*name).to_owned();
        let bytes = make(&mut |part| canaries.send(part, &request)).into_bytes();
        Visit { bytes, server_name: server_name(&request, canaries) }
    }));
    visits
}

/// One request to a route, whose upstream answers in this mood.
fn to_route(route: &Route, (mood, answer): &(&'static str, Answer), canaries: &mut Canaries) -> Visit {
    let request = format!("route {}, upstream {mood}", route.name);
    let mut canary = |part| canaries.send(part, &request);
    let grpc = mood.starts_with("grpc");
    let digits = to_digits(answer(&mut canary).as_bytes());
    let method = route.matches.methods.first().map_or("POST", |method| method.as_str());
    let body = if matches!(method, "GET" | "HEAD" | "OPTIONS") {
        String::new()
    } else {
        format!("{{\"{}\":\"{}\"}}", canary("name in the body"), canary("body"))
    };
    let (name, value) = (canary("query key"), canary("query value"));
    let mut head = format!(
        "{method} {}?{name}={value}&page={} HTTP/1.1\r\n",
        path(route, &mut canary),
        canary("query value")
    );
    let host = match route.matches.hosts.first() {
        Some(Host::Exact(host)) => host.to_string(),
        Some(Host::Wildcard(suffix)) => format!("{}.{suffix}", canary("Host").to_lowercase()),
        None => format!("{}.test", canary("Host")),
    };
    for (name, condition) in &route.matches.headers {
        let value = match condition {
            HeaderMatch::Exact(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
            HeaderMatch::Present => canary("value of a matched field"),
        };
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let kind = if grpc { "application/grpc" } else { "application/json" };
    let _ = write!(
        head,
        "host: {host}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n{ANSWER}: {digits}\r\n",
        body.len()
    );
    for (name, value) in fields(&mut canary) {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    Visit { bytes: format!("{head}\r\n{body}").into_bytes(), server_name: server_name(&request, canaries) }
}

/// A path of the route. Parameters that are business attributes are exported because the operator said so.
fn path(route: &Route, canary: &mut dyn FnMut(&'static str) -> String) -> String {
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
fn fields(canary: &mut dyn FnMut(&'static str) -> String) -> Vec<(String, String)> {
    let claims =
        format!("{{\"sub\":\"{}\",\"email\":\"{}@shop.test\"}}", canary("JWT claim"), canary("JWT claim"));
    let token = |text: &str| super::search::base64_text(text);
    let jwt = format!("{}.{}.{}", token("{\"alg\":\"none\"}"), token(&claims), canary("JWT signature"));
    let basic = token(&format!("{}:{}", canary("user"), canary("password")));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    vec![
        ("authorization".into(), format!("Bearer {jwt}")),
        ("proxy-authorization".into(), format!("Basic {basic}")),
        ("x-api-key".into(), canary("API key")),
        ("cookie".into(), format!("{}={}", canary("cookie name"), canary("cookie"))),
        ("user-agent".into(), canary("User-Agent")),
        ("referer".into(), format!("https://shop.test/{}", canary("Referer"))),
        ("origin".into(), format!("https://{}.test", canary("Origin"))),
        ("from".into(), format!("{}@shop.test", canary("From"))),
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
        (format!("x-{}", canary("field name")), canary("field")),
    ]
}

fn server_name(request: &str, canaries: &mut Canaries) -> String {
    format!("{}.test", canaries.send("SNI", request).to_lowercase())
}

/// Makes bytes with canaries in them.
type Answer = fn(&mut dyn FnMut(&'static str) -> String) -> String;

/// What an upstream may answer, well or badly.
const MOODS: &[(&str, Answer)] = &[
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

/// What finds no route, or cannot be read at all.
const STRAY: &[(&str, Answer)] = &[
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
