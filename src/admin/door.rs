//! Who asks, and whether they may, whatever the way in; wrong credentials are counted and slowed down.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::header::HeaderMap;

use super::guard;
use super::role::Right;
use super::ways::{Found, Known, Way, Ways};
use crate::net::serve::Client;
use crate::view::View;

/// Stands before every page.
#[derive(Debug)]
pub(super) struct Door {
    ways: View<Ways>,
    wrong: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

/// Who has come in.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Who {
    /// Nobody is asked: there is no way in, and only this machine can reach the address.
    Anyone,
    /// Somebody who is known.
    Named(Known),
}

/// Why somebody may not.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Refusal {
    /// Nothing was shown.
    NoToken,
    /// What was shown is none of what opens, or has expired.
    WrongToken,
    /// The same once more, and too often.
    TooMany,
    /// This one's role does not have the right.
    Forbidden(Known),
    /// The issuer's token is valid, and says nothing that stands for a role.
    NoRole,
    /// A browser has sent the certificate for a page of another site.
    OtherSite(Known),
    /// A login was sent by a page of another site.
    OtherPage,
    /// Whoever knows the issuer's keys is away.
    Unavailable,
    /// Changes need somebody who is known, and there is no way in.
    ReadOnly,
}

impl Who {
    /// As the audit has it: the name, and by which way.
    pub(super) fn told(&self) -> (Arc<str>, Option<Way>) {
        match self {
            Self::Anyone => ("-".into(), None),
            Self::Named(known) => (Arc::clone(&known.name), Some(known.way())),
        }
    }

    /// Whether this one may do it.
    pub(super) fn may(&self, right: Right) -> bool {
        match self {
            Self::Anyone => right.is_reading(),
            Self::Named(known) => right.roles().contains(&known.role),
        }
    }
}

impl Refusal {
    /// Who was refused, as the audit has it.
    pub(super) fn told(&self) -> (Arc<str>, Option<Way>) {
        match self {
            Self::Forbidden(known) | Self::OtherSite(known) => (Arc::clone(&known.name), Some(known.way())),
            Self::NoRole => ("-".into(), Some(Way::Jwt)),
            Self::NoToken
            | Self::WrongToken
            | Self::TooMany
            | Self::OtherPage
            | Self::Unavailable
            | Self::ReadOnly => ("-".into(), None),
        }
    }
}

impl Door {
    /// Opens by these ways.
    pub(super) fn new(ways: View<Ways>) -> Self {
        Self { ways, wrong: Mutex::default() }
    }

    /// Whether anybody is asked who they are.
    pub(super) fn asks(&self) -> bool {
        !self.ways.current().is_empty()
    }

    /// Who asks, if they may.
    ///
    /// Right credentials pass however many wrong ones came from their address: none of them can be guessed, and
    /// nobody is to lock out an operator.
    pub(super) async fn pass(
        &self,
        right: Right,
        headers: &HeaderMap,
        client: &Client,
    ) -> Result<Who, Refusal> {
        if right.is_everybodys() {
            return Ok(Who::Anyone);
        }
        let ways = self.ways.current();
        if ways.is_empty() {
            return Self::let_in(right, Who::Anyone);
        }
        match ways.find(headers, client.certificate.as_deref()).await {
            // a browser shows a certificate whoever's page asks
            Found::Known(known)
                if known.way() == Way::Certificate
                    && !right.is_reading()
                    && guard::is_of_another_site(headers) =>
            {
                Err(Refusal::OtherSite(known))
            }
            Found::Known(known) => Self::let_in(right, Who::Named(known)),
            Found::NoRole => Err(Refusal::NoRole),
            Found::Nothing => Err(Refusal::NoToken),
            Found::Unknown => Err(Refusal::Unavailable),
            Found::Wrong if self.is_patient(client.address, Instant::now()) => Err(Refusal::WrongToken),
            Found::Wrong => Err(Refusal::TooMany),
        }
    }

    /// Lets somebody in who is known, if they may.
    pub(super) fn let_in(right: Right, who: Who) -> Result<Who, Refusal> {
        match who {
            who if who.may(right) => Ok(who),
            Who::Anyone => Err(Refusal::ReadOnly),
            Who::Named(known) => Err(Refusal::Forbidden(known)),
        }
    }

