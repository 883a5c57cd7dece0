//! TLS on both sides: protocols by ALPN, trust, names.

use std::sync::Arc;

use rcgen::SanType;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracegate::telemetry::metrics::reloads::ReloadOutcome;

use crate::support::body::empty;
use crate::support::certificates::Identity;
use crate::support::gateway::{all_to, route};
use crate::support::process::Process;
use crate::support::stage::told;
use crate::support::{Answer, Authority, Client, Collector, Gateway, Origin, within};

/// Certificates in a directory, and a gateway's listener that shows them.
struct Certificates {
    authority: Authority,
    directory: tempfile::TempDir,
}

impl Certificates {
    fn new(names: &[&str]) -> Self {
        let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
        authority.identity(names).write(directory.path());
        authority.write(directory.path());
        Self { authority, directory }
    }

    async fn gateway(&self, texts: &[&str]) -> Gateway {
        Gateway::start_in(self.directory.path(), texts).await
    }
}

const LISTENER: &str =
    "[listeners.public]\ntls = { certificate_file = 'server.pem', key_file = 'server-key.pem' }\n";

#[tokio::test]
async fn the_client_chooses_the_version_by_alpn() {
    let origin = Origin::start(Answer::ok()).await;
    let certificates = Certificates::new(&["shop.test"]);
    let gateway = certificates.gateway(&[&all_to(origin.address), LISTENER]).await;
    for (alpn, http2) in
        [(&["h2", "http/1.1"][..], true), (&["http/1.1"], false), (&["h2"], true), (&[], false)]
    {
        let config = certificates.authority.client(alpn);
        let mut client = Client::tls(gateway.address(), "shop.test", config).await;
        let reply = client.get("/").await;
        assert_eq!((reply.status, client.is_http2()), (200, http2), "{alpn:?}");
        let line = gateway.logged(&reply.trace_id()).await;
        assert_eq!(
            (&line["scheme"], &line["protocol"]),
            (&"https".into(), &if http2 { "2" } else { "1.1" }.into())
        );
    }
    assert_eq!(origin.seen()[0].header("x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn plain_text_on_a_tls_listener_is_told_so_and_ends_there() {
    let origin = Origin::start(Answer::ok()).await;
    let certificates = Certificates::new(&["shop.test"]);
    let gateway = certificates.gateway(&[&all_to(origin.address), LISTENER]).await;
    let mut plain = Client::http1(gateway.address()).await;
    let reply = plain.get("/").await;
    assert_eq!((reply.status, reply.reason().as_deref()), (400, Some("bad_request")));
    assert_eq!(reply.json()["detail"], "plain_http");
    assert_eq!(gateway.logged(&reply.trace_id()).await["detail"], "plain_http");
    plain.closed().await;
    let config = certificates.authority.client(&[]);
    assert_eq!(Client::tls(gateway.address(), "shop.test", config).await.get("/").await.status, 200);
    assert!(origin.seen().len() == 1);
    failed(&gateway, "plain_http", 1).await;
    failed(&gateway, "done", 1).await;
}

/// So many handshakes have ended so.
async fn failed(gateway: &Gateway, outcome: &str, count: u64) {
    let labels = [("listener", "public"), ("outcome", outcome)];
    gateway
        .metrics_when(outcome, |metrics| metrics.count("tracegate_tls_handshakes_total", &labels) == count)
        .await;
}

/// The certificate that is shown to who asks for this name, or nobody's.
async fn shown(gateway: &Gateway, authority: &Authority, name: Option<&'static str>) -> Option<Vec<u8>> {
    let mut config = Arc::unwrap_or_clone(authority.client(&["h2"]));
    config.enable_sni = name.is_some();
    let name = ServerName::try_from(name.unwrap_or("shop.test")).unwrap();
    // whatever is shown is looked at, not verified
    config.dangerous().set_certificate_verifier(Arc::new(Anything));
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let connect = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = within("a TLS handshake", connect).await.ok()?;
    Some(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
}

#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn der(identity: &Identity) -> Vec<u8> {
    CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap().to_vec()
}

#[tokio::test]
async fn a_certificate_is_chosen_by_the_name_that_the_client_asks_for() {
    let origin = Origin::start(Answer::ok()).await;
    let certificates = Certificates::new(&["shop.test"]);
    let (authority, directory) = (&certificates.authority, certificates.directory.path());
    let default = std::fs::read(directory.join("server.pem")).unwrap();
    let default = CertificateDer::from_pem_slice(&default).unwrap().to_vec();
    let (one, many) = (authority.identity(&["mes.test"]), authority.identity(&["other.test"]));
    one.write_as(directory, "one");
    many.write_as(directory, "many");
    let by_name = "
[listeners.public.tls.certificates]
one = { certificate_file = 'one.pem', key_file = 'one-key.pem' }
many = { certificate_file = 'many.pem', key_file = 'many-key.pem', names = ['*.mes.test', 'Second.test'] }
";
    let texts = [&*all_to(origin.address), LISTENER, by_name];
    let gateway = certificates.gateway(&texts).await;
    for (name, expected) in [
        (Some("mes.test"), der(&one)),
        (Some("a.mes.test"), der(&many)),
        (Some("second.test"), der(&many)),
        (Some("shop.test"), default.clone()),
        (Some("a.b.mes.test"), default.clone()),
        (Some("other.test"), default.clone()),
        (None, default.clone()),
    ] {
        assert_eq!(shown(&gateway, authority, name).await, Some(expected), "{name:?}");
    }
    let strict = "[listeners.public.tls]\nunknown_names = 'refuse'\n";
    let gateway = certificates.gateway(&[&texts[..], &[strict]].concat()).await;
    for (name, expected) in [
        (Some("mes.test"), Some(der(&one))),
        (Some("shop.test"), Some(default.clone())),
        (Some("other.test"), None),
        (None, Some(default)),
    ] {
        assert_eq!(shown(&gateway, authority, name).await, expected, "{name:?}");
    }
    failed(&gateway, "unknown_name", 1).await;
}

#[tokio::test]
async fn versions_and_protocols_are_those_that_are_allowed() {
    let origin = Origin::start(Answer::ok()).await;
    let certificates = Certificates::new(&["shop.test"]);
    let tls = "[listeners.public.tls]\nmin_version = '1.3'\nalpn = ['http/1.1']\n";
    let gateway = certificates.gateway(&[&all_to(origin.address), LISTENER, tls]).await;
    let mut old = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS12])
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_no_client_auth();
    assert!(handshake(&gateway, old.clone()).await.is_err());
    failed(&gateway, "incompatible", 1).await;
    let http2_only = Arc::unwrap_or_clone(certificates.authority.client(&["h2"]));
    assert!(handshake(&gateway, http2_only).await.is_err());
    failed(&gateway, "alpn", 1).await;
    let both = certificates.authority.client(&["h2", "http/1.1"]);
    let mut client = Client::tls(gateway.address(), "shop.test", both).await;
    assert_eq!((client.is_http2(), client.get("/").await.status), (false, 200));

    let gateway = certificates.gateway(&[&all_to(origin.address), LISTENER]).await;
    old.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = Client::tls(gateway.address(), "shop.test", Arc::new(old)).await;
    assert_eq!((client.is_http2(), client.get("/").await.status), (true, 200), "TLS 1.2");
    let trusting_nobody = Arc::unwrap_or_clone(Authority::new().client(&[]));
    assert!(handshake(&gateway, trusting_nobody).await.is_err());
    failed(&gateway, "refused_by_client", 1).await;
}

