//! Who may call: the rules of `[auth]`, each of which verifies one kind of credentials.
//!
//! A route names one rule or several, any of which lets a request pass. What a rule has verified is the request's
//! identity; why it did not is a closed word for the operator. The client is told what RFC 6750 tells it.

pub mod api_key;
pub mod claims;
pub mod credentials;
pub mod file;
pub mod forward;
pub mod issuer;
pub mod jwk;
pub mod jwt;
pub mod token_cache;
pub mod verdict;

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use self::api_key::ApiKeys;
use self::forward::Asking;
use self::issuer::{Issuer, Source};
use self::jwt::Jwt;
use self::verdict::{Refusal, Verdict};
use super::exchange::Routed;
use super::identity::{Identity, Method};
use super::pool::Pool;
use crate::failure::{Detail, Failure, Reason};
use crate::net::Resolver;
use crate::telemetry::Passed;
use crate::telemetry::attribute::Configured;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Upstream;

/// A rule as used: what `[auth.NAME]` means once it has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The key in the table.
    pub name: Box<str>,
    /// What it verifies.
    pub kind: Kind,
    /// Fields that tell the upstream who was verified, and the claims that are their values.
    pub identity_headers: Vec<(HeaderName, Box<str>)>,
    /// Other fields that mean an identity to an upstream, and that no client may set.
    pub strip_headers: Vec<HeaderName>,
    /// Whether the upstream gets the credentials too.
    pub forward_credentials: bool,
}

/// What a rule verifies.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// API keys.
    ApiKeys(api_key::Settings),
    /// Signed tokens, with the keys of their issuer.
    Jwt(Box<jwt::Settings>, Source),
    /// Client certificates with one of these roles; with any, if none is named.
    Mtls(Vec<Box<str>>),
    /// What a service says.
    Forward(Box<forward::Settings>),
}

impl Settings {
    /// The rule's name as the operator knows it.
    pub fn rule(&self) -> String {
        format!("auth.{}", self.name)
    }

    /// Its name, and what it goes by, for people.
    pub fn told(&self) -> String {
        let what = match &self.kind {
            Kind::ApiKeys(settings) => format!("an API key in {}", settings.header),
            Kind::Jwt(settings, _) => format!("a token in {}", settings.header),
            Kind::Mtls(roles) if roles.is_empty() => "a client certificate".to_owned(),
            Kind::Mtls(roles) => format!("a client certificate for {}", roles.join(" or ")),
            // without its query, which may hold a secret
            Kind::Forward(settings) => {
                format!("upstream {} is asked for {}", settings.upstream.name, settings.target.path())
            }
        };
        format!("{} ({what})", self.name)
    }

    /// The field in which its credentials are sent, if they are sent in one.
    pub fn credentials(&self) -> Option<&HeaderName> {
        match &self.kind {
            Kind::ApiKeys(settings) => Some(&settings.header),
            Kind::Jwt(settings, _) => Some(&settings.header),
            Kind::Mtls(_) | Kind::Forward(_) => None,
        }
    }

    /// The upstream that it asks, by key, if it asks one.
    pub fn asks(&self) -> Option<&str> {
        match &self.kind {
            Kind::Forward(settings) => Some(&settings.upstream.name),
            Kind::ApiKeys(_) | Kind::Jwt(..) | Kind::Mtls(_) => None,
        }
    }

    /// Whether who it verifies may have this claim; `sub` is what calls somebody by a name.
    pub fn yields(&self, claim: &str) -> bool {
        match &self.kind {
            Kind::ApiKeys(_) | Kind::Mtls(_) => claim == "sub",
            Kind::Jwt(..) => true,
            Kind::Forward(settings) if claim == "sub" => settings.subject.is_some(),
            Kind::Forward(settings) => settings.answer_headers.iter().any(|name| *name == *claim),
        }
    }

    /// The fields that mean an identity to an upstream: no client may set them, on whatever route.
    pub fn identity_fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.identity_headers.iter().map(|(name, _)| name).chain(&self.strip_headers)
    }
}

/// An upstream that is asked, and its pools, one an endpoint.
pub type Service = (Arc<Upstream>, Arc<[Arc<Pool>]>);

/// A rule that verifies.
#[derive(Debug)]
pub struct Rule {
    name: Arc<str>,
    verifier: Verifier,
    challenges: Challenges,
    identity_headers: Vec<(HeaderName, Box<str>)>,
    /// The field of its credentials, if that is not for the upstream.
    withheld: Option<HeaderName>,
    credentials: Option<HeaderName>,
}

#[derive(Debug)]
enum Verifier {
    ApiKeys(ApiKeys),
    Jwt(Box<Jwt>),
    Mtls(Vec<Box<str>>),
    Forward(Box<Asking>),
}

/// What a client is told that was not let in: `WWW-Authenticate`.
#[derive(Debug)]
struct Challenges {
    bare: HeaderValue,
    /// Of a bearer's token alone.
    invalid: HeaderValue,
    expired: HeaderValue,
    insufficient: Option<HeaderValue>,
}