    /// Whether what this one has shown still opens, for the same role.
    pub(super) fn still_opens(&self, known: &Known) -> bool {
        self.ways.current().still_open(known, SystemTime::now())
    }

    /// Counts wrong credentials; `false` where there have been too many of this address.
    fn is_patient(&self, from: IpAddr, now: Instant) -> bool {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= ADDRESSES {
            wrong.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        if wrong.len() >= ADDRESSES && !wrong.contains_key(&from) {
            return false;
        }
        let (since, count) = wrong.entry(from).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= PATIENCE
    }
}

/// Wrong credentials of one address in a window that are answered 401; more are 429.
const PATIENCE: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// Addresses whose wrong credentials are counted at once; those beyond get no patience.
const ADDRESSES: usize = 1024;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use http::header::{AUTHORIZATION, HeaderMap};

    use super::{Client, Door, PATIENCE, Refusal, Right, Who};
    use crate::admin::role::Role;
    use crate::admin::ways::{Settings, Token, Ways};
    use crate::net::{DnsSettings, Resolver};
    use crate::setting::Hash;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::settings;
    use crate::view::View;

    fn client(address: impl Into<IpAddr>) -> Client {
        Client { address: address.into(), certificate: None }
    }

    fn here() -> Client {
        client(Ipv4Addr::LOCALHOST)
    }

    fn token(name: &str, role: Role, secrets: &[(&str, Option<SystemTime>)]) -> Token {
        let hashes = secrets.iter().map(|(secret, expires)| (Hash::of(secret), *expires)).collect();
        Token { name: name.into(), role, hashes }
    }

    fn door(tokens: Vec<Token>) -> Door {
        let soon = Duration::from_secs(1);
        let dns = DnsSettings { servers: Vec::new(), min_ttl: soon, max_ttl: soon };
        let metrics = Metrics::new(&settings::Metrics::default());
        let settings = Settings { tokens, ..Settings::default() };
        Door::new(View::new(Arc::new(Ways::new(&settings, &Resolver::new(&dns), &metrics, None))))
    }

    fn showing(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
    }

    #[tokio::test]
    async fn two_tokens_of_one_name_are_live_until_the_old_one_expires() {
        let soon = SystemTime::now() + Duration::from_mins(1);
        let over = SystemTime::now() - Duration::from_mins(1);
        let secrets = [("new", None), ("old", Some(soon)), ("older", Some(over))];
        let door = door(vec![token("deploy", Role::Operator, &secrets)]);
        for (shown, passes) in [("new", true), ("old", true), ("older", false), ("", false)] {
            let passed = door.pass(Right::Change, &showing(shown), &here()).await;
            assert_eq!(passed.is_ok(), passes, "{shown}");
        }
        assert_eq!(door.pass(Right::Look, &HeaderMap::new(), &here()).await, Err(Refusal::NoToken));
        assert_eq!(door.pass(Right::Probe, &HeaderMap::new(), &here()).await, Ok(Who::Anyone));
    }

    #[tokio::test]
    async fn where_there_is_no_way_in_anybody_may_read_and_nobody_may_change() {
        let door = door(Vec::new());
        assert_eq!(door.pass(Right::Look, &HeaderMap::new(), &here()).await, Ok(Who::Anyone));
        assert_eq!(door.pass(Right::Change, &HeaderMap::new(), &here()).await, Err(Refusal::ReadOnly));
    }

    #[tokio::test]
    async fn wrong_tokens_are_slowed_down_and_a_right_one_still_passes() {
        let door = door(vec![token("ops", Role::Operator, &[("right", None)])]);
        let wrong = showing("wrong");
        for _ in 0..PATIENCE {
            assert_eq!(door.pass(Right::Look, &wrong, &here()).await, Err(Refusal::WrongToken));
        }
        assert_eq!(door.pass(Right::Look, &wrong, &here()).await, Err(Refusal::TooMany));
        assert!(door.pass(Right::Look, &showing("right"), &here()).await.is_ok());
        let elsewhere = client([192, 0, 2, 1]);
        assert_eq!(door.pass(Right::Look, &wrong, &elsewhere).await, Err(Refusal::WrongToken));
    }
}
