//! The ways in at the admin address: tokens by their hashes, an issuer's signed tokens by a claim, client certificates
//! by a name in them. Each is told by the name that the operator wrote, never by who somebody is.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, HeaderMap};
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use super::role::Role;
use crate::failure::Reason;
use crate::http::auth::issuer::{Issuer, Source};
use crate::http::auth::jwt::{self, Jwt};
use crate::http::auth::verdict::Verdict;
use crate::http::identity::{self, Identity};
use crate::listener::tls::clients::Roles;
use crate::net::{Resolver, x509};
use crate::setting::Hash;
use crate::telemetry::attribute::Configured;
use crate::telemetry::metrics::Metrics;

/// The ways in as used: what `[admin.tokens]`, `[admin.jwt]` and `[admin.certificates]` mean once they have been
/// checked.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Tokens of our own.
    pub tokens: Vec<Token>,
    /// Tokens of an issuer.
    pub signed: Option<Signed>,
    /// Client certificates, which the TLS of the address has verified.
    pub certificates: Vec<Certificate>,
}

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

/// What `[admin.jwt]` means once it has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Signed {
    /// What a token must be like.
    pub tokens: jwt::Settings,
    /// Where the issuer's keys come from.
    pub source: Source,
    /// The claim that says what its bearer is, by name or JSON pointer.
    pub claim: Box<str>,
    /// What its values stand for.
    pub roles: Vec<(Arc<str>, Role)>,
}

/// What `[admin.certificates.NAME]` means once it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The key in the table: what the audit says.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// One of the names it is made out to: a URI, an e-mail address, or a DNS name.
    pub san: Box<str>,
}

/// By which way somebody came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// By a token of our own.
    Token,
    /// By an issuer's token.
    Jwt,
    /// By a client certificate.
    Certificate,
}

impl Way {
    /// The word in the audit.
    pub fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Jwt => "jwt",
            Self::Certificate => "certificate",
        }
    }
}

/// Somebody who is known, by what the operator wrote down.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The name of the token or the certificate, or the value of the claim.
    pub name: Arc<str>,
    /// What they may do.
    pub role: Role,
    /// What they have shown.
    pub proof: Proof,
}

/// What somebody has shown, so that whether it still opens can be asked later: of a session, of a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Proof {
    /// A token of our own, found again by its hash.
    Token(Hash),
    /// An issuer's token: until when it holds, in seconds since 1970, and what was asked of it.
    Jwt(u64, Arc<Signed>),
    /// A client certificate: until when it holds, in seconds since 1970, and what was looked for in it.
    Certificate(u64, Certificate),
}

impl Known {
    /// How they came in.
    pub fn way(&self) -> Way {
        match self.proof {
            Proof::Token(_) => Way::Token,
            Proof::Jwt(..) => Way::Jwt,
            Proof::Certificate(..) => Way::Certificate,
        }
    }
}

/// What came of the credentials that somebody showed.
#[derive(Debug)]
pub(super) enum Found {
    /// They are right.
    Known(Known),
    /// They are a valid token of the issuer's, which says of its bearer nothing that stands for a role.
    NoRole,
    /// They are wrong.
    Wrong,
    /// Nobody can say: the issuer's keys are not to be had.
    Unknown,
    /// There are none.
    Nothing,
}

/// What opens.
#[derive(Debug)]
pub struct Ways {
    tokens: Vec<Token>,
    signed: Option<Verifier>,
    certificates: Vec<Certificate>,
    /// Gives certificates the names of their tables.
    names: Roles,
}

#[derive(Debug)]
struct Verifier {
    settings: Arc<Signed>,
    jwt: Jwt,
}

impl Ways {
    /// What opens by these settings. To be called within a runtime. The issuer that was there before stays, with
    /// its keys, if they come from the same source.
    pub fn new(settings: &Settings, resolver: &Resolver, metrics: &Metrics, before: Option<&Self>) -> Self {
        let rule: Arc<str> = RULE.into();
        let signed = settings.signed.clone().map(|signed| {
            let known = before.and_then(|before| before.signed.as_ref());
            let known = known.filter(|known| known.settings.source == signed.source);
            let issuer = known.map_or_else(
                || {
                    Issuer::new(
                        &signed.source,
                        &rule,
                        resolver,
                        metrics.issuer_fetches(&Configured::new(Arc::clone(&rule))),
                    )
                },
                |known| known.jwt.issuer(),
            );
            Verifier { jwt: Jwt::new(&signed.tokens, &rule, issuer), settings: Arc::new(signed) }
        });
        let mut names = Roles::default();
        for certificate in &settings.certificates {
            names.give(&certificate.san, &certificate.name);
        }
        Self { tokens: settings.tokens.clone(), signed, certificates: settings.certificates.clone(), names }
    }

