//! Who may call: keys, tokens and addresses, each let in or refused for its reason, and nothing of it told on.

use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use rcgen::SanType;
use serde_json::{Value, json};

use crate::support::client::request;
use crate::support::gateway::{all_to, route, upstream};
use crate::support::tokens::{Signer, encode, jwks};
use crate::support::{
    Answer, Authority, Client, Gate, Gateway, Logstash, Origin, Reply, Stage, Told, body, within,
};

fn hash(key: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    digest.as_ref().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What a good token says, with these changes; `null` takes a claim away.
#[expect(clippy::needless_pass_by_value, reason = "sentences read better")]
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": "https://login.test", "aud": ["shop", "mes"], "sub": "alice", "exp": now() + 600,
        "scope": "profile orders", "tenant": "acme"
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

/// `[auth.staff]` for tokens of an issuer whose keys are in this text, with more keys of the table.
fn staff(keys: &str, more: &str) -> String {
    format!(
        "[auth.staff.jwt]\nissuer = 'https://login.test'\naudience = 'shop'\n{keys}\n{more}\n\
         [routes.all]\nauth = 'staff'\n"
    )
}

/// The keys are fetched from this origin, by these rules beside.
fn from(issuer: &Origin, more: &str) -> String {
    let own = "refresh_min = '1h', refetch = '1ms'";
    let more = if more.is_empty() { own.to_owned() } else { more.to_owned() };
    format!("jwks_url = 'http://{}/jwks'\njwks = {{ {more} }}", issuer.address)
}

fn published(signers: &[&Signer]) -> Answer {
    Answer::status(200).header("content-type", "application/json").data(jwks(signers))
}

async fn ask(gateway: &Gateway, fields: &[(&str, &str)]) -> Reply {
    gateway.ask(request(Method::GET, "/orders", fields, body::empty())).await
}

async fn bearing(gateway: &Gateway, token: &str) -> Reply {
    ask(gateway, &[("authorization", &format!("Bearer {token}"))]).await
}

/// What was told of a refusal: status and reason, the finer word, the rule.
async fn refused(stage: &Stage, reply: &Reply) -> (u16, String, String) {
    let told: Told = stage.told(&reply.trace_id(), 0).await;
    let reason = reply.reason().expect("an answer of the gateway's own");
    let detail = told.log["detail"].as_str().expect("a finer word").to_owned();
    assert_eq!(told.server.attribute("tracegate.detail"), Some(&*detail));
    assert_eq!(told.server.attribute("tracegate.rule"), told.log["rule"].as_str());
    assert!(reply.json().get("detail").is_none(), "it is for the operator alone: {}", reply.text());
    (reply.status, reason, detail)
}

fn told(status: u16, reason: &str, detail: &str) -> (u16, String, String) {
    (status, reason.to_owned(), detail.to_owned())
}

#[tokio::test]
async fn an_api_key_is_known_by_its_hash_and_stays_between_its_owner_and_the_gateway() {
    let keys = format!(
        "[auth.partners]\nidentity_headers = {{ 'x-partner' = 'sub' }}\n\
         [auth.partners.api_keys.keys]\nacme = {{ sha256 = '{}', expires = '2999-01-01' }}\n\
         gone = {{ sha256 = '{}', expires = '2020-01-01' }}\n[routes.all]\nauth = 'partners'\n",
        hash("correct-horse"),
        hash("stale-horse")
    );
    let stage = Stage::and(Answer::ok(), &keys).await;
    for (fields, detail) in [
        (&[][..], "missing_credentials"),
        (&[("authorization", "Bearer correct-horse")], "missing_credentials"),
        (&[("x-api-key", "wrong-horse")], "unknown_key"),
        (&[("x-api-key", &*hash("correct-horse"))], "unknown_key"),
        (&[("x-api-key", "")], "malformed"),
        (&[("x-api-key", "correct-horse"), ("x-api-key", "correct-horse")], "malformed"),
        (&[("x-api-key", "stale-horse")], "token_expired"),
    ] {
        let reply = ask(&stage.gateway, fields).await;
        assert_eq!(refused(&stage, &reply).await, told(401, "unauthenticated", detail), "{fields:?}");
        assert_eq!(reply.header("www-authenticate"), Some("ApiKey realm=\"partners\""));
        assert_eq!(reply.json()["rule"], "auth.partners");
    }
    let metrics = stage.gateway.metrics().await;
    let labels = [("tracegate_rule", "auth.partners"), ("tracegate_reason", "unauthenticated")];
    assert_eq!(metrics.count("tracegate_rules_total", &labels), 7, "wrong attempts are counted by rule");

    let reply = ask(&stage.gateway, &[("x-api-key", "correct-horse"), ("x-partner", "mallory")]).await;
    assert_eq!(reply.status, 200);
    let seen = stage.origin.only().await;
    assert_eq!((seen.headers.all("x-partner"), seen.header("x-api-key")), (vec!["acme"], None));
}

#[tokio::test]
async fn api_keys_may_be_in_a_file_be_sent_as_bearers_and_be_passed_on() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("keys"), format!("# ours\nacme {}\n", hash("k1"))).unwrap();
    let origin = Origin::start(Answer::ok()).await;
    let text = "[auth.a]\nforward_credentials = true\napi_keys = { keys_file = 'keys', header = 'Authorization' }\n\
                [routes.all]\nauth = 'a'\n";
    let base = all_to(origin.address);
    let gateway = Gateway::start_in(directory.path(), &[&base, text]).await;
    let reply = bearing(&gateway, "k2").await;
    let challenge = reply.header("www-authenticate");
    assert_eq!((reply.status, challenge), (401, Some("Bearer realm=\"a\", error=\"invalid_token\"")));
    assert_eq!(bearing(&gateway, "k1").await.status, 200);
    assert_eq!(origin.only().await.header("authorization"), Some("Bearer k1"));
}

