//! What can go wrong with a request: one closed vocabulary of reasons, whose fault each is, what the client sees.
//!
//! The same word stands in the metric label, the span, the access log, the answer and the tests.
//! [`Failure`] names no module: every part of the gateway may import it, it imports nothing.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Why an exchange did not simply succeed.
///
/// A failure is stated once, where it is first known, and turned into an answer in `http::rescue` and
/// nowhere else.
#[derive(Debug)]
pub struct Failure {
    /// The word of the vocabulary.
    pub reason: Reason,
    /// A closed finer word, where one helps.
    pub detail: Option<Detail>,
    /// The rule that decided so, as the operator named it: `auth.staff`, `rate_limits.per_client`.
    pub rule: Option<Arc<str>>,
    /// Header fields the answer must carry: `Allow`, `Retry-After`, `WWW-Authenticate`.
    pub fields: Option<Box<HeaderMap>>,
    /// What the libraries said. For the operator's diagnostics only: it may hold text from a peer.
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure with this reason and nothing more to say.
    pub fn new(reason: Reason) -> Self {
        Self { reason, detail: None, rule: None, fields: None, source: None }
    }

    /// The same failure with a finer word.
    #[must_use]
    pub fn detail(mut self, detail: Detail) -> Self {
        self.detail = Some(detail);
        self
    }

    /// The same failure with the name of the rule that decided: a key of the configuration, never text of a peer.
    #[must_use]
    pub fn rule(mut self, rule: &Arc<str>) -> Self {
        self.rule = Some(Arc::clone(rule));
        self
    }

    /// The same failure with a header field that its answer must carry.
    #[must_use]
    pub fn field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.get_or_insert_default().append(name, value);
        self
    }

    /// The same failure with the error it came from, which never leaves the process but in diagnostics.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

impl From<(Reason, Option<Detail>)> for Failure {
    fn from((reason, detail): (Reason, Option<Detail>)) -> Self {
        Self { detail, ..Self::new(reason) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.word())?;
        if let Some(detail) = self.detail {
            write!(f, " ({})", detail.word())?;
        }
        Ok(())
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client sent something wrong, was too slow, or left.
    Client,
    /// The gateway itself could not serve.
    Gateway,
    /// The upstream could not be reached, broke, or answered with a failure.
    Upstream,
}

impl Blame {
    /// The word in labels, attributes and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Upstream => "upstream",
        }
    }
}

/// Declares the vocabulary: one line a reason, so that nothing about a reason can be forgotten.
macro_rules! reasons {
    ($(#[doc = $meaning:literal] $name:ident = $word:literal, $blame:ident, $status:expr;)+) => {
        /// The closed vocabulary of failures.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason { $(#[doc = $meaning] $name,)+ }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)+];

            /// The word in labels, attributes, logs and answers.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// What it means, as a sentence for people.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning.trim_ascii(),)+ }
            }

            /// Whose fault it is.
            pub fn blame(self) -> Blame {
                match self { $(Self::$name => Blame::$blame,)+ }
            }

            /// The status of the gateway's own answer; `None` where the head has been sent, came from
            /// the upstream, or nobody is left to answer.
            pub fn status(self) -> Option<StatusCode> {
                let code: u16 = match self { $(Self::$name => $status,)+ };
                StatusCode::from_u16(code).ok()
            }
        }
    };
}

/// "The gateway makes no answer of its own for this".
const NO_ANSWER: u16 = 0;