/// A handshake, and one byte read, because in TLS 1.3 the client is done before the server has seen its part.
async fn handshake(gateway: &Gateway, config: rustls::ClientConfig) -> std::io::Result<()> {
    let stream = TcpStream::connect(gateway.address()).await?;
    let name = ServerName::try_from("shop.test").unwrap();
    let connect = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let mut stream = within("a TLS handshake", connect).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await?;
    within("an answer", stream.read_u8()).await.map(drop)
}

#[tokio::test]
async fn a_client_shows_a_certificate_and_its_role_stands_on_the_record() {
    let origin = Origin::start(Answer::ok()).await;
    let collector = Collector::start().await;
    let certificates = Certificates::new(&["shop.test"]);
    let authority = &certificates.authority;
    let roles = "
[listeners.public.tls]
client_ca_file = 'ca.pem'
client_auth = 'optional'
client_roles = { 'spiffe://shop.test/mes' = 'partner', 'secret.person.test' = 'staff' }
";
    let texts = [&*all_to(origin.address), LISTENER, roles, &collector.grpc()];
    let gateway = certificates.gateway(&texts).await;
    let uri = || SanType::URI("spiffe://shop.test/mes".try_into().unwrap());
    let name = |name: &str| SanType::DnsName(name.try_into().unwrap());
    for (names, role) in [
        (vec![uri()], Some("partner")),
        (vec![name("secret.person.test")], Some("staff")),
        (vec![name("nobody.test")], None),
    ] {
        let identity = authority.client_identity(names, 2100);
        let config = authority.client_with(&["h2"], &identity);
        let reply = Client::tls(gateway.address(), "shop.test", config).await.get("/").await;
        let told = told(gateway.access_log(), &collector, &reply.trace_id(), 1).await;
        assert_eq!(told.server.attribute("tracegate.client_role"), role);
        assert_eq!(told.log["client_role"].as_str(), role);
        let said = format!("{:?}{}", told.server, told.log);
        assert!(!said.contains("secret.person") && !said.contains("spiffe"), "{said}");
    }
    let config = authority.client(&["h2"]);
    assert_eq!(Client::tls(gateway.address(), "shop.test", config).await.get("/").await.status, 200);

    let required = "[listeners.public.tls]\nclient_auth = 'required'\n";
    let gateway = certificates.gateway(&[&texts[..], &[required]].concat()).await;
    assert!(handshake(&gateway, Arc::unwrap_or_clone(authority.client(&[]))).await.is_err());
    failed(&gateway, "no_certificate", 1).await;
    for (identity, outcome) in [
        (authority.client_identity(vec![uri()], 2020), "expired"),
        (Authority::new().client_identity(vec![uri()], 2100), "untrusted"),
    ] {
        let config = Arc::unwrap_or_clone(authority.client_with(&[], &identity));
        assert!(handshake(&gateway, config).await.is_err());
        failed(&gateway, outcome, 1).await;
    }
    let identity = authority.client_identity(vec![uri()], 2100);
    let config = Arc::unwrap_or_clone(authority.client_with(&[], &identity));
    handshake(&gateway, config.clone()).await.unwrap();

    std::fs::write(certificates.directory.path().join("crl.pem"), authority.revocations()).unwrap();
    let revoking = "[listeners.public.tls]\nclient_crl_file = 'crl.pem'\n";
    let gateway = certificates.gateway(&[&texts[..], &[required, revoking]].concat()).await;
    assert!(handshake(&gateway, config).await.is_err());
    failed(&gateway, "revoked", 1).await;
}

