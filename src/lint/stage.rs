//! Where the lint takes place: the configured gateway between an upstream, receivers and clients of its own.

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use http::{Request, StatusCode};
use http_body_util::Full;
use ipnet::IpNet;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::fmt::MakeWriter;

use super::canary::Canaries;
use super::credentials::Credentials;
use super::search::Field;
use super::visit::visits;
use super::{client, origin, signals};
use crate::admin::ways;
use crate::gateway::{Gateway, Settings, StartError};
use crate::http::route::Settings as Route;
use crate::listener::proxy::Versions;
use crate::net::{collect, once};
use crate::telemetry::settings::OtlpProtocol;
use crate::upstream::{Address, Protocol};

/// The gateway on its stage.
pub(super) struct Stage {
    gateway: Gateway,
    listeners: Vec<Served>,
    credentials: Credentials,
    exports: Exports,
    records: Records,
    access_log: PathBuf,
    said: Said,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A listener with the routes that it serves.
struct Served {
    address: SocketAddr,
    tls: bool,
    proxy: Option<Versions>,
    routes: Vec<Arc<Route>>,
}

/// What was posted to the receivers, and to which path.
type Exports = Arc<Mutex<Vec<(String, Bytes)>>>;

/// What was written to Logstash's stand-in.
type Records = Arc<Mutex<Vec<u8>>>;

/// Why the lint could not be run.
#[derive(Debug)]
pub enum LintError {
    /// No loopback port, or no file for the access log.
    Io(io::Error),
    /// The gateway does not start.
    Start(StartError),
}

/// Collects what the gateway says of itself.
#[derive(Debug, Clone, Default)]
pub struct Said(Arc<Mutex<Vec<u8>>>);

impl Stage {
    /// Starts everybody. What is configured of the world outside is replaced, and so that everything is
    /// recorded, every trace is sampled.
    pub(super) async fn start(
        mut settings: Settings,
        said: &Said,
        canaries: &mut Canaries,
    ) -> Result<Self, LintError> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let upstream = origin::start(&tasks, stop.clone()).await?;
        let exports = Exports::default();
        let (receiver, _) = receive(&exports, stop.clone()).await?;
        let records = Records::default();
        let logstash = read_lines(&records, &tasks, stop.clone()).await?;
        let access_log = std::env::temp_dir().join(format!("tracegate-lint-{}.log", std::process::id()));

        for listener in &mut settings.listeners {
            listener.address = LOOPBACK.into();
            if listener.proxy_protocol.is_some() {
                // the lint is the proxy, too
                listener.trusted_proxies.push(IpNet::from(LOOPBACK.ip()));
            }
            listener.limits.connections_per_client = None;
            listener.timeouts.head = HEAD;
            if let Some(tls) = &mut listener.tls {
                *tls = tls.for_everybody().map_err(io::Error::other)?;
            }
        }
        settings.admin.address = LOOPBACK;
        settings.admin.probes = None;
        // so that its pages can be read here
        settings.admin.tls = None;
        settings.admin.ways = ways::Settings::default();
        for known in &mut settings.upstreams {
            known.endpoints =
                vec![Address { https: false, host: upstream.ip().to_string().into(), port: upstream.port() }];
            known.protocol = Protocol::Http1;
        }
        settings.redis.clear();
        for limit in &mut settings.rate_limits {
            limit.redis = None;
        }
        let credentials = Credentials::plant(&mut settings, canaries);
        let telemetry = &mut settings.telemetry;
        telemetry.sampling.ratio = 1.0;
        telemetry.sampling.max_spans_per_second = None;
        if let Some(otlp) = &mut telemetry.otlp {
            otlp.receiver.endpoint = match otlp.protocol {
                OtlpProtocol::Grpc => format!("http://{receiver}").into(),
                OtlpProtocol::Http => format!("http://{receiver}/v1/traces").into(),
            };
        }
        if let Some(zipkin) = &mut telemetry.zipkin {
            zipkin.endpoint = format!("http://{receiver}{ZIPKIN_PATH}").into();
        }
        for known in telemetry.otlp.iter_mut().map(|otlp| &mut otlp.receiver).chain(&mut telemetry.zipkin) {
            (known.tls, known.gzip, known.queue) = (None, false, QUEUE);
        }
        if let Some(known) = &mut telemetry.logstash {
            (known.host, known.port, known.tls) = (logstash.ip().to_string().into(), logstash.port(), None);
            (known.queue, known.client_errors) = (QUEUE, true);
        }
        if telemetry.access_log.enabled {
            telemetry.access_log.file = Some(access_log.clone());
        }
        settings.shutdown.drain_delay = Duration::from_millis(1);

