//! A recent exchange as plain data: what spans and the access log say of it, and nothing that names a person.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::phase::{Part, Times, milliseconds, parts};
use crate::failure::{Blame, Detail, Reason};
use crate::telemetry::context::{SpanId, TraceId};
use crate::telemetry::operation::{AttemptRecord, Record};
use crate::telemetry::outcome::{ErrorType, logged_status};
use crate::telemetry::privacy::{Disclosed, HEADER};
use crate::telemetry::retry::NotRetried;
use crate::telemetry::sampling::Decision;
use crate::telemetry::settings::Privacy;

/// Why an exchange is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Kept {
    /// It failed by fault of the gateway or the upstream.
    Error,
    /// It failed by fault of its client.
    Refused,
    /// It was the slowest of its route so far, or was tried more than once.
    Slow,
    /// It is an example of those that went well.
    Sample,
}

impl Kept {
    /// Every reason to keep one.
    pub const ALL: [Self; 4] = [Self::Error, Self::Refused, Self::Slow, Self::Sample];

    /// The word in answers and on the metrics page.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Refused => "refused",
            Self::Slow => "slow",
            Self::Sample => "sample",
        }
    }
}

/// An exchange, whole.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// What a list says of it.
    #[serde(flatten)]
    pub summary: Summary,
    #[serde(serialize_with = "text")]
    span_id: SpanId,
    #[serde(serialize_with = "text", skip_serializing_if = "is_none")]
    parent_span_id: Shown<SpanId>,
    listener: Word,
    scheme: &'static str,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_retried: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sampled_because: Option<&'static str>,
    request_bytes: u64,
    response_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_role: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    phases_ms: BTreeMap<&'static str, f64>,
    attempt_list: Vec<Attempt>,
    #[serde(skip)]
    pub(super) times: Times,
    #[serde(skip)]
    pub(super) ended_at: SystemTime,
}

/// What a list says of an exchange.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Grows with each that is kept.
    pub number: u64,
    /// Its trace.
    #[serde(serialize_with = "text")]
    pub trace_id: TraceId,
    #[serde(serialize_with = "time")]
    pub(super) time: SystemTime,
    /// Why it is kept.
    pub kept: Kept,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) route: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<Word>,
    method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    #[serde(serialize_with = "reason", skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blame: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    attempts: usize,
    /// From its start to its end.
    #[serde(serialize_with = "in_milliseconds", rename = "duration_ms")]
    pub duration: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dominant: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dominant_ratio: Option<f64>,
    stream: bool,
    sampled: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) attributes: BTreeMap<Word, String>,
}

/// One try at one endpoint. Times are from the exchange's start, in milliseconds.
#[derive(Debug, Clone, Serialize)]
struct Attempt {
    number: u8,
    #[serde(serialize_with = "text")]
    span_id: SpanId,
    endpoint: Word,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blame: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    start_ms: f64,
    duration_ms: f64,
    request_bytes: u64,
    response_bytes: u64,
    parts: Vec<Part>,
}

/// A word of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(pub(super) Arc<str>);

impl Borrow<str> for Word {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The configuration's words, each once however many exchanges have it.
#[derive(Debug, Default)]
pub(super) struct Words(HashSet<Word>);

impl Words {
    fn get(&mut self, word: &str) -> Word {
        if let Some(known) = self.0.get(word) {
            return known.clone();
        }
        if self.0.len() >= MOST_WORDS {
            // those of configurations that are over; entries keep theirs
            self.0.clear();
        }
        let new = Word(word.into());
        self.0.insert(new.clone());
        new
    }
}

impl Entry {
    /// What may be said of this record, which is the how many-th that is kept.
    pub(super) fn new(
        number: u64,
        kept: Kept,
        record: &Record,
        privacy: &Privacy,
        words: &mut Words,
    ) -> Self {
        let attempt_list: Vec<_> = record.attempts().map(|attempt| Attempt::new(attempt, words)).collect();
        let times = Times::of(record, attempt_list.iter().flat_map(|attempt| &attempt.parts));
        let sampled_because = match record.verdict() {
            Decision::Sampled { because, .. } => Some(because.word()),
            Decision::Unsampled(_) => None,
        };
        let close = record.websocket_close();
        let headers = record.disclosed().into_iter().flat_map(Disclosed::headers);
        let header = |(key, value): (&str, &str)| {
            (key.strip_prefix(HEADER).unwrap_or(key).to_owned(), value.to_owned())
        };
        Self {
            span_id: record.context.span_id,
            parent_span_id: Shown(record.context.parent.as_ref().map(|parent| parent.span_id)),
            listener: words.get(&record.listener),
            scheme: record.exchange.scheme.word(),
            protocol: record.exchange.version.word(),
            rule: record.rule().map(|rule| words.get(rule)),
            error_type: ErrorType::of_operation(record).map(|error| error.word().into_owned()),
            grpc_status: record.grpc(),
            close_code: close.map(|(_, code)| code),
            closed_by: close.map(|(side, _)| side.word()),
            not_retried: record.why_not_retried().map(NotRetried::word),
            sampled_because,
            request_bytes: record.request_body_bytes(),
            response_bytes: record.response_body_bytes(),
            client: privacy.client_address(&record.client).map(|address| address.to_string()),
            client_role: record.client_role.as_deref().map(|role| words.get(role)),
            query: record.disclosed().and_then(Disclosed::query).map(str::to_owned),
            headers: headers.map(header).collect(),
            phases_ms: times.iter().map(|(phase, took)| (phase.word(), milliseconds(took))).collect(),
            attempt_list,
            summary: Summary::new(number, kept, record, &times, words),
            times,
            ended_at: record.started_at + record.duration(),
        }
    }

