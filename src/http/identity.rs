//! Who a request comes from, once a rule of `[auth]` has verified it: for later layers, never for a signal.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

/// How somebody was verified: a closed word, which may stand in any signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Method {
    /// By a key that the gateway knows the hash of.
    ApiKey,
    /// By a signed token (RFC 7519).
    Jwt,
    /// By the certificate that was shown in the TLS handshake.
    Mtls,
    /// By a service that was asked.
    Forward,
}

impl Method {
    /// The word in attributes and labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Jwt => "jwt",
            Self::Mtls => "mtls",
            Self::Forward => "forward",
        }
    }
}

/// Who was verified. Only the rule's name and the method may be told; the rest is about somebody.
pub struct Identity {
    /// The rule that did so, as the operator wrote it: `auth.staff`.
    pub rule: Arc<str>,
    /// How.
    pub method: Method,
    /// The name of the API key, the token's `sub`, the certificate's role; empty where nothing of the kind is known.
    pub subject: Box<str>,
    /// What a token says.
    pub claims: Map<String, Value>,
}

impl Identity {
    /// One word said of who it is, for a header field or the key of a limit: `sub` is the subject, whatever the
    /// method; any other is the token's claim of this name, or the one at this JSON pointer (`/realm/tenant`); a
    /// list's elements are joined by commas. `None` if there is none, or if it is nothing of the kind.
    pub fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        if name == "sub" {
            return (!self.subject.is_empty()).then_some(Cow::Borrowed(&*self.subject));
        }
        let value = claim(&self.claims, name)?;
        let Value::Array(elements) = value else { return text(value) };
        let words = elements.iter().map(|element| text(element).filter(|word| !word.contains(',')));
        Some(Cow::Owned(words.collect::<Option<Vec<_>>>()?.join(",")))
    }
}

/// A text, number or truth value as a word.
pub fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The claim of this name, or at this JSON pointer (RFC 6901).
pub fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let Some(pointer) = name.strip_prefix('/') else { return claims.get(name) };
    let (first, rest) = pointer.split_at(pointer.find('/').unwrap_or(pointer.len()));
    claims.get(&first.replace("~1", "/").replace("~0", "~"))?.pointer(rest)
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("rule", &self.rule)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Identity, Method};

    #[test]
    fn a_claim_is_found_by_name_or_pointer_and_nothing_of_it_is_printed() {
        let claims = json!({
            "tenant": "acme", "level": 3, "admin": true, "roles": ["a", "b"], "odd": ["a,b"], "realm": { "name": "eu", "a/b": "c" },
            "https://shop.test/id": "7", "sub": "other"
        });
        let claims = claims.as_object().unwrap().clone();
        let identity =
            Identity { rule: "auth.staff".into(), method: Method::Jwt, subject: "alice".into(), claims };
        for (name, value) in [
            ("sub", Some("alice")),
            ("tenant", Some("acme")),
            ("level", Some("3")),
            ("admin", Some("true")),
            ("roles", Some("a,b")),
            ("odd", None),
            ("/roles/0", Some("a")),
            ("/realm/name", Some("eu")),
            ("/realm/a~1b", Some("c")),
            ("/realm", None),
            ("https://shop.test/id", Some("7")),
            ("absent", None),
        ] {
            assert_eq!(identity.claim(name).as_deref(), value, "{name}");
        }
        let printed = format!("{identity:?}");
        assert!(!printed.contains("alice") && !printed.contains("acme"), "{printed}");
    }
}
