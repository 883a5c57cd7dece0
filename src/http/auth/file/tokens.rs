//! Signed tokens and the keys of their issuer as written, for whoever reads such tokens: rules, and the admin address.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration as Time;

use http::header::HeaderName;
use http::uri::{Scheme, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::http::auth::claims::{Condition, Required};
use crate::http::auth::issuer::{Fetched, Source};
use crate::http::auth::jwk::{Algorithm, KeySet};
use crate::http::auth::jwt;
use crate::net::file::WrittenTls;
use crate::problem::Key;
use crate::setting::leaf::{schema, text, words};
use crate::setting::one_or_many::OneOrMany;
use crate::setting::{Check, Count, Duration, OrOff, Size, Written};

/// What whoever reads signed tokens has in its file: for some it is checked already.
#[derive(Debug)]
pub struct Tokens {
    /// The field in which a token is sent.
    pub header: HeaderName,
    /// Who must have issued it.
    pub issuer: Written<String>,
    /// For whom it must be; `None` asks for nothing.
    pub audience: Option<Vec<Box<str>>>,
    /// The algorithms that are taken.
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock may be from ours.
    pub clock_skew: Written<OrOff<Duration>>,
    /// Other claims.
    pub claims: BTreeMap<String, WrittenCondition>,
    /// The most bytes of a token.
    pub token_bytes: Written<Size>,
    /// How many verified tokens are remembered.
    pub cache: Written<OrOff<Count>>,
    /// The file with the issuer's keys.
    pub jwks_file: Written<String>,
    /// Or where they are fetched.
    pub jwks_url: Written<Url>,
    /// And how.
    pub jwks: WrittenJwks,
}

impl Tokens {
    /// What a token must be like, and where the keys come from; `None` only after a problem has been noted.
    pub fn check(self, check: &Check<'_>) -> Option<(jwt::Settings, Source)> {
        let issuer =
            self.issuer.required(check, "write issuer = \"https://login.example\", as its tokens have it");
        let claims = self.claims.into_iter().filter_map(|(name, condition)| {
            let condition = condition.check(check)?;
            Some((name.into(), condition))
        });
        let claims = claims.collect();
        let source = check_source(&self.jwks_file, self.jwks_url, self.jwks, check);
        let cache = match self.cache.into_option() {
            None => Some(1024),
            Some(cache) => cache.into_option().map(Into::into),
        };
        let skew: Option<Time> = self.clock_skew.or(Some(Time::from_mins(1)));
        let settings = jwt::Settings {
            header: self.header,
            algorithms: self.algorithms,
            required: Required {
                issuer: issuer?.into(),
                audience: self.audience,
                clock_skew: skew.unwrap_or_default(),
                claims,
            },
            token_bytes: self.token_bytes.or(8 << 10),
            cache,
        };
        Some((settings, source?))
    }
}

/// What a claim must be, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ is = \"acme\" }, { is = [\"acme\", \"other\"] } or { contains = \"orders\" }")]
pub struct WrittenCondition {
    /// What the claim must be: this, or one of these.
    is: Written<OneOrMany>,
    /// A word that must be in it.
    contains: Written<String>,
}

impl WrittenCondition {
    fn check(self, check: &Check<'_>) -> Option<Condition> {
        let help = "write { is = \"acme\" }, { is = [\"acme\", \"other\"] } or { contains = \"orders\" }";
        let (is_key, contains_key) = (self.is.key().clone(), self.contains.key().clone());
        if self.is.is_absent() == self.contains.is_absent() {
            if self.is.is_absent() {
                check.wrong(
                    &is_key.parent().unwrap_or_default(),
                    "does not say what the claim must be",
                    help,
                );
            } else {
                check.wrong(&contains_key, "a claim is compared in one way, not in two", help);
            }
            return None;
        }
        let is = self.is.into_option().map(|OneOrMany(words)| Condition::OneOf(words));
        is.or(self.contains.into_option().map(|wanted| Condition::Contains(wanted.into())))
    }
}

/// How an issuer's keys are fetched, as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct WrittenJwks {
    /// Of one fetch. Default: `"5s"`.
    timeout: Written<Duration>,
    /// Of what is fetched. Default: `"256KiB"`.
    bytes: Written<Size>,
    /// The shortest time between two fetches, whatever the issuer says. Default: `"1m"`.
    refresh_min: Written<Duration>,
    /// The longest. Default: `"1h"`.
    refresh_max: Written<Duration>,
    /// The shortest time between two fetches for a key that nobody knows. Default: `"30s"`.
    refetch: Written<Duration>,
    /// How long keys are used that cannot be fetched anew. Default: `"1h"`.
    stale: Written<OrOff<Duration>>,
    /// Whether http:// is taken from hosts beyond loopback. Default: `false`.
    plaintext: Written<bool>,
    /// TLS, with https:// in the URL.
    tls: WrittenTls,
}

