//! The embedded customer: a gentle stream of requests, the same ones in every run.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{self, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::event::Event;
use crate::net::once;
use crate::telemetry::context::{Context, Origin, TraceId};

/// Sends requests one after the other until the last one.
#[derive(Debug)]
pub(super) struct Customer {
    gateway: SocketAddr,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
    /// Requests still to be sent; `None` is no end.
    left: Option<u64>,
    pace: Interval,
    /// State of the sequence of sizes.
    seed: u64,
}

/// The last request has been answered.
#[derive(Debug)]
struct Done;

impl Customer {
    /// A customer of this gateway, who lets at least so much time pass from one request to the next, and comes
    /// no more when told to stop.
    pub(super) fn new(
        gateway: SocketAddr,
        events: mpsc::Sender<Event>,
        stop: CancellationToken,
        requests: Option<u64>,
        pause: Duration,
    ) -> Self {
        let mut pace = time::interval(pause);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { gateway, events, stop, left: requests, pace, seed: SEED }
    }

    /// Comes again and again. Every round has a bit of everything.
    pub(super) async fn run(mut self) {
        while let Ok(()) = self.round().await {}
    }

    async fn round(&mut self) -> Result<(), Done> {
        self.buy().await?;
        self.buy().await?;
        self.ask("/nowhere", PATIENCE).await?;
        self.change_mind().await?;
        self.ask("/shop/reports/slow", PATIENCE).await?;
        self.buy().await?;
        self.ask("/shop/reports/slow", HURRY).await?;
        self.buy().await?;
        self.change_mind().await?;
        self.buy().await
    }

    /// Orders, looks, and pays; once more if it does not work.
    async fn buy(&mut self) -> Result<(), Done> {
        let Some(order) = self.order().await? else { return Ok(()) };
        self.ask(&format!("/shop/orders/{order}"), PATIENCE).await?;
        let pay = format!("/shop/orders/{order}/payment");
        let paid = self.send(Method::POST, &pay, Value::Null, PATIENCE).await?;
        if paid.is_none_or(|answer| answer.status().is_server_error()) {
            self.send(Method::POST, &pay, Value::Null, PATIENCE).await?;
        }
        Ok(())
    }

    /// Orders and cancels.
    async fn change_mind(&mut self) -> Result<(), Done> {
        let Some(order) = self.order().await? else { return Ok(()) };
        self.send(Method::DELETE, &format!("/shop/orders/{order}"), Value::Null, PATIENCE).await?;
        Ok(())
    }

    async fn order(&mut self) -> Result<Option<String>, Done> {
        let volume = self.volume();
        let answer =
            self.send(Method::POST, "/shop/orders", json!({ "volume_mm3": volume }), PATIENCE).await?;
        let order = answer.as_ref().and_then(|answer| answer.headers().get("x-order-id"));
        Ok(order.and_then(|order| order.to_str().ok()).map(str::to_owned))
    }

    async fn ask(&mut self, path: &str, patience: Duration) -> Result<(), Done> {
        self.send(Method::GET, path, Value::Null, patience).await.map(drop)
    }

    /// Sends one request when its time has come, and tells of it. `None` if there was no answer.
    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Value,
        patience: Duration,
    ) -> Result<Option<Response<Bytes>>, Done> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or(Done)?;
        }
        self.stop.run_until_cancelled(self.pace.tick()).await.ok_or(Done)?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
        let request = request.body(Full::from(body)).expect("paths are fixed but for an order's number");
        let answer = once::send(self.gateway, request, patience).await.ok();
        let trace = answer.as_ref().and_then(|answer| told_trace(answer.headers()));
        self.events.send(Event::Asked(trace)).await.map_err(|_| Done)?;
        Ok(answer)
    }

    /// A model's size: most are small, one in eight is big and takes the MES a while.
    fn volume(&mut self) -> u64 {
        // SplitMix64: the same numbers in every run and on every machine
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        if mixed.is_multiple_of(8) { 5_000_000 } else { 1_000 + mixed % 100_000 }
    }
}

