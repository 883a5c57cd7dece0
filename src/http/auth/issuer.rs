//! An issuer's keys: read once, or fetched and kept up to date in the background.
//!
//! A request never fetches. It uses what is there; if nothing is, or a token names a key that is not, it asks the
//! one task that fetches and waits for its answer. Tokens of strangers cannot make that task ask more often than
//! the operator allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, StatusCode, Uri};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::jwk::KeySet;
use crate::net::Resolver;
use crate::net::fetch::Page;
use crate::net::tls::ClientTls;
use crate::telemetry::metrics::issuers::Fetches;

/// How long a fetched set counts as fresh if the issuer does not say.
const LIFETIME: Duration = Duration::from_mins(5);

/// The wait after the first fetch that failed, and the longest.
const BACK_OFF: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(30);

/// Where the keys of an issuer come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// They have been read from a file.
    Read(Arc<KeySet>),
    /// They are fetched.
    Url(Box<Fetched>),
}

/// How keys are fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetched {
    /// From where.
    pub url: Uri,
    /// Over TLS, if that is there.
    pub tls: Option<ClientTls>,
    /// How long a fetch, or a request's wait for one, may take.
    pub timeout: Duration,
    /// The most bytes of the set.
    pub bytes: usize,
    /// A set is not fetched again before this, whatever the issuer says of its age.
    pub refresh_min: Duration,
    /// A set is fetched again after this, whatever the issuer says of its age.
    pub refresh_max: Duration,
    /// The least time between two fetches because of a token with an unknown key.
    pub refetch: Duration,
    /// How long keys that should have been fetched anew still serve, if the issuer is away.
    pub stale: Duration,
}

/// An issuer.
#[derive(Debug)]
pub struct Issuer {
    shared: Arc<Shared>,
    /// Ends with this; none if there is nothing to be fetched.
    _task: Option<AbortOnDropHandle<()>>,
}

/// The keys as they were at some moment.
#[derive(Debug, Clone)]
pub struct Keys(Arc<Known>);

#[derive(Debug)]
struct Shared {
    known: ArcSwap<Known>,
    rounds: watch::Sender<u64>,
    asked: Notify,
    /// The last round that was found wanting.
    wanting: AtomicU64,
    /// `None` if there is nothing to be fetched.
    fetched: Option<Fetched>,
}

/// What is known.
#[derive(Debug, Clone)]
struct Known {
    set: Option<Arc<KeySet>>,
    /// Until when the set serves; `None` is for ever.
    until: Option<Instant>,
    /// How often it has been fetched, or tried to be.
    round: u64,
    /// When the last fetch was begun.
    begun: Option<Instant>,
    /// It has not ended.
    under_way: bool,
    /// The last fetch failed.
    away: bool,
}

impl Issuer {
    /// An issuer by this source, whose fetches are counted here. To be called within a runtime.
    pub fn new(source: &Source, rule: &Arc<str>, resolver: &Resolver, told: Fetches) -> Arc<Self> {
        let mut known =
            Known { set: None, until: None, round: 0, begun: None, under_way: false, away: false };
        let fetched = match source {
            Source::Read(set) => {
                known.set = Some(Arc::clone(set));
                None
            }
            Source::Url(fetched) => Some(Fetched::clone(fetched)),
        };
        let shared = Arc::new(Shared {
            known: ArcSwap::new(Arc::new(known)),
            rounds: watch::Sender::new(0),
            asked: Notify::new(),
            wanting: AtomicU64::new(0),
            fetched: fetched.clone(),
        });
        let task = fetched.map(|fetched| {
            let page = Page::new(&fetched.url, fetched.tls.clone(), resolver);
            let task = keep_current(Arc::clone(&shared), fetched, page, Arc::clone(rule), told);
            AbortOnDropHandle::new(tokio::spawn(task))
        });
        Arc::new(Self { shared, _task: task })
    }

    /// The keys as they are now.
    pub fn keys(&self) -> Keys {
        Keys(self.shared.known.load_full())
    }

    /// Whether the last fetch failed.
    pub fn is_away(&self) -> bool {
        self.shared.known.load().away
    }

    /// Whether it makes sense, and is allowed, to ask for newer keys now.
    pub fn may_be_asked(&self) -> bool {
        let known = self.shared.known.load();
        self.shared.fetched.as_ref().is_some_and(|fetched| {
            // who is away is asked in the background alone
            !known.away
                && (known.under_way || known.begun.is_none_or(|begun| begun.elapsed() >= fetched.refetch))
        })
    }

