//! Every reason, provoked through a real socket: answer, span, metric, log line and error record say the same.

use std::sync::Arc;

use http::Method;
use tracegate::failure::{Blame, Reason};

use crate::panics::{Buggy, MARK};
use crate::support::body;
use crate::support::client::{get, request};
use crate::support::gateway::{all_to, route, upstream};
use crate::support::link::{Blackhole, Refusing};
use crate::support::stage::told;
use crate::support::tokens::Signer;
use crate::support::{
    Answer, Authority, Client, Collector, Dns, Gate, Gateway, Log, Logstash, Origin, Raw, Reply, Stage,
    within,
};
use crate::websocket::closed_by_server;

/// What became of a reason that was provoked.
struct Provoked {
    collector: Collector,
    logstash: Logstash,
    gateway: After,
    /// What the client got, if it got anything.
    reply: Option<Reply>,
    attempts: usize,
    detail: Option<&'static str>,
    /// What must stay alive until the end.
    _held: Box<dyn Send>,
}

/// The gateway, or what it left.
enum After {
    Running(Gateway),
    Gone(Log),
}

#[tokio::test]
async fn every_reason_is_told_alike_to_the_client_and_in_span_metric_log_and_error_record() {
    for &reason in Reason::ALL {
        let provoked = Box::pin(provoke(reason)).await;
        verify(reason, *provoked).await;
    }
}

