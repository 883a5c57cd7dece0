//! A table of the file that is read apart, entry by entry.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, IgnoredAny};

/// Stands in the shape of the file for a table of names, each with a `T`, and holds nothing of it.
#[derive(Debug)]
pub(super) struct Apart<T>(PhantomData<T>);

impl<'de, T> Deserialize<'de> for Apart<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_ignored_any(IgnoredAny).map(|IgnoredAny| Self(PhantomData))
    }
}

/// As the table itself.
impl<T: JsonSchema> JsonSchema for Apart<T> {
    fn inline_schema() -> bool {
        BTreeMap::<String, T>::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        BTreeMap::<String, T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, T>::json_schema(generator)
    }
}
