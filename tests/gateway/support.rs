//! What the sentences are told with: a gateway and everything around it, in process, on free ports.

pub mod balance;
pub mod body;
pub mod certificates;
pub mod client;
pub mod collector;
pub mod dns;
pub mod events;
pub mod gateway;
pub mod link;
pub mod load;
pub mod logstash;
pub mod metrics;
pub mod origin;
pub mod process;
pub mod redis;
pub mod stage;
pub mod tokens;
pub mod wire;

use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

pub use balance::Balance;
pub use certificates::Authority;
pub use client::{Client, Raw, Reply};
pub use collector::{Collector, Mode, Protocol};
pub use dns::Dns;
pub use events::Events;
pub use gateway::{Gateway, Log};
pub use link::{Link, TcpLink};
pub use logstash::Logstash;
pub use metrics::Metrics;
pub use origin::{Answer, Gate, Origin, Seen};
pub use redis::Redis;
pub use stage::{Stage, Told};

/// How long anything may take before the sentence has failed. Nothing waits that long when all is well.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// What the future comes to, or a failure that says what was waited for.
#[track_caller]
pub fn within<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let ended = tokio::time::timeout(DEADLINE, future).await;
        ended.unwrap_or_else(|_| panic!("waited {DEADLINE:?} for {what}, at {place}"))
    }
}

/// A loopback address that nobody else has: for what must be known before it listens, and for what others may
/// still ask after it has gone.
pub fn own_ip() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = std::process::id().to_be_bytes();
    IpAddr::from([127, 64 | (high & 63), low, number])
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::client::{get, request};
    use super::link::{Blackhole, Refusing};
    use super::*;

    #[tokio::test]
    async fn an_origin_says_what_it_was_asked_and_answers_as_told() {
        let answer = Answer::status(201).header("x-a", "1").data("one").data("two").trailer("x-end", "2");
        let origin = Origin::start(answer).await;
        let link = TcpLink::to(origin.address);
        for client in [Client::http1(link.address).await, Client::http2(link.address).await] {
            let mut client = client;
            let reply =
                client.ask(request(Method::POST, "/a?b", &[("te", "trailers")], body::full("body"))).await;
            assert_eq!((reply.status, reply.header("x-a"), &*reply.body), (201, Some("1"), &b"onetwo"[..]));
            assert_eq!(reply.trailers.get("x-end"), Some("2"));
        }
        let seen = origin
            .seen_when("two requests", |seen| seen.iter().filter(|seen| seen.complete).count() == 2)
            .await;
        for seen in seen {
            assert_eq!(
                (seen.method.as_str(), seen.target.as_str(), &*seen.body),
                ("POST", "/a?b", &b"body"[..])
            );
            assert_eq!(seen.header("host"), Some("shop.test"));
        }
    }

    #[tokio::test]
    async fn an_origin_breaks_in_every_way() {
        let origin = Origin::start(Answer::reset()).await;
        for broken in [Answer::reset(), Answer::close(), Answer::raw("garbage\r\n\r\n")] {
            origin.answer(broken);
            assert!(Client::http1(origin.address).await.send(get("/")).await.is_err());
        }
        origin.answer(Answer::ok().announced(100).then_close());
        assert!(Client::http1(origin.address).await.get("/").await.broken);
        origin.answer(Answer::ok().then_reset());
        assert!(Client::http2(origin.address).await.get("/").await.broken);
        let gate = Gate::new();
        origin.answer(Answer::status(200).data("a").gate(&gate).data("b"));
        let mut client = Client::http1(origin.address).await;
        let response = client.send(get("/")).await.unwrap();
        gate.open();
        assert_eq!(Reply::read(response).await.text(), "ab");
    }

    #[tokio::test]
    async fn an_origin_notices_that_the_client_left() {
        let origin = Origin::start(Answer::stall()).await;
        let raw = Raw::sending(origin.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        origin.seen_when("a request", |seen| seen.len() == 1).await;
        raw.reset();
        origin.seen_when("the client left", |seen| seen[0].left).await;
        origin.open_connections(0).await;
    }

    #[tokio::test]
    async fn a_link_passes_stalls_cuts_and_refuses() {
        let origin = Origin::start(Answer::ok()).await;
        let mut link = TcpLink::to(origin.address);
        let mut client = Client::http1(link.address).await;
        assert_eq!(client.get("/").await.status, 200);
        link.set(Link::Stall);
        let stalled = client.send(get("/"));
        link.set(Link::Pass);
        assert!(stalled.await.is_ok());
        link.refuse().await;
        client.closed().await;
        assert!(tokio::net::TcpStream::connect(link.address).await.is_err());
        link.listen_again();
        assert_eq!(Client::http1(link.address).await.get("/").await.status, 200);
        assert!(tokio::net::TcpStream::connect(Refusing::start().address).await.is_err());
        let hole = Blackhole::start().await;
        let connect = tokio::net::TcpStream::connect(hole.address);
        assert!(tokio::time::timeout(Duration::from_millis(50), connect).await.is_err());
    }

    #[tokio::test]
    async fn tls_chooses_the_protocol_by_alpn() {
        let authority = Authority::new();
        let origin = Origin::start_tls(&authority.identity(&["shop.test"]), Answer::ok()).await;
        for (alpn, http2) in [(&["h2", "http/1.1"][..], true), (&["http/1.1"], false), (&[], false)] {
            let mut client = Client::tls(origin.address, "shop.test", authority.client(alpn)).await;
            assert_eq!((client.is_http2(), client.get("/").await.status), (http2, 200));
        }
    }

    #[test]
    fn metrics_are_read() {
        let page = "# TYPE a counter\na{b=\"1\",c=\"x\\\"}\"} 2\na{b=\"2\"} 3\nd 4.5\n";
        let metrics = Metrics::parse(page.to_owned());
        assert_eq!(metrics.count("a", &[]), 5);
        assert_eq!(metrics.count("a", &[("c", "x\\\"}")]), 2);
        assert_eq!(metrics.series().len(), 3);
        assert_eq!(metrics.label_values("a", "b").len(), 2);
    }
}