#[tokio::test]
async fn a_host_that_wants_client_certificates_is_not_reached_over_a_connection_to_another() {
    let origin = Origin::start(Answer::ok()).await;
    let certificates = Certificates::new(&["shop.test"]);
    let authority = &certificates.authority;
    authority.identity(&["partner.test"]).write_as(certificates.directory.path(), "partner");
    let partner = "
[listeners.public.tls.certificates.partner]
certificate_file = 'partner.pem'
key_file = 'partner-key.pem'
client_ca_file = 'ca.pem'
";
    let gateway = certificates.gateway(&[&all_to(origin.address), LISTENER, partner]).await;
    for alpn in ["h2", "http/1.1"] {
        let mut open = Client::tls(gateway.address(), "shop.test", authority.client(&[alpn])).await;
        let to = |host: &str| {
            let uri = if alpn == "h2" { format!("http://{host}/") } else { "/".into() };
            http::Request::get(uri).header("host", host).body(empty()).unwrap()
        };
        assert_eq!(open.ask(to("shop.test")).await.status, 200);
        let reply = open.ask(to("Partner.test")).await;
        assert_eq!((reply.status, reply.reason().as_deref()), (421, Some("misdirected")));
        assert_eq!(open.ask(to("shop.test")).await.status, 200, "the connection goes on");

        let identity = authority.client_identity(vec![], 2100);
        let config = authority.client_with(&[alpn], &identity);
        let mut partner = Client::tls(gateway.address(), "partner.test", config).await;
        assert_eq!(partner.ask(to("partner.test")).await.status, 200);
        assert_eq!(partner.ask(to("shop.test")).await.status, 421);
    }
}

