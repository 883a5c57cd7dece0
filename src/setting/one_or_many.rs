//! One word, or a list of them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::leaf::schema;

/// `"a"` or `["a", "b"]`; never an empty list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany(pub Vec<Box<str>>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl<'de> Visitor<'de> for Words {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of texts,")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![word.into()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut listed: A) -> Result<OneOrMany, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = listed.next_element::<String>()? {
                    words.push(word.into());
                }
                if words.is_empty() {
                    return Err(A::Error::custom("is empty\nwrite at least one, or leave the key out"));
                }
                Ok(OneOrMany(words))
            }
        }

        deserializer.deserialize_any(Words)
    }
}

schema!(OneOrMany, { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }] });
