//! A gateway from a text, on free ports, with its access log at hand.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Request;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracegate::gateway::file::{Sources, load, load_after};
use tracegate::gateway::reload::Report;
use tracegate::telemetry::Sink;

use super::balance::Balance;
use super::body::Body;
use super::client::{Client, Reply, get_admin, get_admin_with};
use super::metrics::Metrics;
use super::within;

/// A gateway in process.
pub struct Gateway {
    inner: tracegate::gateway::Gateway,
    log: Log,
    base: String,
    directory: PathBuf,
}

/// The access log of a gateway, line by line as it is written.
pub struct Log {
    lines: watch::Receiver<Vec<Value>>,
    reader: JoinHandle<()>,
    _writer: pipe::Sender,
}

/// What every test's gateway begins with; the test's own text is merged over it.
const BASE: &str = "
[listeners.public]
address = '127.0.0.1:0'

[admin]
address = '127.0.0.1:0'

[shutdown]
drain_delay = '1ms'

[telemetry]
otlp = 'off'
";

impl Gateway {
    /// A gateway of these texts, each merged over the one before.
    pub async fn start(texts: &[&str]) -> Self {
        Self::build(texts, Path::new(""), Vec::new()).await.expect("the gateway starts")
    }

    /// A gateway of these texts; file names in them are relative to this directory.
    pub async fn start_in(directory: &Path, texts: &[&str]) -> Self {
        Self::build(texts, directory, Vec::new()).await.expect("the gateway starts")
    }

    /// A gateway of these texts that tells this sink of every operation.
    pub async fn start_with(sink: Arc<dyn Sink>, texts: &[&str]) -> Self {
        Self::build(texts, Path::new(""), vec![sink]).await.expect("the gateway starts")
    }

    /// What a gateway of these texts says when it cannot start.
    pub async fn refusal(texts: &[&str]) -> String {
        match Self::build(texts, Path::new(""), Vec::new()).await {
            Ok(_) => panic!("the gateway starts"),
            Err(why) => why,
        }
    }

    /// One route `all` of every path to the upstream `shop` at this address.
    pub async fn before(origin: SocketAddr) -> Self {
        Self::start(&[&all_to(origin)]).await
    }

    async fn build(texts: &[&str], directory: &Path, sinks: Vec<Arc<dyn Sink>>) -> Result<Self, String> {
        // the log goes through a pipe, so that a test hears of a line the moment it is written
        let (writer, reader) = pipe::pipe().unwrap();
        let base = format!("[telemetry.access_log]\nfile = '/proc/self/fd/{}'\n", writer.as_raw_fd());
        let settings = load(&sources(&[&[BASE, &base], texts].concat(), directory));
        let settings = settings.map_err(|problems| problems.to_string())?;
        let inner =
            tracegate::gateway::Gateway::start(settings, sinks).await.map_err(|error| error.to_string())?;
        let (sender, lines) = watch::channel(Vec::new());
        let log = Log { lines, reader: tokio::spawn(read(reader, sender)), _writer: writer };
        Ok(Self { inner, log, base, directory: directory.to_owned() })
    }

    /// Puts these texts in force, or tells what is wrong with them.
    pub fn reload(&self, texts: &[&str]) -> Report {
        let sources = sources(&[&[BASE, &self.base], texts].concat(), &self.directory);
        self.inner.apply(|before| load_after(&sources, before))
    }

    /// Where the listener `public` listens.
    pub fn address(&self) -> SocketAddr {
        self.listener("public")
    }

    /// Where this listener listens.
    pub fn listener(&self, name: &str) -> SocketAddr {
        self.inner.listener_address(name).expect("a listener")
    }

    /// Puts a route in maintenance or takes it out of it.
    pub fn set_maintenance(&self, route: &str, wanted: Option<bool>) -> bool {
        self.inner.set_maintenance(route, wanted)
    }

    /// Where the admin pages are.
    pub fn admin_address(&self) -> SocketAddr {
        self.inner.admin_address()
    }

    /// A new HTTP/1.1 connection to `public`.
    pub async fn client(&self) -> Client {
        Client::http1(self.address()).await
    }

    /// `GET` over a connection of its own.
    pub async fn get(&self, path: &str) -> Reply {
        self.client().await.get(path).await
    }

    /// One request over a connection of its own.
    pub async fn ask(&self, request: Request<Body>) -> Reply {
        self.client().await.ask(request).await
    }

    /// An admin page.
    pub async fn admin(&self, path: &str) -> Reply {
        get_admin(self.admin_address(), path).await
    }

    /// What the status page says of an upstream.
    pub async fn upstream_status(&self, upstream: &str) -> Value {
        self.admin("/status").await.json()["upstreams"][upstream].clone()
    }

    /// The same, as soon as the states of its endpoints are these, in their order.
    pub async fn states(&self, upstream: &str, wanted: &[&str]) -> Value {
        let asked = async {
            loop {
                let status = self.upstream_status(upstream).await;
                let endpoints = status["endpoints"].as_array().expect("a list");
                if endpoints.iter().map(|endpoint| &endpoint["state"]).eq(wanted) {
                    return status;
                }
            }
        };
        within(&format!("the states {wanted:?} of {upstream}"), asked).await
    }

