//! Stickiness: a cookie brings a client back to the endpoint that answered it before.
//!
//! The value is a keyed digest of upstream and endpoint: it names neither to whoever does not have the key, and any
//! gateway that has it reads the same. Nothing is kept for a client.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, HeaderMap, HeaderValue};
use ring::hmac;

use crate::setting::Secret;
use crate::upstream::{Endpoint, Upstream};

/// What a route says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name of the cookie.
    pub cookie: Box<str>,
    /// How long a client keeps it; `None` is until its session ends.
    pub max_age: Option<Duration>,
    /// What the values are made with, where several gateways must agree; else it is made up at the start.
    pub secret: Option<Secret>,
}

/// What the values of cookies are made with.
#[derive(Debug, Clone)]
pub struct Key(hmac::Key);

impl Key {
    /// One that nobody else has.
    pub fn random() -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()))
    }

    /// The one that all have who have the secret.
    pub fn of(secret: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()))
    }

    fn token(&self, upstream: &str, origin: &str) -> Box<str> {
        let tag = hmac::sign(&self.0, format!("{upstream}\0{origin}").as_bytes());
        URL_SAFE_NO_PAD.encode(&tag.as_ref()[..TOKEN_BYTES]).into()
    }
}

/// The cookies of one upstream's endpoints, in their order, ready to be set.
#[derive(Debug)]
pub struct Cookies(Box<[Cookie]>);

#[derive(Debug)]
struct Cookie {
    token: Box<str>,
    plain: HeaderValue,
    secure: HeaderValue,
}

impl Cookies {
    /// Those of this upstream.
    pub fn new(settings: &Settings, key: &Key, upstream: &Upstream) -> Self {
        let cookie = |endpoint: &Arc<Endpoint>| {
            let labels = &endpoint.labels;
            let token = key.token(&labels.upstream, &labels.origin);
            let mut text = format!("{}={token}; Path=/; HttpOnly; SameSite=Lax", settings.cookie);
            if let Some(max_age) = settings.max_age {
                let seconds = max_age.as_secs();
                write!(text, "; Max-Age={seconds}").expect("a text can be written to");
            }
            let value = |text: &str| HeaderValue::from_str(text).expect("name and value are checked");
            Cookie { token, plain: value(&text), secure: value(&format!("{text}; Secure")) }
        };
        Self(upstream.endpoints().iter().map(cookie).collect())
    }

    /// `Set-Cookie` for the endpoint of this index.
    pub(super) fn of(&self, endpoint: usize, secure: bool) -> HeaderValue {
        let cookie = &self.0[endpoint];
        if secure { cookie.secure.clone() } else { cookie.plain.clone() }
    }

    fn endpoint(&self, token: &[u8]) -> Option<usize> {
        self.0.iter().position(|cookie| cookie.token.as_bytes() == token)
    }
}

/// What a client's cookie came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// There is none.
    New,
    /// It names nothing of the route's.
    Unknown,
    /// This one of the route's upstreams, by index, and this endpoint of it, which is usable.
    Endpoint(usize, usize),
    /// An endpoint of this upstream that is not usable, where there are others that are; or of one that has none.
    Unusable(Option<usize>),
}

/// Reads the cookies of one route.
#[derive(Debug)]
pub struct Sticky {
    name: Box<str>,
    /// The route's upstreams in their order.
    places: Box<[(Arc<Upstream>, Arc<Cookies>)]>,
}

impl Sticky {
    /// Reads what these upstreams' cookies say.
    pub fn new(settings: &Settings, places: impl IntoIterator<Item = (Arc<Upstream>, Arc<Cookies>)>) -> Self {
        Self { name: settings.cookie.clone(), places: places.into_iter().collect() }
    }

