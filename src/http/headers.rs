//! Header fields between two connections: what belongs to one of them goes, what the next must know comes.
//!
//! RFC 9110 section 7.6: fields of one connection are removed in both directions, `Via` is added. Whoever
//! the client was is told by `X-Forwarded-*` and `Forwarded` (RFC 7239), by a stated rule of trust.

use std::net::IpAddr;
use std::ops::BitOr;
use std::sync::Arc;

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use crate::listener::tls::Session;
use crate::telemetry::exchange::Scheme;

/// Which of the fields that the gateway acts on are in a header: one look at all names costs less than to ask
/// for each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields(u16);

impl Fields {
    pub(super) const CONNECTION: Self = Self(1);
    pub(super) const CONTENT_LENGTH: Self = Self(1 << 1);
    pub(super) const CONTENT_TYPE: Self = Self(1 << 2);
    pub(super) const EXPECT: Self = Self(1 << 3);
    pub(super) const TE: Self = Self(1 << 4);
    pub(super) const TRANSFER_ENCODING: Self = Self(1 << 5);
    pub(super) const VIA: Self = Self(1 << 6);
    pub(super) const UPGRADE: Self = Self(1 << 8);
    /// One of those that belong to a connection without being named here.
    const OTHER_HOP_BY_HOP: Self = Self(1 << 7);
    pub(super) const ACCEPT: Self = Self(1 << 9);
    pub(super) const TRACEPARENT: Self = Self(1 << 10);
    pub(super) const X_REQUEST_ID: Self = Self(1 << 11);
    /// One with an underscore in its name.
    pub(super) const UNDERSCORED: Self = Self(1 << 12);

    /// Those of this header.
    pub fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |seen, name| seen | Self::named(name.as_str()).0))
    }

    /// Whether one of these is among them.
    pub(super) fn have(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    fn named(name: &str) -> Self {
        // the length first: most names are none of these
        match (name.len(), name) {
            (2, "te") => Self::TE,
            (3, "via") => Self::VIA,
            (6, "accept") => Self::ACCEPT,
            (6, "expect") => Self::EXPECT,
            (10, "connection") => Self::CONNECTION,
            (11, "traceparent") => Self::TRACEPARENT,
            (12, "content-type") => Self::CONTENT_TYPE,
            (12, "x-request-id") => Self::X_REQUEST_ID,
            (14, "content-length") => Self::CONTENT_LENGTH,
            (17, "transfer-encoding") => Self::TRANSFER_ENCODING,
            (7, "upgrade") => Self::UPGRADE,
            (10, "keep-alive")
            | (14, "http2-settings")
            | (16, "proxy-connection")
            | (19, "proxy-authorization") => Self::OTHER_HOP_BY_HOP,
            _ if name.contains('_') => Self::UNDERSCORED,
            _ => Self(0),
        }
    }
}

impl BitOr for Fields {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Fields that belong to one connection (RFC 9110 section 7.6.1, and what has come to be treated alike).
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields that mean nothing behind a body, or too much: where messages end, where they go, who sends them, what they hold
/// (RFC 9110 section 6.5.1).
static NO_TRAILERS: [HeaderName; 11] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::HOST,
    header::MAX_FORWARDS,
    header::SET_COOKIE,
    header::TRAILER,
];

/// Fields that `Connection` cannot take away: the message would mean something else without them.
static KEPT: [HeaderName; 2] = [header::HOST, header::CONTENT_LENGTH];

/// The gateway's name in `Via`.
const PSEUDONYM: &str = "tracegate";

/// How often a request may have passed a gateway of this name before it counts as going round in circles.
const MAX_PASSES: usize = 8;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
pub(super) const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// What the gateway says of the client to whoever is behind it.
static TOLD: [HeaderName; 3] = [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO];

/// Removes what belongs to the connection it came on: the fixed list and what `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, fields: Fields) {
    if fields.have(Fields::CONNECTION) {
        for name in named_by_connection(headers) {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    if fields.have(Fields::TE | Fields::TRANSFER_ENCODING | Fields::UPGRADE | Fields::OTHER_HOP_BY_HOP) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
}

/// Removes from trailers what is for the header alone, and what belongs to a connection: with it in them, nobody may send
/// them on in HTTP/2 (RFC 9113 section 8.2.2).
pub(super) fn strip_trailers(trailers: &mut HeaderMap) {
    for name in HOP_BY_HOP.iter().chain(&NO_TRAILERS) {
        trailers.remove(name);
    }
}

/// Removes the fields that `Connection` names, so that what is set after this stays. What belongs to the connection
/// anyway is still there, and still named: `TE` and `Upgrade` say what else the client wants.
pub(super) fn strip_named(headers: &mut HeaderMap, fields: Fields) {
    if !fields.have(Fields::CONNECTION) {
        return;
    }
    for name in named_by_connection(headers).into_iter().filter(|name| !HOP_BY_HOP.contains(name)) {
        headers.remove(name);
    }
    let kept: Vec<&[u8]> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| {
            is_option(option) || HeaderName::from_bytes(option).is_ok_and(|name| HOP_BY_HOP.contains(&name))
        })
        .collect();
    match HeaderValue::from_bytes(&kept.join(&b", "[..])) {
        Ok(kept) if !kept.is_empty() => headers.insert(header::CONNECTION, kept),
        _ => headers.remove(header::CONNECTION),
    };
}

