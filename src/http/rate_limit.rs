//! Rate limits: a token bucket for each client, by address, header field or identity, or one for a route.
//!
//! `[rate_limits.NAME]` is one [`Limiter`]: one set of buckets for all the routes that name it. They are this gateway's
//! own ([`table`]) or shared by several ([`store`]).

pub mod bucket;
pub mod crowd;
pub mod file;
pub mod store;
pub mod table;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use self::bucket::{Grant, Rate};
use self::crowd::Crowd;
use self::store::Store;
use self::table::Table;
use super::identity::Identity;
use crate::failure::{Detail, Failure, Reason};
use crate::telemetry::attribute::Configured;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::limits::{LimitOutcome, LimitSeries};

pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A rate limit as used: what `[rate_limits.NAME]` means once it has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The key in the table.
    pub name: Box<str>,
    /// Whose requests share a bucket.
    pub key: Key,
    /// How fast a bucket fills, and what it holds.
    pub rate: Rate,
    /// So many bits of an IPv4 address are one client.
    pub ipv4_prefix: u8,
    /// So many bits of an IPv6 address are one client.
    pub ipv6_prefix: u8,
    /// The most keys of this gateway's own table.
    pub max_keys: usize,
    /// Count what would be refused, and refuse nothing.
    pub dry_run: bool,
    /// Whether answers carry `RateLimit` and `RateLimit-Policy`.
    pub headers: bool,
    /// The Redis that holds the buckets; `None` is this gateway's own table.
    pub redis: Option<store::Settings>,
    /// What happens while that Redis is away.
    pub on_failure: OnFailure,
}

impl Settings {
    /// Whether it can be asked only when somebody has been verified.
    pub fn needs_identity(&self) -> bool {
        matches!(self.key, Key::Identity | Key::Claim(_))
    }

    /// What it does, in words.
    pub fn told(&self) -> String {
        let key = match &self.key {
            Key::Address => "client address".to_owned(),
            Key::Route => "route".to_owned(),
            Key::Header(name) => format!("value of {name}"),
            Key::Identity => "identity".to_owned(),
            Key::Claim(claim) => format!("value of the claim {claim}"),
        };
        let (burst, interval) = (self.rate.burst(), self.rate.interval());
        let place =
            self.redis.as_ref().map_or_else(String::new, |redis| format!(", in redis {}", redis.name));
        let dry_run = if self.dry_run { ", counted only" } else { "" };
        format!("{}: {burst} at once and one each {interval:?} by {key}{place}{dry_run}", self.name)
    }
}

/// Whose requests share a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// Those of one client address, or of its network.
    Address,
    /// All of one route.
    Route,
    /// Those with one value of a header field; those without it are one client.
    Header(HeaderName),
    /// Those of one verified identity: what a rule of `[auth]` calls its subject. Those of nobody are one client.
    Identity,
    /// Those with one value of a verified token's claim; those without it are one client.
    Claim(Box<str>),
}

/// What happens to a request while the shared store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// It is let through.
    Open,
    /// It is refused: 503.
    Closed,
    /// This gateway's own bucket decides.
    Local,
}

/// What of a request decides whose it is.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The client's address, by the listener's rule of trust.
    pub client: IpAddr,
    /// Whether the connection's peer speaks for others.
    pub trusted: bool,
    /// The route's key in the table.
    pub route: &'a str,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// Who was verified.
    pub identity: Option<&'a Identity>,
    /// Now.
    pub now: Instant,
}

/// A limit and its buckets.
#[derive(Debug)]
pub struct Limiter {
    settings: Settings,
    rule: Arc<str>,
    table: Table,
    began: Instant,
    store: Option<Arc<Store>>,
    crowd: Crowd,
    series: LimitSeries,
}

/// A request that has to be asked of the shared store.
#[derive(Debug)]
pub struct Question {
    key: String,
    number: u64,
    now: u64,
}

/// What one limit says to a request: it may go on, and what its answer tells; or why not.
pub type Verdict = Result<Option<Grant>, Failure>;

impl Limiter {
    /// An empty set of buckets; `store` is the Redis that the settings name.
    pub fn new(settings: &Settings, store: Option<Arc<Store>>, metrics: &Metrics) -> Self {
        let rule: Arc<str> = format!("rate_limits.{}", settings.name).into();
        Self {
            settings: settings.clone(),
            table: Table::new(settings.rate, settings.max_keys),
            began: Instant::now(),
            store,
            crowd: Crowd::default(),
            series: metrics.rate_limit(&Configured::new(Arc::clone(&rule))),
            rule,
        }
    }

    /// What it was made of.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether it has to be asked after somebody has been verified.
    pub fn needs_identity(&self) -> bool {
        self.settings.needs_identity()
    }

    /// Whether several gateways share its buckets.
    pub fn is_shared(&self) -> bool {
        self.store.is_some()
    }

    /// Keys in this gateway's own table.
    pub fn keys(&self) -> usize {
        self.table.keys()
    }

    /// Whether all clients seem to have one address, so that their limits are one.
    pub fn has_one_client(&self) -> bool {
        self.crowd.is_noticed()
    }

