//! `/status`: what runs here, as JSON.

use std::time::Instant;

use http::StatusCode;
use serde_json::json;

use super::control::Control;
use super::page::{Page, answer};

/// The status page; of what runs, whoever may not see `everything` is told how routes and endpoints are.
pub(super) fn page(control: &dyn Control, started: Instant, everything: bool) -> Page {
    let mut status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": started.elapsed().as_secs(),
        "ready": control.ready(),
    });
    if let (Some(status), serde_json::Value::Object(known)) = (status.as_object_mut(), control.status()) {
        status.extend(known.into_iter().filter(|(name, _)| everything || FOR_ALL.contains(&name.as_str())));
    }
    answer(StatusCode::OK, "application/json", format!("{status:#}\n"))
}

/// What the right to look opens; the rest is there to be browsed.
const FOR_ALL: [&str; 3] = ["routes", "maintenance", "upstreams"];
