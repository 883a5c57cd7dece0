//! What an OTLP receiver's answer means for a batch.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderValue;
use percent_encoding::percent_decode;
use prost::Message;

use super::super::Answer;
use super::super::client::Reply;

/// The answer to a post by HTTP (OTLP specification, "OTLP/HTTP Response").
pub(super) fn http(reply: &Reply) -> Answer {
    let said = || Status::decode(reply.body.clone()).unwrap_or_default().message;
    reply.refusal(said).unwrap_or_else(|| partial_success(&reply.body))
}

/// The answer to a call by gRPC (OTLP specification, "OTLP/gRPC Response").
pub(super) fn grpc(reply: &Reply) -> Answer {
    let field = |name| reply.trailers.get(name).or_else(|| reply.headers.get(name));
    let Some(code) = field("grpc-status").and_then(|value| value.to_str().ok()?.parse::<usize>().ok()) else {
        let missing = || Answer::Refused("the answer is not gRPC: it has no grpc-status".to_owned());
        return reply.refusal(String::new).unwrap_or_else(missing);
    };
    if code == OK {
        // one byte for compression, which was not asked for, and four for the length
        return partial_success(reply.body.get(5..).unwrap_or_default());
    }
    let message = field("grpc-message").map(HeaderValue::as_bytes).unwrap_or_default();
    let message = percent_decode(message).decode_utf8_lossy();
    let why = format!("{}: {message}", CODES.get(code).unwrap_or(&"UNKNOWN"));
    let wait = field("grpc-status-details-bin").and_then(retry_delay);
    match code {
        CANCELLED | DEADLINE_EXCEEDED | ABORTED | OUT_OF_RANGE | UNAVAILABLE | DATA_LOSS => {
            Answer::Later { wait, why }
        }
        RESOURCE_EXHAUSTED if wait.is_some() => Answer::Later { wait, why },
        _ => Answer::Refused(why),
    }
}

/// What an `ExportTraceServiceResponse` says.
pub fn partial_success(message: &[u8]) -> Answer {
    let Ok(response) = ExportTraceServiceResponse::decode(message) else {
        return Answer::Partly { rejected: 0, why: "the answer is not OTLP's".to_owned() };
    };
    match response.partial_success {
        None => Answer::Accepted,
        Some(partial) if partial.rejected_spans <= 0 && partial.error_message.is_empty() => Answer::Accepted,
        Some(partial) => Answer::Partly {
            rejected: usize::try_from(partial.rejected_spans).unwrap_or(0),
            why: partial.error_message,
        },
    }
}

/// The wait of a `RetryInfo`, if it is one of the status' details.
fn retry_delay(details: &HeaderValue) -> Option<Duration> {
    let status = Status::decode(&BASE64.decode(details).ok()?[..]).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&info.value[..]).ok()?.retry_delay?;
    let seconds = Duration::from_secs(u64::try_from(delay.seconds).ok()?);
    Some(seconds + Duration::from_nanos(u64::try_from(delay.nanos).ok()?)).filter(|wait| !wait.is_zero())
}

/// `opentelemetry.proto.collector.trace.v1.ExportTraceServiceResponse`
#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<ExportTracePartialSuccess>,
}

/// `opentelemetry.proto.collector.trace.v1.ExportTracePartialSuccess`
#[derive(Clone, PartialEq, Message)]
struct ExportTracePartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<WireDuration>,
}

/// `google.protobuf.Duration`
#[derive(Clone, Copy, PartialEq, Message)]
struct WireDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The status codes' names, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

const OK: usize = 0;
const CANCELLED: usize = 1;
const DEADLINE_EXCEEDED: usize = 4;
const RESOURCE_EXHAUSTED: usize = 8;
const ABORTED: usize = 10;
const OUT_OF_RANGE: usize = 11;
const UNAVAILABLE: usize = 14;
const DATA_LOSS: usize = 15;

