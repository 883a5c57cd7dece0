//! The embedded Shop: orders are created, read, paid and cancelled; prices come from the MES, through the gateway.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::Full;
use opentelemetry::trace::SpanKind;
use serde_json::{Value, json};
use tokio::net::lookup_host;
use tokio::time::sleep;

use super::service::{Answer, Break, Call, Service};
use crate::net::once;

/// The Shop API.
#[derive(Debug, Default)]
pub(super) struct Shop {
    /// Where the gateway listens, once it does: host and port.
    pub(super) gateway: OnceLock<String>,
    orders: Mutex<Orders>,
}

#[derive(Debug, Default)]
struct Orders {
    created: u64,
    kept: BTreeMap<u64, Order>,
}

#[derive(Debug)]
struct Order {
    state: &'static str,
    cents: u64,
    payments: u32,
}

impl Service for Shop {
    async fn answer(&self, asked: (&str, &[&str]), call: &mut Call) -> Result<Answer, Break> {
        match asked {
            ("POST", ["orders"]) => {
                call.matched("/orders");
                Ok(self.create(call).await)
            }
            ("GET", ["orders", id]) => {
                call.matched("/orders/{order_id}");
                Ok(self.with(id, |order| shown(id, order)))
            }
            ("POST", ["orders", id, "payment"]) => {
                call.matched("/orders/{order_id}/payment");
                self.pay(id).await
            }
            ("DELETE", ["orders", id]) => {
                call.matched("/orders/{order_id}");
                Ok(self.with(id, |order| cancelled(id, order)))
            }
            ("GET", ["reports", "slow"]) => {
                call.matched("/reports/slow");
                // every order of the year, in one query
                sleep(SLOW).await;
                Ok(Answer::new(StatusCode::OK, json!({ "orders": self.orders().created })))
            }
            _ => Ok(Answer::error(StatusCode::NOT_FOUND, "no such page")),
        }
    }
}

impl Shop {
    async fn create(&self, call: &Call) -> Answer {
        let number = {
            let mut orders = self.orders();
            orders.created += 1;
            FIRST_ORDER + orders.created
        };
        let id = format!("o-{number}");
        let cents = match self.price(call, &id).await {
            Ok(cents) => cents,
            Err(refusal) => return refusal.about(&id),
        };
        let mut order = Order { state: "created", cents, payments: 0 };
        let answer = shown(&id, &mut order);
        let mut orders = self.orders();
        orders.kept.insert(number, order);
        while orders.kept.len() > MAX_ORDERS {
            orders.kept.pop_first();
        }
        Answer { status: StatusCode::CREATED, ..answer }
    }

