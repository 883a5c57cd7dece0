//! The leaves of a route: operations, methods, hosts, header conditions, read from what was written.

use std::fmt;

use http::{HeaderName, HeaderValue, Method};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::super::pointer::Pointer;
use super::super::route::{HeaderMatch, Host, Upgrade, UpstreamHost};
use crate::problem::Key;
use crate::setting::Check;
use crate::setting::leaf::{schema, text, words};

/// A business operation: `order.create`.
#[derive(Debug)]
pub(super) struct Operation(pub(super) Box<str>);

impl<'de> Deserialize<'de> for Operation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a word", |name| {
            let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
            if first && name.len() <= 64 && name.bytes().all(is_word_byte) {
                return Ok(Self(name.into()));
            }
            let help = "write at most 64 lower-case letters, digits, dots and underscores: \"order.create\"";
            Err(format!("\"{name}\" is not the name of an operation\n{help}"))
        })
    }
}

schema!(Operation, { "type": "string", "examples": ["order.create"], "pattern": "^[a-z][a-z0-9_.]{0,63}$" });

/// One name, or a list of them.
#[derive(Debug)]
pub(super) struct Names(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or a list of names")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Names, E> {
                Ok(Names(vec![name.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element::<String>()? {
                    if names.contains(&name) {
                        return Err(A::Error::custom(format!(
                            "names \"{name}\" twice\nwrite each name once"
                        )));
                    }
                    names.push(name);
                }
                Ok(Names(names))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

schema!(Names, { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "uniqueItems": true }] });

/// A method that can be routed.
#[derive(Debug)]
pub(super) struct WrittenMethod(pub(super) Method);

impl<'de> Deserialize<'de> for WrittenMethod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a method", |written| {
            let upper = written.to_ascii_uppercase();
            match Method::from_bytes(written.as_bytes()) {
                Ok(method) if method == Method::CONNECT || method == Method::TRACE => {
                    Err(format!("{method} is never routed\nleave it out: CONNECT is answered 501, TRACE 405"))
                }
                Ok(method) if written == upper => Ok(Self(method)),
                Ok(_) => Err(format!(
                    "\"{written}\" is not a method: their letters are capitals\nwrite \"{upper}\""
                )),
                Err(_) => {
                    Err(format!("\"{written}\" is not a method\nwrite one such as \"GET\" or \"POST\""))
                }
            }
        })
    }
}

schema!(WrittenMethod, { "type": "string", "examples": ["GET", "POST", "PUT", "PATCH", "DELETE"], "pattern": "^[^a-z]+$", "not": { "enum": ["CONNECT", "TRACE"] } });

words!(Upgrade, [("websocket", Self::Websocket)]);

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a JSON pointer", Self::parse)
    }
}

schema!(Pointer, { "type": "string", "examples": ["/order_id"], "pattern": "^/" });

impl Host {
    fn parse(written: &str) -> Result<Self, String> {
        let host = written.to_ascii_lowercase();
        let (wildcard, name) = match host.strip_prefix("*.") {
            Some(suffix) => (true, suffix),
            None => (false, host.as_str()),
        };
        let byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let label = |label: &str| !label.is_empty() && label.len() <= 63 && label.bytes().all(byte);
        let literal =
            name.starts_with('[') && name.trim_matches(['[', ']']).parse::<std::net::Ipv6Addr>().is_ok();
        if name.split('.').all(label) || (literal && !wildcard) {
            return Ok(if wildcard { Self::Wildcard(name.into()) } else { Self::Exact(name.into()) });
        }
        let help = "write a name without scheme and port, \"shop.example\" or \"*.shop.example\"; \
                    international names in their xn-- form";
        Err(format!("\"{written}\" is not a host\n{help}"))
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a host", Self::parse)
    }
}

schema!(Host, { "type": "string", "examples": ["shop.example", "*.shop.example"], "pattern": "^[^/]+$" });

words!(UpstreamHost, [("keep", Self::Keep), ("endpoint", Self::Endpoint)]);

impl<'de> Deserialize<'de> for HeaderMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueOrTrue;

        impl Visitor<'_> for ValueOrTrue {
            type Value = HeaderMatch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or true for any value")
            }

            fn visit_bool<E: Error>(self, any: bool) -> Result<HeaderMatch, E> {
                let help = "write true if it must be there, or leave it out";
                if any {
                    Ok(HeaderMatch::Present)
                } else {
                    Err(E::custom(format!("cannot be false\n{help}")))
                }
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<HeaderMatch, E> {
                let wrong =
                    |_| E::custom("is not the value of a header field\nleave out what is not printable");
                HeaderValue::from_str(value).map(HeaderMatch::Exact).map_err(wrong)
            }
        }

        deserializer.deserialize_any(ValueOrTrue)
    }
}

schema!(HeaderMatch, { "anyOf": [{ "type": "string" }, { "const": true }] });

/// The name of a header field; `None` after the problem has been noted.
pub(super) fn header_name(name: &str, key: &Key, check: &Check<'_>) -> Option<HeaderName> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
    if parsed.is_none() {
        check.wrong(
            key,
            format!("\"{name}\" is not the name of a header field"),
            "write a name such as \"x-order-id\"",
        );
    }
    parsed
}

/// What names of operations and attributes are made of.
pub(super) fn is_word_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_a_wildcard() {
        let exact = |name: &str| Ok(Host::Exact(name.into()));
        for (written, host) in [
            ("Shop.Example", exact("shop.example")),
            ("localhost", exact("localhost")),
            ("10.0.0.7", exact("10.0.0.7")),
            ("[::1]", exact("[::1]")),
            ("*.shop.example", Ok(Host::Wildcard("shop.example".into()))),
            ("shop.example:8080", Err(())),
            ("http://shop", Err(())),
            ("*", Err(())),
            ("shop.*", Err(())),
            ("a..b", Err(())),
            ("bücher.example", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(Host::parse(written).map_err(|_| ()), host, "{written}");
        }
    }
}