#[tokio::test]
async fn a_token_is_let_in_whatever_its_algorithm_and_tells_the_upstream_who_it_is() {
    let signers = [Signer::p256("one"), Signer::p384("two"), Signer::ed25519("three"), Signer::rsa("four")];
    let issuer = Origin::start(published(&signers.each_ref())).await;
    let text = staff(
        &from(&issuer, ""),
        "claims = { scope = { contains = 'orders' }, tenant = { is = 'acme' } }",
    ) + "[auth.staff]\nidentity_headers = { 'x-user' = 'sub', 'x-scope' = 'scope', 'x-aud' = 'aud', 'x-no' = 'no' }\n";
    let stage = Stage::and(Answer::ok(), &text).await;
    let mut tokens: Vec<String> = signers.iter().map(|signer| signer.token(&claims(json!({})))).collect();
    for algorithm in ["RS384", "RS512", "PS256", "PS384", "PS512"] {
        tokens.push(signers[3].token_by(algorithm, &claims(json!({}))));
    }
    // each twice: verified, and remembered
    for token in tokens.iter().chain(&tokens) {
        let reply = bearing(&stage.gateway, token).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    for seen in stage.origin.seen() {
        let said = ["x-user", "x-scope", "x-aud", "x-no"].map(|name| seen.header(name));
        assert_eq!(said, [Some("alice"), Some("profile orders"), Some("shop,mes"), None]);
        assert!(seen.header("authorization").is_some(), "a token is passed on");
    }
    assert_eq!(issuer.seen().len(), 1, "the keys are fetched once");
    let spans = stage.collector.wait_for_spans(2 * 2 * tokens.len()).await;
    let text = format!("{spans:?}{:?}", stage.gateway.log(tokens.len()).await);
    for secret in ["alice", "acme", "profile", &tokens[0][40..]] {
        assert!(!text.contains(secret), "{secret} is told");
    }
}

#[tokio::test]
async fn a_token_that_is_not_good_is_refused_for_its_reason() {
    let (signer, stranger) = (Signer::p256("one"), Signer::p256("one"));
    let issuer = Origin::start(published(&[&signer, &Signer::rsa("rsa")])).await;
    let text = staff(
        &from(&issuer, "refetch = '1h'"),
        "token_bytes = '2KiB'\nclaims = { tenant = { is = 'acme' } }",
    );
    let stage = Stage::and(Answer::ok(), &text).await;
    let good = signer.token(&claims(json!({})));
    assert_eq!(bearing(&stage.gateway, &good).await.status, 200);

    let mut other_claims: Vec<&str> = good.split('.').collect();
    let forged = encode(claims(json!({ "sub": "mallory" })).to_string());
    other_claims[1] = &forged;
    let with = |changes: Value| signer.token(&claims(changes));
    let invalid = "Bearer realm=\"staff\", error=\"invalid_token\"";
    let expired = format!("{invalid}, error_description=\"The access token expired\"");
    for (token, status, detail, challenge) in [
        (with(json!({ "exp": now() - 61 })), 401, "token_expired", &*expired),
        (with(json!({ "exp": null })), 401, "missing_claim", invalid),
        (with(json!({ "nbf": now() + 300 })), 401, "not_yet_valid", invalid),
        (with(json!({ "iss": "https://other.test" })), 401, "wrong_issuer", invalid),
        (with(json!({ "aud": "mes" })), 401, "wrong_audience", invalid),
        (with(json!({ "aud": null })), 401, "wrong_audience", invalid),
        (stranger.token(&claims(json!({}))), 401, "bad_signature", invalid),
        (other_claims.join("."), 401, "bad_signature", invalid),
        (Signer::p256("other").token(&claims(json!({}))), 401, "unknown_key", invalid),
        ("nonsense".to_owned(), 401, "malformed", invalid),
        (format!("{good}.a"), 401, "malformed", invalid),
        (with(json!({ "more": "x".repeat(2048) })), 401, "malformed", invalid),
        (
            with(json!({ "tenant": "other" })),
            403,
            "missing_claim",
            "Bearer realm=\"staff\", error=\"insufficient_scope\"",
        ),
    ] {
        let reply = bearing(&stage.gateway, &token).await;
        let reason = if status == 401 { "unauthenticated" } else { "forbidden" };
        assert_eq!(refused(&stage, &reply).await, told(status, reason, detail), "{token}");
        assert_eq!(reply.header("www-authenticate"), Some(challenge), "{detail}");
    }
    let reply = ask(&stage.gateway, &[]).await;
    assert_eq!(refused(&stage, &reply).await, told(401, "unauthenticated", "missing_credentials"));
    assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"staff\""));
    assert_eq!(stage.origin.seen().len(), 1, "only the good one came through");
}

