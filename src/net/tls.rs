//! TLS as a client: whom to trust, who we are, the handshake and the ways in which it fails.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Socket, pem, x509};
use crate::failure::{Detail, Failure, Reason};
use crate::setting::Digest;

/// Whom we trust as a TLS client, and who we are. Two are equal if they were made of the same certificates and
/// keys, which a reload reads anew.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    made_of: Digest,
    expires: Option<SystemTime>,
}

impl Client {
    /// When our own certificate, or one that leads to its authority, expires, if we have one.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.made_of == other.made_of
    }
}

impl Deref for Client {
    type Target = Arc<ClientConfig>;

    fn deref(&self) -> &Arc<ClientConfig> {
        &self.config
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// TLS towards one peer.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientTls {
    /// Whom to trust, and who we are.
    pub config: Client,
    /// The name that must be in the peer's certificate.
    pub server_name: ServerName<'static>,
}

/// How we are a TLS client: TLS 1.2 and 1.3.
///
/// The peer's certificate must be signed by an authority in `ca_file`, else by a public one. `client` is
/// our own certificate and its key, for peers that ask for one. `alpn` lists the protocols offered, the
/// preferred one first. Errors name the file and what is wrong with it.
pub fn client_config(
    ca_file: Option<&Path>,
    client: Option<(&Path, &Path)>,
    alpn: &[&[u8]],
) -> Result<Client, String> {
    let mut parts: Vec<Vec<u8>> = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let mut part = |kind: &str, bytes: &[u8]| parts.push([kind.as_bytes(), bytes].concat());
    let roots = match ca_file {
        None => public_authorities(),
        Some(file) => {
            let certificates = pem::certificates(file)?;
            for certificate in &certificates {
                part("authority ", certificate);
            }
            trusting(file, certificates)?
        }
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut expires = None;
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some((certificate_file, key_file)) => {
            let (chain, key) = (pem::certificates(certificate_file)?, pem::private_key(key_file)?);
            for certificate in &chain {
                part("own ", certificate);
            }
            part("key ", key.secret_der());
            expires = chain.iter().filter_map(|own| x509::read(own).ok()).map(|said| said.not_after).min();
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| mismatch(certificate_file, key_file, &error))?
        }
    };
    config.alpn_protocols = alpn.iter().map(|&protocol| protocol.to_vec()).collect();
    Ok(Client { config: Arc::new(config), made_of: Digest::of(parts.iter().map(Vec::as_slice)), expires })
}

/// Makes a TLS session over this connection; tells how long the handshake took. The caller bounds the wait.
///
/// A peer that picks none of the protocols offered speaks HTTP/1.1: where that was not offered, there is
/// no session.
pub async fn connect(
    config: &Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: Socket,
) -> Result<(TlsStream<Socket>, Duration), Failure> {
    let started = Instant::now();
    let connector = TlsConnector::from(Arc::clone(config));
    let stream = connector.connect(name, stream).await.map_err(failure)?;
    let offered = &config.alpn_protocols;
    let picked = stream.get_ref().1.alpn_protocol();
    if picked.is_none() && !offered.is_empty() && !offered.iter().any(|protocol| protocol == b"http/1.1") {
        let failure = Failure::new(Reason::TlsFailed).detail(Detail::Alpn);
        return Err(failure.because("the peer picked none of the protocols offered"));
    }
    Ok((stream, started.elapsed()))
}

/// The one source of cryptography. Always named, so that no other part of the process can replace it.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What to say of a certificate and a key that cannot be used together.
pub(crate) fn mismatch(certificate_file: &Path, key_file: &Path, error: &rustls::Error) -> String {
    let (certificate, key) = (certificate_file.display(), key_file.display());
    match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("{key} is not the key of {certificate}: the certificate was made for another key")
        }
        rustls::Error::InvalidCertificate(_) => format!("{certificate} holds no usable certificate: {error}"),
        error => format!("{key} holds no usable key: {error}"),
    }
}

fn public_authorities() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

/// The authorities of a file; errors name it.
pub fn authorities(file: &Path) -> Result<RootCertStore, String> {
    trusting(file, pem::certificates(file)?)
}

fn trusting(file: &Path, certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store
            .add(certificate)
            .map_err(|error| format!("{} holds no usable authority: {error}", file.display()))?;
    }
    Ok(store)
}

fn failure(error: io::Error) -> Failure {
    let failure = Failure::new(Reason::TlsFailed);
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner.and_then(detail) {
        Some(detail) => failure.detail(detail).because(error),
        None => failure.because(error),
    }
}

