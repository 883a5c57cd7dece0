//! Sentences about the live page: what it is told, by whom it is asked, and what ends that.

use http::{Method, Request};
use serde_json::Value;
use tracegate::setting::Hash;

use crate::support::body::{self, Body};
use crate::support::certificates::Authority;
use crate::support::client::{Client, Reply, request};
use crate::support::gateway::{Gateway, all_to};
use crate::support::origin::{Answer, Origin, Seen};
use crate::support::process::Process;
use crate::support::{Events, own_ip, within};

const ROLES: [&str; 4] = ["metrics", "support", "developer", "operator"];

fn token(role: &str) -> String {
    let hash = Hash::of(&format!("token of {role}")).digits();
    format!("[admin.tokens.{role}]\nrole = '{role}'\nsha256 = '{hash}'\n")
}

/// Answers orders, and 500 for the one that is called `bad`.
async fn shop() -> Origin {
    Origin::start(|seen: &Seen| match seen.target.as_str() {
        "/orders/bad" => Answer::status(500),
        _ => Answer::ok(),
    })
    .await
}

fn routes(shop: &Origin) -> String {
    format!(
        "[upstreams.shop]\nservice = 'shop-api'\nendpoints = ['http://{}']\n\
         [routes.order_read]\nmatch = {{ path = '/orders/{{order_id}}' }}\nupstream = 'shop'\n\
         attributes = {{ 'order.id' = {{ path = 'order_id' }} }}\n",
        shop.address
    )
}

async fn stage(more: &str) -> (Origin, Gateway, String) {
    let shop = shop().await;
    let text = format!("{}{more}", routes(&shop));
    let gateway = Gateway::start(&[&text]).await;
    (shop, gateway, text)
}

fn asked(method: Method, path: &str, fields: &[(&str, &str)], sent: &str) -> Request<Body> {
    let fields = [&[("host", "localhost"), ("content-type", "application/json")], fields].concat();
    request(method, path, &fields, body::full(sent.to_owned()))
}

async fn ask(gateway: &Gateway, request: Request<Body>) -> Reply {
    Client::http1(gateway.admin_address()).await.ask(request).await
}

/// The live events that a bearer of this role gets.
async fn listening(gateway: &Gateway, role: &str) -> Events {
    let authorization = format!("Bearer token of {role}");
    Events::of(gateway, &[("authorization", &authorization)]).await
}

async fn read(gateway: &Gateway, path: &str, role: &str) -> Reply {
    let authorization = format!("Bearer token of {role}");
    ask(gateway, asked(Method::GET, path, &[("authorization", &authorization)], "")).await
}