#[tokio::test]
async fn a_token_never_says_how_it_is_to_be_verified() {
    let signer = Signer::rsa("rsa");
    let issuer = Origin::start(published(&[&signer, &Signer::p256("curve")])).await;
    let text = staff(&from(&issuer, "refetch = '1h'"), "algorithms = ['RS256', 'ES256']");
    let stage = Stage::and(Answer::ok(), &text).await;
    let body = encode(claims(json!({})).to_string());
    let unsigned = |header: Value| format!("{}.{body}.", encode(header.to_string()));
    // a shared secret that everybody knows: the public key as it is published
    let shared = {
        let message = format!("{}.{body}", encode(json!({ "alg": "HS256", "kid": "rsa" }).to_string()));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, signer.jwk().to_string().as_bytes());
        format!("{message}.{}", encode(ring::hmac::sign(&key, message.as_bytes())))
    };
    let header = |more: Value| {
        let mut header = json!({ "alg": "RS256", "kid": "rsa" });
        for (name, value) in more.as_object().unwrap() {
            header[name] = value.clone();
        }
        signer.token_of(&header, &claims(json!({})))
    };
    for (token, detail) in [
        (unsigned(json!({ "alg": "none" })), "wrong_algorithm"),
        (unsigned(json!({ "alg": "None", "kid": "rsa" })), "wrong_algorithm"),
        (unsigned(json!({ "alg": "RS256", "kid": "rsa" })), "bad_signature"),
        (unsigned(json!({})), "malformed"),
        (shared, "wrong_algorithm"),
        (header(json!({ "alg": "PS256" })), "wrong_algorithm"),
        (header(json!({ "alg": "ES256" })), "wrong_algorithm"),
        (header(json!({ "alg": "ES256", "kid": "curve" })), "bad_signature"),
        (header(json!({ "kid": "curve" })), "wrong_algorithm"),
        (header(json!({ "crit": ["b64"], "b64": false })), "malformed"),
        // a key of the token's own is not looked at
        (header(json!({ "kid": "mine", "jwk": signer.jwk(), "jku": "http://mallory.test" })), "unknown_key"),
    ] {
        let reply = bearing(&stage.gateway, &token).await;
        assert_eq!(refused(&stage, &reply).await, told(401, "unauthenticated", detail), "{token}");
    }
    assert_eq!(bearing(&stage.gateway, &header(json!({}))).await.status, 200);
}

