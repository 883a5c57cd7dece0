//! What may stand where, by class, so that the compiler knows it: keys, the values they take, and what is nobody's
//! business.
//!
//! A key is [`Low`] or [`High`]. A label of a metric can only be made of a [`Low`] key, and a [`Low`] key only takes a
//! [`Word`]: of a closed vocabulary of this program, which is `'static`, or [`Configured`]. Spans take both classes.
//! What is [`Personal`] is neither, and only [`Privacy`](super::settings::Privacy) turns it into something that may
//! be said.
//!
//! All of it is gone when the program is built: keys are constants, words are borrowed.
//!
//! ```
//! use tracegate::telemetry::attribute::{Configured, HTTP_REQUEST_METHOD, HTTP_ROUTE, Label};
//!
//! fn labels(route: &Configured) -> [Label<'_>; 2] {
//!     [HTTP_ROUTE.is(route), HTTP_REQUEST_METHOD.is("GET")]
//! }
//! ```
//!
//! What a client wrote is no label, whatever the key:
//!
//! ```compile_fail
//! use tracegate::telemetry::attribute::{HTTP_ROUTE, Label};
//!
//! fn label(path: &str) -> Label<'_> {
//!     HTTP_ROUTE.is(path)
//! }
//! ```
//!
//! ```compile_fail,E0277
//! use tracegate::telemetry::attribute::{HTTP_ROUTE, Label};
//!
//! fn label(path: String) -> Label<'static> {
//!     HTTP_ROUTE.is(path)
//! }
//! ```
//!
//! A key without a bound to its values makes no label, whatever the value:
//!
//! ```compile_fail,E0599
//! use tracegate::telemetry::attribute::{CLIENT_ADDRESS, Label};
//!
//! fn label() -> Label<'static> {
//!     CLIENT_ADDRESS.is("always the same")
//! }
//! ```
//!
//! What is personal is neither a label nor an attribute of a span:
//!
//! ```compile_fail,E0277
//! use std::net::IpAddr;
//! use tracegate::telemetry::attribute::{Label, Personal, SERVER_ADDRESS};
//!
//! fn label(client: &Personal<IpAddr>) -> Label<'_> {
//!     SERVER_ADDRESS.is(client)
//! }
//! ```
//!
//! ```compile_fail,E0277
//! use std::net::IpAddr;
//! use tracegate::telemetry::attribute::Personal;
//! use tracegate::telemetry::span::Value;
//!
//! fn attribute(client: &Personal<IpAddr>) -> Value<'_> {
//!     client.into()
//! }
//! ```
//!
//! ```compile_fail,E0277
//! use std::net::IpAddr;
//! use tracegate::telemetry::attribute::Personal;
//!
//! fn line(client: &Personal<IpAddr>) -> String {
//!     client.to_string()
//! }
//! ```

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::span::Value;

/// The key of what has few values, ever: it may be a label of metrics and an attribute of spans.
#[derive(Debug, Clone, Copy)]
pub struct Low {
    attribute: &'static str,
    label: &'static str,
}

/// The key of what has any number of values: on spans and records, never on metrics.
#[derive(Debug, Clone, Copy)]
pub struct High(&'static str);

/// One label of a metric.
#[derive(Debug, Clone)]
pub struct Label<'a> {
    key: Low,
    value: Word<'a>,
}

impl Low {
    /// The label of this key and value.
    pub fn is<'a>(self, value: impl Into<Word<'a>>) -> Label<'a> {
        Label { key: self, value: value.into() }
    }
}

impl Label<'_> {
    /// The key, as metrics have it.
    pub fn key(&self) -> &'static str {
        self.key.label
    }

    /// The value.
    pub fn value(&self) -> Cow<'_, str> {
        match &self.value.0 {
            Inner::Text(text) => Cow::Borrowed(text),
            Inner::Number(number) => number.to_string().into(),
        }
    }

    /// The same key with another value.
    pub fn but<'b>(&self, value: impl Into<Word<'b>>) -> Label<'b> {
        self.key.is(value)
    }
}

/// The key of a span's attribute, with the values it takes.
pub trait Key: Copy {
    /// What may be said under it.
    type Value<'a>: Into<Value<'a>>;

