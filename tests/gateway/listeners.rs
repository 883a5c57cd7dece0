//! How connections come in: Unix sockets, the PROXY protocol, bounds of one client, and one process after another.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tracegate::telemetry::metrics::reloads::ReloadOutcome;

use crate::support::gateway::{all_to, route};
use crate::support::load::Busy;
use crate::support::process::Process;
use crate::support::stage::told;
use crate::support::{Answer, Collector, Gateway, Origin, Raw, Stage, own_ip, within};

/// So many connections of `public` have met this outcome.
async fn met(gateway: &Gateway, outcome: &str, count: u64) {
    let labels = [("listener", "public"), ("outcome", outcome)];
    gateway
        .metrics_when(outcome, |metrics| metrics.count("tracegate_connections_total", &labels) == count)
        .await;
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_listener_may_be_a_unix_socket() {
    let origin = Origin::start(Answer::ok().data("hello")).await;
    let collector = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.sock");
    let listener = format!(
        "[listeners.public]\naddress = 'unix:{}'\nsocket_mode = '0600'\n[routes.all]\nmatch = \
         {{ path = '/{{*path}}', hosts = ['shop.test'] }}\n",
        path.display()
    );
    let gateway = Gateway::start(&[&all_to(origin.address), &listener, &collector.grpc()]).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(GET).await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    assert_eq!(origin.only().await.header("x-forwarded-for"), Some("127.0.0.1"));
    let line = gateway.log(1).await.remove(0);
    let told = told(gateway.access_log(), &collector, line["trace_id"].as_str().unwrap(), 1).await;
    assert_eq!(told.server.attribute("network.transport"), Some("unix"));
    assert_eq!(told.server.attribute("server.address"), Some("shop.test"));
    assert_eq!(told.server.attribute("server.port"), None);
    gateway.stop().await;
    assert!(!path.exists(), "its file goes with it");
}

#[tokio::test]
async fn an_endpoint_may_be_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        (head, stream)
    });
    let collector = Collector::start().await;
    let socket = format!("unix:{}", path.display());
    let upstream = format!("[upstreams.shop]\nendpoints = ['{socket}']\n");
    let route = format!("{}host = 'endpoint'\n", route("all", "/{*path}", "shop"));
    let gateway = Gateway::start(&[&upstream, &route, &collector.grpc()]).await;
    let reply = gateway.get("/orders").await;
    assert_eq!((reply.status, &*reply.text()), (200, "ok"));
    let (head, _stream) = answering.await.unwrap();
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.contains("\r\nhost: localhost\r\n"), "{head}");
    let told = told(gateway.access_log(), &collector, &reply.trace_id(), 1).await;
    let attempt = &told.attempts[0];
    for (key, value) in [
        ("network.transport", Some("unix")),
        ("network.peer.address", path.to_str()),
        ("server.address", path.to_str()),
        ("server.port", None),
        ("url.full", Some(&*format!("http://{socket}:/{{*path}}"))),
    ] {
        assert_eq!(attempt.attribute(key), value, "{key}");
    }
    assert_eq!(told.log["endpoint"], socket);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("tracegate_endpoint_requests_total", &[("tracegate_endpoint", &socket)]), 1);
}

const TRUSTING: &str = "
[listeners.public]
proxy_protocol = 'any'
trusted_proxies = ['127.0.0.1']
timeouts.handshake = '200ms'
[telemetry.privacy]
client_address = 'full'
";

