//! Load: clients that ask one request after the other, and an origin that can take it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::body;
use super::client::{Client, get, request};

/// So many clients that ask with these fields for as long as this says so, which is told how many answers a client has had, and
/// for as long as they are answered. What they come to is the number of whole answers, all of them 200.
pub fn load(
    address: SocketAddr,
    clients: usize,
    fields: &[(&str, &str)],
    go_on: impl Fn(u64) -> bool + Send + Sync + 'static,
) -> JoinSet<u64> {
    let (go_on, mut asking) = (Arc::new(go_on), JoinSet::new());
    let headers: HeaderMap = request(Method::GET, "/", fields, body::empty()).headers().clone();
    for _ in 0..clients {
        let (go_on, headers) = (Arc::clone(&go_on), headers.clone());
        asking.spawn(async move {
            let mut client = Client::http1(address).await;
            let mut answers = 0;
            while go_on(answers) {
                let mut asked = get("/");
                asked.headers_mut().clone_from(&headers);
                let Ok(answer) = client.send(asked).await else { break };
                assert_eq!(answer.status(), 200);
                if body::count(answer.into_body()).await.is_err() {
                    break;
                }
                answers += 1;
            }
            answers
        });
    }
    asking
}

/// An origin that answers everything with nothing, and keeps no record of it.
pub struct Busy {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Busy {
    /// Starts it.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let answer = |_: Request<Incoming>| async {
                    Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new()))
                };
                let service = service_fn(answer);
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, task }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
