//! Why a body broke.

use std::error::Error;
use std::fmt;

use crate::failure::{Detail, Failure, Reason};

/// Why a body broke. A type of its own: a body that names a boxed error cannot be proven `Send`.
#[derive(Debug, Clone, Copy)]
pub struct BodyError {
    /// Why.
    pub reason: Reason,
    /// The finer word.
    pub detail: Option<Detail>,
}

impl From<&Failure> for BodyError {
    fn from(failure: &Failure) -> Self {
        Self { reason: failure.reason, detail: failure.detail }
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        (error.reason, error.detail).into()
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "body broken: {}", self.reason.word())
    }
}

impl Error for BodyError {}
