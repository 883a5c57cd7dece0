//! What the tests of sinks share: a recorder, a route, an endpoint, exchanges that end well, a receiver.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::attribute::{Configured, Personal};
use super::context::Context;
use super::exchange::{Exchange, Method, Scheme, Version};
use super::operation::{Attempt, EndpointLabels, Operation, RouteLabels, Sink, Start};
use super::recorder::Recorder;
use super::sampling::{RouteSampling, Sampling};
use super::series::{EndpointSeries, RouteSeries};
use super::settings::{Privacy, Receiver};

/// A recorder with one sink, and what exchanges need.
pub(super) struct Bench {
    pub(super) recorder: Arc<Recorder>,
    pub(super) route: Arc<RouteLabels>,
    pub(super) endpoint: Arc<EndpointLabels>,
}

impl Bench {
    pub(super) fn new(sink: Arc<dyn Sink>) -> Self {
        Self::sampling(sink, 1.0)
    }

    pub(super) fn sampling(sink: Arc<dyn Sink>, ratio: f64) -> Self {
        Self::with(&Recorder::new(
            Sampling { ratio, ..Sampling::default() },
            None,
            Privacy::default(),
            [sink],
        ))
    }

    pub(super) fn with(recorder: &Arc<Recorder>) -> Self {
        Self {
            recorder: Arc::clone(recorder),
            route: Arc::new(same_route()),
            endpoint: Arc::new(EndpointLabels {
                endpoint: Configured::new("shop.internal:9001"),
                address: Configured::new("shop.internal"),
                port: Some(9001),
                origin: Configured::new("http://shop.internal:9001"),
                upstream: Configured::new("shop"),
                service: Some(Configured::new("shop-api")),
                series: EndpointSeries::default(),
            }),
        }
    }

    /// Starts an exchange without a parent.
    pub(super) fn start(&self, method: &str) -> Operation {
        self.start_with(method, &[])
    }

    /// Starts an exchange with these `traceparent` values.
    pub(super) fn start_with(&self, method: &str, traceparent: &[&str]) -> Operation {
        self.recorder.start(Start {
            listener: "public".into(),
            context: Context::from_headers(traceparent.iter().map(|value| value.as_bytes()), []),
            exchange: Exchange {
                method: Method::new(method),
                scheme: Scheme::Http,
                version: Version::Http11,
            },
            request_id: Personal::new(HeaderValue::from_static("from-the-client")),
            port: Some(443),
            client: Personal::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77))),
            client_role: None,
            started: Instant::now(),
        })
    }
}

/// The route of every bench, built anew.
pub(super) fn same_route() -> RouteLabels {
    RouteLabels {
        route: Configured::new("order_read"),
        template: Configured::new("/shop/orders/{order_id}"),
        upstream_template: Configured::new("/orders/{order_id}"),
        operation: Some(Configured::new("order.read")),
        upstream: Configured::new("shop"),
        server: Some(Configured::new("shop.example")),
        attributes: ["order.id".into()].into(),
        sampling: RouteSampling::default(),
        series: RouteSeries::default(),
    }
}

/// The endpoint answers in full.
pub(super) fn answered(attempt: &mut Attempt, status: u16) {
    attempt.head(status);
    attempt.complete();
}

/// The client gets its answer in full.
pub(super) fn answer(operation: Operation, status: u16) {
    operation.handle().head(status);
    operation.handle().complete();
    drop(operation);
}

/// A receiver that gets a batch of ten spans, or what there is at shutdown.
pub(super) fn receiver(endpoint: &str) -> Receiver {
    Receiver {
        endpoint: endpoint.into(),
        tls: None,
        headers: Vec::new(),
        gzip: false,
        timeout: Duration::from_secs(5),
        queue: 100,
        batch: 10,
        delay: Duration::from_hours(1),
        give_up_after: Duration::from_secs(30),
    }
}
