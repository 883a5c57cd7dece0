//! CORS (Fetch standard section 3.3): which pages of other origins may call a route from a browser, and read what.
//!
//! It tells browsers what to allow; it keeps nobody else out. The gateway is the one who speaks: what an
//! upstream says of it is replaced.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::body::Body;
use super::exchange::Response;
use super::headers;
use crate::failure::{Detail, Failure, Reason};

/// What a route says of CORS, as used.
#[derive(Debug, Clone)]
pub struct Cors {
    /// The rule, as the operator wrote it: `routes.shop.cors`.
    pub rule: Arc<str>,
    /// Whose pages may.
    pub origins: Origins,
    /// With which methods.
    pub methods: Vec<Method>,
    /// With which fields beside those that are always allowed.
    pub headers: Names,
    /// Which fields of an answer they may read beside those that are always readable.
    pub expose: Vec<HeaderName>,
    /// Whether with cookies, and so on behalf of somebody.
    pub credentials: bool,
    /// How long a browser may remember what a preflight was told, in seconds.
    pub max_age: u64,
}

/// Whose pages may call.
#[derive(Debug, Clone)]
pub enum Origins {
    /// Anybody's.
    Any,
    /// Those of these origins.
    Listed(Vec<Origin>),
}

/// An origin: scheme, host and port, lower case, as browsers send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This very one.
    Exact(HeaderValue),
    /// Those of hosts under a name: `https://` and `.shop.example:8443` stand around one or more labels.
    Under {
        /// The scheme, up to the host.
        scheme: Box<str>,
        /// The host's end, from the dot on, with the port.
        suffix: Box<str>,
    },
}

/// Names of header fields.
#[derive(Debug, Clone)]
pub enum Names {
    /// Every one.
    Any,
    /// These.
    Listed(Vec<HeaderName>),
}

impl Cors {
    /// Who may do what, in words.
    pub fn told(&self) -> String {
        let origin = |origin: &Origin| match origin {
            Origin::Exact(origin) => String::from_utf8_lossy(origin.as_bytes()).into_owned(),
            Origin::Under { scheme, suffix } => format!("{scheme}*{suffix}"),
        };
        let origins = match &self.origins {
            Origins::Any => "any origin".to_owned(),
            Origins::Listed(listed) => listed.iter().map(origin).collect::<Vec<_>>().join(", "),
        };
        let methods: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        let credentials = if self.credentials { ", with credentials" } else { "" };
        format!("pages of {origins} may use {}{credentials}", methods.join(", "))
    }

    /// What `Access-Control-Allow-Origin` says to this origin; `None` if it may not call.
    pub(super) fn allows(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.origins {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::Listed(origins) => origins.iter().find_map(|known| known.allows(origin)),
        }
    }

    /// The answer to a preflight. Who is allowed is said of every answer alike, by [`Cors::say`].
    pub(super) fn preflight(&self, request: &HeaderMap) -> Result<Response, Failure> {
        let refused = |detail| Failure::new(Reason::Forbidden).detail(detail).rule(&self.rule);
        if request.get(header::ORIGIN).is_none_or(|origin| self.allows(origin).is_none()) {
            return Err(refused(Detail::CorsOrigin));
        }
        if !requested_method(request).is_some_and(|method| self.methods.contains(&method)) {
            return Err(refused(Detail::CorsMethod));
        }
        let requested = requested_headers(request).ok_or_else(|| refused(Detail::CorsHeader))?;
        let allowed = match &self.headers {
            Names::Any => requested,
            Names::Listed(names) if requested.iter().all(|name| names.contains(name)) => names.clone(),
            Names::Listed(_) => return Err(refused(Detail::CorsHeader)),
        };
        let mut answer = Response::new(Body::Empty);
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, headers::allow(&self.methods));
        if !allowed.is_empty() {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, list(&allowed));
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age));
        // some caches keep answers to OPTIONS, although none may (RFC 9110 section 9.3.7)
        for name in ["access-control-request-method", "access-control-request-headers"] {
            headers::vary(headers, name);
        }
        Ok(answer)
    }

    /// Says on an answer who may read it and what of it, to an origin that is [allowed](Cors::allows) or to none.
    pub(super) fn say(&self, headers: &mut HeaderMap, allowed: Option<&HeaderValue>, preflight: bool) {
        if !preflight {
            for name in &SAID {
                headers.remove(name);
            }
        }
        if !matches!(self.origins, Origins::Any) {
            headers::vary(headers, "origin");
        }
        let Some(allowed) = allowed else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed.clone());
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if !preflight {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, list(&self.expose));
        }
    }
}

impl Origin {
    fn allows(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Self::Exact(known) => (known == origin).then(|| known.clone()),
            Self::Under { scheme, suffix } => {
                let labels = origin.to_str().ok()?.strip_prefix(&**scheme)?.strip_suffix(&**suffix)?;
                let plain =
                    |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
                (!labels.is_empty() && labels.bytes().all(plain)).then(|| origin.clone())
            }
        }
    }
}

/// Whether this is what a browser asks before it sends what was not always allowed to pages (Fetch standard section 4.8).
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(header::ORIGIN) && requested_method(headers).is_some()
}

/// The method that a preflight asks about.
pub(super) fn requested_method(headers: &HeaderMap) -> Option<Method> {
    let requested = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(requested.as_bytes()).ok()
}

/// The fields that a preflight asks about; `None` if these are no names.
fn requested_headers(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    headers
        .get_all(header::ACCESS_CONTROL_REQUEST_HEADERS)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
        .map(|name| HeaderName::from_bytes(name).ok())
        .collect()
}

fn list(names: &[HeaderName]) -> HeaderValue {
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::try_from(names.join(", ")).expect("names of fields and commas")
}

/// What an upstream may have said.
static SAID: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::{Cors, Names, Origin, Origins};

    fn cors(origins: Origins) -> Cors {
        Cors {
            rule: "routes.shop.cors".into(),
            origins,
            methods: vec![http::Method::GET],
            headers: Names::Any,
            expose: Vec::new(),
            credentials: false,
            max_age: 60,
        }
    }

    #[test]
    fn an_origin_is_allowed_by_its_whole_name_or_under_a_suffix() {
        let listed = cors(Origins::Listed(vec![
            Origin::Exact(HeaderValue::from_static("https://shop.example")),
            Origin::Under { scheme: "https://".into(), suffix: ".partner.example:8443".into() },
        ]));
        for (origin, allowed) in [
            ("https://shop.example", true),
            ("http://shop.example", false),
            ("https://shop.example:8443", false),
            ("https://shop.example.evil.example", false),
            ("https://a.partner.example:8443", true),
            ("https://a.b.partner.example:8443", true),
            ("https://partner.example:8443", false),
            ("https://.partner.example:8443", false),
            ("https://evil.example/.partner.example:8443", false),
            ("https://a.partner.example", false),
            ("null", false),
        ] {
            let told = listed.allows(&HeaderValue::from_static(origin));
            assert_eq!(
                told.as_ref().map(HeaderValue::as_bytes),
                allowed.then_some(origin.as_bytes()),
                "{origin}"
            );
        }
        let any = cors(Origins::Any).allows(&HeaderValue::from_static("https://anybody.example"));
        assert_eq!(any.expect("allowed"), "*");
    }
}
