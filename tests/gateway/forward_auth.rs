//! Forward-auth: a service says who may call, and what it is asked and says is on record like any other call.

use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;

use crate::support::client::request;
use crate::support::collector::Span;
use crate::support::gateway::{all_to, upstream};
use crate::support::{
    Answer, Authority, Client, Gate, Gateway, Origin, Raw, Reply, Seen, Stage, TcpLink, Told, body, within,
};

/// A stage whose one route asks a service, by these keys of the rule beside its upstream.
struct Portal {
    stage: Stage,
    service: Origin,
}

impl Portal {
    /// `more` is a text of its own.
    async fn new(answer: Answer, rule: &str, more: &str) -> Self {
        let (service, origin) = (Origin::start(answer).await, Origin::start(Answer::ok()).await);
        let base = all_to(origin.address);
        let stage = Stage::around(origin, &[&base, &asking(&service, rule), more]).await;
        Self { stage, service }
    }

    async fn ask(&self, fields: &[(&str, &str)]) -> Reply {
        self.stage.gateway.ask(request(Method::GET, "/orders", fields, body::empty())).await
    }
}

fn asking(service: &Origin, rule: &str) -> String {
    format!(
        "{}[auth.portal.forward]\nupstream = 'portal'\n{rule}\n[routes.all]\nauth = 'portal'\n",
        upstream("portal", service.address)
    )
}

/// The question among the CLIENT spans, and the attempts.
fn question(told: Told) -> (Span, Vec<Span>) {
    let (mut questions, attempts): (Vec<_>, Vec<_>) =
        told.attempts.into_iter().partition(|span| span.attribute("tracegate.upstream") == Some("portal"));
    assert_eq!(questions.len(), 1, "{questions:?}");
    (questions.remove(0), attempts)
}

fn count(metrics: &crate::support::Metrics, outcome: &str) -> u64 {
    let labels = [("tracegate_rule", "auth.portal"), ("outcome", outcome)];
    metrics.count("tracegate_auth_calls_total", &labels)
}