reasons! {
    /// The request breaks the protocol or is ambiguous.
    BadRequest = "bad_request", Client, 400;
    /// No valid credentials.
    Unauthenticated = "unauthenticated", Client, 401;
    /// Valid credentials that do not open this.
    Forbidden = "forbidden", Client, 403;
    /// No route matches.
    NoRoute = "no_route", Client, 404;
    /// A route matches, but not for this method.
    MethodNotAllowed = "method_not_allowed", Client, 405;
    /// The client was too slow to send its head or body.
    ClientTimeout = "client_timeout", Client, 408;
    /// The body is larger than the route allows.
    BodyTooLarge = "body_too_large", Client, 413;
    /// The request target is longer than the listener allows.
    UriTooLong = "uri_too_long", Client, 414;
    /// The connection cannot serve this host.
    Misdirected = "misdirected", Client, 421;
    /// The client's share is used up.
    RateLimited = "rate_limited", Client, 429;
    /// The head is larger, or has more fields, than the listener allows.
    HeaderTooLarge = "header_too_large", Client, 431;
    /// The client left before the end. Nobody is there to be answered; logs say 499.
    ClientGone = "client_gone", Client, NO_ANSWER;

    /// A bug of ours.
    Panic = "panic", Gateway, 500;
    /// The gateway does not do this (`CONNECT`).
    Unsupported = "unsupported", Gateway, 501;
    /// A bound of the gateway is reached.
    Overloaded = "overloaded", Gateway, 503;
    /// The gateway is going down.
    ShuttingDown = "shutting_down", Gateway, 503;
    /// The route was removed, and the grace of its streams is over.
    RouteRemoved = "route_removed", Gateway, NO_ANSWER;
    /// The route is out of service because an operator wants it so.
    Maintenance = "maintenance", Gateway, 503;
    /// Whoever decides about credentials cannot be asked.
    AuthUnavailable = "auth_unavailable", Gateway, 503;
    /// The request came back to the gateway that forwarded it.
    LoopDetected = "loop_detected", Gateway, 508;

    /// The endpoint's name has no address.
    DnsFailed = "dns_failed", Upstream, 502;
    /// The endpoint refused the connection.
    ConnectRefused = "connect_refused", Upstream, 502;
    /// No TLS session with the endpoint.
    TlsFailed = "tls_failed", Upstream, 502;
    /// The endpoint broke the connection before its answer.
    UpstreamReset = "upstream_reset", Upstream, 502;
    /// The endpoint's answer breaks the protocol.
    UpstreamProtocolError = "upstream_protocol_error", Upstream, 502;
    /// The endpoint's head is larger than allowed.
    ResponseTooLarge = "response_too_large", Upstream, 502;
    /// The upstream has no usable endpoint.
    NoEndpoint = "no_endpoint", Upstream, 503;
    /// The upstream's circuit breaker is open.
    BreakerOpen = "breaker_open", Upstream, 503;
    /// No connection of the endpoint's pool became free in time.
    PoolTimeout = "pool_timeout", Upstream, 503;
    /// The endpoint did not accept the connection in time.
    ConnectTimeout = "connect_timeout", Upstream, 504;
    /// The endpoint did not answer in time.
    UpstreamTimeout = "upstream_timeout", Upstream, 504;
    /// The endpoint's body ended before its announced end.
    UpstreamTruncated = "upstream_truncated", Upstream, NO_ANSWER;
    /// The endpoint's body stood still for too long.
    StreamIdleTimeout = "stream_idle_timeout", Upstream, NO_ANSWER;
    /// A gRPC failure in the trailers of an HTTP 200.
    GrpcStatus = "grpc_status", Upstream, NO_ANSWER;
    /// A WebSocket that the upstream closed because it failed (close codes 1011 to 1014).
    WebsocketClose = "websocket_close", Upstream, NO_ANSWER;
    /// The upstream answered with a failed status; passed on as it came.
    UpstreamStatus = "upstream_status", Upstream, NO_ANSWER;
}

impl Reason {
    pub(crate) fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }

    pub(crate) fn index(self) -> u8 {
        self as u8
    }
}

/// Declares the finer words.
macro_rules! details {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)+) => {
        /// A finer word beside a [`Reason`]: closed, so that it may stand in any signal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Detail { $($(#[$doc])* $name,)+ }

        impl Detail {
            /// Every detail.
            pub const ALL: &'static [Detail] = &[$(Detail::$name,)+];

            /// The word in attributes, logs and answers.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }
        }
    };
}

