//! Reloads: what is new counts, what is equal goes on, what is wrong is refused.

use tracegate::telemetry::metrics::reloads::ReloadOutcome;

use crate::support::gateway::{all_to, route, upstream};
use crate::support::{Answer, Gateway, Origin};

#[tokio::test]
async fn a_new_route_counts_for_the_next_request_on_a_connection_that_is_open() {
    let origin = Origin::start(Answer::ok()).await;
    let before = upstream("shop", origin.address) + &route("old", "/old", "shop");
    let gateway = Gateway::start(&[&before]).await;
    let mut client = gateway.client().await;
    assert_eq!((client.get("/old").await.status, client.get("/new").await.status), (200, 404));
    let report = gateway.reload(&[&before.replace("old", "new")]);
    assert_eq!(report.outcome, ReloadOutcome::Applied);
    let told = [&report.difference.added, &report.difference.removed].map(ToString::to_string);
    assert_eq!(told, ["routes.new", "routes.old"]);
    assert_eq!((client.get("/old").await.status, client.get("/new").await.status), (404, 200));
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_the_old_stays_in_force() {
    let origin = Origin::start(Answer::ok()).await;
    let gateway = Gateway::before(origin.address).await;
    let report = gateway.reload(&[&all_to(origin.address).replace("endpoints", "endpoint")]);
    assert_eq!((report.outcome, report.generation), (ReloadOutcome::Refused, 1));
    assert!(report.problems[0].contains("write endpoints"), "{:?}", report.problems);
    assert_eq!(gateway.get("/").await.status, 200);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("tracegate_reloads_total", &[("outcome", "refused")]), 1);
    assert_eq!(metrics.count("tracegate_config_last_reload_successful", &[]), 0);
    let status = gateway.admin("/status").await.json();
    assert_eq!(status["configuration"]["reloads"][0]["outcome"], "refused", "{status}");
}

#[tokio::test]
async fn an_unchanged_endpoint_keeps_its_connections_when_all_around_it_changes() {
    let [one, two] = [Origin::start(Answer::ok()).await, Origin::start(Answer::ok()).await];
    let text = |endpoints: &str| {
        format!("[upstreams.shop]\nendpoints = [{endpoints}]\n{}", route("all", "/{*rest}", "shop"))
    };
    let [first, second] = [&one, &two].map(|origin| format!("'http://{}'", origin.address));
    let gateway = Gateway::start(&[&text(&first)]).await;
    assert_eq!(gateway.get("/").await.status, 200);
    let other = route("other", "/other", "shop");
    let balanced = text(&first).replace("[routes", "balance = 'round_robin'\n[routes");
    for texts in [
        text(&first) + "timeouts.request = '5s'\n",
        text(&first) + &other,
        balanced,
        text(&format!("{first}, {second}")),
        text(&first),
    ] {
        let report = gateway.reload(&[&texts]);
        assert_eq!(report.outcome, ReloadOutcome::Applied, "{report:?}\n{texts}");
        for _ in 0..8 {
            assert_eq!(gateway.get("/").await.status, 200);
        }
    }
    assert_eq!(one.connections().accepted, 1, "never dialled again");
    two.open_connections(0).await;
}

#[tokio::test]
async fn a_key_that_cannot_be_reloaded_is_named_until_it_is_as_it_was() {
    let origin = Origin::start(Answer::ok()).await;
    let gateway = Gateway::before(origin.address).await;
    let all = all_to(origin.address);
    let other = "[listeners.public]\naddress = '127.0.0.9:0'\nlimits.uri_bytes = '20B'\n[telemetry]\nservice_name = 'x'\n";
    gateway.reload(&[&all, other]);
    let status = gateway.admin("/status").await.json();
    let named = &status["configuration"]["awaiting_restart"];
    assert_eq!(*named, serde_json::json!(["listeners.public.address", "telemetry.service_name"]));
    assert_eq!(gateway.metrics().await.count("tracegate_config_keys_awaiting_restart", &[]), 2);
    // what can be reloaded of a listener counts for new connections, where it is
    assert_eq!(gateway.get("/a_long_path_of_a_request").await.status, 414);
    gateway.reload(&[&all]);
    assert_eq!(gateway.metrics().await.count("tracegate_config_keys_awaiting_restart", &[]), 0);
    assert_eq!(gateway.get("/a_long_path_of_a_request").await.status, 200);
}