    /// Takes the cookie out of the header: it is the gateway's own. Whoever's endpoint is not usable stays with its
    /// upstream, if that has others that are.
    pub(super) fn take(&self, headers: &mut HeaderMap) -> Place {
        let ours = |crumb: &&[u8]| self.value(crumb).is_some();
        if !headers.get_all(COOKIE).iter().any(|field| crumbs(field).any(|crumb| ours(&crumb))) {
            return Place::New;
        }
        let mut found = Place::Unknown;
        let mut left = Vec::new();
        for field in headers.get_all(COOKIE) {
            if found == Place::Unknown {
                let known = crumbs(field).find_map(|crumb| self.place(self.value(crumb)?));
                found = known.unwrap_or(found);
            }
            let others: Vec<_> = crumbs(field).filter(|crumb| !ours(crumb)).collect();
            let joined = others.join(&b";"[..]);
            let joined = joined.trim_ascii();
            if let Ok(mut value) = HeaderValue::from_bytes(joined)
                && !joined.is_empty()
            {
                value.set_sensitive(field.is_sensitive());
                left.push(value);
            }
        }
        headers.remove(COOKIE);
        headers.extend(left.into_iter().map(|value| (COOKIE, value)));
        found
    }

    /// The value, if this is the cookie.
    fn value<'a>(&self, crumb: &'a [u8]) -> Option<&'a [u8]> {
        let value = crumb.trim_ascii_start().strip_prefix(self.name.as_bytes())?;
        value.strip_prefix(b"=").map(<[u8]>::trim_ascii)
    }

    fn place(&self, token: &[u8]) -> Option<Place> {
        let (at, endpoint) = self
            .places
            .iter()
            .enumerate()
            .find_map(|(at, (_, cookies))| Some((at, cookies.endpoint(token)?)))?;
        let upstream = &self.places[at].0;
        Some(if upstream.is_usable(endpoint) {
            Place::Endpoint(at, endpoint)
        } else {
            Place::Unusable(upstream.has_other(endpoint, &[]).then_some(at))
        })
    }
}

/// The pairs of one `Cookie` field (RFC 6265 section 4.2.1), as they stand there.
fn crumbs(field: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    field.as_bytes().split(|byte| *byte == b';')
}

/// How much of the digest stands in a cookie.
const TOKEN_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use http::header::{COOKIE, HeaderMap, HeaderValue};

    use super::{Key, Place, Sticky};
    use crate::setting::Secret;

    #[test]
    fn the_cookie_goes_and_all_others_stay_as_they_were() {
        let sticky = Sticky { name: "tg".into(), places: Box::default() };
        for (fields, left) in [
            (&["a=1; b=2"][..], &["a=1; b=2"][..]),
            (&["tg=x"], &[]),
            (&["tg=x; a=1"], &["a=1"]),
            (&["a=1; tg=x"], &["a=1"]),
            (&["a=1; tg=x;  b=\"2\"; tg=y"], &["a=1;  b=\"2\""]),
            (&["a=1", " tg = x", "tg=x", "b=2"], &["a=1", "tg = x", "b=2"]),
            (&["tgg=x; xtg=x; a=tg=x"], &["tgg=x; xtg=x; a=tg=x"]),
            (&["TG=x; tg="], &["TG=x"]),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(COOKIE, HeaderValue::from_static(field.trim_ascii()));
            }
            let place = if fields == left { Place::New } else { Place::Unknown };
            assert_eq!(sticky.take(&mut headers), place);
            let found: Vec<_> = headers.get_all(COOKIE).iter().collect();
            assert_eq!(found, left, "{fields:?}");
        }
    }

    #[test]
    fn a_token_is_the_same_for_all_who_have_the_secret_and_for_nobody_else() {
        let key = |secret: &str| Key::of(&Secret::new(secret));
        let token = |key: &Key| key.token("shop", "http://10.0.0.7:9001");
        let one = token(&key("open sesame, all of you"));
        assert_eq!(one.len(), 22);
        assert_eq!(one, token(&key("open sesame, all of you")));
        for other in [
            token(&key("another secret")),
            token(&Key::random()),
            key("open sesame, all of you").token("mes", "http://10.0.0.7:9001"),
            key("open sesame, all of you").token("shop", "http://10.0.0.7:9002"),
        ] {
            assert_ne!(one, other);
        }
        assert_ne!(token(&Key::random()), token(&Key::random()));
    }
}