/// Removes fields of these names, and those that CGI and its heirs (RFC 3875 section 4.1.18, PEP 3333) take for them:
/// to these `-` and `_` are one.
pub(super) fn remove_alike<'a>(headers: &mut HeaderMap, names: impl Iterator<Item = &'a HeaderName> + Clone) {
    remove_where(headers, move |name| names.clone().any(|other| are_alike(name, other)));
}

/// Removes what would be taken for the gateway's own word on the client, though it has another name.
pub(super) fn remove_counterfeits(headers: &mut HeaderMap, fields: Fields) {
    if fields.have(Fields::UNDERSCORED) {
        remove_where(headers, |name| TOLD.iter().any(|told| name != told && are_alike(name, told)));
    }
}

fn remove_where(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let found: Vec<_> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

fn are_alike(one: &HeaderName, other: &HeaderName) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let (one, other) = (one.as_str(), other.as_str());
    one.len() == other.len() && one.bytes().map(plain).eq(other.bytes().map(plain))
}

/// Says that the answer depends on this field of the request (RFC 9110 section 12.5.5), unless it says so already.
pub(super) fn vary(headers: &mut HeaderMap, name: &'static str) {
    let is_said = headers
        .get_all(header::VARY)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|said| said == b"*" || said.eq_ignore_ascii_case(name.as_bytes()));
    if !is_said {
        headers.append(header::VARY, HeaderValue::from_static(name));
    }
}

/// The fields that `Connection` names, but for those that go anyway and those that must not.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter(|value| !is_option(value.as_bytes()))
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !KEPT.contains(name))
        .collect()
}

/// Takes names out of `Connection`: their fields were set here, and no client may have them taken away.
pub(super) fn keep(headers: &mut HeaderMap, fields: Fields, is_ours: impl Fn(&HeaderName) -> bool) {
    if !fields.have(Fields::CONNECTION) || !named_by_connection(headers).iter().any(&is_ours) {
        return;
    }
    let values = headers.get_all(header::CONNECTION).iter().map(HeaderValue::as_bytes);
    let kept: Vec<&[u8]> = values
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| !HeaderName::from_bytes(option).is_ok_and(|name| is_ours(&name)))
        .collect();
    let value = HeaderValue::from_bytes(&kept.join(&b", "[..])).expect("it came in a field");
    headers.insert(header::CONNECTION, value);
}

/// `Connection` names fields and options; these options are what it nearly always holds.
fn is_option(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
}

/// Leaves an answer one way only to tell where its body ends (RFC 9112 section 6.3): the chunks', else one length.
/// `false`: there is none that everybody reads alike.
#[must_use]
pub(super) fn settle_length(headers: &mut HeaderMap, fields: Fields) -> bool {
    if !fields.have(Fields::TRANSFER_ENCODING | Fields::CONTENT_LENGTH) {
        return true;
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        let one = codings.next().is_none();
        headers.remove(header::CONTENT_LENGTH);
        return chunked && one;
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return true };
    let digits = length.as_bytes().iter().all(u8::is_ascii_digit);
    let number = digits && length.to_str().is_ok_and(|length| length.parse::<u64>().is_ok());
    let mut repeated = lengths.peekable();
    if repeated.peek().is_none() {
        return number;
    }
    let same = repeated.all(|other| other == length);
    let length = length.clone();
    headers.insert(header::CONTENT_LENGTH, length);
    number && same
}

/// Whether the client waits with its body until it is asked for it (RFC 9110 section 10.1.1).
pub(super) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether the client can take trailers: `TE: trailers` (RFC 9110 section 10.1.4).
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    has_token(headers, header::TE, b"trailers")
}

/// Whether a list field has this word, in whatever case.
pub(super) fn has_token(headers: &HeaderMap, field: HeaderName, token: &[u8]) -> bool {
    headers
        .get_all(field)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|element| element.trim_ascii().eq_ignore_ascii_case(token))
}

