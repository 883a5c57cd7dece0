//! Compression of answers (RFC 9110 section 8.4): which, by which coding, and what their headers say of it.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, request};

use super::accept::coding_quality;
use super::headers;

/// Which answers of a route are compressed.
#[derive(Debug, Clone)]
pub struct Compression {
    /// The codings, the one that goes first first.
    pub codings: Vec<Coding>,
    /// What they are of.
    pub types: Vec<MediaType>,
    /// Shorter ones are not worth it, in bytes.
    pub min_size: u64,
    /// The most that are compressed at once; more pass as they are.
    pub at_once: usize,
}

impl Compression {
    /// What is done, in words.
    pub fn told(&self) -> String {
        let codings: Vec<&str> = self.codings.iter().map(|coding| coding.word()).collect();
        format!("{} from {} bytes on, {} answers at once", codings.join(", "), self.min_size, self.at_once)
    }
}

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// RFC 1952.
    Gzip,
}

/// A type of body, or many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`
    Exact(Box<str>),
    /// `text/*`: what begins so.
    Of(Box<str>),
    /// `*+json`: what ends so.
    Like(Box<str>),
}

impl Coding {
    /// The word in `Content-Encoding`, and in the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

impl MediaType {
    fn is(&self, media_type: &str) -> bool {
        match self {
            Self::Exact(name) => media_type == &**name,
            Self::Of(beginning) => media_type.starts_with(&**beginning),
            Self::Like(end) => media_type.ends_with(&**end),
        }
    }
}

impl Compression {
    /// The coding that the client wants most of ours; `None` if the request allows none. A `HEAD` is told of what `GET`
    /// would get (RFC 9110 section 9.3.2).
    pub(super) fn choose(&self, request: &request::Parts) -> Option<Coding> {
        let headers = &request.headers;
        let fits = !headers.contains_key(header::RANGE) && !forbids_transformation(headers);
        let quality = |coding: Coding| coding_quality(headers, coding.word());
        let best = || self.codings.iter().copied().rev().max_by_key(|coding| quality(*coding));
        fits.then(best)?.filter(|coding| quality(*coding) > 0)
    }

    /// Whether an answer is one that may be compressed for those who want it.
    pub(super) fn may(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let without = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::PARTIAL_CONTENT];
        // what follows a 101 is a tunnel
        !status.is_informational()
            && !without.contains(&status)
            && status != StatusCode::NOT_MODIFIED
            && !TELLING.iter().any(|name| headers.contains_key(name))
            && !forbids_transformation(headers)
            && self.is_listed(headers)
    }

    fn is_listed(&self, headers: &HeaderMap) -> bool {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        !NEVER.iter().any(|never| kind.starts_with(never)) && self.types.iter().any(|listed| listed.is(&kind))
    }
}

/// What the header of an answer says once its body is compressed.
pub(super) fn tell(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.word()));
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT_RANGES);
    weaken(headers);
}

/// The answer's tag, as it is once the body is compressed.
pub(super) fn weaken(headers: &mut HeaderMap) {
    // what a strong one names, byte by byte, is the uncompressed answer (RFC 9110 section 8.8.3)
    let strong = headers.get(header::ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    if let Some(weak) = strong.map(|tag| [b"W/", tag.as_bytes()].concat())
        && let Ok(weak) = HeaderValue::from_bytes(&weak)
    {
        headers.insert(header::ETAG, weak);
    }
}

/// Says that the answer would be another one for another `Accept-Encoding`.
pub(super) fn tell_choice(headers: &mut HeaderMap) {
    headers::vary(headers, "accept-encoding");
}

pub(super) fn forbids_transformation(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// What cannot wait until there is enough of it, and what speaks of compression itself.
const NEVER: [&str; 2] = ["text/event-stream", "application/grpc"];

/// Answers with these are encoded already, are a part, or tell a sum of their bytes.
static TELLING: [HeaderName; 6] = [
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};

    use super::{Coding, Compression, MediaType, tell};

    fn usual() -> Compression {
        Compression {
            codings: vec![Coding::Zstd, Coding::Brotli, Coding::Gzip],
            types: vec![
                MediaType::Of("text/".into()),
                MediaType::Exact("application/json".into()),
                MediaType::Like("+json".into()),
            ],
            min_size: 1024,
            at_once: 1,
        }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        fields.iter().map(field).collect()
    }

    #[test]
    fn the_client_chooses_and_we_choose_between_equals() {
        for (method, fields, expected) in [
            ("GET", &[("accept-encoding", "gzip, deflate, br, zstd")][..], Some(Coding::Zstd)),
            ("GET", &[("accept-encoding", "gzip, br;q=0.9")], Some(Coding::Gzip)),
            ("POST", &[("accept-encoding", "br, gzip")], Some(Coding::Brotli)),
            ("GET", &[("accept-encoding", "deflate")], None),
            ("GET", &[("accept-encoding", "gzip;q=0")], None),
            ("GET", &[], None),
            ("HEAD", &[("accept-encoding", "gzip")], Some(Coding::Gzip)),
            ("GET", &[("accept-encoding", "gzip"), ("range", "bytes=0-1")], None),
            ("GET", &[("accept-encoding", "gzip"), ("cache-control", "no-cache, No-Transform")], None),
        ] {
            let mut request = Request::builder().method(method).body(()).expect("a request").into_parts().0;
            request.headers = headers(fields);
            assert_eq!(usual().choose(&request), expected, "{method} {fields:?}");
        }
    }

    #[test]
    fn only_plain_answers_of_listed_types_are_compressed() {
        let json = ("content-type", "application/json");
        for (status, fields, expected) in [
            (200, &[json][..], true),
            (404, &[("content-type", "Application/Problem+JSON; charset=utf-8")], true),
            (200, &[("content-type", "text/html")], true),
            (200, &[("content-type", "image/png")], false),
            (200, &[], false),
            (200, &[("content-type", "text/event-stream")], false),
            (200, &[("content-type", "application/grpc+json")], false),
            (200, &[json, ("content-encoding", "gzip")], false),
            (200, &[json, ("content-range", "bytes 0-1/2")], false),
            (200, &[json, ("repr-digest", "sha-256=:a:")], false),
            (200, &[json, ("cache-control", "public, no-transform")], false),
            (206, &[json], false),
            (204, &[json], false),
            (101, &[json], false),
            (304, &[json], false),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(usual().may(status, &headers(fields)), expected, "{status} {fields:?}");
        }
    }

    #[test]
    fn a_compressed_answer_says_what_it_is() {
        for (tag, expected) in [("\"a\"", "W/\"a\""), ("W/\"a\"", "W/\"a\"")] {
            let mut map = headers(&[("content-length", "9"), ("accept-ranges", "bytes")]);
            map.insert("etag", HeaderValue::from_static(tag));
            tell(&mut map, Coding::Brotli);
            assert_eq!(map, {
                let mut told = headers(&[("content-encoding", "br")]);
                told.insert("etag", HeaderValue::from_static(expected));
                told
            });
        }
    }
}
