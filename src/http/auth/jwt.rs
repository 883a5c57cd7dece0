//! Signed tokens (RFC 7515, RFC 7519): taken to pieces and verified against an issuer's keys.
//!
//! The operator's list of algorithms and the kind of the key decide how a signature is checked, never the token:
//! `none` and shared secrets are no algorithms here.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::claims::Required;
use super::credentials;
use super::issuer::{Issuer, Keys};
use super::jwk::{Algorithm, Checked, KeySet};
use super::token_cache::{TokenCache, TokenHash};
use super::verdict::{Refusal, Verdict};
use crate::failure::Detail;
use crate::http::identity::{Identity, Method};

/// What `[auth.NAME.jwt]` means once it has been checked, but for where the keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The field in which a token is sent.
    pub header: HeaderName,
    /// The algorithms that are taken.
    pub algorithms: Vec<Algorithm>,
    /// What the claims must be.
    pub required: Required,
    /// The most bytes of a token.
    pub token_bytes: usize,
    /// How many verified tokens are remembered; `None` is none.
    pub cache: Option<usize>,
}

/// Verifies tokens.
#[derive(Debug)]
pub struct Jwt {
    rule: Arc<str>,
    settings: Settings,
    issuer: Arc<Issuer>,
    cache: Option<TokenCache>,
}

/// Why the keys at hand do not decide.
enum Undecided {
    /// There are none.
    NoKeys,
    /// The right one may be among those that the issuer has published since.
    MayBeNew(Detail),
}

impl Jwt {
    /// Verifies by these settings with the keys of this issuer.
    pub fn new(settings: &Settings, rule: &Arc<str>, issuer: Arc<Issuer>) -> Self {
        let cache = settings.cache.map(TokenCache::new);
        Self { rule: Arc::clone(rule), settings: settings.clone(), issuer, cache }
    }

    /// Whose keys verify.
    pub fn issuer(&self) -> Arc<Issuer> {
        Arc::clone(&self.issuer)
    }

    /// Who bears the token in this header, by the keys at hand.
    pub fn verify(&self, headers: &HeaderMap) -> Verdict {
        let token = match self.token(headers) {
            Ok(token) => token,
            Err(refusal) => return refusal.into(),
        };
        match self.decide(token, &self.issuer.keys()) {
            Ok(decided) => decided,
            Err(_) if self.issuer.may_be_asked() => Verdict::Undecided,
            Err(undecided) => self.settle(&undecided),
        }
    }

    /// The same, and the issuer is asked for keys if need be.
    pub async fn verify_waiting(&self, headers: &HeaderMap) -> Verdict {
        let token = match self.token(headers) {
            Ok(token) => token,
            Err(refusal) => return refusal.into(),
        };
        let keys = self.issuer.keys();
        if let Ok(decided) = self.decide(token, &keys) {
            return decided;
        }
        let keys = self.issuer.newer(keys).await;
        self.decide(token, &keys).unwrap_or_else(|undecided| self.settle(&undecided))
    }

    fn token<'a>(&self, headers: &'a HeaderMap) -> Result<&'a str, Refusal> {
        credentials::find(headers, &self.settings.header, self.settings.token_bytes)
    }

    /// What an undecided token comes to if nobody can or need be asked.
    fn settle(&self, undecided: &Undecided) -> Verdict {
        match undecided {
            Undecided::MayBeNew(detail) if !self.issuer.is_away() => Refusal::unauthenticated(*detail).into(),
            Undecided::NoKeys | Undecided::MayBeNew(_) => Refusal::unavailable(Detail::IssuerAway).into(),
        }
    }

    fn decide(&self, token: &str, keys: &Keys) -> Result<Verdict, Undecided> {
        let Some(keys) = keys.usable() else {
            // what no key could make valid need not wait for one
            let read = Token::read(token).and_then(|read| self.accept(&read));
            return read.map_or_else(|refusal| Ok(refusal.into()), |_| Err(Undecided::NoKeys));
        };
        let now = now();
        let remembered = self.cache.as_ref().map(|cache| (cache, TokenHash::of(token)));
        if let Some((cache, hash)) = &remembered
            && let Some(identity) = cache.find(hash, keys, now)
        {
            return Ok(Verdict::Passed(identity));
        }
        let verified = match self.read(token, keys, now) {
            Ok(verified) => verified,
            Err(Refused::Surely(refusal)) => return Ok(refusal.into()),
            Err(Refused::ByTheseKeys(detail)) => return Err(Undecided::MayBeNew(detail)),
        };
        let (claims, until) = verified;
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default().into();
        let identity =
            Arc::new(Identity { rule: Arc::clone(&self.rule), method: Method::Jwt, subject, claims });
        if let Some((cache, hash)) = remembered {
            cache.keep(hash, keys, &identity, until);
        }
        Ok(Verdict::Passed(identity))
    }

    fn read(&self, token: &str, keys: &KeySet, now: u64) -> Result<(Map<String, Value>, u64), Refused> {
        let token = Token::read(token)?;
        let algorithm = self.accept(&token)?;
        let refused = |detail| Err(Refused::Surely(Refusal::unauthenticated(detail)));
        match keys.check(algorithm, token.header.kid.as_deref(), token.signed.as_bytes(), &token.signature) {
            Checked::Valid => {}
            Checked::Wrong => return refused(Detail::BadSignature),
            Checked::WrongAlgorithm => return refused(Detail::WrongAlgorithm),
            Checked::WrongUnnamed => return Err(Refused::ByTheseKeys(Detail::BadSignature)),
            Checked::Unknown => return Err(Refused::ByTheseKeys(Detail::UnknownKey)),
        }
        // nothing of the claims is believed, or even read, before the signature
        let claims = decode(token.claims).ok_or_else(|| Refusal::unauthenticated(Detail::Malformed))?;
        let until = self.settings.required.check(&claims, now)?;
        Ok((claims, until))
    }

    /// The token's algorithm, if it is one that is taken.
    fn accept(&self, token: &Token<'_>) -> Result<Algorithm, Refusal> {
        if token.header.crit.is_some() {
            // it must be understood, and nothing of the kind is (RFC 7515 section 4.1.11)
            return Err(Refusal::unauthenticated(Detail::Malformed));
        }
        Algorithm::named(&token.header.alg)
            .filter(|algorithm| self.settings.algorithms.contains(algorithm))
            .ok_or_else(|| Refusal::unauthenticated(Detail::WrongAlgorithm))
    }
}

/// Why a token is not taken.
enum Refused {
    Surely(Refusal),
    ByTheseKeys(Detail),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Surely(refusal)
    }
}

/// A token in pieces (RFC 7515 section 7.1).
pub struct Token<'a> {
    header: Header,
    claims: &'a str,
    signed: &'a str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl<'a> Token<'a> {
    /// Takes one to pieces. Of its claims nothing is read.
    pub fn read(token: &'a str) -> Result<Self, Refusal> {
        let pieces = || {
            let (signed, signature) = token.rsplit_once('.')?;
            let (header, claims) = signed.split_once('.')?;
            let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
            (!claims.contains('.')).then_some(Self { header: decode(header)?, claims, signed, signature })
        };
        pieces().ok_or_else(|| Refusal::unauthenticated(Detail::Malformed))
    }
}

/// JSON in base64url.
fn decode<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
