//! The lint of telemetry: the configured gateway is sent secrets in every place of every route, and whatever it
//! says of the traffic is searched for them.
//!
//! It runs on loopback ports of its own, with an upstream and receivers of its own, so that nothing configured is
//! touched; routes, policies, sampling and privacy are as configured.

pub mod canary;
mod client;
pub mod command;
mod credentials;
mod mood;
mod origin;
pub mod search;
mod signals;
mod stage;
mod visit;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use self::canary::Canaries;
use self::search::{Field, Leak, Search};
use self::stage::Stage;
pub use self::stage::{LintError, Said};
use crate::gateway::Settings;

/// What the lint found.
#[derive(Debug)]
pub struct Report {
    /// Requests that were sent.
    pub requests: usize,
    /// Secrets that were in them and in their answers.
    pub canaries: usize,
    /// How many texts of each signal were looked at.
    pub looked_at: BTreeMap<&'static str, usize>,
    /// What came out.
    pub leaks: BTreeSet<Leak>,
}

/// Runs the gateway with these settings and looks at its telemetry; `said` is where its diagnostics go.
pub async fn run(settings: Settings, said: &Said) -> Result<Report, LintError> {
    let mut canaries = Canaries::default();
    let stage = Stage::start(settings, said, &mut canaries).await?;
    let requests = stage.visit(&mut canaries).await;
    let fields = stage.end().await?;
    Ok(report(requests, &canaries, &fields))
}

fn report(requests: usize, canaries: &Canaries, fields: &[Field]) -> Report {
    let mut looked_at = BTreeMap::new();
    for field in fields {
        *looked_at.entry(field.signal).or_default() += 1;
    }
    let leaks = Search::new(canaries).leaks(fields);
    Report { requests, canaries: canaries.iter().count(), looked_at, leaks }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for leak in &self.leaks {
            writeln!(f, "{leak}")?;
        }
        let looked_at: Vec<_> =
            self.looked_at.iter().map(|(signal, texts)| format!("{texts} of {signal}")).collect();
        write!(
            f,
            "{} requests with {} secrets; looked at {} texts: {}",
            self.requests,
            self.canaries,
            self.looked_at.values().sum::<usize>(),
            looked_at.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::canary::Canaries;
    use super::search::{Field, Search};
    use super::stage::{Said, Stage};
    use crate::gateway::file::{Sources, load};

    /// What the shipped routes have not: rules that let in, proxies that speak for others, what shapes bodies.
    const MORE: &str = r#"
        [listeners.balanced]
        address = "127.0.0.1:0"
        proxy_protocol = "any"
        trusted_proxies = ["192.0.2.0/24"]
        tls = { certificate_file = "certs/gateway.pem", key_file = "certs/gateway-key.pem" }
        [auth.lint_keys.api_keys.keys]
        acme = { sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
        [auth.lint_tokens]
        identity_headers = { "x-user" = "sub", "x-realm" = "/realm/name" }
        [auth.lint_tokens.jwt]
        issuer = "https://issuer.test"
        audience = ["orders", "prices"]
        jwks_url = "https://issuer.test/keys"
        claims = { "/realm/roles" = { contains = "buyer" }, tenant = { is = "acme" } }
        [routes.lint_keys]
        match = { path = "/lint/keys/{id}" }
        upstream = "shop"
        auth = "lint_keys"
        compression = { min_size = "1B" }
        [routes.lint_keys.sticky]
        cookie = "lint_sticky"
        [routes.lint_tokens]
        match = { path = "/lint/tokens/{id}" }
        upstream = "shop"
        auth = ["lint_tokens", "lint_keys"]
        attributes = { "lint.id" = { response_json = "/id" } }
    "#;

    /// What the gateway with the shipped routes and more says of every visit.
    async fn looked_at(canaries: &mut Canaries) -> Vec<Field> {
        let sources = Sources {
            files: vec![
                ("routes.toml".to_owned(), include_str!("../routes.toml").to_owned()),
                ("more.toml".to_owned(), MORE.to_owned()),
            ],
            environment: [
                ("TRACEGATE_TELEMETRY__ZIPKIN__QUEUE".to_owned(), "512".to_owned()),
                ("TRACEGATE_TELEMETRY__LOGSTASH__ADDRESS".to_owned(), "tcp://127.0.0.1:1".to_owned()),
                ("TRACEGATE_TELEMETRY__OTLP__METRICS".to_owned(), "1h".to_owned()),
            ]
            .into(),
            directory: PathBuf::from(env!("CARGO_MANIFEST_DIR")),
        };
        let settings = load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
        let stage = Stage::start(settings, &Said::default(), canaries).await.expect("there are free ports");
        stage.visit(canaries).await;
        stage.end().await.expect("there is a directory for what is temporary")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_secret_comes_out_and_one_planted_in_any_field_of_any_signal_is_found() {
        let mut canaries = Canaries::default();
        let fields = looked_at(&mut canaries).await;
        let planted = canaries.send("planted", "a leak");
        let search = Search::new(&canaries);
        let leaks = search.leaks(&fields);
        assert!(leaks.is_empty(), "{leaks:#?}");

        let signals: BTreeSet<&str> = fields.iter().map(|field| field.signal).collect();
        let expected = [
            "access log",
            "error records",
            "live page",
            "metrics",
            "pushed metrics",
            "spans",
            "status",
            "zipkin",
        ];
        assert_eq!(signals, expected.into());
        let mut seen = BTreeSet::new();
        for field in &fields {
            if !seen.insert((field.signal, &field.name)) {
                continue;
            }
            let spoilt = Field { text: format!("{}{planted}", field.text), ..field.clone() };
            let found = search.leaks([&spoilt]);
            assert!(found.iter().any(|leak| leak.signal == field.signal), "{spoilt:?}");
        }
        assert!(seen.len() > 100, "{} fields", seen.len());

        // the visits got where they were meant to go
        let parts = canaries.iter().map(|(_, place)| place.part).collect::<BTreeSet<_>>();
        for part in [
            "frame",
            "answer's frame",
            ":authority",
            "trailer",
            "claim of a token that is taken",
            "API key",
            "gRPC message",
            "gRPC answer",
            "grpc-message",
            "authority of the proxy",
            "answer's compressed body",
            "sticky cookie",
        ] {
            assert!(parts.contains(part), "{part}");
        }
        let told = |name: &str, text: &str| {
            fields
                .iter()
                .any(|field| field.signal == "access log" && field.name == name && field.text == text)
        };
        for (name, text) in [
            ("protocol", "2"),
            ("scheme", "https"),
            ("listener", "balanced"),
            ("grpc_status", "14"),
            ("close_code", "1011"),
            ("reason", "unauthenticated"),
        ] {
            assert!(told(name, text), "{name} is never {text}");
        }
        for route in ["lint_keys", "lint_tokens"] {
            let let_in =
                format!("tracegate_requests_total{{tracegate_route=\"{route}\",status_class=\"2xx\"");
            assert!(fields.iter().any(|field| field.text.starts_with(&let_in)), "{route}");
        }
    }
}