#[tokio::test]
async fn a_service_is_asked_with_what_is_listed_and_says_who_it_is() {
    let said = Answer::status(200).header("x-user", "alice").header("x-groups", "a").header("x-groups", "b");
    let more = "path = '/verify?for=shop'\nanswer_headers = ['X-User', 'x-groups', 'x-none']\nsubject = 'x-user'\n\
                [auth.portal]\nidentity_headers = { 'x-member' = 'x-groups', 'x-name' = 'sub' }\n";
    let portal = Portal::new(said.data("welcome"), more, "[routes.all]\noperation = 'order.create'\n").await;
    let sent = [
        ("authorization", "Basic secret"),
        ("cookie", "session=1"),
        ("accept", "text/html"),
        ("x-private", "not for the service"),
        ("x-user", "mallory"),
        ("x-none", "mallory"),
        ("x-forwarded-uri", "/public"),
        ("connection", "keep-alive, x-user, accept"),
    ];
    let asked = request(Method::POST, "/a/../orders?x=1", &sent, body::full("a body"));
    let reply = portal.stage.gateway.ask(asked).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));

    let question_seen = portal.service.only().await;
    assert_eq!((question_seen.method.as_str(), question_seen.target.as_str()), ("GET", "/verify?for=shop"));
    assert_eq!((question_seen.body_bytes, question_seen.header("content-length")), (0, None));
    let host = portal.service.address.to_string();
    for (name, value) in [
        ("host", Some(&*host)),
        ("x-forwarded-method", Some("POST")),
        ("x-forwarded-uri", Some("/orders?x=1")),
        ("x-forwarded-host", Some("shop.test")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("authorization", Some("Basic secret")),
        ("cookie", Some("session=1")),
        ("accept", None),
        ("x-private", None),
        ("x-user", None),
        ("connection", None),
    ] {
        assert_eq!(question_seen.header(name), value, "{name}");
    }
    let seen = portal.stage.origin.only().await;
    let said = ["x-user", "x-groups", "x-none", "x-member", "x-name"].map(|name| seen.header(name));
    assert_eq!(said, [Some("alice"), Some("a,b"), None, Some("a,b"), Some("alice")]);
    assert_eq!((seen.body.as_slice(), seen.header("x-forwarded-method")), (&b"a body"[..], None));

    let told = portal.stage.told(&reply.trace_id(), 2).await;
    let told_of =
        ["tracegate.auth_rule", "tracegate.auth_method", "tracegate.auth_unverified", "tracegate.rule"];
    let on_span = told_of.map(|name| told.server.attribute(name));
    assert_eq!(on_span, [Some("auth.portal"), Some("forward"), None, None]);
    let in_log = ["auth_rule", "auth_method", "endpoint"].map(|key| told.log[key].as_str());
    let endpoint = portal.stage.origin.address.to_string();
    assert_eq!(in_log, [Some("auth.portal"), Some("forward"), Some(&*endpoint)]);
    assert!(told.log["attempts"] == 1 && told.log["auth_ms"].is_f64(), "{}", told.log);
    let signals = format!("{:?}{:?}{}", told.server, told.attempts, told.log);
    for secret in ["alice", "secret", "session", "for=shop"] {
        assert!(!signals.contains(secret), "{secret} is told");
    }
    let (question, attempts) = question(told);
    assert_eq!((&*question.name, question_seen.traceparent().1), ("GET /verify", question.id.clone()));
    for (key, value) in [
        ("tracegate.rule", Some("auth.portal")),
        ("url.template", Some("/verify")),
        ("url.full", Some(&*format!("http://{host}/verify"))),
        ("http.request.method", Some("GET")),
        ("http.response.status_code", Some("200")),
        ("service.peer.name", Some("portal-api")),
        ("http.request.resend_count", None),
        ("error.type", None),
    ] {
        assert_eq!(question.attribute(key), value, "{key}");
    }
    assert_eq!((&*attempts[0].id, attempts[0].attribute("tracegate.rule")), (&*seen.traceparent().1, None));
    assert_eq!(attempts[0].attribute("http.request.resend_count"), None, "a question is no attempt");
    assert!(question.end <= attempts[0].start);
    let metrics = portal.stage.gateway.metrics().await;
    assert_eq!((count(&metrics, "passed"), count(&metrics, "refused")), (1, 0));
    // the time of the question is none of the operation's, and not the gateway's own
    for (upstream, operation) in [("portal", ""), ("shop", "order.create")] {
        let labels = [("tracegate_upstream", upstream), ("tracegate_operation", operation)];
        assert_eq!(metrics.count("http_client_request_duration_seconds_count", &labels), 1, "{upstream}");
    }
    assert_eq!(metrics.count("tracegate_retries_total", &[]), 0);
}