    /// About how many bytes of memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let attributes = self.summary.attributes.values().map(|value| value.len() + MAP_ENTRY).sum::<usize>();
        let headers = self.headers.iter().map(|(key, value)| key.len() + value.len() + MAP_ENTRY);
        let attempts = self.attempt_list.iter();
        let attempts =
            attempts.map(|attempt| size_of::<Attempt>() + attempt.parts.capacity() * size_of::<Part>());
        size_of::<Self>()
            + attributes
            + headers.sum::<usize>()
            + attempts.sum::<usize>()
            + self.phases_ms.len() * MAP_ENTRY
            + self.query.as_ref().map_or(0, String::len)
    }

    /// Whether it did not simply succeed.
    pub fn failed(&self) -> bool {
        self.summary.reason.is_some()
    }
}

impl Summary {
    fn new(number: u64, kept: Kept, record: &Record, times: &Times, words: &mut Words) -> Self {
        let route = record.route_labels();
        let (reason, detail) = record.failure().unzip();
        let dominant = times.dominant();
        let mut word = |word: Option<&str>| word.map(|word| words.get(word));
        Self {
            number,
            trace_id: record.context.trace_id,
            time: record.started_at,
            kept,
            route: word(route.map(|route| &*route.route)),
            operation: word(route.and_then(|route| route.operation.as_deref())),
            upstream: word(route.and_then(|route| route.upstream()).map(|upstream| &**upstream)),
            endpoint: word(record.attempts().last().map(|attempt| &*attempt.endpoint.endpoint)),
            method: record.exchange.method.word(),
            template: word(route.map(|route| &*route.template)),
            status: logged_status(record),
            reason,
            blame: reason.map(|reason| reason.blame().word()),
            detail: detail.flatten().map(Detail::word),
            attempts: record.attempts().count(),
            duration: record.duration(),
            first_byte_ms: record.time_to_first_byte().map(milliseconds),
            dominant: dominant.map(|(phase, _)| phase.word()),
            dominant_ratio: dominant.map(|(_, ratio)| (ratio * 1e3).round() / 1e3),
            stream: record.is_stream(),
            sampled: record.verdict().sampled(),
            attributes: record.attributes().map(|(key, value)| (words.get(key), value.to_owned())).collect(),
        }
    }

    /// Whose fault it was, if it failed.
    pub fn blame(&self) -> Option<Blame> {
        self.reason.map(Reason::blame)
    }
}

impl Attempt {
    fn new(attempt: &AttemptRecord, words: &mut Words) -> Self {
        let (reason, detail) = attempt.failure.unzip();
        Self {
            number: attempt.resend_count.saturating_add(1),
            span_id: attempt.span_id,
            endpoint: words.get(&attempt.endpoint.endpoint),
            service: attempt.endpoint.service.as_deref().map(|service| words.get(service)),
            peer: attempt.connection.peer,
            connection: attempt.connected.then_some(if attempt.connection.reused { "reused" } else { "new" }),
            status: attempt.status,
            grpc_status: attempt.grpc,
            reason: reason.map(Reason::word),
            blame: reason.map(|reason| reason.blame().word()),
            detail: detail.flatten().map(Detail::word),
            start_ms: milliseconds(attempt.started),
            duration_ms: milliseconds(attempt.duration()),
            request_bytes: attempt.request_bytes,
            response_bytes: attempt.response_bytes,
            parts: parts(attempt),
        }
    }
}

/// Shown if it is there.
#[derive(Debug, Clone, Copy)]
struct Shown<T>(Option<T>);

impl<T: std::fmt::Display> std::fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |value| value.fmt(f))
    }
}

fn is_none<T>(shown: &Shown<T>) -> bool {
    shown.0.is_none()
}

fn text<T: std::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn reason<S: Serializer>(reason: &Option<Reason>, serializer: S) -> Result<S::Ok, S::Error> {
    reason.map(Reason::word).serialize(serializer)
}

/// RFC 3339, UTC, microseconds.
fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_micros((*time).max(UNIX_EPOCH)))
}

fn in_milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(milliseconds(*duration))
}

/// Words of the configuration that are known at once.
const MOST_WORDS: usize = 16_384;
/// What an entry of a map takes beside its text, about.
const MAP_ENTRY: usize = 48;
