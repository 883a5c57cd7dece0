//! `tracegate sample`: one part of the demo alone, in a process of its own, for a stage of containers.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use futures_util::future::LocalBoxFuture;
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::customer::Customer;
use super::mes::Mes;
use super::service::{self, Service};
use super::shop::Shop;
use super::tracer::Tracer;

/// Which part.
#[derive(Debug, Subcommand)]
pub enum Part {
    /// The Shop: takes orders, and asks the MES for their prices through the gateway
    Shop {
        /// Where it serves
        #[command(flatten)]
        place: Place,
        /// The gateway's listener for clients inside, such as gateway:8080
        #[arg(long, value_name = "HOST:PORT")]
        gateway: String,
    },
    /// The MES: calculates prices
    Mes {
        /// Where it serves
        #[command(flatten)]
        place: Place,
    },
    /// The customer: orders, pays and changes their mind, until told to stop
    Customer {
        /// The gateway's listener, such as gateway:8080
        #[arg(long, value_name = "HOST:PORT")]
        gateway: String,
        /// Requests a second at most
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rate: u32,
    },
}

/// Where a service is, and where its spans go.
#[derive(Debug, Args)]
pub struct Place {
    /// The address that it serves on; GET /healthz answers ok
    #[arg(long, value_name = "IP:PORT")]
    address: SocketAddr,
    /// A receiver of its spans by OTLP over HTTP, such as jaeger:4318
    #[arg(long, value_name = "HOST:PORT")]
    otlp: String,
}

/// Plays the part until `stop` ends. Boxed, so that the library compiles it and not whoever awaits it.
pub fn sample(part: Part, stop: LocalBoxFuture<'static, ()>) -> LocalBoxFuture<'static, ExitCode> {
    Box::pin(async move {
        match play(part, stop).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(error),
        }
    })
}

async fn play(part: Part, stop: impl Future<Output = ()>) -> io::Result<()> {
    match part {
        Part::Shop { place, gateway } => {
            let service = Shop::default();
            service.gateway.set(gateway).expect("set here alone");
            serve(place, "shop-api", service, stop).await
        }
        Part::Mes { place } => serve(place, "mes-api", Mes, stop).await,
        Part::Customer { gateway, rate } => {
            let over = CancellationToken::new();
            let (events, mut news) = mpsc::channel(1);
            let asking = async {
                let gateway = found(&gateway).await;
                Customer::new(gateway, events, over.clone(), None, Duration::from_secs(1) / rate).run().await;
            };
            // nobody draws traces here: they are in the receiver
            let hearing = async { while news.recv().await.is_some() {} };
            tokio::select! {
                _ = futures_util::future::join(asking, hearing) => {}
                () = stop => {}
            }
            Ok(())
        }
    }
}

async fn serve<S: Service>(
    place: Place,
    name: &'static str,
    service: S,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let over = CancellationToken::new();
    let (tracer, exported) = Tracer::start(name, place.otlp);
    let (_, served) = service::start(place.address, Arc::new(service), tracer, over.clone()).await?;
    stop.await;
    over.cancel();
    let _ = served.await;
    let _ = exported.await;
    Ok(())
}

/// The first address of a name that may not be there yet: containers start in any order.
async fn found(name: &str) -> SocketAddr {
    loop {
        if let Ok(mut addresses) = lookup_host(name).await
            && let Some(address) = addresses.next()
        {
            return address;
        }
        sleep(AGAIN).await;
    }
}

fn failed(error: impl Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

const AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use bytes::Bytes;
    use http::Request;
    use http_body_util::Full;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::{Part, Place, play};
    use crate::demo::collector::Collector;
    use crate::demo::event::Event;
    use crate::net::once;

    async fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_alone_is_healthy_answers_and_sends_its_spans_before_it_ends() {
        let (events, mut news) = tokio::sync::mpsc::channel(100);
        let collected = CancellationToken::new();
        let receiver = Collector { events, forward: None };
        let (otlp, _) = receiver.start(collected.clone()).await.unwrap();
        let (address, over) = (free().await, CancellationToken::new());
        let part = Part::Mes { place: Place { address, otlp: otlp.to_string() } };
        let playing = tokio::spawn(play(part, over.clone().cancelled_owned()));
        let ask = |method, path, body| {
            let request = Request::builder().method(method).uri(path).body(Full::from(body)).unwrap();
            once::send(address, request, Duration::from_secs(10))
        };
        let mut health = ask("GET", "/healthz", "").await;
        while health.is_err() {
            tokio::task::yield_now().await;
            health = ask("GET", "/healthz", "").await;
        }
        assert_eq!(health.unwrap().body(), &Bytes::from_static(b"ok"));
        let answer = ask("POST", "/orders/o-1/price", r#"{"volume_mm3":12500}"#).await.unwrap();
        assert_eq!(answer.status(), 200);
        over.cancel();
        playing.await.unwrap().unwrap();
        collected.cancel();
        let mut names = Vec::new();
        while let Some(event) = news.recv().await {
            if let Event::Received(spans) = event {
                names.extend(spans.into_iter().map(|span| span.name));
            }
        }
        names.sort();
        assert_eq!(names, ["POST /orders/{order_id}/price", "price.calculate"]);
    }
}
