//! TLS as a server: which certificate a client is shown, what is asked of it, and the protocols it may speak.

pub mod clients;
pub mod handshake;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use self::clients::{Clients, Roles};
use crate::net::{pem, tls, x509};
use crate::setting::Digest;

/// What was configured of a listener's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What clients are shown who name nobody, or nobody that is known. Its names count after all others'.
    pub default: Certificate,
    /// What clients are shown by name. No two have a name in common.
    pub certificates: Vec<Certificate>,
    /// Whether TLS 1.2 is spoken, too.
    pub tls12: bool,
    /// The protocols offered, the preferred one first.
    pub alpn: Vec<Vec<u8>>,
    /// Whether a client that names nobody who is known is refused.
    pub refuse_unknown: bool,
    /// The roles of verified clients.
    pub roles: Arc<Roles>,
    /// How long before its end a certificate is warned of.
    pub warn: Duration,
}

/// One certificate of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The key in the table, or `default`.
    pub name: Box<str>,
    /// The certificate, and after it those that lead to its authority.
    pub certificate_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// The names it is shown for; `None` takes those that it has.
    pub names: Option<Vec<Box<str>>>,
    /// What is asked of clients; `None` is nothing.
    pub clients: Option<Clients>,
}

/// A listener's TLS, with every file loaded. Immutable: a reload makes another one. Two are equal if they were
/// configured alike and made of the same contents.
pub struct Tls {
    plan: Plan,
    made_of: Digest,
    sites: Vec<Site>,
    exact: HashMap<Box<str>, usize>,
    /// By what follows the star and the dot.
    wildcards: HashMap<Box<str>, usize>,
    /// Clients are asked differently by name, so that no connection serves every name.
    differs: bool,
    refusing: Arc<ServerConfig>,
}

struct Site {
    config: Arc<ServerConfig>,
    expires: SystemTime,
    clients: Option<Clients>,
}

/// What a client is shown.
pub(super) enum Chosen {
    Site(usize),
    Nothing,
}

/// A handshake that is done.
#[derive(Debug, Clone)]
pub struct Session {
    tls: Arc<Tls>,
    site: usize,
    role: Option<Arc<str>>,
}

