//! Redirects and fixed answers as written, and what they mean.

use std::sync::Arc;

use http::uri::Authority;
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::super::pattern::{Pattern, Piece, WORDS};
use super::super::respond::{Answer, Redirect, Static};
use super::super::route::Match;
use crate::problem::Key;
use crate::setting::leaf::{schema, text};
use crate::setting::{Check, Count, OrOff, Written};

/// A redirect as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ to = \"https://shop.example{path}\", status = 308 }")]
pub(super) struct WrittenRedirect {
    /// An origin, or a path on the same host, with placeholders: `https://shop.example{path}`.
    to: Written<String>,
    /// 301, 302, 303, 307 or 308. Default: `308`.
    status: Written<Count>,
}

/// A fixed answer as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ status = 404, body = \"…\" }")]
pub(super) struct WrittenRespond {
    /// The status, 200 to 599. Default: `200`.
    status: Written<Count>,
    /// The body. Default: `""`.
    body: Written<String>,
    /// Its type. Default: `"text/plain; charset=utf-8"`.
    content_type: Written<String>,
}

/// Where clients without TLS are sent: `https://{host}`, `https://shop.example:8443`.
#[derive(Debug)]
pub(super) struct WrittenOrigin(String);

impl<'de> Deserialize<'de> for WrittenOrigin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an origin", |written| {
            let rest =
                written.strip_prefix("https://").filter(|rest| !rest.is_empty() && !rest.contains('/'));
            match rest {
                Some(_) => Ok(Self(written.to_owned())),
                None => Err(format!(
                    "\"{written}\" is not an origin with TLS\nwrite \"https://{{host}}\" for the same host, or \
                     \"https://shop.example\""
                )),
            }
        })
    }
}

schema!(WrittenOrigin, { "type": "string", "examples": ["https://{host}", "https://shop.example:8443"], "pattern": "^https://[^/]+$" });

impl WrittenOrigin {
    /// The redirect as used.
    pub(super) fn check(
        written: Written<OrOff<Self>>,
        matches: &Match,
        check: &Check<'_>,
    ) -> Option<Redirect> {
        let key = written.key().clone();
        let Self(origin) = written.into_option()?.into_option()?;
        // the words alone: a route whose parameter is called path goes where the others go
        let to = target(&format!("{origin}{{path}}"), "/", matches, &key, check)?;
        Some(Redirect { to, status: StatusCode::PERMANENT_REDIRECT, keeps_query: true })
    }
}

impl WrittenRedirect {
    /// The redirect as used; `None` only after a problem has been noted.
    pub(super) fn check(self, matches: &Match, check: &Check<'_>) -> Option<Answer> {
        let key = self.to.key().clone();
        let written = self.to.required(check, HELP)?;
        let to = target(&written, &matches.path, matches, &key, check)?;
        let status = status(self.status, &[301, 302, 303, 307, 308], 308, check)?;
        let keeps_query = !written.contains(['?', '#']);
        Some(Answer::Redirect(Arc::new(Redirect { to, status, keeps_query })))
    }
}

impl WrittenRespond {
    /// Its key.
    pub(super) fn key(&self) -> Key {
        self.status.key().parent().unwrap_or_default()
    }

    /// The answer as used; `None` only after a problem has been noted.
    pub(super) fn check(self, check: &Check<'_>) -> Option<Answer> {
        let any: Vec<u16> = (200..=599).collect();
        let status = status(self.status, &any, 200, check)?;
        let key = self.body.key().clone();
        let body = self.body.into_option().unwrap_or_default();
        if !body.is_empty() && matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            check.wrong(&key, format!("cannot go with status {}", status.as_u16()), "leave it out");
        }
        let key = self.content_type.key().clone();
        let content_type = self.content_type.into_option().unwrap_or_else(|| PLAIN.to_owned());
        let content_type = HeaderValue::try_from(content_type).map_err(|_| {
            check.wrong(&key, "is not the value of a header field", "write one such as \"text/html\"");
        });
        let content_type = content_type.ok().filter(|_| !body.is_empty());
        Some(Answer::Static(Arc::new(Static { status, content_type, body: body.into() })))
    }
}

fn status(written: Written<Count>, allowed: &[u16], default: u16, check: &Check<'_>) -> Option<StatusCode> {
    let key = written.key().clone();
    let number = written.into_option().map_or(u32::from(default), u32::from);
    let known = u16::try_from(number).ok().filter(|number| allowed.contains(number));
    if known.is_none() {
        let few: Vec<String> = allowed.iter().take(5).map(u16::to_string).collect();
        let help = if allowed.len() > few.len() { "200 to 599".to_owned() } else { few.join(", ") };
        check.wrong(
            &key,
            format!("{number} is not a status that belongs here"),
            format!("write one of {help}"),
        );
    }
    StatusCode::from_u16(known?).ok()
}

