//! Forward-auth: a service is asked whether a request may pass, and who it comes from.
//!
//! The service is an upstream, so that its endpoints, pools, TLS, health and breaker are what that says. It gets no
//! body, of the header the listed fields alone, and what is asked for in `X-Forwarded-*`, as Traefik and Caddy say
//! it. Each question is an attempt of its own kind, with a CLIENT span, and its context is injected.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use serde_json::Map;
use tokio::time::{Instant, timeout_at};

use super::verdict::{Refusal, Verdict};
use crate::failure::{Detail, Failure, Reason};
use crate::http::attempt::{absolute, classify};
use crate::http::body::{Body, RequestBody};
use crate::http::context;
use crate::http::exchange::{Response as Answer, Routed};
use crate::http::forward::X_REQUEST_ID;
use crate::http::headers::{self, Fields};
use crate::http::identity::{self, Identity};
use crate::http::pool::{Coming, Lease, Pool};
use crate::telemetry::attribute::Configured;
use crate::telemetry::metrics::questions::QuestionSeries;
use crate::telemetry::trouble::Trouble;
use crate::telemetry::{Attempt, Question};
use crate::upstream::{self, Endpoint, Picked, Upstream};

/// What `[auth.NAME.forward]` means once it has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Who is asked. Whatever changes of it changes the rule.
    pub upstream: upstream::Settings,
    /// The path that is asked for, perhaps with a query.
    pub target: PathAndQuery,
    /// The request's fields that the service gets.
    pub request_headers: Vec<HeaderName>,
    /// The answer's fields that say who it is: claims of the identity, by their names.
    pub answer_headers: Vec<HeaderName>,
    /// The one of them that is the identity's subject, if one is.
    pub subject: Option<HeaderName>,
    /// The fields of a refusal that the client gets.
    pub refusal_headers: Vec<HeaderName>,
    /// The most bytes of a refusal's body that the client gets.
    pub body_bytes: usize,
    /// How long the service may take.
    pub timeout: Duration,
    /// What becomes of requests while nobody answers.
    pub on_failure: OnFailure,
}

/// What becomes of requests while nobody answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// They pass, and come from nobody.
    Open,
    /// They are refused: 503.
    Closed,
}

/// Asks, by one rule.
#[derive(Debug)]
pub struct Asking {
    settings: Settings,
    upstream: Arc<Upstream>,
    pools: Arc<[Arc<Pool>]>,
    rule: Arc<str>,
    question: Arc<Question>,
    series: QuestionSeries,
    trouble: Mutex<Trouble>,
}

/// What the service said. A body that did not come whole, or is longer than allowed, is none.
struct Said {
    status: StatusCode,
    headers: HeaderMap,
    body: Option<Bytes>,
}

impl Asking {
    /// Asks this upstream over these pools, one an endpoint, in its order.
    pub fn new(
        settings: &Settings,
        rule: &Arc<str>,
        upstream: Arc<Upstream>,
        pools: Arc<[Arc<Pool>]>,
        series: QuestionSeries,
    ) -> Self {
        let template = Configured::new(settings.target.path());
        let question = Arc::new(Question { rule: Configured::new(Arc::clone(rule)), template });
        Self {
            settings: settings.clone(),
            rule: Arc::clone(rule),
            upstream,
            pools,
            question,
            series,
            trouble: Mutex::default(),
        }
    }

    /// Who sends this request, as the service says.
    pub async fn verify(&self, request: &Routed) -> Verdict {
        match self.ask(request).await {
            Ok(said) if said.status.is_success() => {
                self.series.passed.increment(1);
                self.recovered();
                Verdict::Passed(Arc::new(self.identity(&said.headers)))
            }
            Ok(said) if !said.status.is_server_error() && !said.status.is_informational() => {
                self.series.refused.increment(1);
                self.recovered();
                self.refusal(said).into()
            }
            Ok(said) => self.away(Detail::ServiceFailed, &format!("status {}", said.status.as_u16())),
            Err(failure) => {
                let detail = match failure.detail {
                    Some(late @ (Detail::Total | Detail::Timeout))
                        if failure.reason == Reason::UpstreamTimeout =>
                    {
                        late
                    }
                    _ if failure.reason == Reason::UpstreamProtocolError => Detail::ServiceFailed,
                    _ => Detail::ServiceAway,
                };
                self.away(detail, &failure.to_string())
            }
        }
    }

