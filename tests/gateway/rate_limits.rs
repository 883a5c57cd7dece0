//! Rate limits: whose share is used up is refused, by name; the others are told what is left.

use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::json;

use crate::support::client::{get_admin, request};
use crate::support::gateway::{all_to, route, upstream};
use crate::support::link::Refusing;
use crate::support::redis::Manner;
use crate::support::tokens::{Signer, jwks};
use crate::support::{Answer, Gateway, Origin, Redis, Reply, Stage, body};

/// What is used up stays so for as long as a test runs.
const TWO: &str = "[rate_limits.few]\nrequests = 2\nper = '1h'\n";

const LIMITED: &str = "[routes.all]\nrate_limit = 'few'\n";

async fn limited(more: &str) -> Stage {
    Stage::and(Answer::ok(), &format!("{TWO}{more}\n{LIMITED}")).await
}

async fn with(gateway: &Gateway, fields: &[(&str, &str)]) -> Reply {
    gateway.ask(request(Method::GET, "/", fields, body::empty())).await
}

async fn statuses(gateway: &Gateway, fields: &[(&str, &str)], count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(with(gateway, fields).await.status);
    }
    statuses
}

fn decided(outcome: &str) -> [(&'static str, &str); 2] {
    [("tracegate_rule", "rate_limits.few"), ("outcome", outcome)]
}

#[tokio::test]
async fn a_share_that_is_used_up_is_refused_with_the_rule_and_when_to_come_again() {
    let stage = limited("").await;
    for left in ["1", "0"] {
        let reply = stage.get("/").await;
        assert_eq!((reply.status, &*reply.body), (200, &b"hello"[..]));
        assert_eq!(reply.header("ratelimit-policy"), Some("\"few\";q=2;w=3600"));
        let left_now = reply.header("ratelimit").expect("what is left");
        assert!(left_now.starts_with(&format!("\"few\";r={left};t=")), "{left_now}");
    }
    let reply = stage.get("/").await;
    assert_eq!((reply.status, reply.reason().as_deref()), (429, Some("rate_limited")));
    assert_eq!(reply.json()["rule"], "rate_limits.few");
    let again: u64 = reply.header("retry-after").expect("when to come again").parse().unwrap();
    assert!((1700..=1800).contains(&again), "two an hour is one in 1800 s: {again}");
    assert_eq!(reply.headers.all("retry-after").len(), 1);
    assert!(reply.header("ratelimit").is_some_and(|state| state.starts_with("\"few\";r=0;t=36")));
    let told = stage.told(&reply.trace_id(), 0).await;
    assert_eq!(told.server.attribute("tracegate.rule"), Some("rate_limits.few"));
    assert_eq!((&told.log["rule"], &told.log["reason"]), (&"rate_limits.few".into(), &"rate_limited".into()));
    assert_eq!(stage.origin.seen().len(), 2, "what is refused is not forwarded");
    let metrics = stage.gateway.metrics().await;
    let decisions = |outcome| metrics.count("tracegate_rate_limit_decisions_total", &decided(outcome));
    assert_eq!((decisions("allowed"), decisions("refused")), (2, 1));
    assert_eq!(metrics.count("tracegate_rate_limit_keys", &[]), 1);
}

#[tokio::test]
async fn a_refused_client_keeps_its_connection_and_a_failing_upstream_tells_its_share_too() {
    let stage = limited("").await;
    let mut client = stage.client().await;
    let statuses =
        [client.get("/").await, client.get("/").await, client.get("/").await, client.get("/").await];
    assert_eq!(statuses.map(|reply| reply.status), [200, 200, 429, 429]);

    let refusing = Refusing::start();
    let gateway = Gateway::start(&[
        &upstream("shop", refusing.address),
        &route("all", "/{*path}", "shop"),
        TWO,
        LIMITED,
    ])
    .await;
    let reply = gateway.get("/").await;
    assert_eq!((reply.status, reply.headers.all("ratelimit").len()), (502, 1));
}

#[tokio::test]
async fn every_value_of_a_header_field_has_its_own_share_and_those_without_it_share_one() {
    let stage = limited("key = { header = 'x-api-key' }").await;
    for key in ["alice", "bob"] {
        assert_eq!(statuses(&stage.gateway, &[("x-api-key", key)], 3).await, [200, 200, 429], "{key}");
    }
    assert_eq!(statuses(&stage.gateway, &[], 3).await, [200, 200, 429]);
    let metrics = stage.gateway.metrics().await;
    assert!(!metrics.text.contains("alice"), "no client's text in the metrics");
}

#[tokio::test]
async fn every_identity_and_every_value_of_a_claim_that_was_verified_has_its_own_share() {
    let (signer, directory) = (Signer::p256("one"), tempfile::tempdir().unwrap());
    std::fs::write(directory.path().join("jwks.json"), jwks(&[&signer])).unwrap();
    let origin = Origin::start(Answer::ok()).await;
    let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
    let rule = "[auth.staff.jwt]\nissuer = 'https://login.test'\naudience = 'shop'\njwks_file = 'jwks.json'\n\
                [routes.all]\nauth = 'staff'\n";
    for (key, asked) in [
        (
            "'identity'",
            [("alice", "acme", 200), ("alice", "acme", 200), ("alice", "other", 429), ("bob", "acme", 200)],
        ),
        (
            "{ claim = 'tenant' }",
            [("alice", "acme", 200), ("bob", "acme", 200), ("carol", "acme", 429), ("alice", "other", 200)],
        ),
    ] {
        let (base, limit) = (all_to(origin.address), format!("{TWO}key = {key}\n"));
        let gateway = Gateway::start_in(directory.path(), &[&base, rule, &limit, LIMITED]).await;
        for (who, tenant, status) in asked {
            let claims = json!({ "iss": "https://login.test", "aud": "shop", "sub": who, "tenant": tenant, "exp": until });
            let token = format!("Bearer {}", signer.token(&claims));
            let reply = with(&gateway, &[("authorization", &token)]).await;
            assert_eq!(reply.status, status, "{key}: {who} of {tenant}");
        }
        // nobody spends another one's share by saying that it is him
        assert_eq!(statuses(&gateway, &[("authorization", "Bearer bob")], 3).await, [401, 401, 401]);
        let page = gateway.metrics().await.text;
        assert!(!page.contains("alice") && !page.contains("acme"), "no client's text in the metrics");
    }
}

#[tokio::test]
async fn a_client_is_who_a_trusted_proxy_says_and_an_ipv6_network_is_one() {
    let stage = limited("[listeners.public]\ntrusted_proxies = ['127.0.0.0/8']").await;
    for (address, expected) in [
        ("203.0.113.1", [200, 200, 429]),
        ("203.0.113.2", [200, 200, 429]),
        ("2001:db8:1:2::1", [200, 200, 429]),
        ("2001:db8:1:2:ffff::9", [429, 429, 429]),
        ("2001:db8:1:3::1", [200, 200, 429]),
        ("::ffff:203.0.113.1", [429, 429, 429]),
    ] {
        assert_eq!(statuses(&stage.gateway, &[("x-forwarded-for", address)], 3).await, expected, "{address}");
    }
}

#[tokio::test]
async fn how_much_of_an_address_counts_can_be_set() {
    let text = "ipv4_prefix = 24\n[listeners.public]\ntrusted_proxies = ['127.0.0.0/8']";
    let stage = limited(text).await;
    for (address, expected) in
        [("203.0.113.1", 200), ("203.0.113.2", 200), ("203.0.113.3", 429), ("203.0.112.1", 200)]
    {
        assert_eq!(with(&stage.gateway, &[("x-forwarded-for", address)]).await.status, expected, "{address}");
    }
}

#[tokio::test]
async fn a_limit_of_a_route_is_its_own_and_a_limit_of_clients_is_one_for_all_its_routes() {
    for (key, other) in [("route", 200), ("address", 429)] {
        let origin = Origin::start(Answer::ok()).await;
        let routes = format!(
            "{TWO}key = '{key}'\n[routes]\na = {{ match = {{ path = '/a' }}, upstream = 'shop', rate_limit = 'few' }}\n\
             b = {{ match = {{ path = '/b' }}, upstream = 'shop', rate_limit = 'few' }}\n\
             free = {{ match = {{ path = '/free' }}, upstream = 'shop' }}\n"
        );
        let gateway = Gateway::start(&[&upstream("shop", origin.address), &routes]).await;
        for (path, expected) in [("/a", 200), ("/a", 200), ("/a", 429), ("/b", other), ("/free", 200)] {
            let reply = gateway.get(path).await;
            assert_eq!(reply.status, expected, "{key} {path}");
            assert_eq!(reply.headers.has("ratelimit"), path != "/free");
        }
    }
}

#[tokio::test]
async fn several_limits_stand_on_the_answer_and_the_first_that_is_used_up_refuses() {
    let text =
        "[rate_limits.total]\nrequests = 1000\nkey = 'route'\n[routes.all]\nrate_limit = ['few', 'total']\n";
    let stage = Stage::and(Answer::ok(), &format!("{TWO}{text}")).await;
    let reply = stage.get("/").await;
    assert_eq!(reply.header("ratelimit-policy"), Some("\"few\";q=2;w=3600, \"total\";q=1000;w=1"));
    let left = reply.header("ratelimit").unwrap();
    assert!(left.starts_with("\"few\";r=1;t=") && left.contains(", \"total\";r=999;t=1"), "{left}");
    stage.get("/").await;
    assert_eq!(stage.get("/").await.json()["rule"], "rate_limits.few");
}

#[tokio::test]
async fn a_limit_on_trial_counts_and_refuses_nobody() {
    let stage = limited("dry_run = true").await;
    let mut replies = Vec::new();
    for _ in 0..5 {
        replies.push(stage.get("/").await);
    }
    assert!(replies.iter().all(|reply| reply.status == 200 && !reply.headers.has("ratelimit")));
    let metrics = stage.gateway.metrics().await;
    let decisions = |outcome| metrics.count("tracegate_rate_limit_decisions_total", &decided(outcome));
    assert_eq!((decisions("allowed"), decisions("would_refuse"), decisions("refused")), (2, 3, 0));
}

#[tokio::test]
async fn the_fields_can_be_left_out() {
    let stage = limited("headers = false").await;
    let replies = [stage.get("/").await, stage.get("/").await, stage.get("/").await];
    assert!(replies.iter().all(|reply| !reply.headers.has("ratelimit")));
    assert_eq!((replies[2].status, replies[2].headers.has("retry-after")), (429, true));
}

#[tokio::test]
async fn a_flood_of_clients_takes_no_more_memory_than_was_set_and_is_counted() {
    let stage = limited("key = { header = 'x-client' }\nmax_keys = 64").await;
    let mut client = stage.client().await;
    for number in 0..300 {
        let fields = [("x-client", &*format!("client-{number}"))];
        client.ask(request(Method::GET, "/", &fields, body::empty())).await;
    }
    let metrics = stage.gateway.metrics().await;
    let keys = metrics.count("tracegate_rate_limit_keys", &[]);
    assert!(keys <= 64, "{keys}");
    assert_eq!(metrics.count("tracegate_rate_limit_evictions_total", &[]), 300 - keys);
}

#[tokio::test]
async fn one_address_that_asks_for_many_clients_is_warned_of() {
    let stage = Stage::and(Answer::ok(), &format!("[rate_limits.few]\nrequests = 100000\n{LIMITED}")).await;
    let warnings = async || {
        let status = get_admin(stage.gateway.admin_address(), "/status").await.json();
        assert!(status["rate_limits"]["few"].is_object(), "{status}");
        status["warnings"].as_array().expect("a list").len()
    };
    let mut client = stage.client().await;
    for number in 0..100 {
        assert_eq!(warnings().await, 0, "after {number}");
        let address = format!("203.0.113.{}", number % 7);
        client.ask(request(Method::GET, "/", &[("x-forwarded-for", &address)], body::empty())).await;
    }
    assert_eq!(warnings().await, 1);
    let status = get_admin(stage.gateway.admin_address(), "/status").await.json();
    assert_eq!(status["warnings"][0]["rule"], "rate_limits.few");
}

#[tokio::test]
async fn what_is_wrong_with_a_limit_is_said_with_what_to_write_instead() {
    for (text, what) in [
        ("[rate_limits.few]\nper = '1s'", "write requests = 100"),
        ("[rate_limits.few]\nrequests = 1\nkey = 'cookie'", "write \"address\", \"route\""),
        ("[rate_limits.few]\nrequests = 1\nkey = { header = 'a b' }", "is not the name of a header field"),
        ("[rate_limits.few]\nrequests = 1\nipv4_prefix = 33", "write 1 to 32"),
        ("[rate_limits.few]\nrequests = 2000000\nper = '1ms'", "is more than one request each nanosecond"),
        ("[rate_limits.few]\nrequests = 1\nredis = 'main'", "add the table [redis.main]"),
        ("[rate_limits.few]\nrequests = 1\non_failure = 'open'", "is never used"),
        ("[rate_limits.few]\nrequests = 1\nburts = 3", "write burst"),
        ("[rate_limits.a]\nrequests = 1", "there is no rate_limit \"few\""),
        ("[rate_limits.few]\nrequests = 1\n[redis.main]\naddress = 'tcp://a:1'", "redis://"),
    ] {
        let base = all_to("127.0.0.1:9".parse().unwrap());
        let refusal = Gateway::refusal(&[&base, LIMITED, text]).await;
        assert!(refusal.contains(what), "{text}: {refusal}");
    }
}

async fn sharing(redis: &Redis, more: &str) -> Stage {
    let text = format!("redis = 'main'\n{more}\n{}", redis.toml());
    limited(&text).await
}

#[tokio::test]
async fn several_gateways_share_one_budget_in_redis() {
    let redis = Redis::start().await;
    let stages = [sharing(&redis, "").await, sharing(&redis, "").await];
    let mut statuses = Vec::new();
    for stage in [&stages[0], &stages[1], &stages[0], &stages[1]] {
        statuses.push(stage.get("/").await);
    }
    assert_eq!(statuses.iter().map(|reply| reply.status).collect::<Vec<_>>(), [200, 200, 429, 429]);
    assert!(statuses[1].header("ratelimit").is_some_and(|state| state.starts_with("\"few\";r=0;t=")));
    assert!(statuses[3].headers.has("retry-after"));
    let asked = redis.asked();
    let key = asked.iter().find(|command| command[0] == "EVALSHA").map(|command| command[3].clone());
    assert_eq!(key.as_deref(), Some("tracegate:rate_limits.few:address:127.0.0.1"));
}

#[tokio::test]
async fn what_a_client_sends_is_no_text_in_redis() {
    let redis = Redis::start().await;
    let stage = sharing(&redis, "key = { header = 'authorization' }").await;
    assert_eq!(statuses(&stage.gateway, &[("authorization", "Bearer opensesame")], 3).await, [200, 200, 429]);
    assert_eq!(statuses(&stage.gateway, &[("authorization", "Bearer other")], 1).await, [200]);
    assert!(!format!("{:?}", redis.asked()).contains("opensesame"));
}

#[tokio::test]
async fn while_redis_is_away_the_operators_choice_decides_and_is_counted() {
    for (choice, expected, outcome) in [
        ("open", [200, 200, 200], "failed_open"),
        ("closed", [503, 503, 503], "failed_closed"),
        ("local", [200, 200, 429], "failed_local"),
    ] {
        for manner in [Some(Manner::Stalls), Some(Manner::Garbage), None] {
            let redis = Redis::start().await;
            let stage = sharing(&redis, &format!("on_failure = '{choice}'")).await;
            match manner {
                Some(manner) => redis.set(manner),
                None => drop(redis),
            }
            let mut replies = Vec::new();
            for _ in 0..3 {
                replies.push(stage.get("/").await);
            }
            let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
            assert_eq!(statuses, expected, "{choice} {manner:?}");
            if choice == "closed" {
                let answer = replies[0].json();
                assert_eq!(
                    (&answer["reason"], &answer["detail"]),
                    (&"overloaded".into(), &"store_away".into())
                );
                assert_eq!(answer["rule"], "rate_limits.few");
            }
            let metrics = stage.gateway.metrics().await;
            assert_eq!(metrics.count("tracegate_rate_limit_decisions_total", &decided(outcome)), 3);
        }
    }
}

#[tokio::test]
async fn redis_is_asked_again_after_it_was_away() {
    let redis = Redis::start().await;
    let stage = sharing(&redis, "on_failure = 'closed'").await;
    redis.set(Manner::Stalls);
    assert_eq!(stage.get("/").await.status, 503);
    redis.set(Manner::Answers);
    let back = async {
        while stage.get("/").await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    crate::support::within("redis to be asked again", back).await;
}