#[tokio::test]
async fn a_rotated_key_is_fetched_when_a_token_names_it_and_the_old_one_opens_nothing_any_more() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let issuer = Origin::start(published(&[&old])).await;
    let stage = Stage::and(Answer::ok(), &staff(&from(&issuer, ""), "")).await;
    let (by_old, by_new) = (old.token(&claims(json!({}))), new.token(&claims(json!({}))));
    assert_eq!(bearing(&stage.gateway, &by_old).await.status, 200);
    issuer.answer(published(&[&new, &old]));
    for token in [&by_new, &by_old] {
        assert_eq!(bearing(&stage.gateway, token).await.status, 200, "both are published");
    }
    issuer.answer(published(&[&Signer::p256("newer")]));
    assert_eq!(bearing(&stage.gateway, &Signer::p256("newest").token(&claims(json!({})))).await.status, 401);
    // what was remembered by keys that have gone is forgotten with them
    let reply = bearing(&stage.gateway, &by_old).await;
    assert_eq!(refused(&stage, &reply).await, told(401, "unauthenticated", "unknown_key"));
}

#[tokio::test]
async fn a_rotated_key_without_a_name_is_fetched_too() {
    let (old, new) = (Signer::ed25519("").unnamed(), Signer::ed25519("").unnamed());
    let issuer = Origin::start(published(&[&old])).await;
    let stage = Stage::and(Answer::ok(), &staff(&from(&issuer, ""), "")).await;
    assert_eq!(bearing(&stage.gateway, &old.token(&claims(json!({})))).await.status, 200);
    issuer.answer(published(&[&new]));
    assert_eq!(bearing(&stage.gateway, &new.token(&claims(json!({})))).await.status, 200);
    let reply = bearing(&stage.gateway, &old.token(&claims(json!({})))).await;
    assert_eq!(refused(&stage, &reply).await, told(401, "unauthenticated", "bad_signature"));
}

#[tokio::test]
async fn tokens_of_strangers_make_nobody_ask_the_issuer_more_often_than_is_allowed() {
    let signer = Signer::p256("one");
    let issuer = Origin::start(published(&[&signer])).await;
    let stage = Stage::and(Answer::ok(), &staff(&from(&issuer, "refetch = '1h'"), "")).await;
    for number in 0..20 {
        let token = Signer::p256(&format!("stranger-{number}")).token(&claims(json!({})));
        assert_eq!(bearing(&stage.gateway, &token).await.status, 401);
    }
    assert_eq!(issuer.seen().len(), 1);
    assert_eq!(bearing(&stage.gateway, &signer.token(&claims(json!({})))).await.status, 200);
}

#[tokio::test]
async fn an_issuer_that_is_away_is_no_bad_token() {
    let signer = Signer::p256("one");
    let issuer = Origin::start(Answer::status(500)).await;
    let stage = Stage::and(Answer::ok(), &staff(&from(&issuer, ""), "")).await;
    let token = signer.token(&claims(json!({})));
    let reply = bearing(&stage.gateway, &token).await;
    assert_eq!(refused(&stage, &reply).await, told(503, "auth_unavailable", "issuer_away"));
    assert!(reply.headers.has("retry-after") && !reply.headers.has("www-authenticate"));
    // what no key could make good need not wait for one
    let reply = bearing(&stage.gateway, "nonsense").await;
    assert_eq!(refused(&stage, &reply).await, told(401, "unauthenticated", "malformed"));
    for broken in [Answer::status(200).data("{}"), Answer::status(200).zeros(1 << 20), Answer::reset()] {
        issuer.answer(broken);
        let reply = bearing(&stage.gateway, &token).await;
        assert_eq!(reply.reason().as_deref(), Some("auth_unavailable"));
    }
    issuer.answer(published(&[&signer]));
    let passed = async { while bearing(&stage.gateway, &token).await.status != 200 {} };
    within("the keys to be fetched in the background", passed).await;
    let metrics = stage.gateway.metrics().await;
    let count = |outcome| {
        let labels = [("tracegate_rule", "auth.staff"), ("outcome", outcome)];
        metrics.count("tracegate_jwks_fetches_total", &labels)
    };
    assert!(count("failed") >= 1 && count("fetched") == 1, "{}", metrics.text);
}

