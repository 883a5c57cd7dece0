//! A receiver of JSON lines in process, over TCP or TLS, which can stall, be killed and be revived on its port.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::certificates::Identity;
use super::{own_ip, within};

/// A receiver. It ends when it drops.
pub struct Logstash {
    /// Where it listens, dead or alive.
    pub address: SocketAddr,
    tls: Option<TlsAcceptor>,
    state: Arc<State>,
    task: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    life: watch::Sender<Life>,
    seen: watch::Sender<Seen>,
}

/// What it does with its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Life {
    #[default]
    Reads,
    /// Accepts, and reads nothing.
    Stalls,
    /// Resets what is open.
    Dead,
}

/// What has been received.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Every line, as often as it came.
    pub lines: Vec<Value>,
    /// The beginnings of lines that were cut off.
    pub torn: usize,
    /// Connections that ended in order.
    pub ended: usize,
    /// Connections accepted.
    pub accepted: usize,
}

impl Seen {
    /// The ids of the events, each once.
    pub fn ids(&self) -> BTreeSet<&str> {
        self.lines.iter().map(|line| line["event"]["id"].as_str().expect("an id")).collect()
    }
}

impl Logstash {
    /// A receiver without TLS that reads.
    pub fn start() -> Self {
        Self::listen(None)
    }

    /// A receiver with TLS and this certificate.
    pub fn start_tls(identity: &Identity) -> Self {
        Self::listen(Some(TlsAcceptor::from(identity.server())))
    }

    fn listen(tls: Option<TlsAcceptor>) -> Self {
        // an address of its own, so that nobody takes the port while it is dead
        let address = SocketAddr::new(own_ip(), 0);
        let mut logstash = Self { address, tls, state: Arc::default(), task: None };
        logstash.revive();
        logstash
    }

    /// `[telemetry.logstash]` towards this receiver.
    pub fn settings(&self) -> String {
        let scheme = if self.tls.is_some() { "tls" } else { "tcp" };
        format!("[telemetry.logstash]\naddress = '{scheme}://{}'\n", self.address)
    }

    /// Reads, or goes on reading, from now on.
    pub fn read(&self) {
        self.state.life.send_replace(Life::Reads);
    }

    /// Accepts, and reads nothing more from now on.
    pub fn stall(&self) {
        self.state.life.send_replace(Life::Stalls);
    }

    /// Resets its connections, with all that they hold, and refuses new ones.
    pub async fn kill(&mut self) {
        self.state.life.send_replace(Life::Dead);
        if let Some(task) = self.task.take() {
            within("the receiver's end", task).await.unwrap();
        }
    }

    /// Listens at its address, and reads.
    pub fn revive(&mut self) {
        self.read();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let listener = socket.listen(128).unwrap();
        self.address = listener.local_addr().unwrap();
        self.task = Some(tokio::spawn(accept(listener, self.tls.clone(), Arc::clone(&self.state))));
    }

    /// What has been received so far.
    pub fn seen(&self) -> Seen {
        self.state.seen.borrow().clone()
    }

    /// What has been received, as soon as it satisfies this.
    pub async fn seen_when(&self, what: &str, satisfied: impl Fn(&Seen) -> bool) -> Seen {
        let mut seen = self.state.seen.subscribe();
        within(what, seen.wait_for(satisfied)).await.unwrap().clone()
    }

    /// The lines, once so many different ones have come.
    pub async fn events(&self, count: usize) -> Vec<Value> {
        let what = format!("{count} error records");
        self.seen_when(&what, |seen| seen.ids().len() >= count).await.lines
    }

    /// The line of this trace.
    pub async fn of(&self, trace_id: &str) -> Value {
        let is_it = |line: &Value| line["trace"]["id"] == trace_id;
        let what = format!("the error record of trace {trace_id}");
        let seen = self.seen_when(&what, |seen| seen.lines.iter().any(is_it)).await;
        seen.lines.into_iter().find(is_it).unwrap()
    }
}

impl Drop for Logstash {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    let mut life = state.life.subscribe();
    loop {
        tokio::select! {
            _ = life.wait_for(|life| *life == Life::Dead) => break,
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { break };
                state.seen.send_modify(|seen| seen.accepted += 1);
                connections.spawn(connection(stream, tls.clone(), Arc::clone(&state)));
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, state: Arc<State>) {
    // whatever ends it but the other side's end resets it
    stream.set_zero_linger().unwrap();
    let mut life = state.life.subscribe();
    tokio::select! {
        _ = life.wait_for(|life| *life == Life::Dead) => {}
        () = async {
            match tls {
                None => receive(stream, &state).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        receive(stream, &state).await;
                    }
                }
            }
        } => {}
    }
}

async fn receive(stream: impl AsyncRead + Unpin, state: &State) {
    let mut reading = state.life.subscribe();
    let (mut reader, mut line) = (BufReader::with_capacity(1024, stream), String::new());
    loop {
        let _ = reading.wait_for(|life| *life == Life::Reads).await;
        line.clear();
        match reader.read_line(&mut line).await {
            Ok(0) => return state.seen.send_modify(|seen| seen.ended += 1),
            Ok(_) if line.ends_with('\n') => {
                let value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                state.seen.send_modify(|seen| seen.lines.push(value));
            }
            Ok(_) => state.seen.send_modify(|seen| seen.torn += 1),
            Err(_) => return,
        }
    }
}
