//! `retry` of a route as written, and what it means.

use http::StatusCode;
use schemars::JsonSchema;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

use super::super::retry::{On, Rule};
use crate::setting::leaf::{schema, text, words};
use crate::setting::{Check, Count, Duration, OrOff, Size, Written};
use crate::telemetry::operation::MAX_ATTEMPTS;

/// What is sent again, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ attempts = 3, statuses = [503] } or \"off\"")]
pub(super) struct Retry {
    /// Attempts in all, the first one included. Default: `3`.
    attempts: Written<Count>,
    /// After which failures. Default: `["failover", "reused", "refused"]`.
    on: Written<Vec<Written<On>>>,
    /// After which statuses. Default: `[]`.
    statuses: Written<Vec<Written<Status>>>,
    /// After which gRPC statuses. Default: `[]`.
    grpc_statuses: Written<Vec<Written<GrpcStatus>>>,
    /// Whether POST and PATCH are sent again, too. Default: `false`.
    non_idempotent: Written<bool>,
    /// How long is waited at most, doubled each time. Default: `"25ms"`.
    backoff: Written<Duration>,
    /// The longest of these waits. Default: `"250ms"`.
    max_backoff: Written<Duration>,
    /// The longest Retry-After that is waited for. Default: `"1s"`.
    #[serde(rename = "retry_after")]
    asked: Written<OrOff<Duration>>,
    /// How much is kept of a body to be sent again. Default: `"64KiB"`.
    body: Written<OrOff<Size>>,
}

/// What is sent again; `None` is nothing. Where a route says nothing, what is safe is.
pub(super) fn check(written: Option<OrOff<Retry>>, check: &Check<'_>) -> Option<Rule> {
    let default = Rule::default();
    let Some(written) = written else { return Some(default) };
    let Retry { attempts, on, statuses, grpc_statuses, non_idempotent, backoff, max_backoff, asked, body } =
        written.into_option()?;
    let (key, attempts) = (attempts.key().clone(), attempts.or(u32::from(default.attempts)));
    if usize::try_from(attempts).is_ok_and(|attempts| attempts > MAX_ATTEMPTS) {
        check.wrong(
            &key,
            format!("{attempts} is more than are recorded"),
            format!("write at most {MAX_ATTEMPTS}"),
        );
    }
    let on = match on.get() {
        None => default.on,
        Some(on) => on.iter().filter_map(Written::get).fold(On::NOTHING, |all, on| all | *on),
    };
    let (key, backoff) = (max_backoff.key().clone(), backoff.or(default.backoff));
    let max_backoff = max_backoff.or(default.max_backoff.max(backoff));
    if max_backoff < backoff {
        check.wrong(&key, "is less than backoff", "write the longest wait of all");
    }
    Some(Rule {
        attempts: u8::try_from(attempts).unwrap_or(u8::MAX),
        on,
        statuses: statuses.into_elements().map(|Status(status)| status).collect(),
        grpc_statuses: grpc_statuses.into_elements().map(|GrpcStatus(status)| status).collect(),
        non_idempotent: non_idempotent.or(default.non_idempotent),
        backoff,
        max_backoff,
        retry_after: asked.or(default.retry_after),
        body_bytes: body.or(default.body_bytes),
    })
}

words!(On, Self::ALL);

/// A status that may be worth another try.
#[derive(Debug)]
struct Status(StatusCode);

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Status;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as 503")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Status, E> {
                let status = u16::try_from(number).ok().filter(|status| (400..600).contains(status));
                let status = status.and_then(|status| StatusCode::from_u16(status).ok());
                let wrong = || format!("{number} is no failure\nwrite a status from 400 to 599, such as 503");
                status.map(Status).ok_or_else(|| E::custom(wrong()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Status, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

schema!(Status, { "type": "integer", "minimum": 400, "maximum": 599 });

/// A status of gRPC by its name.
#[derive(Debug)]
struct GrpcStatus(u8);

impl<'de> Deserialize<'de> for GrpcStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "the name of a gRPC status", |written| {
            let number = GRPC.iter().position(|name| *name == written);
            let number = number.and_then(|number| u8::try_from(number + 1).ok());
            let help = "write one in small letters: \"unavailable\", \"resource_exhausted\" …";
            number.map(Self).ok_or_else(|| format!("\"{written}\" is no failure of gRPC\n{help}"))
        })
    }
}

schema!(GrpcStatus, { "type": "string", "enum": GRPC });

/// The statuses of gRPC from 1 on.
const GRPC: [&str; 16] = [
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];