#[tokio::test]
async fn old_keys_serve_while_their_issuer_is_away_and_no_longer_than_stated() {
    for (stale, serves) in [("1h", true), ("off", false)] {
        let signer = Signer::p256("one");
        let issuer = Origin::start(published(&[&signer]).header("cache-control", "max-age=1")).await;
        let rules = format!("refresh_min = '10ms', refresh_max = '10ms', stale = '{stale}', refetch = '1ms'");
        let stage = Stage::and(Answer::ok(), &staff(&from(&issuer, &rules), "")).await;
        let token = signer.token(&claims(json!({})));
        assert_eq!(bearing(&stage.gateway, &token).await.status, 200);
        issuer.answer(Answer::status(503));
        let labels = [("tracegate_rule", "auth.staff"), ("outcome", "failed")];
        stage
            .gateway
            .metrics_when("a failed fetch", |metrics| {
                metrics.count("tracegate_jwks_fetches_total", &labels) > 0
            })
            .await;
        if serves {
            assert_eq!(bearing(&stage.gateway, &token).await.status, 200);
            // a key that nobody knows may be a new one
            let reply = bearing(&stage.gateway, &Signer::p256("new").token(&claims(json!({})))).await;
            assert_eq!(refused(&stage, &reply).await, told(503, "auth_unavailable", "issuer_away"));
        } else {
            let refused = async { while bearing(&stage.gateway, &token).await.status != 503 {} };
            within("the keys to be too old", refused).await;
        }
    }
}

#[tokio::test]
async fn requests_wait_for_a_slow_issuer_together_and_not_for_longer_than_they_have() {
    let (signer, gate) = (Signer::p256("one"), Gate::new());
    let set = Answer::status(200).gate(&gate).data(jwks(&[&signer]));
    let issuer = Origin::start(set).await;
    let more = "[routes.late]\nmatch = { path = '/late' }\nupstream = 'shop'\nauth = 'staff'\n\
                timeouts = { request = '50ms' }\n";
    let stage = Stage::and(Answer::ok(), &(staff(&from(&issuer, ""), "") + more)).await;
    let token = format!("Bearer {}", signer.token(&claims(json!({}))));
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = stage.client().await;
        let asked = request(Method::GET, "/orders", &[("authorization", &token)], body::empty());
        clients.push(tokio::spawn(async move { client.ask(asked).await.status }));
    }
    issuer.seen_when("the fetch", |seen| !seen.is_empty()).await;
    let late = request(Method::GET, "/late", &[("authorization", &token)], body::empty());
    let reply = stage.gateway.ask(late).await;
    assert_eq!(reply.reason().as_deref(), Some("auth_unavailable"), "its own time is over");
    gate.open();
    for client in clients {
        assert_eq!(within("an answer", client).await.unwrap(), 200);
    }
    assert_eq!(issuer.seen().len(), 1);
}

#[tokio::test]
async fn keys_are_fetched_over_tls_from_whom_the_file_trusts() {
    let (authority, directory, signer) =
        (Authority::new(), tempfile::tempdir().unwrap(), Signer::p256("one"));
    authority.write(directory.path());
    let issuer = Origin::start_tls(&authority.identity(&["localhost"]), published(&[&signer])).await;
    let origin = Origin::start(Answer::ok()).await;
    let base = all_to(origin.address);
    for (tls, status) in [("tls = { ca_file = 'ca.pem' }", 200), ("timeout = '5s'", 503)] {
        let keys = format!("jwks_url = 'https://localhost:{}/'\njwks = {{ {tls} }}", issuer.address.port());
        let gateway = Gateway::start_in(directory.path(), &[&base, &staff(&keys, "")]).await;
        assert_eq!(bearing(&gateway, &signer.token(&claims(json!({})))).await.status, status, "{tls}");
    }
}

