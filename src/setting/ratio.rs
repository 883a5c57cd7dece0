//! A share as written: a number from 0.0 to 1.0.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::leaf::schema;

/// A share of something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio(f64);

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Ratio;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Ratio, E> {
                if (0.0..=1.0).contains(&number) {
                    return Ok(Ratio(number));
                }
                Err(E::custom(format!("{number} is not a share\nwrite a number from 0.0 to 1.0")))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Ratio, E> {
                let number = i32::try_from(number).unwrap_or(i32::MAX);
                self.visit_f64(number.into())
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Ratio, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

schema!(Ratio, { "type": "number", "minimum": 0.0, "maximum": 1.0 });

impl From<Ratio> for f64 {
    fn from(written: Ratio) -> Self {
        written.0
    }
}