/// Every reason has its case here: a new one does not compile without.
#[expect(clippy::too_many_lines, reason = "a table: one case a reason")]
async fn provoke(reason: Reason) -> Box<Provoked> {
    match reason {
        Reason::BadRequest => {
            let stage = Stage::new(Answer::ok()).await;
            let reply = raw(&stage, "GET /%00 HTTP/1.1\r\nhost: a\r\n\r\n").await;
            answered(stage, reply, 0, Some("ambiguous_path"))
        }
        Reason::NoRoute => {
            let stage = around("", "[routes]\na = { match = { path = '/a' }, upstream = 'shop' }\n").await;
            let reply = stage.get("/b").await;
            answered(stage, reply, 0, None)
        }
        Reason::MethodNotAllowed => {
            let routes = "[routes]\na = { match = { path = '/a', methods = ['POST'] }, upstream = 'shop' }\n";
            let stage = around("", routes).await;
            let reply = stage.get("/a").await;
            assert_eq!(reply.header("allow"), Some("POST"));
            answered(stage, reply, 0, None)
        }
        Reason::ClientTimeout => {
            let stage = Stage::and(Answer::ok(), "[listeners.public.timeouts]\nbody = '50ms'\n").await;
            let reply = raw(&stage, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\na").await;
            answered(stage, reply, 1, Some("slow_body"))
        }
        Reason::BodyTooLarge => {
            let stage = Stage::and(Answer::ok(), "[routes.all.limits]\nbody = '3B'\n").await;
            let reply = stage.gateway.ask(request(Method::POST, "/", &[], body::full("four"))).await;
            answered(stage, reply, 0, None)
        }
        Reason::UriTooLong => {
            let stage = Stage::and(Answer::ok(), "[listeners.public.limits]\nuri_bytes = '100B'\n").await;
            let reply = stage.get(&format!("/{}", "a".repeat(100))).await;
            answered(stage, reply, 0, None)
        }
        Reason::HeaderTooLarge => {
            let stage = Stage::and(Answer::ok(), "[listeners.public.limits]\nheader_count = 3\n").await;
            let fields = [("a", "1"), ("b", "2"), ("c", "3")];
            let reply = stage.gateway.ask(request(Method::GET, "/", &fields, body::empty())).await;
            answered(stage, reply, 0, Some("field_count"))
        }
        Reason::ClientGone => {
            let stage = Stage::new(Answer::stall()).await;
            let raw = Raw::sending(stage.gateway.address(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            stage.origin.seen_when("the request", |seen| !seen.is_empty()).await;
            raw.reset();
            unanswered(stage, 1)
        }
        Reason::Panic => panicked().await,
        Reason::Unsupported => {
            let stage = Stage::new(Answer::ok()).await;
            let reply = raw(&stage, "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n").await;
            answered(stage, reply, 0, Some("method"))
        }
        Reason::ShuttingDown => shut_down().await,
        Reason::LoopDetected => {
            let stage = Stage::new(Answer::ok()).await;
            let via = vec!["1.1 tracegate"; 20].join(", ");
            let reply = stage.gateway.ask(request(Method::GET, "/", &[("via", &via)], body::empty())).await;
            answered(stage, reply, 0, None)
        }
        Reason::DnsFailed => {
            let dns = Dns::start().await;
            let endpoint = "[upstreams.shop]\nendpoints = ['http://nowhere.test:80']\n";
            let stage = Stage::and(Answer::ok(), &format!("{}{endpoint}", dns.toml("1s"))).await;
            let reply = stage.get("/").await;
            holding(stage, reply, 1, None, dns)
        }
        Reason::ConnectRefused => {
            let refusing = Refusing::start();
            let stage = Stage::and(Answer::ok(), &upstream("shop", refusing.address)).await;
            let reply = stage.get("/").await;
            holding(stage, reply, 1, None, refusing)
        }
        Reason::TlsFailed => {
            let origin = Origin::start_tls(&Authority::new().identity(&["localhost"]), Answer::ok()).await;
            let port = origin.address.port();
            let endpoint = format!("[upstreams.shop]\nendpoints = ['https://localhost:{port}']\n");
            let stage = Stage::around(origin, &[&endpoint, &route("all", "/{*path}", "shop")]).await;
            let reply = stage.get("/").await;
            answered(stage, reply, 1, Some("untrusted"))
        }
        Reason::UpstreamReset => {
            let stage = Stage::new(Answer::reset()).await;
            let reply = stage.get("/").await;
            answered(stage, reply, 1, None)
        }
        Reason::UpstreamProtocolError => {
            let stage = Stage::new(Answer::raw("garbage and nothing else\r\n\r\n")).await;
            let reply = stage.get("/").await;
            answered(stage, reply, 1, Some("malformed"))
        }
        Reason::ResponseTooLarge => {
            let answer = Answer::ok().header("x-large", &"a".repeat(64 << 10));
            let stage = Stage::and(answer, "[upstreams.shop]\nheader_bytes = '16KiB'\n").await;
            let reply = stage.get("/").await;
            answered(stage, reply, 1, None)
        }
        Reason::PoolTimeout => {
            let gate = Gate::new();
            let pool = "[upstreams.shop.pool]\nconnections = 1\nwait = '50ms'\n";
            let stage = Stage::and(Answer::status(200).gate(&gate), pool).await;
            let mut first = stage.client().await;
            let first = tokio::spawn(async move { first.get("/").await });
            stage.origin.seen_when("the first request", |seen| !seen.is_empty()).await;
            let reply = stage.get("/").await;
            gate.open();
            within("the first answer", first).await.unwrap();
            answered(stage, reply, 1, None)
        }
        Reason::ConnectTimeout => {
            let hole = Blackhole::start().await;
            let text = format!("{}connect_timeout = '50ms'\n", upstream("shop", hole.address));
            let stage = Stage::and(Answer::ok(), &text).await;
            let reply = stage.get("/").await;
            holding(stage, reply, 1, None, hole)
        }
        Reason::UpstreamTimeout => {
            let stage = Stage::and(Answer::stall(), "[routes.all.timeouts]\nrequest = '50ms'\n").await;
            let reply = stage.get("/").await;
            answered(stage, reply, 1, Some("total"))
        }
        Reason::UpstreamTruncated => {
            let stage = Stage::new(Answer::ok().announced(100).then_close()).await;
            let reply = stage.get("/").await;
            answered(stage, reply, 1, None)
        }
        Reason::StreamIdleTimeout => {
            let answer = Answer::ok().announced(100).then_stall();
            let stage = Stage::and(answer, "[routes.all.timeouts]\nstream_idle = '50ms'\n").await;
            let reply = stage.get("/").await;
            answered(stage, reply, 1, None)
        }
        Reason::RouteRemoved => {
            let answer = Answer::ok().announced(100).then_stall();
            let kept = "[routes.kept]\nmatch.path = '/kept'\nupstream = 'shop'\n[reload]\ngrace = '50ms'\n";
            let stage = Stage::and(answer, kept).await;
            let mut client = stage.client().await;
            let answer = client.send(get("/")).await.unwrap();
            stage.reload(&[&upstream("shop", stage.origin.address), kept]);
            let reply = Reply::read(answer).await;
            answered(stage, reply, 1, None)
        }
        Reason::UpstreamStatus => {
            let stage = Stage::new(Answer::status(503)).await;
            let reply = stage.get("/").await;
            answered(stage, reply, 1, None)
        }
        Reason::WebsocketClose => {
            let (stage, reply) = closed_by_server(1011).await;
            answered(stage, reply, 1, None)
        }
        Reason::Maintenance => {
            let stage = Stage::and(Answer::ok(), "[routes.all]\nmaintenance = { enabled = true }\n").await;
            let reply = stage.get("/").await;
            answered(stage, reply, 0, None)
        }
        Reason::Overloaded => {
            let gate = Gate::new();
            let stage = Stage::and(Answer::status(200).gate(&gate), "[limits]\nin_flight = 1\n").await;
            let mut first = stage.client().await;
            let first = tokio::spawn(async move { first.get("/").await });
            stage.origin.seen_when("the first request", |seen| !seen.is_empty()).await;
            let reply = stage.get("/").await;
            gate.open();
            within("the first answer", first).await.unwrap();
            answered(stage, reply, 0, None)
        }
        Reason::NoEndpoint => {
            let stage = Stage::new(Answer::ok()).await;
            assert!(stage.gateway.set_in_use("shop", stage.origin.address, false));
            let reply = stage.get("/").await;
            answered(stage, reply, 0, None)
        }
        Reason::BreakerOpen => {
            let gate = Gate::new();
            let text = "[upstreams.shop]\nbreaker = { requests = 1 }\n";
            let stage = Stage::and(Answer::status(200).gate(&gate), text).await;
            let mut first = stage.client().await;
            let first = tokio::spawn(async move { first.get("/").await });
            stage.origin.seen_when("the first request", |seen| !seen.is_empty()).await;
            let reply = stage.get("/").await;
            gate.open();
            within("the first answer", first).await.unwrap();
            answered(stage, reply, 0, Some("requests"))
        }
        Reason::GrpcStatus => {
            let grpc = ("content-type", "application/grpc");
            let answer = Answer::status(200).header(grpc.0, grpc.1).trailer("grpc-status", "13");
            let stage = Stage::and(answer, "[upstreams.shop]\nprotocol = 'h2'\n").await;
            let call = request(Method::POST, "/shop.Orders/Create", &[grpc], body::empty());
            let reply = Client::http2(stage.gateway.address()).await.ask(call).await;
            answered(stage, reply, 1, None)
        }
        Reason::Misdirected => misdirected().await,
        // policies
        Reason::RateLimited => {
            let limit = "[rate_limits.few]\nrequests = 1\nper = '1h'\n[routes.all]\nrate_limit = 'few'\n";
            let stage = Stage::and(Answer::ok(), limit).await;
            stage.get("/").await;
            let reply = stage.get("/").await;
            answered(stage, reply, 0, None)
        }
        Reason::Unauthenticated => {
            let stage = Stage::and(Answer::ok(), &for_tokens("127.0.0.1:1")).await;
            let reply = stage.get("/").await;
            answered(stage, reply, 0, Some("missing_credentials"))
        }
        Reason::Forbidden => {
            let rules = "[routes.all]\naddresses = { deny = ['127.0.0.1'] }\n";
            let stage = Stage::and(Answer::ok(), rules).await;
            let reply = stage.get("/").await;
            answered(stage, reply, 0, Some("address"))
        }
        Reason::AuthUnavailable => {
            let refusing = Refusing::start();
            let stage = Stage::and(Answer::ok(), &for_tokens(&refusing.address.to_string())).await;
            let token = Signer::p256("one").token(&serde_json::json!({}));
            let fields = [("authorization", &*format!("Bearer {token}"))];
            let reply = stage.gateway.ask(request(Method::GET, "/", &fields, body::empty())).await;
            holding(stage, reply, 0, Some("issuer_away"), refusing)
        }
    }
}

async fn raw(stage: &Stage, bytes: &str) -> Reply {
    Raw::sending(stage.gateway.address(), bytes).await.reply().await
}

/// A rule for tokens of an issuer at this address.
fn for_tokens(issuer: &str) -> String {
    format!(
        "[auth.staff.jwt]\nissuer = 'i'\naudience = 'a'\njwks_url = 'http://{issuer}/'\n[routes.all]\nauth = 'staff'\n"
    )
}

async fn around(text: &str, routes: &str) -> Stage {
    let origin = Origin::start(Answer::ok()).await;
    let upstream = upstream("shop", origin.address);
    Stage::around(origin, &[&upstream, text, routes]).await
}

async fn panicked() -> Box<Provoked> {
    let origin = Origin::start(Answer::ok()).await;
    let collector = Collector::start().await;
    let logstash = Logstash::start();
    let texts = [all_to(origin.address), collector.grpc(), logstash.settings()];
    let gateway = Gateway::start_with(Arc::new(Buggy), &texts.each_ref().map(String::as_str)).await;
    let mut client = gateway.client().await;
    let reply = client.ask(request(Method::GET, "/", &[MARK], body::empty())).await;
    assert_eq!(client.get("/").await.status, 200, "the connection and the gateway go on");
    let held = Box::new(origin);
    Box::new(Provoked {
        collector,
        logstash,
        gateway: After::Running(gateway),
        reply: Some(reply),
        attempts: 1,
        detail: None,
        _held: held,
    })
}

async fn misdirected() -> Box<Provoked> {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.write(directory.path());
    authority.identity(&["shop.test"]).write(directory.path());
    authority.identity(&["partner.test"]).write_as(directory.path(), "partner");
    let tls = "[listeners.public.tls]\ncertificate_file = 'server.pem'\nkey_file = 'server-key.pem'\n\
               [listeners.public.tls.certificates.partner]\ncertificate_file = 'partner.pem'\n\
               key_file = 'partner-key.pem'\nclient_ca_file = 'ca.pem'\n";
    let origin = Origin::start(Answer::ok()).await;
    let (collector, logstash) = (Collector::start().await, Logstash::start());
    let texts = [all_to(origin.address), tls.to_owned(), collector.grpc(), logstash.settings()];
    let gateway = Gateway::start_in(directory.path(), &texts.each_ref().map(String::as_str)).await;
    let mut client = Client::tls(gateway.address(), "shop.test", authority.client(&["h2"])).await;
    let reply = client.get("http://partner.test/").await;
    assert!(origin.seen().is_empty(), "not forwarded");
    Box::new(Provoked {
        collector,
        logstash,
        gateway: After::Running(gateway),
        reply: Some(reply),
        attempts: 0,
        detail: None,
        _held: Box::new((origin, directory)),
    })
}

async fn shut_down() -> Box<Provoked> {
    let stage = Stage::and(Answer::stall(), "[shutdown]\ndeadline = '50ms'\n").await;
    let mut client = stage.client().await;
    let asking = tokio::spawn(async move { client.send(get("/")).await.is_ok() });
    stage.origin.seen_when("the request", |seen| !seen.is_empty()).await;
    let log = stage.gateway.stop().await;
    assert!(!within("the cut", asking).await.unwrap(), "cut without an answer");
    let held = Box::new(stage.origin);
    Box::new(Provoked {
        collector: stage.collector,
        logstash: stage.logstash,
        gateway: After::Gone(log),
        reply: None,
        attempts: 1,
        detail: None,
        _held: held,
    })
}

fn answered(stage: Stage, reply: Reply, attempts: usize, detail: Option<&'static str>) -> Box<Provoked> {
    holding(stage, reply, attempts, detail, ())
}

fn holding(
    stage: Stage,
    reply: Reply,
    attempts: usize,
    detail: Option<&'static str>,
    held: impl Send + 'static,
) -> Box<Provoked> {
    provoked(stage, Some(reply), attempts, detail, held)
}

fn unanswered(stage: Stage, attempts: usize) -> Box<Provoked> {
    provoked(stage, None, attempts, None, ())
}

fn provoked(
    stage: Stage,
    reply: Option<Reply>,
    attempts: usize,
    detail: Option<&'static str>,
    held: impl Send + 'static,
) -> Box<Provoked> {
    let Stage { origin, collector, logstash, gateway, .. } = stage;
    let held = Box::new((origin, held));
    Box::new(Provoked {
        collector,
        logstash,
        gateway: After::Running(gateway),
        reply,
        attempts,
        detail,
        _held: held,
    })
}

async fn verify(reason: Reason, provoked: Provoked) {
    let word = reason.word();
    let Provoked { collector, logstash, gateway, reply, attempts, detail, _held } = provoked;
    let log = match &gateway {
        After::Running(gateway) => gateway.access_log(),
        After::Gone(log) => log,
    };
    let of_reason = |line: &serde_json::Value| line["reason"] == word;
    let line = log.line(&format!("a log line of {word}"), of_reason).await;
    let trace_id = line["trace_id"].as_str().expect("a trace id").to_owned();

    let broken_off =
        matches!(reason, Reason::UpstreamTruncated | Reason::StreamIdleTimeout | Reason::RouteRemoved);
    if let Some(reply) = &reply {
        assert_eq!(reply.trace_id(), trace_id, "{word}");
        assert!(reply.headers.has("x-request-id"), "{word}");
        assert_eq!(reply.broken, broken_off, "{word}");
    }
    match (reason.status(), &reply) {
        (Some(status), Some(reply)) => verify_answer(reason, status.as_u16(), detail, reply),
        (None, Some(reply)) => {
            assert_eq!(reply.reason(), None, "{word}: the upstream's answer passes as it came");
        }
        (_, None) => {}
    }
    let status = reply.as_ref().map(|reply| reply.status);
    verify_line(reason, status, attempts, detail, &line);

    let spans = told(log, &collector, &trace_id, attempts).await;
    let server = &spans.server;
    assert_eq!(server.attribute("tracegate.reason"), Some(word));
    assert_eq!(server.attribute("tracegate.blame"), Some(reason.blame().word()), "{word}");
    assert_eq!(server.attribute("tracegate.detail"), detail, "{word}");
    let code = status.map(|status| status.to_string());
    assert_eq!(server.attribute("http.response.status_code"), code.as_deref(), "{word}");
    let ended_badly = matches!(reason, Reason::GrpcStatus | Reason::WebsocketClose);
    let error = broken_off || ended_badly || status.is_none_or(|status| status >= 500);
    let kind = if reason == Reason::UpstreamStatus { "503" } else { word };
    assert_eq!((server.error, server.attribute("error.type")), (error, error.then_some(kind)), "{word}");
    if let (Blame::Upstream, [attempt]) = (reason.blame(), &spans.attempts[..]) {
        assert_eq!(
            (attempt.error, attempt.attribute("error.type")),
            (true, Some(kind)),
            "{word}: the attempt"
        );
    }

    let record = logstash.of(&trace_id).await;
    assert_eq!(
        (&record["event"]["reason"], &record["error"]["type"]),
        (&word.into(), &kind.into()),
        "{record}"
    );
    assert!(!record.to_string().contains("planted"), "what a panic says stays inside: {record}");
    assert_eq!(record["labels"]["blame"], reason.blame().word(), "{record}");
    assert_eq!(record["labels"]["detail"].as_str(), detail, "{record}");
    // whoever refuses by a rule says so everywhere
    let rule = line["rule"].as_str();
    assert_eq!(server.attribute("tracegate.rule"), rule, "{word}");
    assert_eq!(record["labels"]["rule"].as_str(), rule, "{record}");
    if let (Some(_), Some(reply)) = (reason.status(), &reply) {
        assert_eq!(reply.json()["rule"].as_str(), rule, "{word}");
    }
    if reason == Reason::BodyTooLarge {
        assert_eq!(rule, Some("routes.all.limits.body"));
    }

    // a gateway that is gone has no metrics page any more
    if let After::Running(gateway) = &gateway {
        let class = status.map_or("none".to_owned(), |status| format!("{}xx", status / 100));
        let labels = [
            ("tracegate_reason", word),
            ("tracegate_blame", reason.blame().word()),
            ("status_class", class.as_str()),
        ];
        let metrics = gateway.metrics().await;
        assert_eq!(metrics.count("tracegate_requests_total", &labels), 1, "{word}: {}", metrics.text);
        let by_rule = rule.map_or(0, |rule| {
            metrics.count("tracegate_rules_total", &[("tracegate_rule", rule), ("tracegate_reason", word)])
        });
        assert_eq!(by_rule, u64::from(rule.is_some()), "{word}: {}", metrics.text);
    }
}

fn verify_answer(reason: Reason, status: u16, detail: Option<&str>, reply: &Reply) {
    let word = reason.word();
    assert_eq!((reply.status, reply.reason().as_deref()), (status, Some(word)));
    let problem = reply.json();
    assert_eq!(problem["trace_id"], reply.trace_id(), "{word}");
    assert_eq!(problem["status"], status, "{word}");
    // what exactly was wrong with credentials is for the operator alone
    let told = !matches!(reason, Reason::Unauthenticated | Reason::Forbidden | Reason::AuthUnavailable);
    assert_eq!(problem["detail"].as_str(), detail.filter(|_| told), "{word}");
    assert_eq!(reply.headers.has("www-authenticate"), reason == Reason::Unauthenticated, "{word}");
    assert_eq!(reply.headers.has("retry-after"), matches!(status, 429 | 503), "{word}");
}

fn verify_line(
    reason: Reason,
    status: Option<u16>,
    attempts: usize,
    detail: Option<&str>,
    line: &serde_json::Value,
) {
    let word = reason.word();
    let logged = if reason == Reason::ClientGone { Some(499) } else { status };
    assert_eq!(line["status"].as_u64(), logged.map(u64::from), "{line}");
    assert_eq!(line["blame"], reason.blame().word(), "{line}");
    assert_eq!(line["detail"].as_str(), detail, "{line}");
    assert_eq!(line["attempts"].as_u64(), Some(attempts as u64), "{word}: {line}");
}

#[tokio::test]
async fn a_failure_is_told_to_grpc_in_its_own_way() {
    let refusing = Refusing::start();
    let gateway = Gateway::before(refusing.address).await;
    let call =
        request(Method::POST, "/shop.Orders/Create", &[("content-type", "application/grpc")], body::empty());
    let reply = Client::http2(gateway.address()).await.ask(call).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/grpc")));
    assert_eq!((reply.header("grpc-status"), reply.body.len()), (Some("14"), 0), "trailers only");
    assert_eq!(gateway.logged(&reply.trace_id()).await["reason"], "connect_refused");
}

#[tokio::test]
async fn an_answer_of_our_own_echoes_nothing_of_the_request() {
    let stage = around("", "[routes]\na = { match = { path = '/a' }, upstream = 'shop' }\n").await;
    let fields = [("x-secret", "marker"), ("cookie", "marker"), ("user-agent", "marker")];
    let reply = stage.gateway.ask(request(Method::GET, "/marker?marker", &fields, body::empty())).await;
    assert_eq!(reply.status, 404);
    let told = stage.told(&reply.trace_id(), 0).await;
    for said in
        [reply.text(), format!("{:?}", reply.headers), told.log.to_string(), format!("{:?}", told.server)]
    {
        assert!(!said.contains("marker"), "{said}");
    }
}
