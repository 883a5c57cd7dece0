//! `[auth.NAME.jwt]` as written.

use std::collections::BTreeMap;

use http::header;
use schemars::JsonSchema;
use serde::Deserialize;

use super::field::field;
use super::tokens::{Tokens, Url, WrittenCondition, WrittenJwks};
use crate::http::auth::Kind;
use crate::http::auth::jwk::Algorithm;
use crate::setting::one_or_many::OneOrMany;
use crate::setting::{Check, Count, Duration, OrOff, Size, Written};

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct WrittenJwt {
    /// The field that tokens are sent in, behind Bearer. Default: `"authorization"`.
    header: Written<String>,
    /// Who makes the tokens, as they have it.
    issuer: Written<String>,
    /// For whom they must be: one of these; "off" if they have none.
    audience: Written<OrOff<OneOrMany>>,
    /// How they may be signed. Default: `["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    /// "ES384", "EdDSA"]`.
    algorithms: Written<Vec<Written<Algorithm>>>,
    /// How far clocks may differ. Default: `"1m"`.
    clock_skew: Written<OrOff<Duration>>,
    /// What they must say, by claim.
    claims: BTreeMap<String, WrittenCondition>,
    /// Of a token. Default: `"8KiB"`.
    token_bytes: Written<Size>,
    /// Verified tokens that are remembered. Default: `1024`.
    cache: Written<OrOff<Count>>,
    /// The issuer's public keys, a JSON Web Key Set.
    jwks_file: Written<String>,
    /// Where the issuer's public keys are.
    jwks_url: Written<Url>,
    /// How they are fetched.
    jwks: WrittenJwks,
}

impl WrittenJwt {
    pub(super) fn check(self, check: &Check<'_>) -> Option<Kind> {
        let audience_key = self.audience.key().clone();
        if self.audience.is_absent() {
            let help = "write audience = [\"shop\"], or \"off\" if the issuer's tokens have none";
            check.wrong(&audience_key, "is missing: a token for another service would open this one", help);
        }
        let algorithms: Vec<_> = if self.algorithms.is_absent() {
            Algorithm::ALL.iter().map(|(_, algorithm)| *algorithm).collect()
        } else {
            self.algorithms.into_elements().collect()
        };
        let tokens = Tokens {
            header: field(self.header, header::AUTHORIZATION, check),
            issuer: self.issuer,
            audience: self.audience.into_option().and_then(OrOff::into_option).map(|OneOrMany(names)| names),
            algorithms,
            clock_skew: self.clock_skew,
            claims: self.claims,
            token_bytes: self.token_bytes,
            cache: self.cache,
            jwks_file: self.jwks_file,
            jwks_url: self.jwks_url,
            jwks: self.jwks,
        };
        let (settings, source) = tokens.check(check)?;
        Some(Kind::Jwt(Box::new(settings), source))
    }
}
