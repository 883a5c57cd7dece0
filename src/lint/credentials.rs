//! Credentials that the rules of the configuration take, so that what stands in them is looked for, too: a key of the
//! lint's own beside those configured, and tokens with canaries for claims, signed by an issuer that is the lint.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Map, Value, json};

use super::canary::Canaries;
use crate::gateway::Settings;
use crate::http::auth::api_key::Key;
use crate::http::auth::claims::{Condition, Required};
use crate::http::auth::issuer::Source;
use crate::http::auth::jwk::{Algorithm, KeySet};
use crate::http::auth::{Kind, Settings as Rule};
use crate::http::identity;
use crate::http::route::Settings as Route;
use crate::setting::Hash;

/// What opens the configured rules.
pub(super) struct Credentials {
    rules: Vec<Rule>,
    key: String,
    issuer: Ed25519KeyPair,
}

impl Credentials {
    /// Has the rules of these settings take them. What the rules ask for stays as it is.
    pub(super) fn plant(settings: &mut Settings, canaries: &mut Canaries) -> Self {
        let key = canaries.send("API key", "every route that takes one");
        let random = SystemRandom::new();
        let pair = Ed25519KeyPair::generate_pkcs8(&random).expect("the system has random numbers");
        let issuer = Ed25519KeyPair::from_pkcs8(pair.as_ref()).expect("it has just been made");
        let public = URL_SAFE_NO_PAD.encode(issuer.public_key());
        let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": KEY, "x": public }] });
        let set = KeySet::parse(set.to_string().as_bytes()).expect("a set of one key");
        for rule in &mut settings.auth {
            match &mut rule.kind {
                Kind::ApiKeys(keys) => {
                    keys.keys.push(Key { name: "lint".into(), hash: Hash::of(&key), expires: None });
                }
                Kind::Jwt(tokens, source) => {
                    tokens.algorithms.push(Algorithm::EdDsa);
                    *source = Source::Read(Arc::new(set.clone()));
                }
                // a service that is asked is one of the upstreams, and so the lint's own
                Kind::Mtls(_) | Kind::Forward(_) => {}
            }
        }
        Self { rules: settings.auth.clone(), key, issuer }
    }

    /// The fields that open a route, with canaries for all that they say; none if it asks for none of these.
    pub(super) fn fields(
        &self,
        route: &Route,
        canary: &mut (dyn FnMut(&'static str) -> String + '_),
    ) -> Vec<(String, String)> {
        let rules = self.rules.iter().filter(|rule| route.auth.contains(&rule.name));
        let field = |rule: &Rule| {
            let field = rule.credentials()?;
            let shown = match &rule.kind {
                Kind::ApiKeys(_) => self.key.clone(),
                Kind::Jwt(tokens, _) => self.token(&tokens.required, rule, canary),
                Kind::Mtls(_) | Kind::Forward(_) => return None,
            };
            let scheme = if field == header::AUTHORIZATION { "Bearer " } else { "" };
            Some((field.to_string(), format!("{scheme}{shown}")))
        };
        rules.filter_map(field).collect()
    }

    /// A token that says what is asked for, and much else.
    fn token(
        &self,
        required: &Required,
        rule: &Rule,
        canary: &mut (dyn FnMut(&'static str) -> String + '_),
    ) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut claims = Map::new();
        claims.insert("iss".to_owned(), (*required.issuer).into());
        claims.insert("exp".to_owned(), (now + 3600).into());
        if let Some(audience) = required.audience.as_ref().and_then(|audience| audience.first()) {
            claims.insert("aud".to_owned(), (**audience).into());
        }
        for (name, condition) in &required.claims {
            let value = match condition {
                Condition::OneOf(allowed) => allowed.first().map_or(Value::Null, |one| (**one).into()),
                Condition::Contains(wanted) => json!([**wanted]),
            };
            state(&mut claims, name, value);
        }
        let told = rule.identity_headers.iter().map(|(_, claim)| &**claim);
        for name in ["sub", "email", "name", "jti"].into_iter().chain(told) {
            if identity::claim(&claims, name).is_none() {
                state(&mut claims, name, canary("claim of a token that is taken").into());
            }
        }
        let piece = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = piece(&json!({ "alg": "EdDSA", "kid": KEY }));
        let signed = format!("{head}.{}", piece(&claims.into()));
        let signature = URL_SAFE_NO_PAD.encode(self.issuer.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// States a claim by its name or JSON pointer.
fn state(claims: &mut Map<String, Value>, name: &str, value: Value) {
    let Some(pointer) = name.strip_prefix('/') else {
        claims.insert(name.to_owned(), value);
        return;
    };
    let (first, rest) = pointer.split_at(pointer.find('/').unwrap_or(pointer.len()));
    let first = first.replace("~1", "/").replace("~0", "~");
    if rest.is_empty() {
        claims.insert(first, value);
    } else if let Value::Object(below) = claims.entry(first).or_insert_with(|| Map::new().into()) {
        state(below, rest, value);
    }
}

/// The name of the issuer's key.
const KEY: &str = "lint";