    /// Whether nobody is asked.
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.signed.is_none() && self.certificates.is_empty()
    }

    /// Whom these credentials show: the header's first, then the certificate of the connection.
    pub(super) async fn find(&self, headers: &HeaderMap, certificate: Option<&[u8]>) -> Found {
        let borne = self.bearer(headers).await;
        if let Found::Known(_) | Found::NoRole = borne {
            return borne;
        }
        let shown = certificate.filter(|_| !self.certificates.is_empty());
        match shown.map(|der| self.certificate(der)) {
            Some(Some(known)) => Found::Known(known),
            Some(None) if matches!(borne, Found::Nothing) => Found::Wrong,
            Some(None) | None => borne,
        }
    }

    /// Whose the token of ours is that has this hash.
    pub(super) fn token(&self, hash: &Hash) -> Option<Known> {
        let Token { name, role, .. } = find(&self.tokens, hash, SystemTime::now())?;
        Some(Known { name: Arc::clone(name), role: *role, proof: Proof::Token(*hash) })
    }

    /// Whether what was shown still opens what it did.
    pub(super) fn still_open(&self, known: &Known, now: SystemTime) -> bool {
        match &known.proof {
            Proof::Token(hash) => self.token(hash).as_ref() == Some(known),
            Proof::Jwt(until, by) => {
                seconds(now) < *until && self.signed.as_ref().is_some_and(|signed| signed.settings == *by)
            }
            Proof::Certificate(until, by) => seconds(now) <= *until && self.certificates.contains(by),
        }
    }

    async fn bearer(&self, headers: &HeaderMap) -> Found {
        let Some(shown) = headers.get(AUTHORIZATION) else { return Found::Nothing };
        let shown = shown.to_str().ok().and_then(bearer);
        let token = shown.filter(|token| token.len() <= LONGEST);
        if let Some(known) = token.and_then(|token| self.token(&Hash::of(token))) {
            return Found::Known(known);
        }
        match &self.signed {
            Some(signed) => signed.verify(headers).await,
            None => Found::Wrong,
        }
    }

    fn certificate(&self, der: &[u8]) -> Option<Known> {
        let name = self.names.of(&CertificateDer::from(der))?;
        let certificate = self.certificates.iter().find(|certificate| certificate.name == name)?.clone();
        let until = seconds(x509::read(der).ok()?.not_after);
        Some(Known { name, role: certificate.role, proof: Proof::Certificate(until, certificate) })
    }
}

impl Verifier {
    async fn verify(&self, headers: &HeaderMap) -> Found {
        match self.jwt.verify_waiting(headers).await {
            Verdict::Passed(identity) => match self.settings.role(&identity) {
                Some((name, role)) => {
                    let until = self.settings.tokens.required.until(&identity.claims);
                    let proof = Proof::Jwt(until.unwrap_or_default(), Arc::clone(&self.settings));
                    Found::Known(Known { name: Arc::clone(name), role: *role, proof })
                }
                None => Found::NoRole,
            },
            Verdict::Refused(refusal) if refusal.reason == Reason::AuthUnavailable => Found::Unknown,
            Verdict::Refused(_) | Verdict::Open(_) | Verdict::Undecided => Found::Wrong,
        }
    }
}

