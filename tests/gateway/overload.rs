//! Overload: what comes when every place is taken is refused at once, by name, and the operator still gets in.

use crate::support::client::get;
use crate::support::gateway::{all_to, route, upstream};
use crate::support::{Answer, Client, Gate, Gateway, Origin, Raw, Reply, Seen, Stage, within};

/// `/held` waits for the gate, everything else is answered.
fn holding(gate: &Gate) -> impl Fn(&Seen) -> Answer + Send + Sync + 'static {
    let gate = gate.clone();
    move |seen| if seen.target.starts_with("/held") { Answer::status(200).gate(&gate) } else { Answer::ok() }
}

fn refused(reply: &Reply, rule: &str) {
    assert_eq!((reply.status, reply.reason().as_deref()), (503, Some("overloaded")));
    assert_eq!(reply.json()["rule"], rule);
    assert!(reply.headers.has("retry-after"));
}

#[tokio::test]
async fn what_is_too_much_for_the_gateway_is_refused_before_any_work_and_health_and_admin_answer() {
    let gate = Gate::new();
    let stage = Stage::and(holding(&gate), "[limits]\nin_flight = 1\n").await;
    let mut first = stage.client().await;
    let first = tokio::spawn(async move { first.get("/held").await });
    stage.origin.seen_when("the held request", |seen| seen.len() == 1).await;

    let mut second = stage.client().await;
    for _ in 0..3 {
        let reply = second.get("/").await;
        refused(&reply, "limits.in_flight");
        let told = stage.told(&reply.trace_id(), 0).await;
        assert_eq!(told.log["rule"], "limits.in_flight");
    }
    for page in ["/healthz", "/readyz", "/status", "/metrics"] {
        assert_eq!(stage.gateway.admin(page).await.status, 200, "{page}");
    }
    let rule = [("tracegate_rule", "limits.in_flight"), ("tracegate_reason", "overloaded")];
    assert_eq!(stage.gateway.metrics().await.count("tracegate_rules_total", &rule), 3);
    assert_eq!(stage.origin.seen().len(), 1, "nothing that was refused was forwarded");

    gate.open();
    assert_eq!(within("the held answer", first).await.unwrap().status, 200);
    assert_eq!(second.get("/").await.status, 200, "on the same connection");
}

#[tokio::test]
async fn a_bound_of_one_listener_or_route_leaves_the_others_alone() {
    let gate = Gate::new();
    let origin = Origin::start(holding(&gate)).await;
    let texts = [
        &upstream("shop", origin.address),
        &route("all", "/{*path}", "shop"),
        &route("held", "/held/{*path}", "shop"),
        "[routes.held.limits]\nin_flight = 1\n[listeners.public.limits]\nin_flight = 2\n\
         [listeners.other]\naddress = '127.0.0.1:0'\n",
    ];
    let gateway = Gateway::start(&texts).await;
    let hold = |path: &'static str| {
        let address = gateway.address();
        tokio::spawn(async move { Client::http1(address).await.get(path).await })
    };
    let first = hold("/held/1");
    origin.seen_when("the first", |seen| seen.len() == 1).await;
    refused(&gateway.get("/held/2").await, "routes.held.limits.in_flight");
    assert_eq!(gateway.get("/free").await.status, 200, "another route");
    let other = || async { Client::http1(gateway.listener("other")).await };
    refused(&other().await.get("/held/3").await, "routes.held.limits.in_flight");

    let second = hold("/held_by_all");
    origin.seen_when("the second", |seen| seen.iter().any(|seen| seen.target == "/held_by_all")).await;
    refused(&gateway.get("/free").await, "listeners.public.limits.in_flight");
    assert_eq!(other().await.get("/free").await.status, 200, "another listener");
    gate.open();
    for held in [first, second] {
        assert_eq!(within("a held answer", held).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_back() {
    let gate = Gate::new();
    let stage = Stage::and(holding(&gate), "[limits]\nin_flight = 1\n").await;
    let raw = Raw::sending(stage.gateway.address(), "GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    stage.origin.seen_when("the held request", |seen| seen.len() == 1).await;
    refused(&stage.get("/").await, "limits.in_flight");
    raw.reset();
    stage.gateway.log(2).await;
    assert_eq!(stage.get("/").await.status, 200);
}

#[tokio::test]
async fn an_answer_holds_its_place_until_its_last_byte() {
    let gate = Gate::new();
    let held = gate.clone();
    let script = move |seen: &Seen| match &*seen.target {
        "/long" => Answer::status(200).data("first").gate(&held).data("last").chunked(),
        _ => Answer::ok(),
    };
    let origin = Origin::start(script).await;
    let gateway = Gateway::start(&[&all_to(origin.address), "[limits]\nin_flight = 1\n"]).await;
    let mut client = gateway.client().await;
    let answer = client.send(get("/long")).await.unwrap();
    refused(&gateway.get("/").await, "limits.in_flight");
    gate.open();
    assert_eq!(Reply::read(answer).await.text(), "firstlast");
    gateway.log(2).await;
    assert_eq!(gateway.get("/").await.status, 200);
}
