//! `[admin]` and `[probes]` as written, and what they mean.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::version::{TLS12, TLS13};
use serde::{Deserialize, Deserializer};

use super::door::Token;
use super::role::Role;
use super::{Settings, audit};
use crate::net::{pem, tls};
use crate::setting::leaf::word;
use crate::setting::{Address, Check, Count, Hash, Moment, OrOff, Size, Written};

/// The admin listener as written.
#[derive(Debug, Deserialize)]
pub struct Admin {
    address: Written<Address>,
    tls: Option<WrittenTls>,
    plaintext: Written<bool>,
    tokens: BTreeMap<String, WrittenToken>,
    audit: WrittenAudit,
}

/// The probes' listener as written.
#[derive(Debug, Deserialize)]
pub struct Probes {
    address: Written<Address>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "{ certificate_file = \"…\", key_file = \"…\" }")]
struct WrittenTls {
    certificate_file: Written<String>,
    key_file: Written<String>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "{ role = \"metrics\", sha256 = \"…\" }")]
struct WrittenToken {
    role: Written<Role>,
    sha256: Written<Hash>,
    expires: Written<Moment>,
    previous: Option<Previous>,
}

/// The token that the one beside it replaces.
#[derive(Debug, Deserialize)]
#[serde(expecting = "{ sha256 = \"…\", expires = \"2030-01-31\" }")]
struct Previous {
    sha256: Written<Hash>,
    expires: Written<Moment>,
}

#[derive(Debug, Deserialize)]
struct WrittenAudit {
    file: Written<String>,
    max_bytes: Written<Size>,
    keep: Written<OrOff<Count>>,
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
        if !address.ip().is_loopback() && self.tokens.is_empty() {
            let what =
                format!("\"{address}\" is not a loopback address, and nobody is asked for a token there");
            let help = format!(
                "write \"127.0.0.1:{}\", or add [admin.tokens.NAME] (tracegate token new); [probes] may listen anywhere",
                address.port()
            );
            check.wrong(&key, what, help);
        } else if !address.ip().is_loopback() && self.tls.is_none() && !plaintext {
            let what =
                format!("\"{address}\" is not a loopback address, and tokens would pass in clear text");
            check.wrong(&key, what, "add tls = { certificate_file, key_file }, or write plaintext = true");
        }
        let tokens = self.tokens.into_iter().filter_map(|(name, token)| token.check(&name, check)).collect();
        Settings {
            address,
            probes: probes.address.into_option().map(Into::into),
            tls: self.tls.and_then(|tls| tls.check(check)),
            tokens,
            audit: self.audit.check(check),
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

impl WrittenTls {
    fn check(self, check: &Check<'_>) -> Option<Arc<ServerConfig>> {
        let key = self.certificate_file.key().clone();
        let chain = self.certificate_file.required(check, "name the file with the certificate chain in PEM");
        let private = self.key_file.required(check, "name the file with its private key in PEM");
        let (chain, private) = (check.path(chain?), check.path(private?));
        let config = || {
            let (certificates, private_key) = (pem::certificates(&chain)?, pem::private_key(&private)?);
            let mut config = ServerConfig::builder_with_provider(tls::provider())
                .with_protocol_versions(&[&TLS13, &TLS12])
                .map_err(|error| error.to_string())?
                .with_no_client_auth()
                .with_single_cert(certificates, private_key)
                .map_err(|error| tls::mismatch(&chain, &private, &error))?;
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
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
            file: self.file.into_option().map(|file| check.path(file)),
            max_bytes: self.max_bytes.or(64 << 20),
            keep: self.keep.into_option().map_or(10, |keep| keep.into_option().map_or(0, usize::from)),
        }
    }
}

impl Probes {
    /// Where it listens.
    pub fn address(&self) -> &Written<Address> {
        &self.address
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, &Self::ALL)
    }
}

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