impl Signed {
    /// The role that a verified token's claim stands for, and the value that says so: of several, the one that may
    /// do most.
    fn role(&self, identity: &Identity) -> Option<&(Arc<str>, Role)> {
        let said = identity::claim(&identity.claims, &self.claim)?;
        let is_said = |value: &str| match said {
            Value::String(text) => text == value || text.split(' ').any(|word| word == value),
            Value::Array(values) => values.iter().any(|said| said.as_str() == Some(value)),
            _ => false,
        };
        self.roles.iter().filter(|(value, _)| is_said(value)).max_by_key(|(_, role)| *role)
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

/// Since 1970.
fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The token of `Authorization: Bearer …` (RFC 6750 section 2.1).
fn bearer(field: &str) -> Option<&str> {
    let (scheme, token) = field.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The name of the issuer's rule, in metrics and in the log.
const RULE: &str = "admin.jwt";
/// The longest token of our own that is looked at, in bytes.
const LONGEST: usize = 512;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use serde_json::json;

    use super::{Certificate, Known, Proof, Settings, Signed, Source, Token, Ways};
    use crate::admin::role::Role;
    use crate::http::auth::claims::Required;
    use crate::http::auth::jwk::KeySet;
    use crate::http::auth::jwt;
    use crate::http::identity::{Identity, Method};
    use crate::net::{DnsSettings, Resolver};
    use crate::setting::Hash;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::settings;

    const KEYS: &[u8] =
        br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn signed() -> Signed {
        let required = Required {
            issuer: "i".into(),
            audience: Some(vec!["tracegate-admin".into()]),
            clock_skew: Duration::ZERO,
            claims: Vec::new(),
        };
        let tokens = jwt::Settings {
            header: http::header::AUTHORIZATION,
            algorithms: Vec::new(),
            required,
            token_bytes: 1,
            cache: None,
        };
        let roles = [
            ("ops", Role::Operator),
            ("dev", Role::Developer),
            ("help", Role::Support),
            ("prom", Role::Metrics),
        ];
        Signed {
            tokens,
            source: Source::Read(Arc::new(KeySet::parse(KEYS).unwrap())),
            claim: "/realm/roles".into(),
            roles: roles.map(|(value, role)| (value.into(), role)).into(),
        }
    }

    #[test]
    fn a_claim_stands_for_the_role_that_may_do_most_and_for_none_that_only_looks_like_it() {
        let signed = signed();
        for (said, expected) in [
            (json!("ops"), Some("ops")),
            (json!("help dev"), Some("dev")),
            (json!(["prom", "help"]), Some("help")),
            (json!(["other", "dev", "ops"]), Some("ops")),
            (json!(["ops dev"]), None),
            (json!("opsdev"), None),
            (json!("OPS"), None),
            (json!({ "ops": true }), None),
            (json!([["ops"]]), None),
            (json!(null), None),
        ] {
            let claims = json!({ "realm": { "roles": said }, "roles": "ops" });
            let claims = claims.as_object().unwrap().clone();
            let identity =
                Identity { rule: "admin.jwt".into(), method: Method::Jwt, subject: "s".into(), claims };
            assert_eq!(signed.role(&identity).map(|(value, _)| &**value), expected, "{said}");
        }
    }

    /// What was shown opens as long as it holds and as the operator still asks for the same.
    #[tokio::test]
    async fn what_was_shown_opens_until_its_time_is_over_or_something_else_is_asked_for() {
        let hash = Hash::of("token");
        let laptop = Certificate { name: "laptop".into(), role: Role::Support, san: "a.test".into() };
        let before = Settings {
            tokens: vec![Token { name: "ops".into(), role: Role::Operator, hashes: vec![(hash, None)] }],
            signed: Some(signed()),
            certificates: vec![laptop.clone()],
        };
        let soon = Duration::from_secs(1);
        let resolver = Resolver::new(&DnsSettings { servers: Vec::new(), min_ttl: soon, max_ttl: soon });
        let metrics = Metrics::new(&settings::Metrics::default());
        let known = |name: &str, role, proof| Known { name: name.into(), role, proof };
        let shown = [
            known("ops", Role::Operator, Proof::Token(hash)),
            known("dev", Role::Developer, Proof::Jwt(1000, Arc::new(signed()))),
            known("laptop", Role::Support, Proof::Certificate(1000, laptop)),
        ];
        let open = |settings: &Settings, now: u64| {
            let ways = Ways::new(settings, &resolver, &metrics, None);
            let now: SystemTime = UNIX_EPOCH + Duration::from_secs(now);
            [0, 1, 2].map(|way: usize| ways.still_open(&shown[way], now))
        };
        assert_eq!(open(&before, 999), [true; 3]);
        assert_eq!(
            open(&before, 1000),
            [true, false, true],
            "a token ends with its last second, not after it"
        );
        assert_eq!(open(&before, 1001), [true, false, false]);
        let mut after = before.clone();
        after.tokens[0].role = Role::Developer;
        after.signed.as_mut().unwrap().tokens.required.audience = None;
        after.certificates[0].san = "b.test".into();
        assert_eq!(open(&after, 999), [false; 3]);
        assert_eq!(open(&Settings::default(), 999), [false; 3]);
    }
}