    /// The key, as spans have it.
    fn attribute(self) -> &'static str;
}

impl Key for Low {
    type Value<'a> = Word<'a>;

    fn attribute(self) -> &'static str {
        self.attribute
    }
}

impl Key for High {
    type Value<'a> = Value<'a>;

    fn attribute(self) -> &'static str {
        self.0
    }
}

/// One of few values: a word of a closed vocabulary, a text of the configuration, or a small number.
#[derive(Debug, Clone)]
pub struct Word<'a>(Inner<'a>);

#[derive(Debug, Clone)]
enum Inner<'a> {
    Text(Cow<'a, str>),
    Number(u16),
}

impl Word<'_> {
    /// A number of a closed set: a status, a port that is configured, how many attempts there were.
    pub fn number(number: u16) -> Self {
        Self(Inner::Number(number))
    }

    /// The same as text.
    pub fn digits(number: u16) -> Self {
        Self(Inner::Text(number.to_string().into()))
    }
}

/// What lives as long as the program was written into it.
impl From<&'static str> for Word<'_> {
    fn from(word: &'static str) -> Self {
        Self(Inner::Text(word.into()))
    }
}

impl<'a> From<&'a Configured> for Word<'a> {
    fn from(text: &'a Configured) -> Self {
        Self(Inner::Text(Cow::Borrowed(text)))
    }
}

impl<'a> From<Word<'a>> for Value<'a> {
    fn from(word: Word<'a>) -> Self {
        match word.0 {
            Inner::Text(text) => Self::Text(text),
            Inner::Number(number) => Self::Integer(number.into()),
        }
    }
}

/// A text that the operator wrote down, so that there are as many as the configuration has.
///
/// That it is one is the word of whoever makes it; a test knows the places.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Configured(Arc<str>);

