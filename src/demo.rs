//! The demo: the gateway with its shipped routes, between an embedded customer and embedded services.
//!
//! Everything passes through real sockets: requests through the gateway's listener, spans by OTLP into the
//! demo's collector. What is drawn is made from the received spans and from nothing inside.

mod collector;
pub mod command;
mod customer;
mod event;
mod forward;
mod mes;
mod otlp;
pub mod sample;
mod service;
mod shop;
mod span;
mod tracer;
mod traces;
mod tree;

use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Uri;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time;
use tokio_util::sync::CancellationToken;

use self::collector::Collector;
use self::customer::Customer;
use self::event::Event;
use self::forward::{Balance, Forward};
use self::mes::Mes;
use self::service::ANYWHERE;
use self::shop::Shop;
use self::tracer::Tracer;
pub use self::traces::Summary;
use self::traces::Traces;
use crate::gateway::file::{Sources, load};
use crate::gateway::{Gateway, Settings, StartError};
use crate::problem::Problems;

/// What the demo may be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Requests until the end; `None` goes on until told to stop.
    pub requests: Option<u64>,
    /// The least time from one request to the next.
    pub pause: Duration,
    /// A receiver that gets every span as well.
    pub otlp: Option<Uri>,
    /// Whether the output is coloured.
    pub colour: bool,
}

/// Why there is no demo.
#[derive(Debug)]
pub enum DemoError {
    /// No loopback port, or no signals.
    Io(io::Error),
    /// The shipped routes do not fit the demo: a bug of ours.
    Settings(Problems),
    /// The gateway does not start.
    Start(StartError),
}

/// Runs the demo, prints to `out`, and tells the balance; ends after the last request or when `stop` does.
///
/// Output that nobody reads any more ends it too.
pub async fn run(
    options: Options,
    out: &mut (dyn Write + Send),
    stop: impl Future<Output = ()>,
) -> Result<Summary, DemoError> {
    let (events, mut news) = mpsc::channel(EVENTS);
    let over = CancellationToken::new();
    let stage = Stage::build(&options, events, over.clone()).await?;
    let mut show = Show { out, colour: options.colour, traces: Traces::default(), over: over.clone() };
    show.print(&stage.announcement(options.otlp.as_ref()));
    let play = tokio::spawn(stage.play());
    let mut stop = pin!(stop);
    let mut tick = time::interval(TICK);
    loop {
        tokio::select! {
            event = news.recv() => match event {
                Some(Event::Received(spans)) => show.traces.receive(spans, Instant::now()),
                Some(Event::Asked(trace)) => show.traces.asked(trace),
                // everybody who could bring news has ended
                None => break,
            },
            () = &mut stop, if !over.is_cancelled() => over.cancel(),
            _ = tick.tick() => show.draw_settled(),
        }
    }
    let forwarded = play.await.ok().flatten();
    Ok(show.end(forwarded.zip(options.otlp)))
}

/// Everybody who plays a part.
struct Stage {
    gateway: Gateway,
    customer: Customer,
    addresses: Addresses,
    /// Ends the services when the gateway has ended.
    services: CancellationToken,
    /// The services, and then what sends their spans.
    tasks: Vec<JoinHandle<()>>,
    /// Ends the collector when nobody sends spans any more.
    collector: CancellationToken,
    forwarded: Option<JoinHandle<Balance>>,
}

#[derive(Debug, Clone, Copy)]
struct Addresses {
    public: SocketAddr,
    admin: SocketAddr,
    shop: SocketAddr,
    mes: SocketAddr,
}

impl Stage {
    async fn build(
        options: &Options,
        events: mpsc::Sender<Event>,
        over: CancellationToken,
    ) -> Result<Self, DemoError> {
        let (services, collector) = (CancellationToken::new(), CancellationToken::new());
        let (forward, forwarded) = options.otlp.as_ref().map(Forward::start).transpose()?.unzip();
        let receiver = Collector { events: events.clone(), forward };
        let (otlp, _) = receiver.start(collector.clone()).await?;

        let (shop_tracer, shop_export) = Tracer::start("shop-api", otlp.to_string());
        let (mes_tracer, mes_export) = Tracer::start("mes-api", otlp.to_string());
        let shop = Arc::new(Shop::default());
        let (shop_address, shop_task) =
            service::start(ANYWHERE, Arc::clone(&shop), shop_tracer, services.clone()).await?;
        let (mes_address, mes_task) =
            service::start(ANYWHERE, Arc::new(Mes), mes_tracer, services.clone()).await?;

        let settings = settings(shop_address, mes_address, otlp).map_err(DemoError::Settings)?;
        let gateway = Gateway::start(settings, Vec::new()).await.map_err(DemoError::Start)?;
        let public = gateway.listener_address("public").expect("the shipped routes have a public listener");
        shop.gateway.set(public.to_string()).expect("set here alone");

        Ok(Self {
            customer: Customer::new(public, events, over, options.requests, options.pause),
            addresses: Addresses {
                public,
                admin: gateway.admin_address(),
                shop: shop_address,
                mes: mes_address,
            },
            gateway,
            services,
            tasks: vec![shop_task, mes_task, shop_export, mes_export],
            collector,
            forwarded,
        })
    }

    /// Lets the customer come until the end, then ends everybody from the front to the back, so that nothing
    /// is lost on the way.
    async fn play(self) -> Option<Balance> {
        self.customer.run().await;
        self.gateway.shutdown().await;
        self.services.cancel();
        for task in self.tasks {
            let _ = task.await;
        }
        self.collector.cancel();
        match self.forwarded {
            Some(task) => task.await.ok(),
            None => None,
        }
    }

