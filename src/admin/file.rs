//! `[admin]` and `[probes]` as written, and what they mean.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::header;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use schemars::JsonSchema;
use serde::Deserialize;

use super::role::Role;
use super::ways::{self, Certificate, Signed, Token};
use super::{Settings, audit, session};
use crate::http::auth;
use crate::http::auth::file::tokens::{Tokens, Url, WrittenCondition, WrittenJwks};
use crate::http::auth::jwk::Algorithm;
use crate::listener::tls::clients::Clients;
use crate::net::{pem, tls};
use crate::problem::Key;
use crate::setting::leaf::words;
use crate::setting::one_or_many::OneOrMany;
use crate::setting::{Address, Check, Count, Duration, Hash, Moment, OrOff, Size, Written};

/// The admin listener as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Admin {
    /// Where it listens. Loopback only, while neither tokens, nor jwt, nor certificates open it. Default:
    /// `"127.0.0.1:9901"`.
    address: Written<Address>,
    /// TLS towards those who ask.
    tls: Option<WrittenTls>,
    /// Whether tokens may pass in clear text beyond loopback. Default: `false`.
    plaintext: Written<bool>,
    /// Who may ask, by the name that the audit knows: `tracegate token new` makes them.
    tokens: BTreeMap<String, WrittenToken>,
    /// Whose signed tokens open it as well.
    jwt: Option<WrittenJwt>,
    /// Whose client certificates open it as well, by the name that the audit knows.
    certificates: BTreeMap<String, WrittenCertificate>,
    /// Who has read or changed what.
    audit: WrittenAudit,
    /// Of people on the live page, who have shown a token.
    sessions: WrittenSessions,
    /// Where Jaeger's page is, to which the live page links traces.
    jaeger_url: Written<String>,
}

/// The probes' listener as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Probes {
    /// Where `/healthz` and `/readyz` are answered alone, if anywhere.
    address: Written<Address>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ certificate_file = \"…\", key_file = \"…\" }")]
#[expect(clippy::struct_field_names, reason = "the keys of the file")]
struct WrittenTls {
    /// The certificate chain in PEM, the server's own first.
    certificate_file: Written<String>,
    /// Its private key in PEM.
    key_file: Written<String>,
    /// The authorities in PEM that sign clients' certificates; those without one may still have a token.
    client_ca_file: Written<String>,
    /// Certificates that their authorities have taken back, in PEM.
    client_crl_file: Written<String>,
}

/// A token, by its hash.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ role = \"metrics\", sha256 = \"…\" }")]
struct WrittenToken {
    /// What the bearer may do.
    role: Written<Role>,
    /// The SHA-256 of the token.
    sha256: Written<Hash>,
    /// From when on it opens nothing.
    expires: Written<Moment>,
    /// The token that this one replaces, and until when it still opens.
    previous: Option<Previous>,
}

/// The token that the one beside it replaces.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ sha256 = \"…\", expires = \"2030-01-31\" }")]
struct Previous {
    /// The SHA-256 of the token that is being replaced.
    sha256: Written<Hash>,
    /// Until when it still opens.
    expires: Written<Moment>,
}

/// An issuer's tokens, as `Authorization: Bearer`.
#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenJwt {
    /// Who makes the tokens, as they have it.
    issuer: Written<String>,
    /// For whom they must be: one of these, and none that a rule of `[auth]` takes.
    audience: Written<OrOff<OneOrMany>>,
    /// How they may be signed.
    algorithms: Written<Vec<Written<Algorithm>>>,
    /// The claim that roles are read of, a list or words of a text: its name, or a JSON pointer. Default:
    /// `"roles"`.
    role_claim: Written<String>,
    /// The roles that its values stand for; of several, the one that may do most.
    roles: BTreeMap<String, Written<Role>>,
    /// How far clocks may differ. Default: `"1m"`.
    clock_skew: Written<OrOff<Duration>>,
    /// What they must say beside, by claim.
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

