//! From a request's head to its route: the checks that no route may skip, the path normalised once, the table.

use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Uri, Version, request};
use tokio::time::Instant;

use super::body::RequestBody;
use super::cors;
use super::exchange::{Parameters, Request, Routed};
use super::headers::{self, Fields, Peer};
use super::path;
use super::route::Route;
use super::routes::{Found, Routes};
use super::split::Chosen;
use crate::failure::{Detail, Failure, Reason};
use crate::listener::Limits;
use crate::telemetry::Handle;

/// A request that has found its route.
pub(super) struct Dispatched {
    pub(super) route: Arc<Route>,
    /// Which of the route's upstreams it is for, by index.
    pub(super) upstream: usize,
    pub(super) request: Request,
}

/// Checks one request and finds its route.
pub(super) fn dispatch(
    routes: &Routes,
    limits: &Limits,
    peer: &Arc<Peer>,
    mut head: request::Parts,
    fields: Fields,
    body: RequestBody,
    handle: &Handle,
) -> Result<Dispatched, Failure> {
    let host = admit(limits, peer, &mut head, fields)?;
    let (route, parameters) = route(routes, &host, &head)?;
    let chosen = route.choice.as_ref().map(|choice| choice.choose(&mut head.headers, peer));
    let Chosen { upstream, returning } = chosen.unwrap_or_default();
    handle.route(&route.target(upstream).labels);
    let after = |timeout| Instant::from_std(handle.started()) + timeout;
    let ends = route.exchange_timeout.map(after);
    let deadline =
        route.request_timeout.map(after).map_or(ends, |head| Some(ends.map_or(head, |ends| head.min(ends))));
    let (handle, peer) = (handle.clone(), Arc::clone(peer));
    let identity = None;
    let request = Box::new(Routed {
        head,
        kept_head: None,
        fields,
        host,
        body,
        handle,
        peer,
        parameters,
        identity,
        deadline,
        ends,
        returning,
    });
    Ok(Dispatched { route, upstream, request })
}

/// The checks that no route may skip. The head goes on with one host, which is told, and its path normalised.
pub(super) fn admit(
    limits: &Limits,
    peer: &Peer,
    head: &mut request::Parts,
    fields: Fields,
) -> Result<String, Failure> {
    if peer.plain_on_tls {
        return Err(Failure::new(Reason::BadRequest).detail(Detail::PlainHttp));
    }
    check_size(head, limits)?;
    check_method(&head.method)?;
    if fields.have(Fields::TRANSFER_ENCODING) {
        check_length(head)?;
    }
    let host = take_host(head)?;
    if peer.session.as_ref().is_some_and(|session| session.is_misdirected(&host)) {
        return Err(Reason::Misdirected.into());
    }
    take_path(head)?;
    if fields.have(Fields::VIA) && headers::is_loop(&head.headers) {
        return Err(Reason::LoopDetected.into());
    }
    headers::remove_counterfeits(&mut head.headers, fields);
    Ok(host)
}

/// The route of a request that has been admitted, and the parameters of its path.
pub(super) fn route(
    routes: &Routes,
    host: &str,
    head: &request::Parts,
) -> Result<(Arc<Route>, Parameters), Failure> {
    match find(routes, host, head) {
        Found::Route(route, parameters) => Ok((route, parameters)),
        Found::OtherMethods(methods) => {
            Err(Failure::new(Reason::MethodNotAllowed).field(header::ALLOW, headers::allow(&methods)))
        }
        Found::Nothing => Err(Reason::NoRoute.into()),
    }
}

/// The route of a request; a preflight's is that of the request it asks about, unless a route names `OPTIONS`.
fn find(routes: &Routes, host: &str, head: &request::Parts) -> Found {
    let (path, headers) = (head.uri.path(), &head.headers);
    let found = routes.find(host, path, &head.method, headers);
    if !cors::is_preflight(&head.method, headers) {
        return found;
    }
    let names_options = |route: &Route| route.matches.methods.contains(&Method::OPTIONS);
    if matches!(&found, Found::Route(route, _) if names_options(route)) {
        return found;
    }
    let asked = cors::requested_method(headers).map(|method| routes.find(host, path, &method, headers));
    match asked {
        Some(Found::Route(route, parameters)) if route.answers_preflights() => {
            Found::Route(route, parameters)
        }
        _ => found,
    }
}

