//! Heads that hyper could not read: answered and recorded like any other request, though no exchange came of them.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::StatusCode;

use super::record;
use super::rescue;
use crate::failure::{Detail, Failure, Reason};
use crate::listener::Settings;
use crate::listener::activity::{Activity, Fate};
use crate::listener::connection::{Refusal, Refuse};
use crate::telemetry::attribute::Personal;
use crate::telemetry::context::{Context, Origin};
use crate::telemetry::exchange::{Exchange, Method, Scheme, Version};
use crate::telemetry::{Recorder, Start};

/// Answers in hyper's place.
#[derive(Debug)]
pub(super) struct Refuser {
    listener: Arc<str>,
    port: Option<u16>,
    recorder: Arc<Recorder>,
}

impl Refuser {
    pub(super) fn new(settings: &Settings, recorder: &Arc<Recorder>) -> Self {
        Self {
            listener: Arc::clone(&settings.name),
            port: settings.address.tcp().map(|address| address.port()),
            recorder: Arc::clone(recorder),
        }
    }

    /// What a connection calls when it has a refusal to make.
    pub(super) fn hook(self: &Arc<Self>, scheme: Scheme, client: IpAddr, activity: &Arc<Activity>) -> Refuse {
        let (refuser, activity) = (Arc::clone(self), Arc::clone(activity));
        Arc::new(move |refusal| {
            activity.meets(if refusal == Refusal::Slow { Fate::TimedOut } else { Fate::Refused });
            refuser.refuse(scheme, client, &failure(refusal), true)
        })
    }

    /// The connection ended with an error of the client's that nobody has answered: at least it is on record.
    pub(super) fn unanswered(
        &self,
        scheme: Scheme,
        client: IpAddr,
        activity: &Activity,
        error: &(dyn Error + 'static),
    ) {
        let unreadable = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
        if unreadable && !activity.is_http2() && activity.fate().is_none() {
            let failure = Failure::new(Reason::BadRequest).detail(Detail::Malformed);
            self.refuse(scheme, client, &failure, false);
        }
    }

    fn refuse(&self, scheme: Scheme, client: IpAddr, failure: &Failure, answered: bool) -> Vec<u8> {
        let operation = self.recorder.start(Start {
            listener: Arc::clone(&self.listener),
            port: self.port,
            context: Context::start(Origin::Started),
            exchange: Exchange { method: Method::Other, scheme, version: Version::Http11 },
            request_id: Personal::new(record::new_request_id()),
            client: Personal::new(client),
            client_role: None,
            started: Instant::now(),
        });
        let handle = operation.handle();
        handle.fail(failure);
        if !answered {
            return Vec::new();
        }
        let status = failure.reason.status().unwrap_or(StatusCode::BAD_REQUEST);
        let trace_id = handle.context.trace_id.to_string();
        let body = rescue::problem_json(status, failure.reason, failure.detail, None, &trace_id);
        let mut headers = http::HeaderMap::new();
        record::tell_trace(&mut headers, handle);
        record::tell_close(&mut headers);
        let mut answer = format!(
            "HTTP/1.1 {status}\r\ndate: {}\r\ncontent-type: application/problem+json\r\n\
             cache-control: no-store\r\ncontent-length: {}\r\n",
            httpdate::fmt_http_date(SystemTime::now()),
            body.len()
        )
        .into_bytes();
        for (name, value) in &headers {
            answer.extend_from_slice(name.as_str().as_bytes());
            answer.extend_from_slice(b": ");
            answer.extend_from_slice(value.as_bytes());
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"\r\n");
        answer.extend_from_slice(&body);
        handle.head(status.as_u16());
        handle.response_bytes(body.len());
        handle.complete();
        answer
    }
}

fn failure(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Slow => Failure::new(Reason::ClientTimeout).detail(Detail::SlowHead),
        Refusal::Status { status: 414, .. } | Refusal::Status { status: 431, in_target: true } => {
            Failure::new(Reason::UriTooLong)
        }
        Refusal::Status { status: 431, .. } => Failure::new(Reason::HeaderTooLarge),
        Refusal::Status { .. } => Failure::new(Reason::BadRequest).detail(Detail::Malformed),
    }
}