/// Says so to the upstream. `TE` is a field of the connection, so that it must be named in `Connection`;
/// towards HTTP/2, which has no `Connection`, that one goes again.
pub(super) fn set_takes_trailers(headers: &mut HeaderMap) {
    headers.insert(header::TE, TRAILERS);
    headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
}

/// Adds this gateway to `Via` (RFC 9110 section 7.6.3), with the version of the message as it was received.
pub fn add_via(headers: &mut HeaderMap, received: Version) {
    let ours = match received {
        Version::HTTP_2 => HeaderValue::from_static("2 tracegate"),
        Version::HTTP_10 => HeaderValue::from_static("1.0 tracegate"),
        _ => HeaderValue::from_static("1.1 tracegate"),
    };
    headers.append(header::VIA, ours);
}

/// Whether `Via` shows that the request goes round in circles.
pub(super) fn is_loop(headers: &HeaderMap) -> bool {
    let passes = headers
        .get_all(header::VIA)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter(|pass| pass.trim_ascii().split(|&byte| byte == b' ').nth(1) == Some(PSEUDONYM.as_bytes()))
        .count();
    passes > MAX_PASSES
}

/// Who is at the other end of the connection, in the forms in which the upstream is told.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The address of the connection.
    pub(super) address: IpAddr,
    /// With or without TLS.
    pub(super) scheme: Scheme,
    /// Whether it is a proxy whose word on the client counts.
    pub(super) trusted: bool,
    /// Its TLS session, where one is spoken.
    pub(super) session: Option<Session>,
    /// It does not speak TLS where it should.
    pub(super) plain_on_tls: bool,
    x_forwarded_for: HeaderValue,
    forwarded: HeaderValue,
}

impl Peer {
    /// The peer at this address.
    pub fn new(address: IpAddr, scheme: Scheme, trusted: bool) -> Self {
        let text = address.to_string();
        let quoted = if address.is_ipv6() { format!("\"[{text}]\"") } else { text.clone() };
        let value = |text: String| {
            HeaderValue::try_from(text).expect("an address has only characters that a field may have")
        };
        let forwarded = value(format!("for={quoted};proto={}", scheme.word()));
        let x_forwarded_for = value(text);
        Self { address, scheme, trusted, session: None, plain_on_tls: false, x_forwarded_for, forwarded }
    }

    /// The same peer, over this session, or in plain text where TLS should be spoken.
    #[must_use]
    pub(super) fn over(self, session: Option<Session>, plain_on_tls: bool) -> Self {
        Self { session, plain_on_tls, ..self }
    }

    /// The role of the certificate that it has shown and that has been verified, if the configuration names one.
    pub(super) fn role(&self) -> Option<&Arc<str>> {
        self.session.as_ref().and_then(Session::role)
    }

    /// The client: the connection's peer, or what a trusted proxy says, from the right, up to the first
    /// address that is not itself a trusted proxy.
    pub fn client(&self, headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
        if !self.trusted {
            return self.address;
        }
        let stated = headers
            .get_all(X_FORWARDED_FOR)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|address| address.trim().parse::<IpAddr>());
        let mut client = self.address;
        for address in stated.collect::<Vec<_>>().into_iter().rev() {
            match address {
                Ok(address) => client = address,
                Err(_) => break,
            }
            if !trusts(client) {
                break;
            }
        }
        client
    }

    /// Whether the client came with TLS: to this gateway, or as a trusted proxy says, to that.
    pub(super) fn is_https(&self, headers: &HeaderMap) -> bool {
        let stated = headers.get(X_FORWARDED_PROTO).filter(|_| self.trusted);
        stated.map_or(self.scheme == Scheme::Https, |stated| stated.as_bytes().eq_ignore_ascii_case(b"https"))
    }

    /// Tells the upstream who asked. A trusted proxy's word is kept and added to; anybody else's is replaced.
    pub fn forwarded(&self, headers: &mut HeaderMap) {
        let host = headers.get(header::HOST).cloned();
        if self.trusted {
            append_element(headers, X_FORWARDED_FOR, &self.x_forwarded_for);
            append_element(headers, header::FORWARDED, &self.forwarded);
            headers.entry(X_FORWARDED_PROTO).or_insert_with(|| self.scheme());
            if let (Entry::Vacant(entry), Some(host)) = (headers.entry(X_FORWARDED_HOST), host) {
                entry.insert(host);
            }
        } else {
            headers.insert(X_FORWARDED_FOR, self.x_forwarded_for.clone());
            headers.insert(header::FORWARDED, self.forwarded.clone());
            headers.insert(X_FORWARDED_PROTO, self.scheme());
            match host {
                Some(host) => headers.insert(X_FORWARDED_HOST, host),
                None => headers.remove(X_FORWARDED_HOST),
            };
        }
    }

    /// A header that says no more than who asked, and on what ways, of the request with this one.
    pub(super) fn telling_of(&self, headers: &HeaderMap) -> HeaderMap {
        let told = [
            header::HOST,
            header::VIA,
            header::FORWARDED,
            X_FORWARDED_FOR,
            X_FORWARDED_HOST,
            X_FORWARDED_PROTO,
        ];
        let mut telling = copied(headers, &told);
        self.forwarded(&mut telling);
        telling
    }

    fn scheme(&self) -> HeaderValue {
        HeaderValue::from_static(self.scheme.word())
    }
}