#[tokio::test]
async fn a_certificate_is_swapped_and_no_connection_notices() {
    let origin = Origin::start(Answer::ok()).await;
    let certificates = Certificates::new(&["shop.test"]);
    let (authority, directory) = (&certificates.authority, certificates.directory.path());
    let texts = [&*all_to(origin.address), LISTENER];
    let gateway = certificates.gateway(&texts).await;
    let expiry = |metrics: &crate::support::Metrics| {
        let labels = [("listener", "public"), ("certificate", "default")];
        metrics.count("tracegate_certificate_expiry_timestamp_seconds", &labels)
    };
    let before = expiry(&gateway.metrics().await);
    let mut old = Client::tls(gateway.address(), "shop.test", authority.client(&["h2"])).await;
    assert_eq!(old.get("/").await.status, 200);

    let renewed = authority.client_identity(vec![SanType::DnsName("shop.test".try_into().unwrap())], 2050);
    renewed.write(directory);
    assert_eq!(gateway.reload(&texts).outcome, ReloadOutcome::Applied);
    assert_eq!(shown(&gateway, authority, None).await, Some(der(&renewed)));
    assert_eq!(old.get("/").await.status, 200, "the connection goes on");
    let after = expiry(&gateway.metrics().await);
    assert_eq!((after, before == after), (2_524_608_000, false));

    std::fs::write(directory.join("server-key.pem"), "half a k").unwrap();
    let refused = gateway.reload(&texts);
    assert_eq!(refused.outcome, ReloadOutcome::Refused);
    assert!(refused.problems[0].contains("server-key.pem holds no private key"), "{:?}", refused.problems);
    assert_eq!(shown(&gateway, authority, None).await, Some(der(&renewed)), "the old one stays");
}

#[tokio::test]
async fn a_certificate_that_expires_soon_is_warned_of_at_the_start() {
    let origin = Origin::start(Answer::ok()).await;
    let identity = Authority::new().identity_for_days(&["shop.test"], 10);
    let pair = "certificate_file = 'server.pem'\nkey_file = 'server-key.pem'\n";
    let text = format!(
        "{}[listeners.public.tls]\n{pair}\
         [listeners.calm]\naddress = '127.0.0.1:0'\n[listeners.calm.tls]\n{pair}expiry_warning = '1d'\n",
        all_to(origin.address)
    );
    let files = [("server.pem", &*identity.certificate), ("server-key.pem", &*identity.key)];
    let process = Process::start_beside(&text, &files, None).await;
    let warned = async {
        loop {
            let said = process.diagnostics();
            let warning = said.lines().find(|line| line.contains("a certificate expires soon"));
            if let Some(warning) = warning {
                return warning.to_owned();
            }
            tokio::task::yield_now().await;
        }
    };
    let warning = within("the warning", warned).await;
    assert!(warning.contains("WARN") && warning.contains("listener=public"), "{warning}");
    assert!(warning.contains("default") && warning.contains("days_left=10"), "{warning}");
    // listeners are told of in the order of their names
    let said = process.diagnostics();
    assert_eq!(said.matches("expires soon").count(), 1, "{said}");
}

#[tokio::test]
async fn an_upstream_is_trusted_by_its_authority_and_its_name() {
    let certificates = Certificates::new(&["unused.test"]);
    let stranger = Authority::new();
    let authority = &certificates.authority;
    for (identity, tls, detail) in [
        (authority.identity(&["localhost"]), "tls = { ca_file = 'ca.pem' }", None),
        (
            authority.identity(&["mes.internal"]),
            "tls = { ca_file = 'ca.pem', server_name = 'mes.internal' }",
            None,
        ),
        (authority.identity(&["mes.internal"]), "tls = { ca_file = 'ca.pem' }", Some("name_mismatch")),
        (stranger.identity(&["localhost"]), "tls = { ca_file = 'ca.pem' }", Some("untrusted")),
        (authority.identity(&["localhost"]), "", Some("untrusted")),
    ] {
        for protocol in ["http/1.1", "h2"] {
            let origin = Origin::start_tls(&identity, Answer::ok()).await;
            let collector = Collector::start().await;
            let endpoint = format!("endpoints = ['https://localhost:{}']", origin.address.port());
            let upstream = format!("[upstreams.shop]\nprotocol = '{protocol}'\n{endpoint}\n{tls}\n");
            let gateway = certificates
                .gateway(&[&upstream, &route("all", "/{*path}", "shop"), &collector.grpc()])
                .await;
            let reply = gateway.get("/").await;
            let told = told(gateway.access_log(), &collector, &reply.trace_id(), 1).await;
            let reason = detail.map(|_| "tls_failed");
            assert_eq!(
                (reply.status, reply.reason().as_deref()),
                (if detail.is_some() { 502 } else { 200 }, reason)
            );
            assert_eq!(told.attempts[0].attribute("tracegate.detail"), detail, "{protocol} {tls}");
            assert_eq!(told.attempts[0].attribute("url.full").unwrap().split(':').next(), Some("https"));
        }
    }
}