/// The listener's limits on the head. hyper's own are wider, so that these are the ones a client meets.
fn check_size(head: &request::Parts, limits: &Limits) -> Result<(), Failure> {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len())
        + head.uri.authority().map_or(0, |authority| authority.as_str().len());
    if target > limits.uri_bytes {
        return Err(Reason::UriTooLong.into());
    }
    if head.headers.len() > limits.header_count {
        return Err(Failure::new(Reason::HeaderTooLarge).detail(Detail::FieldCount));
    }
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > limits.header_bytes {
        return Err(Reason::HeaderTooLarge.into());
    }
    Ok(())
}

/// `CONNECT` is for proxies of another kind; `TRACE` would show a client what others added (RFC 9110
/// section 9.3.8 has it optional).
fn check_method(method: &Method) -> Result<(), Failure> {
    match *method {
        Method::CONNECT => Err(Failure::new(Reason::Unsupported).detail(Detail::Method)),
        Method::TRACE => {
            let allowed = [
                Method::DELETE,
                Method::GET,
                Method::HEAD,
                Method::OPTIONS,
                Method::PATCH,
                Method::POST,
                Method::PUT,
            ];
            let failure = Failure::new(Reason::MethodNotAllowed).detail(Detail::Method);
            Err(failure.field(header::ALLOW, headers::allow(&allowed)))
        }
        _ => Ok(()),
    }
}

/// One way only to tell where the body ends (RFC 9112 section 6): anything but exactly one `chunked` is
/// refused before the body is touched; HTTP/1.0 has no chunks.
fn check_length(head: &request::Parts) -> Result<(), Failure> {
    let ambiguous = || Failure::new(Reason::BadRequest).detail(Detail::AmbiguousLength);
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        if !chunked || codings.next().is_some() || head.version != Version::HTTP_11 {
            return Err(ambiguous());
        }
    }
    Ok(())
}

/// The host the request is for, lower case and without port. One, valid, and the same wherever it is stated
/// (RFC 9112 section 3.2, RFC 9113 section 8.3.1); it goes on as `Host`.
fn take_host(head: &mut request::Parts) -> Result<String, Failure> {
    let invalid = || Failure::new(Reason::BadRequest).detail(Detail::InvalidHost);
    let mut stated = head.headers.get_all(header::HOST).iter();
    let field = stated.next();
    if stated.next().is_some() {
        return Err(invalid());
    }
    if let (None, Some(host)) = (head.uri.authority(), field.and_then(plain_host)) {
        return Ok(host);
    }
    let authority = match (head.uri.authority(), field) {
        (Some(target), Some(field)) if head.version == Version::HTTP_2 => {
            if !target.as_str().as_bytes().eq_ignore_ascii_case(field.as_bytes()) {
                return Err(invalid());
            }
            target.clone()
        }
        // absolute form: the target's counts, and HTTP/1.1 has a Host all the same (RFC 9112 sections 3.2 and 3.2.2)
        (Some(_), None) if head.version == Version::HTTP_11 => return Err(invalid()),
        (Some(target), _) => target.clone(),
        (None, Some(field)) if field.is_empty() => return Ok(String::new()),
        (None, Some(field)) => Authority::try_from(field.as_bytes()).map_err(|_| invalid())?,
        (None, None) if head.version == Version::HTTP_10 => return Ok(String::new()),
        (None, None) => return Err(invalid()),
    };
    let port = authority.as_str().strip_prefix(authority.host());
    let several = authority.host().contains(',');
    if several || port.is_none_or(|port| port.len() > 1 && authority.port_u16().is_none()) {
        // user information, no port, or two fields that somebody has joined
        return Err(invalid());
    }
    if head.uri.authority().is_some() {
        let value = HeaderValue::from_str(authority.as_str()).map_err(|_| invalid())?;
        head.headers.insert(header::HOST, value);
    }
    let host = authority.host().trim_end_matches('.');
    Ok(host.to_ascii_lowercase())
}

/// The name in a `Host` that is nothing but a name and perhaps a port, as nearly all are: lower case.
fn plain_host(field: &HeaderValue) -> Option<String> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let field = field.as_bytes();
    let (name, rest) = field.split_at(field.iter().take_while(|byte| plain(byte)).count());
    let port = match rest {
        [] => 0,
        [b':', digits @ ..] if (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) => {
            digits.iter().fold(0, |port, digit| port * 10 + u32::from(digit - b'0'))
        }
        _ => return None,
    };
    let mut name = String::from_utf8(name.to_ascii_lowercase()).ok()?;
    name.truncate(name.trim_end_matches('.').len());
    (!name.is_empty() && u16::try_from(port).is_ok()).then_some(name)
}

