//! Buckets that several gateways share, in Redis: one atomic script a request, by Redis's own clock.
//!
//! The connection is ours (the resolver's names, our TLS); the `redis` crate speaks the protocol on it. A request
//! waits for an answer as long as the operator allows. After a failure nobody is made to wait for [`AWAY`]: then one
//! more try is made.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, Script};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::bucket::{Grant, Rate};
use crate::net::tls::{self, ClientTls};
use crate::net::{self, Name, Resolver, Socket, Stream};
use crate::setting::Secret;

/// A Redis as used: what `[redis.NAME]` means once it has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The key in the table.
    pub name: Box<str>,
    /// A name or an IP literal, without brackets.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// The number of the database.
    pub database: u16,
    /// Who we are, if not the default user.
    pub username: Option<Box<str>>,
    /// Our password.
    pub password: Option<Secret>,
    /// TLS, with its authorities loaded.
    pub tls: Option<ClientTls>,
    /// How long a request may wait for an answer.
    pub timeout: Duration,
    /// How long connecting may take: the name, TLS and the greeting included.
    pub connect_timeout: Duration,
}

/// One Redis, asked over one connection that all requests share.
pub struct Store {
    settings: Settings,
    name: Name,
    connection: watch::Sender<Option<MultiplexedConnection>>,
    dialing: AtomicBool,
    began: Instant,
    /// Until when nobody asks, in milliseconds since it began.
    away_until: AtomicU64,
    /// When it was last said to be away, in the same; 0 is never.
    told: AtomicU64,
    is_away: AtomicBool,
}

/// Redis could not be asked, or did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away;

impl Store {
    /// A store that connects when it is first asked.
    pub fn new(settings: Settings, resolver: &Resolver) -> Self {
        Self {
            name: resolver.name(&settings.host),
            settings,
            connection: watch::Sender::new(None),
            dialing: AtomicBool::new(false),
            began: Instant::now(),
            away_until: AtomicU64::new(0),
            told: AtomicU64::new(0),
            is_away: AtomicBool::new(false),
        }
    }

    /// One request at the bucket of this key.
    pub async fn take(self: &Arc<Self>, rate: Rate, key: &str) -> Result<Grant, Away> {
        if self.away_until.load(Ordering::Relaxed) > self.now() {
            return Err(Away);
        }
        match timeout(self.settings.timeout, self.ask(rate, key)).await {
            Ok(Ok(grant)) => {
                if self.is_away.swap(false, Ordering::Relaxed) {
                    tracing::info!(redis = &*self.settings.name, "redis answers again");
                }
                Ok(grant)
            }
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(elapsed) => Err(self.failed(&elapsed)),
        }
    }

    /// Connects, says who we are, and has it answer once. The error is for the operator.
    pub async fn greet(&self) -> Result<(), String> {
        let told = |error: &(dyn std::error::Error + Send + Sync)| match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        let mut connection = self.dial().await.map_err(|error| told(&*error))?;
        redis::cmd("PING").exec_async(&mut connection).await.map_err(|error| told(&error))
    }

    /// Whether the last try failed.
    pub fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    async fn ask(self: &Arc<Self>, rate: Rate, key: &str) -> Result<Grant, redis::RedisError> {
        let mut connection = self.connection().await;
        let microseconds =
            |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).clamp(1, LONGEST);
        let mut call = SCRIPT.key(key);
        call.arg(microseconds(rate.interval())).arg(microseconds(rate.window()));
        let (allowed, full_in): (bool, u64) = call.invoke_async(&mut connection).await?;
        Ok(rate.grant(allowed, Duration::from_micros(full_in)))
    }

    /// The connection, as soon as there is one. It is made by a task of its own, which goes on although a request
    /// has no more time to wait for it.
    async fn connection(self: &Arc<Self>) -> MultiplexedConnection {
        let mut connections = self.connection.subscribe();
        if connections.borrow().is_none() && !self.dialing.swap(true, Ordering::AcqRel) {
            let store = Arc::clone(self);
            tokio::spawn(async move {
                match timeout(store.settings.connect_timeout, store.dial()).await {
                    Ok(Ok(connection)) => {
                        store.connection.send_replace(Some(connection));
                    }
                    Ok(Err(error)) => drop(store.failed(&*error)),
                    Err(elapsed) => drop(store.failed(&elapsed)),
                }
                store.dialing.store(false, Ordering::Release);
            });
        }
        let connected = connections.wait_for(Option::is_some).await;
        connected.expect("the sender is ours").clone().expect("waited for")
    }

    async fn dial(&self) -> Result<MultiplexedConnection, Box<dyn std::error::Error + Send + Sync>> {
        let bound = self.settings.connect_timeout;
        let addresses = self.name.addresses(bound).await?;
        let addresses: Vec<_> =
            addresses.iter().map(|&address| SocketAddr::new(address, self.settings.port)).collect();
        let stream = Socket::tcp(net::dial(&addresses, bound).await?.stream);
        let stream = match &self.settings.tls {
            None => Stream::Plain(stream),
            Some(ClientTls { config, server_name }) => {
                Stream::Tls(Box::new(tls::connect(config, server_name.clone(), stream).await?.0))
            }
        };
        let mut who =
            RedisConnectionInfo::default().set_db(i64::from(self.settings.database)).set_skip_set_lib_name();
        if let Some(username) = &self.settings.username {
            who = who.set_username(username);
        }
        if let Some(password) = &self.settings.password {
            who = who.set_password(password.expose());
        }
        // every wait is bounded by ours
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (connection, driver) = MultiplexedConnection::new_with_config(&who, stream, config).await?;
        tokio::spawn(driver);
        Ok(connection)
    }

    /// What is said of a failure, at most once a minute. The connection is not trusted any more.
    fn failed(&self, error: &(dyn std::error::Error + 'static)) -> Away {
        let now = self.now();
        self.away_until.store(now + AWAY, Ordering::Relaxed);
        self.connection.send_replace(None);
        self.is_away.store(true, Ordering::Relaxed);
        let told = self.told.load(Ordering::Relaxed);
        if (told == 0 || now - told > TELL_AGAIN)
            && self.told.compare_exchange(told, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            tracing::warn!(redis = &*self.settings.name, %error, "redis does not answer");
        }
        Away
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// How long nobody asks after a failure, in milliseconds.
const AWAY: u64 = 1_000;

/// How often it is said that a Redis is away, in milliseconds.
const TELL_AGAIN: u64 = 60_000;

/// The longest time in an argument, in microseconds: Lua counts exactly up to 2⁵³.
const LONGEST: u64 = 1 << 50;

/// The bucket's arithmetic (`Rate::take`) in microseconds: when it is full again is all that is kept, and no longer
/// than until then.
static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = redis.call('TIME')
        local now = time[1] * 1000000 + time[2]
        local interval, capacity = tonumber(ARGV[1]), tonumber(ARGV[2])
        local before = math.max(tonumber(redis.call('GET', KEYS[1]) or '0') or 0, now)
        local after = before + interval
        if after - now > capacity then
            return {0, before - now}
        end
        redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
        return {1, after - now}",
    )
});
