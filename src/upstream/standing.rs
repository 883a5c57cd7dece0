//! Which endpoints of an upstream are usable, and why the others are not.
//!
//! Requests count in atomics and read one list, made anew whenever an endpoint's standing changes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::metrics::Gauge;
use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::balance::{Balance, Balancer, Choices};
use super::breaker::Counted;
use super::endpoint::Endpoint;
use super::outliers::{self, Cause, Outliers};
use crate::failure::Failure;
use crate::telemetry::attribute::Configured;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::endpoints::{EjectionOutcome, EndpointState};

/// By what an endpoint is picked, and kept from being picked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// How an endpoint is picked.
    pub balance: Balance,
    /// When one is ejected; `None` is "off".
    pub outliers: Option<Outliers>,
    /// How long one that has returned takes until it has its full share; `None` is "off".
    pub slow_start: Option<Duration>,
    /// If a smaller share of the endpoints in use is usable than this, all in use are; `None` is "off".
    pub panic_threshold: Option<f64>,
}

/// What health checks say of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Nothing yet. It counts as usable.
    Unknown,
    /// They pass.
    Healthy,
    /// They fail.
    Unhealthy,
}

impl Health {
    /// The word in logs and on the status page.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The standings of an upstream's endpoints, by their index.
#[derive(Debug)]
pub(super) struct Standings {
    upstream: Box<str>,
    endpoints: Box<[Member]>,
    weights: Box<[u32]>,
    rules: Rules,
    balancer: Balancer,
    choices: ArcSwap<Choices>,
    kept: Mutex<Kept>,
    /// Something is to be done at another time than before.
    rescheduled: Notify,
    panic: Gauge,
}

#[derive(Debug)]
struct Member {
    endpoint: Arc<Endpoint>,
    series: EndpointState,
}

impl Member {
    /// `host:port`.
    fn name(&self) -> &str {
        &self.endpoint.labels.endpoint
    }
}

#[derive(Debug)]
struct Kept {
    standings: Vec<Standing>,
    window_ends: Instant,
    panic: bool,
}

#[derive(Debug, Clone, Copy)]
struct Standing {
    health: Health,
    in_use: bool,
    ejected_until: Option<Instant>,
    /// How often it was ejected of late.
    ejections: u32,
    usable: bool,
    /// When it became usable again, until its slow start is over.
    returned: Option<Instant>,
}

impl Standing {
    const NEW: Self = Self {
        health: Health::Unknown,
        in_use: true,
        ejected_until: None,
        ejections: 0,
        usable: true,
        returned: None,
    };

    fn is_usable(&self) -> bool {
        self.in_use && self.health != Health::Unhealthy && self.ejected_until.is_none()
    }
}

/// How an endpoint stands, for people.
#[derive(Debug, Clone)]
pub struct Status {
    /// `host:port`.
    pub endpoint: Box<str>,
    /// Its share beside the others.
    pub weight: u32,
    /// Requests on their way to it.
    pub in_flight: usize,
    /// What health checks say.
    pub health: Health,
    /// Whether its operator lets it be used.
    pub in_use: bool,
    /// For how much longer it is ejected.
    pub ejected_for: Option<Duration>,
    /// How long ago it returned, while it does not have its full share.
    pub slow_start: Option<Duration>,
}

impl Status {
    /// The one word that matters most.
    pub fn word(&self) -> &'static str {
        match self {
            Self { in_use: false, .. } => "out",
            Self { health: Health::Unhealthy, .. } => "unhealthy",
            Self { ejected_for: Some(_), .. } => "ejected",
            Self { slow_start: Some(_), .. } => "slow_start",
            _ => "usable",
        }
    }
}

impl Standings {
    /// All are usable, until something is known of them.
    pub(super) fn new(
        upstream: &str,
        endpoints: impl IntoIterator<Item = (Arc<Endpoint>, u32)>,
        rules: Rules,
        checked: bool,
        metrics: &Metrics,
    ) -> Self {
        let name = Configured::new(upstream);
        let (endpoints, weights): (Vec<_>, Vec<_>) = endpoints
            .into_iter()
            .map(|(endpoint, weight)| {
                let series = metrics.endpoint_state(&name, &endpoint.labels.endpoint, checked);
                (Member { endpoint, series }, weight)
            })
            .unzip();
        let now = Instant::now();
        let window_ends = rules.outliers.map_or(now, |outliers| now + outliers.window);
        let kept = Kept { standings: vec![Standing::NEW; endpoints.len()], window_ends, panic: false };
        let standings = Self {
            upstream: upstream.into(),
            endpoints: endpoints.into(),
            weights: weights.into(),
            rules,
            balancer: Balancer::new(rules.balance),
            choices: ArcSwap::default(),
            kept: Mutex::new(kept),
            rescheduled: Notify::new(),
            panic: metrics.upstream_panic(&name),
        };
        standings.publish(&mut standings.lock(), now);
        standings
    }

