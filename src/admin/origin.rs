//! Where a change comes from: by a cookie it is taken from our own page alone (CSRF).

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

/// Whether these fields are those of a request that a page of this very address makes: `Origin` names the scheme and
/// the host that it was sent to. Browsers send it with every POST (Fetch standard, "append a request `Origin` header").
pub(super) fn is_own(headers: &HeaderMap, tls: bool) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(Ok(host)), None) = (hosts.next().map(|host| host.to_str()), hosts.next()) else { return false };
    let scheme = if tls { "https://" } else { "http://" };
    let mut origins = headers.get_all(ORIGIN).iter();
    let (Some(Ok(origin)), None) = (origins.next().map(|origin| origin.to_str()), origins.next()) else {
        return false;
    };
    origin.strip_prefix(scheme).is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use http::header::{HOST, HeaderMap, HeaderValue, ORIGIN};

    use super::is_own;

    #[test]
    fn only_the_page_of_this_address_is_our_own() {
        for (origin, tls, own) in [
            ("https://gate.example:9901", true, true),
            ("https://GATE.example:9901", true, true),
            ("http://gate.example:9901", true, false),
            ("http://gate.example:9901", false, true),
            ("https://gate.example", true, false),
            ("https://evil.example", true, false),
            ("null", true, false),
            ("", true, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("gate.example:9901"));
            assert!(!is_own(&headers, tls));
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            assert_eq!(is_own(&headers, tls), own, "{origin} {tls}");
        }
    }
}
