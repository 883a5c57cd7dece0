//! The usual stage: an origin, a collector and a gateway between them, and what was told of one exchange.

use serde_json::Value;
use tracegate::gateway::reload::Report;

use super::client::{Client, Reply};
use super::collector::{Collector, Kind, Span};
use super::gateway::{Gateway, Log, all_to};
use super::logstash::Logstash;
use super::origin::{Origin, Script};

/// An origin behind a gateway that tells a collector, and of failures a Logstash.
pub struct Stage {
    /// The upstream's only endpoint.
    pub origin: Origin,
    /// Where spans go, by gRPC.
    pub collector: Collector,
    /// Where error records go.
    pub logstash: Logstash,
    /// The gateway.
    pub gateway: Gateway,
    receivers: String,
}

/// What was told of one exchange.
pub struct Told {
    /// The SERVER span.
    pub server: Span,
    /// The CLIENT spans, in the order of their start.
    pub attempts: Vec<Span>,
    /// The line of the access log.
    pub log: Value,
}

impl Stage {
    /// One route `all` for every path.
    pub async fn new(script: impl Script) -> Self {
        Self::and(script, "").await
    }

    /// One route `all` for every path, and this text merged over it.
    pub async fn and(script: impl Script, text: &str) -> Self {
        let origin = Origin::start(script).await;
        let base = all_to(origin.address);
        Self::around(origin, &[&base, text]).await
    }

    /// Texts of the test's own before this origin.
    pub async fn around(origin: Origin, texts: &[&str]) -> Self {
        let collector = Collector::start().await;
        let logstash = Logstash::start();
        let receivers = collector.grpc() + &logstash.settings();
        let gateway = Gateway::start(&[texts, &[&receivers]].concat()).await;
        Self { origin, collector, logstash, gateway, receivers }
    }

    /// Puts these texts in force in place of the others.
    pub fn reload(&self, texts: &[&str]) -> Report {
        self.gateway.reload(&[texts, &[&self.receivers]].concat())
    }

    /// A new HTTP/1.1 connection.
    pub async fn client(&self) -> Client {
        self.gateway.client().await
    }

    /// `GET` over a connection of its own.
    pub async fn get(&self, path: &str) -> Reply {
        self.gateway.get(path).await
    }

    /// What was told of this trace, which has one SERVER span and so many attempts.
    pub async fn told(&self, trace_id: &str, attempts: usize) -> Told {
        told(self.gateway.access_log(), &self.collector, trace_id, attempts).await
    }

    /// What was told of the first exchange that is logged: for those whose answer nobody saw.
    pub async fn told_first(&self, attempts: usize) -> Told {
        let log = self.gateway.log(1).await.remove(0);
        self.told(log["trace_id"].as_str().unwrap(), attempts).await
    }
}

/// What was told of this trace, which has one SERVER span and so many attempts.
pub async fn told(log: &Log, collector: &Collector, trace_id: &str, attempts: usize) -> Told {
    let log = log.of(trace_id).await;
    let mut spans = collector.trace(trace_id, 1 + attempts).await;
    // a stream has one more, of its opening, which came first
    if spans.iter().any(|span| span.kind == Kind::Other) {
        spans = collector.trace(trace_id, 2 + attempts).await;
        spans.retain(|span| span.kind != Kind::Other);
    }
    assert_eq!(spans.len(), 1 + attempts, "{spans:#?}");
    let server = spans.iter().position(|span| span.kind == Kind::Server).expect("a SERVER span");
    let server = spans.remove(server);
    for attempt in &spans {
        assert_eq!((attempt.kind, &attempt.parent), (Kind::Client, &server.id), "{attempt:?}");
    }
    Told { server, attempts: spans, log }
}
