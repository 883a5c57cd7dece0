//! Sentences about the admin address: who may do what, and who is told of it.

use http::Method;
use tracegate::admin::role::Right;
use tracegate::setting::Hash;
use tracegate::telemetry::metrics::reloads::ReloadOutcome;

use crate::support::body;
use crate::support::client::{Client, Reply, request};
use crate::support::gateway::{Gateway, all_to};
use crate::support::origin::{Answer, Origin};
use crate::support::process::Process;
use crate::support::within;

const ROLES: [&str; 4] = ["metrics", "support", "developer", "operator"];

fn tokens(names: &[&str]) -> String {
    let table = |name: &&str| {
        format!(
            "[admin.tokens.{name}]\nrole = '{name}'\nsha256 = '{}'\n",
            Hash::of(&format!("token of {name}")).digits()
        )
    };
    names.iter().map(table).collect()
}

async fn gateway(more: &str) -> (Origin, Gateway, String) {
    let origin = Origin::start(Answer::ok()).await;
    let text = format!(
        "[upstreams.shop]\nendpoints = ['http://{0}']\n[routes.all]\nmatch = {{ path = '/{{*rest}}' }}\n\
         upstream = 'shop'\n{more}",
        origin.address
    );
    (origin, Gateway::start(&[&text]).await, text)
}

async fn ask(
    gateway: &Gateway,
    method: Method,
    path: &str,
    token: Option<&str>,
    sent: &'static str,
) -> Reply {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let mut fields = vec![("host", "localhost"), ("content-type", "application/json")];
    fields.extend(authorization.as_deref().map(|value| ("authorization", value)));
    let request = request(method, path, &fields, body::full(sent));
    Client::http1(gateway.admin_address()).await.ask(request).await
}

