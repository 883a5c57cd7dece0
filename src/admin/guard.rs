//! Who may ask the admin address: nobody's browser under another name (DNS rebinding), no other site's page.

use std::net::IpAddr;

use http::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// Lets a request pass that names this machine in `Host` and comes from no other origin.
///
/// A name that resolves here does not suffice: its owner can let it resolve to anything. The port does not
/// matter, it may have been forwarded.
pub(super) fn check(uri: &Uri, headers: &HeaderMap, bound: IpAddr) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else {
        return Err("one Host is needed");
    };
    let target = uri.authority().map_or(host, Authority::as_str);
    if !is_ours(host, bound) || !is_ours(target, bound) {
        return Err("this Host is not served here");
    }
    let same = |origin: &str| origin.strip_prefix("http://").is_some_and(|o| o.eq_ignore_ascii_case(host));
    match headers.get(ORIGIN).map(|origin| origin.to_str()) {
        None => Ok(()),
        Some(Ok(origin)) if same(origin) => Ok(()),
        Some(_) => Err("no other Origin is served here"),
    }
}

/// Whether a browser says that another site's page has asked, of a request over TLS. A client that is no browser says
/// nothing.
pub(super) fn is_of_another_site(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let same = |origin: &str| origin.strip_prefix("https://").is_some_and(|o| o.eq_ignore_ascii_case(host));
    let origin = headers.get(ORIGIN).is_some_and(|origin| !origin.to_str().is_ok_and(same));
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    origin || site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"))
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

fn is_ours(host: &str, bound: IpAddr) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    match literal.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address == bound,
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::header::{HOST, ORIGIN};
    use http::{HeaderMap, HeaderValue, Uri};

    use super::check;

    #[test]
    fn only_this_machine_by_its_own_names_passes() {
        for (host, passes) in [
            ("127.0.0.1", true),
            ("127.0.0.1:9901", true),
            ("127.1.2.3:1", true),
            ("[::1]:9901", true),
            ("localhost", true),
            ("LocalHost:80", true),
            ("10.0.0.7:9901", true),
            ("10.0.0.8:9901", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("localhost@evil.example", false),
            ("", false),
            ("a b", false),
        ] {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_str(host).unwrap())]);
            let verdict = check(&Uri::from_static("/"), &headers, IpAddr::from([10, 0, 0, 7]));
            assert_eq!(verdict.is_ok(), passes, "{host}");
        }
    }

    #[test]
    fn the_target_counts_as_much_as_the_host() {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("localhost"))]);
        let bound = IpAddr::from([127, 0, 0, 1]);
        assert!(check(&Uri::from_static("http://localhost/status"), &headers, bound).is_ok());
        assert!(check(&Uri::from_static("http://evil.example/status"), &headers, bound).is_err());
    }

    #[test]
    fn one_host_is_needed_and_only_one() {
        let bound = IpAddr::from([127, 0, 0, 1]);
        let mut headers = HeaderMap::new();
        assert!(check(&Uri::from_static("/"), &headers, bound).is_err());
        headers.append(HOST, HeaderValue::from_static("localhost"));
        assert!(check(&Uri::from_static("/"), &headers, bound).is_ok());
        headers.append(HOST, HeaderValue::from_static("localhost"));
        assert!(check(&Uri::from_static("/"), &headers, bound).is_err());
    }

    #[test]
    fn an_origin_passes_only_if_it_is_the_host_itself() {
        for (origin, passes) in [
            ("http://localhost:9901", true),
            ("http://localhost", false),
            ("https://localhost:9901", false),
            ("http://evil.example", false),
            ("null", false),
        ] {
            let headers = HeaderMap::from_iter([
                (HOST, HeaderValue::from_static("localhost:9901")),
                (ORIGIN, HeaderValue::from_str(origin).unwrap()),
            ]);
            let verdict = check(&Uri::from_static("/"), &headers, IpAddr::from([127, 0, 0, 1]));
            assert_eq!(verdict.is_ok(), passes, "{origin}");
        }
    }
}
