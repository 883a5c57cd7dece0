//! `/api/…`: what an operator changes while the gateway runs, and who has done so.

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
use super::control::Control;
use super::page::{Page, answer};

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

fn page(status: StatusCode, value: &serde_json::Value) -> Page {
    answer(status, "application/json", format!("{value:#}\n"))
}

/// The longest request, in bytes.
const LONGEST: usize = 4096;