/// The target's path, normalised, in origin form. `OPTIONS *` asks about the server as a whole: it is routed
/// as `/`.
fn take_path(head: &mut request::Parts) -> Result<(), Failure> {
    let origin_form = head.uri.authority().is_none();
    if !origin_form && head.uri.scheme().is_none() {
        // a bare authority is for CONNECT (RFC 9112 section 3.2.3)
        return Err(Failure::new(Reason::BadRequest).detail(Detail::InvalidPath));
    }
    if head.uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err(Failure::new(Reason::BadRequest).detail(Detail::InvalidPath));
    }
    let written = head.uri.path();
    let normalised = match written {
        "*" if head.method == Method::OPTIONS => "/".into(),
        "" => "/".into(),
        written => path::normalise(written)?,
    };
    if origin_form && matches!(normalised, std::borrow::Cow::Borrowed(path) if path == written) {
        return Ok(());
    }
    let target = match head.uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{normalised}?{query}")),
        None => PathAndQuery::try_from(normalised.into_owned()),
    };
    let target = target.map_err(|_| Failure::new(Reason::BadRequest).detail(Detail::InvalidPath))?;
    head.uri = Uri::from(target);
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{Request, Version, request};

    use super::{check_length, take_host, take_path};

    fn head(version: Version, target: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn a_request_is_for_one_host_however_it_is_stated() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        for (version, target, fields, expected) in [
            (one, "/", &[("host", "Shop.Example:8080")][..], Some("shop.example")),
            (one, "/", &[("host", "shop.example.")], Some("shop.example")),
            (one, "/", &[("host", "[::1]:80")], Some("[::1]")),
            (one, "http://shop.example/x", &[("host", "other")], Some("shop.example")),
            (one, "http://shop.example/x", &[], None),
            (Version::HTTP_10, "http://shop.example/x", &[], Some("shop.example")),
            (one, "/", &[("host", "")], Some("")),
            (one, "/", &[], None),
            (one, "/", &[("host", "a"), ("host", "a")], None),
            (one, "/", &[("host", "user@a")], None),
            (one, "/", &[("host", "a b")], None),
            (one, "/", &[("host", "a/b")], None),
            (one, "/", &[("host", "a:99999")], None),
            (one, "/", &[("host", "a,b")], None),
            (Version::HTTP_10, "/", &[], Some("")),
            (two, "http://shop.example/", &[], Some("shop.example")),
            (two, "http://shop.example/", &[("host", "shop.example")], Some("shop.example")),
            (two, "http://shop.example/", &[("host", "other")], None),
        ] {
            let mut head = head(version, target, fields);
            let host = take_host(&mut head).ok();
            assert_eq!(host.as_deref(), expected, "{version:?} {target} {fields:?}");
        }
    }

    #[test]
    fn the_body_has_one_length_or_the_request_is_refused() {
        for (version, fields, fine) in [
            (Version::HTTP_11, &[("transfer-encoding", "chunked")][..], true),
            (Version::HTTP_11, &[("transfer-encoding", " Chunked ")], true),
            (Version::HTTP_11, &[("transfer-encoding", "gzip, chunked")], false),
            (Version::HTTP_11, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], false),
            (Version::HTTP_11, &[("transfer-encoding", "identity")], false),
            (Version::HTTP_11, &[("transfer-encoding", "xchunked")], false),
            (Version::HTTP_10, &[("transfer-encoding", "chunked")], false),
            (Version::HTTP_11, &[], true),
        ] {
            let head = head(version, "/", fields);
            assert_eq!(check_length(&head).is_ok(), fine, "{version:?} {fields:?}");
        }
    }

    #[test]
    fn the_target_goes_on_in_origin_form_with_its_query() {
        for (target, expected) in [
            ("/a/b?x=%2f", "/a/b?x=%2f"),
            ("/a/../b?x=1", "/b?x=1"),
            ("http://h/a//b?x", "/a/b?x"),
            ("http://h", "/"),
        ] {
            let mut head = head(Version::HTTP_11, target, &[]);
            take_path(&mut head).expect(target);
            assert_eq!(head.uri.to_string(), expected);
        }
    }
}