    /// Takes over what is known of the endpoints that were there before, by their address: what health checks
    /// say only if they are the same.
    pub(super) fn carry_over(&self, before: &Self, same_checks: bool) {
        let known = before.lock();
        let mut kept = self.lock();
        for (member, standing) in self.endpoints.iter().zip(&mut kept.standings) {
            let place = before.endpoints.iter().position(|old| old.name() == member.name());
            let Some(old) = place.map(|place| known.standings[place]) else { continue };
            standing.in_use = old.in_use;
            standing.returned = old.returned.filter(|_| self.rules.slow_start.is_some());
            if same_checks {
                standing.health = old.health;
            }
            if self.rules.outliers.is_some() {
                (standing.ejected_until, standing.ejections) = (old.ejected_until, old.ejections);
            }
            standing.usable = standing.is_usable();
        }
        drop(known);
        self.publish(&mut kept, Instant::now());
    }

    /// One of the usable endpoints, or `None` if there are none. Those already tried are avoided as long as
    /// there are others.
    pub(super) fn pick(&self, tried: &[usize]) -> Option<usize> {
        self.balancer.pick(&self.choices.load(), tried, |index| self.in_flight(index), &mut rand::rng())
    }

    /// Whether this endpoint is one of those that are picked.
    pub(super) fn may_be_picked(&self, index: usize) -> bool {
        self.choices.load().usable().contains(&index)
    }

    /// Whether another endpoint is, that was not tried before.
    pub(super) fn has_other(&self, index: usize, before: &[usize]) -> bool {
        let choices = self.choices.load();
        choices.usable().iter().any(|other| *other != index && !before.contains(other))
    }

