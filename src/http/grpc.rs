//! What the gateway reads of gRPC: how long a call may take, and how it ended.
//!
//! Its messages pass like any body. A call's status stands in the trailers, or in a head that is all there is
//! ("Trailers-Only"), under an HTTP 200 (gRPC over HTTP/2, "Responses").

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::failure::Reason;
use crate::telemetry::{Attempt, Handle};
use crate::upstream::InFlight;

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const MEDIA_TYPE: &[u8] = b"application/grpc";

/// `UNKNOWN`: also what a call is that ended without a status.
pub const UNKNOWN: u8 = 2;

/// Whether the request is gRPC or gRPC-Web, so that the gateway's own answers must be (gRPC over HTTP/2,
/// "Content-Type").
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(MEDIA_TYPE))
}

/// A call: its messages may come one by one in either direction, for as long as they come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// When the client does not want to hear of it any more.
    pub(super) deadline: Option<Instant>,
}

impl Call {
    /// The call that a request with this header begins, if it does. (gRPC-Web tells the status in its body.)
    pub(super) fn of(headers: &HeaderMap, started: std::time::Instant) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.as_bytes();
        let rest = kind.strip_prefix(MEDIA_TYPE)?;
        if !matches!(rest.first(), None | Some(b'+' | b';')) {
            return None;
        }
        let timeout = headers.get(TIMEOUT).and_then(|value| parse_timeout(value.as_bytes()));
        Some(Self { deadline: timeout.and_then(|timeout| Instant::from_std(started).checked_add(timeout)) })
    }

    /// Tells the upstream how much of the call's time is left.
    pub(super) fn pass_on(&self, headers: &mut HeaderMap) {
        if let Some(deadline) = self.deadline {
            headers.insert(TIMEOUT, timeout_value(deadline.saturating_duration_since(Instant::now())));
        }
    }
}

/// `grpc-timeout`: at most eight digits and a unit.
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// The same as it is written: the finest unit that takes no more than eight digits, from microseconds on.
pub fn timeout_value(left: Duration) -> HeaderValue {
    let units = [(left.as_micros().max(1), 'u'), (left.as_millis(), 'm'), (u128::from(left.as_secs()), 'S')];
    let fitting = units.into_iter().find(|(count, _)| *count < 100_000_000);
    let (count, unit) = fitting.unwrap_or((u128::from(left.as_secs() / 3600).min(99_999_999), 'H'));
    HeaderValue::try_from(format!("{count}{unit}")).expect("digits and a letter")
}

/// The status in these trailers or this head, if there is one; what is no code of gRPC's is `UNKNOWN`.
pub(super) fn status(headers: &HeaderMap) -> Option<u8> {
    let value = headers.get(STATUS)?.to_str().ok();
    Some(value.and_then(|value| value.parse().ok()).filter(|code| *code <= 16).unwrap_or(UNKNOWN))
}

/// The call has ended with this status: every one but OK fails the attempt, those that say that the server failed
/// fail the exchange, and those of them that no client can bring about speak against the endpoint.
pub(super) fn ended(handle: &Handle, attempt: Option<&mut Attempt>, in_flight: &mut InFlight, status: u8) {
    handle.grpc_status(status);
    if is_endpoints_fault(status) {
        in_flight.failed(&Reason::GrpcStatus.into());
    }
    if is_servers_failure(status) {
        handle.fail(&Reason::GrpcStatus.into());
    }
    if let Some(attempt) = attempt {
        attempt.grpc_status(status);
    }
}

/// Whether a status says that the server failed, and not that it was asked for something it will not do: unknown,
/// deadline exceeded, unimplemented, internal, unavailable, data loss (OpenTelemetry's conventions for gRPC,
/// server side).
fn is_servers_failure(status: u8) -> bool {
    matches!(status, 2 | 4 | 12..=15)
}

/// Whether a status speaks against the endpoint: not where a client gave little time, or asked for what there is not.
fn is_endpoints_fault(status: u8) -> bool {
    is_servers_failure(status) && !matches!(status, 4 | 12)
}

/// What ends a call for a reason of the gateway's own: as trailers, or as a head that is all there is.
pub(super) fn ending(reason: Reason) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(8);
    fields.insert(STATUS, HeaderValue::from(status_of(reason)));
    fields.insert(MESSAGE, HeaderValue::from_static(reason.word()));
    fields
}

/// The gRPC status of a reason (gRPC's status codes and their mapping from HTTP).
fn status_of(reason: Reason) -> u16 {
    match reason.status().map_or(502, |status| status.as_u16()) {
        401 => 16,
        403 => 7,
        404 | 405 | 501 => 12,
        408 | 504 => 4,
        413 | 414 | 431 => 8,
        400 | 500 => 13,
        429 | 502 | 503 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderValue};

    use super::{Call, parse_timeout, status, status_of, timeout_value};
    use crate::failure::Reason;

    #[test]
    fn every_reason_has_a_grpc_status() {
        for &reason in Reason::ALL {
            assert_ne!(status_of(reason), 0, "{}", reason.word());
        }
    }

    #[test]
    fn a_timeout_has_at_most_eight_digits_and_a_unit() {
        for (value, expected) in [
            ("1H", Some(Duration::from_hours(1))),
            ("2M", Some(Duration::from_mins(2))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("100m", Some(Duration::from_millis(100))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("100000000m", None),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("5 S", None),
        ] {
            assert_eq!(parse_timeout(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn what_is_left_is_told_as_finely_as_it_can_be_and_read_back() {
        for (left, expected) in [
            (Duration::ZERO, "1u"),
            (Duration::from_nanos(1_500), "1u"),
            (Duration::from_secs(99), "99000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(u64::MAX), "99999999H"),
        ] {
            assert_eq!(timeout_value(left), expected, "{left:?}");
            assert!(parse_timeout(expected.as_bytes()).is_some());
        }
    }

    #[test]
    fn a_status_is_one_of_grpcs_or_unknown() {
        for (value, expected) in [("0", 0), ("16", 16), ("17", 2), ("-1", 2), ("ok", 2), ("", 2)] {
            let headers = HeaderMap::from_iter([(super::STATUS, HeaderValue::from_static(value))]);
            assert_eq!(status(&headers), Some(expected), "{value}");
        }
        assert_eq!(status(&HeaderMap::new()), None);
    }

    #[test]
    fn a_call_is_told_by_its_type() {
        for (kind, call) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            let headers =
                HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(Call::of(&headers, std::time::Instant::now()).is_some(), call, "{kind}");
        }
    }
}
