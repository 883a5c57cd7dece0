//! `[auth.NAME]` as written, and what it means.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration as Time;

use http::header::{self, HeaderName};
use http::uri::{Scheme, Uri};
use serde::{Deserialize, Deserializer};

use super::api_key::{self, Key as ApiKey};
use super::claims::{Condition, Required};
use super::issuer::{Fetched, Source};
use super::jwk::{Algorithm, KeySet};
use super::{Kind, Settings, jwt};
use crate::net::file::WrittenTls;
use crate::problem::Key;
use crate::setting::leaf::{text, word};
use crate::setting::one_or_many::OneOrMany;
use crate::setting::{Check, Count, Duration, Hash, Moment, OrOff, Size, Written};

/// A rule as written.
#[derive(Debug, Deserialize)]
pub struct Auth {
    api_keys: Option<WrittenApiKeys>,
    jwt: Option<WrittenJwt>,
    mtls: Option<WrittenMtls>,
    identity_headers: BTreeMap<String, Written<String>>,
    strip_headers: Written<Vec<Written<String>>>,
    forward_credentials: Written<bool>,
}

#[derive(Debug, Deserialize)]
struct WrittenApiKeys {
    header: Written<String>,
    keys: BTreeMap<String, WrittenKey>,
    keys_file: Written<String>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "{ sha256 = \"…\", expires = \"2030-01-31\" }")]
struct WrittenKey {
    sha256: Written<Hash>,
    expires: Written<Moment>,
}

#[derive(Debug, Deserialize)]
struct WrittenJwt {
    header: Written<String>,
    issuer: Written<String>,
    audience: Written<OrOff<OneOrMany>>,
    algorithms: Written<Vec<Written<Algorithm>>>,
    clock_skew: Written<OrOff<Duration>>,
    claims: BTreeMap<String, WrittenCondition>,
    token_bytes: Written<Size>,
    cache: Written<OrOff<Count>>,
    jwks_file: Written<String>,
    jwks_url: Written<Url>,
    jwks: WrittenJwks,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "{ is = \"acme\" }, { is = [\"acme\", \"other\"] } or { contains = \"orders\" }")]
struct WrittenCondition {
    is: Written<OneOrMany>,
    contains: Written<String>,
}

#[derive(Debug, Deserialize)]
struct WrittenJwks {
    timeout: Written<Duration>,
    bytes: Written<Size>,
    refresh_min: Written<Duration>,
    refresh_max: Written<Duration>,
    refetch: Written<Duration>,
    stale: Written<OrOff<Duration>>,
    plaintext: Written<bool>,
    tls: WrittenTls,
}

#[derive(Debug, Deserialize)]
struct WrittenMtls {
    roles: Written<Vec<Written<String>>>,
}

impl Auth {
    /// The rule as used, with keys read; `None` only after a problem has been noted.
    pub fn check(self, name: &str, check: &Check<'_>) -> Option<Settings> {
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
        ];
        let help = "write one of [auth.NAME.api_keys], [auth.NAME.jwt] and [auth.NAME.mtls]";
        match kinds.into_iter().flatten().collect::<Vec<_>>()[..] {
            [_] => {}
            [] => check.wrong(&table, "does not say what it verifies", help),
            [.., second] => {
                let what = "a rule verifies one kind of credentials; a route may name several rules";
                check.wrong(&table.child(second), what, help);
            }
        }
        let is_api_key = self.api_keys.is_some();
        let identity_headers: Vec<_> = self
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
        let settings = Settings {
            name: name.into(),
            kind: match jwt {
                Some(jwt) => jwt?,
                None => api_keys.or(mtls)?,
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
        Some(settings)
    }
}

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
        if let Some(file) = self.keys_file.get() {
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
        let issuer =
            self.issuer.required(check, "write issuer = \"https://login.example\", as its tokens have it");
        let algorithms: Vec<_> = if self.algorithms.is_absent() {
            Algorithm::ALL.iter().map(|(_, algorithm)| *algorithm).collect()
        } else {
            self.algorithms.into_elements().collect()
        };
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
            header: field(self.header, header::AUTHORIZATION, check),
            algorithms,
            required: Required {
                issuer: issuer?.into(),
                audience: self
                    .audience
                    .into_option()
                    .and_then(OrOff::into_option)
                    .map(|OneOrMany(names)| names),
                clock_skew: skew.unwrap_or_default(),
                claims,
            },
            token_bytes: self.token_bytes.or(8 << 10),
            cache,
        };
        Some(Kind::Jwt(Box::new(settings), source?))
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

/// Fields of messages and connections, and those that the gateway sets itself.
fn is_of_the_gateway(name: &HeaderName) -> bool {
    const TAKEN: [&str; 19] = [
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
        "upgrade",
        "via",
        "x-forwarded-for",
        "x-request-id",
    ];
    TAKEN.contains(&name.as_str())
}

impl<'de> Deserialize<'de> for Algorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, &Self::ALL)
    }
}

/// Where a page is.
#[derive(Debug)]
struct Url(Uri);

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
