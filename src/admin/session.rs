//! Sessions of the page: somebody has shown a token once and has a cookie instead, which scripts cannot read and
//! other sites cannot use.
//!
//! A session is worth what its token is: when that goes, expires or gets another role, the session is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, HeaderMap, HeaderValue};

use super::ways::Known;
use crate::setting::Hash;

/// The bounds of sessions: what `[admin.sessions]` means once it has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The most that are open at once; one more ends the one that was not used for longest.
    pub most: usize,
    /// How old one may become.
    pub age: Duration,
    /// One that is not used for so long is over.
    pub idle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { most: 64, age: Duration::from_hours(12), idle: Duration::from_hours(1) }
    }
}

/// The open sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    settings: Settings,
    /// Whether cookies are for TLS alone.
    secure: bool,
    open: Mutex<HashMap<[u8; 8], Session>>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Session {
    id: Hash,
    /// Who opened it, and by what.
    pub(super) known: Known,
    /// What a change has to show beside the cookie.
    pub(super) csrf: Arc<str>,
    opened: Instant,
    used: Instant,
}

impl Sessions {
    pub(super) fn new(settings: Settings, secure: bool) -> Self {
        Self { settings, secure, open: Mutex::default() }
    }

    /// Opens one, and says with which cookie and which token for changes.
    pub(super) fn open(&self, known: Known) -> (HeaderValue, Arc<str>) {
        let (secret, csrf, now) = (random(), Arc::<str>::from(random()), Instant::now());
        let id = Hash::of(&secret);
        let session = Session { id, known, csrf: Arc::clone(&csrf), opened: now, used: now };
        let mut open = self.sessions();
        open.retain(|_, session| self.lives(session, now));
        if open.len() >= self.settings.most
            && let Some(oldest) = open.iter().min_by_key(|(_, session)| session.used).map(|(id, _)| *id)
        {
            open.remove(&oldest);
        }
        open.insert(id.place(), session);
        (self.cookie(&secret, self.settings.age), csrf)
    }

    /// The session whose cookie these fields have. It counts as used.
    pub(super) fn find(&self, headers: &HeaderMap) -> Option<Session> {
        let id = Hash::of(self.secret(headers)?);
        let now = Instant::now();
        let mut open = self.sessions();
        let session = open.get_mut(&id.place()).filter(|session| session.id.matches(&id))?;
        if !self.lives(session, now) {
            open.remove(&id.place());
            return None;
        }
        session.used = now;
        Some(session.clone())
    }

    /// Whether this one is still open.
    pub(super) fn is_open(&self, session: &Session) -> bool {
        let open = self.sessions();
        let known = open.get(&session.id.place()).filter(|known| known.id.matches(&session.id));
        known.is_some_and(|known| known.opened.elapsed() < self.settings.age)
    }

    /// Somebody looks on, by a stream that was opened with it.
    pub(super) fn touch(&self, session: &Session) {
        if let Some(known) = self.sessions().get_mut(&session.id.place()) {
            known.used = Instant::now();
        }
    }

    /// Ends one, and says with which cookie the browser forgets it.
    pub(super) fn end(&self, session: &Session) -> HeaderValue {
        self.sessions().remove(&session.id.place());
        self.cookie("", Duration::ZERO)
    }

    fn lives(&self, session: &Session, now: Instant) -> bool {
        now.duration_since(session.opened) < self.settings.age
            && now.duration_since(session.used) < self.settings.idle
    }

    fn secret<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
        let mut pairs =
            cookies.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == self.name()).map(|(_, value)| value)
    }

    /// The prefix has the browser insist on TLS, the whole site and no domain (RFC 6265bis section 4.1.3.2).
    fn name(&self) -> &'static str {
        if self.secure { "__Host-tracegate" } else { "tracegate" }
    }

    fn cookie(&self, value: &str, age: Duration) -> HeaderValue {
        let (name, seconds) = (self.name(), age.as_secs());
        let secure = if self.secure { "; Secure" } else { "" };
        let cookie = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
        HeaderValue::from_str(&cookie).expect("base64 and digits")
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<[u8; 8], Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 256 random bits.
fn random() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::{COOKIE, HeaderMap, HeaderValue};

    use super::{Sessions, Settings};
    use crate::admin::role::Role;
    use crate::admin::ways::{Known, Proof};
    use crate::setting::Hash;

    fn known() -> Known {
        Known { name: "ops".into(), role: Role::Operator, proof: Proof::Token(Hash::of("token")) }
    }

    fn showing(cookie: &HeaderValue) -> HeaderMap {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        HeaderMap::from_iter([(COOKIE, format!("other=1; {pair}").parse().unwrap())])
    }

    #[test]
    fn a_session_is_found_by_its_cookie_until_it_is_ended() {
        let sessions = Sessions::new(Settings::default(), true);
        let (cookie, csrf) = sessions.open(known());
        let text = cookie.to_str().unwrap();
        for part in ["__Host-tracegate=", "HttpOnly", "SameSite=Strict", "Secure", "Path=/", "Max-Age=43200"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        let session = sessions.find(&showing(&cookie)).unwrap();
        assert!(session.csrf == csrf && sessions.is_open(&session));
        assert!(sessions.end(&session).to_str().unwrap().contains("Max-Age=0"));
        assert!(sessions.find(&showing(&cookie)).is_none() && !sessions.is_open(&session));
        assert!(sessions.find(&HeaderMap::new()).is_none());
    }

    #[test]
    fn one_too_many_ends_the_one_that_was_not_used_for_longest_and_an_old_one_is_over() {
        let sessions = Sessions::new(Settings { most: 2, ..Settings::default() }, false);
        let cookies = [(); 2].map(|()| sessions.open(known()).0);
        assert!(sessions.find(&showing(&cookies[0])).is_some(), "used again");
        let (third, _) = sessions.open(known());
        let open = [&cookies[0], &cookies[1], &third].map(|cookie| sessions.find(&showing(cookie)).is_some());
        assert_eq!(open, [true, false, true]);
        let sessions = Sessions::new(Settings { age: Duration::ZERO, ..Settings::default() }, false);
        let (cookie, _) = sessions.open(known());
        assert!(sessions.find(&showing(&cookie)).is_none());
    }
}
