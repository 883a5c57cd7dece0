//! `[auth.NAME]` as written, and what it means.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration as Time;

use http::header::{self, HeaderName};
use http::uri::{PathAndQuery, Scheme, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::api_key::{self, Key as ApiKey};
use super::claims::{Condition, Required};
use super::forward::{self, OnFailure};
use super::issuer::{Fetched, Source};
use super::jwk::{Algorithm, KeySet};
use super::{Kind, Settings, jwt};
use crate::net::file::WrittenTls;
use crate::problem::Key;
use crate::setting::check::nearest;
use crate::setting::leaf::{schema, text, words};
use crate::setting::one_or_many::OneOrMany;
use crate::setting::{Check, Count, Duration, Hash, Moment, OrOff, Size, Written};
use crate::upstream;

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
struct WrittenApiKeys {
    /// The field that keys are sent in; "authorization" is for Bearer. Default: `"x-api-key"`.
    header: Written<String>,
    /// The keys, by the name of whom they belong to.
    keys: BTreeMap<String, WrittenKey>,
    /// A file with a name, a hash and perhaps a date on each line.
    keys_file: Written<String>,
}

/// A key, by its hash.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ sha256 = \"…\", expires = \"2030-01-31\" }")]
struct WrittenKey {
    /// The SHA-256 of the key.
    sha256: Written<Hash>,
    /// From when on it opens nothing.
    expires: Written<Moment>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenJwt {
    /// The field that tokens are sent in, behind Bearer. Default: `"authorization"`.
    header: Written<String>,
    /// Who makes the tokens, as they have it.
    issuer: Written<String>,
    /// For whom they must be: one of these; "off" if they have none.
    audience: Written<OrOff<OneOrMany>>,
    /// How they may be signed. Default: `["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    /// "ES384", "EdDSA"]`.
    algorithms: Written<Vec<Written<Algorithm>>>,
    /// How far clocks may differ. Default: `"1m"`.
    clock_skew: Written<OrOff<Duration>>,
    /// What they must say, by claim.
    claims: BTreeMap<String, WrittenCondition>,
    /// Of a token. Default: `"8KiB"`.
    token_bytes: Written<Size>,
    /// Verified tokens that are remembered. Default: `1024`.
    cache: Written<OrOff<Count>>,
    /// The issuer's public keys, a JSON Web Key Set.
    jwks_file: Written<String>,
    /// Where the issuer's public keys are.
    jwks_url: Written<Url>,
    /// How they are fetched.
    jwks: WrittenJwks,
}

/// What a claim must be, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ is = \"acme\" }, { is = [\"acme\", \"other\"] } or { contains = \"orders\" }")]
pub struct WrittenCondition {
    /// What the claim must be: this, or one of these.
    is: Written<OneOrMany>,
    /// A word that must be in it.
    contains: Written<String>,
}

/// How an issuer's keys are fetched, as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct WrittenJwks {
    /// Of one fetch. Default: `"5s"`.
    timeout: Written<Duration>,
    /// Of what is fetched. Default: `"256KiB"`.
    bytes: Written<Size>,
    /// The shortest time between two fetches, whatever the issuer says. Default: `"1m"`.
    refresh_min: Written<Duration>,
    /// The longest. Default: `"1h"`.
    refresh_max: Written<Duration>,
    /// The shortest time between two fetches for a key that nobody knows. Default: `"30s"`.
    refetch: Written<Duration>,
    /// How long keys are used that cannot be fetched anew. Default: `"1h"`.
    stale: Written<OrOff<Duration>>,
    /// Whether http:// is taken from hosts beyond loopback. Default: `false`.
    plaintext: Written<bool>,
    /// TLS, with https:// in the URL.
    tls: WrittenTls,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenMtls {
    /// The roles; any if there is none. Default: `[]`.
    roles: Written<Vec<Written<String>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenForward {
    /// The upstream that is asked.
    upstream: Written<String>,
    /// What it is asked for, by GET; may have a query. Default: `"/"`.
    path: Written<Target>,
    /// Fields of the client's that it gets, and no others. Default: `["accept", "authorization", "cookie"]`.
    request_headers: Written<Vec<Written<String>>>,
    /// Fields of a 2xx answer that the upstream of the route gets. No client can set them, on any route. Default:
    /// `[]`.
    answer_headers: Written<Vec<Written<String>>>,
    /// The one of them that says who it is; nobody is known without it.
    subject: Written<String>,
    /// Fields of a refusal that the client gets. Default: `["cache-control", "content-encoding", "content-type",
    /// "location", "retry-after", "set-cookie", "www-authenticate"]`.
    refusal_headers: Written<Vec<Written<String>>>,
    /// Of a refusal's body that the client gets. Default: `"64KiB"`.
    body_bytes: Written<Size>,
    /// Of the whole question, a second try included. Default: `"1s"`.
    timeout: Written<Duration>,
    /// Whether requests pass, unverified, while nobody answers: "open", or not. Default: `"closed"`.
    on_failure: Written<OnFailure>,
}

/// The upstreams that a rule may ask.
#[derive(Debug, Clone, Copy)]
pub struct Services<'a> {
    /// The names of all.
    pub names: &'a [String],
    /// Those that are right.
    pub known: &'a [upstream::Settings],
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

impl WrittenForward {
    /// The rule as used. What its answers say is told to the upstream by the names that it has there.
    fn check(
        self,
        identity_headers: &mut Vec<(HeaderName, Box<str>)>,
        services: Services<'_>,
        check: &Check<'_>,
    ) -> Option<forward::Settings> {
        let key = self.upstream.key().clone();
        let name = self.upstream.required(check, "name the upstream that decides: upstream = \"portal\"")?;
        if !services.names.contains(&name) {
            let help = match nearest(&name, services.names.iter().map(String::as_str)) {
                Some(meant) => format!("write \"{meant}\""),
                None => format!("add the table [upstreams.{name}]"),
            };
            check.wrong(&key, format!("there is no upstream \"{name}\""), help);
        }
        let upstream = services.known.iter().find(|known| *known.name == *name);
        let of_request = "write a field of the client's that the service goes by, such as \"cookie\"";
        let credentials = [header::ACCEPT, header::AUTHORIZATION, header::COOKIE];
        let of_refusal = "write a field that a refusal may have, such as \"location\"";
        let of_answer = "write a field that says who it is, such as \"x-user\"";
        let answer_headers: Vec<HeaderName> =
            names(self.answer_headers, of_answer, is_of_the_gateway, check).unwrap_or_default();
        identity_headers.extend(answer_headers.iter().map(|name| (name.clone(), Box::from(name.as_str()))));
        let subject_key = self.subject.key().clone();
        let subject =
            self.subject.into_option().and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        if let Some(name) = subject.as_ref().filter(|name| !answer_headers.contains(name)) {
            let what = format!("{name} is not one of answer_headers");
            check.wrong(&subject_key, what, "list it there: it is the answer's field that names who it is");
        }
        Some(forward::Settings {
            upstream: upstream?.clone(),
            target: self.path.into_option().map_or(PathAndQuery::from_static("/"), |Target(target)| target),
            request_headers: names(self.request_headers, of_request, is_of_the_gateway, check)
                .unwrap_or_else(|| credentials.into()),
            answer_headers,
            subject,
            refusal_headers: names(self.refusal_headers, of_refusal, is_of_a_message, check)
                .unwrap_or_else(|| REFUSAL.into()),
            body_bytes: self.body_bytes.or(64 << 10),
            timeout: self.timeout.or(Time::from_secs(1)),
            on_failure: self.on_failure.or(OnFailure::Closed),
        })
    }
}

/// Names of fields, of which some are not for the operator to name.
fn names(
    written: Written<Vec<Written<String>>>,
    help: &str,
    is_taken: impl Fn(&HeaderName) -> bool,
    check: &Check<'_>,
) -> Option<Vec<HeaderName>> {
    let name = |written: &Written<String>| {
        let text = written.get()?;
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if !is_taken(&name) => Some(name),
            Ok(name) => {
                check.wrong(written.key(), format!("{name} has its own meaning"), help);
                None
            }
            Err(_) => {
                check.wrong(written.key(), format!("\"{text}\" is not the name of a header field"), help);
                None
            }
        }
    };
    Some(written.into_option()?.iter().filter_map(name).collect())
}

/// What a refusal says to the client unless other fields are listed.
const REFUSAL: [HeaderName; 7] = [
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::LOCATION,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::WWW_AUTHENTICATE,
];

impl WrittenApiKeys {
    fn check(self, check: &Check<'_>) -> api_key::Settings {
        let table = self.header.key().parent().unwrap_or_default();
        let mut keys: Vec<(Key, ApiKey)> = Vec::new();
        for (name, written) in self.keys {
            let key = written.sha256.key().clone();
            let hash = written.sha256.required(check, "write the hash: printf %s \"$KEY\" | sha256sum");
            let expires = written.expires.into_option().map(|Moment(expires)| expires);
            keys.extend(hash.map(|hash| (key, ApiKey { name: name.into(), hash, expires })));
        }
        let file_key = self.keys_file.key().clone();
        if let Some(file) = self.keys_file.get().filter(|file| !check.does_without(&check.path(file))) {
            match fs::read_to_string(check.path(file)) {
                Ok(text) => {
                    let read = read_keys(&text, |line, what| {
                        let help = "write a name, its hash and perhaps a date: acme ba78…15ad 2030-01-31";
                        check.wrong(&file_key, format!("line {line} of \"{file}\" {what}"), help);
                    });
                    keys.extend(read.into_iter().map(|key| (file_key.clone(), key)));
                }
                Err(error) => {
                    let what = format!("the file \"{file}\" cannot be read: {error}");
                    check.wrong(&file_key, what, "name a file with a name and a hash on each line");
                }
            }
        }
        if keys.is_empty() && self.keys_file.is_absent() {
            let help = "write [auth.NAME.api_keys.keys.acme] with sha256 = \"…\", or keys_file";
            check.wrong(&table, "has no key: nobody could pass", help);
        }
        for (index, (key, one)) in keys.iter().enumerate() {
            if let Some((_, other)) = keys[..index].iter().find(|(_, other)| other.hash == one.hash) {
                let what = format!("\"{}\" and \"{}\" have the same key", other.name, one.name);
                check.wrong(key, what, "give each a key of its own, or leave one out");
            }
        }
        api_key::Settings {
            header: field(self.header, HeaderName::from_static("x-api-key"), check),
            keys: keys.into_iter().map(|(_, key)| key).collect(),
        }
    }
}

/// The keys of a file: on each line a name, a hash and perhaps a date; `#` begins a remark.
fn read_keys(text: &str, mut wrong: impl FnMut(usize, &str)) -> Vec<ApiKey> {
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_ascii_whitespace().collect();
        let (name, hash, expires) = match words[..] {
            [] => continue,
            [name, hash] => (name, hash, None),
            [name, hash, expires] => (name, hash, Some(expires)),
            _ => {
                wrong(index + 1, "has not two or three words");
                continue;
            }
        };
        let expires = expires.map(Moment::parse).transpose();
        match (Hash::parse(hash), expires) {
            (Some(hash), Ok(expires)) => {
                keys.push(ApiKey { name: name.into(), hash, expires: expires.map(|Moment(at)| at) });
            }
            (None, _) => wrong(index + 1, "has no SHA-256 in 64 hexadecimal digits as its second word"),
            (_, Err(_)) => wrong(index + 1, "has no date as its third word"),
        }
    }
    keys
}

impl WrittenJwt {
    fn check(self, check: &Check<'_>) -> Option<Kind> {
        let audience_key = self.audience.key().clone();
        if self.audience.is_absent() {
            let help = "write audience = [\"shop\"], or \"off\" if the issuer's tokens have none";
            check.wrong(&audience_key, "is missing: a token for another service would open this one", help);
        }
        let algorithms: Vec<_> = if self.algorithms.is_absent() {
            Algorithm::ALL.iter().map(|(_, algorithm)| *algorithm).collect()
        } else {
            self.algorithms.into_elements().collect()
        };
        let tokens = Tokens {
            header: field(self.header, header::AUTHORIZATION, check),
            issuer: self.issuer,
            audience: self.audience.into_option().and_then(OrOff::into_option).map(|OneOrMany(names)| names),
            algorithms,
            clock_skew: self.clock_skew,
            claims: self.claims,
            token_bytes: self.token_bytes,
            cache: self.cache,
            jwks_file: self.jwks_file,
            jwks_url: self.jwks_url,
            jwks: self.jwks,
        };
        let (settings, source) = tokens.check(check)?;
        Some(Kind::Jwt(Box::new(settings), source))
    }
}

/// What whoever reads signed tokens has in its file: for some it is checked already.
#[derive(Debug)]
pub struct Tokens {
    /// The field in which a token is sent.
    pub header: HeaderName,
    /// Who must have issued it.
    pub issuer: Written<String>,
    /// For whom it must be; `None` asks for nothing.
    pub audience: Option<Vec<Box<str>>>,
    /// The algorithms that are taken.
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock may be from ours.
    pub clock_skew: Written<OrOff<Duration>>,
    /// Other claims.
    pub claims: BTreeMap<String, WrittenCondition>,
    /// The most bytes of a token.
    pub token_bytes: Written<Size>,
    /// How many verified tokens are remembered.
    pub cache: Written<OrOff<Count>>,
    /// The file with the issuer's keys.
    pub jwks_file: Written<String>,
    /// Or where they are fetched.
    pub jwks_url: Written<Url>,
    /// And how.
    pub jwks: WrittenJwks,
}

impl Tokens {
    /// What a token must be like, and where the keys come from; `None` only after a problem has been noted.
    pub fn check(self, check: &Check<'_>) -> Option<(jwt::Settings, Source)> {
        let issuer =
            self.issuer.required(check, "write issuer = \"https://login.example\", as its tokens have it");
        let claims = self.claims.into_iter().filter_map(|(name, condition)| {
            let condition = condition.check(check)?;
            Some((name.into(), condition))
        });
        let claims = claims.collect();
        let source = check_source(&self.jwks_file, self.jwks_url, self.jwks, check);
        let cache = match self.cache.into_option() {
            None => Some(1024),
            Some(cache) => cache.into_option().map(Into::into),
        };
        let skew: Option<Time> = self.clock_skew.or(Some(Time::from_mins(1)));
        let settings = jwt::Settings {
            header: self.header,
            algorithms: self.algorithms,
            required: Required {
                issuer: issuer?.into(),
                audience: self.audience,
                clock_skew: skew.unwrap_or_default(),
                claims,
            },
            token_bytes: self.token_bytes.or(8 << 10),
            cache,
        };
        Some((settings, source?))
    }
}

impl WrittenCondition {
    fn check(self, check: &Check<'_>) -> Option<Condition> {
        let help = "write { is = \"acme\" }, { is = [\"acme\", \"other\"] } or { contains = \"orders\" }";
        let (is_key, contains_key) = (self.is.key().clone(), self.contains.key().clone());
        if self.is.is_absent() == self.contains.is_absent() {
            if self.is.is_absent() {
                check.wrong(
                    &is_key.parent().unwrap_or_default(),
                    "does not say what the claim must be",
                    help,
                );
            } else {
                check.wrong(&contains_key, "a claim is compared in one way, not in two", help);
            }
            return None;
        }
        let is = self.is.into_option().map(|OneOrMany(words)| Condition::OneOf(words));
        is.or(self.contains.into_option().map(|wanted| Condition::Contains(wanted.into())))
    }
}

fn check_source(
    file: &Written<String>,
    url: Written<Url>,
    jwks: WrittenJwks,
    check: &Check<'_>,
) -> Option<Source> {
    let help = "write jwks_url = \"https://login.example/jwks.json\", or jwks_file";
    match (file.is_absent(), url.is_absent()) {
        (true, true) => check.wrong(file.key(), "is missing, and so is jwks_url", help),
        (false, false) => check.wrong(url.key(), "keys come from one place, not from two", help),
        _ => {}
    }
    if let Some(name) = file.get() {
        let read = fs::read(check.path(name)).map_err(|error| format!("cannot be read: {error}"));
        return match read
            .and_then(|text| KeySet::parse(&text).map_err(|why| format!("cannot be used: {why}")))
        {
            Ok(set) => Some(Source::Read(Arc::new(set))),
            Err(why) => {
                let help = "name a file with the issuer's public keys, a JSON Web Key Set";
                check.wrong(file.key(), format!("the file \"{name}\" {why}"), help);
                None
            }
        };
    }
    let key = url.key().clone();
    let Url(url) = url.into_option()?;
    jwks.check(url, &key, check).map(|fetched| Source::Url(Box::new(fetched)))
}

impl WrittenJwks {
    fn check(self, url: Uri, key: &Key, check: &Check<'_>) -> Option<Fetched> {
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tls = if url.scheme() == Some(&Scheme::HTTPS) {
            Some(self.tls.check((&host, key), &[b"http/1.1"], check)?)
        } else {
            self.refuse_plaintext(&host, key, check);
            None
        };
        let min_key = self.refresh_min.key().clone();
        let stale: Option<Time> = self.stale.or(Some(Time::from_hours(1)));
        let fetched = Fetched {
            url,
            tls,
            timeout: self.timeout.or(Time::from_secs(5)),
            bytes: self.bytes.or(256 << 10),
            refresh_min: self.refresh_min.or(Time::from_mins(1)),
            refresh_max: self.refresh_max.or(Time::from_hours(1)),
            refetch: self.refetch.or(Time::from_secs(30)),
            stale: stale.unwrap_or_default(),
        };
        if fetched.refresh_min > fetched.refresh_max {
            let what = format!("is longer than refresh_max ({}s)", fetched.refresh_max.as_secs_f64());
            check.wrong(&min_key, what, "write the shorter of both here");
        }
        Some(fetched)
    }

    /// Whoever can change the keys on their way can make tokens.
    fn refuse_plaintext(&self, host: &str, key: &Key, check: &Check<'_>) {
        let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if !loopback && self.plaintext.get() != Some(&true) {
            let help = "write https://, or jwks = { plaintext = true } if nobody else is on the way";
            check.wrong(key, "is not https: whoever is on the way could send keys of their own", help);
        }
    }
}

/// The field in which credentials are sent.
fn field(written: Written<String>, default: HeaderName, check: &Check<'_>) -> HeaderName {
    let key = written.key().clone();
    let Some(name) = written.into_option() else { return default };
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) if !is_of_the_gateway(&name) => return name,
        Ok(name) => {
            let help = "write \"authorization\" or a field of your own, such as \"x-api-key\"";
            check.wrong(&key, format!("{name} has its own meaning"), help);
        }
        Err(_) => {
            let help = "write a name such as \"x-api-key\"";
            check.wrong(&key, format!("\"{name}\" is not the name of a header field"), help);
        }
    }
    default
}

