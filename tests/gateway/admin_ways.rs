//! The other ways in at the admin address: an issuer's tokens and client certificates, and what never is one.

use std::path::Path;
use std::sync::Arc;

use http::Method;
use rcgen::SanType;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tracegate::setting::Hash;

use crate::support::client::request;
use crate::support::gateway::all_to;
use crate::support::tokens::{Signer, encode, jwks};
use crate::support::{Answer, Authority, Client, Events, Gateway, Origin, Reply, body, within};

const ROLES: &str = "roles = { ops = 'operator', dev = 'developer', help = 'support', prom = 'metrics' }";

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// What an operator's token says, with these changes; `null` takes a claim away.
#[expect(clippy::needless_pass_by_value, reason = "sentences read better")]
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": "https://login.test", "aud": "tracegate-admin", "sub": "alice", "exp": now() + 600, "roles": ["ops"]
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

/// A gateway whose operators and customers come from one issuer, and what it was made of.
async fn gateway(directory: &Path, signers: &[&Signer], more: &str) -> (Origin, Gateway, [String; 2]) {
    std::fs::write(directory.join("jwks.json"), jwks(signers)).unwrap();
    let origin = Origin::start(Answer::ok()).await;
    let text = format!(
        "[admin.jwt]\nissuer = 'https://login.test'\naudience = 'tracegate-admin'\nalgorithms = ['ES256']\n\
         jwks_file = 'jwks.json'\n{ROLES}\n\
         [auth.customers.jwt]\nissuer = 'https://login.test'\naudience = 'shop'\njwks_file = 'jwks.json'\n\
         [routes.all]\nauth = 'customers'\n{more}"
    );
    let texts = [all_to(origin.address), text];
    let gateway = Gateway::start_in(directory, &[&texts[0], &texts[1]]).await;
    (origin, gateway, texts)
}

async fn ask(gateway: &Gateway, method: Method, path: &str, token: Option<&str>) -> Reply {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let mut fields = vec![("host", "localhost"), ("content-type", "application/json")];
    fields.extend(authorization.as_deref().map(|value| ("authorization", value)));
    let sent = if method == Method::POST { r#"{"route":"all","maintenance":false}"# } else { "" };
    Client::http1(gateway.admin_address()).await.ask(request(method, path, &fields, body::full(sent))).await
}

/// What opens to these credentials: metrics, status, audit, a change.
async fn opens(gateway: &Gateway, token: &str) -> [u16; 4] {
    let mut statuses = [0; 4];
    for (status, (method, path)) in statuses.iter_mut().zip([
        (Method::GET, "/metrics"),
        (Method::GET, "/status"),
        (Method::GET, "/api/audit"),
        (Method::POST, "/api/maintenance"),
    ]) {
        *status = ask(gateway, method, path, Some(token)).await.status;
    }
    statuses
}

#[tokio::test]
async fn an_issuers_token_opens_what_the_role_of_its_claim_opens_and_nobodys_name_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let signer = Signer::p256("one");
    let audit = "[admin.audit]\nfile = 'audit.jsonl'\n";
    let (_origin, gateway, _) = gateway(directory.path(), &[&signer], audit).await;
    for (roles, expected) in [
        (json!(["ops"]), [200, 200, 200, 200]),
        (json!(["dev", "something"]), [200, 200, 200, 403]),
        (json!("help"), [403, 200, 403, 403]),
        (json!("profile prom"), [200, 403, 403, 403]),
        (json!(["operator"]), [403; 4]),
        (json!(["OPS", "ops "]), [403; 4]),
        (json!({ "ops": true }), [403; 4]),
        (Value::Null, [403; 4]),
    ] {
        let token = signer.token(&claims(json!({ "roles": roles })));
        assert_eq!(opens(&gateway, &token).await, expected, "{roles}");
    }
    let token = signer.token(&claims(json!({})));
    let audit = ask(&gateway, Method::GET, "/api/audit", Some(&token)).await;
    let entries = audit.json()["audit"].as_array().unwrap().clone();
    let changes: Vec<_> = entries.iter().filter(|entry| entry["what"] == "POST /api/maintenance").collect();
    let told: Vec<_> = changes
        .iter()
        .rev()
        .map(|entry| (entry["way"].as_str(), entry["who"].as_str(), entry["status"].as_u64()))
        .collect();
    let refused = |who| (Some("jwt"), Some(who), Some(403));
    let mut expected =
        vec![(Some("jwt"), Some("ops"), Some(200)), refused("dev"), refused("help"), refused("prom")];
    expected.extend([refused("-"); 4]);
    assert_eq!(told, expected, "{}", audit.text());
    assert!(!audit.text().contains("alice"), "{}", audit.text());
    let log = gateway.stop().await;
    assert!(log.is_empty());
    let file = std::fs::read_to_string(directory.path().join("audit.jsonl")).unwrap();
    assert!(!file.contains("alice") && !file.contains(&token[..20]), "{file}");
}