/// Logs in and gives the cookie and the token for changes.
async fn log_in(gateway: &Gateway, role: &str) -> (String, String) {
    let sent = format!(r#"{{"token":"token of {role}"}}"#);
    let reply =
        ask(gateway, asked(Method::POST, "/api/login", &[("origin", "http://localhost")], &sent)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let cookie = reply.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    (cookie.split(';').next().unwrap().to_owned(), reply.json()["csrf"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn what_failed_what_was_slow_and_some_of_the_rest_are_found_by_trace_and_by_order() {
    let (shop, gateway, _) = stage("").await;
    let good = gateway.get("/orders/4711").await;
    let bad = gateway.get("/orders/bad").await;
    let lost = gateway.get("/nowhere").await;
    assert_eq!([good.status, bad.status, lost.status], [200, 500, 404]);

    let one = gateway.admin(&format!("/api/traces/{}", good.trace_id())).await.json();
    let exchange = &one["exchanges"][0];
    assert_eq!((&exchange["route"], &exchange["status"]), (&"order_read".into(), &200.into()), "{one}");
    assert_eq!(exchange["attributes"]["order.id"], "4711");
    let attempt = &exchange["attempt_list"][0];
    assert_eq!(attempt["endpoint"], shop.address.to_string());
    assert_eq!((&attempt["connection"], &attempt["service"]), (&"new".into(), &"shop-api".into()));
    let phases: Vec<_> = attempt["parts"].as_array().unwrap().iter().map(|part| &part["phase"]).collect();
    assert!(phases.contains(&&Value::from("connect")) && phases.contains(&&"wait".into()), "{one}");
    let end = |part: &Value| part["start_ms"].as_f64().unwrap() + part["duration_ms"].as_f64().unwrap();
    for pair in attempt["parts"].as_array().unwrap().windows(2) {
        assert!(end(&pair[0]) <= pair[1]["start_ms"].as_f64().unwrap() + 0.002, "{one}");
    }

    for (query, found) in [
        ("find=4711", vec![&good]),
        ("attribute=order.id:bad", vec![&bad]),
        ("attribute=order.id:none", vec![]),
        ("status=5xx", vec![&bad]),
        ("reason=no_route", vec![&lost]),
        ("blame=upstream", vec![&bad]),
        ("route=-", vec![&lost]),
        ("failed=true", vec![&lost, &bad]),
        ("route=order_read", vec![&bad, &good]),
        ("kept=error", vec![&bad]),
        ("kept=refused", vec![&lost]),
        ("min_ms=60000", vec![]),
        ("limit=1", vec![&lost]),
    ] {
        let reply = gateway.admin(&format!("/api/traces?{query}")).await.json();
        let traces: Vec<_> =
            reply["traces"].as_array().unwrap().iter().map(|it| it["trace_id"].clone()).collect();
        let wanted: Vec<Value> = found.iter().map(|reply| reply.trace_id().into()).collect();
        assert_eq!(traces, wanted, "{query}: {reply}");
    }
    let beginning = &good.trace_id()[..8];
    let reply = gateway.admin(&format!("/api/traces?find={beginning}")).await.json();
    assert_eq!(reply["traces"][0]["trace_id"], good.trace_id());
    let wrong = gateway.admin("/api/traces?state=5xx").await;
    assert!(wrong.status == 400 && wrong.text().contains("status"), "{}", wrong.text());
    let missing = gateway.admin("/api/traces/0af7651916cd43dd8448eb211c80319c").await;
    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_what_made_room_is_counted() {
    let (_shop, gateway, _) = stage("[telemetry.recent]\nrefused = 2\n").await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/nowhere").await.status, 404);
    }
    let kept = gateway.admin("/api/traces?kept=refused").await.json();
    assert_eq!(kept["traces"].as_array().unwrap().len(), 2, "{kept}");
    let metrics = gateway.metrics().await;
    let displaced = [("kept", "refused"), ("reason", "count")];
    assert_eq!(metrics.count("tracegate_recent_displaced_total", &displaced), 3);
    assert_eq!(metrics.count("tracegate_recent_exchanges_total", &[("kept", "refused")]), 5);
}

#[tokio::test]
async fn each_route_has_its_figures_and_the_one_that_fails_stands_first() {
    let more = "[routes.fine]\nmatch = { path = '/fine' }\nupstream = 'shop'\n";
    let (_shop, gateway, _) = stage(more).await;
    for _ in 0..4 {
        gateway.get("/orders/bad").await;
        gateway.get("/fine").await;
    }
    let asking = async {
        loop {
            let routes = gateway.admin("/api/routes").await.json();
            let first = routes["routes"][0].clone();
            if first["trouble"]["level"] == "failing" && first["recent"]["requests"] == 4 {
                return routes;
            }
            tokio::task::yield_now().await;
        }
    };
    let routes = within("the series are read", asking).await;
    let [first, second] = &routes["routes"].as_array().unwrap()[..] else { panic!("{routes}") };
    assert_eq!((&first["name"], &second["name"]), (&"order_read".into(), &"fine".into()));
    assert_eq!(first["recent"]["errors"], 4);
    assert_eq!(first["recent"]["reasons"]["upstream_status"], 4);
    assert!(first["trouble"]["why"].as_str().unwrap().contains("upstream_status"), "{first}");
    assert_eq!((&first["example"]["status"], &second["example"]), (&500.into(), &Value::Null));
    assert_eq!((&second["trouble"]["level"], &second["recent"]["errors"]), (&"fine".into(), &0.into()));
    assert!(second["recent"]["p95_ms"].is_number() && second["phases"]["wait"].is_number(), "{second}");
    let charts = gateway.admin("/api/routes/order_read").await.json();
    assert_eq!(charts["minutes"]["requests"], Value::from(vec![4]), "{charts}");
    assert_eq!(
        charts["steps"]["reasons"]["upstream_status"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it.as_u64().unwrap())
            .sum::<u64>(),
        4
    );
}

#[tokio::test]
async fn upstreams_reloads_certificates_and_the_balance_of_telemetry_are_told() {
    let (shop, gateway, text) = stage("").await;
    gateway.get("/orders/1").await;
    let upstreams = gateway.admin("/api/upstreams").await.json();
    assert_eq!(upstreams["upstreams"][0]["name"], "shop");
    assert_eq!(upstreams["upstreams"][0]["endpoints"][0]["endpoint"], shop.address.to_string());
    gateway.reload(&[&format!("{text}[routes.other]\nmatch = {{ path = '/other' }}\nupstream = 'shop'\n")]);
    let reloads = gateway.admin("/api/reloads").await.json();
    assert_eq!(reloads["reloads"][0]["difference"]["added"]["first"][0], "routes.other", "{reloads}");
    let telemetry = gateway.admin("/api/telemetry").await.json();
    assert_eq!((&telemetry["balanced"], &telemetry["spans_made"]), (&true.into(), &2.into()), "{telemetry}");
    assert_eq!(gateway.admin("/api/certificates").await.json()["certificates"], Value::Array(Vec::new()));

    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (certificate, key) = authority.identity(&["localhost"]).write(directory.path());
    let tls = format!(
        "[listeners.public.tls]\ncertificate_file = '{}'\nkey_file = '{}'\n",
        certificate.display(),
        key.display()
    );
    let gateway = Gateway::start(&[&text, &tls]).await;
    let certificates = gateway.admin("/api/certificates").await.json();
    let only = &certificates["certificates"][0];
    assert_eq!(only["listener"], "public", "{certificates}");
    assert!(only["days_left"].is_number() && only["expires"].is_string(), "{certificates}");
}

#[tokio::test]
async fn every_role_sees_what_the_table_says_and_support_only_what_failed_or_was_looked_for() {
    let (_shop, gateway, _) = stage(&ROLES.map(token).concat()).await;
    let good = gateway.get("/orders/4711").await.trace_id();
    let bad = gateway.get("/orders/bad").await.trace_id();
    for (role, told) in [("support", false), ("developer", true), ("operator", true)] {
        let status = read(&gateway, "/status", role).await.json();
        assert_eq!(status["routes"], serde_json::json!(["order_read"]), "{status}");
        assert!(status["upstreams"]["shop"]["endpoints"].is_array(), "{status}");
        for part in ["telemetry", "configuration", "listeners", "rate_limits"] {
            assert_eq!(!status[part].is_null(), told, "{part} of /status as {role}: {status}");
        }
    }
    for (path, opens) in [
        ("/api/routes", &["support", "developer", "operator"][..]),
        ("/api/routes/order_read", &["support", "developer", "operator"]),
        ("/api/upstreams", &["support", "developer", "operator"]),
        ("/api/traces", &["support", "developer", "operator"]),
        (&format!("/api/traces/{good}"), &["support", "developer", "operator"]),
        ("/api/certificates", &["developer", "operator"]),
        ("/api/reloads", &["developer", "operator"]),
        ("/api/telemetry", &["developer", "operator"]),
    ] {
        for role in ROLES {
            let expected = if opens.contains(&role) { 200 } else { 403 };
            assert_eq!(read(&gateway, path, role).await.status, expected, "{path} as {role}");
        }
        assert_eq!(read(&gateway, path, "nobody").await.status, 401, "{path}");
    }
    let listed = |reply: &Reply| {
        let traces = reply.json()["traces"].as_array().unwrap().clone();
        traces.iter().map(|trace| trace["trace_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&read(&gateway, "/api/traces", "developer").await), [bad.clone(), good.clone()]);
    assert_eq!(listed(&read(&gateway, "/api/traces", "support").await), [bad]);
    assert_eq!(listed(&read(&gateway, "/api/traces?find=4711", "support").await), [good.as_str()]);
    assert_eq!(listed(&read(&gateway, "/api/traces?kept=slow&route=order_read", "support").await), [""; 0]);

    let sent = "/api/traces?attribute=order.id:4711&find=%3Cscript%3E";
    assert_eq!(read(&gateway, sent, "support").await.status, 200);
    let audit = read(&gateway, "/api/audit", "operator").await.json();
    let entries = audit["audit"].as_array().unwrap();
    let of = |target: &str| {
        let entry = entries.iter().find(|entry| entry["target"] == target);
        entry.unwrap_or_else(|| panic!("{target}: {audit}"))
    };
    assert_eq!(of("order.id=4711 find=_invalid")["who"], "support");
    let whole = of(&format!("trace_id={good}"));
    assert_eq!(whole["what"], "GET /api/traces/{trace_id}");
}

#[tokio::test]
async fn a_session_reads_by_its_cookie_and_changes_only_from_its_own_page() {
    let (_shop, gateway, _) = stage(&ROLES.map(token).concat()).await;
    let anybody = ask(&gateway, asked(Method::GET, "/api/me", &[], "")).await.json();
    assert_eq!((&anybody["login_needed"], &anybody["rights"]), (&true.into(), &Value::Array(Vec::new())));
    assert_eq!(ask(&gateway, asked(Method::GET, "/", &[], "")).await.status, 200, "there is nothing on it");
    for (sent, origin, status) in [
        (r#"{"token":"wrong"}"#, "http://localhost", 401),
        (r#"{"token":"token of metrics"}"#, "http://localhost", 403),
        (r#"{"token":"token of operator"}"#, "http://evil.example", 403),
        (r#"{"token":"token of operator"}"#, "https://localhost", 403),
        ("{", "http://localhost", 400),
    ] {
        let reply = ask(&gateway, asked(Method::POST, "/api/login", &[("origin", origin)], sent)).await;
        assert_eq!(reply.status, status, "{sent} {origin}");
        assert!(!reply.headers.has("set-cookie") && !reply.text().contains("token of"), "{sent}");
    }

    let (cookie, csrf) = log_in(&gateway, "operator").await;
    let cookie = ("cookie", cookie.as_str());
    let who = ask(&gateway, asked(Method::GET, "/api/me", &[cookie], "")).await.json();
    assert_eq!(
        (&who["who"], &who["role"], &who["csrf"]),
        (&"operator".into(), &"operator".into(), &csrf.as_str().into())
    );
    assert_eq!(ask(&gateway, asked(Method::GET, "/status", &[cookie], "")).await.status, 200);
    let (own, foreign) = (("origin", "http://localhost"), ("origin", "http://evil.example"));
    let (right, wrong) = (("x-csrf-token", csrf.as_str()), ("x-csrf-token", "guessed"));
    for (fields, status) in [
        (vec![cookie], 403),
        (vec![cookie, own], 403),
        (vec![cookie, own, wrong], 403),
        (vec![cookie, right], 403),
        (vec![cookie, foreign, right], 403),
        (vec![cookie, ("origin", "null"), right], 403),
        (vec![cookie, own, right], 200),
        (vec![("cookie", "tracegate=guessed"), own, right], 401),
    ] {
        let change =
            asked(Method::POST, "/api/maintenance", &fields, r#"{"route":"order_read","maintenance":true}"#);
        assert_eq!(ask(&gateway, change).await.status, status, "{fields:?}");
    }
    assert_eq!(gateway.get("/orders/1").await.status, 503, "it is in maintenance");

    let (support, its) = log_in(&gateway, "support").await;
    let fields = [("cookie", support.as_str()), own, ("x-csrf-token", its.as_str())];
    let change = asked(Method::POST, "/api/reload", &fields, "{}");
    assert_eq!(ask(&gateway, change).await.status, 403, "support does not change production");

    let out = ask(&gateway, asked(Method::POST, "/api/logout", &[cookie, own, right], "{}")).await;
    assert!(out.status == 200 && out.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(ask(&gateway, asked(Method::GET, "/status", &[cookie], "")).await.status, 401);
    let audit = read(&gateway, "/api/audit", "operator").await.json();
    let logins = audit["audit"].as_array().unwrap().iter().filter(|entry| entry["what"] == "POST /api/login");
    let logins: Vec<_> = logins.map(|entry| (entry["who"].clone(), entry["status"].clone())).collect();
    assert!(
        logins.contains(&("operator".into(), 200.into())) && logins.contains(&("-".into(), 401.into())),
        "{audit}"
    );
    assert!(!audit.to_string().contains("token of"), "{audit}");
}

#[tokio::test]
async fn what_fails_is_told_at_once_and_support_hears_of_nothing_else() {
    let (_shop, gateway, _) = stage(&ROLES.map(token).concat()).await;
    let mut all = listening(&gateway, "developer").await;
    let mut failures = listening(&gateway, "support").await;
    for stream in [&mut all, &mut failures] {
        assert_eq!(stream.event("hello").await["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(stream.event("routes").await["routes"][0]["name"], "order_read");
        assert_eq!(stream.event("upstreams").await["upstreams"][0]["name"], "shop");
    }
    assert!(all.event("telemetry").await["balanced"].is_boolean());
    let good = gateway.get("/orders/1").await.trace_id();
    let bad = gateway.get("/orders/bad").await.trace_id();
    assert_eq!(all.event("trace").await["trace_id"], good);
    assert_eq!(all.event("trace").await["trace_id"], bad);
    assert_eq!(failures.event("trace").await["trace_id"], bad);
    assert_eq!(read(&gateway, "/api/stream", "metrics").await.status, 403);
}

#[tokio::test]
async fn a_reload_that_removes_a_token_ends_its_session_and_its_streams() {
    let (_shop, gateway, text) = stage(&ROLES.map(token).concat()).await;
    let (cookie, _) = log_in(&gateway, "developer").await;
    let by_cookie = Events::of(&gateway, &[("cookie", &cookie)]).await;
    let by_token = listening(&gateway, "developer").await;
    let mut other = listening(&gateway, "operator").await;
    gateway.reload(&[&text.replace("[admin.tokens.developer]", "[admin.tokens.another]")]);
    by_cookie.ended().await;
    by_token.ended().await;
    let reply = ask(&gateway, asked(Method::GET, "/status", &[("cookie", &cookie)], "")).await;
    assert_eq!(reply.status, 401);
    gateway.get("/orders/bad").await;
    other.event("trace").await;
}

#[tokio::test]
async fn as_many_listen_as_may_and_all_streams_end_with_the_gateway() {
    let (_shop, gateway, _) = stage("").await;
    let mut streams = Vec::new();
    for _ in 0..32 {
        streams.push(Events::of(&gateway, &[]).await);
    }
    let refused = ask(&gateway, asked(Method::GET, "/api/stream", &[], "")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("10")));
    gateway.stop().await;
    for stream in streams {
        stream.ended().await;
    }
}

#[tokio::test]
async fn an_operator_changes_the_sampling_until_the_next_reload_and_it_is_on_record() {
    let (_shop, gateway, text) = stage(&ROLES.map(token).concat()).await;
    let sampled =
        async || gateway.logged(&gateway.get("/orders/1").await.trace_id()).await["sampled"].clone();
    let change = async |path: &str, sent: &str, role: &str| {
        let authorization = format!("Bearer token of {role}");
        ask(&gateway, asked(Method::POST, path, &[("authorization", &authorization)], sent)).await.status
    };
    assert_eq!(sampled().await, true);
    assert_eq!(change("/api/sampling", r#"{"ratio":0}"#, "developer").await, 403);
    assert_eq!(change("/api/sampling", r#"{"ratio":1.5}"#, "operator").await, 400);
    assert_eq!(change("/api/sampling", r#"{"ratio":0}"#, "operator").await, 200);
    assert_eq!(sampled().await, false);
    let status = read(&gateway, "/status", "operator").await.json();
    assert_eq!(status["configuration"]["overrides"]["sampling_ratio"]["value"], 0.0, "{status}");
    let audit = read(&gateway, "/api/audit", "operator").await.json();
    assert!(audit.to_string().contains("sampling.ratio=0"), "{audit}");
    // nobody has said how diagnostics are told here
    assert_eq!(change("/api/log_level", r#"{"level":"debug"}"#, "operator").await, 404);
    assert_eq!(change("/api/log_level", r#"{"level":"loud"}"#, "operator").await, 400);

    gateway.reload(&[&text]);
    assert_eq!(sampled().await, false, "a reload that changes nothing leaves it");
    gateway.reload(&[&format!("{text}[routes.other]\nmatch = {{ path = '/other' }}\nupstream = 'shop'\n")]);
    assert_eq!(sampled().await, true);
    let status = read(&gateway, "/status", "operator").await.json();
    assert_eq!(status["configuration"]["overrides"], serde_json::json!({}), "{status}");
}

#[tokio::test]
async fn an_operator_lets_a_gateway_say_more_of_itself_and_less_again() {
    let nobody = std::net::SocketAddr::new(own_ip(), 1);
    let text = format!("{}{}", all_to(nobody), token("operator"));
    let process = Process::start(&text, None).await;
    let fails = async || {
        let reply = Client::http1(process.address).await.get("/").await;
        assert_eq!(reply.status, 502);
        reply.trace_id()
    };
    let set = async |level: &str| {
        let fields = [("authorization", "Bearer token of operator")];
        let change = asked(Method::POST, "/api/log_level", &fields, &format!(r#"{{"level":{level}}}"#));
        let reply = Client::http1(process.admin).await.ask(change).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    let quiet = fails().await;
    set("\"debug\"").await;
    let told = fails().await;
    let written = async { while !process.diagnostics().contains(&told) {} };
    within("the reason in the diagnostics", written).await;
    set("null").await;
    let quiet_again = fails().await;
    let said = process.diagnostics();
    assert!(!said.contains(&quiet) && !said.contains(&quiet_again), "{said}");
    assert!(said.contains("the log level was changed"), "{said}");
}

#[tokio::test]
async fn an_operator_has_the_files_read_again_and_is_told_what_came_of_it() {
    let shop = shop().await;
    let text = format!("{}{}[reload]\nwatch = 'off'\n", all_to(shop.address), token("operator"));
    let process = Process::start(&text, None).await;
    let reload = async || {
        let fields = [("authorization", "Bearer token of operator")];
        Client::http1(process.admin).await.ask(asked(Method::POST, "/api/reload", &fields, "")).await
    };
    process.replace(&format!(
        "{text}[routes.ping]\nmatch.path = '/ping'\nrespond = {{ status = 200, body = 'pong' }}\n"
    ));
    let reply = reload().await;
    assert_eq!((reply.status, &reply.json()["outcome"]), (200, &"applied".into()), "{}", reply.text());
    assert!(reply.text().contains("routes.ping"), "{}", reply.text());
    assert_eq!(Client::http1(process.address).await.get("/ping").await.text(), "pong");
    process.replace(&format!("{text}[routes.ping]\nmatch.path = '/ping'\nrespnd = {{ status = 200 }}\n"));
    let reply = reload().await;
    assert_eq!((reply.status, &reply.json()["outcome"]), (422, &"refused".into()), "{}", reply.text());
    assert!(reply.text().contains("routes.ping.respnd: is not a key"), "{}", reply.text());
    assert_eq!(Client::http1(process.address).await.get("/ping").await.text(), "pong", "it stays in force");
}

#[tokio::test]
async fn the_page_may_load_its_own_files_and_nothing_else() {
    let (_shop, gateway, _) = stage("").await;
    let page = gateway.admin("/").await;
    let policy = page.header("content-security-policy").unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let html = page.text();
    assert!(
        !html.contains("style=") && !html.contains("onclick") && !html.contains("://"),
        "nothing inline or foreign"
    );
    let mut files: Vec<String> =
        html.split('"').filter(|part| part.starts_with("/page/")).map(str::to_owned).collect();
    files.push("/page/routes.js".to_owned());
    for file in files {
        let reply = gateway.admin(&file).await;
        assert_eq!(reply.status, 200, "{file}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("content-security-policy"), Some(policy.as_str()), "{file}");
    }
    let data = gateway.admin("/api/routes").await;
    assert!(data.header("content-security-policy").unwrap().starts_with("default-src 'none'; base-uri"));
}