    /// Asks the MES for the order's price, as any client would: through the gateway, under this trace.
    async fn price(&self, call: &Call, id: &str) -> Result<u64, Answer> {
        let unavailable = || Answer::error(StatusCode::BAD_GATEWAY, "no price can be had");
        let name = self.gateway.get().ok_or_else(unavailable)?;
        let found = lookup_host(name).await.ok().and_then(|mut addresses| addresses.next());
        let gateway = found.ok_or_else(unavailable)?;
        let mut span = call.span.child(SpanKind::Client, "POST /mes/orders/{order_id}/price");
        span.set("http.request.method", "POST");
        span.set("url.template", "/mes/orders/{order_id}/price");
        span.set("service.peer.name", "api-gateway");
        span.set("server.address", gateway.ip().to_string());
        span.set("server.port", i64::from(gateway.port()));
        let mut request = Request::post(format!("/mes/orders/{id}/price"))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(json!({ "volume_mm3": call.body["volume_mm3"] }).to_string()))
            .expect("an order's number is valid in a path");
        span.inject(request.headers_mut());
        let Ok(answer) = once::send(gateway, request, PATIENCE).await else {
            span.fail("io");
            return Err(unavailable());
        };
        span.set("http.response.status_code", i64::from(answer.status().as_u16()));
        if answer.status().is_success() {
            span.end();
        } else {
            span.fail(answer.status().as_str());
        }
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        match (answer.status(), body["cents"].as_u64()) {
            (StatusCode::OK, Some(cents)) => Ok(cents),
            (status, _) if status.is_client_error() => Err(Answer::new(status, body)),
            _ => Err(unavailable()),
        }
    }

    /// The bank is sometimes away and sometimes hangs up: which payments fail follows from the order's number.
    async fn pay(&self, id: &str) -> Result<Answer, Break> {
        sleep(BANK).await;
        let mut broken = false;
        let answer = self.with(id, |order| {
            order.payments += 1;
            match (order.payments, number(id).unwrap_or_default() % 6) {
                (1, 2) => Answer::error(StatusCode::SERVICE_UNAVAILABLE, "the bank is away").about(id),
                (1, 3) => {
                    broken = true;
                    Answer::error(StatusCode::BAD_GATEWAY, "the bank hung up").about(id)
                }
                _ => paid(id, order),
            }
        });
        if broken { Err(Break) } else { Ok(answer) }
    }

    fn with(&self, id: &str, answer: impl FnOnce(&mut Order) -> Answer) -> Answer {
        let mut orders = self.orders();
        match number(id).and_then(|number| orders.kept.get_mut(&number)) {
            Some(order) => answer(order),
            None => Answer::error(StatusCode::NOT_FOUND, "no such order"),
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(id: &str) -> Option<u64> {
    id.strip_prefix("o-")?.parse().ok()
}

fn shown(id: &str, order: &mut Order) -> Answer {
    let body = json!({ "order_id": id, "state": order.state, "cents": order.cents });
    Answer::new(StatusCode::OK, body).about(id)
}

fn paid(id: &str, order: &mut Order) -> Answer {
    if order.state == "cancelled" {
        return Answer::error(StatusCode::CONFLICT, "the order is cancelled").about(id);
    }
    order.state = "paid";
    shown(id, order)
}

fn cancelled(id: &str, order: &mut Order) -> Answer {
    if order.state == "paid" {
        return Answer::error(StatusCode::CONFLICT, "the order is paid").about(id);
    }
    order.state = "cancelled";
    shown(id, order)
}

/// Orders are numbered from the next one on.
const FIRST_ORDER: u64 = 1000;
/// Orders kept; the oldest goes.
const MAX_ORDERS: usize = 10_000;
/// How long the report takes.
const SLOW: Duration = Duration::from_millis(700);
/// How long the bank takes.
const BANK: Duration = Duration::from_millis(15);
/// How long the MES may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use serde_json::{Value, json};
    use tokio::sync::mpsc;
    use tokio_util::sync::{CancellationToken, DropGuard};

    use super::Shop;
    use crate::demo::collector::Collector;
    use crate::demo::event::Event;
    use crate::demo::mes::Mes;
    use crate::demo::service::{self, ANYWHERE, Answer, Break, Call, Service};
    use crate::demo::span::{Kind, Span};
    use crate::demo::tracer::Tracer;
    use crate::net::once;

    /// Stands for the gateway: the MES under its prefix.
    struct Prefixed(Mes);

    impl Service for Prefixed {
        async fn answer(&self, asked: (&str, &[&str]), call: &mut Call) -> Result<Answer, Break> {
            assert_eq!(asked.1[0], "mes");
            self.0.answer((asked.0, &asked.1[1..]), call).await
        }
    }

    struct Running {
        shop: SocketAddr,
        news: mpsc::Receiver<Event>,
        stop: DropGuard,
    }

    async fn running() -> Running {
        let ending = CancellationToken::new();
        let (events, news) = mpsc::channel(100);
        let collected = CancellationToken::new();
        let (collector, _) = Collector { events, forward: None }.start(collected.clone()).await.unwrap();
        let (shop_tracer, shop_export) = Tracer::start("shop-api", collector.to_string());
        let (mes_tracer, mes_export) = Tracer::start("mes-api", collector.to_string());
        tokio::spawn(async move {
            let _ = tokio::join!(shop_export, mes_export);
            collected.cancel();
        });
        let mes =
            service::start(ANYWHERE, Arc::new(Prefixed(Mes)), mes_tracer, ending.clone()).await.unwrap().0;
        let shop = Arc::new(Shop::default());
        shop.gateway.set(mes.to_string()).unwrap();
        let shop = service::start(ANYWHERE, shop, shop_tracer, ending.clone()).await.unwrap().0;
        Running { shop, news, stop: ending.drop_guard() }
    }

    async fn ask(shop: SocketAddr, method: &str, path: &str, body: Value) -> Option<Response<Bytes>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let request = request.body(Full::from(body.to_string())).unwrap();
        once::send(shop, request, Duration::from_secs(10)).await.ok()
    }

    #[tokio::test]
    async fn orders_live_and_payments_fail_now_and_then() {
        let Running { shop, stop: _stop, .. } = running().await;
        let model = || json!({ "volume_mm3": 12_500 });
        for (method, path, body, status, part) in [
            ("POST", "/orders", model(), 201, "\"cents\":590"),
            ("GET", "/orders/o-1001", Value::Null, 200, "\"created\""),
            ("POST", "/orders/o-1001/payment", Value::Null, 200, "\"paid\""),
            ("DELETE", "/orders/o-1001", Value::Null, 409, "is paid"),
            ("POST", "/orders", model(), 201, "o-1002"),
            ("DELETE", "/orders/o-1002", Value::Null, 200, "\"cancelled\""),
            ("POST", "/orders/o-1002/payment", Value::Null, 409, "is cancelled"),
            ("POST", "/orders", json!({ "volume_mm3": 0 }), 422, "volume_mm3"),
            ("GET", "/orders/o-1003", Value::Null, 404, "no such order"),
            ("GET", "/orders/nonsense", Value::Null, 404, "no such order"),
            ("GET", "/nowhere", Value::Null, 404, "no such page"),
            ("POST", "/orders", model(), 201, "o-1004"),
            ("POST", "/orders/o-1004/payment", Value::Null, 503, "the bank is away"),
            ("POST", "/orders/o-1004/payment", Value::Null, 200, "\"paid\""),
            ("POST", "/orders", model(), 201, "o-1005"),
            ("POST", "/orders/o-1005/payment", Value::Null, 0, ""),
            ("POST", "/orders/o-1005/payment", Value::Null, 200, "\"paid\""),
        ] {
            let answer = ask(shop, method, path, body).await;
            let found = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            assert_eq!(found, status, "{method} {path}");
            let text =
                answer.map(|answer| String::from_utf8_lossy(answer.body()).into_owned()).unwrap_or_default();
            assert!(text.contains(part), "{method} {path}: {text}");
        }
    }

    #[tokio::test]
    async fn an_order_is_one_nested_trace_under_the_callers_span() {
        let Running { shop, mut news, stop } = running().await;
        let answer = ask(shop, "POST", "/orders", json!({ "volume_mm3": 1 })).await.unwrap();
        assert_eq!(answer.headers()["x-order-id"], "o-1001");
        drop(stop);
        let mut spans = Vec::new();
        while let Some(event) = news.recv().await {
            if let Event::Received(received) = event {
                spans.extend(received);
            }
        }
        let mut parent = Some("00f067aa0ba902b7".to_owned());
        for (service, kind, name) in [
            ("shop-api", Kind::Server, "POST /orders"),
            ("shop-api", Kind::Client, "POST /mes/orders/{order_id}/price"),
            ("mes-api", Kind::Server, "POST /orders/{order_id}/price"),
            ("mes-api", Kind::Internal, "price.calculate"),
        ] {
            let found = |span: &&Span| &*span.service == service && span.kind == kind;
            let span = spans.iter().find(found).unwrap_or_else(|| panic!("{service} {name}: {spans:?}"));
            assert_eq!(span.name, name);
            assert_eq!(span.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
            assert_eq!(span.parent.map(|parent| parent.to_string()), parent, "{service} {name}");
            assert!(!span.error && span.end > span.start, "{span:?}");
            parent = Some(span.id.to_string());
        }
        assert_eq!(spans.len(), 4);
        assert!(spans.iter().any(|span| span.attribute("order.id") == Some("o-1001")));
    }
}
