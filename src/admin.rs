//! The admin address: health, metrics and status, apart from the traffic.

mod api;
pub mod audit;
mod control;
pub mod door;
pub mod file;
mod guard;
mod health;
mod metrics;
mod origin;
mod page;
pub mod role;
pub mod session;
mod site;
mod status;
mod trouble;
pub mod ways;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::api::live;
use self::audit::Audit;
pub use self::control::{Control, LogLevel, Reloaded, RouteFacts};
use self::door::Door;
use self::role::Right;
use self::site::Site;
use self::ways::Ways;
use crate::net::serve::{Bounds, serve_each};
use crate::view::View;

/// The admin listener as used: what `[admin]` and `[probes]` mean once they have been checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where `/metrics`, `/status`, `/healthz` and `/readyz` are served. Loopback only while there are no tokens.
    pub address: SocketAddr,
    /// Where `/healthz` and `/readyz` are served alone, for container probes.
    pub probes: Option<SocketAddr>,
    /// TLS on the admin address.
    pub tls: Option<Arc<ServerConfig>>,
    /// Who may do what. While there is no way in the address is a loopback one, and read-only.
    pub ways: ways::Settings,
    /// Where it is written who did what.
    pub audit: audit::Settings,
    /// The bounds of the page's sessions.
    pub sessions: session::Settings,
    /// Where traces are looked at as a whole: Jaeger's own page, without a slash at its end.
    pub jaeger_url: Option<Box<str>>,
}

/// The admin address, open.
#[derive(Debug)]
pub struct Admin {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where the probes are answered alone.
    pub probes_address: Option<SocketAddr>,
    /// Ends after the token given to [`start`] is cancelled and the last connection is gone.
    pub task: JoinHandle<()>,
}

/// Every endpoint: its method, its path, and the right that opens it. What stands in braces is whatever the path ends
/// with.
pub fn endpoints() -> impl Iterator<Item = (&'static str, &'static str, Right)> {
    site::PAGES.iter().map(|page| (page.method.word(), page.name, page.right))
}

/// Binds the admin address, and the probes' if there is one, and serves them until told to
/// shut down. Who may do what is asked of the ways in that are in force.
///
/// The error says which address could not be bound and why.
pub async fn start(
    settings: &Settings,
    control: Arc<dyn Control>,
    ways: View<Ways>,
    shutdown: CancellationToken,
) -> io::Result<Admin> {
    let admin = bind(settings.address, "admin").await?;
    let probes = match settings.probes {
        Some(address) => Some(bind(address, "probes").await?),
        None => None,
    };
    let address = admin.local_addr()?;
    let probes_address = probes.as_ref().map(TcpListener::local_addr).transpose()?;
    let audit = Audit::open(&settings.audit)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot write {error} (admin.audit.file)")))?;
    let door = Door::new(ways);
    let own = site::Settings {
        bound: address.ip(),
        sessions: settings.sessions,
        tls: settings.tls.is_some(),
        jaeger: settings.jaeger_url.clone(),
    };
    let site = Site::new(Arc::clone(&control), own, door, Arc::clone(&audit), shutdown.clone());
    let (tls, stop) = (settings.tls.clone(), shutdown.clone());
    let serve_admin = serve_each(admin, tls, move |client| Arc::clone(&site).service(client), BOUNDS, stop);
    let serve_probes = async move {
        if let Some(listener) = probes {
            let site = Site::probes(control, audit);
            serve_each(listener, None, move |client| Arc::clone(&site).service(client), BOUNDS, shutdown)
                .await;
        }
    };
    let task = tokio::spawn(async move {
        tokio::join!(serve_admin, serve_probes);
    });
    Ok(Admin { address, probes_address, task })
}

async fn bind(address: SocketAddr, key: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address} ({key}.address): {error}"))
    })
}

