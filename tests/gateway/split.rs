//! Traffic split by weight between upstreams, and cookies that bring a client back to its endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use http::Method;
use serde_json::Value;
use tempfile::tempdir;

use crate::support::client::request;
use crate::support::gateway::{route, upstream};
use crate::support::{
    Answer, Authority, Client, Collector, Gateway, Logstash, Origin, Reply, Seen, TcpLink, body, stage,
};

/// What `/fail` makes of the status.
async fn named(name: &'static str) -> Origin {
    Origin::start(move |seen: &Seen| {
        let status = if seen.target == "/fail" { 503 } else { 200 };
        Answer::status(status).data(name)
    })
    .await
}

/// A route for every path to `shop` and `canary`, each of one endpoint, by these weights.
fn split(shop: &Origin, canary: &Origin, weights: &str) -> String {
    let upstreams = [upstream("shop", shop.address), upstream("canary", canary.address)].concat();
    format!("{upstreams}[routes.all]\nmatch = {{ path = '/{{*path}}' }}\nupstream = {weights}\n")
}

/// An upstream `shop` of these endpoints, in turn, behind a sticky route for every path.
fn sticky(endpoints: &[SocketAddr], text: &str) -> String {
    let listed: Vec<_> = endpoints.iter().map(|endpoint| format!("'http://{endpoint}'")).collect();
    let shop = format!("[upstreams.shop]\nbalance = 'round_robin'\nendpoints = [{}]\n", listed.join(", "));
    format!("{shop}{}sticky = {{ {text} }}\n", route("all", "/{*path}", "shop"))
}

/// Who answered so many requests, and how often.
async fn spread(gateway: &Gateway, requests: usize) -> BTreeMap<String, usize> {
    let (mut client, mut answered) = (gateway.client().await, BTreeMap::new());
    for _ in 0..requests {
        let reply = client.get("/").await;
        assert_eq!(reply.status, 200);
        *answered.entry(reply.text()).or_default() += 1;
    }
    answered
}

/// `GET` with this cookie, over a connection of its own.
async fn with(gateway: &Gateway, cookie: &str) -> Reply {
    ask(gateway.client().await, "/", &[("cookie", cookie)]).await
}

async fn ask(mut client: Client, path: &str, fields: &[(&str, &str)]) -> Reply {
    client.ask(request(Method::GET, path, fields, body::empty())).await
}

