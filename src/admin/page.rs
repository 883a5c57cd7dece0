//! The answers of the admin address, and the page that leads people to the others.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

/// An answer of the admin address.
pub(super) type Page = Response<Full<Bytes>>;

/// `/`: where to look.
pub(super) fn home() -> Page {
    answer(StatusCode::OK, "text/html; charset=utf-8", HOME)
}

/// A page of plain text.
pub(super) fn text(status: StatusCode, body: &'static str) -> Page {
    answer(status, "text/plain; charset=utf-8", body)
}

/// A page of this type.
pub(super) fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Full::new(body.into()));
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    page
}

const HOME: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>tracegate</title>\n",
    "<h1>tracegate ",
    env!("CARGO_PKG_VERSION"),
    "</h1>\n<ul>\n",
    "<li><a href=\"/metrics\">/metrics</a>: for Prometheus\n",
    "<li><a href=\"/status\">/status</a>: listeners, routes, upstreams, the balance of telemetry\n",
    "<li><a href=\"/readyz\">/readyz</a>: whether new requests are welcome\n",
    "<li><a href=\"/healthz\">/healthz</a>: whether the process is alive\n",
    "</ul>\n</html>\n",
);