fn detail(error: &rustls::Error) -> Option<Detail> {
    match error {
        rustls::Error::InvalidCertificate(error) => Some(match error {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Detail::Expired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Detail::NameMismatch
            }
            _ => Detail::Untrusted,
        }),
        rustls::Error::NoApplicationProtocol
        | rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => Some(Detail::Alpn),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rcgen::{CertificateParams, Issuer, KeyPair};
    use rustls::ServerConfig;
    use tempfile::NamedTempFile;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// An authority that signs certificates for `shop.test`.
    struct Authority {
        file: NamedTempFile,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let file = file(&params.self_signed(&key).unwrap().pem());
            Self { file, issuer: Issuer::new(params, key) }
        }

        /// A certificate, good from one year to another, and its key.
        fn sign(&self, years: (i32, i32)) -> (rcgen::Certificate, KeyPair) {
            let mut params = CertificateParams::new(vec!["shop.test".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
            params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &self.issuer).unwrap(), key)
        }
    }

    fn file(text: &str) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    /// Shakes hands with a server that has this certificate and these protocols; tells which one was picked.
    async fn shake_hands(
        (certificate, key): &(rcgen::Certificate, KeyPair),
        server_alpn: &[&[u8]],
        client: &Arc<ClientConfig>,
        name: &str,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
        server.alpn_protocols = server_alpn.iter().map(|&protocol| protocol.to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let accept = async {
            let (stream, _) = listener.accept().await.unwrap();
            TlsAcceptor::from(Arc::new(server)).accept(stream).await
        };
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let (_, connected) = tokio::join!(accept, connect(client, name, Socket::tcp(stream)));
        connected.map(|(stream, _)| stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    }

    #[tokio::test]
    async fn a_certificate_that_will_not_do_is_refused_with_a_word_for_why() {
        let (ours, other) = (Authority::new(), Authority::new());
        let trusting = client_config(Some(ours.file.path()), None, &[]).unwrap();
        let public = client_config(None, None, &[]).unwrap();
        let cases = [
            (&trusting, ours.sign((2020, 2100)), "shop.test", None),
            (&trusting, ours.sign((2020, 2100)), "mes.test", Some(Detail::NameMismatch)),
            (&trusting, ours.sign((2020, 2021)), "shop.test", Some(Detail::Expired)),
            (&trusting, ours.sign((2099, 2100)), "shop.test", Some(Detail::Expired)),
            (&trusting, other.sign((2020, 2100)), "shop.test", Some(Detail::Untrusted)),
            (&public, ours.sign((2020, 2100)), "shop.test", Some(Detail::Untrusted)),
        ];
        for (index, (client, certificate, name, expected)) in cases.into_iter().enumerate() {
            let failure = shake_hands(&certificate, &[], client, name).await.err();
            let words = failure.map(|failure| (failure.reason, failure.detail));
            assert_eq!(words, expected.map(|detail| (Reason::TlsFailed, Some(detail))), "case {index}");
        }
    }

    /// What the client offers, what the server takes, what they agree on.
    type Agreement<'a> = (&'a [&'a [u8]], &'a [&'a [u8]], Result<Option<&'a [u8]>, Detail>);

    #[tokio::test]
    async fn a_protocol_is_agreed_on_or_there_is_no_session() {
        let authority = Authority::new();
        let certificate = authority.sign((2020, 2100));
        let (h1, h2): (&[u8], &[u8]) = (b"http/1.1", b"h2");
        let cases: [Agreement<'_>; 6] = [
            (&[h2], &[h2, h1], Ok(Some(h2))),
            (&[h1], &[h2, h1], Ok(Some(h1))),
            (&[], &[h2, h1], Ok(None)),
            (&[h1], &[], Ok(None)),
            (&[h2], &[], Err(Detail::Alpn)),
            (&[h2], &[h1], Err(Detail::Alpn)),
        ];
        for (client, server, expected) in cases {
            let config = client_config(Some(authority.file.path()), None, client).unwrap();
            let picked = shake_hands(&certificate, server, &config, "shop.test").await;
            let picked = picked.map_err(|failure| failure.detail.unwrap());
            assert_eq!(picked, expected.map(|picked| picked.map(<[u8]>::to_vec)), "{client:?} {server:?}");
        }
    }

    #[tokio::test]
    async fn a_peer_that_is_no_tls_server_fails_without_a_finer_word() {
        use tokio::io::AsyncWriteExt;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let config = client_config(None, None, &[]).unwrap();
        let failure =
            connect(&config, "shop.test".try_into().unwrap(), Socket::tcp(stream)).await.unwrap_err();
        assert_eq!((failure.reason, failure.detail), (Reason::TlsFailed, None));
    }

    #[test]
    fn errors_of_files_name_the_file_and_what_is_wrong() {
        let authority = Authority::new();
        let (certificate, key) = authority.sign((2020, 2100));
        let (_, other_key) = authority.sign((2020, 2100));
        let certificate = file(&certificate.pem());
        let (key, other_key) = (file(&key.serialize_pem()), file(&other_key.serialize_pem()));
        let not_der = file("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let not_a_key = file("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");

        assert!(client_config(None, Some((certificate.path(), key.path())), &[]).is_ok());
        let error = client_config(Some(not_der.path()), None, &[]).unwrap_err();
        assert!(error.starts_with(&format!("{} holds no usable auth", not_der.path().display())), "{error}");
        for (certificate, key, at_fault, expected) in [
            (&certificate, &other_key, &other_key, " is not the key of "),
            (&certificate, &not_a_key, &not_a_key, " holds no usable key: "),
            (&not_der, &key, &not_der, " holds no usable certificate: "),
        ] {
            let error = client_config(None, Some((certificate.path(), key.path())), &[]).unwrap_err();
            assert!(error.starts_with(&format!("{}{expected}", at_fault.path().display())), "{error}");
        }
    }
}
