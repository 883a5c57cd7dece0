//! The answers of the admin address, and the live page: plain files, built in, with nothing from elsewhere.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Either, Full};

/// An answer of the admin address.
pub(super) type Page = Response<Content>;

/// Its body: whole, or one that goes on.
pub(super) type Content = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Infallible>>;

/// A file of the live page.
pub(super) struct File {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

/// The file at this path.
pub(super) fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

/// A file of the live page, with what it may do.
pub(super) fn show(file: &File) -> Page {
    let mut page = answer(StatusCode::OK, file.content_type, file.text);
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(OWN_FILES_ALONE));
    page
}

/// A page of plain text.
pub(super) fn text(status: StatusCode, body: &'static str) -> Page {
    answer(status, "text/plain; charset=utf-8", body)
}

/// A page of JSON.
pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Page {
    answer(status, "application/json", format!("{value}\n"))
}

/// A page of this type.
pub(super) fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Either::Left(Full::new(body.into())));
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    page
}

/// Scripts and styles are files of ours, requests go to us, and nothing makes markup of a text (Trusted Types).
const OWN_FILES_ALONE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: [File; 9] = [
    File { path: "/", content_type: HTML, text: include_str!("page/index.html") },
    File {
        path: "/page/style.css",
        content_type: "text/css; charset=utf-8",
        text: include_str!("page/style.css"),
    },
    File { path: "/page/icon.svg", content_type: "image/svg+xml", text: include_str!("page/icon.svg") },
    File { path: "/page/main.js", content_type: SCRIPT, text: include_str!("page/main.js") },
    File { path: "/page/server.js", content_type: SCRIPT, text: include_str!("page/server.js") },
    File { path: "/page/draw.js", content_type: SCRIPT, text: include_str!("page/draw.js") },
    File { path: "/page/routes.js", content_type: SCRIPT, text: include_str!("page/routes.js") },
    File { path: "/page/traces.js", content_type: SCRIPT, text: include_str!("page/traces.js") },
    File { path: "/page/system.js", content_type: SCRIPT, text: include_str!("page/system.js") },
];
