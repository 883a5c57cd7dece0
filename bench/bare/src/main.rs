//! A bare hyper proxy with a pool of its own: what forwarding costs before anything is known of it.
//! `bare LISTEN UPSTREAM`, both `address:port`. No timeouts, no limits, no headers changed.
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Pool = Arc<Mutex<Vec<SendRequest<Incoming>>>>;

async fn forward(
    request: Request<Incoming>,
    pool: Pool,
    upstream: Arc<str>,
) -> hyper::Result<Response<Incoming>> {
    loop {
        let kept = pool.lock().expect("nobody panics").pop();
        let mut sender = match kept {
            Some(sender) if sender.is_closed() => continue,
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(&*upstream).await.expect("the upstream listens");
                stream.set_nodelay(true).expect("a socket");
                let (sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        pool.lock().expect("nobody panics").push(sender);
        return Ok(answer);
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let listener = TcpListener::bind(arguments.next().expect("LISTEN")).await.expect("a free address");
    let upstream: Arc<str> = arguments.next().expect("UPSTREAM").into();
    let pool = Pool::default();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let (pool, upstream) = (pool.clone(), upstream.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| forward(request, pool.clone(), upstream.clone()));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