    /// Whether its Redis did not answer when it was last asked.
    pub fn is_store_away(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.is_away())
    }

    /// This gateway's own bucket decides.
    pub fn take(&self, asking: &Asking<'_>) -> Verdict {
        let number = self.number(asking);
        self.take_own(number, self.since(asking.now))
    }

    /// What has to be asked of the shared store; `None` if there is none.
    pub fn question(&self, asking: &Asking<'_>) -> Option<Question> {
        self.store.as_ref()?;
        let number = self.number(asking);
        let (kind, text) = match &self.settings.key {
            Key::Address => ("address", self.network(asking.client).to_string()),
            Key::Route => ("route", asking.route.to_owned()),
            Key::Header(_) => ("header", hex(&self.said(asking))),
            Key::Identity => ("identity", hex(&self.said(asking))),
            Key::Claim(_) => ("claim", hex(&self.said(asking))),
        };
        let key = format!("tracegate:{}:{kind}:{text}", self.rule);
        Some(Question { key, number, now: self.since(asking.now) })
    }

    /// The shared store decides; while it is away, what the operator chose.
    pub async fn ask(&self, question: Question) -> Verdict {
        let Some(store) = &self.store else { return self.take_own(question.number, question.now) };
        match store.take(self.settings.rate, &question.key).await {
            Ok(grant) => self.decide(grant),
            Err(store::Away) => match self.settings.on_failure {
                OnFailure::Open => {
                    self.series.count(LimitOutcome::FailedOpen);
                    Ok(None)
                }
                OnFailure::Local => {
                    self.series.count(LimitOutcome::FailedLocal);
                    self.take_own(question.number, question.now)
                }
                OnFailure::Closed => {
                    self.series.count(LimitOutcome::FailedClosed);
                    let failure = Failure::new(Reason::Overloaded).detail(Detail::StoreAway);
                    Err(failure.rule(&self.rule))
                }
            },
        }
    }

    /// The member of `RateLimit-Policy` for this limit (draft-ietf-httpapi-ratelimit-headers-10): the quota is what
    /// the bucket holds, the window how long it takes to fill.
    pub fn policy(&self) -> String {
        let (burst, window) = (self.settings.rate.burst(), seconds(self.settings.rate.window()));
        format!("\"{}\";q={burst};w={window}", self.settings.name)
    }

    /// The member of `RateLimit` for this limit.
    pub fn state(&self, grant: &Grant) -> String {
        format!("\"{}\";r={};t={}", self.settings.name, grant.remaining, seconds(grant.full_in))
    }

    fn take_own(&self, number: u64, now: u64) -> Verdict {
        let before = self.table.keys();
        let taken = self.table.take(number, now);
        if taken.evicted {
            self.series.evicted();
        }
        let keys = self.table.keys();
        if keys != before {
            self.series.keys(keys);
        }
        self.decide(taken.grant)
    }

    fn decide(&self, grant: Grant) -> Verdict {
        let Settings { dry_run, headers, .. } = self.settings;
        if grant.allowed {
            self.series.count(LimitOutcome::Allowed);
            return Ok((headers && !dry_run).then_some(grant));
        }
        if dry_run {
            self.series.count(LimitOutcome::WouldRefuse);
            return Ok(None);
        }
        self.series.count(LimitOutcome::Refused);
        let again = HeaderValue::from(seconds(grant.again_in).max(1));
        let mut failure = Failure::new(Reason::RateLimited).rule(&self.rule).field(RETRY_AFTER, again);
        if headers {
            failure = failure
                .field(RATE_LIMIT_POLICY, value(self.policy()))
                .field(RATE_LIMIT, value(self.state(&grant)));
        }
        Err(failure)
    }

    /// The number of the bucket that this request takes from.
    fn number(&self, asking: &Asking<'_>) -> u64 {
        match &self.settings.key {
            Key::Address => {
                let network = self.network(asking.client);
                let number = self.table.number(&network);
                self.watch(number, asking);
                number
            }
            Key::Route => self.table.number(asking.route),
            Key::Header(_) | Key::Identity | Key::Claim(_) => self.table.number(&*self.said(asking)),
        }
    }

    /// What the client said, or was verified to be, that its bucket is found by; nothing is a key like any other.
    fn said<'a>(&self, asking: &Asking<'a>) -> Cow<'a, [u8]> {
        let said = |text: Option<Cow<'a, str>>| match text.unwrap_or_default() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        match &self.settings.key {
            Key::Header(name) => Cow::Borrowed(asking.headers.get(name).map_or(&[], HeaderValue::as_bytes)),
            Key::Claim(name) => said(asking.identity.and_then(|identity| identity.claim(name))),
            Key::Identity => {
                let whole = |identity: &Identity| format!("{} {}", identity.rule, identity.subject).into();
                said(asking.identity.map(whole))
            }
            Key::Address | Key::Route => Cow::Borrowed(&[]),
        }
    }

    /// Is it one stranger that asks for all?
    fn watch(&self, network: u64, asking: &Asking<'_>) {
        if asking.trusted {
            return;
        }
        match asking.headers.get(super::headers::X_FORWARDED_FOR) {
            None => self.crowd.saw_a_client(),
            Some(client) => {
                if self.crowd.saw(network, self.table.number(client.as_bytes())) {
                    tracing::warn!(
                        rule = &*self.rule,
                        "all requests come from one address that asks for many clients, so that a limit of each \
                         client is one of all: name the load balancer in trusted_proxies"
                    );
                }
            }
        }
    }

    /// The client's network: what of its address counts.
    fn network(&self, client: IpAddr) -> IpAddr {
        match client.to_canonical() {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.settings.ipv4_prefix)).unwrap_or(0);
                Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.settings.ipv6_prefix)).unwrap_or(0);
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        }
    }

    fn since(&self, now: Instant) -> u64 {
        // one more than nothing, so that a bucket that is full is always in the past
        let since = now.saturating_duration_since(self.began).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// Whole seconds, rounded up.
fn seconds(time: std::time::Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// A value of a header field, of a name and numbers.
pub(super) fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("names and numbers may stand in a field")
}

/// What a client sent, as a key: a digest, so that Redis holds no secret of a client's and no long text.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref()[..16].iter().fold(String::with_capacity(32), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to memory does not fail");
        text
    })
}