    /// Newer keys than these, if there are any before the wait is over.
    pub async fn newer(&self, than: Keys) -> Keys {
        if let Some(fetched) = &self.shared.fetched
            && self.may_be_asked()
        {
            let mut rounds = self.shared.rounds.subscribe();
            self.shared.wanting.fetch_max(than.0.round, Ordering::Relaxed);
            self.shared.asked.notify_one();
            let _ = timeout(fetched.timeout, rounds.wait_for(|round| *round > than.0.round)).await;
        }
        self.keys()
    }
}

impl Keys {
    /// The set, as long as it serves.
    pub fn usable(&self) -> Option<&Arc<KeySet>> {
        self.0.set.as_ref().filter(|_| self.0.until.is_none_or(|until| Instant::now() < until))
    }
}

/// Fetches for ever: when a set is no longer fresh, when one is asked for, and soon again after a failure.
async fn keep_current(shared: Arc<Shared>, fetched: Fetched, page: Page, rule: Arc<str>, told: Fetches) {
    let mut back_off = BACK_OFF.start;
    loop {
        let begun = Instant::now();
        shared.change(|known| (known.begun, known.under_way) = (Some(begun), true));
        let found = fetch(&page, &fetched).await;
        let now = Instant::now();
        let was_away = shared.known.load().away;
        let next = match found {
            Ok((set, lifetime)) => {
                if was_away {
                    tracing::info!(%rule, "the issuer's keys can be fetched again");
                }
                told.fetched(set.count());
                back_off = BACK_OFF.start;
                shared.change(|known| {
                    known.until = Some(now + lifetime + fetched.stale);
                    // the same keys stay the same set: what they have verified need not be verified again
                    if known.set.as_deref() != Some(&set) {
                        known.set = Some(Arc::new(set));
                    }
                    known.away = false;
                });
                now + lifetime
            }
            Err(why) => {
                if !was_away {
                    tracing::warn!(%rule, error = why, "the issuer's keys cannot be fetched");
                }
                told.failed();
                shared.change(|known| known.away = true);
                let next = now + back_off;
                back_off = (back_off * 2).min(BACK_OFF.end);
                next
            }
        };
        shared.change(|known| {
            known.round += 1;
            known.under_way = false;
        });
        shared.rounds.send_modify(|round| *round += 1);
        loop {
            tokio::select! {
                () = sleep_until(next) => break,
                () = shared.asked.notified() => {
                    let known = shared.known.load();
                    // who asked while this set was on its way has it by now
                    let wanting = shared.wanting.load(Ordering::Relaxed) >= known.round;
                    if wanting && !known.away && begun.elapsed() >= fetched.refetch {
                        break;
                    }
                }
            }
        }
    }
}

/// The set, and how long it is fresh.
async fn fetch(page: &Page, fetched: &Fetched) -> Result<(KeySet, Duration), String> {
    let answer = page.get(fetched.bytes, fetched.timeout).await?;
    if answer.status() != StatusCode::OK {
        return Err(format!("status {}", answer.status().as_u16()));
    }
    let set = KeySet::parse(answer.body())?;
    let lifetime = max_age(answer.headers()).unwrap_or(LIFETIME);
    Ok((set, lifetime.clamp(fetched.refresh_min, fetched.refresh_max)))
}

/// What `Cache-Control` says of how long the page is fresh (RFC 9111 section 5.2.2).
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut lifetime = None;
    for directive in values.flat_map(|value| value.split(',')).map(str::trim) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        if name.eq_ignore_ascii_case("max-age") {
            lifetime = value.trim_matches('"').parse().ok().map(Duration::from_secs);
        }
    }
    lifetime
}

impl Shared {
    /// Only the task that fetches changes what is known.
    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = Known::clone(&self.known.load());
        change(&mut known);
        self.known.store(Arc::new(known));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;

    use super::max_age;

    #[test]
    fn how_long_a_set_is_fresh_is_for_the_issuer_to_say() {
        for (values, expected) in [
            (&["public, max-age=300"][..], Some(300)),
            (&["Max-Age=\"7\""], Some(7)),
            (&["no-cache, max-age=300"], Some(0)),
            (&["private", "no-store"], Some(0)),
            (&["max-age=soon"], None),
            (&["s-maxage=10"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("cache-control", value.parse().unwrap());
            }
            assert_eq!(max_age(&headers), expected.map(Duration::from_secs), "{values:?}");
        }
    }
}
