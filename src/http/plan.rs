//! What the forwarding of one route needs, built once.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tokio::time::Instant;

use super::grpc::Call;
use super::pool::Pool;
use super::removal::Removal;
use super::retry::Rule;
use super::route::UpstreamHost;
use super::sticky::Cookies;
use super::timers::Timers;
use crate::failure::Detail;
use crate::listener::timeouts::Pace;
use crate::upstream::Upstream;

/// What one route's forwarding needs, built once.
#[derive(Debug)]
pub struct Plan {
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// One pool an endpoint, in the upstream's order.
    pub pools: Arc<[Arc<Pool>]>,
    /// What goes upstream as `Host`.
    pub host: UpstreamHost,
    /// How long one attempt may take until its answer's head.
    pub attempt_timeout: Option<Duration>,
    /// The field that tells the upstream how many milliseconds it has.
    pub timeout_field: Option<HeaderName>,
    /// How long an answer's body may stand still.
    pub stream_idle: Option<Duration>,
    /// How many bytes must come by then of an answer whose length is known.
    pub answer_progress: u64,
    /// How long nothing may pass through a tunnel.
    pub tunnel_idle: Option<Duration>,
    /// Whether a client may ask for a WebSocket.
    pub websocket: bool,
    /// What is sent again; `None` is nothing.
    pub retry: Option<Rule>,
    /// What brings clients back to the endpoint that answers them.
    pub cookies: Option<Arc<Cookies>>,
    /// What bounds its exchanges in time.
    pub timers: Arc<Timers>,
    /// Tells its streams when its time is over.
    pub removal: Arc<Removal>,
}

impl Plan {
    /// How fast an answer of this length has to come. Without a length it may be a stream, which says something when
    /// there is something to say.
    pub(super) fn pace(&self, length: Option<u64>) -> Option<Pace> {
        let least = if length.is_some() { self.answer_progress } else { 1 };
        self.stream_idle.map(|within| Pace { within, least })
    }

    /// When an attempt that has just started is over, and which bound that is.
    pub(super) fn bound(
        &self,
        started: Instant,
        total: Option<Instant>,
        call: Option<Call>,
    ) -> Option<(Instant, Detail)> {
        let attempt = self.attempt_timeout.map(|timeout| (started + timeout, Detail::PerTry));
        let total = total.map(|total| (total, Detail::Total));
        let sooner = attempt.filter(|(at, _)| total.is_none_or(|(total, _)| *at < total));
        earlier(sooner.or(total), call)
    }
}

/// The earlier one: a call's client may give it less time than the route does.
pub(super) fn earlier(bound: Option<(Instant, Detail)>, call: Option<Call>) -> Option<(Instant, Detail)> {
    let Some(deadline) = call.and_then(|call| call.deadline) else { return bound };
    bound.filter(|(at, _)| *at < deadline).or(Some((deadline, Detail::GrpcTimeout)))
}
