//! `cors` as written, and what it means.

use std::sync::Arc;
use std::time;

use http::header::{self, HeaderName};
use http::{HeaderValue, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::super::cors::{Cors, Names, Origin, Origins};
use super::super::route::Match;
use super::super::routes::served;
use super::leaf::{WrittenMethod, header_name};
use crate::setting::leaf::{schema, text};
use crate::setting::{Check, Duration, Written};

/// CORS as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ origins = [\"https://shop.example\"] }, or \"off\"")]
pub(super) struct WrittenCors {
    /// Whose pages may call: `"https://shop.example"`, `"https://*.shop.example"`, or `"*"` alone.
    origins: Written<Vec<Written<AnyOr>>>,
    /// What they may use; those of the route without it.
    methods: Written<Vec<Written<WrittenMethod>>>,
    /// What they may send beside content-type and trace context. Default: `[]`.
    headers: Written<Vec<Written<String>>>,
    /// What they may read beside retry-after, server-timing and x-request-id. Default: `[]`.
    expose: Written<Vec<Written<String>>>,
    /// Whether cookies and credentials go with it. Default: `false`.
    credentials: Written<bool>,
    /// How long a browser remembers that it may. Default: `"10m"`.
    max_age: Written<Duration>,
}

/// An origin, or any.
#[derive(Debug)]
enum AnyOr {
    Any,
    Origin(Origin),
}

impl WrittenCors {
    /// The rules as used; `None` only after a problem has been noted.
    pub(super) fn check(self, name: &str, matches: &Match, check: &Check<'_>) -> Option<Arc<Cors>> {
        let key = self.origins.key().clone();
        let origins = self.origins.required(check, "write origins = [\"https://shop.example\"]")?;
        if origins.is_empty() {
            check.wrong(&key, "is empty: no page may call", "name an origin, or write cors = \"off\"");
        }
        let mut listed = Vec::new();
        let mut any = false;
        for origin in origins.into_iter().filter_map(Written::into_option) {
            match origin {
                AnyOr::Any => any = true,
                AnyOr::Origin(origin) => listed.push(origin),
            }
        }
        if any && !listed.is_empty() {
            check.wrong(&key, "names origins beside any", "write [\"*\"] alone, or leave it out");
        }
        let headers_key = self.headers.key().clone();
        let names = |written: Written<Vec<Written<String>>>| {
            let names = written.into_option().into_iter().flatten();
            names.filter_map(|name| Some((name.get()?.clone(), name.key().clone()))).collect::<Vec<_>>()
        };
        let sent = names(self.headers);
        let any_header = sent.iter().any(|(name, _)| name == "*");
        let credentials = self.credentials.or(false);
        if credentials && any {
            let help = "name the origins: whoever may act for a user has to be known";
            check.wrong(&key, "cannot be any with credentials", help);
        }
        if credentials && any_header {
            check.wrong(&headers_key, "cannot be any with credentials", "name the fields");
        }
        let known = |names: Vec<(String, _)>, always: &[HeaderName]| {
            let others = names.into_iter().filter(|(name, _)| name != "*");
            let others = others.filter_map(|(name, key)| header_name(&name, &key, check));
            let mut all = always.to_vec();
            all.extend(others.filter(|name| !always.contains(name)));
            all
        };
        let own: Vec<Method> = served(matches);
        let methods: Vec<Method> = self.methods.into_elements().map(|WrittenMethod(method)| method).collect();
        let methods = match (methods.is_empty(), own.is_empty()) {
            (false, _) => methods,
            (true, false) => own,
            (true, true) => USUAL_METHODS.to_vec(),
        };
        let max_age: time::Duration = self.max_age.or(time::Duration::from_mins(10));
        Some(Arc::new(Cors {
            rule: format!("routes.{name}.cors").into(),
            origins: if any { Origins::Any } else { Origins::Listed(listed) },
            methods,
            headers: if any_header { Names::Any } else { Names::Listed(known(sent, &SENT)) },
            expose: known(names(self.expose), &READ),
            credentials,
            max_age: max_age.as_secs(),
        }))
    }
}

impl AnyOr {
    fn parse(written: &str) -> Result<Self, String> {
        if written == "*" {
            return Ok(Self::Any);
        }
        let wrong = |what: &str| {
            let help = "write scheme, host and, unless it is the usual one, port: \"https://shop.example\", \
                        \"https://*.shop.example\", or \"*\" for any";
            Err(format!("\"{written}\" {what}\n{help}"))
        };
        let Some((scheme, rest)) = written.split_once("://") else { return wrong("is not an origin") };
        if !matches!(scheme, "http" | "https") {
            return wrong("does not begin with http:// or https://");
        }
        let (wild, host) = rest.strip_prefix("*.").map_or((false, rest), |host| (true, host));
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
        if host.is_empty() || !host.bytes().all(plain) {
            return wrong("has more than scheme, host and port, or letters that are not lower-case");
        }
        let authority = host.parse::<http::uri::Authority>();
        let port = authority.as_ref().ok().and_then(http::uri::Authority::port_u16);
        if authority.is_err()
            || (host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']')) && port.is_none())
        {
            return wrong("is not an origin");
        }
        if matches!((scheme, port), ("http", Some(80)) | ("https", Some(443))) {
            return wrong("names the usual port, which browsers leave out");
        }
        if wild {
            let (scheme, suffix) = (format!("{scheme}://").into(), format!(".{host}").into());
            return Ok(Self::Origin(Origin::Under { scheme, suffix }));
        }
        match HeaderValue::from_str(written) {
            Ok(value) => Ok(Self::Origin(Origin::Exact(value))),
            Err(_) => wrong("is not an origin"),
        }
    }
}

impl<'de> Deserialize<'de> for AnyOr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an origin", Self::parse)
    }
}

schema!(AnyOr, { "type": "string", "examples": ["https://shop.example", "https://*.shop.example", "*"], "pattern": "^(\\*|https?://[^/]+)$" });

/// What pages may always send: a type of body, and what joins their trace to ours.
static SENT: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-request-id"),
];

/// What pages may always read: when to come again, and what to quote to support.
static READ: [HeaderName; 3] =
    [header::RETRY_AFTER, HeaderName::from_static("server-timing"), HeaderName::from_static("x-request-id")];

/// What pages may do on a route that serves every method.
static USUAL_METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

#[cfg(test)]
mod tests {
    use super::AnyOr;

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for (written, good) in [
            ("*", true),
            ("https://shop.example", true),
            ("http://localhost:3000", true),
            ("http://[::1]:3000", true),
            ("http://[::1]", true),
            ("https://*.shop.example:8443", true),
            ("https://shop.example/", false),
            ("https://shop.example:443", false),
            ("https://Shop.example", false),
            ("https://user@shop.example", false),
            ("https://shop.example:x", false),
            ("https://", false),
            ("https://*", false),
            ("shop.example", false),
            ("ftp://shop.example", false),
            ("null", false),
        ] {
            assert_eq!(AnyOr::parse(written).is_ok(), good, "{written}");
        }
    }
}
