//! Who asks, and whether they may: tokens by their hashes, wrong ones counted and slowed down.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::header::{AUTHORIZATION, HeaderMap};

use super::role::{Right, Role};
use crate::setting::Hash;
use crate::view::View;

/// A token as used: what `[admin.tokens.NAME]` means once it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The key in the table: what the audit says.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// Its hash and, while it is being replaced, its predecessor's.
    pub hashes: Vec<(Hash, Option<SystemTime>)>,
}

/// Stands before every page.
#[derive(Debug)]
pub(super) struct Door {
    tokens: View<Vec<Token>>,
    wrong: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

/// Who has come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    /// Nobody is asked: there are no tokens, and only this machine can reach the address.
    Anyone,
    /// The bearer of a token.
    Named(Arc<str>, Role),
}

/// Why somebody may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No token was shown.
    NoToken,
    /// What was shown is no token, or one that has expired.
    WrongToken,
    /// The same once more, and too often.
    TooMany,
    /// This one's role does not have the right.
    Forbidden(Arc<str>),
    /// Changes need a token, and there are none.
    ReadOnly,
}

impl Who {
    /// As the audit has it.
    pub(super) fn name(&self) -> Arc<str> {
        match self {
            Self::Anyone => "-".into(),
            Self::Named(name, _) => Arc::clone(name),
        }
    }
}

impl Refusal {
    /// Who was refused, as the audit has it.
    pub(super) fn who(&self) -> Arc<str> {
        match self {
            Self::Forbidden(name) => Arc::clone(name),
            Self::NoToken | Self::WrongToken | Self::TooMany | Self::ReadOnly => "-".into(),
        }
    }
}

impl Door {
    /// Opens to these tokens.
    pub(super) fn new(tokens: View<Vec<Token>>) -> Self {
        Self { tokens, wrong: Mutex::default() }
    }

    /// Whether anybody is asked for one.
    pub(super) fn has_tokens(&self) -> bool {
        !self.tokens.current().is_empty()
    }

    /// Who asks from this address, if they may.
    ///
    /// A right token passes however many wrong ones came from its address: 256 random bits are not guessed, and
    /// nobody is to lock out an operator.
    pub(super) fn pass(&self, right: Right, headers: &HeaderMap, from: IpAddr) -> Result<Who, Refusal> {
        if right == Right::Probe {
            return Ok(Who::Anyone);
        }
        let tokens = self.tokens.current();
        if tokens.is_empty() {
            return if right.is_reading() { Ok(Who::Anyone) } else { Err(Refusal::ReadOnly) };
        }
        let Some(shown) = headers.get(AUTHORIZATION) else { return Err(Refusal::NoToken) };
        let shown = shown.to_str().ok().and_then(bearer).filter(|token| token.len() <= LONGEST);
        match shown.and_then(|token| find(&tokens, &Hash::of(token), SystemTime::now())) {
            Some(token) if right.roles().contains(&token.role) => {
                Ok(Who::Named(Arc::clone(&token.name), token.role))
            }
            Some(token) => Err(Refusal::Forbidden(Arc::clone(&token.name))),
            None if self.is_patient(from, Instant::now()) => Err(Refusal::WrongToken),
            None => Err(Refusal::TooMany),
        }
    }

    /// Counts a wrong token; `false` where there have been too many of this address.
    fn is_patient(&self, from: IpAddr, now: Instant) -> bool {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= ADDRESSES {
            wrong.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        if wrong.len() >= ADDRESSES && !wrong.contains_key(&from) {
            return false;
        }
        let (since, count) = wrong.entry(from).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= PATIENCE
    }
}

/// All are compared, so that the time tells nothing.
fn find<'t>(tokens: &'t [Token], shown: &Hash, now: SystemTime) -> Option<&'t Token> {
    let is = |(hash, expires): &(Hash, Option<SystemTime>)| {
        hash.matches(shown) & expires.is_none_or(|expires| now < expires)
    };
    let found = |token: &Token| token.hashes.iter().fold(false, |found, known| found | is(known));
    tokens.iter().fold(None, |best, token| if found(token) { Some(token) } else { best })
}

/// The token of `Authorization: Bearer …` (RFC 6750 section 2.1).
fn bearer(field: &str) -> Option<&str> {
    let (scheme, token) = field.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Wrong tokens of one address in a window that are answered 401; more are 429.
const PATIENCE: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// Addresses whose wrong tokens are counted at once; those beyond get no patience.
const ADDRESSES: usize = 1024;
/// The longest token that is looked at, in bytes.
const LONGEST: usize = 512;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use http::header::{AUTHORIZATION, HeaderMap};

    use super::{Door, PATIENCE, Refusal, Right, Role, Token, Who};
    use crate::setting::Hash;
    use crate::view::View;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn token(name: &str, role: Role, secrets: &[(&str, Option<SystemTime>)]) -> Token {
        let hashes = secrets.iter().map(|(secret, expires)| (Hash::of(secret), *expires)).collect();
        Token { name: name.into(), role, hashes }
    }

    fn door(tokens: Vec<Token>) -> Door {
        Door::new(View::new(Arc::new(tokens)))
    }

    fn showing(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
    }

    #[test]
    fn two_tokens_of_one_name_are_live_until_the_old_one_expires() {
        let soon = SystemTime::now() + Duration::from_mins(1);
        let over = SystemTime::now() - Duration::from_mins(1);
        let secrets = [("new", None), ("old", Some(soon)), ("older", Some(over))];
        let door = door(vec![token("deploy", Role::Operator, &secrets)]);
        for (shown, passes) in [("new", true), ("old", true), ("older", false), ("", false)] {
            assert_eq!(door.pass(Right::Change, &showing(shown), HERE).is_ok(), passes, "{shown}");
        }
        assert_eq!(door.pass(Right::Look, &HeaderMap::new(), HERE), Err(Refusal::NoToken));
        assert_eq!(door.pass(Right::Probe, &HeaderMap::new(), HERE), Ok(Who::Anyone));
    }

    #[test]
    fn without_tokens_anybody_may_read_and_nobody_may_change() {
        let door = door(Vec::new());
        assert_eq!(door.pass(Right::Look, &HeaderMap::new(), HERE), Ok(Who::Anyone));
        assert_eq!(door.pass(Right::Change, &HeaderMap::new(), HERE), Err(Refusal::ReadOnly));
    }

    #[test]
    fn wrong_tokens_are_slowed_down_and_a_right_one_still_passes() {
        let door = door(vec![token("ops", Role::Operator, &[("right", None)])]);
        for _ in 0..PATIENCE {
            assert_eq!(door.pass(Right::Look, &showing("wrong"), HERE), Err(Refusal::WrongToken));
        }
        assert_eq!(door.pass(Right::Look, &showing("wrong"), HERE), Err(Refusal::TooMany));
        assert!(door.pass(Right::Look, &showing("right"), HERE).is_ok());
        let elsewhere = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(door.pass(Right::Look, &showing("wrong"), elsewhere), Err(Refusal::WrongToken));
    }
}
