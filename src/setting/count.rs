//! A count as written: a whole number from 1.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::leaf::schema;

/// How many of something: 1 to 2³¹ − 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count(u32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Count, E> {
                match u32::try_from(number) {
                    Ok(count @ 1..=MOST) => Ok(Count(count)),
                    _ => Err(E::custom(format!(
                        "{number} is out of bounds\nwrite a whole number from 1 to {MOST}"
                    ))),
                }
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Count, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

schema!(Count, { "type": "integer", "minimum": 1, "maximum": MOST });

/// What fits into every type that a count is used as.
const MOST: u32 = i32::MAX as u32;

impl From<Count> for usize {
    fn from(written: Count) -> Self {
        Self::try_from(written.0).unwrap_or(Self::MAX)
    }
}

impl From<Count> for u32 {
    fn from(written: Count) -> Self {
        written.0
    }
}
