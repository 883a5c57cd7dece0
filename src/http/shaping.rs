//! How a route shapes what passes, as used.

use std::sync::Arc;

use http::HeaderValue;

use super::compression::Compression;
use super::cors::Cors;
use super::maintenance::Maintenance;
use super::page::Page;
use super::respond::{Answer, Redirect};
use super::rules::Rules;

/// How a route shapes what passes. By default not at all.
#[derive(Debug, Clone, Default)]
pub struct Shaping {
    /// What becomes of the request's header on its way to the upstream.
    pub request_rules: Rules,
    /// What becomes of the header of every answer.
    pub response_rules: Rules,
    /// Who else's pages may call it from browsers.
    pub cors: Option<Arc<Cors>>,
    /// `Strict-Transport-Security`.
    pub hsts: Option<HeaderValue>,
    /// Where clients without TLS are sent.
    pub https_redirect: Option<Arc<Redirect>>,
    /// What is answered without any upstream.
    pub answer: Option<Answer>,
    /// What of its answers is compressed.
    pub compression: Option<Compression>,
    /// What people see of failures.
    pub error_page: ErrorPage,
    /// Whether it is out of service.
    pub maintenance: Maintenance,
}

impl Shaping {
    /// Whether parameters of the path are filled in somewhere.
    pub fn reads_parameters(&self) -> bool {
        let redirects = match &self.answer {
            Some(Answer::Redirect(redirect)) => redirect.to.reads_parameters(),
            Some(Answer::Static(_)) | None => false,
        };
        redirects || self.request_rules.reads_parameters()
    }
}

/// What people see of failures.
#[derive(Debug, Clone, Default)]
pub struct ErrorPage {
    /// The operator's own page in place of the built-in one.
    pub page: Option<Arc<Page>>,
    /// Whether it stands in for the upstream's failed answers (5xx), too.
    pub replaces_upstream: bool,
}
