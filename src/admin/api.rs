//! `/api/…`: what people and programs ask of a gateway that runs, and what an operator changes.

pub(super) mod board;
pub(super) mod enter;
pub(super) mod live;
mod query;
pub(super) mod traces;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Collected, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::audit::Entry;
use super::control::{Control, LogLevel};
use super::page::{Page, json as page};

/// A page, and what it was about, for the audit.
type Changed = (Page, Option<String>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    upstream: String,
    endpoint: String,
    in_use: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Maintenance {
    route: String,
    /// `null` leaves it to the file again.
    maintenance: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    /// `null` leaves it to what the gateway was started with.
    level: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sampling {
    /// `null` leaves it to the file.
    ratio: Option<f64>,
}

/// Reads the configuration again.
pub(super) async fn reload(control: &Arc<dyn Control>) -> Page {
    let reloaded = control.reload().await;
    let status = if reloaded.accepted { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    page(status, &reloaded.report)
}

/// Takes an endpoint out of use or back in.
pub(super) async fn endpoint(control: &Arc<dyn Control>, request: Request<Incoming>) -> Changed {
    let wanted: Wanted =
        match read(request, r#"{"upstream":"shop","endpoint":"10.0.0.7:9001","in_use":false}"#).await {
            Ok(wanted) => wanted,
            Err(refusal) => return (refusal, None),
        };
    let found = control.set_in_use(&wanted.upstream, &wanted.endpoint, wanted.in_use);
    let target = format!("{} {} in_use={}", wanted.upstream, wanted.endpoint, wanted.in_use);
    (done(found, "there is no endpoint like that"), found.then_some(target))
}

/// Puts a route in maintenance, takes it out, or leaves it to the file.
pub(super) async fn maintenance(control: &Arc<dyn Control>, request: Request<Incoming>) -> Changed {
    let wanted: Maintenance = match read(request, r#"{"route":"order_create","maintenance":true}"#).await {
        Ok(wanted) => wanted,
        Err(refusal) => return (refusal, None),
    };
    let found = control.set_maintenance(&wanted.route, wanted.maintenance);
    let word = wanted.maintenance.map_or("file".to_owned(), |maintenance| maintenance.to_string());
    (
        done(found, "there is no route like that"),
        found.then(|| format!("{} maintenance={word}", wanted.route)),
    )
}

/// Lets the gateway say more or less of itself.
pub(super) async fn log_level(control: &Arc<dyn Control>, request: Request<Incoming>) -> Changed {
    let example = r#"{"level":"debug"}, or off, error, warn, info, trace, null"#;
    let Level { level: wanted } = match read(request, example).await {
        Ok(wanted) => wanted,
        Err(refusal) => return (refusal, None),
    };
    let level = wanted.as_deref().map(|word| LEVELS.iter().find(|(known, _)| *known == word));
    let Some(level) = level.map_or(Some(None), |known| known.map(Some)) else {
        return (page(StatusCode::BAD_REQUEST, &json!({ "problem": format!("send {example}") })), None);
    };
    let changed = control.set_log_level(level.map(|(_, level)| *level));
    let target = format!("log_level={}", level.map_or("file", |(word, _)| word));
    (done(changed, "the log level of this gateway cannot be changed"), changed.then_some(target))
}

/// Exports more or less traces.
pub(super) async fn sampling(control: &Arc<dyn Control>, request: Request<Incoming>) -> Changed {
    let example = r#"{"ratio":0.1}, from 0.0 to 1.0, or null"#;
    let Sampling { ratio } = match read(request, example).await {
        Ok(wanted) => wanted,
        Err(refusal) => return (refusal, None),
    };
    if ratio.is_some_and(|ratio| !(0.0..=1.0).contains(&ratio)) {
        return (page(StatusCode::BAD_REQUEST, &json!({ "problem": format!("send {example}") })), None);
    }
    control.set_sampling(ratio);
    let word = ratio.map_or("file".to_owned(), |ratio| ratio.to_string());
    (done(true, ""), Some(format!("sampling.ratio={word}")))
}

/// The last records of the audit.
pub(super) fn audit(entries: &[Entry]) -> Page {
    page(StatusCode::OK, &json!({ "audit": entries }))
}

fn done(found: bool, missing: &str) -> Page {
    if found {
        page(StatusCode::OK, &json!({ "done": true }))
    } else {
        page(StatusCode::NOT_FOUND, &json!({ "problem": missing }))
    }
}

/// The request's JSON. A form of another site's page cannot send this type without asking first (CORS), and nobody
/// here answers that.
async fn read<T: DeserializeOwned>(request: Request<Incoming>, example: &str) -> Result<T, Page> {
    if !is_json(request.headers()) {
        let problem = json!({ "problem": "send content-type: application/json" });
        return Err(page(StatusCode::UNSUPPORTED_MEDIA_TYPE, &problem));
    }
    let body: Option<Bytes> =
        Limited::new(request.into_body(), LONGEST).collect().await.ok().map(Collected::to_bytes);
    let wanted = body.and_then(|body| serde_json::from_slice(&body).ok());
    wanted.ok_or_else(|| page(StatusCode::BAD_REQUEST, &json!({ "problem": format!("send {example}") })))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

const LEVELS: [(&str, LogLevel); 6] = [
    ("off", LogLevel::OFF),
    ("error", LogLevel::ERROR),
    ("warn", LogLevel::WARN),
    ("info", LogLevel::INFO),
    ("debug", LogLevel::DEBUG),
    ("trace", LogLevel::TRACE),
];

/// The longest request, in bytes: an issuer's token may have some thousands.
const LONGEST: usize = 16_384;
