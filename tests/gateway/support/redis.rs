//! A Redis in process: as much of its protocol (RESP) and of the gateway's script as the sentences need.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A Redis in process. It ends, and its connections break, when it drops.
pub struct Redis {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

/// What it does with what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers.
    Answers,
    /// Says nothing.
    Stalls,
    /// Answers with what is none of the protocol.
    Garbage,
}

struct State {
    began: Instant,
    manner: watch::Sender<Manner>,
    buckets: Mutex<HashMap<String, u64>>,
    /// The scripts it knows, by what they are called by.
    scripts: Mutex<Vec<String>>,
    asked: Mutex<Vec<Vec<String>>>,
}

impl Redis {
    /// One that answers.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            began: Instant::now(),
            manner: watch::Sender::new(Manner::Answers),
            buckets: Mutex::default(),
            scripts: Mutex::default(),
            asked: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// Behaves so from now on.
    pub fn set(&self, manner: Manner) {
        self.state.manner.send_replace(manner);
    }

    /// Every command so far.
    pub fn asked(&self) -> Vec<Vec<String>> {
        self.state.asked.lock().unwrap().clone()
    }

    /// `[redis.main]` for a gateway.
    pub fn toml(&self) -> String {
        format!("[redis.main]\naddress = 'redis://{}'\n", self.address)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let _ = serve(stream, &state).await;
        });
    }
}

async fn serve(stream: TcpStream, state: &State) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(command) = command(&mut stream).await? {
        let mut manner = state.manner.subscribe();
        let answer = match *manner.borrow_and_update() {
            Manner::Answers => Some(state.answer(&command)),
            Manner::Garbage => Some("what?\r\n".to_owned()),
            Manner::Stalls => None,
        };
        state.asked.lock().unwrap().push(command);
        match answer {
            Some(answer) => stream.get_mut().write_all(answer.as_bytes()).await?,
            None => drop(manner.wait_for(|manner| *manner != Manner::Stalls).await),
        }
    }
    Ok(())
}

/// One command: an array of texts.
async fn command(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<String>>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let count: usize = line.trim_start_matches('*').trim().parse().expect("an array");
    let mut words = Vec::new();
    for _ in 0..count {
        line.clear();
        stream.read_line(&mut line).await?;
        let length: usize = line.trim_start_matches('$').trim().parse().expect("a text");
        let mut word = vec![0; length + 2];
        stream.read_exact(&mut word).await?;
        word.truncate(length);
        words.push(String::from_utf8(word).expect("text"));
    }
    Ok(Some(words))
}

impl State {
    fn answer(&self, command: &[String]) -> String {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match words[..] {
            ["EVALSHA", script, "1", key, interval, capacity] => {
                if !self.scripts.lock().unwrap().iter().any(|known| known == script) {
                    // as a Redis that has been started anew
                    self.scripts.lock().unwrap().push(script.to_owned());
                    return "-NOSCRIPT No matching script. Please use EVAL.\r\n".to_owned();
                }
                self.take(key, interval.parse().unwrap(), capacity.parse().unwrap())
            }
            ["SCRIPT", "LOAD", _] => {
                let known = self.scripts.lock().unwrap().last().cloned().unwrap_or_default();
                format!("${}\r\n{known}\r\n", known.len())
            }
            _ => "+OK\r\n".to_owned(),
        }
    }

    fn take(&self, key: &str, interval: u64, capacity: u64) -> String {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap() + 1;
        let mut buckets = self.buckets.lock().unwrap();
        let full_at = buckets.entry(key.to_owned()).or_default();
        let before = (*full_at).max(now);
        let after = before + interval;
        if after - now > capacity {
            return format!("*2\r\n:0\r\n:{}\r\n", before - now);
        }
        *full_at = after;
        format!("*2\r\n:1\r\n:{}\r\n", after - now)
    }
}
