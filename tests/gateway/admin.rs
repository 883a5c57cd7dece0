//! Sentences about the admin address: who may do what, and who is told of it.

use http::Method;
use tracegate::setting::Hash;

use crate::support::body;
use crate::support::client::{Client, Reply, request};
use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin};
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
    assert!(said.contains("nobody is asked for a token"), "{said}");
    let with_tokens = format!("{elsewhere}{}", tokens(&["operator"]));
    let said = Gateway::refusal(&[routes, &with_tokens]).await;
    assert!(said.contains("clear text"), "{said}");
    let plain = format!("[admin]\naddress = '0.0.0.0:0'\nplaintext = true\n{}", tokens(&["operator"]));
    Gateway::start(&[routes, &plain]).await;
}
