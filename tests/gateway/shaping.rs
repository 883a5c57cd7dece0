//! What a route changes of what passes, and how its answers look, whoever made them.

use http::Method;
use tracegate::gateway::file::{Sources, load};
use tracegate::http::policy;
use tracegate::setting::Hash;

use crate::support::client::request;
use crate::support::gateway::{all_to, route, upstream};
use crate::support::link::Refusing;
use crate::support::{Answer, Authority, Client, Gateway, Origin, Raw, Reply, Seen, Stage, body};

/// One route `all` with these keys more.
async fn shaped(script: Answer, keys: &str) -> Stage {
    Stage::and(script, &format!("[routes.all]\n{keys}\n")).await
}

async fn ask(stage: &Stage, method: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
    stage.gateway.ask(request(method.parse().unwrap(), path, fields, body::empty())).await
}

/// A browser's `Accept`.
const BROWSER: (&str, &str) =
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8");

const PAGE: (&str, &str) = ("origin", "https://shop.example");

fn values(reply: &Reply, name: &str) -> String {
    reply.headers.all(name).join(", ")
}

// ---- header rules

#[tokio::test]
async fn fields_are_set_added_and_removed_on_the_way_up_and_down() {
    let answer =
        Answer::ok().header("server", "secret/1.0").header("x-frame-options", "ALLOW").header("link", "<a>");
    let keys = "headers.request = { set = { 'x-order' = 'order {order_id} of {trace_id} {{x}}', 'user-agent' = 'g' }, \
                add = { 'x-seen' = '{host}' }, remove = ['x-debug'] }\n\
                headers.response = { set = { 'x-frame-options' = 'DENY' }, add = { link = '<b>' }, remove = ['server'] }";
    let origin = Origin::start(answer).await;
    let texts =
        [upstream("shop", origin.address), route("all", "/orders/{order_id}", "shop"), keys.to_owned()];
    let stage = Stage::around(origin, &[&texts.concat()]).await;
    let fields = [("x-debug", "1"), ("x-seen", "client"), ("x-order", "forged"), ("user-agent", "curl")];
    let reply = ask(&stage, "GET", "/orders/42", &fields).await;
    let seen = stage.origin.only().await;
    let order = format!("order 42 of {} {{x}}", reply.trace_id());
    assert_eq!(seen.headers.all("x-order"), [order]);
    assert_eq!(seen.headers.all("x-seen"), ["client", "shop.test"]);
    assert_eq!((seen.header("user-agent"), seen.header("x-debug")), (Some("g"), None));
    assert_eq!((reply.header("x-frame-options"), reply.header("server")), (Some("DENY"), None));
    assert_eq!(values(&reply, "link"), "<a>, <b>");
}

#[tokio::test]
async fn a_client_cannot_take_away_what_a_rule_sets() {
    let stage = shaped(Answer::ok(), "headers.request.set = { 'x-tenant' = 'acme' }").await;
    let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: x-tenant, x-other, te\r\nx-tenant: forged\r\nx-other: 1\r\n\
                te: trailers\r\n\r\n";
    let reply = Raw::sending(stage.gateway.address(), head).await.reply().await;
    assert_eq!(reply.status, 200);
    let seen = stage.origin.only().await;
    assert_eq!((seen.headers.all("x-tenant"), seen.header("x-other")), (vec!["acme"], None));
    assert_eq!(seen.header("te"), Some("trailers"), "what the connection itself needs is still understood");
}

#[tokio::test]
async fn a_secret_is_set_towards_the_upstream_and_told_nobody() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("token"), "Bearer planted-secret\n").unwrap();
    let origin = Origin::start(Answer::ok()).await;
    let keys = "[routes.all.headers.request]\nsecrets = { authorization = { file = 'token' } }\n";
    let gateway = Gateway::start_in(directory.path(), &[&all_to(origin.address), keys]).await;
    let reply = gateway.get("/").await;
    assert_eq!(origin.only().await.header("authorization"), Some("Bearer planted-secret"));
    assert!(!gateway.logged(&reply.trace_id()).await.to_string().contains("planted"));
    assert!(!gateway.admin("/status").await.text().contains("planted"));
}

