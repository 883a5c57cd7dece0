//! A bug of ours costs one request: it is answered, recorded, and nothing else notices.

use std::sync::Arc;

use http::Method;
use tracegate::telemetry::operation::AttemptRecord;
use tracegate::telemetry::{Record, Sink};

use crate::support::client::request;
use crate::support::gateway::all_to;
use crate::support::{Answer, Client, Gate, Gateway, Origin, Seen, body, within};

/// A sink with a bug that only requests with this `X-Request-Id` meet.
pub struct Buggy;

/// Whose requests meet the bug.
pub const MARK: (&str, &str) = ("x-request-id", "meets-the-bug");

impl Sink for Buggy {
    fn operation_ended(&self, _: &Arc<Record>) {}

    fn attempt_started(&self, record: &Record, _: &AttemptRecord) {
        assert!(record.request_id.for_exchange() != MARK.1, "a bug, planted");
    }
}

#[tokio::test]
async fn a_panic_costs_one_request_and_no_other_on_the_same_connection() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_: &Seen| Answer::status(200).gate(&held).data("late")).await;
    let gateway = Gateway::start_with(Arc::new(Buggy), &[&all_to(origin.address)]).await;
    let mut client = Client::http2(gateway.address()).await;
    let mut other = client.another();
    let other = tokio::spawn(async move { other.get("/").await });
    origin.seen_when("the other request", |seen| seen.len() == 1).await;
    let reply = client.ask(request(Method::GET, "/", &[MARK], body::empty())).await;
    assert_eq!((reply.status, reply.reason().as_deref()), (500, Some("panic")));
    assert!(!reply.text().contains("planted"), "what a panic says stays inside");
    gate.open();
    assert_eq!(within("the other answer", other).await.unwrap().text(), "late");
    assert_eq!(client.get("/").await.status, 200);
    let metrics = gateway.metrics_when("no request is active", |metrics| {
        metrics.count("http_server_active_requests", &[]) == 0
    });
    assert!(metrics.await.count("http_client_active_requests", &[]) == 0);
}