/// A field that means an identity to an upstream.
fn identity_header(name: &str, key: &Key, check: &Check<'_>) -> Option<HeaderName> {
    let help = "write a name such as \"x-user\"";
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) if !is_of_the_gateway(&name) && name != header::COOKIE => Some(name),
        Ok(name) => {
            check.wrong(key, format!("{name} has its own meaning"), help);
            None
        }
        Err(_) => {
            check.wrong(key, format!("\"{name}\" is not the name of a header field"), help);
            None
        }
    }
}

/// Fields that tell where a message ends, or belong to one connection.
fn is_of_a_message(name: &HeaderName) -> bool {
    *name != header::CONTENT_TYPE && is_of_the_gateway(name)
}

/// Fields of messages and connections, and those that the gateway sets itself.
fn is_of_the_gateway(name: &HeaderName) -> bool {
    const TAKEN: [&str; 24] = [
        "connection",
        "content-length",
        "content-type",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "server-timing",
        "upgrade",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-method",
        "x-forwarded-proto",
        "x-forwarded-uri",
        "x-request-id",
    ];
    TAKEN.contains(&name.as_str())
}

words!(Algorithm, Self::ALL);

words!(OnFailure, [("closed", Self::Closed), ("open", Self::Open)]);

/// The path that a service is asked for, perhaps with a query.
#[derive(Debug)]
struct Target(PathAndQuery);

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a path", |written| {
            let target = written.parse().ok().filter(|_| written.starts_with('/') && !written.contains('#'));
            let wrong = || format!("\"{written}\" is not a path\nwrite a path such as \"/verify\"");
            target.map(Self).ok_or_else(wrong)
        })
    }
}