impl Tls {
    /// Loads every file. Errors name the file and what is wrong with it.
    pub fn load(plan: Plan) -> Result<Arc<Self>, String> {
        // before they are loaded: should one change meanwhile, the next reload sees a difference
        let contents = plan.files().map(read).collect::<Result<Vec<_>, _>>()?;
        let made_of = Digest::of(contents.iter().map(Vec::as_slice));
        let all = [&plan.default].into_iter().chain(&plan.certificates);
        let loaded = all.map(|certificate| Site::load(certificate, &plan)).collect::<Result<Vec<_>, _>>()?;
        let (sites, names): (Vec<_>, Vec<_>) = loaded.into_iter().unzip();
        let (mut exact, mut wildcards) = (HashMap::new(), HashMap::new());
        // the default's names count after all others'
        for index in (1..sites.len()).chain([0]) {
            for name in &names[index] {
                let (table, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut wildcards, parent.into()),
                    None => (&mut exact, name.clone()),
                };
                match table.entry(name) {
                    Entry::Vacant(entry) => _ = entry.insert(index),
                    Entry::Occupied(entry) if index == 0 || *entry.get() == index => {}
                    Entry::Occupied(entry) => {
                        let other = &plan.certificates[entry.get() - 1].name;
                        let ours = &plan.certificates[index - 1].name;
                        return Err(format!("certificates.{other} and certificates.{ours} share a name"));
                    }
                }
            }
        }
        let differs = sites.iter().any(|site| site.clients != sites[0].clients);
        let refusing = config(&plan, None, Arc::new(Nobody))?;
        Ok(Arc::new(Self { plan, made_of, sites, exact, wildcards, differs, refusing }))
    }

    /// The same without a question to clients, and for whatever name they ask: what a rehearsal needs.
    pub fn for_everybody(&self) -> Result<Arc<Self>, String> {
        let mut plan = self.plan.clone();
        plan.refuse_unknown = false;
        plan.default.clients = None;
        plan.certificates.iter_mut().for_each(|certificate| certificate.clients = None);
        Self::load(plan)
    }

    /// Each certificate's key in the table, and when it, or one that leads to its authority, expires.
    pub fn expiries(&self) -> impl Iterator<Item = (&str, SystemTime)> {
        let certificates = [&self.plan.default].into_iter().chain(&self.plan.certificates);
        certificates.zip(&self.sites).map(|(certificate, site)| (&*certificate.name, site.expires))
    }

    /// Those that expire within the time that is warned of, with the days that are left.
    pub fn expiring(&self, now: SystemTime) -> impl Iterator<Item = (&str, i64)> {
        let soon = self.expiries().filter(move |(_, expires)| *expires < now + self.plan.warn);
        soon.map(move |(name, expires)| (name, x509::days_left(now, expires)))
    }

    pub(super) fn choose(&self, name: Option<&str>) -> Chosen {
        match name.map(|name| self.find(name)) {
            Some(Some(site)) => Chosen::Site(site),
            Some(None) if self.plan.refuse_unknown => Chosen::Nothing,
            Some(None) | None => Chosen::Site(0),
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        let lower;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        let wildcard = || self.wildcards.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).copied()
    }

    pub(super) fn config(&self, site: usize) -> &Arc<ServerConfig> {
        &self.sites[site].config
    }

    pub(super) fn refusing(&self) -> &Arc<ServerConfig> {
        &self.refusing
    }

    pub(super) fn session(
        self: &Arc<Self>,
        site: usize,
        client: Option<&[CertificateDer<'static>]>,
    ) -> Session {
        let client = client.and_then(<[_]>::first);
        let role = client.and_then(|certificate| self.plan.roles.of(certificate));
        Session { tls: Arc::clone(self), site, role }
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.made_of == other.made_of && self.plan == other.plan
    }
}

impl Plan {
    fn files(&self) -> impl Iterator<Item = &Path> {
        let all = [&self.default].into_iter().chain(&self.certificates);
        let files = all.flat_map(|certificate| {
            let clients = certificate.clients.as_ref();
            let ca = clients.map(|clients| &clients.ca_file);
            let crl = clients.and_then(|clients| clients.crl_file.as_ref());
            [&certificate.certificate_file, &certificate.key_file].into_iter().chain(ca).chain(crl)
        });
        files.map(PathBuf::as_path)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))
}

impl Session {
    /// The role of the client, if it has shown a certificate that was verified and that has one.
    pub fn role(&self) -> Option<&Arc<str>> {
        self.role.as_ref()
    }

    /// Whether this host asks otherwise of its clients than the host that the connection was made to, so that
    /// its requests need a connection of their own (RFC 9110 section 15.5.20). `host` is lower case.
    pub fn is_misdirected(&self, host: &str) -> bool {
        self.tls.differs && {
            let sites = &self.tls.sites;
            let site = self.tls.find(host).unwrap_or(0);
            site != self.site && sites[site].clients != sites[self.site].clients
        }
    }
}

impl Site {
    /// The site, and the names it is for.
    fn load(certificate: &Certificate, plan: &Plan) -> Result<(Self, Vec<Box<str>>), String> {
        let loaded = Loaded::load(&certificate.certificate_file, &certificate.key_file)?;
        let config = config(plan, certificate.clients.as_ref(), Arc::new(loaded.key))?;
        let names = certificate.names.clone().unwrap_or(loaded.names);
        Ok((Self { config, expires: loaded.expires, clients: certificate.clients.clone() }, names))
    }
}

