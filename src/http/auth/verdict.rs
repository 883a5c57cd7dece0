//! What a rule says of a request.

use std::sync::Arc;

use crate::failure::{Detail, Reason};
use crate::http::exchange::Response;
use crate::http::identity::Identity;

/// What a rule says.
#[derive(Debug)]
pub enum Verdict {
    /// It is this one.
    Passed(Arc<Identity>),
    /// Not so.
    Refused(Refusal),
    /// Nobody can say who it is, for this reason, and the operator lets requests pass all the same.
    Open(Detail),
    /// Somebody must be asked first.
    Undecided,
}

/// Why a rule did not let a request pass.
#[derive(Debug)]
pub struct Refusal {
    /// `unauthenticated`, `forbidden` or `auth_unavailable`.
    pub reason: Reason,
    /// The finer word: for the operator, never for the client.
    pub detail: Detail,
    /// What the service that was asked wants the client to see.
    pub answer: Option<Box<Response>>,
}

impl Refusal {
    /// Nobody has shown anything that this rule could verify.
    pub fn missing() -> Self {
        Self::unauthenticated(Detail::MissingCredentials)
    }

    /// What was shown is not valid.
    pub fn unauthenticated(detail: Detail) -> Self {
        Self { reason: Reason::Unauthenticated, detail, answer: None }
    }

    /// What was shown is valid and does not open this.
    pub fn forbidden(detail: Detail) -> Self {
        Self { reason: Reason::Forbidden, detail, answer: None }
    }

    /// Whoever must be asked cannot be.
    pub fn unavailable(detail: Detail) -> Self {
        Self { reason: Reason::AuthUnavailable, detail, answer: None }
    }

    /// How telling it is, where several rules refuse: what may yet turn out well goes before what is certain,
    /// and what fits a rule before what was perhaps meant for another.
    pub fn weight(&self) -> u8 {
        match (self.reason, self.detail) {
            (Reason::AuthUnavailable, _) => 4,
            (Reason::Forbidden, _) => 3,
            (_, Detail::MissingCredentials) => 0,
            (_, Detail::Malformed) => 1,
            _ => 2,
        }
    }
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
