//! TLS on both sides: protocols by ALPN, trust, names.

use crate::support::client::get;
use crate::support::gateway::{all_to, route};
use crate::support::stage::told;
use crate::support::{Answer, Authority, Client, Collector, Gateway, Origin};

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
async fn plain_text_on_a_tls_listener_ends_there() {
    let origin = Origin::start(Answer::ok()).await;
    let certificates = Certificates::new(&["shop.test"]);
    let gateway = certificates.gateway(&[&all_to(origin.address), LISTENER]).await;
    assert!(Client::http1(gateway.address()).await.send(get("/")).await.is_err());
    let config = certificates.authority.client(&[]);
    assert_eq!(Client::tls(gateway.address(), "shop.test", config).await.get("/").await.status, 200);
    assert!(origin.seen().len() == 1);
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
async fn an_endpoint_that_speaks_no_tls_is_named_so() {
    let origin = Origin::start(Answer::raw("this is no TLS record, and never will be\r\n")).await;
    let upstream = format!("[upstreams.shop]\nendpoints = ['https://localhost:{}']\n", origin.address.port());
    let gateway = Gateway::start(&[&upstream, &route("all", "/{*path}", "shop")]).await;
    let reply = gateway.get("/").await;
    assert_eq!((reply.status, reply.reason().as_deref()), (502, Some("tls_failed")));
}
