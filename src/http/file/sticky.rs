//! `sticky` of a route as written, and what it means.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::super::sticky::Settings;
use crate::setting::leaf::{schema, text};
use crate::setting::secret::WrittenSecret;
use crate::setting::{Check, Duration, OrOff, Written};

/// What brings a client back to its endpoint, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ cookie = \"tg_sticky\" } or \"off\"")]
pub(super) struct Sticky {
    /// The name of the cookie. Default: `"tg_sticky"`.
    cookie: Written<CookieName>,
    /// How long browsers keep it, in whole seconds; until their session ends without it.
    max_age: Written<Duration>,
    /// What several gateways share to read each other's cookies; each makes up its own without it.
    secret: Option<WrittenSecret>,
}

/// What brings a client back; `None` is nothing, as where a route does not ask for it.
pub(super) fn check(written: Option<OrOff<Sticky>>, check: &Check<'_>) -> Option<Settings> {
    let Sticky { cookie, max_age, secret } = written?.into_option()?;
    let key = max_age.key().clone();
    let max_age = max_age.into_option().map(std::time::Duration::from);
    if max_age.is_some_and(|age| age.subsec_nanos() > 0) {
        check.wrong(&key, "is not in whole seconds, as cookies are", "write whole seconds: \"1h\"");
    }
    let secret = secret.and_then(|secret| {
        let key = secret.key();
        let secret = secret.read(check)?;
        if secret.expose().len() < SHORTEST {
            let help = format!("write at least {SHORTEST} random characters");
            check.wrong(&key, "is so short that it could be guessed from the cookies", help);
        }
        Some(secret)
    });
    let cookie = cookie.into_option().map_or_else(|| DEFAULT_NAME.into(), |CookieName(name)| name);
    Some(Settings { cookie, max_age, secret })
}

/// The name of a cookie (RFC 6265 section 4.1.1: a token).
#[derive(Debug)]
struct CookieName(Box<str>);

impl<'de> Deserialize<'de> for CookieName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "the name of a cookie", |name| {
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(token) {
                return Ok(Self(name.into()));
            }
            let help =
                format!("write at most {LONGEST_NAME} letters, digits and underscores: \"{DEFAULT_NAME}\"");
            Err(format!("\"{name}\" is not the name of a cookie\n{help}"))
        })
    }
}

schema!(CookieName, { "type": "string", "examples": [DEFAULT_NAME], "minLength": 1, "maxLength": LONGEST_NAME });

const DEFAULT_NAME: &str = "tg_sticky";

const LONGEST_NAME: usize = 64;

/// In bytes.
const SHORTEST: usize = 16;
