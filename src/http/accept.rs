//! What a client would rather have (RFC 9110 section 12.5): pages or problem+json, and in which coding.

use http::header::{self, HeaderMap, HeaderValue};

/// Whether the client asks for a page for people: `text/html` by name, before JSON.
pub fn prefers_html(headers: &HeaderMap) -> bool {
    let mut best = (0, false);
    for (media_type, quality) in elements(headers.get_all(header::ACCEPT).iter()) {
        let is_html = media_type.eq_ignore_ascii_case("text/html")
            || media_type.eq_ignore_ascii_case("application/xhtml+xml");
        let is_json = media_type.eq_ignore_ascii_case("application/json")
            || media_type.eq_ignore_ascii_case("application/problem+json");
        if (is_html || is_json) && quality > best.0 {
            best = (quality, is_html);
        }
    }
    best.1
}

/// How much the client wants a content coding, in thousandths: what it says of it by name, else of any, else
/// nothing.
pub fn coding_quality(headers: &HeaderMap, coding: &str) -> u16 {
    let (mut any, mut named) = (0, None);
    for (element, quality) in elements(headers.get_all(header::ACCEPT_ENCODING).iter()) {
        if element.eq_ignore_ascii_case(coding) {
            named = named.max(Some(quality));
        } else if element == "*" {
            any = quality;
        }
    }
    named.unwrap_or(any)
}

/// The elements of a list with their quality in thousandths; one whose quality cannot be read has none.
fn elements<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> impl Iterator<Item = (&'a str, u16)> {
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(|element| {
        let mut parts = element.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        (name, weight.map_or(1000, thousandths))
    })
}

/// A weight (RFC 9110 section 12.4.2): from 0 to 1 with at most three digits.
fn thousandths(weight: &str) -> u16 {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    match whole {
        "1" => 1000,
        "0" => format!("{fraction:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::{coding_quality, prefers_html};

    #[test]
    fn a_page_is_for_those_who_ask_for_one_by_name() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("text/html", true),
            ("TEXT/HTML; charset=utf-8", true),
            ("application/json, text/html;q=0.9", false),
            ("application/json;q=0.5, text/html;q=0.9", true),
            ("application/json, text/html", false),
            ("text/html, application/json", true),
            ("text/html;q=0", false),
            ("text/html;q=2", false),
            ("*/*", false),
            ("text/*", false),
            ("application/json", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(http::header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(prefers_html(&headers), expected, "{accept}");
        }
        assert!(!prefers_html(&HeaderMap::new()));
    }

    #[test]
    fn a_coding_is_wanted_as_much_as_the_client_says() {
        for (accept, coding, expected) in [
            ("gzip, br, zstd", "br", 1000),
            ("gzip;q=0.5, br;q=0.25", "gzip", 500),
            ("gzip; q=0.123", "gzip", 123),
            ("*", "zstd", 1000),
            ("*;q=0.1, gzip", "zstd", 100),
            ("gzip;q=0, *", "gzip", 0),
            ("identity", "gzip", 0),
            ("GZIP", "gzip", 1000),
            ("gzip;q=1.0000", "gzip", 0),
        ] {
            let headers = HeaderMap::from_iter([(http::header::ACCEPT_ENCODING, accept.parse().unwrap())]);
            assert_eq!(coding_quality(&headers, coding), expected, "{accept} {coding}");
        }
    }
}