#[tokio::test]
async fn what_a_service_refuses_goes_to_the_client_as_it_said_and_nowhere_else() {
    let portal = Portal::new(Answer::ok(), "", "").await;
    let login = Answer::status(302).header("location", "https://login.test/?rd=1").header("x-internal", "1");
    let wrong = Answer::status(401).header("www-authenticate", "Basic realm=\"portal\"").data("who are you");
    let page = Answer::status(403).header("content-type", "text/html").header("cache-control", "private");
    let mut refused = 0;
    for (answer, status, reason, text) in [
        (login.header("set-cookie", "a=1").header("set-cookie", "b=2"), 302, "unauthenticated", ""),
        (wrong, 401, "unauthenticated", "who are you"),
        (page.data("<p>no"), 403, "forbidden", "<p>no"),
        (Answer::status(404).data("nothing here").chunked(), 404, "forbidden", "nothing here"),
        (Answer::status(429).header("retry-after", "7"), 429, "forbidden", ""),
    ] {
        portal.service.answer(answer);
        let reply = portal.ask(&[("accept", "text/html")]).await;
        assert_eq!((reply.status, reply.text().as_str()), (status, text));
        let fields = ["x-internal", "server", "via"].map(|name| reply.headers.has(name));
        assert_eq!(fields, [false; 3], "{status}");
        match status {
            302 => {
                assert_eq!(reply.header("location"), Some("https://login.test/?rd=1"));
                assert_eq!(reply.headers.all("set-cookie"), ["a=1", "b=2"]);
            }
            401 => assert_eq!(reply.headers.all("www-authenticate"), ["Basic realm=\"portal\""]),
            403 => assert_eq!(reply.header("content-type"), Some("text/html")),
            429 => assert_eq!(reply.header("retry-after"), Some("7")),
            _ => {}
        }
        let cached = if status == 403 { "private" } else { "no-store" };
        assert_eq!(reply.headers.all("cache-control"), [cached], "{status}");
        let told = portal.stage.told(&reply.trace_id(), 1).await;
        let on_record = ["reason", "detail", "rule"].map(|key| told.log[key].as_str());
        assert_eq!(on_record, [Some(reason), Some("denied"), Some("auth.portal")], "{status}");
        assert_eq!(
            (told.log["attempts"].as_u64(), told.log["status"].as_u64()),
            (Some(0), Some(status.into()))
        );
        assert_eq!(told.server.attribute("tracegate.rule"), Some("auth.portal"));
        assert!(!told.server.error && told.server.attribute("tracegate.auth_rule").is_none());
        let (question, _) = question(told);
        assert_eq!(question.attribute("http.response.status_code"), Some(&*status.to_string()));
        assert_eq!(question.error, status >= 400, "as any CLIENT span");
        refused += 1;
    }
    portal.service.answer(Answer::status(401).data("who are you"));
    let mut client = portal.stage.client().await;
    let head = client.ask(request(Method::HEAD, "/orders", &[], body::empty())).await;
    assert_eq!((head.status, head.text().as_str()), (401, ""));
    assert_eq!(client.get("/orders").await.text(), "who are you", "the connection is still in step");
    assert!(portal.stage.origin.seen().is_empty(), "nothing came through");
    let metrics = portal.stage.gateway.metrics().await;
    assert_eq!(count(&metrics, "refused"), refused + 2);
    let labels = [("tracegate_rule", "auth.portal"), ("tracegate_reason", "unauthenticated")];
    assert_eq!(metrics.count("tracegate_rules_total", &labels), 4);
    assert_eq!(portal.service.connections().accepted, 1, "its pool is that of any upstream");
    let errors = portal.stage.logstash.events(1).await;
    assert_eq!(errors[0]["labels"]["rule"], "auth.portal", "{}", errors[0]);
}

#[tokio::test]
async fn a_refusal_that_is_too_long_or_breaks_off_is_told_in_the_gateways_own_words() {
    let portal = Portal::new(Answer::ok(), "body_bytes = '1KiB'", "").await;
    for (answer, span) in [
        (Answer::status(403).zeros(4096), "403"),
        (Answer::status(403).data("abc").announced(100).then_close(), "upstream_truncated"),
    ] {
        portal.service.answer(answer);
        let reply = portal.ask(&[]).await;
        assert_eq!((reply.status, reply.reason().as_deref()), (403, Some("forbidden")));
        assert!(reply.json().get("detail").is_none(), "{}", reply.text());
        let (question, _) = question(portal.stage.told(&reply.trace_id(), 1).await);
        assert_eq!(question.attribute("error.type"), Some(span));
    }
    // what is said of those who may pass is not waited for
    portal.service.answer(Answer::status(200).data("abc").announced(100).then_stall());
    assert_eq!(portal.ask(&[]).await.status, 200);
}

#[tokio::test]
async fn a_call_of_grpc_is_refused_in_its_own_protocol() {
    let portal = Portal::new(Answer::status(302).header("location", "https://login.test/"), "", "").await;
    let mut client = Client::http2(portal.stage.gateway.address()).await;
    for (answer, status) in
        [(Answer::status(302), "16"), (Answer::status(403), "7"), (Answer::status(500), "14")]
    {
        portal.service.answer(answer);
        let call = [("content-type", "application/grpc"), ("te", "trailers")];
        let reply = client.ask(request(Method::POST, "/shop.Orders/Create", &call, body::empty())).await;
        assert_eq!((reply.status, reply.header("grpc-status")), (200, Some(status)));
    }
    assert_eq!(portal.service.seen()[0].header("x-forwarded-uri"), Some("/shop.Orders/Create"));
    portal.service.answer(Answer::status(204));
    portal
        .stage
        .origin
        .answer(Answer::status(200).header("content-type", "application/grpc").header("grpc-status", "0"));
    let call = [("content-type", "application/grpc"), ("te", "trailers")];
    let reply =
        client.ask(request(Method::POST, "/shop.Orders/Create", &call, body::full("\0\0\0\0\0"))).await;
    assert_eq!(reply.header("grpc-status"), Some("0"));
    assert_eq!(portal.stage.origin.only().await.body_bytes, 5);
}