        let described: Vec<_> = settings
            .listeners
            .iter()
            .map(|listener| {
                let serves = |route: &&Arc<Route>| {
                    route.listeners.as_ref().is_none_or(|names| names.contains(&listener.name))
                };
                let routes = settings.routes.iter().filter(serves).cloned().collect();
                (Arc::clone(&listener.name), listener.tls.is_some(), listener.proxy_protocol, routes)
            })
            .collect();
        let gateway = Gateway::start(settings, Vec::new()).await.map_err(LintError::Start)?;
        let listeners = described
            .into_iter()
            .map(|(name, tls, proxy, routes)| {
                let address = gateway.listener_address(&name).expect("it has just been started");
                Served { address, tls, proxy, routes }
            })
            .collect();
        let said = said.clone();
        Ok(Self { gateway, listeners, credentials, exports, records, access_log, said, tasks, stop })
    }

    /// Pays every visit to every listener, and tells how many there were.
    pub(super) async fn visit(&self, canaries: &mut Canaries) -> usize {
        let mut all = Vec::new();
        for served in &self.listeners {
            let visits =
                visits(served.routes.iter().map(|route| &**route), served.proxy, &self.credentials, canaries);
            all.extend(visits.into_iter().map(|visit| (served, visit)));
        }
        let count = all.len();
        // whatever the answer is: what counts is what is said of it
        stream::iter(all)
            .for_each_concurrent(AT_ONCE, |(served, visit)| async move {
                let _ = timeout(PATIENCE, client::pay(served.address, served.tls, &visit)).await;
            })
            .await;
        count
    }

    /// The pages of some exchanges that the live page has, of each route some.
    async fn traces(&self) -> Result<Vec<String>, LintError> {
        let mut pages = Vec::new();
        for kept in ["error", "refused", "slow", "sample"] {
            let list = format!("/api/traces?limit=500&kept={kept}");
            let request = Request::get(list).body(Full::default()).expect("a request");
            let answer = once::send(self.gateway.admin_address(), request, PATIENCE).await?;
            let list: serde_json::Value = serde_json::from_slice(answer.body()).unwrap_or_default();
            let traces = list["traces"].as_array().into_iter().flatten();
            let page =
                |trace: &serde_json::Value| Some(format!("/api/traces/{}", trace["trace_id"].as_str()?));
            pages.extend(traces.filter_map(page).take(TRACES_LOOKED_AT));
        }
        Ok(pages)
    }

    /// Ends everybody and takes their telemetry to pieces.
    pub(super) async fn end(self) -> Result<Vec<Field>, LintError> {
        let mut fields = Vec::new();
        let pages = ["/metrics", "/status", "/api/routes", "/api/traces?limit=500"];
        for page in pages.into_iter().map(str::to_owned).chain(self.traces().await?) {
            let request = Request::get(&page).body(Full::default()).expect("a request");
            let answer = once::send(self.gateway.admin_address(), request, PATIENCE).await?;
            let text = String::from_utf8_lossy(answer.body());
            fields.extend(match &*page {
                "/metrics" => signals::lines("metrics", &text),
                "/status" => signals::json("status", &text.replace('\n', "")),
                _ => signals::json("live page", &text),
            });
        }
        self.gateway.shutdown().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        for (path, message) in self.exports.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            fields.extend(match &**path {
                ZIPKIN_PATH => signals::json("zipkin", &String::from_utf8_lossy(message)),
                path if path.to_ascii_lowercase().contains("metrics") => {
                    signals::otlp("pushed metrics", message)
                }
                _ => signals::otlp("spans", message),
            });
        }
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        fields.extend(signals::json("error records", &String::from_utf8_lossy(&records)));
        drop(records);
        if let Ok(log) = std::fs::read_to_string(&self.access_log) {
            std::fs::remove_file(&self.access_log)?;
            fields.extend(signals::json("access log", &log));
        }
        fields.extend(signals::lines("diagnostics", &self.said.text()));
        Ok(fields)
    }
}

async fn receive(
    exports: &Exports,
    stop: CancellationToken,
) -> io::Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let exports = Arc::clone(exports);
    let take = move |path, message| {
        exports.lock().unwrap_or_else(PoisonError::into_inner).push((path, message));
        std::future::ready(StatusCode::OK)
    };
    collect::start(take, stop).await
}

/// Reads lines in Logstash's place, until told to stop.
async fn read_lines(
    records: &Records,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(LOOPBACK).await?;
    let address = listener.local_addr()?;
    let records = Arc::clone(records);
    tasks.spawn(async move {
        while let Some(Ok((mut stream, _))) = stop.run_until_cancelled(listener.accept()).await {
            let mut read = Vec::new();
            let _ = stop.run_until_cancelled(stream.read_to_end(&mut read)).await;
            records.lock().unwrap_or_else(PoisonError::into_inner).extend(read);
        }
    });
    Ok(address)
}

impl Said {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for &Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Said {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl From<io::Error> for LintError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for LintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Start(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LintError {}

/// A free port of this machine alone.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const ZIPKIN_PATH: &str = "/api/v2/spans";
/// Room for every span of the lint.
const QUEUE: usize = 1 << 16;
/// Visits under way at once.
const AT_ONCE: usize = 8;
/// How long half a head is waited for.
const HEAD: Duration = Duration::from_secs(1);
/// How long one visit may take.
const PATIENCE: Duration = Duration::from_secs(12);
/// Exchanges of each kind whose whole page is looked at.
const TRACES_LOOKED_AT: usize = 100;