#[tokio::test]
async fn a_customers_token_never_opens_admin_nor_does_anything_forged() {
    let directory = tempfile::tempdir().unwrap();
    let (signer, rsa, stranger) = (Signer::p256("one"), Signer::rsa("rsa"), Signer::p256("one"));
    let (origin, gateway, _) = gateway(directory.path(), &[&signer, &rsa], "").await;
    let with = |changes: Value| signer.token(&claims(changes));
    let good = with(json!({}));
    let mut forged: Vec<&str> = good.split('.').collect();
    let raised = encode(claims(json!({ "roles": ["ops"], "sub": "mallory" })).to_string());
    forged[1] = &raised;
    let body = encode(claims(json!({})).to_string());
    let header = |header: Value| encode(header.to_string());
    let shared = {
        let message = format!("{}.{body}", header(json!({ "alg": "HS256", "kid": "one" })));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, signer.jwk().to_string().as_bytes());
        format!("{message}.{}", encode(ring::hmac::sign(&key, message.as_bytes())))
    };
    let customer = with(json!({ "aud": "shop" }));
    for (what, token) in [
        ("a customer's, whatever it says of roles", customer.clone()),
        ("for others", with(json!({ "aud": ["shop", "mes"] }))),
        ("for nobody", with(json!({ "aud": null }))),
        ("of another issuer", with(json!({ "iss": "https://other.test" }))),
        ("expired", with(json!({ "exp": now() - 61 }))),
        ("for ever", with(json!({ "exp": null }))),
        ("for later", with(json!({ "nbf": now() + 300 }))),
        ("by a stranger's key of the same name", stranger.token(&claims(json!({})))),
        ("by a key that nobody knows", Signer::p256("other").token(&claims(json!({})))),
        ("by an algorithm that is not pinned", rsa.token(&claims(json!({})))),
        ("with another's claims", forged.join(".")),
        ("unsigned", format!("{}.{body}.", header(json!({ "alg": "none" })))),
        ("unsigned by a known key", format!("{}.{body}.", header(json!({ "alg": "ES256", "kid": "one" })))),
        ("signed by the public key as if it were a secret", shared),
        ("nothing of the kind", "tracegate".to_owned()),
    ] {
        let reply = ask(&gateway, Method::GET, "/status", Some(&token)).await;
        let expected = if reply.status == 429 { 429 } else { 401 };
        assert_eq!(reply.status, expected, "{what}");
        assert!(!reply.text().contains("routes"), "{what}");
    }
    // the customer is one all the same, and the operator is none
    for (token, status) in [(&customer, 200), (&good, 401)] {
        let asked =
            request(Method::GET, "/", &[("authorization", &format!("Bearer {token}"))], body::empty());
        assert_eq!(gateway.ask(asked).await.status, status);
    }
    assert_eq!(ask(&gateway, Method::GET, "/status", Some(&good)).await.status, 200);
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn wrong_credentials_of_each_kind_are_slowed_down_and_right_ones_still_pass() {
    let directory = tempfile::tempdir().unwrap();
    let signer = Signer::p256("one");
    let token =
        format!("[admin.tokens.deploy]\nrole = 'operator'\nsha256 = '{}'\n", Hash::of("ours").digits());
    let (_origin, gateway, _) = gateway(directory.path(), &[&signer], &token).await;
    let stranger = Signer::p256("one").token(&claims(json!({})));
    for number in 0..12 {
        // one count for both kinds
        let wrong = if number % 2 == 0 { "not ours" } else { &*stranger };
        let reply = ask(&gateway, Method::GET, "/status", Some(wrong)).await;
        assert_eq!(reply.status, if number < 10 { 401 } else { 429 }, "{number}");
        assert_eq!(reply.headers.has("retry-after"), number >= 10);
    }
    for right in ["ours", &signer.token(&claims(json!({})))] {
        assert_eq!(ask(&gateway, Method::GET, "/status", Some(right)).await.status, 200);
    }
    // what is valid and opens nothing is no guess
    let poor = signer.token(&claims(json!({ "roles": [] })));
    assert_eq!(ask(&gateway, Method::GET, "/status", Some(&poor)).await.status, 403);
}

