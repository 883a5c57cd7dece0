//! TLS as a server: the certificate a listener shows, and the protocols it speaks.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use crate::net::{pem, tls};
use crate::setting::Digest;

/// How a listener is a TLS server: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN.
///
/// `certificate_file` holds the listener's certificate and after it those that lead to its authority,
/// `key_file` the first one's key. Errors name the file and what is wrong with it.
pub fn server_config(certificate_file: &Path, key_file: &Path) -> Result<Server, String> {
    let (certificates, made_of) = Certificates::load(certificate_file, key_file)?;
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Server { config: Arc::new(config), made_of })
}

/// How a listener is a TLS server. Two are equal if they were made of the same certificates and keys, which a reload
/// reads anew.
#[derive(Clone)]
pub struct Server {
    config: Arc<ServerConfig>,
    made_of: Digest,
}

impl PartialEq for Server {
    fn eq(&self, other: &Self) -> bool {
        self.made_of == other.made_of
    }
}

impl Deref for Server {
    type Target = Arc<ServerConfig>;

    fn deref(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// Which certificate a client is shown: one for all names.
#[derive(Debug)]
struct Certificates {
    default: Arc<CertifiedKey>,
}

impl Certificates {
    /// Reads a certificate and its key, and makes sure that they belong together.
    fn load(certificate_file: &Path, key_file: &Path) -> Result<(Self, Digest), String> {
        let chain = pem::certificates(certificate_file)?;
        let key = pem::private_key(key_file)?;
        let parts = chain.iter().map(|certificate| &certificate[..]).chain([key.secret_der()]);
        let made_of = Digest::of(parts);
        let default = CertifiedKey::from_der(chain, key, &tls::provider())
            .map_err(|error| tls::mismatch(certificate_file, key_file, &error))?;
        Ok((Self { default: Arc::new(default) }, made_of))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.default))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    fn development() -> (&'static Path, &'static Path) {
        (Path::new("certs/gateway.pem"), Path::new("certs/gateway-key.pem"))
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_development_certificate_gets_the_protocol_it_prefers() {
        let (certificate, key) = development();
        let acceptor = TlsAcceptor::from(Arc::clone(&server_config(certificate, key).unwrap()));
        for host in ["localhost", "127.0.0.1", "::1"] {
            for (offered, picked) in [
                (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
                (&[b"http/1.1"], Some(b"http/1.1")),
                (&[], None),
            ] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let accept = async { acceptor.accept(listener.accept().await.unwrap().0).await };
                let client = tls::client_config(Some(certificate), None, offered).unwrap();
                let connect = tls::connect(&client, host.try_into().unwrap(), stream);
                let (accepted, connected) = tokio::join!(accept, connect);
                accepted.unwrap();
                assert_eq!(connected.unwrap().0.get_ref().1.alpn_protocol(), picked, "{host}");
            }
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (certificate, _) = development();
        let other = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(other.path(), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let error = server_config(certificate, other.path()).unwrap_err();
        let expected = format!(
            "{} is not the key of certs/gateway.pem: the certificate was made for another key",
            other.path().display()
        );
        assert_eq!(error, expected);
    }

    #[test]
    fn the_development_certificate_says_what_it_is() {
        let (certificate, _) = development();
        let chain = pem::certificates(certificate).unwrap();
        let name = b"tracegate development certificate, not for production";
        assert!(chain[0].windows(name.len()).any(|window| window == name));
    }
}