details! {
    /// The route's time for the whole request is over.
    Total = "total";
    /// The time for one attempt is over.
    PerTry = "per_try";
    /// The path has an encoded slash, NUL, backslash, or dot segments that leave the root.
    AmbiguousPath = "ambiguous_path";
    /// The path is not valid percent-encoding.
    InvalidPath = "invalid_path";
    /// The body's length is stated in more than one way, or in a way nobody may forward.
    AmbiguousLength = "ambiguous_length";
    /// `Host` is missing, twice, invalid, or contradicts the request target.
    InvalidHost = "invalid_host";
    /// The bytes are not HTTP.
    Malformed = "malformed";
    /// More fields than allowed.
    FieldCount = "field_count";
    /// The head was not complete in time.
    SlowHead = "slow_head";
    /// The body stood still for too long, or came in drops.
    SlowBody = "slow_body";
    /// The body broke off or broke its framing.
    BrokenBody = "broken_body";
    /// More HTTP/2 frames that ask for nothing than anybody needs.
    Flood = "flood";
    /// The client did not take the answer in time.
    SlowReader = "slow_reader";
    /// The certificate is not signed by a trusted authority.
    Untrusted = "untrusted";
    /// The certificate is for another name.
    NameMismatch = "name_mismatch";
    /// The certificate is out of date.
    Expired = "expired";
    /// The peer and we share no protocol.
    Alpn = "alpn";
    /// More informational answers (1xx) than allowed.
    InformationalFlood = "informational_flood";
    /// HTTP without TLS, on a port where TLS is spoken.
    PlainHttp = "plain_http";
    /// The endpoint refused or reset the HTTP/2 stream.
    StreamReset = "stream_reset";
    /// The endpoint has not processed the HTTP/2 stream, and said so.
    StreamRefused = "stream_refused";
    /// As many wait already as may wait.
    QueueFull = "queue_full";
    /// As many requests are under way already as may be.
    Requests = "requests";
    /// As many connections are open already as may be.
    Connections = "connections";
    /// A method that is always refused.
    Method = "method";
    /// The head had been sent when the exchange broke.
    InBody = "in_body";
    /// The time that the client gave a gRPC call is over.
    GrpcTimeout = "grpc_timeout";
    /// A preflight for a page of an origin that may not call (CORS).
    CorsOrigin = "cors_origin";
    /// A preflight for a method that pages of other origins may not use (CORS).
    CorsMethod = "cors_method";
    /// A preflight for a header field that pages of other origins may not send (CORS).
    CorsHeader = "cors_header";
    /// What several gateways share could not be asked.
    StoreAway = "store_away";
    /// It was not done in time: the name's lookup, the TLS handshake.
    Timeout = "timeout";
    /// Nothing that a rule could verify was sent.
    MissingCredentials = "missing_credentials";
    /// The token, key or role is out of date.
    TokenExpired = "token_expired";
    /// The token is for later.
    NotYetValid = "not_yet_valid";
    /// The token is for somebody else.
    WrongAudience = "wrong_audience";
    /// The token is from somebody else.
    WrongIssuer = "wrong_issuer";
    /// The token is signed in a way that is not taken, or that its key is not for.
    WrongAlgorithm = "wrong_algorithm";
    /// The token is not signed by the key that it names.
    BadSignature = "bad_signature";
    /// Nobody knows this key.
    UnknownKey = "unknown_key";
    /// The token does not say what it must.
    MissingClaim = "missing_claim";
    /// The client's certificate has another role.
    WrongRole = "wrong_role";
    /// The issuer's keys cannot be fetched.
    IssuerAway = "issuer_away";
    /// The service that decides who may call said no.
    Denied = "denied";
    /// The service that decides who may call could not be reached, or broke off.
    ServiceAway = "service_away";
    /// The service that decides who may call failed, or said what is no answer.
    ServiceFailed = "service_failed";
    /// The client's address is not let in.
    Address = "address";
}

impl Detail {
    pub(crate) fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }

    pub(crate) fn index(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::{Detail, Reason};

    #[test]
    fn every_reason_is_found_by_its_index() {
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_index(reason.index()), Some(reason));
        }
    }

    #[test]
    fn every_detail_is_found_by_its_index() {
        for &detail in Detail::ALL {
            assert_eq!(Detail::from_index(detail.index()), Some(detail));
        }
    }
}