#[tokio::test]
async fn while_the_issuer_is_away_its_tokens_are_not_called_wrong_and_ours_open() {
    let issuer = Origin::start(Answer::status(500)).await;
    let (origin, signer) = (Origin::start(Answer::ok()).await, Signer::p256("one"));
    let text = format!(
        "[admin.jwt]\nissuer = 'https://login.test'\naudience = 'tracegate-admin'\nalgorithms = ['ES256']\n\
         jwks_url = 'http://{}/jwks'\n{ROLES}\n[admin.tokens.deploy]\nrole = 'operator'\nsha256 = '{}'\n",
        issuer.address,
        Hash::of("ours").digits()
    );
    let gateway = Gateway::start(&[&all_to(origin.address), &text]).await;
    let token = signer.token(&claims(json!({})));
    let reply = ask(&gateway, Method::GET, "/status", Some(&token)).await;
    assert_eq!((reply.status, reply.headers.has("retry-after")), (503, true), "{}", reply.text());
    assert_eq!(ask(&gateway, Method::GET, "/status", Some("ours")).await.status, 200);
    issuer.answer(Answer::status(200).data(jwks(&[&signer])));
    let passed = async { while ask(&gateway, Method::GET, "/status", Some(&token)).await.status != 200 {} };
    within("the keys to be fetched", passed).await;
    let fetched = issuer.seen().len();
    // a reload that leaves the source alone keeps the keys; what it says of roles counts at once
    gateway.reload(&[&all_to(origin.address), &text.replace("ops = 'operator'", "ops = 'metrics'")]);
    assert_eq!(opens(&gateway, &token).await, [200, 403, 403, 403]);
    assert_eq!(issuer.seen().len(), fetched);
    let status = ask(&gateway, Method::GET, "/status", Some("ours")).await.json();
    assert_eq!(status["configuration"]["awaiting_restart"], json!([]), "who may come in counts at once");
}

/// Logs in on the page with this token.
async fn log_in(gateway: &Gateway, token: &str) -> Reply {
    let fields =
        [("host", "localhost"), ("origin", "http://localhost"), ("content-type", "application/json")];
    let sent = json!({ "token": token }).to_string();
    let login = request(Method::POST, "/api/login", &fields, body::full(sent));
    Client::http1(gateway.admin_address()).await.ask(login).await
}

/// The status of a read and of a change, by a session.
async fn by_session(gateway: &Gateway, login: &Reply) -> [u16; 2] {
    let cookie = login.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let csrf = login.json()["csrf"].as_str().unwrap().to_owned();
    let fields = [
        ("host", "localhost"),
        ("origin", "http://localhost"),
        ("content-type", "application/json"),
        ("cookie", &*cookie),
        ("x-csrf-token", &*csrf),
    ];
    let change = r#"{"route":"all","maintenance":false}"#;
    let mut client = Client::http1(gateway.admin_address()).await;
    let read = client.ask(request(Method::GET, "/status", &fields, body::empty())).await.status;
    let changed = client.ask(request(Method::POST, "/api/maintenance", &fields, body::full(change))).await;
    [read, changed.status]
}