/// A client certificate, by a name in it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ san = \"spiffe://shop.example/ops\", role = \"operator\" }")]
struct WrittenCertificate {
    /// One URI, e-mail address or DNS name that is an alternative in the certificate.
    san: Written<String>,
    /// What the bearer may do.
    role: Written<Role>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenAudit {
    /// A file to append to; without it the last 1,000 records are in memory alone.
    file: Written<String>,
    /// From which size on it is moved aside. Default: `"64MiB"`.
    max_bytes: Written<Size>,
    /// How many that were moved aside are kept. Default: `10`.
    keep: Written<OrOff<Count>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WrittenSessions {
    /// At once. Default: `64`.
    most: Written<Count>,
    /// How long one lasts, used or not. Default: `"12h"`.
    age: Written<Duration>,
    /// How long one lasts unused. Default: `"1h"`.
    idle: Written<Duration>,
}

impl Admin {
    /// Where it listens, as written.
    pub fn address(&self) -> &Written<Address> {
        &self.address
    }

    /// Where it listens, as used.
    pub fn used_address(&self) -> SocketAddr {
        self.address.get().map_or(DEFAULT, |address| (*address).into())
    }

    /// The settings as used.
    pub fn check(self, probes: Probes, check: &Check<'_>) -> Settings {
        let address = self.used_address();
        let key = self.address.key().clone();
        let plaintext = self.plaintext.or(false);
        let asks = !self.tokens.is_empty() || self.jwt.is_some() || !self.certificates.is_empty();
        if !address.ip().is_loopback() && !asks {
            let what =
                format!("\"{address}\" is not a loopback address, and nobody is asked who they are there");
            let help = format!(
                "write \"127.0.0.1:{}\", or add [admin.tokens.NAME] (tracegate token new), [admin.jwt] or [admin.certificates.NAME]; [probes] may listen anywhere",
                address.port()
            );
            check.wrong(&key, what, help);
        } else if !address.ip().is_loopback() && self.tls.is_none() && !plaintext {
            let what =
                format!("\"{address}\" is not a loopback address, and tokens would pass in clear text");
            check.wrong(&key, what, "add tls = { certificate_file, key_file }, or write plaintext = true");
        }
        let verifies = self.tls.as_ref().map(|tls| &tls.client_ca_file);
        let certificates = check_certificates(self.certificates, &key, verifies, check);
        let tokens = self.tokens.into_iter().filter_map(|(name, token)| token.check(&name, check)).collect();
        let signed = self.jwt.and_then(|jwt| jwt.check(check));
        Settings {
            address,
            probes: probes.address.into_option().map(Into::into),
            tls: self.tls.and_then(|tls| tls.check(check)),
            ways: ways::Settings { tokens, signed, certificates },
            audit: self.audit.check(check),
            sessions: self.sessions.check(),
            jaeger_url: check_jaeger(self.jaeger_url, check),
        }
    }
}

impl WrittenToken {
    fn check(self, name: &str, check: &Check<'_>) -> Option<Token> {
        let role = self.role.required(check, "write \"metrics\", \"support\", \"developer\" or \"operator\"");
        let hash = self.sha256.required(check, "write what tracegate token new prints");
        let mut hashes = vec![(hash?, self.expires.into_option().map(|Moment(expires)| expires))];
        if let Some(previous) = self.previous {
            let hash = previous.sha256.required(check, "write the hash of the token that is being replaced");
            let expires = previous.expires.required(check, "write until when the old token still opens");
            if let (Some(hash), Some(Moment(expires))) = (hash, expires) {
                hashes.push((hash, Some(expires)));
            }
        }
        Some(Token { name: name.into(), role: role?, hashes })
    }
}

impl WrittenJwt {
    /// What is asked for without a default: whoever is let in here sees and changes everything.
    fn check(self, check: &Check<'_>) -> Option<Signed> {
        let audience_key = self.audience.key().clone();
        let audience = self.audience.into_option().and_then(OrOff::into_option).map(|OneOrMany(names)| names);
        if audience.is_none() {
            let what = "must be one of its own: a customer's token would open this address";
            check.wrong(
                &audience_key,
                what,
                "write audience = \"tracegate-admin\", and let the issuer say it of operators alone",
            );
        }
        let algorithms_key = self.algorithms.key().clone();
        let algorithms = self.algorithms.required(check, "write those that the issuer signs by: [\"RS256\"]");
        if algorithms.as_ref().is_some_and(Vec::is_empty) {
            check.wrong(&algorithms_key, "is empty", "write those that the issuer signs by: [\"RS256\"]");
        }
        let algorithms =
            algorithms.unwrap_or_default().into_iter().filter_map(Written::into_option).collect();
        let claim: String = self.role_claim.or("roles".to_owned());
        let roles_key = audience_key.parent().unwrap_or_default().child("roles");
        if self.roles.is_empty() {
            let help = format!(
                "write what the values of the claim \"{claim}\" stand for: roles = {{ ops = \"operator\" }}"
            );
            check.wrong(&roles_key, "is missing: nobody would have a role", help);
        }
        let roles =
            self.roles.into_iter().filter_map(|(value, role)| Some((value.into(), role.into_option()?)));
        let roles = roles.collect();
        let tokens = Tokens {
            header: header::AUTHORIZATION,
            issuer: self.issuer,
            audience,
            algorithms,
            clock_skew: self.clock_skew,
            claims: self.claims,
            token_bytes: self.token_bytes,
            cache: self.cache,
            jwks_file: self.jwks_file,
            jwks_url: self.jwks_url,
            jwks: self.jwks,
        };
        let (tokens, source) = tokens.check(check)?;
        Some(Signed { tokens, source, claim: claim.into(), roles })
    }
}

/// Notes a problem where a rule of `[auth]` takes tokens of the audience that opens the admin address: those are its
/// customers'.
pub fn refuse_shared_audience(signed: Option<&Signed>, rules: &[auth::Settings], check: &Check<'_>) {
    let Some(ours) = signed.and_then(|signed| signed.tokens.required.audience.as_ref()) else { return };
    for rule in rules {
        let auth::Kind::Jwt(tokens, _) = &rule.kind else { continue };
        let theirs = tokens.required.audience.iter().flatten();
        for name in theirs.filter(|name| ours.contains(name)) {
            let what = format!(
                "\"{name}\" is what {} asks of tokens, too: those of customers would open this",
                rule.rule()
            );
            let help = "let the issuer give operators' tokens an audience of their own";
            check.wrong(&Key::root().child("admin").child("jwt").child("audience"), what, help);
        }
    }
}

/// Certificates by the names in them, which need an authority that signs them.
fn check_certificates(
    written: BTreeMap<String, WrittenCertificate>,
    address: &Key,
    verifies: Option<&Written<String>>,
    check: &Check<'_>,
) -> Vec<Certificate> {
    let table = address.parent().unwrap_or_default();
    match verifies {
        Some(file) if written.is_empty() && !file.is_absent() => {
            let help = "add [admin.certificates.NAME] with san and role, or leave it out";
            check.wrong(file.key(), "opens nothing: no certificate has a role", help);
        }
        Some(file) if !file.is_absent() => {}
        _ if written.is_empty() => {}
        _ => {
            let help = "write client_ca_file in [admin.tls]: the authority that signs them";
            check.wrong(&table.child("certificates"), "are verified by nobody", help);
        }
    }
    let mut known: Vec<Certificate> = Vec::new();
    for (name, certificate) in written {
        let key = certificate.san.key().clone();
        let help =
            "write a URI, an e-mail address or a DNS name of the certificate: \"spiffe://shop.example/ops\"";
        let role = certificate.role.required(check, "write \"support\", \"developer\" or \"operator\"");
        let Some(san) = certificate.san.required(check, help) else { continue };
        if san.is_empty() || san.contains('*') || (san.contains('=') && !san.contains("://")) {
            check.wrong(
                &key,
                format!("\"{san}\" is not one name that is an alternative in a certificate"),
                help,
            );
        }
        if let Some(other) = known.iter().find(|known| known.san.eq_ignore_ascii_case(&san)) {
            let what = format!("is that of {}, too", other.name);
            check.wrong(&key, what, "write each name once");
        }
        known.extend(role.map(|role| Certificate { name: name.into(), role, san: san.into() }));
    }
    known
}

impl WrittenTls {
    fn check(self, check: &Check<'_>) -> Option<Arc<ServerConfig>> {
        let key = self.certificate_file.key().clone();
        let chain = self.certificate_file.required(check, "name the file with the certificate chain in PEM");
        let private = self.key_file.required(check, "name the file with its private key in PEM");
        let (chain, private) = (check.path(chain?), check.path(private?));
        let (ca_key, crl_key) = (self.client_ca_file.key().clone(), self.client_crl_file.key().clone());
        let crl_file = self.client_crl_file.into_option().map(|file| check.path(file));
        let clients = self.client_ca_file.into_option().map(|file| check.path(file));
        if clients.is_none() && crl_file.is_some() {
            check.wrong(
                &crl_key,
                "is never used: no certificate is asked for",
                "write client_ca_file beside it",
            );
        }
        // those without one may still have a token
        let clients = clients.map(|ca_file| Clients { ca_file, crl_file, required: false });
        let verifier = match clients.as_ref().map(Clients::verifier).transpose() {
            Ok(verifier) => verifier,
            Err(error) => {
                let help = "name a file with the authorities that sign clients' certificates, in PEM";
                check.wrong(&ca_key, format!("the file cannot be used: {error}"), help);
                return None;
            }
        };
        let asks = verifier.is_some();
        if check.does_without(&chain) || check.does_without(&private) {
            return None;
        }
        let config = move || {
            let (certificates, private_key) = (pem::certificates(&chain)?, pem::private_key(&private)?);
            let builder = ServerConfig::builder_with_provider(tls::provider())
                .with_protocol_versions(&[&TLS13, &TLS12])
                .map_err(|error| error.to_string())?;
            let builder = match verifier {
                None => builder.with_no_client_auth(),
                Some(verifier) => builder.with_client_cert_verifier(verifier),
            };
            let mut config = builder
                .with_single_cert(certificates, private_key)
                .map_err(|error| tls::mismatch(&chain, &private, &error))?;
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            if asks {
                // whoever is revoked is asked anew with each connection
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
            Ok::<_, String>(Arc::new(config))
        };
        match config() {
            Ok(config) => Some(config),
            Err(error) => {
                let help = "name a certificate chain, the server's own first, and the key that belongs to it";
                check.wrong(&key, error, help);
                None
            }
        }
    }
}

impl WrittenAudit {
    fn check(self, check: &Check<'_>) -> audit::Settings {
        audit::Settings {
            file: self.file.into_option().map(|file| check.output_path(file)),
            max_bytes: self.max_bytes.or(64 << 20),
            keep: self.keep.into_option().map_or(10, |keep| keep.into_option().map_or(0, usize::from)),
        }
    }
}

impl WrittenSessions {
    fn check(self) -> session::Settings {
        let default = session::Settings::default();
        session::Settings {
            most: self.most.or(default.most),
            age: self.age.or(default.age),
            idle: self.idle.or(default.idle),
        }
    }
}

/// A link for people: nothing is ever sent there.
fn check_jaeger(written: Written<String>, check: &Check<'_>) -> Option<Box<str>> {
    let key = written.key().clone();
    let url = written.into_option()?;
    let is_link = url.parse::<http::Uri>().is_ok_and(|url| {
        let by_http = url.scheme_str().is_some_and(|scheme| matches!(scheme, "http" | "https"));
        by_http && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    if !is_link {
        check.wrong(
            &key,
            "is no URL of a page",
            "write the address of Jaeger's page: \"http://jaeger.internal:16686\"",
        );
    }
    Some(url.trim_end_matches('/').into())
}

impl Probes {
    /// Where it listens.
    pub fn address(&self) -> &Written<Address> {
        &self.address
    }
}

words!(Role, Self::ALL);

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
