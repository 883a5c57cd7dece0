//! API keys: long random words, of which the gateway knows the hashes alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName};
use serde_json::Map;

use super::credentials;
use super::verdict::{Refusal, Verdict};
use crate::failure::Detail;
use crate::http::identity::{Identity, Method};
use crate::setting::Hash;

/// The longest key that is looked at, in bytes.
const LONGEST: usize = 512;

/// What `[auth.NAME.api_keys]` means once it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The field in which a key is sent.
    pub header: HeaderName,
    /// The keys.
    pub keys: Vec<Key>,
}

/// One key: it is known by its hash, and told by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Whose it is.
    pub name: Box<str>,
    /// What it must be.
    pub hash: Hash,
    /// From when on it opens nothing any more.
    pub expires: Option<SystemTime>,
}

/// The keys of one rule, to be looked up.
#[derive(Debug)]
pub struct ApiKeys {
    header: HeaderName,
    keys: HashMap<[u8; 8], Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    hash: Hash,
    expires: Option<SystemTime>,
    identity: Arc<Identity>,
}

impl ApiKeys {
    /// The keys of this rule.
    pub fn new(settings: &Settings, rule: &Arc<str>) -> Self {
        let mut keys: HashMap<_, Vec<Known>> = HashMap::new();
        for key in &settings.keys {
            let identity = Arc::new(Identity {
                rule: Arc::clone(rule),
                method: Method::ApiKey,
                subject: key.name.clone(),
                claims: Map::new(),
            });
            let known = Known { hash: key.hash, expires: key.expires, identity };
            keys.entry(key.hash.place()).or_default().push(known);
        }
        Self { header: settings.header.clone(), keys }
    }

    /// Whose key was sent in this header.
    pub fn verify(&self, headers: &HeaderMap) -> Verdict {
        let shown = match credentials::find(headers, &self.header, LONGEST) {
            Ok(shown) => Hash::of(shown),
            Err(refusal) => return refusal.into(),
        };
        let found =
            self.keys.get(&shown.place()).and_then(|keys| keys.iter().find(|key| key.hash.matches(&shown)));
        match found {
            Some(key) if key.expires.is_some_and(|expires| expires <= SystemTime::now()) => {
                Refusal::unauthenticated(Detail::TokenExpired).into()
            }
            Some(key) => Verdict::Passed(Arc::clone(&key.identity)),
            None => Refusal::unauthenticated(Detail::UnknownKey).into(),
        }
    }
}
