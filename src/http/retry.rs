//! Which requests are sent again, when, and why not.
//!
//! A request that reached no service can be sent again whatever it is. One that may have been processed can only
//! if doing it twice is the same as doing it once (RFC 9110 section 9.2.2), or if the operator says so.

use std::ops::BitOr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, StatusCode};
use rand::RngExt;

use crate::failure::{Detail, Failure, Reason};
use crate::net::retry_after;
use crate::telemetry::retry::NotRetried;

/// A route's rule: what `[routes.NAME.retry]` means.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The most attempts, the first one included.
    pub attempts: u8,
    /// What is retried of that which brought no answer.
    pub on: On,
    /// Which answers are.
    pub statuses: Box<[StatusCode]>,
    /// Which answers of gRPC are, if they are nothing but this status.
    pub grpc_statuses: Box<[u8]>,
    /// Requests whose method is not idempotent are, too, although they may have been processed.
    pub non_idempotent: bool,
    /// How long is waited before the first retry; doubled for each one after it.
    pub backoff: Duration,
    /// The longest of these waits.
    pub max_backoff: Duration,
    /// The longest wait that an upstream may ask for with `Retry-After`; `None`: it is not asked.
    pub retry_after: Option<Duration>,
    /// The most bytes of a body that are kept to be sent again; `None` is none.
    pub body_bytes: Option<u64>,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            attempts: 3,
            on: On::FAILOVER | On::REUSED | On::REFUSED,
            statuses: Box::default(),
            grpc_statuses: Box::default(),
            non_idempotent: false,
            backoff: Duration::from_millis(25),
            max_backoff: Duration::from_millis(250),
            retry_after: Some(Duration::from_secs(1)),
            body_bytes: Some(64 << 10),
        }
    }
}

/// What is retried of that which brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct On(u8);

impl On {
    /// Nothing.
    pub const NOTHING: Self = Self(0);
    /// No connection came about, and there is an endpoint that has not been tried.
    pub const FAILOVER: Self = Self(1);
    /// No connection came about.
    pub const CONNECT: Self = Self(1 << 1);
    /// A kept connection broke as it was used again.
    pub const REUSED: Self = Self(1 << 2);
    /// An HTTP/2 stream was not processed, and the endpoint said so.
    pub const REFUSED: Self = Self(1 << 3);
    /// The connection broke before the answer's head, or what came was none.
    pub const RESET: Self = Self(1 << 4);
    /// The time for the attempt was over.
    pub const TIMEOUT: Self = Self(1 << 5);
    /// Each of them with its word in the file.
    pub const ALL: [(&'static str, Self); 6] = [
        ("failover", Self::FAILOVER),
        ("connect", Self::CONNECT),
        ("reused", Self::REUSED),
        ("refused", Self::REFUSED),
        ("reset", Self::RESET),
        ("timeout", Self::TIMEOUT),
    ];

    /// The words of these.
    pub fn words(self) -> Vec<&'static str> {
        Self::ALL.into_iter().filter(|(_, one)| self.has(*one)).map(|(word, _)| word).collect()
    }

    fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
}

impl BitOr for On {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How an attempt ended.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// What it came to.
    pub with: With<'a>,
    /// The request may have been processed.
    pub sent: bool,
    /// Its connection had been used before.
    pub reused: bool,
    /// All of the request is still there.
    pub kept: bool,
    /// There is an endpoint that has not been tried.
    pub elsewhere: bool,
    /// So many attempts were made, this one included.
    pub attempts: u8,
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy)]
pub enum With<'a> {
    /// No answer.
    Failure(&'a Failure),
    /// An answer whose head is this.
    Answer(StatusCode, &'a HeaderMap),
}

/// How to send a request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// After this much time.
    pub wait: Duration,
    /// Over a new connection: a kept one has just turned out to be broken.
    pub fresh: bool,
    /// It counts against the upstream's budget: the service may have to do something twice.
    pub counts: bool,
}