#[tokio::test]
async fn an_upstream_that_asks_for_a_certificate_is_shown_ours() {
    let certificates = Certificates::new(&["unused.test"]);
    let authority = &certificates.authority;
    authority.client_identity(vec![], 2100).write_as(certificates.directory.path(), "own");
    for protocol in ["http/1.1", "h2"] {
        let identity = authority.identity(&["localhost"]).asking(authority);
        let origin = Origin::start_tls(&identity, Answer::ok()).await;
        let endpoint = format!("endpoints = ['https://localhost:{}']", origin.address.port());
        let upstream = format!(
            "[upstreams.shop]\nprotocol = '{protocol}'\n{endpoint}\n[upstreams.shop.tls]\nca_file = 'ca.pem'\n"
        );
        let own = "certificate_file = 'own.pem'\nkey_file = 'own-key.pem'\n";
        let route = route("all", "/{*path}", "shop");
        let with = certificates.gateway(&[&format!("{upstream}{own}"), &route]).await;
        assert_eq!(with.get("/").await.status, 200, "{protocol}");
        let without = certificates.gateway(&[&upstream, &route]).await;
        assert_eq!(without.get("/").await.status, 502, "{protocol}");
    }
}

#[tokio::test]
async fn an_endpoint_that_speaks_no_tls_is_named_so() {
    let origin = Origin::start(Answer::raw("this is no TLS record, and never will be\r\n")).await;
    let upstream = format!("[upstreams.shop]\nendpoints = ['https://localhost:{}']\n", origin.address.port());
    let gateway = Gateway::start(&[&upstream, &route("all", "/{*path}", "shop")]).await;
    let reply = gateway.get("/").await;
    assert_eq!((reply.status, reply.reason().as_deref()), (502, Some("tls_failed")));
}

#[tokio::test]
async fn our_own_certificate_towards_an_upstream_tells_when_it_expires() {
    let certificates = Certificates::new(&["localhost"]);
    let (authority, directory) = (&certificates.authority, certificates.directory.path());
    let own = authority.client_identity(vec![SanType::DnsName("gateway.test".try_into().unwrap())], 2050);
    own.write_as(directory, "own");
    let origin = Origin::start_tls(&authority.identity(&["localhost"]), Answer::ok()).await;
    let text = format!(
        "[upstreams.shop]\nendpoints = ['https://localhost:{}']\n\
         tls = {{ ca_file = 'ca.pem', certificate_file = 'own.pem', key_file = 'own-key.pem' }}\n{}",
        origin.address.port(),
        route("all", "/{*rest}", "shop")
    );
    let gateway = certificates.gateway(&[&text]).await;
    let labels = [("tracegate_upstream", "shop")];
    let name = "tracegate_upstream_certificate_expiry_timestamp_seconds";
    assert_eq!(gateway.metrics().await.count(name, &labels), 2_524_608_000);
    authority
        .client_identity(vec![SanType::DnsName("gateway.test".try_into().unwrap())], 2020)
        .write_as(directory, "own");
    let listener = "[listeners.public]\naddress = '127.0.0.1:0'\n";
    std::fs::write(directory.join("routes.toml"), format!("{listener}{text}")).unwrap();
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_tracegate"));
    check.arg("check").arg("--config").arg(directory.join("routes.toml"));
    let output =
        within("the check", tokio::task::spawn_blocking(move || check.output())).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("warning: upstreams.shop.tls: our own certificate has expired"), "{said}");
}