/// gRPC sends base64 without padding, and takes it with padding too.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine as _;
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, StatusCode};
    use prost::Message as _;

    use super::{
        Any, BASE64, CODES, ExportTracePartialSuccess, ExportTraceServiceResponse, RetryInfo, Status,
        WireDuration, grpc, http,
    };
    use crate::telemetry::receivers::Answer;
    use crate::telemetry::receivers::client::Reply;

    fn reply(status: u16, fields: &[(&'static str, &str)], body: Vec<u8>) -> Reply {
        let field =
            |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: fields.iter().map(field).collect(),
            body: body.into(),
            trailers: HeaderMap::new(),
        }
    }

    fn partial(rejected_spans: i64, error_message: &str) -> Vec<u8> {
        let partial = ExportTracePartialSuccess { rejected_spans, error_message: error_message.to_owned() };
        ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
    }

    fn partly(rejected: usize, why: &str) -> Answer {
        Answer::Partly { rejected, why: why.to_owned() }
    }

    fn later(seconds: Option<u64>, why: &str) -> Answer {
        Answer::Later { wait: seconds.map(Duration::from_secs), why: why.to_owned() }
    }

    #[test]
    fn partial_success_is_heard_in_both_protocols() {
        let cases = [
            (Vec::new(), Answer::Accepted),
            (partial(0, ""), Answer::Accepted),
            (partial(7, "too old"), partly(7, "too old")),
            (partial(0, "clock skew"), partly(0, "clock skew")),
            (partial(-1, "odd"), partly(0, "odd")),
            (b"<html>".to_vec(), partly(0, "the answer is not OTLP's")),
        ];
        for (message, expected) in cases {
            assert_eq!(http(&reply(200, &[], message.clone())), expected, "{message:?}");
            let framed = [vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message].concat();
            let mut answered = reply(200, &[], framed);
            answered.trailers.insert("grpc-status", "0".parse().unwrap());
            assert_eq!(grpc(&answered), expected);
        }
    }

    #[test]
    fn only_some_statuses_of_http_say_that_it_may_be_sent_again() {
        let message = Status { message: "no room".to_owned(), details: Vec::new() }.encode_to_vec();
        for (status, seconds, expected) in [
            (429, Some("3"), later(Some(3), "status 429: no room")),
            (502, None, later(None, "status 502: no room")),
            (503, Some("120"), later(Some(120), "status 503: no room")),
            (503, Some("soon"), later(None, "status 503: no room")),
            (504, None, later(None, "status 504: no room")),
            (400, None, Answer::Refused("status 400: no room".to_owned())),
            (404, None, Answer::Refused("status 404: no room".to_owned())),
            (413, Some("3"), Answer::Refused("status 413: no room".to_owned())),
            (500, None, Answer::Refused("status 500: no room".to_owned())),
            (302, None, Answer::Refused("status 302: no room".to_owned())),
        ] {
            let fields: Vec<_> = seconds.map(|seconds| ("retry-after", seconds)).into_iter().collect();
            assert_eq!(http(&reply(status, &fields, message.clone())), expected, "{status}");
        }
        let page =
            |body: &[u8]| http(&reply(200, &[("content-type", "Text/HTML; charset=utf-8")], body.to_vec()));
        for body in [&b"<html>"[..], b""] {
            assert_eq!(page(body), later(None, "the answer is a page for people"));
        }
        let plain = http(&reply(503, &[], b"<html>".to_vec()));
        assert_eq!(plain, later(None, "status 503"));
    }

    #[test]
    fn only_some_statuses_of_grpc_say_that_it_may_be_sent_again() {
        const AGAIN: [usize; 6] = [1, 4, 10, 11, 14, 15];
        for (code, name) in CODES.iter().enumerate().skip(1) {
            let number = code.to_string();
            let answer =
                grpc(&reply(200, &[("grpc-status", &number), ("grpc-message", "not%20now")], vec![]));
            let why = format!("{name}: not now");
            let expected = if AGAIN.contains(&code) { later(None, &why) } else { Answer::Refused(why) };
            assert_eq!(answer, expected);
        }
        assert!(matches!(grpc(&reply(200, &[("grpc-status", "99")], vec![])), Answer::Refused(_)));
        assert!(matches!(grpc(&reply(200, &[], vec![])), Answer::Refused(_)));
        // a proxy in between
        assert_eq!(grpc(&reply(503, &[("retry-after", "2")], vec![])), later(Some(2), "status 503"));
        assert_eq!(grpc(&reply(404, &[], vec![])), Answer::Refused("status 404".to_owned()));
    }

    #[test]
    fn retry_info_says_how_long_to_wait_and_makes_an_exhausted_receiver_worth_waiting_for() {
        let info = |seconds, nanos| {
            let delay = WireDuration { seconds, nanos };
            let value = RetryInfo { retry_delay: Some(delay) }.encode_to_vec();
            let other = Any { type_url: "type.googleapis.com/google.rpc.Help".to_owned(), value: vec![] };
            let info = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value };
            let status = Status { message: String::new(), details: vec![other, info] };
            BASE64.encode(Bytes::from(status.encode_to_vec()))
        };
        for (code, details, expected) in [
            ("14", info(5, 0), later(Some(5), "UNAVAILABLE: ")),
            ("8", info(7, 0), later(Some(7), "RESOURCE_EXHAUSTED: ")),
            ("14", info(7, 0).trim_end_matches('=').to_owned(), later(Some(7), "UNAVAILABLE: ")),
            ("14", info(0, 0), later(None, "UNAVAILABLE: ")),
            ("14", info(-1, 0), later(None, "UNAVAILABLE: ")),
            ("14", "!".to_owned(), later(None, "UNAVAILABLE: ")),
            ("8", info(0, 0), Answer::Refused("RESOURCE_EXHAUSTED: ".to_owned())),
            ("3", info(5, 0), Answer::Refused("INVALID_ARGUMENT: ".to_owned())),
        ] {
            let fields = [("grpc-status", code), ("grpc-status-details-bin", &*details)];
            assert_eq!(grpc(&reply(200, &fields, vec![])), expected, "{code} {details}");
        }
    }
}