#[tokio::test]
async fn the_page_takes_an_issuers_token_and_its_session_is_worth_what_the_token_is() {
    let directory = tempfile::tempdir().unwrap();
    let signer = Signer::p256("one");
    let (_origin, gateway, texts) = gateway(directory.path(), &[&signer], "").await;
    let with = |changes: Value| signer.token(&claims(changes));
    // long ones, too: those of an issuer may be
    let long = "x".repeat(5000);
    let operator = log_in(&gateway, &with(json!({ "more": long }))).await;
    let support = log_in(&gateway, &with(json!({ "roles": ["help"] }))).await;
    assert_eq!((&operator.json()["who"], &operator.json()["role"]), (&json!("ops"), &json!("operator")));
    assert_eq!(by_session(&gateway, &operator).await, [200, 200]);
    assert_eq!(by_session(&gateway, &support).await, [200, 403]);
    for (token, status) in [
        (with(json!({ "aud": "shop" })), 401),
        (with(json!({ "exp": now() - 61 })), 401),
        (with(json!({ "roles": ["prom"] })), 403),
        (with(json!({ "roles": ["root"] })), 403),
        ("a\nb".to_owned(), 401),
        (String::new(), 401),
    ] {
        let reply = log_in(&gateway, &token).await;
        assert_eq!((reply.status, reply.headers.has("set-cookie")), (status, false), "{}", reply.text());
    }
    let audit = ask(&gateway, Method::GET, "/api/audit", Some(&with(json!({})))).await.json();
    let logins = audit["audit"].as_array().unwrap().iter().filter(|entry| entry["what"] == "POST /api/login");
    let told: Vec<_> = logins.rev().map(|entry| (entry["who"].as_str(), entry["way"].as_str())).collect();
    assert_eq!(told[..2], [(Some("ops"), Some("jwt")), (Some("help"), Some("jwt"))], "{audit}");
    // whoever asks more of tokens than before asks it of those that have opened something, too
    let [base, text] = &texts;
    gateway.reload(&[
        base,
        &text.replace("[auth.customers.jwt]", "claims = { mfa = { is = 'yes' } }\n[auth.customers.jwt]"),
    ]);
    assert_eq!(by_session(&gateway, &operator).await, [401, 401]);
}

#[tokio::test]
async fn a_stream_and_a_session_end_when_the_token_does_that_opened_them() {
    let directory = tempfile::tempdir().unwrap();
    let signer = Signer::p256("one");
    let exact = "[admin.jwt]\nclock_skew = 'off'\n";
    std::fs::write(directory.path().join("jwks.json"), jwks(&[&signer])).unwrap();
    let origin = Origin::start(Answer::ok()).await;
    let text = format!(
        "{exact}issuer = 'https://login.test'\naudience = 'tracegate-admin'\nalgorithms = ['ES256']\n\
         jwks_file = 'jwks.json'\n{ROLES}\n"
    );
    let gateway = Gateway::start_in(directory.path(), &[&all_to(origin.address), &text]).await;
    let ends = now() + 3;
    let token = signer.token(&claims(json!({ "exp": ends })));
    let login = log_in(&gateway, &token).await;
    let authorization = format!("Bearer {token}");
    let mut stream = Events::of(&gateway, &[("authorization", &authorization)]).await;
    stream.event("hello").await;
    assert_eq!(by_session(&gateway, &login).await, [200, 200]);
    stream.ended().await;
    assert!((ends..ends + 10).contains(&now()), "it ended at {} instead of {ends}", now());
    assert_eq!(by_session(&gateway, &login).await, [401, 401]);
    assert_eq!(ask(&gateway, Method::GET, "/status", Some(&token)).await.status, 401);
}

