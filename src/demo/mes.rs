//! The embedded MES: calculates the price of a model from its size; the bigger, the longer it takes.

use std::time::Duration;

use http::StatusCode;
use opentelemetry::trace::SpanKind;
use serde_json::json;
use tokio::time::sleep;

use super::service::{Answer, Break, Call, Service};

/// The MES API.
#[derive(Debug)]
pub(super) struct Mes;

impl Service for Mes {
    async fn answer(&self, asked: (&str, &[&str]), call: &mut Call) -> Result<Answer, Break> {
        match asked {
            ("POST", ["orders", order, "price"]) => {
                call.matched("/orders/{order_id}/price");
                Ok(price(call).await.about(order))
            }
            _ => Ok(Answer::error(StatusCode::NOT_FOUND, "no such page")),
        }
    }
}

async fn price(call: &Call) -> Answer {
    let Some(volume @ 1..=MAX_VOLUME) = call.body["volume_mm3"].as_u64() else {
        return Answer::error(
            StatusCode::UNPROCESSABLE_ENTITY,
            "volume_mm3 must be a number from 1 to 50000000",
        );
    };
    let mut span = call.span.child(SpanKind::Internal, "price.calculate");
    span.set("model.volume_mm3", i64::try_from(volume).unwrap_or(i64::MAX));
    sleep(Duration::from_millis(3) + Duration::from_nanos(volume * 40)).await;
    let cents = 490 + volume / 125;
    span.end();
    Answer::new(StatusCode::OK, json!({ "cents": cents }))
}

/// Fifty litres: the machine's size.
const MAX_VOLUME: u64 = 50_000_000;
