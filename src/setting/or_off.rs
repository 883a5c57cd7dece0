//! `"off"`, where something may be disabled.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Visitor};

/// A value that may be `"off"`; so may a whole table. It is never disabled by `0`.
///
/// It can be read only from the configuration's own tree, which tells the two apart under [`STRUCT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrOff<T> {
    /// `"off"`
    Off,
    /// Anything else.
    On(T),
}

/// The struct name that asks the tree for nothing if `"off"` is written, else for the value.
pub const STRUCT: &str = "$or_off";

impl<T> OrOff<T> {
    /// `None` if it is off.
    pub fn into_option(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrOff<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OrOff<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or \"off\"")
            }

            fn visit_none<E>(self) -> Result<Self::Value, E> {
                Ok(OrOff::Off)
            }

            fn visit_some<D: Deserializer<'de>>(self, on: D) -> Result<Self::Value, D::Error> {
                T::deserialize(on).map(OrOff::On)
            }
        }

        deserializer.deserialize_newtype_struct(STRUCT, Either(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OrOff<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let on = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [on, { "const": "off" }] })
    }
}
