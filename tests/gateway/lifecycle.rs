//! Start and end: what is wrong is named, and nobody who was let in is sent away without an answer.

use std::sync::{Arc, Mutex};

use tracegate::failure::Reason;
use tracegate::telemetry::{Record, Sink};

use crate::support::client::{get, get_admin};
use crate::support::gateway::all_to;
use crate::support::{Answer, Client, Gate, Gateway, Origin, Raw, Seen, Stage, body, within};

const SLOWLY: &str = "[shutdown]\ndrain_delay = '500ms'\n";

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for table in ["listeners.public", "admin"] {
        let text = format!("[{table}]\naddress = '{address}'\n");
        let why = Gateway::refusal(&[&all_to(([127, 0, 0, 2], 1).into()), &text]).await;
        assert!(why.contains(&address.to_string()) && why.contains(table), "{why}");
    }
}

#[tokio::test]
async fn a_leaving_gateway_says_so_and_still_serves_whoever_comes() {
    let stage = Stage::and(Answer::ok(), SLOWLY).await;
    let (public, pages) = (stage.gateway.address(), stage.gateway.admin_address());
    let mut idle = Client::http1(public).await;
    assert_eq!(idle.get("/").await.header("connection"), None);
    let mut http2 = Client::http2(public).await;
    assert_eq!(http2.get("/").await.status, 200);
    assert_eq!(get_admin(pages, "/readyz").await.status, 200);
    let stopping = tokio::spawn(stage.gateway.stop());
    let unready = async { while get_admin(pages, "/readyz").await.status != 503 {} };
    within("/readyz to say 503", unready).await;
    assert_eq!(get_admin(pages, "/healthz").await.status, 200);
    // an old connection is told that it ends, a new one is served and told the same
    let reply = idle.get("/").await;
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    idle.closed().await;
    let mut late = Client::http1(public).await;
    let reply = late.get("/").await;
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert_eq!(Client::http2(public).await.get("/").await.status, 200);
    http2.closed().await;
    within("the end", stopping).await.unwrap();
    assert!(tokio::net::TcpStream::connect(public).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn requests_in_flight_finish_and_their_spans_are_sent() {
    let gate = Gate::new();
    let stage = Stage::new(Answer::status(200).data("first").gate(&gate).data("last")).await;
    let address = stage.gateway.address();
    let mut asking = tokio::task::JoinSet::new();
    for http2 in [false, true] {
        asking.spawn(async move {
            let mut client = if http2 { Client::http2(address).await } else { Client::http1(address).await };
            client.get("/").await
        });
    }
    stage.origin.seen_when("both requests", |seen| seen.len() == 2).await;
    let stopping = tokio::spawn(stage.gateway.stop());
    let closed = async { while tokio::net::TcpStream::connect(address).await.is_ok() {} };
    within("the listener to close", closed).await;
    gate.open();
    for reply in within("both answers", asking.join_all()).await {
        assert_eq!((reply.text().as_str(), reply.broken), ("firstlast", false));
    }
    within("the end", stopping).await.unwrap();
    assert_eq!(stage.collector.spans().len(), 4, "sent before the end");
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_for_a_stated_reason() {
    let stage = Stage::and(Answer::ok().chunked().then_stall(), "[shutdown]\ndeadline = '50ms'\n").await;
    let mut http1 = stage.client().await;
    let mut http2 = Client::http2(stage.gateway.address()).await;
    let answers = [http1.send(get("/")).await.unwrap(), http2.send(get("/")).await.unwrap()];
    let log = stage.gateway.stop().await;
    for answer in answers {
        assert!(body::count(answer.into_body()).await.is_err(), "not completed as if it were whole");
    }
    for line in log.lines(2).await {
        assert_eq!(line["reason"], "shutting_down", "{line}");
    }
    assert_eq!(stage.collector.spans().len(), 4);
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_end_up() {
    let stage = Stage::new(Answer::ok()).await;
    let address = stage.gateway.address();
    let mut used = Client::http1(address).await;
    assert_eq!(used.get("/").await.status, 200);
    let mut http2 = Client::http2(address).await;
    assert_eq!(http2.get("/").await.status, 200);
    let mut fresh = Raw::connect(address).await;
    stage.gateway.stop().await;
    assert!(fresh.rest().await.is_empty());
    used.closed().await;
    http2.closed().await;
}

/// Keeps the reason of every operation.
#[derive(Default)]
struct Reasons(Mutex<Vec<Option<Reason>>>);

impl Sink for Reasons {
    fn operation_ended(&self, record: &Arc<Record>) {
        self.0.lock().unwrap().push(record.failure().map(|(reason, _)| reason));
    }
}

#[tokio::test]
async fn a_gateway_that_is_dropped_ends_with_all_its_tasks_and_threads() {
    let answer = |seen: &Seen| {
        if seen.target == "/stall" { Answer::ok().chunked().then_stall() } else { Answer::ok() }
    };
    let origin = Origin::start(answer).await;
    let sink = Arc::new(Reasons::default());
    // spans wait for a receiver that is away
    let away = "[telemetry.otlp]\nendpoint = 'http://127.0.0.1:1'\n";
    let gateway = Gateway::start_with(Arc::clone(&sink) as _, &[&all_to(origin.address), away]).await;
    assert_eq!(gateway.get("/").await.status, 200);
    let address = gateway.address();
    let mut client = gateway.client().await;
    let stalled = client.send(get("/stall")).await.unwrap();
    drop(gateway);
    assert!(body::count(stalled.into_body()).await.is_err(), "not completed as if it were whole");
    let closed = async { while tokio::net::TcpStream::connect(address).await.is_ok() {} };
    within("the listener to close", closed).await;
    // whatever still ran or waited would hold it
    let released = async {
        while Arc::strong_count(&sink) > 1 {
            tokio::task::yield_now().await;
        }
    };
    within("the sink to be let go", released).await;
    assert_eq!(*sink.0.lock().unwrap(), [None, Some(Reason::ShuttingDown)]);
}

#[tokio::test]
async fn two_gateways_in_one_process_know_nothing_of_each_other() {
    let origin = Origin::start(Answer::ok()).await;
    let (one, two) = (Gateway::before(origin.address).await, Gateway::before(origin.address).await);
    one.get("/").await;
    one.log(1).await;
    assert_eq!(one.metrics().await.count("tracegate_requests_total", &[]), 1);
    assert!(two.metrics().await.count("tracegate_requests_total", &[]) == 0);
    one.stop().await;
    assert_eq!(two.get("/").await.status, 200);
}