#[tokio::test]
async fn response_rules_hold_for_the_gateways_own_answers_and_do_not_change_what_these_are() {
    let refusing = Refusing::start();
    let rules = "[routes.all.headers.response]\nset = { 'x-frame-options' = 'DENY', 'content-type' = 'text/plain', \
                 'x-trace' = '{trace_id}' }\nremove = ['retry-after', 'content-type']\n";
    let gateway = Gateway::start(&[&all_to(refusing.address), rules]).await;
    let reply = gateway.get("/").await;
    assert_eq!((reply.status, reply.reason().as_deref()), (502, Some("connect_refused")));
    assert_eq!(
        (reply.header("x-frame-options"), reply.header("x-trace")),
        (Some("DENY"), Some(&*reply.trace_id()))
    );
}

// ---- where a request goes

#[tokio::test]
async fn a_path_is_rewritten_by_template_and_keeps_its_query() {
    let origin = Origin::start(Answer::ok()).await;
    let texts = [
        upstream("shop", origin.address),
        route("one", "/shop/{order_id}/{*rest}", "shop"),
        "rewrite_path = '/v2/{rest}/of/{order_id}'\n".to_owned(),
    ];
    let stage = Stage::around(origin, &[&texts.concat()]).await;
    assert_eq!(ask(&stage, "GET", "/shop/42/a/%C3%A4?x=%20&y", &[]).await.status, 200);
    assert_eq!(stage.origin.only().await.target, "/v2/a/%C3%A4/of/42?x=%20&y");
}

#[tokio::test]
async fn a_redirect_needs_no_upstream_and_is_on_record() {
    let stage = Stage::and(
        Answer::ok(),
        "[routes.old]\nmatch = { path = '/old/{*rest}' }\nredirect = { to = 'https://shop.example/new/{rest}' }\n\
         [routes.gone]\nmatch = { path = '/gone/{id}' }\nredirect = { to = '/v2/{id}?from=gone', status = 301 }\n\
         [routes.same]\nmatch = { hosts = ['old.test'], path = '/{*rest}' }\n\
         redirect = { to = 'https://{host}:8443{path}', status = 302 }\n",
    )
    .await;
    for (host, path, status, location) in [
        ("a", "/old/a/b?x=1", 308, "https://shop.example/new/a/b?x=1"),
        ("a", "/old", 308, "https://shop.example/new/"),
        ("a", "/old//evil.example/x", 308, "https://shop.example/new/evil.example/x"),
        ("a", "/gone/7?x=1", 301, "/v2/7?from=gone"),
        ("OLD.test:80", "/a?b", 302, "https://old.test:8443/a?b"),
    ] {
        let reply = ask(&stage, "POST", path, &[("host", host)]).await;
        assert_eq!((reply.status, reply.header("location")), (status, Some(location)), "{path}");
        assert!(reply.body.is_empty());
        let told = stage.told(&reply.trace_id(), 0).await;
        assert_eq!(told.log["status"], status);
        assert_eq!(
            (told.log["reason"].as_str(), told.log["upstream"].as_str()),
            (None, None),
            "{}",
            told.log
        );
        assert_eq!((told.server.error, told.server.attribute("tracegate.upstream")), (false, None));
    }
    assert!(stage.origin.seen().is_empty());
}

#[tokio::test]
async fn clients_without_tls_are_sent_to_the_same_place_with_tls_and_told_to_stay() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.identity(&["shop.test"]).write(directory.path());
    let origin = Origin::start(Answer::ok().header("strict-transport-security", "max-age=1")).await;
    let texts = [
        "[listeners.public]\ntrusted_proxies = ['127.0.0.0/8']\n",
        "[listeners.secure]\naddress = '127.0.0.1:0'\n\
         tls = { certificate_file = 'server.pem', key_file = 'server-key.pem' }\n",
        &upstream("shop", origin.address),
        "[routes.all]\nmatch = { hosts = ['shop.test', '*.shop.test'], path = '/{*rest}' }\nupstream = 'shop'\n\
         https_redirect = 'https://{host}'\nhsts = { include_subdomains = true }\n",
    ];
    let gateway = Gateway::start_in(directory.path(), &texts).await;
    let plain = gateway.client().await.ask(request(Method::POST, "/a/b?c", &[], body::empty())).await;
    assert_eq!((plain.status, plain.header("location")), (308, Some("https://shop.test/a/b?c")));
    assert_eq!(plain.header("strict-transport-security"), None, "not without TLS (RFC 6797 section 7.2)");
    let under = gateway.ask(request(Method::GET, "/", &[("host", "a.shop.test:8080")], body::empty())).await;
    assert_eq!(under.header("location"), Some("https://a.shop.test/"));
    assert!(origin.seen().is_empty());

    let mut secure = Client::tls(gateway.listener("secure"), "shop.test", authority.client(&[])).await;
    let reply = secure.get("/").await;
    let hsts = "max-age=31536000; includeSubDomains";
    assert_eq!((reply.status, values(&reply, "strict-transport-security")), (200, hsts.to_owned()));
    // a proxy that has ended TLS says so
    let proxied = [("x-forwarded-proto", "https")];
    let reply = gateway.ask(request(Method::GET, "/", &proxied, body::empty())).await;
    assert_eq!((reply.status, reply.header("strict-transport-security")), (200, Some(hsts)));
}