    /// Requests on their way to this endpoint.
    pub(super) fn in_flight(&self, index: usize) -> usize {
        self.endpoints[index].endpoint.counts.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one more request to this endpoint until the guard drops.
    pub(super) fn enter(self: &Arc<Self>, index: usize, counted: Option<Counted>) -> InFlight {
        self.endpoints[index].endpoint.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { standings: Arc::clone(self), index, told: false, _counted: counted }
    }

    /// What is known of this endpoint's health.
    pub(super) fn health(&self, index: usize) -> Health {
        self.lock().standings[index].health
    }

    /// The series of this endpoint's state.
    pub(super) fn series(&self, index: usize) -> &EndpointState {
        &self.endpoints[index].series
    }

    /// Health checks have come to this about an endpoint; `outcome` is that of the last one.
    pub(super) fn set_health(&self, index: usize, health: Health, outcome: &'static str) {
        let mut kept = self.lock();
        let before = std::mem::replace(&mut kept.standings[index].health, health);
        if before == health {
            return;
        }
        let (upstream, endpoint) = (&*self.upstream, self.endpoints[index].name());
        if health == Health::Unhealthy {
            tracing::warn!(upstream, endpoint, outcome, "endpoint is unhealthy");
        } else {
            tracing::info!(upstream, endpoint, before = before.word(), "endpoint is healthy");
        }
        self.publish(&mut kept, Instant::now());
    }

    /// An operator takes an endpoint, `host:port`, out or back in; `false` if there is none like that.
    pub(super) fn set_in_use(&self, endpoint: &str, in_use: bool) -> bool {
        let mut kept = self.lock();
        let mut found = false;
        for (member, standing) in self.endpoints.iter().zip(&mut kept.standings) {
            if member.name() != endpoint {
                continue;
            }
            found = true;
            if std::mem::replace(&mut standing.in_use, in_use) != in_use {
                let what = if in_use { "endpoint is taken back in" } else { "endpoint is taken out" };
                tracing::info!(upstream = &*self.upstream, endpoint, "{what}");
            }
        }
        self.publish(&mut kept, Instant::now());
        found
    }

    /// How every endpoint stands.
    pub(super) fn statuses(&self) -> Vec<Status> {
        let (now, kept) = (Instant::now(), self.lock());
        let status = |(index, standing): (usize, &Standing)| Status {
            endpoint: self.endpoints[index].name().into(),
            weight: self.weights[index],
            in_flight: self.in_flight(index),
            health: standing.health,
            in_use: standing.in_use,
            ejected_for: standing.ejected_until.map(|until| until.saturating_duration_since(now)),
            slow_start: standing.returned.map(|returned| now.saturating_duration_since(returned)),
        };
        kept.standings.iter().enumerate().map(status).collect()
    }

    /// Whether so few are usable that all in use are.
    pub(super) fn is_in_panic(&self) -> bool {
        self.lock().panic
    }

    /// Does what is to be done at its time, for as long as it is polled.
    pub(super) async fn keep(&self) {
        loop {
            match self.tick(Instant::now()) {
                Some(next) => {
                    let _ = tokio::time::timeout_at(next, self.rescheduled.notified()).await;
                }
                None => self.rescheduled.notified().await,
            }
        }
    }

    /// Does what is due by now; when to come back.
    fn tick(&self, now: Instant) -> Option<Instant> {
        let mut kept = self.lock();
        let mut changed = false;
        for (member, standing) in self.endpoints.iter().zip(&mut kept.standings) {
            if standing.ejected_until.is_some_and(|until| until <= now) {
                standing.ejected_until = None;
                member.endpoint.counts.outcomes.forget();
                let (upstream, endpoint) = (&*self.upstream, member.name());
                tracing::info!(upstream, endpoint, "endpoint is back after its ejection");
                changed = true;
            }
            if let (Some(returned), Some(slow_start)) = (standing.returned, self.rules.slow_start)
                && returned + slow_start <= now
            {
                standing.returned = None;
                changed = true;
            }
        }
        if let Some(outliers) = &self.rules.outliers
            && kept.window_ends <= now
        {
            kept.window_ends = now + outliers.window;
            for (index, member) in self.endpoints.iter().enumerate() {
                let standing = &mut kept.standings[index];
                if standing.ejected_until.is_none() {
                    standing.ejections = standing.ejections.saturating_sub(1);
                }
                if member.endpoint.counts.outcomes.end_window(outliers) {
                    changed |= self.try_eject(&mut kept, index, Cause::Share, now);
                }
            }
        }
        if changed {
            self.publish(&mut kept, now);
        }
        let window = self.rules.outliers.map(|_| kept.window_ends);
        let slow_start = self.rules.slow_start.unwrap_or_default();
        let times = kept.standings.iter().flat_map(|standing| {
            [standing.ejected_until, standing.returned.map(|returned| returned + slow_start)]
        });
        times.chain([window]).flatten().min()
    }

    /// An endpoint has failed too often in a row.
    fn eject(&self, index: usize, cause: Cause) {
        let (now, mut kept) = (Instant::now(), self.lock());
        if self.try_eject(&mut kept, index, cause, now) {
            self.publish(&mut kept, now);
        }
    }

    /// Ejects an endpoint, unless it is not usable anyway or too few would be left.
    fn try_eject(&self, kept: &mut Kept, index: usize, cause: Cause, now: Instant) -> bool {
        let Some(outliers) = &self.rules.outliers else { return false };
        if !kept.standings[index].is_usable() {
            return false;
        }
        let count = |which: fn(&Standing) -> bool| kept.standings.iter().filter(|one| which(one)).count();
        let in_use = count(|standing| standing.in_use);
        let ejected = count(|standing| standing.in_use && standing.ejected_until.is_some());
        let usable = count(Standing::is_usable);
        let member = &self.endpoints[index];
        if usable < 2 || ejected >= outliers.most_ejected(in_use) {
            member.series.ejection(EjectionOutcome::Refused);
            return false;
        }
        let standing = &mut kept.standings[index];
        let ejection = outliers.ejection_after(standing.ejections);
        standing.ejected_until = Some(now + ejection);
        standing.ejections = standing.ejections.saturating_add(1);
        member.series.ejection(EjectionOutcome::Ejected);
        let (upstream, endpoint) = (&*self.upstream, member.name());
        let (cause, seconds) = (cause.word(), ejection.as_secs_f64());
        tracing::warn!(upstream, endpoint, cause, seconds, "endpoint is ejected");
        true
    }

    /// Makes the list that requests read, after a change.
    fn publish(&self, kept: &mut Kept, now: Instant) {
        for (member, standing) in self.endpoints.iter().zip(&mut kept.standings) {
            let usable = standing.is_usable();
            let was_usable = std::mem::replace(&mut standing.usable, usable);
            standing.returned = match (was_usable, usable) {
                (false, true) => self.rules.slow_start.map(|_| now),
                (true, true) => standing.returned,
                (_, false) => None,
            };
            let set = |gauge: &Gauge, is: bool| gauge.set(f64::from(u8::from(is)));
            set(&member.series.in_use, standing.in_use);
            set(&member.series.ejected, standing.ejected_until.is_some());
            if let Some(healthy) = &member.series.healthy {
                set(healthy, standing.health != Health::Unhealthy);
            }
        }
        let which = |is: fn(&Standing) -> bool| -> Vec<usize> {
            let which = kept.standings.iter().enumerate().filter(|(_, standing)| is(standing));
            which.map(|(index, _)| index).collect()
        };
        let (usable, in_use) = (which(Standing::is_usable), which(|standing| standing.in_use));
        let least = self.rules.panic_threshold.map_or(0.0, |share| share * outliers::number(in_use.len()));
        let panic = outliers::number(usable.len()) < least;
        if std::mem::replace(&mut kept.panic, panic) != panic {
            self.panic.set(f64::from(u8::from(panic)));
            let (upstream, usable, of) = (&*self.upstream, usable.len(), in_use.len());
            if panic {
                tracing::warn!(upstream, usable, of, "too few endpoints are usable: all in use are taken");
            } else {
                tracing::info!(upstream, usable, of, "enough endpoints are usable again");
            }
        }
        let chosen = if panic { in_use } else { usable };
        for (index, member) in self.endpoints.iter().enumerate() {
            member.series.usable.set(f64::from(u8::from(chosen.contains(&index))));
        }
        let returned = |index: &usize| Some((*index, kept.standings[*index].returned?));
        let returned = chosen.iter().filter_map(returned).collect();
        let slow_start = self.rules.slow_start.unwrap_or_default();
        self.choices.store(Arc::new(Choices::new(chosen, &self.weights, returned, slow_start)));
        self.rescheduled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request on its way to an endpoint, counted until this drops. How it went is told once.
#[derive(Debug)]
pub struct InFlight {
    standings: Arc<Standings>,
    index: usize,
    told: bool,
    _counted: Option<Counted>,
}

impl InFlight {
    /// How many requests are in flight to the endpoint, this one included.
    pub fn count(&self) -> usize {
        self.standings.endpoints[self.index].endpoint.counts.in_flight.load(Ordering::Relaxed)
    }

    /// The endpoint did what was asked of it.
    pub fn succeeded(&mut self) {
        if self.standings.rules.outliers.is_some() && !std::mem::replace(&mut self.told, true) {
            self.standings.endpoints[self.index].endpoint.counts.outcomes.succeeded();
        }
    }

    /// The request failed: `upstream_status` is an answer from 500 on, `grpc_status` what the server is to blame for.
    pub fn failed(&mut self, failure: &Failure) {
        if let Some(outliers) = &self.standings.rules.outliers
            && !std::mem::replace(&mut self.told, true)
            && outliers::is_fault(failure)
            && self.standings.endpoints[self.index].endpoint.counts.outcomes.failed(outliers.consecutive)
        {
            self.standings.eject(self.index, Cause::Consecutive);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.standings.endpoints[self.index].endpoint.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::failure::{Detail, Reason};
    use crate::net::{DnsSettings, Resolver};
    use crate::telemetry::operation::EndpointLabels;
    use crate::telemetry::series::EndpointSeries;
    use crate::telemetry::settings;
    use crate::upstream::Address;

    const OUTLIERS: Outliers = Outliers {
        consecutive: Some(3),
        share: Some(0.5),
        requests: 10,
        window: Duration::from_secs(10),
        ejection: Duration::from_secs(30),
        max_ejection: Duration::from_mins(5),
        max_ejected: 0.1,
    };

    const RULES: Rules = Rules {
        balance: Balance::RoundRobin,
        outliers: Some(OUTLIERS),
        slow_start: None,
        panic_threshold: Some(0.5),
    };

    fn standings(count: u16, rules: Rules) -> Arc<Standings> {
        let (soon, metrics) = (Duration::from_secs(1), Metrics::new(&settings::Metrics::default()));
        let resolver = Resolver::new(&DnsSettings { servers: Vec::new(), min_ttl: soon, max_ttl: soon });
        let endpoint = |port| {
            let address = Address { https: false, host: "192.0.2.1".into(), port };
            let labels = EndpointLabels {
                endpoint: Configured::new(format!("shop:{port}")),
                address: Configured::new(address.host.clone()),
                port: Some(port),
                origin: Configured::new(format!("http://shop:{port}")),
                upstream: Configured::new("shop"),
                service: None,
                series: EndpointSeries::default(),
            };
            Arc::new(Endpoint::new(&address, Some(resolver.name(&address.host)), None, soon, labels))
        };
        let endpoints = (0..count).map(|port| (endpoint(port), 1));
        Arc::new(Standings::new("shop", endpoints, rules, true, &metrics))
    }

    fn fail(standings: &Arc<Standings>, index: usize, times: usize) {
        for _ in 0..times {
            standings.enter(index, None).failed(&Reason::UpstreamReset.into());
        }
    }

    /// The endpoints that get requests.
    fn used(standings: &Standings) -> BTreeSet<usize> {
        (0..200).filter_map(|_| standings.pick(&[])).collect()
    }

    fn words(standings: &Standings) -> Vec<&'static str> {
        standings.statuses().iter().map(Status::word).collect()
    }

    async fn pass(standings: &Standings, seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        standings.tick(Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_fails_in_a_row_is_ejected_each_time_for_longer() {
        let standings = standings(3, RULES);
        fail(&standings, 1, 2);
        standings.enter(1, None).succeeded();
        fail(&standings, 1, 2);
        assert_eq!(words(&standings), ["usable"; 3]);
        fail(&standings, 1, 1);
        assert_eq!(words(&standings), ["usable", "ejected", "usable"]);
        assert_eq!(used(&standings), [0, 2].into());
        pass(&standings, 29).await;
        assert_eq!(words(&standings)[1], "ejected");
        pass(&standings, 1).await;
        assert_eq!(used(&standings).len(), 3);
        fail(&standings, 1, 3);
        pass(&standings, 59).await;
        assert_eq!(words(&standings)[1], "ejected", "twice as long");
        pass(&standings, 1).await;
        assert_eq!(words(&standings)[1], "usable");
        // windows without an ejection are forgotten one by one
        for _ in 0..3 {
            pass(&standings, 10).await;
        }
        fail(&standings, 1, 3);
        assert_eq!(standings.statuses()[1].ejected_for, Some(Duration::from_secs(30)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_fails_too_often_is_ejected_at_the_end_of_the_window() {
        let standings = standings(2, RULES);
        for _ in 0..10 {
            standings.enter(0, None).succeeded();
            fail(&standings, 0, 1);
        }
        assert_eq!(words(&standings), ["usable"; 2]);
        pass(&standings, 10).await;
        assert_eq!(words(&standings), ["ejected", "usable"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_counts_once_and_only_what_the_endpoint_did() {
        let standings = standings(2, RULES);
        let mut in_flight = standings.enter(0, None);
        for _ in 0..5 {
            in_flight.failed(&Reason::UpstreamStatus.into());
        }
        in_flight.succeeded();
        for reason in [Reason::ClientGone, Reason::ClientTimeout, Reason::PoolTimeout, Reason::BreakerOpen] {
            (0..5).for_each(|_| standings.enter(0, None).failed(&reason.into()));
        }
        let impatient = Failure::new(Reason::UpstreamTimeout).detail(Detail::GrpcTimeout);
        (0..5).for_each(|_| standings.enter(0, None).failed(&impatient));
        (0..5).for_each(|_| drop(standings.enter(0, None)));
        assert_eq!(words(&standings), ["usable"; 2]);
        fail(&standings, 0, 2);
        assert_eq!(words(&standings), ["ejected", "usable"], "the first failure counted");
    }

    #[tokio::test(start_paused = true)]
    async fn some_endpoints_stay_in_use_however_much_they_fail() {
        let alone = standings(1, RULES);
        fail(&alone, 0, 100);
        assert_eq!(words(&alone), ["usable"]);
        let several = standings(3, RULES);
        (0..3).for_each(|index| fail(&several, index, 100));
        assert_eq!(words(&several), ["ejected", "usable", "usable"]);
        let rules = Rules { outliers: Some(Outliers { max_ejected: 1.0, ..OUTLIERS }), ..RULES };
        let eager = standings(3, rules);
        (0..3).for_each(|index| fail(&eager, index, 100));
        assert_eq!(words(&eager), ["ejected", "ejected", "usable"]);
        // nor is the last one that is not unhealthy or out
        let last = standings(3, rules);
        last.set_health(0, Health::Unhealthy, "timeout");
        last.set_in_use("shop:1", false);
        fail(&last, 2, 100);
        assert_eq!(words(&last), ["unhealthy", "out", "usable"]);
    }

    #[tokio::test(start_paused = true)]
    async fn below_the_panic_threshold_all_endpoints_in_use_are_taken() {
        let standings = standings(4, RULES);
        standings.set_in_use("shop:3", false);
        standings.set_health(0, Health::Unhealthy, "timeout");
        assert_eq!((used(&standings), standings.is_in_panic()), ([1, 2].into(), false));
        standings.set_health(1, Health::Unhealthy, "timeout");
        assert_eq!((used(&standings), standings.is_in_panic()), ([0, 1, 2].into(), true));
        standings.set_health(1, Health::Healthy, "passed");
        assert_eq!((used(&standings), standings.is_in_panic()), ([1, 2].into(), false));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_panic_threshold_and_when_all_are_out_there_is_none() {
        let strict = standings(2, Rules { panic_threshold: None, ..RULES });
        (0..2).for_each(|index| strict.set_health(index, Health::Unhealthy, "timeout"));
        assert_eq!(strict.pick(&[]), None);
        let out = standings(2, RULES);
        assert!(out.set_in_use("shop:0", false) && out.set_in_use("shop:1", false));
        assert_eq!(out.pick(&[]), None, "what an operator takes out stays out");
        assert!(!out.set_in_use("shop:7", false));
        assert!(out.set_in_use("shop:1", true));
        assert_eq!(used(&out), [1].into());
    }

    #[tokio::test(start_paused = true)]
    async fn who_returns_begins_slowly_and_unknown_is_usable() {
        let standings = standings(2, Rules { slow_start: Some(Duration::from_secs(10)), ..RULES });
        assert_eq!(words(&standings), ["usable"; 2]);
        standings.set_health(0, Health::Healthy, "passed");
        assert_eq!(words(&standings), ["usable"; 2], "it never was away");
        standings.set_health(0, Health::Unhealthy, "timeout");
        standings.set_health(0, Health::Healthy, "passed");
        assert_eq!(words(&standings), ["slow_start", "usable"]);
        let share = (0..1000).filter(|_| standings.pick(&[]) == Some(0)).count();
        assert!(share < 150, "{share} of 1000 at first");
        pass(&standings, 10).await;
        assert_eq!(words(&standings), ["usable"; 2]);
        let share = (0..1000).filter(|_| standings.pick(&[]) == Some(0)).count();
        assert_eq!(share, 500);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_done_by_itself() {
        let standings = standings(2, Rules { slow_start: Some(Duration::from_secs(5)), ..RULES });
        let kept = Arc::clone(&standings);
        let _task = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move { kept.keep().await }));
        fail(&standings, 0, 3);
        let seconds = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        seconds(29).await;
        assert_eq!(words(&standings)[0], "ejected");
        seconds(2).await;
        assert_eq!(words(&standings)[0], "slow_start");
        seconds(5).await;
        assert_eq!(words(&standings)[0], "usable");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_of_an_endpoint_is_carried_over_by_its_address() {
        let (before, after) = (standings(4, RULES), standings(3, RULES));
        before.set_in_use("shop:0", false);
        before.set_health(1, Health::Unhealthy, "timeout");
        fail(&before, 2, 3);
        after.carry_over(&before, true);
        assert_eq!(words(&after), ["out", "unhealthy", "ejected"]);
        pass(&after, 30).await;
        assert_eq!(words(&after), ["out", "unhealthy", "usable"]);
        let otherwise_checked = standings(2, RULES);
        otherwise_checked.carry_over(&before, false);
        assert_eq!(words(&otherwise_checked), ["out", "usable"]);
    }
}
