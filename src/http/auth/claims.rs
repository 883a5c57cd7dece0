//! What a token must say: who issued it, for whom, for how long, and what the operator asks for besides.

use std::time::Duration;

use serde_json::{Map, Value};

use super::verdict::Refusal;
use crate::failure::Detail;
use crate::http::identity;

/// What a token's claims must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Required {
    /// `iss` must be this.
    pub issuer: Box<str>,
    /// `aud` must name one of these; `None` asks for nothing.
    pub audience: Option<Vec<Box<str>>>,
    /// How far the issuer's clock may be from ours.
    pub clock_skew: Duration,
    /// Other claims, by name or JSON pointer.
    pub claims: Vec<(Box<str>, Condition)>,
}

/// What a claim must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// One of these.
    OneOf(Vec<Box<str>>),
    /// A list with this element, or a text with this word, as `scope` has them.
    Contains(Box<str>),
}

impl Required {
    /// Checks the claims at this time, in seconds since 1970. Tells until when they hold.
    pub fn check(&self, claims: &Map<String, Value>, now: u64) -> Result<u64, Refusal> {
        let refused = |detail| Err(Refusal::unauthenticated(detail));
        // times first: an old token of a former issuer is simply old
        let skew = self.clock_skew.as_secs();
        if !claims.contains_key("exp") {
            return refused(Detail::MissingClaim);
        }
        let Some(until) = self.until(claims) else { return refused(Detail::Malformed) };
        if until <= now {
            return refused(Detail::TokenExpired);
        }
        if let Some(from) = claims.get("nbf") {
            match seconds(from) {
                None => return refused(Detail::Malformed),
                Some(from) if from > now.saturating_add(skew) => return refused(Detail::NotYetValid),
                Some(_) => {}
            }
        }
        if claims.get("iss").and_then(Value::as_str) != Some(&*self.issuer) {
            return refused(Detail::WrongIssuer);
        }
        if let Some(audience) = &self.audience {
            let known =
                |name: &Value| name.as_str().is_some_and(|name| audience.iter().any(|one| **one == *name));
            let named = match claims.get("aud") {
                Some(Value::Array(names)) => names.iter().any(known),
                Some(name) => known(name),
                None => false,
            };
            if !named {
                return refused(Detail::WrongAudience);
            }
        }
        for (name, condition) in &self.claims {
            if !identity::claim(claims, name).is_some_and(|value| condition.holds(value)) {
                // the token is good, its bearer may not
                return Err(Refusal::forbidden(Detail::MissingClaim));
            }
        }
        Ok(until)
    }

    /// Until when claims hold, in seconds since 1970; `None` if they do not say.
    pub fn until(&self, claims: &Map<String, Value>) -> Option<u64> {
        Some(seconds(claims.get("exp")?)?.saturating_add(self.clock_skew.as_secs()))
    }
}

impl Condition {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Self::OneOf(allowed) => {
                let text = identity::text(value);
                text.is_some_and(|text| allowed.iter().any(|one| **one == *text))
            }
            Self::Contains(wanted) => match value {
                Value::Array(values) => {
                    values.iter().filter_map(identity::text).any(|element| *element == **wanted)
                }
                Value::String(text) => text.split(' ').any(|word| word == &**wanted),
                _ => false,
            },
        }
    }
}

