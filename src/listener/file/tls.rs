//! `[listeners.NAME.tls]` as written, and what it means.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time;

use rustls::pki_types::ServerName;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::listener::tls::clients::{Clients, Roles};
use crate::listener::tls::{Certificate, Loaded, Plan, Tls};
use crate::net;
use crate::problem::Key;
use crate::setting::leaf::{schema, text, words};
use crate::setting::{Check, Duration, Written, name};

/// TLS as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ certificate_file = \"…\", key_file = \"…\" }")]
pub(super) struct WrittenTls {
    /// The certificate chain in PEM, the server's own first.
    certificate_file: Written<String>,
    /// Its private key in PEM.
    key_file: Written<String>,
    /// The oldest version of TLS that is spoken. Default: `"1.2"`.
    min_version: Written<MinVersion>,
    /// What is offered, the preferred one first. Default: `["h2", "http/1.1"]`.
    alpn: Written<Vec<Written<Alpn>>>,
    /// What clients get that ask for no name known here: this certificate, or a refusal. Default: `"default"`.
    unknown_names: Written<UnknownNames>,
    /// Whether clients show a certificate; required where there is a `client_ca_file`, else off.
    client_auth: Written<ClientAuth>,
    /// The authorities of clients' certificates in PEM.
    client_ca_file: Written<String>,
    /// The authorities' revocation lists in PEM.
    client_crl_file: Written<String>,
    /// What is recorded of a client in place of its name: by a name of its certificate.
    client_roles: BTreeMap<String, Written<Role>>,
    /// How long before its end a certificate is warned of. Default: `"14d"`.
    expiry_warning: Written<Duration>,
    /// Further certificates, by name; each is shown for the names in it.
    certificates: BTreeMap<String, WrittenCertificate>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ certificate_file = \"…\", key_file = \"…\" }")]