    /// Asks, and once more where the service has said nothing at all. Both have the same time.
    async fn ask(&self, request: &Routed) -> Result<Said, Failure> {
        let now = Instant::now();
        let own = now + self.settings.timeout;
        let until = match request.deadline {
            Some(total) if total < own => Until { at: total, word: Detail::Total },
            _ => Until { at: own, word: Detail::Timeout },
        };
        let budget = self.upstream.budget();
        if let Some(budget) = budget {
            budget.request(now.into_std());
        }
        let picked = self.upstream.pick(&[])?;
        let first = picked.index;
        let failure = match self.ask_once(request, picked, until, false).await {
            Ok(said) => return Ok(said),
            Err(failure) => failure,
        };
        let may_pass = match failure.reason {
            // a connection that was kept may have been closed meanwhile, whoever is at its other end
            Reason::UpstreamReset => true,
            Reason::ConnectRefused | Reason::ConnectTimeout | Reason::DnsFailed | Reason::TlsFailed => {
                self.upstream.has_other(first, &[])
            }
            _ => false,
        };
        let allowed = || budget.is_none_or(|budget| budget.retry(Instant::now().into_std()));
        if !may_pass || Instant::now() >= until.at || !allowed() {
            return Err(failure);
        }
        let picked = self.upstream.pick(&[first])?;
        self.ask_once(request, picked, until, true).await
    }

    async fn ask_once(
        &self,
        request: &Routed,
        mut picked: Picked,
        until: Until,
        fresh: bool,
    ) -> Result<Said, Failure> {
        let mut attempt = Attempt::ask(&request.handle, &picked.endpoint.labels, &self.question);
        let sent = {
            let sending = self.send(request, &picked, &mut attempt, fresh);
            timeout_at(until.at, sending).await.unwrap_or_else(|_| Err(until.failure()))
        };
        match sent {
            Ok((answer, lease)) => {
                attempt.head(answer.status().as_u16());
                if answer.status().is_server_error() {
                    picked.in_flight.failed(&Reason::UpstreamStatus.into());
                } else {
                    picked.in_flight.succeeded();
                }
                Ok(self.take(answer, lease, attempt, until).await)
            }
            Err(failure) => {
                attempt.fail(&failure);
                picked.in_flight.failed(&failure);
                Err(failure)
            }
        }
    }

