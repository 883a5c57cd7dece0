//! `/metrics`: Prometheus' text format, rendered where it holds up no request.

use std::sync::Arc;

use http::StatusCode;

use super::control::Control;
use super::page::{Page, answer, text};

/// The metrics page.
pub(super) async fn page(control: Arc<dyn Control>) -> Page {
    match tokio::task::spawn_blocking(move || control.metrics()).await {
        Ok(metrics) => answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics),
        Err(error) => {
            tracing::error!(%error, "rendering metrics failed");
            text(StatusCode::INTERNAL_SERVER_ERROR, "rendering failed")
        }
    }
}
