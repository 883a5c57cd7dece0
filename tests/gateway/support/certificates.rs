//! Certificates made on the spot: an authority, what it signs, and TLS settings of both sides.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate authority that lives as long as the test.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Identity {
    /// The certificate as PEM.
    pub certificate: String,
    /// The key as PEM.
    pub key: String,
    server: Arc<ServerConfig>,
}

impl Authority {
    /// A new authority that nobody trusts yet.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// The authority's own certificate, to be trusted.
    pub fn pem(&self) -> String {
        self.issuer.as_ref().pem()
    }

    /// A certificate for these names and addresses, and its key.
    pub fn identity(&self, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().copied().map(Into::into).collect();
        self.sign(&CertificateParams::new(names).unwrap())
    }

    /// TLS of a server that shows this certificate to those alone who have one of this authority too.
    pub fn mutual(&self, identity: &Identity) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.as_ref().der().clone()).unwrap();
        let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let certificates = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
        let mut server = ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_single_cert(
                certificates.collect::<Result<_, _>>().unwrap(),
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
            )
            .unwrap();
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(server)
    }

    /// A certificate for clients with these alternative names, good until this year, and its key.
    pub fn client_identity(&self, names: Vec<SanType>, until: i32) -> Identity {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.serial_number = Some(vec![1, 2, 3].into());
        self.sign(&params)
    }

    /// A certificate for these names that expires on the day after so many days, and its key.
    pub fn identity_for_days(&self, names: &[&str], days: u64) -> Identity {
        let names: Vec<String> = names.iter().copied().map(Into::into).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let until = SystemTime::now() + Duration::from_hours(24 * (days + 1));
        let date = humantime::format_rfc3339_seconds(until).to_string();
        let [year, month, day] = [&date[..4], &date[5..7], &date[8..10]];
        params.not_after =
            rcgen::date_time_ymd(year.parse().unwrap(), month.parse().unwrap(), day.parse().unwrap());
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Identity { certificate: certificate.pem(), key: key.serialize_pem(), server: Arc::new(server) }
    }

    /// A list, as PEM, that revokes what [`Authority::client_identity`] has made.
    pub fn revocations(&self) -> String {
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(2100, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: vec![1, 2, 3].into(),
                revocation_time: rcgen::date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// The same as [`Authority::client`], with a certificate of its own.
    pub fn client_with(&self, alpn: &[&str], identity: &Identity) -> Arc<ClientConfig> {
        let plain = self.client(alpn);
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.as_ref().der().clone()).unwrap();
        let certificates = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                certificates.collect::<Result<_, _>>().unwrap(),
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols.clone_from(&plain.alpn_protocols);
        Arc::new(config)
    }

    /// TLS of a client that trusts this authority alone and offers these protocols.
    pub fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.as_ref().der().clone()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Writes the authority's certificate into this directory.
    pub fn write(&self, directory: &Path) -> PathBuf {
        write(directory, "ca.pem", &self.pem())
    }
}

impl Identity {
    /// TLS of a server that shows this certificate and speaks HTTP/2 and HTTP/1.1.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// The same for a server that serves those alone who have a certificate of this authority.
    pub fn asking(self, authority: &Authority) -> Self {
        Self { server: authority.mutual(&self), ..self }
    }

    /// Writes certificate and key into this directory.
    pub fn write(&self, directory: &Path) -> (PathBuf, PathBuf) {
        self.write_as(directory, "server")
    }

    /// Writes `NAME.pem` and `NAME-key.pem` into this directory.
    pub fn write_as(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = write(directory, &format!("{name}-key.pem"), &self.key);
        (write(directory, &format!("{name}.pem"), &self.certificate), key)
    }
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
