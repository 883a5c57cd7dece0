//! A name server over UDP whose answers a test can change.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::Gate;

/// A name server. It ends when it drops.
pub struct Dns {
    /// Where it listens.
    pub address: SocketAddr,
    names: Arc<Names>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Names {
    answers: Mutex<HashMap<String, (Vec<IpAddr>, u32)>>,
    queries: AtomicUsize,
    held: Mutex<Option<Gate>>,
}

impl Dns {
    /// A server that knows no name yet.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let names = Arc::new(Names::default());
        let task = tokio::spawn(serve(socket, Arc::clone(&names)));
        Self { address, names, task }
    }

    /// `[dns]` with this server alone, and answers kept this long at most.
    pub fn toml(&self, max_ttl: &str) -> String {
        format!("[dns]\nservers = ['{}']\nmin_ttl = '1ms'\nmax_ttl = '{max_ttl}'\n", self.address)
    }

    /// The name has these addresses from now on, for so many seconds.
    pub fn set(&self, name: &str, addresses: &[&str], ttl: u32) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.names.answers.lock().unwrap().insert(name.to_owned(), (addresses, ttl));
    }

    /// Nobody has this name any more.
    pub fn forget(&self, name: &str) {
        self.names.answers.lock().unwrap().remove(name);
    }

    /// Answers nobody any more before this gate is open.
    pub fn hold(&self, gate: &Gate) {
        *self.names.held.lock().unwrap() = Some(gate.clone());
    }

    /// How often it was asked.
    pub fn queries(&self) -> usize {
        self.names.queries.load(Ordering::Relaxed)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, names: Arc<Names>) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let held = names.held.lock().unwrap().clone();
        if let Some(gate) = held {
            gate.opened().await;
        }
        if let Some(answer) = answer(&buffer[..length], &names) {
            let _ = socket.send_to(&answer, from).await;
        }
        names.queries.fetch_add(1, Ordering::Relaxed);
    }
}

/// The answer to a query (RFC 1035 section 4), `None` if it is not one.
fn answer(query: &[u8], names: &Names) -> Option<Vec<u8>> {
    let (header, mut rest) = query.split_at_checked(12)?;
    let mut labels = Vec::new();
    loop {
        let (&length, after) = rest.split_first()?;
        let (label, after) = after.split_at_checked(usize::from(length))?;
        rest = after;
        if label.is_empty() {
            break;
        }
        labels.push(String::from_utf8_lossy(label).to_lowercase());
    }
    let [kind_high, kind_low, ..] = *rest else { return None };
    let question = &query[12..query.len() - rest.len() + 4];
    let known = names.answers.lock().unwrap().get(&labels.join(".")).cloned();
    let code = if known.is_some() { 0 } else { NAME_ERROR };
    let (addresses, ttl) = known.unwrap_or_default();
    let records: Vec<Vec<u8>> = addresses
        .into_iter()
        .filter_map(|address| match (u16::from_be_bytes([kind_high, kind_low]), address) {
            (A, IpAddr::V4(address)) => Some(address.octets().to_vec()),
            (AAAA, IpAddr::V6(address)) => Some(address.octets().to_vec()),
            _ => None,
        })
        .collect();
    let mut answer = header[..2].to_vec();
    answer.extend([0x84 | (header[2] & 1), 0x80 | code, 0, 1]);
    answer.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question);
    for record in records {
        answer.extend(NAME_OF_QUESTION);
        answer.extend([kind_high, kind_low, 0, 1]);
        answer.extend(ttl.to_be_bytes());
        answer.extend(u16::try_from(record.len()).ok()?.to_be_bytes());
        answer.extend(record);
    }
    Some(answer)
}

const A: u16 = 1;
const AAAA: u16 = 28;
const NAME_ERROR: u8 = 3;
/// A pointer to byte 12, where the question stands (RFC 1035 section 4.1.4).
const NAME_OF_QUESTION: [u8; 2] = [0xc0, 12];