impl Rule {
    /// Whether the request has to be kept when it is sent, because it may be wanted again.
    pub fn keeps(&self, method: &Method, reused: bool, http2: bool, attempts: u8) -> bool {
        let repeatable = self.non_idempotent || method.is_idempotent();
        let answers = !(self.statuses.is_empty() && self.grpc_statuses.is_empty());
        let broken = self.on.has(On::RESET | On::TIMEOUT) || (reused && self.on.has(On::REUSED));
        attempts < self.attempts
            && ((http2 && self.on.has(On::REFUSED)) || (repeatable && (broken || answers)))
    }

    /// Whether and how a request is sent again. `Err(None)` is the usual case: nothing asks for it.
    pub fn again(&self, method: &Method, ended: &Ended<'_>) -> Result<Again, Option<NotRetried>> {
        let Some(at_once) = self.asks(ended) else { return Err(None) };
        if ended.attempts >= self.attempts {
            return Err(Some(NotRetried::AttemptsUsed));
        }
        if ended.sent && !(self.non_idempotent || method.is_idempotent()) {
            return Err(Some(NotRetried::NotIdempotent));
        }
        if !ended.kept {
            return Err(Some(NotRetried::BodyNotKept));
        }
        let stated = match (ended.with, self.retry_after) {
            (With::Answer(_, headers), Some(longest)) => match retry_after(headers, SystemTime::now()) {
                Some(stated) if stated > longest => return Err(Some(NotRetried::RetryAfter)),
                stated => stated.unwrap_or_default(),
            },
            _ => Duration::ZERO,
        };
        let at_once = at_once && ended.attempts == 1;
        let wait = if at_once { Duration::ZERO } else { self.jittered(ended.attempts) };
        let fresh = ended.reused && matches!(ended.with, With::Failure(_));
        Ok(Again { wait: wait.max(stated), fresh, counts: ended.sent || ended.reused })
    }

    /// Whether one of the conditions holds, and if so whether another endpoint or connection may do at once what
    /// this one could not.
    fn asks(&self, ended: &Ended<'_>) -> Option<bool> {
        let on = |any: On| self.on.has(any);
        let connect = || {
            let failover = ended.elsewhere && on(On::FAILOVER | On::CONNECT);
            (failover || on(On::CONNECT)).then_some(failover)
        };
        match ended.with {
            With::Answer(status, headers) => {
                (self.statuses.contains(&status) || self.is_listed(headers)).then_some(false)
            }
            With::Failure(failure) => match (failure.reason, failure.detail) {
                (Reason::UpstreamReset, Some(Detail::StreamRefused)) => on(On::REFUSED).then_some(true),
                (Reason::UpstreamTimeout, Some(Detail::PerTry)) if !ended.sent => {
                    connect().or_else(|| on(On::TIMEOUT).then_some(false))
                }
                (Reason::UpstreamTimeout, Some(Detail::PerTry)) => on(On::TIMEOUT).then_some(false),
                (
                    Reason::DnsFailed
                    | Reason::ConnectRefused
                    | Reason::ConnectTimeout
                    | Reason::TlsFailed
                    | Reason::UpstreamReset,
                    _,
                ) if !ended.sent => connect(),
                (Reason::UpstreamReset, None) if ended.reused && on(On::REUSED) => Some(true),
                (Reason::UpstreamReset | Reason::UpstreamProtocolError, _) => on(On::RESET).then_some(false),
                _ => None,
            },
        }
    }

    fn is_listed(&self, headers: &HeaderMap) -> bool {
        let status = || headers.get("grpc-status")?.to_str().ok()?.parse().ok();
        !self.grpc_statuses.is_empty() && status().is_some_and(|status| self.grpc_statuses.contains(&status))
    }