#[tokio::test]
async fn any_of_several_rules_lets_a_request_pass_and_the_refusal_that_tells_most_is_told() {
    let signer = Signer::p256("one");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("jwks.json"), jwks(&[&signer])).unwrap();
    let origin = Origin::start(Answer::ok()).await;
    let text = staff("jwks_file = 'jwks.json'", "claims = { tenant = { is = 'acme' } }")
        + &format!("[auth.partners.api_keys.keys]\nacme = {{ sha256 = '{}' }}\n", hash("key"));
    let base = all_to(origin.address);
    let both = "[routes.all]\nauth = ['staff', 'partners']\n";
    let gateway = Gateway::start_in(directory.path(), &[&base, &text, both]).await;
    let good = format!("Bearer {}", signer.token(&claims(json!({}))));
    let poor = format!("Bearer {}", signer.token(&claims(json!({ "tenant": "other" }))));
    for (fields, status, rule) in [
        (&[("authorization", &*good)][..], 200, ""),
        (&[("x-api-key", "key")], 200, ""),
        (&[("authorization", &poor), ("x-api-key", "key")], 200, ""),
        (&[("authorization", &good), ("x-api-key", "wrong")], 200, ""),
        (&[], 401, "auth.staff"),
        (&[("x-api-key", "wrong")], 401, "auth.partners"),
        (&[("authorization", "Bearer nonsense"), ("x-api-key", "wrong")], 401, "auth.partners"),
        (&[("authorization", &poor), ("x-api-key", "wrong")], 403, "auth.staff"),
    ] {
        let reply = ask(&gateway, fields).await;
        assert_eq!(reply.status, status, "{fields:?}");
        if status != 200 {
            assert_eq!(reply.json()["rule"], rule, "{fields:?}");
        }
        if status == 401 {
            assert_eq!(reply.headers.all("www-authenticate").len(), 2, "one of each rule");
        }
    }
    for seen in origin.seen() {
        assert!(!seen.headers.has("x-api-key"), "a key stays here, whoever let the request pass");
    }
}

#[tokio::test]
async fn no_client_tells_the_upstream_who_it_is_on_whatever_route() {
    let origin = Origin::start(Answer::ok()).await;
    let text = format!(
        "{}{}[auth.a]\nidentity_headers = {{ 'x-user' = 'sub' }}\nstrip_headers = ['X-Roles']\n\
         [auth.a.api_keys.keys]\nacme = {{ sha256 = '{}' }}\n\
         [routes.closed]\nmatch = {{ path = '/closed' }}\nupstream = 'shop'\nauth = 'a'\n",
        upstream("shop", origin.address),
        route("open", "/open", "shop"),
        hash("key")
    );
    let gateway = Gateway::start(&[&text]).await;
    let spoofed = [("x-user", "root"), ("X-Roles", "admin"), ("x-roles", "more")];
    let open = request(Method::GET, "/open", &spoofed, body::empty());
    assert_eq!(gateway.ask(open).await.status, 200);
    // hop-by-hop fields are taken away: that must not be the way to become nobody
    let nameless = [("connection", "keep-alive, X-User, x-other"), ("x-api-key", "key"), ("x-other", "1")];
    let closed = request(Method::GET, "/closed", &[&spoofed[..], &nameless].concat(), body::empty());
    assert_eq!(gateway.ask(closed).await.status, 200);
    let said: Vec<_> = origin
        .seen()
        .iter()
        .map(|seen| ["x-user", "x-roles", "x-other"].map(|name| seen.header(name).map(str::to_owned)))
        .collect();
    assert_eq!(said, [[None, None, None], [Some("acme".to_owned()), None, None]]);
}

#[tokio::test]
async fn no_client_says_under_an_underscored_name_what_the_gateway_says() {
    let origin = Origin::start(Answer::ok()).await;
    let text = format!(
        "{}{}[auth.a]\nidentity_headers = {{ 'x-user' = 'sub', 'x_team' = 'sub' }}\n\
         [auth.a.api_keys.keys]\nacme = {{ sha256 = '{}' }}\n\
         [routes.closed]\nmatch = {{ path = '/closed' }}\nupstream = 'shop'\nauth = 'a'\n\
         [routes.closed.headers.request]\nset = {{ 'x-inside' = 'yes' }}\nremove = ['x-debug-mode']\n",
        upstream("shop", origin.address),
        route("open", "/open", "shop"),
        hash("key")
    );
    let gateway = Gateway::start(&[&text]).await;
    // a WSGI application has one HTTP_X_USER of `X-User` and `X_User`
    let counterfeits = [
        ("x_user", "root"),
        ("x-team", "root"),
        ("x_forwarded_for", "10.0.0.1"),
        ("x-forwarded_proto", "https"),
        ("x_inside", "no"),
        ("x_debug-mode", "1"),
        ("x_own", "kept"),
    ];
    let known = [&counterfeits[..], &[("x-api-key", "key")]].concat();
    for (path, fields) in [("/open", &counterfeits[..]), ("/closed", &known)] {
        let asked = request(Method::GET, path, fields, body::empty());
        assert_eq!(gateway.ask(asked).await.status, 200, "{path}");
    }
    let [open, closed] = &origin.seen()[..] else { panic!("two requests") };
    for seen in [open, closed] {
        for name in ["x_user", "x-team", "x_forwarded_for", "x-forwarded_proto"] {
            assert!(!seen.headers.has(name), "{name} at {}", seen.target);
        }
        assert_eq!(seen.header("x_own"), Some("kept"));
    }
    let told = ["x-user", "x_team", "x-inside"].map(|name| closed.header(name));
    assert_eq!(told, [Some("acme"), Some("acme"), Some("yes")]);
    assert!(!closed.headers.has("x_inside") && !closed.headers.has("x_debug-mode"));
}