    /// An operator takes an endpoint out of use or back in; whether there is one like that.
    pub fn set_in_use(&self, upstream: &str, endpoint: SocketAddr, in_use: bool) -> bool {
        self.inner.set_in_use(upstream, &endpoint.to_string(), in_use)
    }

    /// The metrics as they are now.
    pub async fn metrics(&self) -> Metrics {
        let page = self.admin("/metrics").await;
        assert_eq!(page.status, 200, "{}", page.text());
        Metrics::parse(page.text())
    }

    /// The metrics as Prometheus would rather have them.
    pub async fn open_metrics(&self) -> Metrics {
        let accept = ("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
        let page = get_admin_with(self.admin_address(), "/metrics", &[accept]).await;
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, Some("application/openmetrics-text; version=1.0.0; charset=utf-8"))
        );
        Metrics::parse(page.text())
    }

    /// The same, as soon as they satisfy this: one scrape after the other.
    pub async fn open_metrics_when(&self, what: &str, satisfied: impl Fn(&Metrics) -> bool) -> Metrics {
        let scraped = async {
            loop {
                let metrics = self.open_metrics().await;
                if satisfied(&metrics) {
                    return metrics;
                }
            }
        };
        within(what, scraped).await
    }

    /// The metrics, as soon as they satisfy this: one scrape after the other.
    pub async fn metrics_when(&self, what: &str, satisfied: impl Fn(&Metrics) -> bool) -> Metrics {
        let scraped = async {
            loop {
                let metrics = self.metrics().await;
                if satisfied(&metrics) {
                    return metrics;
                }
            }
        };
        within(what, scraped).await
    }

    /// What became of the spans at this receiver, as soon as it adds up and satisfies this.
    pub async fn balance_when(
        &self,
        what: &str,
        receiver: &str,
        satisfied: impl Fn(&Balance) -> bool,
    ) -> Balance {
        let satisfied = |balance: &Balance| balance.adds_up() && satisfied(balance);
        let metrics = self.metrics_when(what, |metrics| satisfied(&Balance::of(metrics, receiver))).await;
        Balance::of(&metrics, receiver)
    }

    /// The access log.
    pub fn access_log(&self) -> &Log {
        &self.log
    }

    /// The access log, once it has this many lines.
    pub async fn log(&self, count: usize) -> Vec<Value> {
        self.log.lines(count).await
    }

    /// The line of this trace in the access log.
    pub async fn logged(&self, trace_id: &str) -> Value {
        self.log.of(trace_id).await
    }

    /// Shuts down, waits for the end and leaves the access log.
    pub async fn stop(self) -> Log {
        within("the gateway's end", self.inner.shutdown()).await;
        self.log
    }
}

impl Log {
    /// Whether nothing has been written yet.
    pub fn is_empty(&self) -> bool {
        self.lines.borrow().is_empty()
    }

    /// All lines, once there are this many.
    pub async fn lines(&self, count: usize) -> Vec<Value> {
        let what = format!("{count} lines of the access log");
        within(&what, self.lines.clone().wait_for(|lines| lines.len() >= count)).await.unwrap().clone()
    }

    /// The line of this trace.
    pub async fn of(&self, trace_id: &str) -> Value {
        self.line(&format!("the log line of trace {trace_id}"), |line| line["trace_id"] == trace_id).await
    }

    /// The first line like this.
    pub async fn line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut lines = self.lines.clone();
        let lines = within(what, lines.wait_for(|lines| lines.iter().any(&wanted))).await.unwrap();
        lines.iter().find(|line| wanted(line)).cloned().unwrap()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// One route `all` of every path to the upstream `shop` at this address.
pub fn all_to(origin: SocketAddr) -> String {
    format!("{}{}", upstream("shop", origin), route("all", "/{*path}", "shop"))
}

/// An upstream of one endpoint.
pub fn upstream(name: &str, endpoint: SocketAddr) -> String {
    format!("[upstreams.{name}]\nservice = '{name}-api'\nendpoints = ['http://{endpoint}']\n")
}

/// A route by path alone.
pub fn route(name: &str, path: &str, upstream: &str) -> String {
    format!("[routes.{name}]\nmatch = {{ path = '{path}' }}\nupstream = '{upstream}'\n")
}

fn sources(texts: &[&str], directory: &Path) -> Sources {
    let files = texts.iter().enumerate().map(|(index, text)| (format!("{index}.toml"), (*text).to_owned()));
    // the standard variable: how long a span waits for its batch to fill, in milliseconds
    let environment = vec![("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "10".to_owned())];
    Sources { files: files.collect(), environment, directory: directory.to_owned() }
}

async fn read(lines: pipe::Receiver, log: watch::Sender<Vec<Value>>) {
    let mut lines = BufReader::new(lines).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        log.send_modify(|log| log.push(line));
    }
}