    /// Any time up to the doubled one (full jitter), so that those who failed together do not come back together.
    fn jittered(&self, attempts: u8) -> Duration {
        let doubled = 1_u32.checked_shl(u32::from(attempts.saturating_sub(1))).unwrap_or(u32::MAX);
        let longest = self.backoff.saturating_mul(doubled).min(self.max_backoff);
        rand::rng().random_range(Duration::ZERO..=longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(failure: &Failure) -> Ended<'_> {
        Ended {
            with: With::Failure(failure),
            sent: true,
            reused: false,
            kept: true,
            elsewhere: false,
            attempts: 1,
        }
    }

    const ALL: On = On(u8::MAX);

    #[test]
    fn each_condition_asks_for_a_retry_of_its_own_failures_only() {
        let detail = |reason: Reason, detail| Failure::new(reason).detail(detail);
        let reset = || Failure::new(Reason::UpstreamReset);
        let refused = || detail(Reason::UpstreamReset, Detail::StreamRefused);
        let per_try = || detail(Reason::UpstreamTimeout, Detail::PerTry);
        let unsent = |failure| (failure, false, false, false);
        let (other, again) =
            (|failure| (failure, false, false, true), |failure| (failure, true, true, false));
        let sent = |failure| (failure, true, false, true);
        for ((failure, sent, reused, elsewhere), conditions) in [
            (other(Reason::ConnectRefused.into()), On::FAILOVER | On::CONNECT),
            (unsent(Reason::ConnectRefused.into()), On::CONNECT),
            (unsent(Reason::DnsFailed.into()), On::CONNECT),
            (unsent(Reason::ConnectTimeout.into()), On::CONNECT),
            (other(Reason::TlsFailed.into()), On::FAILOVER | On::CONNECT),
            (other(reset()), On::FAILOVER | On::CONNECT),
            (other(per_try()), On::FAILOVER | On::CONNECT | On::TIMEOUT),
            (sent(per_try()), On::TIMEOUT),
            (again(reset()), On::REUSED | On::RESET),
            (sent(reset()), On::RESET),
            (again(detail(Reason::UpstreamReset, Detail::StreamReset)), On::RESET),
            (sent(detail(Reason::UpstreamProtocolError, Detail::Malformed)), On::RESET),
            ((refused(), false, true, true), On::REFUSED),
            // nothing helps here
            (sent(detail(Reason::UpstreamTimeout, Detail::Total)), On::NOTHING),
            (sent(Reason::ResponseTooLarge.into()), On::NOTHING),
            (other(Reason::PoolTimeout.into()), On::NOTHING),
            (other(Reason::NoEndpoint.into()), On::NOTHING),
            (sent(Reason::ClientGone.into()), On::NOTHING),
            (sent(Reason::BodyTooLarge.into()), On::NOTHING),
        ] {
            let ended = Ended { sent, reused, elsewhere, ..failed(&failure) };
            for bit in 0..6 {
                let on = On(1 << bit);
                let asked = Rule { on, ..Rule::default() }.again(&Method::GET, &ended).is_ok();
                assert_eq!(asked, conditions.has(on), "{failure} {on:?} {ended:?}");
            }
        }
    }

    #[test]
    fn an_answer_is_retried_if_its_status_is_listed() {
        let rule = Rule {
            statuses: [StatusCode::SERVICE_UNAVAILABLE].into(),
            grpc_statuses: [14].into(),
            ..Rule::default()
        };
        for (status, field, expected) in [
            (503, None, Ok(())),
            (502, None, Err(None)),
            (200, Some(("grpc-status", "14")), Ok(())),
            (200, Some(("grpc-status", "0")), Err(None)),
            (200, Some(("grpc-status", "x")), Err(None)),
            (503, Some(("retry-after", "1")), Ok(())),
            (503, Some(("retry-after", "2")), Err(Some(NotRetried::RetryAfter))),
        ] {
            let headers: HeaderMap =
                field.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            let failure = Failure::new(Reason::UpstreamStatus);
            let with = With::Answer(StatusCode::from_u16(status).unwrap(), &headers);
            let again = rule.again(&Method::GET, &Ended { with, ..failed(&failure) });
            assert_eq!(again.map(|_| ()), expected, "{status} {field:?}");
            if field == Some(("retry-after", "1")) {
                assert!(again.unwrap().wait >= Duration::from_secs(1));
            }
        }
    }

    #[test]
    fn what_may_have_been_processed_is_repeated_only_if_that_is_harmless() {
        let (reset, refused) = (
            Failure::new(Reason::UpstreamReset),
            Failure::new(Reason::UpstreamReset).detail(Detail::StreamRefused),
        );
        for (method, non_idempotent, failure, sent, expected) in [
            (Method::GET, false, &reset, true, None),
            (Method::PUT, false, &reset, true, None),
            (Method::DELETE, false, &reset, true, None),
            (Method::POST, false, &reset, true, Some(NotRetried::NotIdempotent)),
            (Method::PATCH, false, &reset, true, Some(NotRetried::NotIdempotent)),
            (Method::POST, true, &reset, true, None),
            (Method::POST, false, &reset, false, None),
            (Method::POST, false, &refused, false, None),
        ] {
            let rule = Rule { on: ALL, non_idempotent, ..Rule::default() };
            let again = rule.again(&method, &Ended { sent, ..failed(failure) });
            assert_eq!(again.err().flatten(), expected, "{method} {non_idempotent} {failure} {sent}");
        }
    }

    #[test]
    fn why_there_is_no_retry_is_told_only_where_one_was_asked_for() {
        let rule = Rule { on: ALL, attempts: 3, ..Rule::default() };
        let reset = Failure::new(Reason::UpstreamReset);
        let ended = failed(&reset);
        for (ended, expected) in [
            (Ended { attempts: 2, ..ended }, Ok(())),
            (Ended { attempts: 3, ..ended }, Err(Some(NotRetried::AttemptsUsed))),
            (Ended { kept: false, ..ended }, Err(Some(NotRetried::BodyNotKept))),
        ] {
            assert_eq!(rule.again(&Method::GET, &ended).map(|_| ()), expected);
        }
        let quiet = Rule { on: On::NOTHING, ..rule };
        assert_eq!(quiet.again(&Method::GET, &Ended { attempts: 3, ..ended }), Err(None));
    }

    #[test]
    fn a_request_is_kept_only_if_it_may_be_wanted_again() {
        let listed = || Rule { statuses: [StatusCode::BAD_GATEWAY].into(), ..Rule::default() };
        for (rule, method, reused, http2, attempts, keeps) in [
            (Rule::default(), Method::GET, true, false, 1, true),
            (Rule::default(), Method::GET, false, false, 1, false),
            (Rule::default(), Method::POST, true, false, 1, false),
            (Rule::default(), Method::POST, true, true, 1, true),
            (Rule::default(), Method::GET, true, false, 3, false),
            (listed(), Method::GET, false, false, 1, true),
            (listed(), Method::POST, false, false, 1, false),
            (Rule { non_idempotent: true, ..listed() }, Method::POST, false, false, 1, true),
        ] {
            assert_eq!(
                rule.keeps(&method, reused, http2, attempts),
                keeps,
                "{rule:?} {method} {reused} {http2}"
            );
        }
    }

    #[test]
    fn waits_double_up_to_a_bound_with_full_jitter_and_another_endpoint_is_tried_at_once() {
        let milliseconds = Duration::from_millis;
        let rule = Rule {
            on: ALL,
            attempts: 8,
            backoff: milliseconds(10),
            max_backoff: milliseconds(35),
            ..Rule::default()
        };
        let (reset, refused) = (Failure::new(Reason::UpstreamReset), Failure::new(Reason::ConnectRefused));
        let wait = |ended: Ended<'_>| rule.again(&Method::GET, &ended).unwrap().wait;
        for (attempts, longest) in [(1, 10), (2, 20), (3, 35), (7, 35)] {
            let waits: Vec<_> = (0..2000).map(|_| wait(Ended { attempts, ..failed(&reset) })).collect();
            assert!(waits.iter().all(|wait| *wait <= milliseconds(longest)));
            let (short, long) = (milliseconds(longest) / 5, milliseconds(longest) * 4 / 5);
            assert!(waits.iter().any(|wait| *wait < short) && waits.iter().any(|wait| *wait > long));
        }
        let unsent = Ended { sent: false, elsewhere: true, ..failed(&refused) };
        assert_eq!(wait(unsent), Duration::ZERO);
        assert!((0..100).any(|_| wait(Ended { attempts: 2, ..unsent }) > Duration::ZERO));
    }
}