#[tokio::test]
async fn a_trusted_proxy_says_who_the_client_is() {
    let stage = Stage::and(Answer::ok(), TRUSTING).await;
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x1f\x90\x01\xbb";
    for (header, client) in [
        (&b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n"[..], "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 ::1 4711 443\r\n", "2001:db8::9"),
        (&v2[..], "192.0.2.7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        // with the request in the same packet, and one that forges
        let forged = b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 198.51.100.1\r\n\r\n";
        let mut raw = Raw::sending(stage.gateway.address(), [header, forged].concat()).await;
        let reply = raw.reply().await;
        assert_eq!(reply.status, 200);
        let seen = stage.origin.seen().pop().unwrap();
        // the proxy itself may say whom it forwards for
        let forwarded = if client == "127.0.0.1" { "198.51.100.1, 127.0.0.1" } else { client };
        assert_eq!(seen.header("x-forwarded-for"), Some(forwarded));
        let logged = if client == "127.0.0.1" { "198.51.100.1" } else { client };
        assert_eq!(stage.gateway.logged(&reply.trace_id()).await["client"], logged);
    }
}

#[tokio::test]
async fn a_proxy_that_says_nothing_or_nonsense_is_not_served() {
    let stage = Stage::and(Answer::ok(), TRUSTING).await;
    for (count, nonsense) in [
        GET,
        b"PROXY TCP4 203.0.113.9 10.0.0.1 99999 443\r\n",
        b"PROXY UNKNOWN\nGET / HTTP/1.1\r\n\r\n",
        &[b'P'; 4096],
    ]
    .into_iter()
    .enumerate()
    {
        let mut raw = Raw::sending(stage.gateway.address(), nonsense).await;
        assert_eq!(raw.rest().await.len(), 0, "{nonsense:?}");
        met(&stage.gateway, "proxy_protocol", count as u64 + 1).await;
    }
    let mut silent = Raw::connect(stage.gateway.address()).await;
    assert_eq!(silent.rest().await.len(), 0);
    met(&stage.gateway, "timeout", 1).await;
    assert!(stage.origin.seen().is_empty());
}

#[tokio::test]
async fn nobody_else_can_say_so() {
    let strangers = "[listeners.public]\nproxy_protocol = 'any'\ntrusted_proxies = ['192.0.2.1']\n";
    let stage = Stage::and(Answer::ok(), strangers).await;
    assert_eq!(stage.get("/").await.status, 200, "a connection of its own");
    let header = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n";
    let mut raw = Raw::sending(stage.gateway.address(), [&header[..], GET].concat()).await;
    assert_eq!(raw.reply().await.reason().as_deref(), Some("bad_request"));
    assert_eq!(stage.origin.seen().len(), 1);
}

#[tokio::test]
async fn a_client_has_no_more_connections_than_it_may() {
    let bound = "[listeners.public]\nlimits.connections_per_client = 2\n";
    let origin = Origin::start(Answer::ok()).await;
    let base = all_to(origin.address);
    let gateway = Gateway::start(&[&base, bound]).await;
    let (mut first, mut second) = (gateway.client().await, gateway.client().await);
    assert_eq!((first.get("/").await.status, second.get("/").await.status), (200, 200));
    let mut third = Raw::sending(gateway.address(), GET).await;
    assert!(third.try_reply().await.is_none());
    met(&gateway, "refused_client_limit", 1).await;
    drop(second);
    let open = [("listener", "public")];
    gateway.metrics_when("one open", |metrics| metrics.count("tracegate_connections_open", &open) == 1).await;
    assert_eq!(gateway.get("/").await.status, 200, "there is room again");

    let more = "[listeners.public]\nlimits.connections_per_client = 'off'\n";
    assert_eq!(gateway.reload(&[&base, more]).outcome, ReloadOutcome::Applied);
    let _held = [gateway.client().await, gateway.client().await];
    assert_eq!(gateway.get("/").await.status, 200, "no bound any more");
    let proxies = "[listeners.public]\ntrusted_proxies = ['127.0.0.1']\n";
    gateway.reload(&[&base, bound, proxies]);
    let _more = [gateway.client().await, gateway.client().await];
    assert_eq!(gateway.get("/").await.status, 200, "a proxy speaks for many");
}

/// Clients that each make one connection after the other, until told to stop, and what became of their requests.
struct Arriving {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: JoinSet<Vec<String>>,
}

impl Arriving {
    fn at(address: SocketAddr) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            clients.spawn(async move {
                let mut lost = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match ask_once(address).await {
                        Ok(answer) if answer.starts_with("HTTP/1.1 200") => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(answer) => lost.push(answer),
                        Err(error) => lost.push(error.to_string()),
                    }
                }
                lost
            });
        }
        Self { stop, answered, clients }
    }

    /// Waits until so many more have been answered.
    async fn go_on(&self, more: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        let reached = async {
            while self.answered.load(Ordering::Relaxed) < goal {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within("answers", reached).await;
    }

    /// What was lost.
    async fn end(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut lost = Vec::new();
        while let Some(of_client) = within("a client's end", self.clients.join_next()).await {
            lost.extend(of_client.unwrap());
        }
        lost
    }
}

async fn ask_once(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(GET).await?;
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_takes_over_the_socket_and_nobody_is_refused() {
    let origin = Busy::start().await;
    let text = all_to(origin.address);
    let socket = TcpListener::bind((own_ip(), 0)).unwrap();
    let mut old = Process::start_on(&text, &socket).await;
    let arriving = Arriving::at(old.address);
    arriving.go_on(50).await;
    let new = Process::start_on(&text, &socket).await;
    arriving.go_on(50).await;
    old.signal("TERM");
    assert_eq!(old.ended().await, Some(0), "{}", old.diagnostics());
    arriving.go_on(50).await;
    assert_eq!(arriving.end().await, Vec::<String>::new());
    drop(new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_a_port_and_one_leaves() {
    let origin = Busy::start().await;
    let text = format!("{}[listeners.public]\nreuse_port = true\n", all_to(origin.address));
    let address = SocketAddr::new(own_ip(), 9000);
    let mut old = Process::start_at(&text, address).await;
    let arriving = Arriving::at(address);
    arriving.go_on(50).await;
    let new = Process::start_at(&text, address).await;
    arriving.go_on(50).await;
    old.signal("TERM");
    assert_eq!(old.ended().await, Some(0), "{}", old.diagnostics());
    arriving.go_on(50).await;
    assert_eq!(arriving.end().await, Vec::<String>::new());
    drop(new);
}

#[tokio::test]
async fn what_makes_no_sense_together_is_told_with_what_to_write_instead() {
    let origin = Origin::start(Answer::ok()).await;
    let base = all_to(origin.address);
    for (text, expected) in [
        ("proxy_protocol = 'v2'", "nobody is trusted: trusted_proxies is empty"),
        ("socket_mode = '0660'", "is for Unix sockets"),
        ("address = 'unix:/run/a.sock'\nreuse_port = true", "has no port to be shared"),
        ("address = 'unix:a.sock'", "is not a whole path"),
        ("socket_mode = 'rw'", "is no mode of a file"),
        ("tls.client_auth = 'required'", "client_ca_file: is missing"),
        ("tls.client_roles = { 'a' = 'A Person' }", "is not a role"),
        ("tls.certificates.default = {}", "is the name of the listener's own certificate"),
    ] {
        let text = format!("[listeners.public]\n{text}\n");
        let said = Gateway::refusal(&[&base, &text]).await;
        assert!(said.contains(expected), "{text}: {said}");
    }
}