#[tokio::test]
async fn every_role_opens_its_own_pages_and_no_others() {
    let (_origin, gateway, _) = gateway(&tokens(&ROLES)).await;
    for (method, path, sent, opens) in [
        (Method::GET, "/healthz", "", &["", "metrics", "support", "developer", "operator"][..]),
        (Method::GET, "/readyz", "", &["", "metrics", "support", "developer", "operator"]),
        (Method::GET, "/metrics", "", &["metrics", "developer", "operator"]),
        (Method::GET, "/status", "", &["support", "developer", "operator"]),
        // there is nothing on it until somebody logs in
        (Method::GET, "/", "", &["", "metrics", "support", "developer", "operator"]),
        (Method::GET, "/api/audit", "", &["developer", "operator"]),
        (Method::POST, "/api/maintenance", r#"{"route":"all","maintenance":false}"#, &["operator"]),
    ] {
        for role in ["", "metrics", "support", "developer", "operator", "nobody"] {
            let token = Some(format!("token of {role}")).filter(|_| !role.is_empty());
            let reply = ask(&gateway, method.clone(), path, token.as_deref(), sent).await;
            let expected = match role {
                role if opens.contains(&role) || opens.contains(&"") => 200,
                "" | "nobody" => 401,
                _ => 403,
            };
            assert_eq!(reply.status, expected, "{method} {path} as {role:?}");
            assert_eq!(reply.headers.has("www-authenticate"), expected == 401, "{method} {path} as {role:?}");
        }
    }
}

/// The table of the book, and every endpoint that the code has: a new one that is not told of is found.
#[tokio::test]
async fn every_role_is_let_in_at_every_endpoint_as_the_book_says() {
    let book = include_str!("../../docs/src/reference/admin-api.md");
    let rows: Vec<Vec<&str>> =
        book.lines().filter(|line| line.starts_with("| `")).map(|line| line.split(" | ").collect()).collect();
    let (_origin, gateway, _) = gateway(&tokens(&ROLES)).await;
    let mut told = 0;
    for (method, path, _) in tracegate::admin::endpoints() {
        let name = format!("`{method} {path}`");
        let row = rows.iter().find(|row| row[0].contains(&name));
        let opens = row.unwrap_or_else(|| panic!("{name} is not in the book"))[1];
        told += 1;
        for role in ["", "nobody", "metrics", "support", "developer", "operator"] {
            let path =
                path.replace("{route}", "all").replace("{trace_id}", "0af7651916cd43dd8448eb211c80319c");
            let authorization = format!("Bearer token of {role}");
            let mut fields = vec![("host", "localhost"), ("content-type", "application/json")];
            fields.extend((!role.is_empty()).then_some(("authorization", &*authorization)));
            let asked = request(method.parse().unwrap(), &path, &fields, body::empty());
            // the head suffices: a stream goes on
            let answer = Client::http1(gateway.admin_address()).await.send(asked).await.unwrap();
            let let_in = opens == "anyone" || opens.split(", ").any(|known| known == role);
            let expected = match role {
                _ if let_in => None,
                "" | "nobody" => Some(401),
                _ => Some(403),
            };
            let refused = match answer.status().as_u16() {
                // wrong tokens are slowed down after the tenth
                429 if role == "nobody" => Some(401),
                status => Some(status).filter(|status| matches!(status, 401 | 403)),
            };
            assert_eq!(refused, expected, "{name} as {role:?}");
        }
    }
    let named = |row: &Vec<&str>| row[0].matches("`GET ").count() + row[0].matches("`POST ").count();
    assert_eq!(rows.iter().map(named).sum::<usize>(), told, "the book has endpoints that there are not");

    // each of these is on record, who was let in and who was not, but for what tells nothing
    let audit = ask(&gateway, Method::GET, "/api/audit", Some("token of operator"), "").await.json();
    for (method, path, right) in tracegate::admin::endpoints() {
        let what = format!("{method} {path}");
        let silent = right == Right::Probe || (right == Right::Shell && method == "GET");
        for who in ["-", "metrics", "support", "developer", "operator"] {
            let entries = audit["audit"].as_array().unwrap().iter();
            let found = entries.filter(|entry| entry["what"] == *what && entry["who"] == who).count();
            // whoever logs in or out is known by what they show there, and by nothing else
            let expected = !silent && (right != Right::Shell || who == "-");
            assert_eq!(found > 0, expected, "{what} of {who}: {audit}");
        }
    }
}

#[tokio::test]
async fn whoever_looks_or_changes_is_on_record_and_so_is_who_was_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.jsonl");
    let audit = format!("{}[admin.audit]\nfile = '{}'\n", tokens(&["operator", "metrics"]), file.display());
    let (origin, gateway, _) = gateway(&audit).await;
    let (operator, scraper) = (Some("token of operator"), Some("token of metrics"));
    for _ in 0..3 {
        assert_eq!(ask(&gateway, Method::GET, "/metrics", scraper, "").await.status, 200);
    }
    assert_eq!(ask(&gateway, Method::GET, "/status", scraper, "").await.status, 403);
    assert_eq!(
        ask(&gateway, Method::GET, "/status?token=secret", Some("secret guess"), "").await.status,
        401
    );
    let endpoint: &'static str = Box::leak(
        format!(r#"{{"upstream":"shop","endpoint":"{}","in_use":false}}"#, origin.address).into_boxed_str(),
    );
    assert_eq!(ask(&gateway, Method::POST, "/api/endpoint", operator, endpoint).await.status, 200);
    let told = ask(&gateway, Method::GET, "/api/audit", operator, "").await.json();
    let aggregated = &told["audit"][0];
    assert_eq!((&aggregated["who"], &aggregated["times"]), (&"metrics".into(), &3.into()), "{told}");
    let changed = format!("shop {} in_use=false", origin.address);
    let expected = [
        ("operator", "POST /api/endpoint", Some(changed.as_str()), 200),
        ("-", "GET /status", None, 401),
        ("metrics", "GET /status", None, 403),
    ];
    for (entry, (who, what, target, status)) in told["audit"].as_array().unwrap()[1..].iter().zip(expected) {
        assert_eq!((entry["who"].as_str(), entry["what"].as_str()), (Some(who), Some(what)), "{told}");
        assert_eq!((entry["target"].as_str(), entry["status"].as_u64()), (target, Some(status)), "{told}");
    }
    assert!(!told.to_string().contains("secret"), "{told}");
    // the scrapes of the hour are written when it is over, or the gateway
    gateway.stop().await;
    let whole = || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("GET /metrics"));
    within("the audit's file is whole", async {
        while !whole() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let lines = std::fs::read_to_string(&file).unwrap();
    assert!(lines.contains("POST /api/endpoint") && !lines.contains("secret"), "{lines}");
}

#[tokio::test]
async fn what_is_put_on_record_is_no_change_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let (audit, log) = (directory.path().join("audit.jsonl"), directory.path().join("access.log"));
    let more = format!(
        "{}[admin.audit]\nfile = '{}'\n[telemetry.access_log]\nfile = '{}'\n",
        tokens(&["operator"]),
        audit.display(),
        log.display()
    );
    let (_origin, gateway, text) = gateway(&more).await;
    assert_eq!(gateway.get("/").await.status, 200);
    let sent = r#"{"ratio":0.5}"#;
    assert_eq!(
        ask(&gateway, Method::POST, "/api/sampling", Some("token of operator"), sent).await.status,
        200
    );
    let is_written = |file| std::fs::read_to_string(file).is_ok_and(|text| text.ends_with('\n'));
    within("both to be on record", async {
        while !(is_written(&audit) && is_written(&log)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // what an operator has set ends with a reload that changes something
    let report = gateway.reload(&[&text]);
    assert_eq!(report.outcome, ReloadOutcome::Unchanged, "{:?}", report.difference);
}

#[tokio::test]
async fn an_operator_takes_an_endpoint_out_and_back_and_a_route_into_maintenance_and_out() {
    let (origin, gateway, _) = gateway(&tokens(&["operator"])).await;
    let operator = Some("token of operator");
    let in_use = |in_use: bool| -> &'static str {
        let text = format!(r#"{{"upstream":"shop","endpoint":"{}","in_use":{in_use}}}"#, origin.address);
        Box::leak(text.into_boxed_str())
    };
    for (path, sent, status) in [
        ("/api/endpoint", in_use(false), 503),
        ("/api/endpoint", in_use(true), 200),
        ("/api/maintenance", r#"{"route":"all","maintenance":true}"#, 503),
        ("/api/maintenance", r#"{"route":"all","maintenance":null}"#, 200),
    ] {
        assert_eq!(ask(&gateway, Method::POST, path, operator, sent).await.status, 200, "{sent}");
        assert_eq!(gateway.get("/").await.status, status, "{sent}");
    }
    for (path, sent, status) in [
        ("/api/endpoint", r#"{"upstream":"shop","endpoint":"192.0.2.1:1","in_use":true}"#, 404),
        ("/api/maintenance", r#"{"route":"none","maintenance":true}"#, 404),
        ("/api/maintenance", r#"{"route":"all","maintenance":true,"more":1}"#, 400),
        ("/api/maintenance", "{", 400),
    ] {
        assert_eq!(ask(&gateway, Method::POST, path, operator, sent).await.status, status, "{sent}");
    }
    let form = request(
        Method::POST,
        "/api/maintenance",
        &[("authorization", "Bearer token of operator"), ("content-type", "text/plain")],
        body::full(r#"{"route":"all","maintenance":true}"#),
    );
    let reply = Client::http1(gateway.admin_address()).await.ask(form).await;
    assert_eq!(reply.status, 415, "what a form of another site can send changes nothing");
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn without_tokens_nothing_can_be_changed() {
    let (_origin, gateway, _) = gateway("").await;
    let reply = ask(&gateway, Method::POST, "/api/reload", None, "").await;
    assert_eq!(reply.status, 403);
    assert!(reply.text().contains("admin.tokens"), "{}", reply.text());
    assert_eq!(ask(&gateway, Method::GET, "/status", None, "").await.status, 200);
}

#[tokio::test]
async fn a_token_that_a_reload_removes_opens_nothing_any_more() {
    let (origin, gateway, text) = gateway(&tokens(&["operator", "support"])).await;
    let support = Some("token of support");
    assert_eq!(ask(&gateway, Method::GET, "/status", support, "").await.status, 200);
    let without = text.split("[admin.tokens.support]").next().unwrap();
    gateway.reload(&[without]);
    assert_eq!(ask(&gateway, Method::GET, "/status", support, "").await.status, 401);
    assert_eq!(ask(&gateway, Method::GET, "/status", Some("token of operator"), "").await.status, 200);
    drop(origin);
}

#[tokio::test]
async fn an_admin_address_that_others_can_reach_needs_tokens_and_tls_or_the_word_for_none() {
    let elsewhere = "[admin]\naddress = '0.0.0.0:0'\n";
    let routes = "[upstreams.shop]\nendpoints = ['http://127.0.0.1:9']\n[routes.all]\nmatch = { path = '/{*rest}' }\nupstream = 'shop'\n";
    let said = Gateway::refusal(&[routes, elsewhere]).await;
    assert!(said.contains("nobody is asked who they are"), "{said}");
    let with_tokens = format!("{elsewhere}{}", tokens(&["operator"]));
    let said = Gateway::refusal(&[routes, &with_tokens]).await;
    assert!(said.contains("clear text"), "{said}");
    let plain = format!("[admin]\naddress = '0.0.0.0:0'\nplaintext = true\n{}", tokens(&["operator"]));
    Gateway::start(&[routes, &plain]).await;
}

/// By each way that a token comes in, right or wrong, while everything that can be told is told.
#[tokio::test]
async fn a_token_stands_in_no_log_no_page_no_error_and_no_list_of_processes() {
    const RIGHT: &str = "tg_right_0123456789abcdefghijklmnopqrstuvwxyz";
    const WRONG: &str = "tg_wrong_0123456789abcdefghijklmnopqrstuvwxyz";
    let origin = Origin::start(Answer::ok()).await;
    let text = format!(
        "{}[admin.tokens.ops]\nrole = 'operator'\nsha256 = '{}'\n[admin.audit]\nfile = 'audit.jsonl'\n",
        all_to(origin.address),
        Hash::of(RIGHT).digits()
    );
    let mut process = Process::start(&text, None).await;
    let admin = process.admin;
    let bearer = format!("Bearer {RIGHT}");
    let ask = async |method: &str, path: &str, fields: &[(&str, &str)], sent: String| {
        let fields = [&[("host", "localhost"), ("content-type", "application/json")], fields].concat();
        let asked = request(method.parse().unwrap(), path, &fields, body::full(sent));
        Client::http1(admin).await.ask(asked).await
    };
    let right = ("authorization", &*bearer);
    let loud = ask("POST", "/api/log_level", &[right], r#"{"level":"trace"}"#.to_owned()).await;
    assert_eq!(loud.status, 200);
    let mut told = String::new();
    for token in [RIGHT, WRONG] {
        let bearer = format!("Bearer {token}");
        let basic = format!("Basic {token}");
        let query = format!("/status?token={token}");
        for (method, path, field, sent) in [
            ("GET", "/status", ("authorization", &*bearer), String::new()),
            ("GET", "/status", ("authorization", &*basic), String::new()),
            ("GET", "/status", ("cookie", token), String::new()),
            ("GET", &*query, right, String::new()),
            ("POST", "/api/login", ("origin", "http://localhost"), format!(r#"{{"token":"{token}"}}"#)),
            ("POST", "/api/login", ("origin", "http://localhost"), format!(r#"{{"tokn":"{token}"}}"#)),
            ("POST", "/api/maintenance", ("authorization", &*bearer), format!(r#"{{"{token}":1}}"#)),
        ] {
            let reply = ask(method, path, &[field], sent).await;
            told.extend([format!("{:?}", reply.headers), reply.text()]);
        }
        // one that somebody sends to the wrong door
        let sent = request(Method::GET, "/", &[("authorization", &bearer)], body::empty());
        told += Client::http1(process.address).await.ask(sent).await.text().as_str();
        told += &process.logged().await.to_string();
    }
    for path in ["/metrics", "/status", "/api/audit", "/api/traces", "/api/reloads", "/api/telemetry"] {
        told += ask("GET", path, &[right], String::new()).await.text().as_str();
    }
    told += &process.diagnostics();
    told += &std::fs::read_to_string(process.path("audit.jsonl")).unwrap();
    told += &process.kernel("cmdline");
    told += &process.kernel("environ");
    assert!(told.contains("/api/login") && told.contains("tracegate") && told.contains("\"ops\""));
    for token in [RIGHT, WRONG] {
        let place = told.find(&token[3..]).map(|at| &told[at.saturating_sub(200)..at + 20]);
        assert_eq!(place, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_token_comes_and_goes_with_reloads_every_answer_is_yes_or_no_and_the_last_word_counts() {
    let (_origin, gateway, with) = gateway(&tokens(&["operator", "support"])).await;
    let without = with.split("[admin.tokens.support]").next().unwrap().to_owned();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let address = gateway.admin_address();
    let asking = (0..4).map(|number| {
        let stopped = stopped.clone();
        tokio::spawn(async move {
            let mut client = Client::http1(address).await;
            let mut seen = [0; 2];
            while !*stopped.borrow() {
                let fields = [("host", "localhost"), ("authorization", "Bearer token of support")];
                let path = ["/status", "/api/routes"][number % 2];
                match client.ask(request(Method::GET, path, &fields, body::empty())).await.status {
                    200 => seen[0] += 1,
                    // wrong ones are slowed down after the tenth
                    401 | 429 => seen[1] += 1,
                    other => panic!("{path}: {other}"),
                }
            }
            seen
        })
    });
    let asking: Vec<_> = asking.collect();
    for _ in 0..30 {
        gateway.reload(&[&without]);
        let status = ask(&gateway, Method::GET, "/status", Some("token of support"), "").await.status;
        assert!(matches!(status, 401 | 429), "it was taken out: {status}");
        gateway.reload(&[&with]);
        assert_eq!(ask(&gateway, Method::GET, "/status", Some("token of support"), "").await.status, 200);
    }
    stop.send_replace(true);
    let mut seen = [0; 2];
    for one in asking {
        let [yes, no] = within("the end of those who ask", one).await.unwrap();
        seen = [seen[0] + yes, seen[1] + no];
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}
