//! What an HTTP exchange says of itself, in closed sets: telemetry knows the words, not the protocol's library.

/// The method, as `http.request.method` has it (OpenTelemetry HTTP conventions): known ones or `_OTHER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `CONNECT`
    Connect,
    /// `OPTIONS`
    Options,
    /// `TRACE`
    Trace,
    /// `PATCH`
    Patch,
    /// Anything else, and a head that could not be read.
    Other,
}

impl Method {
    /// Every method, in the order of [`Method::index`].
    pub const ALL: [Self; 10] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Delete,
        Self::Connect,
        Self::Options,
        Self::Trace,
        Self::Patch,
        Self::Other,
    ];

    /// The closed word for this method; methods are case-sensitive (RFC 9110 section 9.1).
    pub fn new(method: &str) -> Self {
        match method {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "CONNECT" => Self::Connect,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            "PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// The value of `http.request.method`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "_OTHER",
        }
    }

    /// The method in a span's name: `HTTP` stands for those that are not known.
    pub fn in_span_name(self) -> &'static str {
        if self == Self::Other { "HTTP" } else { self.word() }
    }

    /// A small number for tables.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// `url.scheme`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// Both, in the order of [`Scheme::index`].
    pub const ALL: [Self; 2] = [Self::Http, Self::Https];

    /// The value of `url.scheme`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// A small number for tables.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// `network.protocol.version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// The value of `network.protocol.version`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2",
        }
    }
}

/// One end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Client,
    /// The upstream's.
    Upstream,
}

impl Side {
    /// The word in attributes and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
        }
    }
}

/// What is known of an HTTP exchange the moment its head has been read.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// The closed method.
    pub method: Method,
    /// With or without TLS.
    pub scheme: Scheme,
    /// The protocol's version on the client's side.
    pub version: Version,
}

/// `status_class` in metrics: `1xx` … `5xx`, or `none` where nothing was answered.
pub fn status_class(status: Option<u16>) -> &'static str {
    match status.map(|status| status / 100) {
        Some(1) => "1xx",
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(5) => "5xx",
        _ => "none",
    }
}