/// A certificate and its key, as loaded from their files.
pub struct Loaded {
    key: SingleCertAndKey,
    /// The names in the certificate.
    pub names: Vec<Box<str>>,
    /// When it, or one that leads to its authority, expires.
    pub expires: SystemTime,
}

impl Loaded {
    /// Reads a certificate and its key, and makes sure that they belong together. Errors name the file.
    pub fn load(certificate_file: &Path, key_file: &Path) -> Result<Self, String> {
        let chain = pem::certificates(certificate_file)?;
        let wrong = |error| format!("{}: {error}", certificate_file.display());
        let said = chain.iter().map(|certificate| x509::read(certificate)).collect::<Result<Vec<_>, _>>();
        let key = pem::private_key(key_file)?;
        let key = CertifiedKey::from_der(chain, key, &tls::provider())
            .map_err(|error| tls::mismatch(certificate_file, key_file, &error))?;
        let mut said = said.map_err(wrong)?;
        let expires = said.iter().map(|said| said.not_after).min().expect("at least one certificate");
        Ok(Self { key: key.into(), names: said.swap_remove(0).names, expires })
    }
}

fn config(
    plan: &Plan,
    clients: Option<&Clients>,
    certificates: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, String> {
    let versions: &[&SupportedProtocolVersion] = if plan.tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
    let builder = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(clients.verifier()?),
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols.clone_from(&plan.alpn);
    if clients.is_some() {
        // whoever is revoked, or no longer trusted, is asked anew with each connection
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

/// A certificate for nobody.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// Whole days from one moment to another, negative if it is past.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("plan", &self.plan).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;
    use tokio::net::{TcpListener, TcpStream};

    use super::clients::Clients;
    use super::{Certificate, Loaded, Path, Plan, Tls, handshake, pem, tls};
    use crate::net::Socket;

    fn development() -> (&'static Path, &'static Path) {
        (Path::new("certs/gateway.pem"), Path::new("certs/gateway-key.pem"))
    }

    fn certificate(name: &str, names: Option<&[&str]>) -> Certificate {
        let (certificate_file, key_file) = development();
        Certificate {
            name: name.into(),
            certificate_file: certificate_file.into(),
            key_file: key_file.into(),
            names: names.map(|names| names.iter().map(|&name| name.into()).collect()),
            clients: None,
        }
    }

    fn plan(certificates: Vec<Certificate>) -> Plan {
        Plan {
            default: certificate("default", None),
            certificates,
            tls12: true,
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            refuse_unknown: false,
            roles: Arc::default(),
            warn: Duration::from_secs(1),
        }
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_development_certificate_gets_the_protocol_it_prefers() {
        let (certificate, _) = development();
        let ours = Tls::load(plan(vec![])).unwrap();
        for host in ["localhost", "127.0.0.1", "::1"] {
            for (offered, picked) in [
                (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
                (&[b"http/1.1"], Some(b"http/1.1")),
                (&[], None),
            ] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let ours = Arc::clone(&ours);
                let accept = async {
                    let (stream, _) = listener.accept().await.unwrap();
                    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
                    handshake::accept(ours, Socket::tcp(stream), deadline).await
                };
                let client = tls::client_config(Some(certificate), None, offered).unwrap();
                let connect = tls::connect(&client, host.try_into().unwrap(), Socket::tcp(stream));
                let (accepted, connected) = tokio::join!(accept, connect);
                assert!(accepted.unwrap().1.role().is_none());
                assert_eq!(connected.unwrap().0.get_ref().1.alpn_protocol(), picked, "{host}");
            }
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (certificate, _) = development();
        let other = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(other.path(), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let error = Loaded::load(certificate, other.path()).err().unwrap();
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

    #[test]
    fn a_certificate_is_found_by_name_an_exact_one_before_a_wildcard() {
        let shop = certificate("shop", Some(&["shop.example", "*.shop.example"]));
        let mes = certificate("mes", Some(&["mes.shop.example"]));
        let tls = Tls::load(plan(vec![shop, mes])).unwrap();
        for (name, site) in [
            ("shop.example", Some(1)),
            ("www.shop.example", Some(1)),
            ("WWW.Shop.Example", Some(1)),
            ("mes.shop.example", Some(2)),
            ("a.mes.shop.example", None),
            ("a.b.shop.example", None),
            ("example", None),
            ("localhost", Some(0)),
            ("", None),
        ] {
            assert_eq!(tls.find(name), site, "{name}");
        }
        let (one, two) = (certificate("one", Some(&["a.b"])), certificate("two", Some(&["a.b"])));
        assert_eq!(
            Tls::load(plan(vec![one, two])).unwrap_err(),
            "certificates.one and certificates.two share a name"
        );
    }

    #[test]
    fn a_host_that_asks_otherwise_of_its_clients_needs_a_connection_of_its_own() {
        let ask = |required| Clients { ca_file: development().0.into(), crl_file: None, required };
        let asking = |name: &str, clients: Clients| Certificate {
            clients: Some(clients),
            ..certificate(name, Some(&[&format!("{name}.example")]))
        };
        let certificates = vec![
            asking("partner", ask(true)),
            asking("other", ask(true)),
            asking("guest", ask(false)),
            certificate("open", Some(&["open.example"])),
        ];
        let tls = Tls::load(plan(certificates)).unwrap();
        for (site, host, misdirected) in [
            (0, "unknown.example", false),
            (0, "open.example", false),
            (0, "partner.example", true),
            (1, "partner.example", false),
            (1, "other.example", false),
            (1, "guest.example", true),
            (1, "unknown.example", true),
            (3, "partner.example", true),
        ] {
            assert_eq!(tls.session(site, None).is_misdirected(host), misdirected, "{site} {host}");
        }
        let same = Tls::load(plan(vec![certificate("shop", Some(&["shop.example"]))])).unwrap();
        assert!(!same.session(0, None).is_misdirected("shop.example"));
    }

    #[test]
    fn files_are_loaded_again_or_not_at_all_and_the_first_end_of_a_chain_counts() {
        let directory = TempDir::new().unwrap();
        let file = |name: &str| directory.path().join(name);
        let write = |ends: &[i32]| {
            let key = KeyPair::generate().unwrap();
            let of = |&year: &i32| {
                let mut params = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
                params.not_after = rcgen::date_time_ymd(year, 1, 1);
                params.self_signed(&key).unwrap().pem()
            };
            std::fs::write(file("chain.pem"), ends.iter().map(of).collect::<String>()).unwrap();
            std::fs::write(file("key.pem"), key.serialize_pem()).unwrap();
        };
        write(&[2040, 2039]);
        let (certificate_file, key_file) = (file("chain.pem"), file("key.pem"));
        let default = Certificate { certificate_file, key_file, ..certificate("default", None) };
        let year = Duration::from_hours(24 * 365);
        let tls = Tls::load(Plan { default, warn: year, ..plan(vec![]) }).unwrap();
        let again = || Tls::load(tls.plan.clone());
        assert!(again().unwrap() == tls, "nothing has changed");
        let end = |year: i32| SystemTime::from(rcgen::date_time_ymd(year, 1, 1));
        assert_eq!(tls.expiries().collect::<Vec<_>>(), [("default", end(2039))]);
        write(&[2041]);
        let renewed = again().unwrap();
        assert!(renewed != tls);
        assert_eq!(renewed.expiries().next().unwrap().1, end(2041));
        std::fs::write(file("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(again().unwrap_err().contains("is not the key of"));

        let day = Duration::from_hours(24);
        for (now, expected) in [
            (end(2039) - year - day, None),
            (end(2039) - 2 * day, Some(2)),
            (end(2039) - day / 2, Some(0)),
            (end(2039) + day / 2, Some(-1)),
        ] {
            assert_eq!(tls.expiring(now).next().map(|(_, days)| days), expected, "{now:?}");
        }
    }
}