#[tokio::test]
async fn a_reload_ends_the_streams_of_what_no_longer_opens_whatever_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let signer = Signer::p256("one");
    let (_origin, gateway, [base, text]) = gateway(directory.path(), &[&signer], "").await;
    let stream = |roles: Value| {
        let authorization = format!("Bearer {}", signer.token(&claims(json!({ "roles": roles }))));
        let gateway = &gateway;
        async move { Events::of(gateway, &[("authorization", &authorization)]).await }
    };
    let developer = stream(json!(["dev"])).await;
    gateway.reload(&[&base, &text.replace("dev = 'developer'", "dev = 'metrics'")]);
    developer.ended().await;

    let certified = Certified::new().await;
    let mut client = certified.client(certified.shown(uri("spiffe://shop.test/ops"))).await;
    let listening = request(Method::GET, "/api/stream", &[("host", "localhost")], body::empty());
    let answer = client.send(listening).await.unwrap();
    assert_eq!(answer.status(), 200);
    let [base, text] = &certified.texts;
    certified.gateway.reload(&[base, &text.replace("spiffe://shop.test/ops", "spiffe://shop.test/other")]);
    within("the end of the stream", body::count(answer.into_body())).await.unwrap();
}

/// An admin address with TLS that knows two certificates.
struct Certified {
    authority: Authority,
    gateway: Gateway,
    texts: [String; 2],
    directory: tempfile::TempDir,
    _origin: Origin,
}

impl Certified {
    async fn new() -> Self {
        let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
        authority.write(directory.path());
        authority.identity(&["localhost"]).write(directory.path());
        let origin = Origin::start(Answer::ok()).await;
        let text = "[admin.tls]\ncertificate_file = 'server.pem'\nkey_file = 'server-key.pem'\nclient_ca_file = 'ca.pem'\n\
                    [admin.certificates]\nlaptop = { san = 'spiffe://shop.test/ops', role = 'operator' }\n\
                    phone = { san = 'help@shop.test', role = 'support' }\n";
        let texts = [all_to(origin.address), text.to_owned()];
        let gateway = Gateway::start_in(directory.path(), &[&texts[0], &texts[1]]).await;
        Self { authority, gateway, texts, directory, _origin: origin }
    }

    fn shown(&self, name: SanType) -> Arc<ClientConfig> {
        self.authority.client_with(&[], &self.authority.client_identity(vec![name], 2100))
    }