impl Rule {
    /// A rule by these settings. To be called within a runtime. What bore its name before leaves its keys, if they
    /// come from the same source. `service` is the upstream that it asks, and the pools of that.
    pub fn new(
        settings: &Settings,
        resolver: &Resolver,
        metrics: &Metrics,
        service: Option<Service>,
        before: Option<(&Settings, &Self)>,
    ) -> Self {
        let name: Arc<str> = settings.rule().into();
        let verifier = match &settings.kind {
            Kind::ApiKeys(keys) => Verifier::ApiKeys(ApiKeys::new(keys, &name)),
            Kind::Jwt(tokens, source) => {
                let known = before.and_then(|(settings, rule)| rule.issuer(settings, source));
                let told = || metrics.issuer_fetches(&Configured::new(Arc::clone(&name)));
                let new = || Issuer::new(source, &name, resolver, told());
                Verifier::Jwt(Box::new(Jwt::new(tokens, &name, known.unwrap_or_else(new))))
            }
            Kind::Mtls(roles) => Verifier::Mtls(roles.clone()),
            Kind::Forward(asking) => {
                let (upstream, pools) = service.expect("a rule's upstream is checked");
                let series = metrics.questions(&Configured::new(Arc::clone(&name)));
                Verifier::Forward(Box::new(Asking::new(asking, &name, upstream, pools, series)))
            }
        };
        let credentials = settings.credentials().cloned();
        Self {
            name,
            verifier,
            challenges: Challenges::new(settings),
            identity_headers: settings.identity_headers.clone(),
            withheld: credentials.clone().filter(|_| !settings.forward_credentials),
            credentials,
        }
    }

    /// The issuer of this rule, if its keys come from this source.
    fn issuer(&self, settings: &Settings, wanted: &Source) -> Option<Arc<Issuer>> {
        match (&settings.kind, &self.verifier) {
            (Kind::Jwt(_, source), Verifier::Jwt(jwt)) if source == wanted => Some(jwt.issuer()),
            _ => None,
        }
    }

    fn verify(&self, request: &Routed) -> Verdict {
        match &self.verifier {
            Verifier::ApiKeys(keys) => keys.verify(&request.head.headers),
            Verifier::Jwt(jwt) => jwt.verify(&request.head.headers),
            Verifier::Mtls(roles) => self.verify_role(roles, request),
            Verifier::Forward(_) => Verdict::Undecided,
        }
    }

    async fn verify_waiting(&self, request: &Routed) -> Verdict {
        match &self.verifier {
            Verifier::Jwt(jwt) => jwt.verify_waiting(&request.head.headers).await,
            Verifier::Forward(asking) => asking.verify(request).await,
            Verifier::ApiKeys(_) | Verifier::Mtls(_) => self.verify(request),
        }
    }

    /// What is put on record of a request that it lets pass.
    pub fn passed(&self, unverified: Option<Detail>) -> Passed {
        let method = match &self.verifier {
            Verifier::ApiKeys(_) => Method::ApiKey,
            Verifier::Jwt(_) => Method::Jwt,
            Verifier::Mtls(_) => Method::Mtls,
            Verifier::Forward(_) => Method::Forward,
        };
        Passed { rule: Configured::new(Arc::clone(&self.name)), method: method.word(), unverified }
    }

    fn verify_role(&self, roles: &[Box<str>], request: &Routed) -> Verdict {
        let Some(role) = request.peer.role() else { return Refusal::missing().into() };
        if !roles.is_empty() && !roles.iter().any(|known| **known == **role) {
            return Refusal::forbidden(Detail::WrongRole).into();
        }
        Verdict::Passed(Arc::new(Identity {
            rule: Arc::clone(&self.name),
            method: Method::Mtls,
            subject: (**role).into(),
            claims: serde_json::Map::new(),
        }))
    }

