//! Tokens that have been verified, remembered by their hash: a signature costs more than a hash.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest;

use super::jwk::KeySet;
use crate::http::identity::Identity;

/// Remembers at most so many tokens, those that were seen last; and only as long as the keys stay the same.
#[derive(Debug)]
pub struct TokenCache {
    most: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    keys: Option<Arc<KeySet>>,
    /// What has been asked for since `old` was full, and what was asked for before.
    young: HashMap<TokenHash, Entry>,
    old: HashMap<TokenHash, Entry>,
}

/// The SHA-256 of a token: nobody finds another one with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of this token.
    pub fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }
}

#[derive(Debug)]
struct Entry {
    identity: Arc<Identity>,
    until: u64,
}

impl TokenCache {
    /// An empty one for this many tokens.
    pub fn new(most: usize) -> Self {
        Self { most, known: Mutex::default() }
    }

    /// Who is known by this token, if these keys verified it and it still holds.
    pub fn find(&self, token: &TokenHash, keys: &Arc<KeySet>, now: u64) -> Option<Arc<Identity>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.are_by(keys) {
            return None;
        }
        if let Some(entry) = known.young.get(token) {
            return (now < entry.until).then(|| Arc::clone(&entry.identity));
        }
        let entry = known.old.remove(token).filter(|entry| now < entry.until)?;
        let identity = Arc::clone(&entry.identity);
        known.keep(*token, entry, self.most);
        Some(identity)
    }

    /// Remembers a token that these keys have verified.
    pub fn keep(&self, token: TokenHash, keys: &Arc<KeySet>, identity: &Arc<Identity>, until: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.are_by(keys) {
            *known = Known { keys: Some(Arc::clone(keys)), ..Known::default() };
        }
        known.keep(token, Entry { identity: Arc::clone(identity), until }, self.most);
    }
}

impl Known {
    fn are_by(&self, keys: &Arc<KeySet>) -> bool {
        self.keys.as_ref().is_some_and(|known| Arc::ptr_eq(known, keys))
    }

    fn keep(&mut self, token: TokenHash, entry: Entry, most: usize) {
        if self.young.len() >= most.div_ceil(2) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(token, entry);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Map;

    use super::{TokenCache, TokenHash};
    use crate::http::auth::jwk::KeySet;
    use crate::http::identity::{Identity, Method};

    fn keys() -> Arc<KeySet> {
        let key = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        Arc::new(KeySet::parse(format!("{{\"keys\":[{key}]}}").as_bytes()).unwrap())
    }

    fn identity() -> Arc<Identity> {
        let subject = "a".into();
        Arc::new(Identity { rule: "auth.a".into(), method: Method::Jwt, subject, claims: Map::new() })
    }

    #[test]
    fn a_token_is_known_until_it_expires_or_the_keys_change() {
        let (cache, ours, others) = (TokenCache::new(4), keys(), keys());
        let token = TokenHash::of("token");
        assert!(cache.find(&token, &ours, 1).is_none());
        cache.keep(token, &ours, &identity(), 10);
        assert!(cache.find(&token, &ours, 9).is_some());
        assert!(cache.find(&token, &ours, 10).is_none(), "it has expired");
        assert!(cache.find(&token, &others, 9).is_none(), "other keys have not verified it");
        assert!(cache.find(&TokenHash::of("other"), &ours, 9).is_none());
        cache.keep(TokenHash::of("other"), &others, &identity(), 10);
        assert!(cache.find(&token, &ours, 9).is_none(), "what former keys verified is forgotten");
    }

    #[test]
    fn there_are_never_more_than_its_bound_and_those_in_use_stay() {
        let (cache, keys, identity) = (TokenCache::new(8), keys(), identity());
        let used = TokenHash::of("used");
        cache.keep(used, &keys, &identity, 10);
        for number in 0..100 {
            cache.keep(TokenHash::of(&number.to_string()), &keys, &identity, 10);
            assert!(cache.find(&used, &keys, 1).is_some(), "after {number} others");
            let known = cache.known.lock().unwrap();
            assert!(known.young.len() + known.old.len() <= 8);
        }
    }
}
