//! `[auth.NAME]` as written, and what it means.

mod api_keys;
mod field;
mod forward;
mod jwt;
pub mod tokens;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use self::api_keys::WrittenApiKeys;
use self::field::identity_header;
pub use self::forward::Services;
use self::forward::WrittenForward;
use self::jwt::WrittenJwt;
use super::{Kind, Settings};
use crate::problem::Key;
use crate::setting::{Check, Written};

/// A rule as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Auth {
    /// Verifies API keys.
    api_keys: Option<WrittenApiKeys>,
    /// Verifies signed tokens.
    jwt: Option<WrittenJwt>,
    /// Verifies client certificates by their role.
    mtls: Option<WrittenMtls>,
    /// Asks a service who it is and whether it may pass.
    forward: Option<WrittenForward>,
    /// Fields that tell the upstream who was verified, and the claims that are their values. No client can set
    /// them, on any route.
    identity_headers: BTreeMap<String, Written<String>>,
    /// Other fields that mean an identity, which no client can set. Default: `[]`.
    strip_headers: Written<Vec<Written<String>>>,
    /// Whether the upstream gets the credentials; true without it, but false with `api_keys`.
    forward_credentials: Written<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenMtls {
    /// The roles; any if there is none. Default: `[]`.
    roles: Written<Vec<Written<String>>>,
}

impl Auth {
    /// The rule as used, with keys read; `None` only after a problem has been noted.
    pub fn check(self, name: &str, services: Services<'_>, check: &Check<'_>) -> Option<Settings> {
        let table = self.strip_headers.key().parent().unwrap_or_default();
        if name == "off" {
            check.wrong(
                &table,
                "\"off\" is no name for a rule: on a route it asks for nothing",
                "name it otherwise",
            );
        }
        let kinds = [
            self.api_keys.as_ref().map(|_| "api_keys"),
            self.jwt.as_ref().map(|_| "jwt"),
            self.mtls.as_ref().map(|_| "mtls"),
            self.forward.as_ref().map(|_| "forward"),
        ];
        let help =
            "write one of [auth.NAME.api_keys], [auth.NAME.jwt], [auth.NAME.mtls] and [auth.NAME.forward]";
        match kinds.into_iter().flatten().collect::<Vec<_>>()[..] {
            [_] => {}
            [] => check.wrong(&table, "does not say what it verifies", help),
            [.., second] => {
                let what = "a rule verifies one kind of credentials; a route may name several rules";
                check.wrong(&table.child(second), what, help);
            }
        }
        let is_api_key = self.api_keys.is_some();
        let identity_keys: Vec<Key> =
            self.identity_headers.values().map(|claim| claim.key().clone()).collect();
        let mut identity_headers: Vec<_> = self
            .identity_headers
            .into_iter()
            .filter_map(|(name, claim)| {
                let key = claim.key().clone();
                let claim = claim.into_option()?;
                if claim.is_empty() {
                    check.wrong(&key, "is empty", "name a claim: \"sub\", \"tenant\", \"/realm/roles\"");
                }
                Some((identity_header(&name, &key, check)?, claim.into()))
            })
            .collect();
        let strip_headers = self.strip_headers.into_option().unwrap_or_default();
        let strip_headers =
            strip_headers.iter().filter_map(|name| identity_header(name.get()?, name.key(), check)).collect();
        let jwt = self.jwt.map(|jwt| jwt.check(check));
        let api_keys = self.api_keys.map(|keys| Kind::ApiKeys(keys.check(check)));
        let mtls = self.mtls.map(|mtls| Kind::Mtls(mtls.roles.into_elements().map(Into::into).collect()));
        let forward_key = self.forward_credentials.key().clone();
        if self.forward.is_some() && !self.forward_credentials.is_absent() {
            let help =
                "leave it out; what the upstream is not to get goes with headers.request.remove on the route";
            check.wrong(&forward_key, "is never used: the service reads fields that are the client's", help);
        }
        let forward = self.forward.map(|forward| forward.check(&mut identity_headers, services, check));
        let settings = Settings {
            name: name.into(),
            kind: match (jwt, forward) {
                (Some(jwt), _) => jwt?,
                (None, Some(forward)) => Kind::Forward(Box::new(forward?)),
                (None, None) => api_keys.or(mtls)?,
            },
            identity_headers,
            strip_headers,
            // a key is a secret between its owner and the gateway; of a token the service may want to read more
            forward_credentials: self.forward_credentials.or(!is_api_key),
        };
        if let Some(field) = settings.credentials()
            && settings.identity_fields().any(|name| name == field)
        {
            let help = "write another field: no client may set this one";
            check.wrong(&table, format!("{field} holds its credentials"), help);
        }
        for (key, (name, claim)) in identity_keys.iter().zip(&settings.identity_headers) {
            if !settings.yields(claim) {
                let what = format!(
                    "\"{claim}\" is nothing that this rule knows of anybody: {name} would never be set"
                );
                let help = match &settings.kind {
                    Kind::Forward(_) => {
                        "write \"sub\", with subject = \"…\", or list the field in answer_headers"
                    }
                    Kind::ApiKeys(_) | Kind::Mtls(_) | Kind::Jwt(..) => {
                        "write \"sub\": the key's name, or the role"
                    }
                };
                check.wrong(key, what, help);
            }
        }
        Some(settings)
    }
}