    async fn client(&self, config: Arc<ClientConfig>) -> Client {
        Client::tls(self.gateway.admin_address(), "localhost", config).await
    }
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

fn mail(name: &str) -> SanType {
    SanType::Rfc822Name(name.try_into().unwrap())
}

fn maintenance(fields: &[(&str, &str)]) -> http::Request<body::Body> {
    let fields = [&[("content-type", "application/json"), ("host", "localhost:9901")], fields].concat();
    request(Method::POST, "/api/maintenance", &fields, body::full(r#"{"route":"all","maintenance":false}"#))
}

#[tokio::test]
async fn a_client_certificate_opens_by_a_name_in_it() {
    let certified = Certified::new().await;
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    for (config, status, change) in [
        (certified.shown(uri("spiffe://shop.test/ops")), 200, 200),
        (certified.shown(mail("help@shop.test")), 200, 403),
        (certified.shown(uri("spiffe://shop.test/op")), 401, 401),
        (certified.shown(dns("help.shop.test")), 401, 401),
        (certified.authority.client(&[]), 401, 401),
    ] {
        let mut client = certified.client(config).await;
        let page = client.get("/status").await;
        assert_eq!(
            (page.status, client.ask(maintenance(&[])).await.status),
            (status, change),
            "{}",
            page.text()
        );
    }
    // a certificate of somebody else's authority is none: there is no session
    let other = Authority::new();
    let mut config = ClientConfig::clone(&certified.authority.client(&[]));
    let foreign = other.client_with(&[], &other.client_identity(vec![uri("spiffe://shop.test/ops")], 2100));
    config.client_auth_cert_resolver = Arc::clone(&foreign.client_auth_cert_resolver);
    let mut client = certified.client(Arc::new(config)).await;
    assert!(client.send(crate::support::client::get("/status")).await.is_err());

    let mut operator = certified.client(certified.shown(uri("spiffe://shop.test/ops"))).await;
    let audit = operator.get("/api/audit").await.json();
    let changes =
        audit["audit"].as_array().unwrap().iter().filter(|entry| entry["what"] == "POST /api/maintenance");
    let told: Vec<_> = changes.rev().map(|entry| (entry["who"].as_str(), entry["way"].as_str())).collect();
    let nobody = (Some("-"), None);
    assert_eq!(
        told[..2],
        [(Some("laptop"), Some("certificate")), (Some("phone"), Some("certificate"))],
        "{audit}"
    );
    assert_eq!(told[2..], [nobody; 3], "{audit}");
    assert!(!audit.to_string().contains("spiffe"), "{audit}");
}

#[tokio::test]
async fn a_browser_with_a_certificate_changes_nothing_for_another_sites_page() {
    let certified = Certified::new().await;
    let mut operator = certified.client(certified.shown(uri("spiffe://shop.test/ops"))).await;
    for (fields, status) in [
        (&[("origin", "https://evil.test")][..], 403),
        (&[("origin", "null")], 403),
        (&[("origin", "http://localhost:9901")], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("sec-fetch-site", "same-site")], 403),
        (&[("origin", "https://localhost:9901"), ("sec-fetch-site", "same-origin")], 200),
        (&[("sec-fetch-site", "none")], 200),
        (&[], 200),
    ] {
        assert_eq!(operator.ask(maintenance(fields)).await.status, status, "{fields:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_a_reload_removes_opens_nothing_even_on_an_open_connection() {
    let certified = Certified::new().await;
    let mut operator = certified.client(certified.shown(uri("spiffe://shop.test/ops"))).await;
    assert_eq!(operator.get("/status").await.status, 200);
    let [base, text] = &certified.texts;
    let without = text.replace("laptop = { san = 'spiffe://shop.test/ops', role = 'operator' }\n", "");
    certified.gateway.reload(&[base, &without]);
    assert_eq!(operator.get("/status").await.status, 401);
    let wrong = certified.client(certified.shown(uri("spiffe://shop.test/ops"))).await;
    drop(wrong);
    for _ in 0..9 {
        assert_eq!(operator.get("/status").await.status, 401);
    }
    assert_eq!(operator.get("/status").await.status, 429, "certificates that open nothing are counted, too");
    assert!(certified.directory.path().exists());
}

#[tokio::test]
async fn what_is_wrong_with_a_way_in_is_told_before_it_opens() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("jwks.json"), jwks(&[&Signer::p256("one")])).unwrap();
    let authority = Authority::new();
    let ca = authority.write(directory.path());
    let (certificate, key) = authority.identity(&["localhost"]).write(directory.path());
    let file = directory.path().join("jwks.json");
    let base = "[upstreams.shop]\nendpoints = ['http://192.0.2.1']\n[routes.all]\nmatch = { path = '/' }\nupstream = 'shop'\n";
    let jwt = format!("[admin.jwt]\nissuer = 'i'\njwks_file = '{}'\n", file.display());
    let audience = "audience = 'tracegate-admin'\n";
    let whole = format!("{jwt}{audience}algorithms = ['ES256']\n{ROLES}\n");
    let tls = format!(
        "[admin.tls]\ncertificate_file = '{}'\nkey_file = '{}'\n",
        certificate.display(),
        key.display()
    );
    let client_ca = format!("client_ca_file = '{}'\n", ca.display());
    let laptop = "[admin.certificates.laptop]\nrole = 'operator'\n";
    for (text, key, what) in [
        (
            format!("{jwt}algorithms = ['ES256']\n{ROLES}\n"),
            "admin.jwt.audience",
            "customer's token would open",
        ),
        (
            format!("{jwt}audience = 'off'\nalgorithms = ['ES256']\n{ROLES}\n"),
            "admin.jwt.audience",
            "customer's token would open",
        ),
        (format!("{jwt}{audience}{ROLES}\n"), "admin.jwt.algorithms", "is missing"),
        (format!("{jwt}{audience}algorithms = []\n{ROLES}\n"), "admin.jwt.algorithms", "is empty"),
        (
            format!("{jwt}{audience}algorithms = ['none']\n{ROLES}\n"),
            "admin.jwt.algorithms",
            "\"none\" is none of",
        ),
        (format!("{jwt}{audience}algorithms = ['ES256']\n"), "admin.jwt.roles", "nobody would"),
        (
            format!("{jwt}{audience}algorithms = ['ES256']\nroles = {{ ops = 'root' }}\n"),
            "admin.jwt.roles.ops",
            "\"root\"",
        ),
        (
            format!(
                "{whole}[auth.staff.jwt]\nissuer = 'other'\naudience = ['mes', 'tracegate-admin']\njwks_file = '{}'\n",
                file.display()
            ),
            "admin.jwt.audience",
            "auth.staff",
        ),
        (format!("{tls}{laptop}san = 'a.test'\n"), "admin.certificates", "client_ca_file"),
        (format!("{tls}{client_ca}"), "admin.tls.client_ca_file", "opens nothing"),
        (format!("{tls}{client_ca}{laptop}"), "admin.certificates.laptop.san", "is missing"),
        (format!("{tls}{client_ca}{laptop}san = '*'\n"), "admin.certificates.laptop.san", "\"*\" is"),
        (
            format!("{tls}{client_ca}{laptop}san = 'CN=ops'\n"),
            "admin.certificates.laptop.san",
            "\"CN=ops\" is",
        ),
        (
            format!(
                "{tls}{client_ca}{laptop}san = 'a.test'\n[admin.certificates.phone]\nsan = 'A.test'\nrole = 'support'\n"
            ),
            "admin.certificates.phone.san",
            "laptop",
        ),
    ] {
        let said = Gateway::refusal(&[base, &text]).await;
        assert!(said.contains(key) && said.contains(what), "{text}\n{said}");
    }
    Gateway::start(&[base, &whole]).await;
}

#[tokio::test]
async fn no_upstream_leads_to_the_admin_address_however_it_is_spelled() {
    for (admin, endpoint, refused) in [
        ("127.0.0.1:9901", "127.0.0.1:9901", true),
        ("127.0.0.1:9901", "localhost:9901", true),
        ("127.0.0.1:9901", "LOCALHOST.:9901", true),
        ("127.0.0.1:9901", "gateway.localhost:9901", true),
        ("127.0.0.1:9901", "0.0.0.0:9901", true),
        ("127.0.0.1:9901", "[::ffff:127.0.0.1]:9901", true),
        ("127.0.0.1:9901", "[::ffff:7f00:1]:9901", true),
        ("127.0.0.1:9901", "127.1:9901", true),
        ("127.0.0.1:9901", "0x7f.0.0.1:9901", true),
        ("127.0.0.1:9901", "0177.0.0.01:9901", true),
        ("127.0.0.1:9901", "2130706433:9901", true),
        ("127.0.0.1:9901", "127.0.0.1:9902", false),
        ("127.0.0.1:9901", "127.0.0.2:9901", false),
        ("127.0.0.1:9901", "shop.internal:9901", false),
        ("[::1]:9901", "[::1]:9901", true),
        ("[::1]:9901", "[::]:9901", true),
        ("[::1]:9901", "[0:0:0:0:0:0:0:1]:9901", true),
        ("[::1]:9901", "localhost:9901", true),
        ("0.0.0.0:9901", "127.0.0.1:9901", true),
        ("0.0.0.0:9901", "127.8.9.10:9901", true),
        ("0.0.0.0:9901", "10.0.0.7:9901", false),
        ("[::]:9901", "127.0.0.1:9901", true),
        ("[::]:9901", "[::1]:9901", true),
        ("10.0.0.7:9901", "10.0.0.7:9901", true),
        ("10.0.0.7:9901", "127.0.0.1:9901", false),
    ] {
        let hash = Hash::of("x").digits();
        let text = format!(
            "[admin]\naddress = '{admin}'\nplaintext = true\ntokens.a = {{ role = 'operator', sha256 = '{hash}' }}\n\
             [upstreams.shop]\nendpoints = ['http://{endpoint}', 'http://192.0.2.1:']\n\
             [routes.all]\nmatch = {{ path = '/' }}\nupstream = 'shop'\n"
        );
        // the second endpoint is wrong in any case, so that nothing is bound
        let said = Gateway::refusal(&[&text]).await;
        let told = said.contains("is the gateway's own admin address");
        assert_eq!(told, refused, "{admin} {endpoint}: {said}");
    }
}