#[tokio::test]
async fn addresses_are_let_in_or_not_by_listener_and_route() {
    let origin = Origin::start(Answer::ok()).await;
    let text = format!(
        "{}[listeners.public]\ntrusted_proxies = ['127.0.0.0/8']\naddresses = {{ deny = ['10.6.0.0/16'] }}\n\
         [routes.all]\nmatch = {{ path = '/{{*path}}' }}\nupstream = 'shop'\n\
         addresses = {{ allow = ['10.0.0.0/8', 'fd00::1'], deny = ['10.7.7.7'] }}\n",
        upstream("shop", origin.address)
    );
    let stage = Stage::around(origin, &[&text]).await;
    for (address, rule) in [
        ("10.1.2.3", None),
        ("fd00::1", None),
        ("10.6.1.2", Some("listeners.public.addresses")),
        ("10.7.7.7", Some("routes.all.addresses")),
        ("192.0.2.1", Some("routes.all.addresses")),
        ("fd00::2", Some("routes.all.addresses")),
    ] {
        let reply = ask(&stage.gateway, &[("x-forwarded-for", address)]).await;
        match rule {
            None => assert_eq!(reply.status, 200, "{address}"),
            Some(rule) => {
                assert_eq!(reply.json()["rule"], rule, "{address}");
                assert_eq!(refused(&stage, &reply).await, told(403, "forbidden", "address"), "{address}");
            }
        }
    }
}

#[tokio::test]
async fn a_reload_keeps_the_keys_of_an_issuer_whose_settings_are_the_same() {
    let signer = Signer::p256("one");
    let issuer = Origin::start(published(&[&signer])).await;
    let origin = Origin::start(Answer::ok()).await;
    let base = all_to(origin.address);
    let text = staff(&from(&issuer, "refresh_min = '1h'"), "");
    let gateway = Gateway::start(&[&base, &text]).await;
    let token = signer.token(&claims(json!({})));
    assert_eq!(bearing(&gateway, &token).await.status, 200);
    issuer.answer(Answer::status(500));
    let more = "[auth.staff]\nidentity_headers = { 'x-user' = 'sub' }\n";
    for (number, more) in ["[routes.all]\noperation = 'order.read'\n", more].iter().enumerate() {
        gateway.reload(&[&base, &text, more]);
        assert_eq!(bearing(&gateway, &token).await.status, 200, "{number}");
    }
    assert_eq!(origin.seen().last().unwrap().header("x-user"), Some("alice"), "the rule has changed");
    let poor = gateway.reload(&[&base, &text, "[auth.staff.jwt]\naudience = 'other'\n"]);
    let reply = bearing(&gateway, &token).await;
    assert_eq!(reply.status, 401, "what was remembered by the old rule does not count: {poor:?}");
    assert_eq!(issuer.seen().len(), 1, "the keys are fetched once");
}

