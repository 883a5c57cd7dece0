//! `/status`: what runs here, as JSON.

use std::time::Instant;

use http::StatusCode;
use serde_json::json;

use super::control::Control;
use super::page::{Page, answer};

/// The status page.
pub(super) fn page(control: &dyn Control, started: Instant) -> Page {
    let mut status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": started.elapsed().as_secs(),
        "ready": control.ready(),
    });
    if let (Some(status), serde_json::Value::Object(known)) = (status.as_object_mut(), control.status()) {
        status.extend(known);
    }
    answer(StatusCode::OK, "application/json", format!("{status:#}\n"))
}