/// A `NumericDate` (RFC 7519 section 2), which may have a fraction.
fn seconds(value: &Value) -> Option<u64> {
    if let Some(seconds) = value.as_u64() {
        return Some(seconds);
    }
    let seconds = value.as_f64()?;
    // what is before 1970 is before all else, too; a float too large becomes the largest number
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    (!seconds.is_nan()).then_some(seconds as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::{Condition, Required};
    use crate::failure::{Detail, Reason};

    const NOW: u64 = 1_000_000;

    #[expect(clippy::needless_pass_by_value, reason = "tables read better")]
    fn checked(audience: Option<&[&str]>, claims: &[(&str, Condition)], value: Value) -> Result<u64, Detail> {
        let required = Required {
            issuer: "https://login.test".into(),
            audience: audience.map(|names| names.iter().map(|name| (*name).into()).collect()),
            clock_skew: Duration::from_mins(1),
            claims: claims.iter().map(|(name, condition)| ((*name).into(), condition.clone())).collect(),
        };
        let mut all = json!({ "iss": "https://login.test", "aud": "shop", "exp": NOW + 100 });
        for (name, value) in value.as_object().unwrap() {
            all[name] = value.clone();
        }
        let all = all.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
        let all = all.map(|(name, value)| (name.clone(), value.clone())).collect();
        required.check(&all, NOW).map_err(|refusal| {
            assert_eq!(
                refusal.reason == Reason::Forbidden,
                refusal.detail == Detail::MissingClaim && !claims.is_empty()
            );
            refusal.detail
        })
    }

    #[test]
    fn a_token_holds_from_to_by_and_for() {
        use Detail::{Malformed, MissingClaim, NotYetValid, TokenExpired, WrongAudience, WrongIssuer};
        for (value, expected) in [
            (json!({}), Ok(NOW + 160)),
            (json!({ "exp": NOW - 59 }), Ok(NOW + 1)),
            (json!({ "exp": NOW - 60 }), Err(TokenExpired)),
            (json!({ "exp": 1_000_100.5 }), Ok(NOW + 160)),
            (json!({ "exp": -5 }), Err(TokenExpired)),
            (json!({ "exp": 1e300 }), Ok(u64::MAX)),
            (json!({ "exp": "soon" }), Err(Malformed)),
            (json!({ "exp": null }), Err(MissingClaim)),
            (json!({ "nbf": NOW + 60 }), Ok(NOW + 160)),
            (json!({ "nbf": NOW + 61 }), Err(NotYetValid)),
            (json!({ "nbf": [] }), Err(Malformed)),
            (json!({ "iss": "https://login.test/" }), Err(WrongIssuer)),
            (json!({ "iss": ["https://login.test"] }), Err(WrongIssuer)),
            (json!({ "iss": null }), Err(WrongIssuer)),
            (json!({ "aud": ["other", "shop"] }), Ok(NOW + 160)),
            (json!({ "aud": ["other"] }), Err(WrongAudience)),
            (json!({ "aud": [["shop"]] }), Err(WrongAudience)),
            (json!({ "aud": null }), Err(WrongAudience)),
            // old first: what else is wrong with it does not matter any more
            (json!({ "iss": "other", "exp": 1 }), Err(TokenExpired)),
        ] {
            assert_eq!(checked(Some(&["shop"]), &[], value.clone()), expected, "{value}");
        }
        assert!(checked(None, &[], json!({ "aud": null })).is_ok());
    }

    #[test]
    fn claims_are_compared_as_texts_lists_and_words() {
        let contains = |word: &str| Condition::Contains(word.into());
        let one_of = |words: &[&str]| Condition::OneOf(words.iter().map(|word| (*word).into()).collect());
        for (name, condition, value, holds) in [
            ("scope", contains("orders"), json!({ "scope": "profile orders" }), true),
            ("scope", contains("orders"), json!({ "scope": "orders:read" }), false),
            ("roles", contains("staff"), json!({ "roles": ["a", "staff"] }), true),
            ("roles", contains("staff"), json!({ "roles": { "staff": true } }), false),
            ("/realm/roles", contains("staff"), json!({ "realm": { "roles": ["staff"] } }), true),
            ("tenant", one_of(&["acme", "other"]), json!({ "tenant": "acme" }), true),
            ("tenant", one_of(&["acme"]), json!({ "tenant": ["acme"] }), false),
            ("level", one_of(&["3"]), json!({ "level": 3 }), true),
            ("email_verified", one_of(&["true"]), json!({ "email_verified": true }), true),
            ("tenant", one_of(&["acme"]), json!({}), false),
        ] {
            let result = checked(None, &[(name, condition)], value.clone());
            assert_eq!(result.is_ok(), holds, "{name} {value}");
        }
    }
}
