//! `upstream` of a route as written: one name, or several with weights.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::setting::leaf::schema;

use crate::setting::Written;

/// Where a route's requests go, as written.
#[derive(Debug)]
pub(super) enum Upstreams {
    /// All to one.
    One(String),
    /// To several by weight.
    Split(BTreeMap<String, Written<Weight>>),
}

impl<'de> Deserialize<'de> for Upstreams {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrTable;

        impl<'de> Visitor<'de> for NameOrTable {
            type Value = Upstreams;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an upstream, or { shop = 90, shop_canary = 10 },")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Upstreams, E> {
                Ok(Upstreams::One(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Upstreams, A::Error> {
                let mut weights = BTreeMap::new();
                while let Some((name, weight)) = table.next_entry()? {
                    weights.insert(name, weight);
                }
                Ok(Upstreams::Split(weights))
            }
        }

        deserializer.deserialize_any(NameOrTable)
    }
}

impl JsonSchema for Upstreams {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Upstreams".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let weight = generator.subschema_for::<Weight>();
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "object", "additionalProperties": weight }] })
    }
}

/// An upstream's share beside the others: a whole number from 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight(pub(super) u32);

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Weight;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Weight, E> {
                match u32::try_from(number) {
                    Ok(weight @ ..=MOST) => Ok(Weight(weight)),
                    _ => Err(E::custom(format!(
                        "{number} is out of bounds\nwrite a whole number from 0 to {MOST}: only its ratio to the \
                         others counts"
                    ))),
                }
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Weight, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

schema!(Weight, { "type": "integer", "minimum": 0, "maximum": MOST });

/// The heaviest weight.
const MOST: u32 = 1_000_000;