struct WrittenCertificate {
    /// The certificate chain in PEM, the server's own first.
    certificate_file: Written<String>,
    /// Its private key in PEM.
    key_file: Written<String>,
    /// The names it is shown for; those in the certificate without it.
    names: Written<Vec<Written<CertificateName>>>,
    /// As for the listener, which counts without it.
    client_auth: Written<ClientAuth>,
    /// As for the listener, which counts without it.
    client_ca_file: Written<String>,
    /// As for the listener, which counts without it.
    client_crl_file: Written<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MinVersion {
    Tls12,
    Tls13,
}

#[derive(Debug, Clone, Copy)]
enum Alpn {
    Http2,
    Http1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnknownNames {
    Default,
    Refuse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientAuth {
    Off,
    Optional,
    Required,
}

/// What is asked of clients where a certificate says nothing of its own.
struct Inherited {
    auth: Option<ClientAuth>,
    ca_file: Option<PathBuf>,
    crl_file: Option<PathBuf>,
}

/// How long before its end a certificate is warned of.
const EXPIRY_WARNING: time::Duration = time::Duration::from_hours(14 * 24);

impl WrittenTls {
    /// TLS as used, with every file loaded; `None` only after a problem has been noted.
    pub(super) fn check(self, check: &Check<'_>) -> Option<Arc<Tls>> {
        let key = self.certificate_file.key().parent().unwrap_or_default();
        let alpn = check_alpn(self.alpn, check);
        let inherited = Inherited {
            auth: self.client_auth.into_option(),
            ca_file: authorities(self.client_ca_file, check),
            crl_file: revocation_lists(self.client_crl_file, check),
        };
        let mut roles = Roles::default();
        for (client, role) in self.client_roles {
            if let Some(Role(role)) = role.get() {
                roles.give(&client, role);
            }
        }
        let clients = inherited.clients(&key, check);
        let default = pair(self.certificate_file, self.key_file, check);
        let mut certificates = Vec::new();
        let mut all_read = true;
        for (name, certificate) in self.certificates {
            let key = key.child("certificates").child(&name);
            name::check(&key, check);
            if name == "default" {
                check.wrong(&key, "is the name of the listener's own certificate", "give it another name");
            }
            let certificate = certificate.check(&name, &key, &inherited, check);
            all_read &= certificate.is_some();
            certificates.extend(certificate);
        }
        let (certificate_file, key_file) = default?;
        let plan = Plan {
            default: Certificate { name: "default".into(), certificate_file, key_file, names: None, clients },
            certificates,
            tls12: self.min_version.or(MinVersion::Tls12) == MinVersion::Tls12,
            alpn,
            refuse_unknown: self.unknown_names.or(UnknownNames::Default) == UnknownNames::Refuse,
            roles: Arc::new(roles),
            warn: self.expiry_warning.or(EXPIRY_WARNING),
        };
        if !all_read {
            return None;
        }
        match Tls::load(plan) {
            Ok(tls) => Some(tls),
            Err(error) => {
                check.wrong(&key, error, "write names = [\"shop.example\"] in each of certificates");
                None
            }
        }
    }
}

impl WrittenCertificate {
    fn check(self, name: &str, key: &Key, inherited: &Inherited, check: &Check<'_>) -> Option<Certificate> {
        let own = Inherited {
            auth: self.client_auth.into_option().or(inherited.auth),
            ca_file: authorities(self.client_ca_file, check).or_else(|| inherited.ca_file.clone()),
            crl_file: revocation_lists(self.client_crl_file, check).or_else(|| inherited.crl_file.clone()),
        };
        let clients = own.clients(key, check);
        let names_key = self.names.key().clone();
        let names = (!self.names.is_absent())
            .then(|| self.names.into_elements().map(|CertificateName(name)| name).collect::<Vec<_>>());
        let (certificate_file, key_file) = pair(self.certificate_file, self.key_file, check)?;
        let none = match &names {
            Some(names) => names.is_empty(),
            None => Loaded::load(&certificate_file, &key_file).is_ok_and(|loaded| loaded.names.is_empty()),
        };
        if none {
            check.wrong(&names_key, "there is no name to show it for", "write names = [\"shop.example\"]");
        }
        Some(Certificate { name: name.into(), certificate_file, key_file, names, clients })
    }
}

impl Inherited {
    fn clients(&self, table: &Key, check: &Check<'_>) -> Option<Clients> {
        let auth = match (self.auth, &self.ca_file) {
            (Some(auth), _) => auth,
            (None, Some(_)) => ClientAuth::Required,
            (None, None) => ClientAuth::Off,
        };
        if auth == ClientAuth::Off {
            return None;
        }
        let Some(ca_file) = self.ca_file.clone() else {
            let help = "name the file with the authorities of clients' certificates";
            check.wrong(&table.child("client_ca_file"), "is missing", help);
            return None;
        };
        let clients =
            Clients { ca_file, crl_file: self.crl_file.clone(), required: auth == ClientAuth::Required };
        Some(clients)
    }
}

/// A certificate and the key that belongs to it.
fn pair(
    certificate_file: Written<String>,
    key_file: Written<String>,
    check: &Check<'_>,
) -> Option<(PathBuf, PathBuf)> {
    let key = certificate_file.key().clone();
    let lacks = |file: &Written<String>| file.get().is_some_and(|file| check.does_without(&check.path(file)));
    if lacks(&certificate_file) || lacks(&key_file) {
        return None;
    }
    let certificate = readable(certificate_file, "a certificate chain in PEM", check);
    let private = readable(key_file, "its private key in PEM", check);
    let (certificate, private) = (certificate?, private?);
    if let Err(error) = Loaded::load(&certificate, &private) {
        let help = "name a certificate chain, the server's own first, and the key that belongs to it";
        check.wrong(&key, error, help);
        return None;
    }
    Some((certificate, private))
}

fn readable(file: Written<String>, what: &str, check: &Check<'_>) -> Option<PathBuf> {
    let key = file.key().clone();
    let written = file.required(check, &format!("name the file with {what}"))?;
    let path = check.path(&written);
    if let Err(error) = std::fs::File::open(&path) {
        let help = format!("name a file with {what}");
        check.wrong(&key, format!("the file \"{written}\" cannot be read: {error}"), help);
        return None;
    }
    Some(path)
}

fn authorities(file: Written<String>, check: &Check<'_>) -> Option<PathBuf> {
    let help = "name a file with the authorities of clients' certificates in PEM";
    usable(file, |path| net::tls::authorities(path).map(drop), help, check)
}

fn revocation_lists(file: Written<String>, check: &Check<'_>) -> Option<PathBuf> {
    let help = "name a file with the authorities' revocation lists in PEM";
    usable(file, |path| net::pem::revocation_lists(path).map(drop), help, check)
}

fn usable(
    file: Written<String>,
    load: impl FnOnce(&Path) -> Result<(), String>,
    help: &str,
    check: &Check<'_>,
) -> Option<PathBuf> {
    let key = file.key().clone();
    let path = check.path(file.into_option()?);
    if let Err(error) = load(&path) {
        check.wrong(&key, format!("the file cannot be used: {error}"), help);
    }
    Some(path)
}

fn check_alpn(written: Written<Vec<Written<Alpn>>>, check: &Check<'_>) -> Vec<Vec<u8>> {
    let key = written.key().clone();
    if written.is_absent() {
        return vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    let offered: Vec<Vec<u8>> = written
        .into_elements()
        .map(|protocol| match protocol {
            Alpn::Http2 => b"h2".to_vec(),
            Alpn::Http1 => b"http/1.1".to_vec(),
        })
        .collect();
    if offered.is_empty() {
        check.wrong(&key, "is empty", "write [\"h2\", \"http/1.1\"], or one of them");
    }
    offered
}

/// A name a certificate is shown for: `shop.example` or `*.shop.example`, lower case.
#[derive(Debug)]
struct CertificateName(Box<str>);

impl CertificateName {
    fn parse(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase();
        match ServerName::try_from(name.strip_prefix("*.").unwrap_or(&name).to_owned()) {
            Ok(ServerName::DnsName(_)) => Ok(Self(name.into())),
            _ => Err(format!("\"{text}\" is not a DNS name\nwrite \"shop.example\" or \"*.shop.example\"")),
        }
    }
}

/// A role: one word, because it stands on spans.
#[derive(Debug)]
struct Role(Box<str>);

impl Role {
    fn parse(text: &str) -> Result<Self, String> {
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if first && text.len() <= 64 && text.bytes().all(plain) {
            return Ok(Self(text.into()));
        }
        Err(format!("\"{text}\" is not a role\nwrite one lower-case word, which names nobody: \"partner\""))
    }
}

impl<'de> Deserialize<'de> for CertificateName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a DNS name", Self::parse)
    }
}

schema!(CertificateName, { "type": "string", "examples": ["shop.example", "*.shop.example"], "pattern": "^[^/:]+$" });

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a role", Self::parse)
    }
}

schema!(Role, { "type": "string", "examples": ["partner"], "pattern": "^[a-z][a-z0-9_-]{0,63}$" });

words!(MinVersion, [("1.2", Self::Tls12), ("1.3", Self::Tls13)]);

words!(Alpn, [("h2", Self::Http2), ("http/1.1", Self::Http1)]);

words!(UnknownNames, [("default", Self::Default), ("refuse", Self::Refuse)]);

words!(ClientAuth, [("off", Self::Off), ("optional", Self::Optional), ("required", Self::Required)]);
