//! `Written<T>`: one value of the file, which knows its key and whether it was there.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

use super::check::Check;
use crate::problem::Key;

/// A value as written. Reading it never fails: what is wrong with it goes to the reader's problems, and what
/// remains is that something was there. So one bad value hides no other.
///
/// It can be read only from the configuration's own tree, which hands over key and value under [`STRUCT`].
#[derive(Debug, Clone)]
pub struct Written<T> {
    key: Key,
    state: State<T>,
}

#[derive(Debug, Clone)]
enum State<T> {
    Absent,
    /// It was there and wrong, which has been noted.
    Wrong,
    Value(T),
}

/// The struct name that asks the tree for a key and a value: a sequence of two, or of one if it is absent.
pub const STRUCT: &str = "$written";

impl<T> Written<T> {
    /// Its key, for a problem.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The value, if one was written and is right.
    pub fn get(&self) -> Option<&T> {
        match &self.state {
            State::Value(value) => Some(value),
            State::Absent | State::Wrong => None,
        }
    }

    /// The value, if one was written and is right.
    pub fn into_option(self) -> Option<T> {
        match self.state {
            State::Value(value) => Some(value),
            State::Absent | State::Wrong => None,
        }
    }

    /// What is made of the value, at the same key; if that is nothing, the value is wrong, which has been noted.
    pub fn map<U>(self, make: impl FnOnce(T) -> Option<U>) -> Written<U> {
        let state = match self.state {
            State::Absent => State::Absent,
            State::Wrong => State::Wrong,
            State::Value(value) => make(value).map_or(State::Wrong, State::Value),
        };
        Written { key: self.key, state }
    }

    /// Whether nothing was written, right or wrong.
    pub fn is_absent(&self) -> bool {
        matches!(self.state, State::Absent)
    }

    /// The value as used, or the default. A wrong value takes the default too: the problem has been noted, so
    /// nobody will use it.
    pub fn or<U>(self, default: U) -> U
    where
        T: Into<U>,
    {
        self.into_option().map_or(default, Into::into)
    }

    /// The value; that it is missing is a problem.
    pub fn required(self, check: &Check<'_>, help: &str) -> Option<T> {
        if self.is_absent() {
            check.wrong(&self.key, "is missing", help);
        }
        self.into_option()
    }
}

impl<T> Written<Vec<Written<T>>> {
    /// The elements that are right; none if the list is absent.
    pub fn into_elements(self) -> impl Iterator<Item = T> {
        self.into_option().into_iter().flatten().filter_map(Written::into_option)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pair<T> {
            type Value = Written<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key and a value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Self::Value, A::Error> {
                let key = pair.next_element()?.unwrap_or_default();
                let state = match pair.next_element() {
                    Ok(Some(value)) => State::Value(value),
                    Ok(None) => State::Absent,
                    Err(_noted) => State::Wrong,
                };
                Ok(Written { key, state })
            }
        }

        deserializer.deserialize_struct(STRUCT, &["key", "value"], Pair(PhantomData))
    }
}

/// As the value itself: keys are noted beside the file, not in it.
impl<T: JsonSchema> JsonSchema for Written<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
