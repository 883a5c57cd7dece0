//! How a leaf is read: a text that is parsed, or one word of a few.
//!
//! A parser's error is what is wrong, then, after a line break, what to write instead.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, Visitor};

use super::check::{alternatives, nearest};

/// Reads a text and parses it. `expected` names what belongs here: `a path`.
pub fn text<'de, D, T>(
    deserializer: D,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(Text { expected, number: None, parse, result: PhantomData })
}

/// Reads a text that is a number and a unit; a bare number is refused with this help.
pub fn quantity<'de, D, T>(
    deserializer: D,
    expected: &'static str,
    help: &'static str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(Text { expected, number: Some(help), parse, result: PhantomData })
}

/// Reads one word of these.
pub fn word<'de, D, T: Copy>(deserializer: D, words: &[(&str, T)]) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    text(deserializer, "a word", |written| {
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == written) {
            return Ok(*meaning);
        }
        let known = || words.iter().map(|(word, _)| *word);
        let meant =
            nearest(written, known()).map_or_else(|| alternatives(known()), |word| alternatives([word]));
        Err(format!("\"{written}\" is none of {}\nwrite {meant}", alternatives(known())))
    })
}

/// Tells the JSON Schema how a leaf is written. What the keywords cannot say is left to the check.
macro_rules! schema {
    ($leaf:ty, { $($keywords:tt)* }) => {
        impl schemars::JsonSchema for $leaf {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($leaf).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ $($keywords)* })
            }
        }
    };
}
pub(crate) use schema;

/// A leaf that is one word of these: how it is read, and how the JSON Schema has it.
macro_rules! words {
    ($leaf:ty, $words:expr) => {
        impl<'de> serde::Deserialize<'de> for $leaf {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::setting::leaf::word(deserializer, &$words)
            }
        }

        impl schemars::JsonSchema for $leaf {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($leaf).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let words = $words.map(|(word, _): (&str, Self)| word);
                schemars::json_schema!({ "type": "string", "enum": words })
            }
        }
    };
}
pub(crate) use words;

struct Text<P, T> {
    expected: &'static str,
    number: Option<&'static str>,
    parse: P,
    result: PhantomData<T>,
}

impl<P, T> Text<P, T> {
    fn bare<E: Error>(self, number: impl fmt::Display) -> Result<T, E> {
        Err(match self.number {
            Some(help) => E::custom(format!("{number} has no unit\n{help}")),
            None => E::custom(format!("is the number {number}, where {} belongs", self.expected)),
        })
    }
}

impl<P: FnOnce(&str) -> Result<T, String>, T> Visitor<'_> for Text<P, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.bare(number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.bare(number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        self.bare(number)
    }
}