    /// Tells the upstream who was verified. What a client said of it is gone already.
    fn tell(&self, identity: &Identity, headers: &mut HeaderMap) {
        for (name, claim) in &self.identity_headers {
            // what cannot stand in a field is not said
            let value =
                identity.claim(claim).and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
            if let Some(mut value) = value {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
    }
}

/// What a route asks of its callers.
#[derive(Debug, Clone)]
pub struct Access {
    /// The rules that may let a request pass; `None` asks for nothing.
    pub rules: Option<Rules>,
    /// Fields that mean an identity to an upstream, and that no client may set.
    pub stripped: Arc<[HeaderName]>,
}

/// The rules of a route: any of them lets a request pass.
#[derive(Debug, Clone)]
pub struct Rules(pub Vec<Arc<Rule>>);

/// How several rules together decide.
#[derive(Debug)]
pub enum Decision {
    /// This rule knows who it is.
    Passed(Arc<Rule>, Arc<Identity>),
    /// Nobody does, and this rule lets requests pass all the same while whoever would know cannot be asked.
    Open(Arc<Rule>, Detail),
    /// None does; this rule's refusal tells most.
    Refused(Arc<Rule>, Refusal),
    /// Somebody must be asked.
    Undecided,
}

impl Rules {
    /// Who it is, by what is at hand: who is known by that need not be asked about.
    pub fn decide(&self, request: &Routed) -> Decision {
        let mut told = Told::default();
        for rule in &self.0 {
            match rule.verify(request) {
                Verdict::Passed(identity) => return Decision::Passed(Arc::clone(rule), identity),
                said => told.keep(rule, said),
            }
        }
        told.decision()
    }

    /// Who it is; whoever must be asked is asked.
    pub async fn decide_waiting(&self, request: &Routed) -> Decision {
        let mut told = Told::default();
        for rule in &self.0 {
            match rule.verify_waiting(request).await {
                Verdict::Passed(identity) => return Decision::Passed(Arc::clone(rule), identity),
                said => told.keep(rule, said),
            }
        }
        told.decision()
    }

    /// What the upstream gets of who was verified by this rule: its identity fields, and of the credentials what
    /// is not withheld. Of nobody there is nothing to be told.
    pub fn tell(&self, rule: &Rule, identity: Option<&Identity>, headers: &mut HeaderMap) {
        for other in &self.0 {
            let is_its_own = std::ptr::eq(&raw const **other, rule);
            if let Some(withheld) = &other.withheld
                && (is_its_own || rule.credentials.as_ref() != Some(withheld))
            {
                headers.remove(withheld);
            }
        }
        if let Some(identity) = identity {
            rule.tell(identity, headers);
        }
    }

    /// Whether [`tell`](Self::tell) may set this field.
    pub fn may_set(&self, field: &HeaderName) -> bool {
        self.0.iter().any(|rule| rule.identity_headers.iter().any(|(name, _)| name == field))
    }

    /// The failure that a refusal is, with the challenge of each rule that would let somebody else pass.
    pub fn failure(&self, rule: &Arc<Rule>, refusal: &Refusal) -> Failure {
        let failure = Failure::new(refusal.reason).detail(refusal.detail).rule(&rule.name);
        match refusal.reason {
            Reason::Unauthenticated => self.0.iter().fold(failure, |failure, other| {
                let own = Arc::ptr_eq(rule, other).then_some(refusal.detail);
                failure.field(header::WWW_AUTHENTICATE, other.challenges.of(own).clone())
            }),
            Reason::Forbidden => match &rule.challenges.insufficient {
                Some(challenge) => failure.field(header::WWW_AUTHENTICATE, challenge.clone()),
                None => failure,
            },
            _ => failure,
        }
    }
}

/// What rules have said that do not know who it is.
#[derive(Default)]
struct Told {
    refused: Option<(Arc<Rule>, Refusal)>,
    open: Option<(Arc<Rule>, Detail)>,
    undecided: bool,
}

impl Told {
    /// Keeps the refusal that tells more; the first one of two that tell the same.
    fn keep(&mut self, rule: &Arc<Rule>, said: Verdict) {
        match said {
            Verdict::Refused(refusal) => {
                if self.refused.as_ref().is_none_or(|(_, known)| refusal.weight() > known.weight()) {
                    self.refused = Some((Arc::clone(rule), refusal));
                }
            }
            Verdict::Open(why) => {
                self.open.get_or_insert_with(|| (Arc::clone(rule), why));
            }
            Verdict::Undecided | Verdict::Passed(_) => self.undecided = true,
        }
    }

    fn decision(self) -> Decision {
        if self.undecided {
            return Decision::Undecided;
        }
        if let Some((rule, why)) = self.open {
            return Decision::Open(rule, why);
        }
        self.refused.map_or(Decision::Undecided, |(rule, refusal)| Decision::Refused(rule, refusal))
    }
}

impl Challenges {
    /// RFC 6750 section 3 for whoever bears a token; RFC 9110 section 11.6.1 asks every 401 for a challenge, so
    /// that the others have names of their own.
    fn new(settings: &Settings) -> Self {
        let realm = &settings.name;
        let value = |text: String| HeaderValue::try_from(text).expect("names and words of ours");
        let by_bearer = settings.credentials().is_none_or(|field| field == header::AUTHORIZATION);
        let scheme = match &settings.kind {
            Kind::Mtls(_) => "ClientCertificate",
            Kind::Forward(_) => "Forward",
            Kind::ApiKeys(_) if !by_bearer => "ApiKey",
            _ => "Bearer",
        };
        let bare = format!("{scheme} realm=\"{realm}\"");
        let with = |error: &str| {
            if scheme == "Bearer" { value(format!("{bare}, {error}")) } else { value(bare.clone()) }
        };
        Self {
            invalid: with("error=\"invalid_token\""),
            expired: with("error=\"invalid_token\", error_description=\"The access token expired\""),
            insufficient: (scheme == "Bearer").then(|| with("error=\"insufficient_scope\"")),
            bare: value(bare),
        }
    }

    fn of(&self, detail: Option<Detail>) -> &HeaderValue {
        match detail {
            // who has shown nothing is told nothing but what to show (RFC 6750 section 3.1)
            None | Some(Detail::MissingCredentials) => &self.bare,
            Some(Detail::TokenExpired) => &self.expired,
            Some(_) => &self.invalid,
        }
    }
}