/// These fields of a header, as they are there.
pub(super) fn copied(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let values =
        |name| headers.get_all(name).iter().map(move |value| (HeaderName::clone(name), value.clone()));
    names.iter().flat_map(values).collect()
}

/// HTTP/2 may split `Cookie` into several fields; HTTP/1.1 has one (RFC 9113 section 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// Adds one element to a list field, joined to one line: some servers read only the first line.
fn append_element(headers: &mut HeaderMap, name: HeaderName, element: &HeaderValue) {
    let mut joined = Vec::new();
    for value in headers.get_all(&name) {
        joined.extend_from_slice(value.as_bytes());
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(element.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(name, value);
    }
}

/// `Allow` of a 405 (RFC 9110 section 10.2.1).
pub(super) fn allow(methods: &[Method]) -> HeaderValue {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    HeaderValue::try_from(names.join(", ")).expect("methods are tokens")
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{Fields, HOP_BY_HOP, Peer, X_FORWARDED_FOR, is_loop, strip_hop_by_hop, takes_trailers};
    use crate::telemetry::exchange::Scheme;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn fields_of_one_connection_go_and_so_do_those_it_names() {
        let mut map = headers(&[
            ("connection", "close, X-Private"),
            ("connection", "traceparent"),
            ("keep-alive", "timeout=5"),
            ("x-private", "1"),
            ("traceparent", "00-1-2-03"),
            ("te", "trailers, gzip"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("trailer", "x-checksum"),
            ("x-kept", "1"),
        ]);
        assert!(takes_trailers(&map));
        let fields = Fields::of(&map);
        strip_hop_by_hop(&mut map, fields);
        let mut left: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["trailer", "x-kept"]);
    }

    #[test]
    fn every_field_of_one_connection_is_looked_for() {
        for name in &HOP_BY_HOP {
            let mut map = headers(&[("x-kept", "1")]);
            map.insert(name.clone(), HeaderValue::from_static("x-other"));
            let fields = Fields::of(&map);
            strip_hop_by_hop(&mut map, fields);
            assert_eq!(map.len(), 1, "{name}");
        }
    }

    #[test]
    fn the_connection_field_cannot_take_away_the_host_or_the_length() {
        let mut map =
            headers(&[("connection", "host, content-length"), ("host", "a"), ("content-length", "1")]);
        let fields = Fields::of(&map);
        strip_hop_by_hop(&mut map, fields);
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn a_strangers_word_on_who_asked_is_replaced() {
        let peer = Peer::new([192, 0, 2, 1].into(), Scheme::Https, false);
        let mut map = headers(&[
            ("host", "shop.example"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=10.0.0.1"),
        ]);
        assert_eq!(peer.client(&map, |_| true), peer.address);
        peer.forwarded(&mut map);
        assert_eq!(map["x-forwarded-for"], "192.0.2.1");
        assert_eq!(map["x-forwarded-host"], "shop.example");
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(map["forwarded"], "for=192.0.2.1;proto=https");
    }

    #[test]
    fn a_trusted_proxys_word_is_kept_and_added_to() {
        let peer = Peer::new([10, 0, 0, 2].into(), Scheme::Http, true);
        let mut map = headers(&[
            ("x-forwarded-for", "203.0.113.9, 198.51.100.7"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
        ]);
        let in_ten = |address: std::net::IpAddr| address.to_string().starts_with("10.");
        assert_eq!(peer.client(&map, in_ten).to_string(), "198.51.100.7");
        peer.forwarded(&mut map);
        assert_eq!(map.get_all(X_FORWARDED_FOR).iter().count(), 1);
        assert_eq!(map["x-forwarded-for"], "203.0.113.9, 198.51.100.7, 10.0.0.1, 10.0.0.2");
        assert_eq!(map["x-forwarded-proto"], "https");
    }

    #[test]
    fn a_request_that_has_passed_too_often_goes_round_in_circles() {
        let mut map = HeaderMap::new();
        for _ in 0..8 {
            map.append("via", HeaderValue::from_static("1.1 tracegate, 1.1 other"));
        }
        assert!(!is_loop(&map));
        map.append("via", HeaderValue::from_static("2 tracegate"));
        assert!(is_loop(&map));
    }
}