/// The pair that the client sends back.
fn pair(reply: &Reply) -> String {
    let set = reply.header("set-cookie").expect("a cookie");
    set.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn each_upstream_gets_its_share_by_weight() {
    let (a, b) = (named("a").await, named("b").await);
    let gateway = Gateway::start(&[&split(&a, &b, "{ shop = 90, canary = 10 }")]).await;
    // 100 of 1000 with a standard deviation of 9.5: six of them either way
    let answered = spread(&gateway, 1000).await;
    assert!((43..=157).contains(&answered["b"]), "{answered:?}");
    assert_eq!(answered["a"] + answered["b"], 1000);
}

#[tokio::test]
async fn an_upstream_of_weight_0_gets_nothing_until_a_reload_gives_it_a_share() {
    let (a, b) = (named("a").await, named("b").await);
    let gateway = Gateway::start(&[&split(&a, &b, "{ shop = 1, canary = 0 }")]).await;
    assert_eq!(spread(&gateway, 100).await, [("a".to_owned(), 100)].into());
    let report = gateway.reload(&[&split(&a, &b, "{ shop = 1, canary = 1 }")]);
    let changed = serde_json::to_value(report).unwrap()["difference"]["changed"]["first"].clone();
    assert_eq!(changed, serde_json::json!(["routes.all.upstream.canary"]));
    let answered = spread(&gateway, 200).await;
    assert!(answered["a"] > 50 && answered["b"] > 50, "{answered:?}");
    // and to one alone again
    gateway.reload(&[&split(&a, &b, "'canary'")]);
    assert_eq!(spread(&gateway, 20).await, [("b".to_owned(), 20)].into());
}

#[tokio::test]
async fn every_record_names_the_upstream_that_was_chosen() {
    let (a, b) = (named("shop").await, named("canary").await);
    let (collector, logstash) = (Collector::start().await, Logstash::start());
    let text = split(&a, &b, "{ shop = 1, canary = 1 }");
    let receivers = collector.grpc() + &logstash.settings();
    let gateway = Gateway::start(&[&text, &receivers]).await;
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..40 {
        let reply = gateway.get("/fail").await;
        let chosen = reply.text();
        let told = stage::told(gateway.access_log(), &collector, &reply.trace_id(), 1).await;
        assert_eq!(told.log["upstream"], chosen);
        for span in [&told.server, &told.attempts[0]] {
            assert_eq!(span.attribute("tracegate.upstream"), Some(&*chosen), "{span:?}");
        }
        let record = logstash.of(&reply.trace_id()).await;
        assert_eq!(record["service"]["target"]["name"], Value::from(&*chosen), "{record}");
        *counted.entry(chosen).or_default() += 1;
    }
    let metrics = gateway.metrics().await;
    assert_eq!(counted.len(), 2, "{counted:?}");
    for (upstream, count) in counted {
        for family in
            ["http_server_request_duration_seconds_count", "http_client_request_duration_seconds_count"]
        {
            assert_eq!(
                metrics.count(family, &[("tracegate_upstream", &upstream)]),
                count,
                "{}",
                metrics.text
            );
        }
    }
    assert_eq!(metrics.count("tracegate_requests_total", &[("tracegate_route", "all")]), 40);
}

#[tokio::test]
async fn what_is_wrong_with_a_split_or_a_cookie_is_told_with_what_to_write() {
    let (a, b, directory) = (named("a").await, named("b").await, tempdir().unwrap());
    let short = directory.path().join("short");
    std::fs::write(&short, "fifteen letters").unwrap();
    for (route, what, help) in [
        (
            "upstream = { shop = 90, canari = 10 }",
            "routes.all.upstream.canari: there is no upstream",
            "write \"canary\"",
        ),
        ("upstream = { shop = 0, canary = 0 }", "routes.all.upstream: sends nothing anywhere", "above 0"),
        ("upstream = {}", "routes.all.upstream: sends nothing anywhere", "above 0"),
        (
            "upstream = { shop = -1, canary = 1 }",
            "routes.all.upstream.shop: -1 is out of bounds",
            "from 0 to 1000000",
        ),
        (
            "upstream = { shop = 0.5, canary = 1 }",
            "routes.all.upstream.shop: is the number 0.5",
            "a whole number",
        ),
        ("upstream = 3", "routes.all.upstream: is the number 3", "{ shop = 90, shop_canary = 10 }"),
        (
            "upstream = 'shop'\nsticky = { cookie = 'a b' }",
            "routes.all.sticky.cookie: \"a b\" is not",
            "tg_sticky",
        ),
        (
            "upstream = 'shop'\nsticky = { max_age = '1500ms' }",
            "routes.all.sticky.max_age: is not in whole",
            "1h",
        ),
        ("upstream = 'shop'\nsticky = { age = '1h' }", "routes.all.sticky.age: is not a key", "max_age"),
        (
            "upstream = 'shop'\nsticky = { secret = { file = 'SHORT' } }",
            "routes.all.sticky.secret: is so short",
            "16",
        ),
    ] {
        let upstreams = [upstream("shop", a.address), upstream("canary", b.address)].concat();
        let text = format!("{upstreams}[routes.all]\nmatch = {{ path = '/' }}\n{route}\n");
        let refusal = Gateway::refusal(&[&text.replace("SHORT", &short.display().to_string())]).await;
        assert!(refusal.contains(what) && refusal.contains(help), "{route}: {refusal}");
        assert!(!refusal.contains("fifteen"), "{refusal}");
    }
}

#[tokio::test]
async fn a_cookie_brings_the_client_back_over_any_connection() {
    let origins = [named("a").await, named("b").await, named("c").await];
    let addresses = origins.each_ref().map(|origin| origin.address);
    let gateway = Gateway::start(&[&sticky(&addresses, "max_age = '1h'")]).await;
    let mut values = BTreeSet::new();
    for _ in 0..3 {
        let first = gateway.get("/").await;
        let cookie = pair(&first);
        let set = first.header("set-cookie").unwrap();
        let token = cookie.strip_prefix("tg_sticky=").expect("the default name");
        assert_eq!(set, format!("{cookie}; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600"));
        assert_eq!(token.len(), 22, "{token}");
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
        values.insert(cookie.clone());
        for _ in 0..5 {
            let again = with(&gateway, &cookie).await;
            assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
        }
        let http2 =
            ask(Client::http2(gateway.address()).await, "/", &[("cookie", "a=1"), ("cookie", &cookie)]).await;
        assert_eq!((http2.text(), http2.header("set-cookie")), (first.text(), None));
    }
    assert_eq!(values.len(), 3, "one for each endpoint, whoever the client is: {values:?}");
    // a reload that changes something else leaves them as they are
    let cookie = values.first().unwrap();
    let before = with(&gateway, cookie).await.text();
    gateway.reload(&[&sticky(&addresses, "max_age = '2h'"), "[upstreams.shop]\nconnect_timeout = '9s'\n"]);
    for _ in 0..5 {
        let again = with(&gateway, cookie).await;
        assert_eq!((again.text(), again.header("set-cookie")), (before.clone(), None));
    }
}

#[tokio::test]
async fn a_client_whose_endpoint_is_not_usable_goes_to_another_and_stays_there() {
    let (a, b, c) = (named("a").await, named("b").await, named("c").await);
    let mut link = TcpLink::to(a.address);
    let outliers = "[upstreams.shop.outliers]\nconsecutive = 1\nejection = '1h'\nmax_ejection = '1h'\n";
    let text = sticky(&[link.address, b.address], "");
    let gateway = Gateway::start(&[&text, outliers]).await;
    let mut on_a = gateway.get("/").await;
    while on_a.text() != "a" {
        on_a = gateway.get("/").await;
    }
    assert!(!on_a.header("set-cookie").unwrap().contains("Max-Age"), "it ends with the session");
    let cookie = pair(&on_a);
    link.refuse().await;
    let word = async |gateway: &Gateway, reply: &Reply| {
        let logged = gateway.logged(&reply.trace_id()).await;
        logged["sticky"].as_str().expect("what became of the cookie").to_owned()
    };
    assert_eq!(word(&gateway, &on_a).await, "new");
    // the first one is sent again: the cookie follows whoever answered
    for why in ["moved_retried", "moved_unusable", "moved_unusable"] {
        let moved = with(&gateway, &cookie).await;
        assert_eq!((moved.status, moved.text().as_str()), (200, "b"));
        assert_eq!(word(&gateway, &moved).await, why);
        let cookie = pair(&moved);
        let stays = with(&gateway, &cookie).await;
        assert_eq!((stays.text().as_str(), stays.header("set-cookie")), ("b", None));
        assert_eq!(word(&gateway, &stays).await, "kept");
    }
    gateway.states("shop", &["ejected", "usable"]).await;
    // taken out by an operator
    link.listen_again();
    let gateway = Gateway::start(&[&text]).await;
    let mut on_b = gateway.get("/").await;
    while on_b.text() != "b" {
        on_b = gateway.get("/").await;
    }
    assert!(gateway.set_in_use("shop", b.address, false));
    let moved = with(&gateway, &pair(&on_b)).await;
    assert_eq!((moved.text().as_str(), pair(&moved) != pair(&on_b)), ("a", true));
    assert_eq!(word(&gateway, &moved).await, "moved_unusable");
    assert!(gateway.set_in_use("shop", b.address, true));
    let back = with(&gateway, &pair(&on_b)).await;
    assert_eq!((back.text().as_str(), back.header("set-cookie")), ("b", None));
    // and gone
    gateway.reload(&[&sticky(&[c.address], "")]);
    let moved = with(&gateway, &pair(&on_b)).await;
    assert_eq!((moved.text().as_str(), pair(&moved) != pair(&on_b)), ("c", true));
    assert_eq!(word(&gateway, &moved).await, "moved_unknown");
}

#[tokio::test]
async fn a_client_stays_with_its_upstream_of_a_split_until_that_has_no_share() {
    let (a, b) = (named("a").await, named("b").await);
    let cookie = "sticky = { cookie = 'side' }\n";
    let text = |weights: &str| split(&a, &b, weights) + cookie;
    let gateway = Gateway::start(&[&text("{ shop = 1, canary = 1 }")]).await;
    let mut on_b = gateway.get("/").await;
    while on_b.text() != "b" {
        on_b = gateway.get("/").await;
    }
    gateway.reload(&[&text("{ shop = 1000000, canary = 1 }")]);
    for _ in 0..20 {
        let again = with(&gateway, &pair(&on_b)).await;
        assert_eq!((again.text().as_str(), again.header("set-cookie")), ("b", None));
    }
    gateway.reload(&[&text("{ shop = 1, canary = 0 }")]);
    let moved = with(&gateway, &pair(&on_b)).await;
    assert_eq!((moved.text().as_str(), pair(&moved).starts_with("side=")), ("a", true));
}

#[tokio::test]
async fn the_cookie_stays_between_client_and_gateway() {
    let (origin, collector) = (named("a").await, Collector::start().await);
    let text = sticky(&[origin.address], "");
    let gateway = Gateway::start(&[&text, &collector.grpc()]).await;
    let cookie = pair(&gateway.get("/").await);
    let token = cookie.split('=').nth(1).unwrap().to_owned();
    for (sent, passed) in [
        (cookie.clone(), None),
        (format!("a=1; {cookie}; b=2"), Some("a=1; b=2")),
        ("tg_sticky=made-up-7; a=1".to_owned(), Some("a=1")),
    ] {
        let seen = origin.seen().len();
        let reply = with(&gateway, &sent).await;
        assert_eq!(reply.status, 200);
        assert_eq!(origin.seen()[seen].header("cookie"), passed);
        let told = stage::told(gateway.access_log(), &collector, &reply.trace_id(), 1).await;
        let went = if sent.contains(&token) { "kept" } else { "moved_unknown" };
        assert_eq!(told.server.attribute("tracegate.sticky"), Some(went));
        let signals = format!("{} {:?} {:?}", told.log, told.server, told.attempts);
        assert!(!signals.contains(&token) && !signals.contains("made-up-7"), "{signals}");
    }
    let metrics = gateway.metrics().await;
    assert!(!metrics.text.contains(&token) && !metrics.text.contains("made-up-7"));
}

#[tokio::test]
async fn several_gateways_agree_by_their_secret_and_others_make_up_their_own() {
    let (a, b) = (named("a").await, named("b").await);
    let directory = tempdir().unwrap();
    std::fs::write(directory.path().join("sticky"), "a secret that they share\n").unwrap();
    let start = async |text: &str| {
        let text = sticky(&[a.address, b.address], text);
        Gateway::start_in(directory.path(), &[&text]).await
    };
    let shared = "secret = { file = 'sticky' }";
    let (one, two) = (start(shared).await, start(shared).await);
    let first = one.get("/").await;
    for _ in 0..4 {
        let again = with(&two, &pair(&first)).await;
        assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
    }
    let stranger = start("").await;
    assert_ne!(pair(&with(&stranger, &pair(&first)).await), pair(&first));
}

#[tokio::test]
async fn over_tls_the_cookie_is_secure() {
    let (origin, authority, directory) = (named("a").await, Authority::new(), tempdir().unwrap());
    authority.identity(&["shop.test"]).write(directory.path());
    let text = sticky(&[origin.address], "");
    let tls = "[listeners.public]\ntls = { certificate_file = 'server.pem', key_file = 'server-key.pem' }\n";
    let gateway = Gateway::start_in(directory.path(), &[&text, tls]).await;
    let mut client = Client::tls(gateway.address(), "shop.test", authority.client(&[])).await;
    let set = client.get("/").await.header("set-cookie").unwrap().to_owned();
    assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"), "{set}");

    let trusting = "[listeners.public]\ntrusted_proxies = ['127.0.0.1/32']\n";
    for (listener, scheme, secure) in
        [(trusting, "https", true), (trusting, "http", false), ("", "https", false)]
    {
        let gateway = Gateway::start(&[&text, listener]).await;
        let reply = ask(gateway.client().await, "/", &[("x-forwarded-proto", scheme)]).await;
        let set = reply.header("set-cookie").unwrap();
        assert_eq!(set.ends_with("; Secure"), secure, "{listener:?} {scheme}");
    }
}