/// What the clients of each of the two addresses may take up.
const BOUNDS: Bounds = Bounds {
    connections: 64,
    head: Duration::from_secs(10),
    age: Duration::from_mins(1),
    grace: Duration::from_secs(5),
    exchange: live::AGE,
    http2: false,
};

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::future::BoxFuture;
    use http::{Request, Response, header};
    use http_body_util::Full;
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::{
        Admin, Control, LogLevel, Reloaded, RouteFacts, Settings, Ways, audit, session, start, ways,
    };
    use crate::net::once::send;
    use crate::net::{DnsSettings, Resolver};
    use crate::telemetry::hour::Hour;
    use crate::telemetry::metrics::{Format, Metrics};
    use crate::telemetry::recent::Recent;
    use crate::telemetry::settings;
    use crate::view::View;

    struct Fake {
        ready: AtomicBool,
        recent: Arc<Recent>,
        hour: Arc<Hour>,
    }

    impl Fake {
        fn new() -> Arc<Self> {
            let metrics = Metrics::new(&settings::Metrics::default());
            let bounds = settings::Recent::default();
            let recent = Recent::start(&bounds, settings::Privacy::default(), metrics.recent()).unwrap();
            let hour = Arc::new(Hour::new(&settings::Metrics::default(), bounds.routes));
            Arc::new(Self { ready: AtomicBool::new(true), recent: Arc::new(recent), hour })
        }
    }

    impl Control for Fake {
        fn set_in_use(&self, _: &str, _: &str, _: bool) -> bool {
            false
        }

        fn ready(&self) -> bool {
            self.ready.load(Ordering::Relaxed)
        }

        fn metrics(&self, format: Format) -> String {
            match format {
                Format::Text => "tracegate_up 1\n".repeat(1000),
                Format::OpenMetrics => "# EOF\n".to_owned(),
            }
        }

        fn set_maintenance(&self, _: &str, _: Option<bool>) -> bool {
            false
        }

        fn status(&self) -> Value {
            json!({ "routes": ["order_read"] })
        }

        fn reload(&self) -> BoxFuture<'static, Reloaded> {
            Box::pin(async { Reloaded { accepted: false, report: Value::Null } })
        }

        fn set_log_level(&self, _: Option<LogLevel>) -> bool {
            false
        }

        fn set_sampling(&self, _: Option<f64>) {}

        fn recent(&self) -> Arc<Recent> {
            Arc::clone(&self.recent)
        }

        fn hour(&self) -> Arc<Hour> {
            Arc::clone(&self.hour)
        }

        fn routes(&self) -> Vec<RouteFacts> {
            Vec::new()
        }

        fn upstreams(&self) -> Value {
            json!([])
        }

        fn certificates(&self) -> Value {
            json!([])
        }

        fn reloads(&self) -> Value {
            Value::Null
        }

        fn telemetry(&self) -> Value {
            Value::Null
        }
    }

    fn own_settings(address: SocketAddr) -> Settings {
        let audit = audit::Settings { file: None, max_bytes: 1, keep: 0 };
        Settings {
            address,
            probes: None,
            tls: None,
            ways: ways::Settings::default(),
            audit,
            sessions: session::Settings::default(),
            jaeger_url: None,
        }
    }

    /// Nobody is asked.
    fn open() -> View<Ways> {
        let soon = Duration::from_secs(1);
        let dns = DnsSettings { servers: Vec::new(), min_ttl: soon, max_ttl: soon };
        let metrics = Metrics::new(&settings::Metrics::default());
        View::new(Arc::new(Ways::new(&ways::Settings::default(), &Resolver::new(&dns), &metrics, None)))
    }

    struct Running {
        admin: Admin,
        control: Arc<Fake>,
        shutdown: CancellationToken,
    }

    async fn running() -> Running {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let control = Fake::new();
        let shutdown = CancellationToken::new();
        let settings = Settings { probes: Some(free), ..own_settings(free) };
        let admin =
            start(&settings, Arc::clone(&control) as Arc<dyn Control>, open(), shutdown.clone()).await;
        Running { admin: admin.expect("loopback has free ports"), control, shutdown }
    }

    async fn ask(address: SocketAddr, request: http::request::Builder) -> Response<Bytes> {
        let request = request.body(Full::default()).unwrap();
        send(address, request, Duration::from_secs(5)).await.unwrap()
    }

    #[tokio::test]
    async fn every_page_answers_as_it_should() {
        let running = running().await;
        let (admin, probes) = (running.admin.address, running.admin.probes_address.unwrap());
        for (address, method, path, status, body) in [
            (admin, "GET", "/healthz", 200, "ok"),
            (admin, "GET", "/readyz", 200, "ok"),
            (admin, "HEAD", "/readyz", 200, ""),
            (admin, "GET", "/metrics", 200, "tracegate_up 1"),
            (admin, "GET", "/status", 200, "\"order_read\""),
            (admin, "GET", "/", 200, "<main id=\"main\""),
            (admin, "GET", "/page/main.js", 200, ""),
            (admin, "GET", "/page/none.js", 404, "not found"),
            (admin, "GET", "/api/traces", 200, "\"traces\""),
            (admin, "GET", "/api/traces?limit=x", 400, "limit=1"),
            (admin, "GET", "/api/routes/none", 404, "problem"),
            (admin, "POST", "/metrics", 405, "GET, HEAD"),
            (admin, "GET", "/nothing", 404, "not found"),
            (admin, "POST", "/nothing", 404, "not found"),
            (probes, "GET", "/healthz", 200, "ok"),
            (probes, "GET", "/readyz", 200, "ok"),
            (probes, "GET", "/metrics", 404, "not found"),
            (probes, "GET", "/", 404, "not found"),
        ] {
            let answer = ask(address, Request::builder().method(method).uri(path)).await;
            assert_eq!(answer.status(), status, "{method} {path}");
            let text = String::from_utf8_lossy(answer.body());
            assert!(text.contains(body), "{method} {path}: {text}");
            assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store", "{method} {path}");
            assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{method} {path}");
            assert!(answer.headers().contains_key(header::CONTENT_SECURITY_POLICY), "{method} {path}");
            assert_eq!(answer.headers().contains_key(header::ALLOW), status == 405, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn readiness_turns_503_while_draining_and_health_stays() {
        let running = running().await;
        running.control.ready.store(false, Ordering::Relaxed);
        for address in [running.admin.address, running.admin.probes_address.unwrap()] {
            assert_eq!(ask(address, Request::get("/readyz")).await.status(), 503);
            assert_eq!(ask(address, Request::get("/healthz")).await.status(), 200);
        }
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text_and_compressed_when_asked() {
        let running = running().await;
        let plain = ask(running.admin.address, Request::get("/metrics")).await;
        assert_eq!(plain.headers()[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
        assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));

        let small =
            ask(running.admin.address, Request::get("/metrics").header("accept-encoding", "gzip")).await;
        assert_eq!(small.headers()[header::CONTENT_ENCODING], "gzip");
        assert!(small.body().len() < plain.body().len() / 10);

        let asked = Request::get("/metrics").header("accept", "application/openmetrics-text; version=1.0.0");
        let open = ask(running.admin.address, asked).await;
        let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!(
            (open.headers()[header::CONTENT_TYPE].to_str().unwrap(), &open.body()[..]),
            (content_type, &b"# EOF\n"[..])
        );
    }

    #[tokio::test]
    async fn status_says_version_uptime_and_what_the_gateway_knows() {
        let running = running().await;
        let answer = ask(running.admin.address, Request::get("/status")).await;
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
        let status: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(status["ready"], true);
        assert!(status["uptime_seconds"].is_number());
        assert_eq!(status["routes"], json!(["order_read"]));
    }

    #[tokio::test]
    async fn a_page_in_a_browser_cannot_reach_it_by_another_name() {
        let running = running().await;
        let address = running.admin.address;
        for (request, status) in [
            (Request::get("/status").header("host", "evil.example"), 403),
            (Request::get("/status").header("host", "127.0.0.1.evil.example:9901"), 403),
            (Request::get("/status").header("host", "localhost:9901"), 200),
            (Request::get("/status").header("origin", "https://evil.example"), 403),
            (Request::get("/status").header("origin", format!("http://{address}")), 200),
            (Request::get("/readyz").header("host", "evil.example"), 403),
        ] {
            let shown = format!("{:?}", request.headers_ref());
            assert_eq!(ask(address, request).await.status(), status, "{shown}");
        }
        let probes = running.admin.probes_address.unwrap();
        assert_eq!(ask(probes, Request::get("/readyz").header("host", "10.1.2.3:9902")).await.status(), 200);
    }

    #[tokio::test]
    async fn it_ends_when_told() {
        let Running { admin, shutdown, .. } = running().await;
        shutdown.cancel();
        admin.task.await.unwrap();
        let refused = send(admin.address, Request::default(), Duration::from_secs(5)).await;
        assert!(refused.is_err());
    }

    #[tokio::test]
    async fn an_address_in_use_is_named_with_its_key() {
        let running = running().await;
        let settings = own_settings(running.admin.address);
        let control = Arc::clone(&running.control) as Arc<dyn Control>;
        let error =
            start(&settings, control, open(), CancellationToken::new()).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot listen on {} (admin.address): ", settings.address)),
            "{error}"
        );
        assert_eq!(settings.address.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
}