/// The trace that an answer of the gateway tells: `Server-Timing: trace;desc="00-…"`.
fn told_trace(headers: &HeaderMap) -> Option<TraceId> {
    let values = headers.get_all("server-timing").into_iter().filter_map(|value| value.to_str().ok());
    let told = values
        .flat_map(|value| value.split(','))
        .find_map(|metric| metric.trim().strip_prefix("trace;desc=\"")?.strip_suffix('"'))?;
    let context = Context::from_headers([told.as_bytes()], []);
    (context.origin == Origin::Continued).then_some(context.trace_id)
}

const SEED: u64 = 42;
/// How long the customer waits for an answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long it waits when it is in a hurry.
const HURRY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
    use serde_json::Value;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::{Customer, told_trace};
    use crate::demo::service::{self, Answer, Break, Call, Service};
    use crate::demo::tracer::Tracer;

    /// Stands for the gateway: every payment fails, the rest works.
    #[derive(Default)]
    struct Till(Mutex<Vec<String>>);

    impl Service for Till {
        async fn answer(&self, asked: (&str, &[&str]), _: &mut Call) -> Result<Answer, Break> {
            let mut seen = self.0.lock().unwrap();
            seen.push(format!("{} /{}", asked.0, asked.1.join("/")));
            let status = if asked.1.ends_with(&["payment"]) {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::OK
            };
            Ok(Answer::new(status, Value::Null).about("o-1"))
        }
    }

    async fn seen(requests: Option<u64>, stop: CancellationToken) -> Vec<String> {
        let till = Arc::new(Till::default());
        let (tracer, _) = Tracer::start("till", "127.0.0.1:1".to_owned());
        let serving = CancellationToken::new();
        let _guard = serving.clone().drop_guard();
        let (address, _) =
            service::start(service::ANYWHERE, Arc::clone(&till), tracer, serving).await.unwrap();
        let (events, mut news) = mpsc::channel(100);
        Customer::new(address, events, stop, requests, Duration::from_millis(1)).run().await;
        let seen = till.0.lock().unwrap().clone();
        let mut told = 0;
        while news.recv().await.is_some() {
            told += 1;
        }
        assert_eq!(told, seen.len(), "every request is told of");
        seen
    }

    #[tokio::test]
    async fn it_sends_exactly_as_many_requests_as_wanted_and_the_same_in_every_run() {
        let first = seen(Some(30), CancellationToken::new()).await;
        assert_eq!(first.len(), 30);
        for part in ["POST /shop/orders", "GET /shop/orders/o-1", "DELETE /shop/orders/o-1", "GET /nowhere"] {
            assert!(first.iter().any(|request| request == part), "{part}");
        }
        assert_eq!(first.iter().filter(|request| request.ends_with("reports/slow")).count(), 2);
        assert_eq!(first, seen(Some(30), CancellationToken::new()).await);
    }

    #[tokio::test]
    async fn a_payment_that_fails_is_tried_once_more() {
        let first = seen(Some(4), CancellationToken::new()).await;
        let payment = "POST /shop/orders/o-1/payment";
        assert_eq!(first, ["POST /shop/orders", "GET /shop/orders/o-1", payment, payment]);
    }

    #[tokio::test]
    async fn told_to_stop_it_comes_no_more() {
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(seen(None, stop).await.len() <= 1);
    }

    #[test]
    fn the_trace_is_read_from_server_timing() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let trace = format!("trace;desc=\"00-{id}-00f067aa0ba902b7-01\"");
        for (value, found) in [
            (trace.clone(), true),
            (format!("db;dur=3, {trace}"), true),
            ("trace;desc=\"00-nonsense\"".into(), false),
            ("db;dur=3".into(), false),
        ] {
            let name = HeaderName::from_static("server-timing");
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_str(&value).unwrap())]);
            assert_eq!(
                told_trace(&headers).map(|trace| trace.to_string()).as_deref(),
                found.then_some(id),
                "{value}"
            );
        }
        assert!(told_trace(&HeaderMap::new()).is_none());
    }
}