/// A target that a client's text cannot lead away from: its host, or its first segment, is written here. Its
/// placeholders are the parameters of this template, and the words.
fn target(written: &str, template: &str, matches: &Match, key: &Key, check: &Check<'_>) -> Option<Pattern> {
    let pattern = match Pattern::parse(written, template, &WORDS) {
        Ok(pattern) => pattern,
        Err(name) => {
            let what = if name.is_empty() {
                "has a brace that is none of a placeholder".to_owned()
            } else {
                format!("there is no {{{name}}}")
            };
            let help = "the placeholders are the parameters of the path, {path}, {host}, {request_id} and {trace_id}";
            check.wrong(key, what, help);
            return None;
        }
    };
    let pieces = pattern.pieces();
    if pieces.contains(&Piece::Host) && matches.hosts.is_empty() {
        let help = "write the host, or name the hosts of the route: match.hosts";
        check.wrong(key, "would send clients to any host that they name: the route serves every host", help);
        return None;
    }
    if !is_anchored(pieces) {
        let what = format!("\"{written}\" leaves it to the client where it leads");
        check.wrong(key, what, HELP);
        return None;
    }
    if written.bytes().any(|byte| !byte.is_ascii_graphic()) {
        check.wrong(key, "has a space or a letter that stands in no URL", "write it percent-encoded");
        return None;
    }
    Some(pattern)
}

/// Whether the host is fixed: by an origin that ends before the first placeholder, or by a path on the same host.
/// Normalised paths and their parameters have no two slashes in a row, and parameters do not begin with one.
fn is_anchored(pieces: &[Piece]) -> bool {
    let (first, rest) = match pieces {
        [Piece::Text(first), rest @ ..] => (&**first, rest),
        [Piece::Path, ..] => return true,
        _ => return false,
    };
    let after = first.strip_prefix("https://").or_else(|| first.strip_prefix("http://"));
    match after {
        Some("") => match rest {
            [Piece::Host] | [Piece::Host, Piece::Path, ..] => true,
            [Piece::Host, Piece::Text(next), rest @ ..] => {
                let port = next
                    .strip_prefix(':')
                    .map_or(0, |port| 1 + port.bytes().take_while(u8::is_ascii_digit).count());
                port != 1 && ends_origin(&next[port..], rest)
            }
            _ => false,
        },
        Some(after) => {
            let end = after.find(['/', '?', '#']).unwrap_or(after.len());
            let plain =
                |authority: &Authority| !authority.as_str().contains('@') && !authority.host().is_empty();
            after[..end].parse().is_ok_and(|authority| plain(&authority)) && ends_origin(&after[end..], rest)
        }
        None => {
            let second = first.as_bytes().get(1);
            let leads_on = second.is_some_and(|second| !matches!(second, b'/' | b'\\'));
            let segment = second.is_none() && matches!(rest, [] | [Piece::Parameter(_), ..]);
            first.starts_with('/') && (leads_on || segment)
        }
    }
}

/// Whether what follows an origin cannot go on with it.
fn ends_origin(text: &str, rest: &[Piece]) -> bool {
    if text.is_empty() { matches!(rest, [] | [Piece::Path, ..]) } else { text.starts_with(['/', '?', '#']) }
}

const HELP: &str = "begin with an origin, \"https://shop.example{path}\", or with a path on the same host, \"/v2/{order_id}\"";

const PLAIN: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::super::super::pattern::{Pattern, WORDS};
    use super::is_anchored;

    #[test]
    fn no_client_leads_a_redirect_to_another_host() {
        for (to, anchored) in [
            ("https://shop.example", true),
            ("https://shop.example{path}", true),
            ("https://shop.example/{rest}", true),
            ("https://shop.example:8443{path}", true),
            ("http://shop.example?x={rest}", true),
            ("https://{host}{path}", true),
            ("https://{host}:8443{path}", true),
            ("https://{host}/new/{rest}", true),
            ("{path}", true),
            ("/", true),
            ("/v2{path}", true),
            ("/{rest}", true),
            ("https://{rest}", false),
            ("https://shop.example{rest}", false),
            ("https://shop.example:{rest}", false),
            ("https://{host}{rest}", false),
            ("https://{host}:{rest}", false),
            ("https://{host}.evil.example{path}", false),
            ("https://{host}:80{rest}", false),
            ("https://user@{host}/", false),
            ("https://user@shop.example/", false),
            ("https:///{rest}", false),
            ("https://", false),
            ("//{rest}", false),
            ("//evil.example", false),
            ("/\\evil.example", false),
            ("/{path}", false),
            ("{rest}", false),
            ("{host}", false),
            ("javascript:{rest}", false),
            ("shop.example/", false),
            ("", false),
        ] {
            let pattern = Pattern::parse(to, "/old/{*rest}", &WORDS).expect(to);
            assert_eq!(is_anchored(pattern.pieces()), anchored, "{to}");
        }
    }
}
