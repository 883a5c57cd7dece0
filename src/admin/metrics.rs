//! `/metrics`: in the format that the scraper would rather have, rendered and compressed where it holds up no request.

use std::sync::Arc;

use http::StatusCode;
use http::header::{ACCEPT, CONTENT_ENCODING, HeaderMap, HeaderValue, VARY};

use super::control::Control;
use super::page::{Page, answer, text};
use crate::http::accept::coding_quality;
use crate::net::gzip::gzip;
use crate::telemetry::metrics::Format;

/// The metrics page.
pub(super) async fn page(control: Arc<dyn Control>, headers: &HeaderMap) -> Page {
    let format = wanted(headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()));
    // not by the layer that compresses the other pages: it would hold up a worker for as long as 16 MB take
    let compressed = coding_quality(headers, "gzip") > 0;
    let made = move || {
        let metrics = control.metrics(format).into_bytes();
        if compressed { gzip(&metrics) } else { metrics }
    };
    match tokio::task::spawn_blocking(made).await {
        Ok(metrics) => {
            let mut page = answer(StatusCode::OK, format.content_type(), metrics);
            page.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
            if compressed {
                page.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            page
        }
        Err(error) => {
            tracing::error!(%error, "rendering metrics failed");
            text(StatusCode::INTERNAL_SERVER_ERROR, "rendering failed")
        }
    }
}

/// The format that `Accept` prefers (RFC 9110 section 12.5.1). OpenMetrics is only for those who name it: to
/// `*/*` the page stays what it always was.
fn wanted<'a>(accept: impl Iterator<Item = &'a str>) -> Format {
    let mut open_metrics: f32 = 0.0;
    let mut text = [None; 3];
    for range in accept.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut known_version) = (1.0, true);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                "version" => known_version = value.trim().trim_matches('"') == "1.0.0",
                _ => {}
            }
        }
        match &*media_type {
            "application/openmetrics-text" if known_version => open_metrics = open_metrics.max(quality),
            "text/plain" => text[0] = Some(quality),
            "text/*" => text[1] = Some(quality),
            "*/*" => text[2] = Some(quality),
            _ => {}
        }
    }
    // the most specific range counts
    let text = text.into_iter().flatten().next().unwrap_or(0.0);
    if open_metrics > 0.0 && open_metrics >= text { Format::OpenMetrics } else { Format::Text }
}

#[cfg(test)]
mod tests {
    use super::{Format, wanted};

    #[test]
    fn a_scraper_gets_the_format_that_it_prefers() {
        use Format::{OpenMetrics, Text};
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,\
                            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                            application/openmetrics-text;version=0.0.1;q=0.5,\
                            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (&[][..], Text),
            (&["*/*"], Text),
            (&["text/html", "*/*;q=0.8"], Text),
            (&[prometheus_2], OpenMetrics),
            (&[prometheus_3], OpenMetrics),
            (&["Application/OpenMetrics-Text"], OpenMetrics),
            (&["application/openmetrics-text; version=\"1.0.0\""], OpenMetrics),
            (&["application/openmetrics-text;version=2.0.0"], Text),
            (&["application/openmetrics-text;q=0"], Text),
            (&["application/openmetrics-text;q=0.1, text/plain;q=0.2"], Text),
            (&["application/openmetrics-text;q=0.3", "*/*;q=0.9, text/plain;q=0.2"], OpenMetrics),
            (&["application/openmetrics-text;q=x"], Text),
        ] {
            assert_eq!(wanted(accept.iter().copied()), expected, "{accept:?}");
        }
    }
}