#[tokio::test]
async fn a_route_can_answer_itself() {
    let stage = Stage::and(
        Answer::ok(),
        "[routes.robots]\nmatch = { path = '/robots.txt' }\nrespond = { body = 'User-agent: *' }\n\
         [routes.blocked]\nmatch = { path = '/wp-admin/{*rest}' }\nrespond = { status = 404 }\n",
    )
    .await;
    let reply = stage.get("/robots.txt").await;
    let kind = Some("text/plain; charset=utf-8");
    assert_eq!((reply.status, reply.header("content-type"), &*reply.text()), (200, kind, "User-agent: *"));
    let reply = ask(&stage, "HEAD", "/robots.txt", &[]).await;
    assert_eq!((reply.header("content-length"), reply.body.len()), (Some("13"), 0));
    let reply = stage.get("/wp-admin/x").await;
    assert_eq!((reply.status, reply.header("content-type"), reply.body.len()), (404, None, 0));
    assert_eq!(stage.told(&reply.trace_id(), 0).await.log["route"], "blocked");
}

// ---- CORS

const CORS: &str = "cors = { origins = ['https://shop.example', 'https://*.partner.example'], headers = ['x-cart'], \
                    expose = ['x-total'], credentials = true, max_age = '1h' }\n";

#[tokio::test]
async fn a_preflight_is_answered_by_the_gateway_for_the_route_that_it_asks_about() {
    let origin = Origin::start(Answer::ok()).await;
    let texts = format!(
        "{}[routes.read]\nmatch = {{ methods = ['GET'], path = '/orders/{{id}}' }}\nupstream = 'shop'\n{CORS}\
         [routes.rest]\nmatch = {{ path = '/{{*rest}}' }}\nupstream = 'shop'\n",
        upstream("shop", origin.address)
    );
    let stage = Stage::around(origin, &[&texts]).await;
    let asking = |method| [PAGE, ("access-control-request-method", method)];
    let mut fields = asking("GET").to_vec();
    fields.push(("access-control-request-headers", "x-cart,traceparent"));
    let reply = ask(&stage, "OPTIONS", "/orders/7", &fields).await;
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    for (name, value) in [
        ("access-control-allow-origin", "https://shop.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, HEAD"),
        ("access-control-allow-headers", "content-type, traceparent, tracestate, x-request-id, x-cart"),
        ("access-control-max-age", "3600"),
        ("vary", "access-control-request-method, access-control-request-headers, origin"),
    ] {
        assert_eq!(values(&reply, name), value, "{name}");
    }
    let told = stage.told(&reply.trace_id(), 0).await;
    assert_eq!(
        (&told.log["route"], &told.log["method"], &told.log["status"]),
        (&"read".into(), &"OPTIONS".into(), &204.into())
    );
    assert!(stage.origin.seen().is_empty());
    // what is no preflight, or asks about a route without CORS, is the service's own
    for (fields, target) in [
        (&asking("GET")[..1], "/orders/7"),
        (&asking("DELETE")[..], "/orders/7"),
        (&asking("GET")[..], "/other"),
    ] {
        let reply = ask(&stage, "OPTIONS", target, fields).await;
        assert_eq!((reply.status, reply.text()), (200, "hello".to_owned()), "{target}");
        assert!(!reply.headers.has("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn a_preflight_that_may_not_is_refused_with_what_it_may_not() {
    let stage = shaped(Answer::ok(), CORS).await;
    let (get, own) = (("access-control-request-method", "GET"), ("access-control-request-headers", "x-own"));
    let brew = ("access-control-request-method", "BREW");
    for (fields, detail) in [
        (vec![("origin", "https://evil.example"), get], "cors_origin"),
        (vec![("origin", "null"), get], "cors_origin"),
        (vec![PAGE, brew], "cors_method"),
        (vec![PAGE, get, own], "cors_header"),
    ] {
        let reply = ask(&stage, "OPTIONS", "/", &fields).await;
        assert_eq!((reply.status, reply.reason().as_deref()), (403, Some("forbidden")), "{detail}");
        let problem = reply.json();
        assert_eq!((&problem["detail"], &problem["rule"]), (&detail.into(), &"routes.all.cors".into()));
        let line = stage.gateway.logged(&reply.trace_id()).await;
        assert_eq!((&line["detail"], &line["rule"]), (&detail.into(), &"routes.all.cors".into()), "{line}");
    }
}

#[tokio::test]
async fn answers_say_which_pages_may_read_them_in_the_upstreams_place() {
    let answer = Answer::ok()
        .header("access-control-allow-origin", "*")
        .header("access-control-expose-headers", "x-internal")
        .header("vary", "Accept, ORIGIN");
    let stage = shaped(answer, CORS).await;
    let reply = ask(&stage, "GET", "/", &[PAGE]).await;
    assert_eq!(values(&reply, "access-control-allow-origin"), "https://shop.example");
    assert_eq!(
        values(&reply, "access-control-expose-headers"),
        "retry-after, server-timing, x-request-id, x-total"
    );
    assert_eq!(values(&reply, "vary"), "Accept, ORIGIN");
    let reply = ask(&stage, "GET", "/", &[("origin", "https://eu.partner.example")]).await;
    assert_eq!(values(&reply, "access-control-allow-origin"), "https://eu.partner.example");
    for fields in [&[("origin", "https://evil.example")][..], &[]] {
        let reply = ask(&stage, "GET", "/", fields).await;
        assert_eq!(reply.status, 200, "it keeps nobody out");
        assert!(!reply.headers.has("access-control-allow-origin") && reply.headers.has("vary"));
    }
    let any = shaped(Answer::ok(), "cors = { origins = ['*'], headers = ['*'] }").await;
    let reply = ask(&any, "GET", "/", &[PAGE]).await;
    assert_eq!(values(&reply, "access-control-allow-origin"), "*");
    assert!(!reply.headers.has("vary") && !reply.headers.has("access-control-allow-credentials"));
}

#[tokio::test]
async fn the_gateways_own_answers_can_be_read_by_pages_too() {
    let refusing = Refusing::start();
    let text = format!("{}{CORS}limits.body = '3B'\n", all_to(refusing.address));
    let gateway = Gateway::start(&[&text]).await;
    let refused = gateway.ask(request(Method::GET, "/", &[PAGE], body::empty())).await;
    let large = gateway.ask(request(Method::POST, "/", &[PAGE], body::full("four"))).await;
    assert!(gateway.set_maintenance("all", Some(true)));
    let maintained = gateway.ask(request(Method::GET, "/", &[PAGE], body::empty())).await;
    for (reply, status) in [(refused, 502), (large, 413), (maintained, 503)] {
        assert_eq!(reply.status, status);
        assert_eq!(values(&reply, "access-control-allow-origin"), "https://shop.example", "{status}");
        assert!(values(&reply, "access-control-expose-headers").contains("server-timing"), "{status}");
        assert_eq!(values(&reply, "vary"), "origin", "{status}");
    }
    let preflight = [PAGE, ("access-control-request-method", "GET")];
    let reply = gateway.ask(request(Method::OPTIONS, "/", &preflight, body::empty())).await;
    assert_eq!(reply.status, 204, "so that the page learns of the maintenance");
}

// ---- error pages

#[tokio::test]
async fn a_browser_gets_a_page_and_everybody_else_problem_json() {
    let refusing = Refusing::start();
    let gateway = Gateway::start(&[&all_to(refusing.address)]).await;
    for (method, path, accept, status, html) in [
        ("GET", "/", Some(BROWSER.1), 502, true),
        ("HEAD", "/", Some(BROWSER.1), 502, true),
        ("GET", "/%00", Some(BROWSER.1), 400, true),
        ("GET", "/", Some("*/*"), 502, false),
        ("GET", "/", Some("application/json, text/html;q=0.5"), 502, false),
        ("GET", "/", None, 502, false),
    ] {
        let fields: Vec<_> = accept.into_iter().map(|accept| ("accept", accept)).collect();
        let reply = gateway.ask(request(method.parse().unwrap(), path, &fields, body::empty())).await;
        let kind = if html { "text/html; charset=utf-8" } else { "application/problem+json" };
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (status, Some(kind)),
            "{method} {path} {accept:?}"
        );
        assert_eq!(reply.body.is_empty(), method == "HEAD");
        if html && method != "HEAD" {
            let line = gateway.logged(&reply.trace_id()).await;
            for told in [&*status.to_string(), line["reason"].as_str().unwrap(), &*reply.trace_id()] {
                assert!(reply.text().contains(told), "{told}: {}", reply.text());
            }
        }
    }
    let fields = [BROWSER, ("content-type", "application/grpc")];
    let reply = gateway.ask(request(Method::POST, "/a.B/C", &fields, body::empty())).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/grpc")));
}

#[tokio::test]
async fn a_route_may_have_a_page_of_its_own_which_may_stand_in_for_the_upstreams() {
    let directory = tempfile::tempdir().unwrap();
    let page = "<style>p { color: red }</style><p>{status} {reason} {trace_id} {request_id}</p>";
    std::fs::write(directory.path().join("own.html"), page).unwrap();
    let script = |seen: &Seen| match seen.target.as_str() {
        "/grpc" => Answer::status(503).header("content-type", "application/grpc").data("own"),
        "/late" => Answer::status(500).announced(10).then_stall(),
        _ => Answer::status(503).header("retry-after", "7").header("x-own", "1").data("stack trace"),
    };
    let origin = Origin::start(script).await;
    let text = |more: &str| {
        let page = format!("[defaults.route]\nerror_page = {{ html_file = 'own.html'{more} }}\n");
        format!("{}{page}", all_to(origin.address))
    };
    let gateway = Gateway::start_in(directory.path(), &[&text("")]).await;
    let id = ("x-request-id", "id-1");
    let ask = async |gateway: &Gateway, path: &str, fields: &[(&str, &str)]| {
        gateway.ask(request(Method::GET, path, fields, body::empty())).await
    };
    assert_eq!(ask(&gateway, "/", &[BROWSER]).await.text(), "stack trace", "off by default");
    let reply = ask(&gateway, "/%00", &[BROWSER]).await;
    assert!(reply.text().contains("<title>400"), "before there is a route, there is only the built-in page");

    let gateway = Gateway::start_in(directory.path(), &[&text(", replace_upstream = true")]).await;
    let reply = ask(&gateway, "/", &[BROWSER, id]).await;
    let expected =
        format!("<style>p {{ color: red }}</style><p>503 upstream_status {} id-1</p>", reply.trace_id());
    assert_eq!((reply.status, reply.text()), (503, expected));
    assert_eq!((reply.header("retry-after"), reply.header("x-own")), (Some("7"), None));
    let line = gateway.logged(&reply.trace_id()).await;
    assert_eq!((&line["reason"], &line["attempts"]), (&"upstream_status".into(), &1.into()), "{line}");
    let reply = ask(&gateway, "/", &[]).await;
    assert_eq!(reply.reason().as_deref(), Some("upstream_status"), "for programs, too");
    assert_eq!(ask(&gateway, "/grpc", &[BROWSER]).await.text(), "own");
    assert_eq!(
        ask(&gateway, "/late", &[BROWSER]).await.status,
        500,
        "however long the upstream takes over its own"
    );
}

// ---- maintenance

#[tokio::test]
async fn a_route_in_maintenance_says_when_to_come_again_and_asks_nobody() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("back.html"), "<p>back soon: {reason}</p>").unwrap();
    let origin = Origin::start(Answer::ok()).await;
    let text = format!(
        "{}maintenance = {{ enabled = true, retry_after = '5m', html_file = 'back.html' }}\n{}",
        all_to(origin.address),
        route("other", "/other", "shop")
    );
    let gateway = Gateway::start_in(directory.path(), &[&text]).await;
    let reply = gateway.get("/").await;
    assert_eq!(
        (reply.status, reply.reason().as_deref(), reply.header("retry-after")),
        (503, Some("maintenance"), Some("300"))
    );
    assert_eq!(reply.json()["rule"], "routes.all.maintenance");
    let line = gateway.logged(&reply.trace_id()).await;
    assert_eq!(
        (&line["blame"], &line["attempts"], &line["route"]),
        (&"gateway".into(), &0.into(), &"all".into())
    );
    let page = gateway.ask(request(Method::GET, "/", &[BROWSER], body::empty())).await;
    assert_eq!((page.status, page.text()), (503, "<p>back soon: maintenance</p>".to_owned()));
    assert_eq!(gateway.get("/other").await.status, 200, "other routes go on");
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn maintenance_is_switched_at_run_time_and_leaves_open_answers_alone() {
    let stage = Stage::new(Answer::ok()).await;
    let mut client = stage.client().await;
    let states = [(Some(true), 503), (Some(false), 200), (Some(true), 503), (None, 200)];
    for (wanted, status) in states {
        assert!(stage.gateway.set_maintenance("all", wanted));
        assert_eq!(client.get("/").await.status, status, "{wanted:?}");
        let shown = stage.gateway.admin("/status").await.json()["maintenance"].clone();
        assert_eq!(shown, if status == 503 { serde_json::json!(["all"]) } else { serde_json::json!([]) });
    }
    assert!(!stage.gateway.set_maintenance("nobody", Some(true)));
}

#[tokio::test]
async fn what_was_said_of_maintenance_at_run_time_outlives_a_reload() {
    let origin = Origin::start(Answer::ok()).await;
    let all = all_to(origin.address);
    let gateway = Gateway::start(&[&all]).await;
    assert!(gateway.set_maintenance("all", Some(true)));
    gateway.reload(&[&format!("{all}timeouts.request = '5s'\n")]);
    assert_eq!(gateway.get("/").await.status, 503);
    assert!(gateway.set_maintenance("all", None));
    assert_eq!(gateway.get("/").await.status, 200);
    gateway.reload(&[&format!("{all}maintenance.enabled = true\n")]);
    assert_eq!(gateway.get("/").await.status, 503, "what the file says counts again");
}

// ---- the order

/// Everything that may answer in the place of the upstream, on one route, and taken away one after the other: whoever
/// answers is the first of those that `explain` still tells.
#[tokio::test]
async fn policies_answer_in_the_order_in_which_explain_tells_them() {
    const KEY: &str = "a key of 256 bits";
    let origin = Origin::start(Answer::ok()).await;
    let common = format!(
        "[listeners.public]\naddress = '127.0.0.1:0'\n{}[auth.partners.api_keys]\nkeys.acme.sha256 = '{}'\n[rate_limits]\n\
         early = {{ requests = 1, per = '1h', key = 'route' }}\nlate = {{ requests = 1, per = '1h', key = 'identity' }}\n",
        all_to(origin.address),
        Hash::of(KEY).digits()
    );
    // what `explain` calls it, how it is written, and what it answers to the second of two requests
    let policies = [
        ("cors", "cors = { origins = ['https://shop.example'], methods = ['PUT'] }", 204),
        ("maintenance", "maintenance.enabled = true", 503),
        ("https_redirect", "https_redirect = 'https://shop.example'", 308),
        ("addresses", "addresses.deny = ['127.0.0.0/8']", 403),
        ("rate_limit", "early", 429),
        ("auth", "", 401),
        ("rate_limit", "late", 429),
        ("limits.body", "limits.body = '1B'", 413),
    ];
    for first in 0..policies.len() {
        let left = &policies[first..];
        let limits: Vec<_> =
            left.iter().filter(|(name, ..)| *name == "rate_limit").map(|(_, it, _)| *it).collect();
        let keys =
            left.iter().filter(|(name, ..)| *name != "rate_limit").map(|(_, key, _)| format!("{key}\n"));
        let route =
            format!("[routes.all]\nauth = 'partners'\nrate_limit = {limits:?}\n{}", keys.collect::<String>());
        // a limit by identity needs somebody to be known: the rule stays, and lets pass once its turn is over
        let known = left.iter().all(|(name, ..)| *name != "auth");

        let gateway = Gateway::start(&[&common, &route]).await;
        let mut fields = vec![PAGE, ("access-control-request-method", "PUT")];
        fields.extend(known.then_some(("x-api-key", KEY)));
        let mut seen = 0;
        for _ in 0..2 {
            seen = gateway.ask(request(Method::OPTIONS, "/", &fields, body::full("two"))).await.status;
        }
        let files = [&common, &route].map(|text| ("routes.toml".to_owned(), text.clone()));
        let sources = Sources { files: files.into(), ..Sources::default() };
        let settings = load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
        let told = policy::told(&settings.routes[0], &settings.rate_limits, &settings.auth);
        let told: Vec<_> = told.iter().map(|(key, _)| *key).filter(|key| *key != "auth" || !known).collect();
        assert_eq!(told, left.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
        assert_eq!(seen, left[0].2, "{} comes first, and another one has answered", left[0].0);
    }
}
