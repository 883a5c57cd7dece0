//! `[dns]`, and `tls` towards others, as written, and what they mean.

use std::net::{IpAddr, SocketAddr};
use std::time;

use rustls::pki_types::ServerName;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::tls::{ClientTls, client_config};
use super::{DnsSettings, pem};
use crate::problem::Key;
use crate::setting::leaf::{schema, text};
use crate::setting::{Check, Duration, Written};

/// How names are resolved, as written.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Dns {
    /// Name servers, on port 53 unless another one is written; the system's without it. Default: `[]`.
    servers: Written<Vec<Written<Server>>>,
    /// The shortest time that an answer is kept. Default: `"1s"`.
    min_ttl: Written<Duration>,
    /// The longest. Default: `"5m"`.
    max_ttl: Written<Duration>,
}

impl Dns {
    /// The settings as used.
    pub fn check(self, check: &Check<'_>) -> DnsSettings {
        let key = self.min_ttl.key().clone();
        let settings = DnsSettings {
            servers: self.servers.into_elements().map(|Server(address)| address).collect(),
            min_ttl: self.min_ttl.or(time::Duration::from_secs(1)),
            max_ttl: self.max_ttl.or(time::Duration::from_mins(5)),
        };
        if settings.min_ttl > settings.max_ttl {
            let max = settings.max_ttl.as_secs_f64();
            check.wrong(&key, format!("is longer than max_ttl ({max}s)"), "write the shorter of both here");
        }
        settings
    }
}

/// A name server, on port 53 unless another one is written.
#[derive(Debug, Clone, Copy)]
struct Server(SocketAddr);

impl Server {
    fn parse(text: &str) -> Result<Self, String> {
        let bare = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
        let help = r#"write "10.0.0.2" or "10.0.0.2:53""#;
        text.parse()
            .or_else(|_| bare())
            .map(Self)
            .map_err(|_| format!("\"{text}\" is not an IP address\n{help}"))
    }
}

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an address", Self::parse)
    }
}

schema!(Server, { "type": "string", "examples": ["10.0.0.2", "10.0.0.2:53"] });

/// TLS as a client, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ ca_file = \"…\", server_name = \"…\", certificate_file = \"…\", key_file = \"…\" }")]
pub struct WrittenTls {
    /// The trusted authorities in PEM; the public ones without it.
    ca_file: Written<String>,
    /// The name in the peer's certificate; its host without it.
    server_name: Written<CertificateName>,
    /// Our own certificate in PEM, for peers that ask for one.
    certificate_file: Written<String>,
    /// Its private key in PEM.
    key_file: Written<String>,
}

impl WrittenTls {
    /// Whether nothing of it was written.
    pub fn is_absent(&self) -> bool {
        let files = [&self.ca_file, &self.certificate_file, &self.key_file];
        self.server_name.is_absent() && files.iter().all(|file| file.is_absent())
    }

    /// TLS towards this host with these protocols, as used; `None` only after a problem has been noted. A
    /// host that no certificate can be made out to is one of the endpoint's key.
    pub fn check(self, (host, key): (&str, &Key), alpn: &[&[u8]], check: &Check<'_>) -> Option<ClientTls> {
        let server_name = match self.server_name.into_option() {
            Some(CertificateName(name)) => Some(name),
            None => ServerName::try_from(host.to_owned()).ok(),
        };
        if server_name.is_none() {
            let what = format!("no certificate can be made out to \"{host}\"");
            check.wrong(key, what, "write the name in its certificate: tls = { server_name = \"…\" }");
        }
        let unusable = |key: &Key, error: String, help: &str| {
            check.wrong(key, format!("the file cannot be used: {error}"), help);
        };
        let (ca_key, certificate_key) = (self.ca_file.key().clone(), self.certificate_file.key().clone());
        let key_key = self.key_file.key().clone();
        let ca_file = self.ca_file.into_option().map(|file| check.path(file));
        if let Err(error) = client_config(ca_file.as_deref(), None, alpn) {
            let help = "name a file with the trusted authorities' certificates in PEM";
            unusable(&ca_key, error, help);
            return None;
        }
        let certificate_file = self.certificate_file.into_option().map(|file| check.path(file));
        let key_file = self.key_file.into_option().map(|file| check.path(file));
        let client = match (&certificate_file, &key_file) {
            (Some(certificate), Some(private))
                if check.does_without(certificate) || check.does_without(private) =>
            {
                return None;
            }
            (Some(certificate), Some(private)) => {
                if let Err(error) = pem::certificates(certificate) {
                    unusable(&certificate_key, error, "name a file with our own certificate in PEM");
                    return None;
                }
                if let Err(error) = pem::private_key(private) {
                    unusable(&key_key, error, "name a file with the certificate's private key in PEM");
                    return None;
                }
                Some((&**certificate, &**private))
            }
            (None, None) => None,
            (Some(_), None) => {
                check.wrong(&certificate_key, "has no key", "write key_file beside it");
                return None;
            }
            (None, Some(_)) => {
                check.wrong(&key_key, "has no certificate", "write certificate_file beside it");
                return None;
            }
        };
        match client_config(ca_file.as_deref(), client, alpn) {
            Ok(config) => Some(ClientTls { config, server_name: server_name? }),
            Err(error) => {
                unusable(&certificate_key, error, "name a certificate and its own private key");
                None
            }
        }
    }
}

/// The name in a certificate.
#[derive(Debug)]
pub struct CertificateName(ServerName<'static>);

impl CertificateName {
    /// The name.
    pub fn into_inner(self) -> ServerName<'static> {
        self.0
    }
}

impl<'de> Deserialize<'de> for CertificateName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a name", |name| {
            let help = "write a name or an IP address, without a port: \"shop.internal\"";
            ServerName::try_from(name.to_owned())
                .map(Self)
                .map_err(|_| format!("\"{name}\" is not a name\n{help}"))
        })
    }
}

schema!(CertificateName, { "type": "string", "examples": ["shop.internal"] });