    fn announcement(&self, otlp: Option<&Uri>) -> String {
        let Addresses { public, admin, shop, mes } = self.addresses;
        let jaeger = match otlp {
            Some(otlp) => format!("every span is also sent to {otlp} (OTLP over gRPC)"),
            None => format!(
                "start it with  {JAEGER}\n            then       tracegate demo --otlp http://localhost:4317"
            ),
        };
        format!(
            "http://{admin}/  is the live page: what happens here, and why\n\n\
             tracegate demo: a customer → the gateway → shop-api → the gateway → mes-api, all on this machine\n\n\
             gateway     http://{public}\n\
             metrics     http://{admin}/metrics\n\
             status      http://{admin}/status\n\
             services    shop-api http://{shop}, mes-api http://{mes}\n\
             try         curl -i http://{public}/shop/orders -H 'content-type: application/json' \
             -d '{{\"volume_mm3\":42000}}'\n\
             Jaeger      {jaeger}\n\n\
             Every trace is drawn from the spans that came by OTLP: service, span, duration, start, status, id.\n\
             Ctrl-C ends.\n\n"
        )
    }
}

/// The shipped routes, with the addresses of this demo: environment variables win over the file.
fn settings(shop: SocketAddr, mes: SocketAddr, otlp: SocketAddr) -> Result<Settings, Problems> {
    let environment = [
        ("TRACEGATE_LISTENERS__PUBLIC__ADDRESS", "127.0.0.1:0".to_owned()),
        ("TRACEGATE_ADMIN__ADDRESS", "127.0.0.1:0".to_owned()),
        ("TRACEGATE_UPSTREAMS__SHOP__ENDPOINTS", format!("[\"http://{shop}\"]")),
        ("TRACEGATE_UPSTREAMS__MES__ENDPOINTS", format!("[\"http://{mes}\"]")),
        ("TRACEGATE_TELEMETRY__OTLP__ENDPOINT", format!("http://{otlp}")),
        // spans are to be seen at once, the access log would stand between the trees, and nobody waits for a
        // load balancer at the end
        ("TRACEGATE_TELEMETRY__OTLP__DELAY", "100ms".to_owned()),
        ("TRACEGATE_TELEMETRY__ACCESS_LOG__ENABLED", "false".to_owned()),
        ("TRACEGATE_SHUTDOWN__DRAIN_DELAY", "1ms".to_owned()),
        ("TRACEGATE_SHUTDOWN__DEADLINE", "3s".to_owned()),
    ];
    load(&Sources {
        files: vec![("routes.toml".to_owned(), include_str!("../routes.toml").to_owned())],
        environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
        directory: PathBuf::from("."),
    })
}

/// What the reader sees.
struct Show<'a> {
    out: &'a mut (dyn Write + Send),
    colour: bool,
    traces: Traces,
    /// Ends the demo when nobody reads any more.
    over: CancellationToken,
}

impl Show<'_> {
    fn draw_settled(&mut self) {
        let settled = self.traces.settled(Instant::now());
        let drawn: String = settled.into_iter().map(|spans| tree::draw(spans, self.colour) + "\n").collect();
        self.print(&drawn);
    }

    fn end(mut self, forwarded: Option<(Balance, Uri)>) -> Summary {
        let rest: String =
            self.traces.rest().into_iter().map(|spans| tree::draw(spans, self.colour) + "\n").collect();
        let summary = std::mem::take(&mut self.traces).summary();
        self.print(&format!("{rest}{summary}\n"));
        if let Some((Balance { sent, lost }, target)) = forwarded {
            self.print(&format!("sent on   {sent} spans to {target}, {lost} lost\n"));
        }
        summary
    }

    fn print(&mut self, text: &str) {
        if self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).is_err() {
            self.over.cancel();
        }
    }
}

impl From<io::Error> for DemoError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Settings(problems) => write!(f, "the shipped routes do not fit the demo\n{problems}"),
            Self::Start(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DemoError {}

/// How to get a Jaeger that takes OTLP.
const JAEGER: &str = "docker run --rm -p 16686:16686 -p 4317:4317 jaegertracing/jaeger";
/// News that wait; whoever brings more waits.
const EVENTS: usize = 1024;
/// How often is looked for traces that can be drawn.
const TICK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::future;
    use std::io::{self, Write};
    use std::time::Duration;

    use super::{Options, run};

    const OPTIONS: Options =
        Options { requests: None, pause: Duration::from_millis(1), otlp: None, colour: false };

    /// A reader that has gone.
    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_request_is_drawn_as_one_whole_trace() {
        let mut out = Vec::new();
        let options = Options { requests: Some(22), ..OPTIONS };
        let summary = run(options, &mut out, future::pending()).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!((summary.requests, summary.traces), (22, 22), "{text}");
        assert!(summary.complete(), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("trace ")).count(), 22, "{text}");
        for reason in ["no_route", "upstream_status", "upstream_reset", "client_gone"] {
            assert!(summary.reasons.contains_key(reason), "{reason}: {text}");
        }
        let deepest = format!("{}└─ mes-api  INTERNAL price.calculate ", " ".repeat(21));
        assert!(text.lines().any(|line| line.starts_with(&deepest)), "{text}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_ends_when_told_and_when_nobody_reads_any_more() {
        let told = run(OPTIONS, &mut Vec::new(), future::ready(())).await.unwrap();
        let unread = run(OPTIONS, &mut Gone, future::pending()).await.unwrap();
        for summary in [told, unread] {
            assert!(summary.complete(), "{summary}");
            assert_eq!(summary.requests, summary.traces);
        }
    }
}
