//! `[auth.NAME.forward]` as written.

use std::time::Duration as Time;

use http::header::{self, HeaderName};
use http::uri::PathAndQuery;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::field::{is_of_a_message, is_of_the_gateway, names};
use crate::http::auth::forward::{self, OnFailure};
use crate::setting::check::nearest;
use crate::setting::leaf::{schema, text, words};
use crate::setting::{Check, Duration, Size, Written};
use crate::upstream;

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct WrittenForward {
    /// The upstream that is asked.
    upstream: Written<String>,
    /// What it is asked for, by GET; may have a query. Default: `"/"`.
    path: Written<Target>,
    /// Fields of the client's that it gets, and no others. Default: `["accept", "authorization", "cookie"]`.
    request_headers: Written<Vec<Written<String>>>,
    /// Fields of a 2xx answer that the upstream of the route gets. No client can set them, on any route. Default:
    /// `[]`.
    answer_headers: Written<Vec<Written<String>>>,
    /// The one of them that says who it is; nobody is known without it.
    subject: Written<String>,
    /// Fields of a refusal that the client gets. Default: `["cache-control", "content-encoding", "content-type",
    /// "location", "retry-after", "set-cookie", "www-authenticate"]`.
    refusal_headers: Written<Vec<Written<String>>>,
    /// Of a refusal's body that the client gets. Default: `"64KiB"`.
    body_bytes: Written<Size>,
    /// Of the whole question, a second try included. Default: `"1s"`.
    timeout: Written<Duration>,
    /// Whether requests pass, unverified, while nobody answers: "open", or not. Default: `"closed"`.
    on_failure: Written<OnFailure>,
}

/// The upstreams that a rule may ask.
#[derive(Debug, Clone, Copy)]
pub struct Services<'a> {
    /// The names of all.
    pub names: &'a [String],
    /// Those that are right.
    pub known: &'a [upstream::Settings],
}

impl WrittenForward {
    /// The rule as used. What its answers say is told to the upstream by the names that it has there.
    pub(super) fn check(
        self,
        identity_headers: &mut Vec<(HeaderName, Box<str>)>,
        services: Services<'_>,
        check: &Check<'_>,
    ) -> Option<forward::Settings> {
        let key = self.upstream.key().clone();
        let name = self.upstream.required(check, "name the upstream that decides: upstream = \"portal\"")?;
        if !services.names.contains(&name) {
            let help = match nearest(&name, services.names.iter().map(String::as_str)) {
                Some(meant) => format!("write \"{meant}\""),
                None => format!("add the table [upstreams.{name}]"),
            };
            check.wrong(&key, format!("there is no upstream \"{name}\""), help);
        }
        let upstream = services.known.iter().find(|known| *known.name == *name);
        let of_request = "write a field of the client's that the service goes by, such as \"cookie\"";
        let credentials = [header::ACCEPT, header::AUTHORIZATION, header::COOKIE];
        let of_refusal = "write a field that a refusal may have, such as \"location\"";
        let of_answer = "write a field that says who it is, such as \"x-user\"";
        let answer_headers: Vec<HeaderName> =
            names(self.answer_headers, of_answer, is_of_the_gateway, check).unwrap_or_default();
        identity_headers.extend(answer_headers.iter().map(|name| (name.clone(), Box::from(name.as_str()))));
        let subject_key = self.subject.key().clone();
        let subject =
            self.subject.into_option().and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        if let Some(name) = subject.as_ref().filter(|name| !answer_headers.contains(name)) {
            let what = format!("{name} is not one of answer_headers");
            check.wrong(&subject_key, what, "list it there: it is the answer's field that names who it is");
        }
        Some(forward::Settings {
            upstream: upstream?.clone(),
            target: self.path.into_option().map_or(PathAndQuery::from_static("/"), |Target(target)| target),
            request_headers: names(self.request_headers, of_request, is_of_the_gateway, check)
                .unwrap_or_else(|| credentials.into()),
            answer_headers,
            subject,
            refusal_headers: names(self.refusal_headers, of_refusal, is_of_a_message, check)
                .unwrap_or_else(|| REFUSAL.into()),
            body_bytes: self.body_bytes.or(64 << 10),
            timeout: self.timeout.or(Time::from_secs(1)),
            on_failure: self.on_failure.or(OnFailure::Closed),
        })
    }
}

/// What a refusal says to the client unless other fields are listed.
const REFUSAL: [HeaderName; 7] = [
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::LOCATION,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::WWW_AUTHENTICATE,
];

/// The path that a service is asked for, perhaps with a query.
#[derive(Debug)]
struct Target(PathAndQuery);

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a path", |written| {
            let target = written.parse().ok().filter(|_| written.starts_with('/') && !written.contains('#'));
            let wrong = || format!("\"{written}\" is not a path\nwrite a path such as \"/verify\"");
            target.map(Self).ok_or_else(wrong)
        })
    }
}

schema!(Target, { "type": "string", "examples": ["/", "/verify"], "pattern": "^/[^#]*$" });

words!(OnFailure, [("closed", Self::Closed), ("open", Self::Open)]);