    /// Sends the question, until the answer's head is there. What a closed connection gives back unsent goes to
    /// another one.
    async fn send(
        &self,
        request: &Routed,
        picked: &Picked,
        attempt: &mut Attempt,
        fresh: bool,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        let pool = &self.pools[picked.index];
        let mut message = None;
        loop {
            let kept = if fresh { None } else { pool.lend_kept(attempt.started()) };
            let mut lease = match kept {
                Some(lease) => lease,
                None => pool.lend(fresh, attempt.way()).await?,
            };
            attempt.connected(lease.facts());
            let ready = message
                .take()
                .unwrap_or_else(|| self.message(request, &picked.endpoint, pool.is_http2(), attempt));
            match lease.send(ready).await {
                Ok(mut answer) => {
                    let fields = Fields::of(answer.headers());
                    let settled = headers::settle_length(answer.headers_mut(), fields);
                    if !settled || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                        return Err(Failure::new(Reason::UpstreamProtocolError).detail(Detail::Malformed));
                    }
                    headers::strip_hop_by_hop(answer.headers_mut(), fields);
                    return Ok((answer, lease));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if lease.facts().reused => message = Some(unsent),
                    _ => {
                        let error = error.into_error();
                        return Err(classify(&error).because(error));
                    }
                },
            }
        }
    }

    fn message(
        &self,
        request: &Routed,
        endpoint: &Endpoint,
        http2: bool,
        attempt: &Attempt,
    ) -> Request<RequestBody> {
        let (head, handle) = (&request.head, &request.handle);
        let mut fields = headers::copied(&head.headers, &self.settings.request_headers);
        for connection in head.headers.get_all(header::CONNECTION) {
            fields.append(header::CONNECTION, connection.clone());
        }
        // what the upstream will not get is no ground to let it pass
        let named = Fields::of(&fields);
        headers::strip_hop_by_hop(&mut fields, named);
        headers::join_cookies(&mut fields);
        fields.extend(request.peer.telling_of(&head.headers));
        // so that questions about questions end
        headers::add_via(&mut fields, head.version);
        let told = |text: &str| HeaderValue::from_bytes(text.as_bytes()).ok();
        let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        for (name, value) in
            [(headers::X_FORWARDED_METHOD, head.method.as_str()), (headers::X_FORWARDED_URI, target)]
        {
            if let Some(value) = told(value) {
                fields.insert(name, value);
            }
        }
        fields.insert(X_REQUEST_ID, handle.request_id.for_exchange().clone());
        fields.entry(header::USER_AGENT).or_insert(AGENT);
        context::inject(&mut fields, handle, attempt.span_id(), self.upstream.propagate());
        let host = HeaderValue::from_str(&endpoint.authority).ok();
        let uri = Uri::from(self.settings.target.clone());
        let mut message = Request::new(RequestBody::none(handle.clone()));
        *message.method_mut() = Method::GET;
        if http2 {
            fields.remove(header::HOST);
            *message.version_mut() = Version::HTTP_2;
            *message.uri_mut() = absolute(&uri, endpoint, host);
        } else {
            if let Some(host) = host {
                fields.insert(header::HOST, host);
            }
            *message.uri_mut() = uri;
        }
        *message.headers_mut() = fields;
        message
    }

    /// The answer as far as it is needed. Who has let the request pass has said all with the head.
    async fn take(
        &self,
        answer: Response<Incoming>,
        mut lease: Lease,
        mut attempt: Attempt,
        until: Until,
    ) -> Said {
        let (head, incoming) = answer.into_parts();
        let refused = !head.status.is_success() && !head.status.is_server_error();
        let within = if refused { until.at } else { until.at.min(Instant::now() + DRAIN_TIME) };
        let most = if refused { self.settings.body_bytes } else { DRAINED };
        let read = timeout_at(within, read(lease.body(incoming), most)).await;
        let body = match read {
            Ok(Ok(body)) => {
                attempt.response_bytes(body.len());
                lease.give_back(attempt.complete());
                Some(body)
            }
            Ok(Err(Unread::Broken(failure))) if refused => {
                attempt.fail(&failure);
                None
            }
            Err(_) if refused => {
                attempt.fail(&until.failure());
                None
            }
            // nobody wants the rest: its connection goes
            Ok(Err(_)) | Err(_) => {
                attempt.complete();
                None
            }
        };
        Said { status: head.status, headers: head.headers, body }
    }

    fn identity(&self, headers: &HeaderMap) -> Identity {
        let mut claims = Map::new();
        for name in &self.settings.answer_headers {
            // several fields of a name are one list (RFC 9110 section 5.3)
            let values = headers.get_all(name).iter().map(|value| std::str::from_utf8(value.as_bytes()));
            let values: Result<Vec<_>, _> = values.collect();
            if let Some(values) = values.ok().filter(|values| !values.is_empty()) {
                claims.insert(name.as_str().to_owned(), values.join(",").into());
            }
        }
        let subject = self.settings.subject.as_ref().and_then(|name| claims.get(name.as_str()));
        let subject = subject.and_then(serde_json::Value::as_str).unwrap_or_default().into();
        Identity { rule: Arc::clone(&self.rule), method: identity::Method::Forward, subject, claims }
    }

    /// Not so, and what the client is told in the service's own words, if all of them came.
    fn refusal(&self, said: Said) -> Refusal {
        let unknown = said.status.is_redirection()
            || matches!(said.status, StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED);
        let reason = if unknown { Reason::Unauthenticated } else { Reason::Forbidden };
        let answer = said.body.map(|body| {
            let mut answer = Answer::new(if body.is_empty() { Body::Empty } else { Body::Full(Some(body)) });
            *answer.status_mut() = said.status;
            let fields = headers::copied(&said.headers, &self.settings.refusal_headers);
            *answer.headers_mut() = fields;
            // it is for this request alone
            let no_store = HeaderValue::from_static("no-store");
            answer.headers_mut().entry(header::CACHE_CONTROL).or_insert(no_store);
            Box::new(answer)
        });
        Refusal { reason, detail: Detail::Denied, answer }
    }

    /// Nobody has said anything.
    fn away(&self, detail: Detail, error: &str) -> Verdict {
        let open = self.settings.on_failure == OnFailure::Open && detail != Detail::Total;
        if open {
            self.series.open.increment(1);
        } else {
            self.series.unavailable.increment(1);
        }
        let seen = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).seen(Instant::now());
        if let Some(times) = seen {
            let rule = &*self.question.rule;
            tracing::warn!(rule, error, times, open, "the service that decides who may call does not answer");
        }
        if open { Verdict::Open(detail) } else { Refusal::unavailable(detail).into() }
    }

    fn recovered(&self) {
        let over = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).over();
        if let Some(times) = over {
            tracing::info!(
                rule = &*self.question.rule,
                times,
                "the service that decides who may call answers again"
            );
        }
    }
}

/// When an answer comes too late, and which bound that is.
#[derive(Debug, Clone, Copy)]
struct Until {
    at: Instant,
    word: Detail,
}

impl Until {
    fn failure(self) -> Failure {
        Failure::new(Reason::UpstreamTimeout).detail(self.word)
    }
}

/// Why a body is not at hand.
enum Unread {
    TooLong,
    Broken(Failure),
}

async fn read(incoming: Coming<'_>, most: usize) -> Result<Bytes, Unread> {
    if incoming.is_end_stream() {
        return Ok(Bytes::new());
    }
    let mut body = Limited::new(incoming, most);
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => read.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Err(error) if error.is::<LengthLimitError>() => return Err(Unread::TooLong),
            Err(error) => {
                return Err(Unread::Broken(Failure::new(Reason::UpstreamTruncated).because(error)));
            }
        }
    }
    Ok(read.freeze())
}

/// What a question says it is, unless the client's word is passed on.
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("tracegate/", env!("CARGO_PKG_VERSION"), " (auth)"));

/// How much of an answer that nobody gets is read, and for how long, so that its connection can be used again.
const DRAINED: usize = 16 << 10;
const DRAIN_TIME: Duration = Duration::from_millis(100);