#[tokio::test]
async fn what_is_wrong_with_a_rule_is_told_before_it_serves() {
    let rule =
        |text: &str| format!("{text}[routes.all]\nmatch = {{ path = '/' }}\nupstream = 'shop'\nauth = 'a'\n");
    let jwt = "[auth.a.jwt]\nissuer = 'i'\n";
    for (text, expected) in [
        ("", "there is no rule \"a\""),
        ("[auth.a]\nstrip_headers = []\n", "does not say what it verifies"),
        ("[auth.a]\nmtls = {}\napi_keys = {}\n", "one kind of credentials"),
        ("[auth.off]\nmtls = {}\n", "\"off\" is no name"),
        ("[auth.a.api_keys]\n", "has no key"),
        ("[auth.a.api_keys.keys]\nx = { sha256 = 'secret' }\n", "is not a SHA-256"),
        ("[auth.a.api_keys.keys]\nx = {}\n", "auth.a.api_keys.keys.x.sha256"),
        (
            "[auth.a]\nidentity_headers = { 'x-api-key' = 'sub' }\n[auth.a.api_keys]\n",
            "holds its credentials",
        ),
        ("[auth.a]\nidentity_headers = { Host = 'sub' }\nmtls = {}\n", "has its own meaning"),
        (&format!("{jwt}jwks_url = 'https://a/'\n"), "audience"),
        (&format!("{jwt}audience = 'off'\n"), "jwks_file"),
        (&format!("{jwt}audience = []\njwks_file = '/none'\n"), "is empty"),
        (&format!("{jwt}audience = 'a'\njwks_file = '/none'\n"), "cannot be read"),
        (&format!("{jwt}audience = 'a'\njwks_url = 'http://login.test/'\n"), "is not https"),
        (&format!("{jwt}audience = 'a'\njwks_url = 'https://me:secret@a/'\n"), "names a user"),
        (&format!("{jwt}audience = 'a'\nalgorithms = ['HS256']\njwks_url = 'https://a/'\n"), "HS256"),
        (
            &format!("{jwt}audience = 'a'\njwks_url = 'https://a/'\nclaims = {{ x = {{}} }}\n"),
            "does not say what the claim",
        ),
    ] {
        let problems = Gateway::refusal(&["[upstreams.shop]\nendpoints = ['http://a']\n", &rule(text)]).await;
        assert!(problems.contains(expected) && !problems.contains("secret"), "{text}: {problems}");
    }
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_fetched() {
    let issuer = Origin::start(Answer::stall()).await;
    let origin = Origin::start(Answer::ok()).await;
    let text = staff(&from(&issuer, ""), "").replace("auth = 'staff'", "auth = 'off'");
    let gateway = Gateway::start(&[&all_to(origin.address), &text]).await;
    assert_eq!(ask(&gateway, &[]).await.status, 200);
    assert!(issuer.seen().is_empty());
}

#[tokio::test]
async fn a_client_certificate_is_let_in_by_its_role() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.write(directory.path());
    authority.identity(&["shop.test"]).write(directory.path());
    let origin = Origin::start(Answer::ok()).await;
    let text = "[listeners.public.tls]\ncertificate_file = 'server.pem'\nkey_file = 'server-key.pem'\n\
                client_ca_file = 'ca.pem'\nclient_auth = 'optional'\n\
                client_roles = { 'mes.test' = 'factory', 'web.test' = 'shop' }\n\
                [auth.machines]\nmtls = { roles = ['factory'] }\nidentity_headers = { 'x-role' = 'sub' }\n\
                [routes.all]\nauth = 'machines'\n";
    let (base, logstash) = (all_to(origin.address), Logstash::start());
    let gateway = Gateway::start_in(directory.path(), &[&base, text, &logstash.settings()]).await;
    let shown = |name: &str| {
        let name = SanType::DnsName(name.try_into().unwrap());
        authority.client_with(&["h2"], &authority.client_identity(vec![name], 2100))
    };
    for (config, status, reason, detail, role) in [
        (shown("mes.test"), 200, None, None, Some("factory")),
        (shown("web.test"), 403, Some("forbidden"), Some("wrong_role"), Some("shop")),
        (shown("nobody.test"), 401, Some("unauthenticated"), Some("missing_credentials"), None),
        (authority.client(&["h2"]), 401, Some("unauthenticated"), Some("missing_credentials"), None),
    ] {
        let reply = Client::tls(gateway.address(), "shop.test", config).await.get("/").await;
        let line = gateway.logged(&reply.trace_id()).await;
        let told = (line["reason"].as_str(), line["detail"].as_str());
        assert_eq!((reply.status, told), (status, (reason, detail)), "{line}");
        let passed = ["auth_rule", "auth_method", "client_role"].map(|key| line[key].as_str());
        let by = (status == 200).then_some("auth.machines");
        assert_eq!(passed, [by, by.map(|_| "mtls"), role], "{line}");
        if status != 200 {
            let record = logstash.of(&reply.trace_id()).await;
            assert_eq!(record["labels"]["role"].as_str(), role, "{record}");
        }
    }
    assert_eq!(origin.only().await.header("x-role"), Some("factory"));
}