impl Configured {
    /// A text of the configuration.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}

impl Deref for Configured {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// What tells one person from another. It shows itself nowhere: no signal can be made of it.
#[derive(Clone, Copy)]
pub struct Personal<T>(T);

impl<T> Personal<T> {
    /// Puts it away.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// For the exchange itself, which is judged by it or passes it on. Nothing in `telemetry` may ask for it but
    /// `privacy`; a test holds that.
    pub fn for_exchange(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Personal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Personal")
    }
}

/// The name of a label, which is the attribute's with underscores.
const fn underscored<const N: usize>(attribute: &str) -> [u8; N] {
    let (attribute, mut label, mut at) = (attribute.as_bytes(), [0; N], 0);
    while at < N {
        label[at] = if attribute[at] == b'.' { b'_' } else { attribute[at] };
        at += 1;
    }
    label
}

macro_rules! low {
    ($($name:ident = $text:literal;)+) => {
        $(
            #[doc = concat!("`", $text, "`")]
            pub const $name: Low = {
                const LABEL: [u8; $text.len()] = underscored($text);
                let Ok(label) = std::str::from_utf8(&LABEL) else { panic!("ASCII") };
                Low { attribute: $text, label }
            };
        )+
    };
}

macro_rules! high {
    ($($name:ident = $text:literal;)+) => {
        $(
            #[doc = concat!("`", $text, "`")]
            pub const $name: High = High($text);
        )+
    };
}

low! {
    BOUND = "bound";
    CERTIFICATE = "certificate";
    ERROR_TYPE = "error.type";
    HTTP_REQUEST_METHOD = "http.request.method";
    HTTP_REQUEST_RESEND_COUNT = "http.request.resend_count";
    HTTP_RESPONSE_STATUS_CODE = "http.response.status_code";
    HTTP_ROUTE = "http.route";
    KEPT = "kept";
    LISTENER = "listener";
    NETWORK_PROTOCOL_VERSION = "network.protocol.version";
    NETWORK_TRANSPORT = "network.transport";
    OUTCOME = "outcome";
    PEER_SERVICE = "peer.service";
    REASON = "reason";
    RECEIVER = "receiver";
    RPC_GRPC_STATUS_CODE = "rpc.grpc.status_code";
    RPC_SYSTEM = "rpc.system";
    SERVER_ADDRESS = "server.address";
    SERVER_PORT = "server.port";
    SERVICE_PEER_NAME = "service.peer.name";
    STATUS_CLASS = "status_class";
    TRACEGATE_BLAME = "tracegate.blame";
    TRACEGATE_CLIENT_ROLE = "tracegate.client_role";
    TRACEGATE_AUTH_METHOD = "tracegate.auth_method";
    TRACEGATE_AUTH_RULE = "tracegate.auth_rule";
    TRACEGATE_AUTH_UNVERIFIED = "tracegate.auth_unverified";
    TRACEGATE_CONNECTION = "tracegate.connection";
    TRACEGATE_DETAIL = "tracegate.detail";
    TRACEGATE_ENDPOINT = "tracegate.endpoint";
    TRACEGATE_NOT_RETRIED = "tracegate.not_retried";
    TRACEGATE_OPERATION = "tracegate.operation";
    TRACEGATE_REASON = "tracegate.reason";
    TRACEGATE_ROUTE = "tracegate.route";
    TRACEGATE_RULE = "tracegate.rule";
    TRACEGATE_SAMPLED_BECAUSE = "tracegate.sampled_because";
    TRACEGATE_STICKY = "tracegate.sticky";
    TRACEGATE_STREAM = "tracegate.stream";
    TRACEGATE_UPSTREAM = "tracegate.upstream";
    TRACEGATE_WEBSOCKET_CLOSED_BY = "tracegate.websocket.closed_by";
    URL_PATH = "url.path";
    URL_SCHEME = "url.scheme";
    URL_TEMPLATE = "url.template";
    VERSION = "version";
}

high! {
    CLIENT_ADDRESS = "client.address";
    HTTP_REQUEST_BODY_SIZE = "http.request.body.size";
    HTTP_RESPONSE_BODY_SIZE = "http.response.body.size";
    NETWORK_PEER_ADDRESS = "network.peer.address";
    NETWORK_PEER_PORT = "network.peer.port";
    TRACEGATE_CONNECT_MS = "tracegate.connect_ms";
    TRACEGATE_FIRST_BYTE_MS = "tracegate.first_byte_ms";
    TRACEGATE_HANDSHAKE_MS = "tracegate.handshake_ms";
    TRACEGATE_LAST_BYTE_MS = "tracegate.last_byte_ms";
    TRACEGATE_REQUEST_SENT_MS = "tracegate.request_sent_ms";
    TRACEGATE_RESOLVE_MS = "tracegate.resolve_ms";
    TRACEGATE_WAIT_MS = "tracegate.wait_ms";
    TRACEGATE_WEBSOCKET_CLOSE_CODE = "tracegate.websocket.close_code";
    URL_FULL = "url.full";
    URL_QUERY = "url.query";
}

#[cfg(test)]
mod tests {
    use super::{Configured, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, Key, Personal, STATUS_CLASS, Word};
    use crate::telemetry::span::Value;

    #[test]
    fn a_label_has_the_attributes_name_with_underscores() {
        let route = Configured::new("/orders/{id}");
        for (label, key, value) in [
            (HTTP_ROUTE.is(&route), "http_route", "/orders/{id}"),
            (HTTP_RESPONSE_STATUS_CODE.is(Word::number(200)), "http_response_status_code", "200"),
            (HTTP_RESPONSE_STATUS_CODE.is(Word::digits(404)), "http_response_status_code", "404"),
            (STATUS_CLASS.is("2xx"), "status_class", "2xx"),
            (STATUS_CLASS.is("2xx").but("_other"), "status_class", "_other"),
        ] {
            assert_eq!((label.key(), &*label.value()), (key, value));
        }
        assert_eq!(HTTP_ROUTE.attribute(), "http.route");
    }

    #[test]
    fn a_number_is_a_number_on_spans() {
        assert_eq!(Value::from(Word::number(200)), Value::Integer(200));
        assert_eq!(Value::from(Word::digits(200)), Value::from("200"));
    }

    #[test]
    fn what_is_personal_does_not_show_itself() {
        assert_eq!(format!("{:?}", Personal::new("192.0.2.77")), "Personal");
    }
}
