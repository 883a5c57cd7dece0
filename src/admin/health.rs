//! `/healthz` and `/readyz`: open to everyone, so they say `ok` or `draining` and no more.

use http::StatusCode;

use super::control::Control;
use super::page::{Page, text};

/// `/healthz`: the process answers.
pub(super) fn alive() -> Page {
    text(StatusCode::OK, "ok")
}

/// `/readyz`: new requests are welcome; 503 while draining.
pub(super) fn ready(control: &dyn Control) -> Page {
    if control.ready() {
        text(StatusCode::OK, "ok")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "draining")
    }
}
