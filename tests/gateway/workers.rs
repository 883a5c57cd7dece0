//! The threads that serve: a connection stays with one, and what one of them keeps is there for the others.

use http::Method;

use crate::support::client::request;
use crate::support::gateway::{all_to, route};
use crate::support::{Answer, Authority, Client, Gateway, Link, Metrics, Origin, TcpLink, body};

const THREE: &str = "workers = 3\n";

/// Waits until the workers have so many connections.
async fn stand(gateway: &Gateway, wanted: [u64; 3]) {
    let of = |metrics: &Metrics, worker| metrics.count("tracegate_worker_connections", &[("worker", worker)]);
    let told = |metrics: &Metrics| ["0", "1", "2"].map(|worker| of(metrics, worker)) == wanted;
    gateway.metrics_when(&format!("{wanted:?} connections"), told).await;
}

/// Connections that have each been served one request, in this order.
async fn served(gateway: &Gateway, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = gateway.client().await;
        assert_eq!(client.get("/").await.status, 200);
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn a_connection_goes_to_the_worker_that_has_the_fewest_and_the_page_tells_how_many_each_has() {
    let origin = Origin::start(Answer::ok()).await;
    let gateway = Gateway::start(&[THREE, &all_to(origin.address)]).await;
    let mut clients = served(&gateway, 7).await;
    stand(&gateway, [3, 2, 2]).await;
    // both of the second worker
    drop((clients.remove(4), clients.remove(1)));
    stand(&gateway, [3, 0, 2]).await;
    let _one_more = served(&gateway, 1).await;
    stand(&gateway, [3, 1, 2]).await;
}

#[tokio::test]
async fn a_connection_to_an_upstream_is_kept_for_every_worker() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
    let secure = Origin::start_tls(&authority.identity(&["localhost"]), Answer::ok()).await;
    let plain = Origin::start(Answer::ok()).await;
    let tls = "tls = { ca_file = 'ca.pem' }";
    for (origin, scheme, tls) in [(&plain, "http", ""), (&secure, "https", tls)] {
        for protocol in ["http/1.1", "h2"] {
            let before = origin.connections().accepted;
            let endpoint = format!("endpoints = ['{scheme}://localhost:{}']", origin.address.port());
            let upstream = format!("[upstreams.shop]\nprotocol = '{protocol}'\n{endpoint}\n{tls}\n");
            let route = route("all", "/{*path}", "shop");
            let gateway = Gateway::start_in(directory.path(), &[THREE, &upstream, &route]).await;
            let mut clients = served(&gateway, 3).await;
            // whoever is left goes on, wherever the connection was before
            for left in [3, 2, 1] {
                clients.truncate(left);
                for _ in 0..20 {
                    for client in &mut clients {
                        assert_eq!(client.get("/").await.status, 200, "{scheme} {protocol}");
                    }
                }
            }
            // in HTTP/2 each has its own, which many requests may share
            let expected = if protocol == "h2" { 3 } else { 1 };
            assert_eq!(origin.connections().accepted - before, expected, "{scheme} {protocol}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_another_worker_kept_and_its_endpoint_has_closed_fails_no_request() {
    let origin = Origin::start(Answer::ok()).await;
    let link = TcpLink::to(origin.address);
    let gateway = Gateway::start(&["workers = 2\n", &all_to(link.address)]).await;
    let mut clients = served(&gateway, 2).await;
    for round in 0..20 {
        let (one, other) = (round % 2, (round + 1) % 2);
        assert_eq!(clients[one].get("/").await.status, 200);
        link.set(Link::Cut);
        origin.open_connections(0).await;
        link.set(Link::Pass);
        let post = request(Method::POST, "/", &[], body::full("x"));
        let reply = clients[other].ask(post).await;
        assert_eq!((reply.status, reply.reason()), (200, None), "round {round}");
    }
}