schema!(Target, { "type": "string", "examples": ["/", "/verify"], "pattern": "^/[^#]*$" });

/// Where a page is.
#[derive(Debug)]
pub struct Url(Uri);

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a URL", |written| {
            let help = "write a URL such as \"https://login.example/jwks.json\"";
            let wrong = |what: &str| Err(format!("{what}\n{help}"));
            let Ok(url) = written.parse::<Uri>() else { return wrong("is not a URL") };
            if !matches!(url.scheme_str(), Some("http" | "https")) {
                return wrong("does not begin with http:// or https://");
            }
            match url.authority() {
                // not repeated: it may be a password
                Some(authority) if authority.as_str().contains('@') => wrong("names a user"),
                Some(authority) if !authority.host().is_empty() => Ok(Self(url)),
                _ => wrong("has no host"),
            }
        })
    }
}

schema!(Url, { "type": "string", "examples": ["https://login.example/jwks.json"], "pattern": "^https?://[^@]+$" });

#[cfg(test)]
mod tests {
    use super::read_keys;

    #[test]
    fn a_file_of_keys_has_a_name_and_a_hash_on_each_line() {
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let text = format!(
            "# partners\n\nacme {hash}\nother\t{hash} 2030-01-31 # until then\nshort abc\n{hash}\n\
             acme {hash} soon\na b c d\n"
        );
        let mut wrong = Vec::new();
        let keys = read_keys(&text, |line, what| wrong.push((line, what.to_owned())));
        let found: Vec<_> = keys.iter().map(|key| (&*key.name, key.expires.is_some())).collect();
        assert_eq!(found, [("acme", false), ("other", true)]);
        assert_eq!(wrong.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [5, 6, 7, 8], "{wrong:?}");
        assert!(!format!("{wrong:?}").contains(hash), "it may be the key itself");
    }
}