impl WrittenJwks {
    fn check(self, url: Uri, key: &Key, check: &Check<'_>) -> Option<Fetched> {
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tls = if url.scheme() == Some(&Scheme::HTTPS) {
            Some(self.tls.check((&host, key), &[b"http/1.1"], check)?)
        } else {
            self.refuse_plaintext(&host, key, check);
            None
        };
        let min_key = self.refresh_min.key().clone();
        let stale: Option<Time> = self.stale.or(Some(Time::from_hours(1)));
        let fetched = Fetched {
            url,
            tls,
            timeout: self.timeout.or(Time::from_secs(5)),
            bytes: self.bytes.or(256 << 10),
            refresh_min: self.refresh_min.or(Time::from_mins(1)),
            refresh_max: self.refresh_max.or(Time::from_hours(1)),
            refetch: self.refetch.or(Time::from_secs(30)),
            stale: stale.unwrap_or_default(),
        };
        if fetched.refresh_min > fetched.refresh_max {
            let what = format!("is longer than refresh_max ({}s)", fetched.refresh_max.as_secs_f64());
            check.wrong(&min_key, what, "write the shorter of both here");
        }
        Some(fetched)
    }

    /// Whoever can change the keys on their way can make tokens.
    fn refuse_plaintext(&self, host: &str, key: &Key, check: &Check<'_>) {
        let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if !loopback && self.plaintext.get() != Some(&true) {
            let help = "write https://, or jwks = { plaintext = true } if nobody else is on the way";
            check.wrong(key, "is not https: whoever is on the way could send keys of their own", help);
        }
    }
}

fn check_source(
    file: &Written<String>,
    url: Written<Url>,
    jwks: WrittenJwks,
    check: &Check<'_>,
) -> Option<Source> {
    let help = "write jwks_url = \"https://login.example/jwks.json\", or jwks_file";
    match (file.is_absent(), url.is_absent()) {
        (true, true) => check.wrong(file.key(), "is missing, and so is jwks_url", help),
        (false, false) => check.wrong(url.key(), "keys come from one place, not from two", help),
        _ => {}
    }
    if let Some(name) = file.get() {
        let read = fs::read(check.path(name)).map_err(|error| format!("cannot be read: {error}"));
        return match read
            .and_then(|text| KeySet::parse(&text).map_err(|why| format!("cannot be used: {why}")))
        {
            Ok(set) => Some(Source::Read(Arc::new(set))),
            Err(why) => {
                let help = "name a file with the issuer's public keys, a JSON Web Key Set";
                check.wrong(file.key(), format!("the file \"{name}\" {why}"), help);
                None
            }
        };
    }
    let key = url.key().clone();
    let Url(url) = url.into_option()?;
    jwks.check(url, &key, check).map(|fetched| Source::Url(Box::new(fetched)))
}

/// Where a page is.
#[derive(Debug)]
pub struct Url(Uri);

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a URL", |written| {
            let help = "write a URL such as \"https://login.example/jwks.json\"";
            let wrong = |what: &str| Err(format!("{what}\n{help}"));
            let Ok(url) = written.parse::<Uri>() else { return wrong("is not a URL") };
            if !matches!(url.scheme_str(), Some("http" | "https")) {
                return wrong("does not begin with http:// or https://");
            }
            match url.authority() {
                // not repeated: it may be a password
                Some(authority) if authority.as_str().contains('@') => wrong("names a user"),
                Some(authority) if !authority.host().is_empty() => Ok(Self(url)),
                _ => wrong("has no host"),
            }
        })
    }
}

schema!(Url, { "type": "string", "examples": ["https://login.example/jwks.json"], "pattern": "^https?://[^@]+$" });

words!(Algorithm, Self::ALL);