#[tokio::test]
async fn a_websocket_passes_the_same_door() {
    const ASK: &str = "GET /chat HTTP/1.1\r\nhost: shop.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\ncookie: session=1\r\n\r\n";
    const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x01";
    let portal = Portal::new(Answer::status(401).data("no"), "", "").await;
    portal.stage.origin.answer(Answer::raw(AGREE));
    let mut client = Raw::sending(portal.stage.gateway.address(), ASK).await;
    assert_eq!(client.reply().await.status, 401);
    assert!(portal.stage.origin.seen().is_empty());
    portal.service.answer(Answer::status(200));
    let mut client = Raw::sending(portal.stage.gateway.address(), ASK).await;
    assert_eq!(client.head().await.status(), 101);
    assert_eq!(&client.rest().await[..], b"\x01");
    for seen in portal.service.seen() {
        let fields = ["upgrade", "connection", "cookie"].map(|name| seen.header(name));
        assert_eq!(fields, [None, None, Some("session=1")], "a question is no upgrade");
    }
}

#[tokio::test]
async fn while_nobody_answers_requests_are_refused_or_pass_as_the_operator_says() {
    for (open, status) in [(false, 503), (true, 200)] {
        let service = Origin::start(Answer::ok()).await;
        let mut link = TcpLink::to(service.address);
        let failing = if open { "on_failure = 'open'\n" } else { "" };
        let rule = format!("timeout = '200ms'\nanswer_headers = ['x-user']\n{failing}");
        let origin = Origin::start(Answer::ok()).await;
        let (base, linked) = (all_to(origin.address), upstream("portal", link.address));
        let stage = Stage::around(origin, &[&base, &asking(&service, &rule), &linked]).await;
        let ask = async || {
            let spoofed = request(Method::GET, "/", &[("x-user", "mallory")], body::empty());
            stage.gateway.ask(spoofed).await
        };
        let mut asked = 0;
        for (answer, detail, error, calls) in [
            (Some(Answer::status(500).data("oops")), "service_failed", "500", 1),
            (Some(Answer::raw("garbage\r\n\r\n")), "service_failed", "upstream_protocol_error", 1),
            (Some(Answer::status(101)), "service_failed", "upstream_protocol_error", 1),
            (Some(Answer::stall()), "timeout", "upstream_timeout", 1),
            (Some(Answer::close()), "service_away", "upstream_reset", 2),
            (None, "service_away", "connect_refused", 1),
        ] {
            match answer {
                Some(answer) => service.answer(answer),
                None => link.refuse().await,
            }
            let reply = ask().await;
            assert_eq!(reply.status, status, "{detail}");
            asked += 1;
            let told = stage.told(&reply.trace_id(), calls + usize::from(open)).await;
            let (word, spans) = if open {
                ("auth_unverified", "tracegate.auth_unverified")
            } else {
                ("detail", "tracegate.detail")
            };
            assert_eq!(told.log[word], detail, "{}", told.log);
            assert_eq!(told.server.attribute(spans), Some(detail));
            if open {
                assert_eq!(
                    (told.log["auth_rule"].as_str(), told.log.get("reason")),
                    (Some("auth.portal"), None)
                );
                assert_eq!(stage.origin.seen().last().unwrap().header("x-user"), None, "from nobody");
            } else {
                assert_eq!(
                    (reply.reason().as_deref(), &told.log["rule"]),
                    (Some("auth_unavailable"), &"auth.portal".into())
                );
                assert!(reply.headers.has("retry-after") && reply.json().get("detail").is_none());
            }
            for span in
                told.attempts.iter().filter(|span| span.attribute("tracegate.upstream") == Some("portal"))
            {
                assert_eq!(span.attribute("error.type"), Some(error), "{detail}");
            }
        }
        let metrics = stage.gateway.metrics().await;
        let expected = if open { (asked, 0) } else { (0, asked) };
        assert_eq!((count(&metrics, "open"), count(&metrics, "unavailable")), expected);
        assert_eq!(stage.origin.seen().len(), if open { 6 } else { 0 });
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_service_has_closed_costs_no_request() {
    let portal = Portal::new(Answer::ok(), "", "").await;
    assert_eq!(portal.ask(&[]).await.status, 200);
    let first = AtomicBool::new(true);
    portal.service.answer(
        move |_: &Seen| {
            if first.swap(false, Ordering::Relaxed) { Answer::reset() } else { Answer::ok() }
        },
    );
    let reply = portal.ask(&[]).await;
    assert_eq!(reply.status, 200);
    let told = portal.stage.told(&reply.trace_id(), 3).await;
    let errors: Vec<_> = told.attempts.iter().map(|span| span.attribute("error.type")).collect();
    assert_eq!(errors, [Some("upstream_reset"), None, None]);
    assert_eq!(told.log["attempts"], 1);
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_a_slow_service_ends_the_question() {
    let gate = Gate::new();
    let portal = Portal::new(Answer::status(200).gate(&gate), "timeout = '1h'", "").await;
    let raw = Raw::sending(portal.stage.gateway.address(), "GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
    portal.service.seen_when("the question", |seen| !seen.is_empty()).await;
    raw.reset();
    let told = portal.stage.told_first(1).await;
    assert_eq!((&told.log["reason"], &told.log["status"]), (&"client_gone".into(), &499.into()));
    let (question, _) = question(told);
    assert_eq!(question.attribute("tracegate.reason"), Some("client_gone"));
    portal.service.seen_when("the end of it", |seen| seen[0].left).await;
    assert!(portal.stage.origin.seen().is_empty());
    let metrics = portal.stage.gateway.metrics().await;
    assert_eq!(metrics.count("http_client_active_requests", &[]), 0);
}

#[tokio::test]
async fn a_slow_service_has_no_more_time_than_the_request() {
    let rule = "timeout = '1h'\non_failure = 'open'\n";
    let portal = Portal::new(Answer::stall(), rule, "[routes.all]\ntimeouts = { request = '50ms' }\n").await;
    let reply = portal.ask(&[]).await;
    assert_eq!((reply.status, reply.reason().as_deref()), (503, Some("auth_unavailable")));
    let told = portal.stage.told(&reply.trace_id(), 1).await;
    assert_eq!((&told.log["detail"], &told.log["rule"]), (&"total".into(), &"auth.portal".into()));
    let (question, _) = question(told);
    let why = ["error.type", "tracegate.detail"].map(|key| question.attribute(key));
    assert_eq!(why, [Some("upstream_timeout"), Some("total")]);
}

#[tokio::test]
async fn a_service_without_a_place_for_a_question_refuses_like_any_upstream() {
    let gate = Gate::new();
    let more = "[upstreams.portal]\nbreaker = { requests = 1 }\n";
    let portal = Portal::new(Answer::status(200).gate(&gate), "", more).await;
    let (mut first, address) = (portal.stage.client().await, portal.stage.gateway.address());
    let waiting = tokio::spawn(async move { first.get("/").await.status });
    portal.service.seen_when("the first question", |seen| !seen.is_empty()).await;
    let reply = Client::http1(address).await.get("/").await;
    assert_eq!((reply.status, reply.reason().as_deref()), (503, Some("auth_unavailable")));
    let told = portal.stage.told(&reply.trace_id(), 0).await;
    assert_eq!(told.log["detail"], "service_away");
    gate.open();
    assert_eq!(within("the first answer", waiting).await.unwrap(), 200);
}

#[tokio::test]
async fn who_is_known_without_asking_is_not_asked_about() {
    let key = "37107b2fb03e0499cbb99d1a8388ed83b856fc778657fa9535127d5a5a04586f";
    let service = Origin::start(Answer::status(302).header("location", "/login")).await;
    let digest = ring::digest::digest(&ring::digest::SHA256, b"key");
    let hash = digest.as_ref().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let keys = format!("[auth.partners.api_keys.keys]\nacme = {{ sha256 = '{hash}' }}\n");
    let both = "[routes.all]\nauth = ['portal', 'partners']\n";
    let origin = Origin::start(Answer::ok()).await;
    let base = all_to(origin.address);
    let stage = Stage::around(origin, &[&base, &asking(&service, ""), &keys, both]).await;
    let ask = async |fields: &[(&str, &str)]| {
        stage.gateway.ask(request(Method::GET, "/", fields, body::empty())).await
    };
    let reply = ask(&[("x-api-key", "key")]).await;
    assert_eq!((reply.status, service.seen().len()), (200, 0));
    let line = stage.gateway.logged(&reply.trace_id()).await;
    assert_eq!((&line["auth_rule"], &line["auth_method"]), (&"auth.partners".into(), &"api_key".into()));
    for fields in [&[][..], &[("x-api-key", key)]] {
        let reply = ask(fields).await;
        assert_eq!((reply.status, reply.header("location")), (302, Some("/login")), "{fields:?}");
    }
    assert_eq!((service.seen().len(), stage.origin.seen().len()), (2, 1));
}

#[tokio::test]
async fn a_service_over_tls_and_http2_is_asked_as_any_upstream_and_a_reload_moves_it() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.write(directory.path());
    let service =
        Origin::start_tls(&authority.identity(&["localhost"]), Answer::ok().header("x-user", "a")).await;
    let (origin, other) = (Origin::start(Answer::ok()).await, Origin::start(Answer::status(403)).await);
    let base = all_to(origin.address);
    let text = format!(
        "[upstreams.portal]\nendpoints = ['https://localhost:{}']\nprotocol = 'h2'\ntls = {{ ca_file = 'ca.pem' }}\n\
         [auth.portal.forward]\nupstream = 'portal'\nanswer_headers = ['x-user']\n[routes.all]\nauth = 'portal'\n",
        service.address.port()
    );
    let gateway = Gateway::start_in(directory.path(), &[&base, &text]).await;
    assert_eq!(gateway.get("/").await.status, 200);
    let (seen, host) = (service.only().await, format!("localhost:{}", service.address.port()));
    assert_eq!((seen.version.as_str(), seen.header("host")), ("HTTP/2.0", Some(&*host)));
    assert_eq!(origin.only().await.header("x-user"), Some("a"));
    let moved =
        format!("[upstreams.portal]\nendpoints = ['http://{}']\nprotocol = 'http/1.1'\n", other.address);
    let without_tls = text.replace("tls = { ca_file = 'ca.pem' }\n", "");
    let report = gateway.reload(&[&base, &without_tls, &moved]);
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(gateway.get("/").await.status, 403);
    assert_eq!(other.seen().len(), 1);
}

#[tokio::test]
async fn a_question_that_comes_back_to_the_gateway_ends() {
    let text = "[upstreams.portal]\nendpoints = ['http://127.0.0.1:9']\n[auth.portal.forward]\nupstream = 'portal'\n\
                [routes.all]\nauth = 'portal'\n";
    let stage = Stage::and(Answer::ok(), text).await;
    let itself = upstream("portal", stage.gateway.address());
    stage.reload(&[&all_to(stage.origin.address), text, &itself]);
    let reply = stage.get("/").await;
    assert_eq!((reply.status, reply.reason().as_deref()), (503, Some("auth_unavailable")));
    let log = stage.gateway.log(10).await;
    assert!(log.iter().any(|line| line["reason"] == "loop_detected"), "{log:?}");
}

#[tokio::test]
async fn what_is_wrong_with_a_rule_that_asks_is_told_before_it_serves() {
    let base = "[upstreams.shop]\nendpoints = ['http://a']\n[upstreams.portal]\nendpoints = ['http://b']\n\
                [routes.all]\nmatch = { path = '/' }\nupstream = 'shop'\nauth = 'a'\n";
    for (text, expected) in [
        ("[auth.a.forward]\n", "auth.a.forward.upstream: is missing"),
        ("[auth.a.forward]\nupstream = 'portel'\n", "write \"portal\""),
        ("[auth.a.forward]\nupstream = 'other'\n", "add the table [upstreams.other]"),
        ("[auth.a.forward]\nupstream = 'portal'\npath = 'verify'\n", "\"verify\" is not a path"),
        ("[auth.a.forward]\nupstream = 'portal'\nrequest_headers = ['host']\n", "host has its own meaning"),
        (
            "[auth.a.forward]\nupstream = 'portal'\nrequest_headers = ['x-forwarded-uri']\n",
            "has its own meaning",
        ),
        (
            "[auth.a.forward]\nupstream = 'portal'\nanswer_headers = ['a b']\n",
            "is not the name of a header field",
        ),
        (
            "[auth.a.forward]\nupstream = 'portal'\nrefusal_headers = ['content-length']\n",
            "has its own meaning",
        ),
        ("[auth.a.forward]\nupstream = 'portal'\nsubject = 'x-user'\n", "is not one of answer_headers"),
        ("[auth.a.forward]\nupstream = 'portal'\non_failure = 'local'\n", "\"local\" is none of"),
        ("[auth.a]\nforward_credentials = true\n[auth.a.forward]\nupstream = 'portal'\n", "is never used"),
        (
            "[auth.a]\nidentity_headers = { 'x-user' = 'name' }\n[auth.a.forward]\nupstream = 'portal'\n",
            "would never be set",
        ),
        ("[auth.a]\nmtls = {}\n[auth.a.forward]\nupstream = 'portal'\n", "one kind of credentials"),
    ] {
        let problems = Gateway::refusal(&[base, text]).await;
        assert!(problems.contains(expected), "{text}: {problems}");
    }
}

#[tokio::test]
async fn what_goes_by_who_somebody_is_needs_a_rule_that_knows() {
    let hash = "37107b2fb03e0499cbb99d1a8388ed83b856fc778657fa9535127d5a5a04586f";
    let base = format!(
        "[upstreams.shop]\nendpoints = ['http://a']\n[auth.partners]\nidentity_headers = {{ 'x-user' = 'sub' }}\n\
         [auth.partners.api_keys.keys]\nacme = {{ sha256 = '{hash}' }}\n\
         [auth.portal.forward]\nupstream = 'shop'\nanswer_headers = ['x-tenant']\n\
         [rate_limits.few]\nrequests = 1\n[routes.all]\nmatch = {{ path = '/' }}\nupstream = 'shop'\n"
    );
    let limit = |key: &str, auth: &str| {
        format!("[rate_limits.few]\nkey = {key}\n[routes.all]\nrate_limit = 'few'\nauth = '{auth}'\n")
    };
    let claim = "{ claim = 'x-tenant' }";
    for (text, expected) in [
        (limit("'identity'", "off"), "rate_limits.few counts by who somebody is, which no rule"),
        (limit("'identity'", "portal"), "counts by who somebody is"),
        (limit(claim, "partners"), "counts by the claim \"x-tenant\""),
        (limit("{ header = 'x-user' }", "partners"), "rate_limits.few.key: x-user is set by auth.partners"),
        (
            "[routes.all.match]\nheaders = { x-user = 'root' }\n".to_owned(),
            "is set by auth.partners, once the route",
        ),
        (
            "[routes.all.attributes]\nuser = { request_header = 'x-tenant' }\n".to_owned(),
            "routes.all.attributes.user.request_header: x-tenant says who somebody is",
        ),
    ] {
        let problems = Gateway::refusal(&[&base, &text]).await;
        assert!(problems.contains(expected), "{text}: {problems}");
    }
    for text in [limit("'identity'", "partners"), limit(claim, "portal"), limit("'address'", "off")] {
        Gateway::start(&[&base, &text]).await;
    }
}
