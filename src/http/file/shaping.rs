//! How a route shapes what passes, as written, and what it means.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time;

use http::HeaderValue;
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::maintenance::{Maintenance, RETRY_AFTER};
use super::super::page::Page;
use super::super::route::Match;
use super::super::rules::Rules;
use super::super::shaping::{ErrorPage, Shaping};
use super::answers::{WrittenOrigin, WrittenRedirect, WrittenRespond};
use super::compression::WrittenCompression;
use super::cors::WrittenCors;
use super::fields::WrittenHeaders;
use crate::setting::{Check, Duration, OrOff, Written};

/// The keys of a route that are about shaping.
#[derive(Debug)]
pub(super) struct WrittenShaping {
    pub(super) headers: WrittenHeaders,
    pub(super) cors: Option<OrOff<WrittenCors>>,
    pub(super) hsts: Option<OrOff<WrittenHsts>>,
    pub(super) https_redirect: Written<OrOff<WrittenOrigin>>,
    pub(super) redirect: Option<WrittenRedirect>,
    pub(super) respond: Option<WrittenRespond>,
    pub(super) compression: Option<OrOff<WrittenCompression>>,
    pub(super) error_page: WrittenErrorPage,
    pub(super) maintenance: WrittenMaintenance,
}

/// `Strict-Transport-Security` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ max_age = \"8760h\" }, or \"off\"")]
pub(super) struct WrittenHsts {
    /// How long browsers remember it. Default: `"8760h"`.
    max_age: Written<Duration>,
    /// Whether it holds for subdomains. Default: `false`.
    include_subdomains: Written<bool>,
    /// Whether the lists of browsers may have it. Default: `false`.
    preload: Written<bool>,
}

/// Error pages as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct WrittenErrorPage {
    /// A page for browsers; the built-in one without it.
    html_file: Written<String>,
    /// Whether it stands in for the upstream's 5xx answers, too. Default: `false`.
    replace_upstream: Written<bool>,
}

/// Maintenance as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct WrittenMaintenance {
    /// Whether requests are answered 503. Default: `false`.
    enabled: Written<bool>,
    /// When clients are told to come again, in whole seconds. Default: `"60s"`.
    retry_after: Written<Duration>,
    /// A page for browsers; the error page without it.
    html_file: Written<String>,
}

impl WrittenShaping {
    /// Whether the route needs no upstream.
    pub(super) fn answers_itself(&self) -> bool {
        self.redirect.is_some() || self.respond.is_some()
    }

    /// The shaping as used by the route of this name; not to be used if a problem has been noted.
    pub(super) fn check(self, name: &str, matches: &Match, check: &Check<'_>) -> Shaping {
        let (request_rules, response_rules): (Rules, Rules) = self.headers.check(&matches.path, check);
        if let (Some(_), Some(respond)) = (&self.redirect, &self.respond) {
            check.wrong(&respond.key(), "cannot be used with redirect", "leave one of them out");
        }
        let redirect = self.redirect.and_then(|redirect| redirect.check(matches, check));
        let respond = self.respond.and_then(|respond| respond.check(check));
        let https_redirect = WrittenOrigin::check(self.https_redirect, matches, check);
        Shaping {
            request_rules,
            response_rules,
            cors: self.cors.and_then(OrOff::into_option).and_then(|cors| cors.check(name, matches, check)),
            hsts: self.hsts.and_then(OrOff::into_option).map(|hsts| hsts.check(check)),
            https_redirect: https_redirect.map(Arc::new),
            answer: redirect.or(respond),
            compression: self
                .compression
                .and_then(OrOff::into_option)
                .map(|compression| compression.check(check)),
            error_page: self.error_page.check(check),
            maintenance: self.maintenance.check(check),
        }
    }
}

impl WrittenHsts {
    fn check(self, check: &Check<'_>) -> HeaderValue {
        let subdomains = self.include_subdomains.or(false);
        let key = self.preload.key().clone();
        let preload = self.preload.or(false);
        let max_age: time::Duration = self.max_age.or(YEAR);
        if preload && (!subdomains || max_age < YEAR) {
            let help = "write include_subdomains = true and a max_age of \"8760h\" or more";
            check.wrong(&key, "is refused by the lists of browsers for these settings", help);
        }
        let mut text = format!("max-age={}", max_age.as_secs());
        if subdomains {
            text.push_str("; includeSubDomains");
        }
        if preload {
            text.push_str("; preload");
        }
        HeaderValue::try_from(text).expect("words and digits")
    }
}

impl WrittenErrorPage {
    fn check(self, check: &Check<'_>) -> ErrorPage {
        ErrorPage { page: page(self.html_file, check), replaces_upstream: self.replace_upstream.or(false) }
    }
}

impl WrittenMaintenance {
    fn check(self, check: &Check<'_>) -> Maintenance {
        let key = self.retry_after.key().clone();
        let retry_after = self.retry_after.or(time::Duration::from_secs(RETRY_AFTER));
        if retry_after.subsec_nanos() != 0 {
            check.wrong(&key, "is told in whole seconds", "write whole seconds, such as \"60s\"");
        }
        Maintenance {
            enabled: self.enabled.or(false),
            retry_after: retry_after.as_secs(),
            page: page(self.html_file, check),
        }
    }
}

/// Reads a page.
fn page(file: Written<String>, check: &Check<'_>) -> Option<Arc<Page>> {
    let key = file.key().clone();
    let written = file.into_option()?;
    match read(&check.path(&written)) {
        Ok(html) => Some(Arc::new(Page::new(&html))),
        Err(why) => {
            let help = "name a file of HTML in UTF-8 of at most 64 KiB";
            check.wrong(&key, format!("the file \"{written}\" {why}"), help);
            None
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    if fs::metadata(path).map_err(unreadable)?.len() > MOST {
        return Err("is larger than a page may be".to_owned());
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// The largest page, in bytes: each is held in memory.
const MOST: u64 = 64 << 10;

/// The default of HSTS, and the least that browsers preload.
const YEAR: time::Duration = time::Duration::from_hours(8760);
