//! How operations and attempts ended, as every signal says it: error or not, and `error.type`.

use super::operation::{AttemptRecord, Record};
use crate::failure::{Blame, Reason};

/// The value of `error.type`; there is one only where the span's status is Error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    /// The reason's word.
    Reason(Reason),
    /// The status as text: an upstream's answer that was passed on.
    Status(u16),
}

impl ErrorType {
    /// The error of an operation. 1xx to 4xx answers are none, 5xx and broken exchanges are (OpenTelemetry
    /// HTTP conventions, server side); nor is a stream that its client leaves.
    pub fn of_operation(record: &Record) -> Option<Self> {
        let reason = record.failure().map(|(reason, _)| reason);
        // whoever listens to a stream leaves when it has heard enough
        let left = record.is_stream() && reason == Some(Reason::ClientGone);
        let ended = record.is_complete() || left;
        let answered = ended && record.status().is_some_and(|status| status < 500);
        let at_fault = reason.is_some_and(|reason| reason.blame() != Blame::Client);
        if answered && !at_fault {
            return None;
        }
        match (reason, record.status()) {
            (Some(Reason::UpstreamStatus) | None, Some(status)) => Some(Self::Status(status)),
            (Some(reason), _) => Some(Self::Reason(reason)),
            (None, None) => Some(Self::Reason(Reason::ClientGone)),
        }
    }

    /// The error of an attempt: a status from 400 on, or a failure; a stream that its client leaves is none.
    pub fn of_attempt(attempt: &AttemptRecord) -> Option<Self> {
        match (attempt.failure?.0, attempt.status) {
            (Reason::UpstreamStatus, Some(status)) => Some(Self::Status(status)),
            (Reason::ClientGone, Some(_)) if attempt.stream => None,
            (reason, _) => Some(Self::Reason(reason)),
        }
    }
}
