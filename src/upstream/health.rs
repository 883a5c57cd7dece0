//! Active health: an endpoint is asked at intervals, whether there are requests or not.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::standing::{Health, Standings};
use crate::telemetry::metrics::endpoints::CheckOutcome;

/// How an upstream's endpoints are checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What is asked.
    pub check: Check,
    /// From the end of one check to the start of the next.
    pub interval: Duration,
    /// By which share of the interval it is longer or shorter, at random.
    pub jitter: f64,
    /// How long a check may take, connecting included.
    pub timeout: Duration,
    /// So many passed checks in a row make an unhealthy endpoint healthy.
    pub rise: u32,
    /// So many failed checks in a row make a healthy endpoint unhealthy.
    pub fall: u32,
}

/// What is asked of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// `GET` this path: one of these ranges of statuses passes.
    Http {
        /// Path and query.
        path: Box<str>,
        /// The `Host`, if it is not the endpoint's own.
        host: Option<Box<str>>,
        /// First and last of each range.
        statuses: Vec<(u16, u16)>,
    },
    /// `grpc.health.v1.Health/Check` of this service: `SERVING` passes. Empty is the server as a whole.
    Grpc {
        /// The service's full name.
        service: Box<str>,
        /// The `:authority`, if it is not the endpoint's own.
        host: Option<Box<str>>,
    },
    /// A connection, with its TLS handshake if it is `https`, passes.
    Tcp,
}

/// Asks one endpoint once. Implemented by the protocol that is spoken; dropped when the time is over.
pub trait Probe: fmt::Debug + Send + Sync {
    /// What it came to; never [`CheckOutcome::Timeout`].
    fn probe<'a>(&'a self, endpoint: &'a Endpoint) -> Probing<'a>;
}

/// A check under way.
pub type Probing<'a> = Pin<Box<dyn Future<Output = CheckOutcome> + Send + 'a>>;

/// Checks one endpoint for as long as it is polled. The first check comes at once, and decides alone if nothing is
/// known from before.
pub(super) async fn watch(
    settings: Settings,
    probe: Arc<dyn Probe>,
    endpoint: Arc<Endpoint>,
    standings: Arc<Standings>,
    index: usize,
) {
    let mut tally = Tally::knowing(standings.health(index));
    loop {
        let probing = tokio::time::timeout(settings.timeout, probe.probe(&endpoint));
        let outcome = probing.await.unwrap_or(CheckOutcome::Timeout);
        standings.series(index).checked(outcome);
        if let Some(health) = tally.note(outcome == CheckOutcome::Passed, settings.rise, settings.fall) {
            standings.set_health(index, health, outcome.word());
        }
        let luck = rand::random();
        tokio::time::sleep(jittered(settings.interval, settings.jitter, luck)).await;
    }
}

/// The interval, longer or shorter by up to this share; `luck` is from 0 to 1.
fn jittered(interval: Duration, jitter: f64, luck: f64) -> Duration {
    interval.mul_f64(1.0 + jitter * (2.0 * luck - 1.0))
}

/// Checks in a row that contradict what is known.
#[derive(Debug, Default)]
struct Tally {
    healthy: Option<bool>,
    against: u32,
}

impl Tally {
    fn knowing(health: Health) -> Self {
        let healthy = (health != Health::Unknown).then_some(health == Health::Healthy);
        Self { healthy, against: 0 }
    }

    /// One more check; what is known now, if that is news.
    fn note(&mut self, passed: bool, rise: u32, fall: u32) -> Option<Health> {
        if self.healthy == Some(passed) {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let enough = match self.healthy {
            None => 1,
            Some(true) => fall,
            Some(false) => rise,
        };
        if self.against < enough {
            return None;
        }
        *self = Self { healthy: Some(passed), against: 0 };
        Some(if passed { Health::Healthy } else { Health::Unhealthy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_check_decides_alone_and_then_it_takes_several_in_a_row() {
        let (healthy, unhealthy) = (Some(Health::Healthy), Some(Health::Unhealthy));
        for (checks, news) in [
            ("+", vec![healthy]),
            ("-", vec![unhealthy]),
            ("+--+---", vec![healthy, None, None, None, None, None, unhealthy]),
            ("-+-++-", vec![unhealthy, None, None, None, healthy, None]),
        ] {
            let mut tally = Tally::default();
            let told: Vec<_> = checks.chars().map(|check| tally.note(check == '+', 2, 3)).collect();
            assert_eq!(told, news, "{checks}");
        }
    }

    #[test]
    fn intervals_vary_by_the_jitter() {
        let interval = Duration::from_secs(10);
        for (jitter, luck, seconds) in [(0.1, 0.0, 9), (0.1, 1.0, 11), (0.1, 0.5, 10), (0.0, 0.3, 10)] {
            let off = jittered(interval, jitter, luck).abs_diff(Duration::from_secs(seconds));
            assert!(off < Duration::from_millis(1), "{jitter} {luck}");
        }
    }
}
