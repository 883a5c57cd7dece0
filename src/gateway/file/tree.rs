//! Reads the file types from the merged values: every leaf knows its key, and no problem hides another.
//!
//! A table is read by the struct's own list of fields: what is missing is handed to the leaves as absent,
//! with its key, and what is left over is an unknown key.

use std::cell::RefCell;
use std::fmt::{self, Display};

use figment::value::{Dict, Num, Value};
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::problem::{Key, Problem, Problems, key};
use crate::setting::check::nearest;
use crate::setting::{or_off, written};

/// Reads a file type and notes what is wrong. `None` if it is not made of `Written` leaves alone and one of
/// the others is wrong.
pub(super) fn read<'a, T: Deserialize<'a>>(values: &'a Value, found: &'a RefCell<Problems>) -> Option<T> {
    Walk::new(Key::root(), found).read(values)
}

/// The entries of the table of this name at the root, each to be read by itself: of ten thousand as file types at once
/// nothing would stay in the processor's caches. What is no table is noted.
pub(super) fn entries<'a>(
    values: &'a Value,
    name: &str,
    found: &'a RefCell<Problems>,
) -> impl Iterator<Item = Entry<'a>> {
    let walk = Walk::new(Key::root().child(name), found);
    let value = values.as_dict().and_then(|values| values.get(name));
    let table = Tree { walk: &walk, value, wrong: false }.table(names);
    let key = walk.key.into_inner();
    table.into_iter().flatten().map(move |(name, value)| Entry { name, key: key.child(name), value, found })
}

/// One entry of a table.
pub(super) struct Entry<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its key.
    pub(super) key: Key,
    value: &'a Value,
    found: &'a RefCell<Problems>,
}

impl<'a> Entry<'a> {
    /// Reads it as a file type, and notes what is wrong, as [`read`] does.
    pub(super) fn read<T: Deserialize<'a>>(self) -> Option<T> {
        Walk::new(self.key, self.found).read(self.value)
    }
}

/// Where the reading is, and where problems are noted. One key goes in and comes out again: most values are absent, and
/// each has its key.
struct Walk<'a> {
    key: RefCell<Key>,
    found: &'a RefCell<Problems>,
}

impl<'a> Walk<'a> {
    fn new(key: Key, found: &'a RefCell<Problems>) -> Self {
        Self { key: RefCell::new(key), found }
    }

    fn read<T: Deserialize<'a>>(&self, value: &'a Value) -> Option<T> {
        let tree = Tree { walk: self, value: Some(value), wrong: false };
        T::deserialize(tree).map_err(|error| tree.note(error.at(&tree.key()))).ok()
    }
}

/// A value at the key where the walk is, or its absence.
#[derive(Clone, Copy)]
struct Tree<'a, 'w> {
    walk: &'w Walk<'a>,
    value: Option<&'a Value>,
    /// Whether it is absent because the table around it is none, which has been noted.
    wrong: bool,
}

impl<'a> Tree<'a, '_> {
    /// Reads what stands in it under this name.
    fn child<S: DeserializeSeed<'a>>(
        &self,
        name: &str,
        value: Option<&'a Value>,
        seed: S,
    ) -> Result<S::Value, Wrong> {
        let length = self.walk.key.borrow_mut().enter(name);
        let read = seed.deserialize(Self { value, ..*self });
        self.walk.key.borrow_mut().leave(length);
        read
    }

    fn key(&self) -> Key {
        self.walk.key.borrow().clone()
    }

    fn note(&self, problem: Problem) {
        self.walk.found.borrow_mut().push(problem);
    }

    /// The table; what is none is noted, and all that belongs into it is wrong.
    fn table(&mut self, expected: impl FnOnce() -> String) -> Option<&'a Dict> {
        match self.value? {
            Value::Dict(_, table) => Some(table),
            other => {
                let problem = Problem::new(&self.key(), format!("is {}, where a table belongs", kind(other)));
                self.note(problem.help(format!("write {}", expected())));
                self.wrong = true;
                None
            }
        }
    }

    fn refuse_unknown(&self, table: &Dict, fields: &[&'static str]) {
        for name in table.keys().filter(|name| !fields.contains(&name.as_str())) {
            let help = match nearest(name, fields.iter().copied()) {
                Some(meant) => format!("write {meant}"),
                None => format!("the keys here are {}", fields.join(", ")),
            };
            self.note(Problem::unknown_key(&self.key().child(name), "is not a key").help(help));
        }
    }
}

impl<'de> Deserializer<'de> for Tree<'de, '_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value {
            None => visitor.visit_none(),
            Some(Value::String(_, text)) => visitor.visit_borrowed_str(text),
            Some(Value::Char(_, letter)) => visitor.visit_char(*letter),
            Some(Value::Bool(_, truth)) => visitor.visit_bool(*truth),
            Some(Value::Num(_, number)) => visit_number(*number, visitor),
            Some(Value::Empty(..)) => visitor.visit_unit(),
            Some(Value::Dict(..)) => self.deserialize_map(visitor),
            Some(Value::Array(..)) => self.deserialize_seq(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if self.value.is_none() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &str, visitor: V) -> Result<V::Value, Wrong> {
        match (name, self.value) {
            (or_off::STRUCT, Some(Value::String(_, text))) if text == "off" => visitor.visit_none(),
            (or_off::STRUCT, _) => visitor.visit_some(self),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        name: &str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        if name == written::STRUCT {
            return visitor.visit_seq(Pair { tree: self, key_read: false });
        }
        let table = self.table(|| {
            let expected = (&visitor as &dyn Expected).to_string();
            let derived = expected.starts_with("struct ");
            if derived { format!("a table of {}", fields.join(", ")) } else { expected }
        });
        if let Some(table) = table {
            self.refuse_unknown(table, fields);
        }
        visitor.visit_map(Fields { tree: self, table, names: fields, next: 0 })
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Wrong> {
        let left = self.table(names).map(Dict::iter);
        visitor.visit_map(Entries { tree: self, left, value: None })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value {
            Some(Value::Array(_, list)) => visitor.visit_seq(Elements { tree: self, list, next: 0 }),
            Some(other) => {
                let what = format!("is {}, where a list belongs", kind(other));
                Err(Wrong { what, help: Some("write it in brackets: [ … ]".to_owned()) })
            }
            None => visitor.visit_seq(Elements { tree: self, list: &[], next: 0 }),
        }
    }

    /// What is read apart.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        tuple tuple_struct enum identifier
    }
}

fn visit_number<'a, V: Visitor<'a>>(number: Num, visitor: V) -> Result<V::Value, Wrong> {
    if let Some(number) = number.to_i128().and_then(|number| i64::try_from(number).ok()) {
        visitor.visit_i64(number)
    } else if let Some(number) = number.to_u128().and_then(|number| u64::try_from(number).ok()) {
        visitor.visit_u64(number)
    } else {
        visitor.visit_f64(number.to_f64().unwrap_or(f64::NAN))
    }
}

fn names() -> String {
    "a table of names and what they mean".to_owned()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(..) | Value::Char(..) => "a text",
        Value::Bool(..) => "true or false",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
    }
}

/// What [`written::STRUCT`] asks for: the key, then the value, unless it is absent. What is wrong with the
/// value is noted here.
struct Pair<'a, 'w> {
    tree: Tree<'a, 'w>,
    key_read: bool,
}

impl<'a> SeqAccess<'a> for Pair<'a, '_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        if !self.key_read {
            self.key_read = true;
            return seed.deserialize(StrDeserializer::new(self.tree.walk.key.borrow().packed())).map(Some);
        }
        if self.tree.wrong {
            return Err(de::Error::custom("has been noted"));
        }
        if self.tree.value.is_none() {
            return Ok(None);
        }
        seed.deserialize(self.tree).map(Some).inspect_err(|wrong| {
            self.tree.note(wrong.clone().at(&self.tree.key()));
        })
    }
}

/// A struct's fields, absent ones too.
struct Fields<'a, 'w> {
    tree: Tree<'a, 'w>,
    table: Option<&'a Dict>,
    names: &'static [&'static str],
    next: usize,
}

impl<'a> MapAccess<'a> for Fields<'a, '_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        if self.next == self.names.len() {
            return Ok(None);
        }
        // by its place, which derived code takes as well as the name, and finds sooner
        let place = u64::try_from(self.next).unwrap_or(u64::MAX);
        self.next += 1;
        seed.deserialize(place.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let field = self.names[self.next - 1];
        let value = self.table.and_then(|table| table.get(field));
        self.tree.child(field, value, seed)
    }
}

/// A table's entries under any name.
struct Entries<'a, 'w> {
    tree: Tree<'a, 'w>,
    left: Option<std::collections::btree_map::Iter<'a, String, Value>>,
    value: Option<(&'a str, &'a Value)>,
}

impl<'a> MapAccess<'a> for Entries<'a, '_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        let next = self.left.as_mut().and_then(Iterator::next);
        self.value = next.map(|(name, value)| (name.as_str(), value));
        self.value.map(|(name, _)| seed.deserialize(name.into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let (name, value) = self.value.expect("serde asks for a key before its value");
        self.tree.child(name, Some(value), seed)
    }
}

/// A list's elements.
struct Elements<'a, 'w> {
    tree: Tree<'a, 'w>,
    list: &'a [Value],
    next: usize,
}

impl<'a> SeqAccess<'a> for Elements<'a, '_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Some(element) = self.list.get(self.next) else { return Ok(None) };
        let name = key::element(self.next);
        self.next += 1;
        self.tree.child(&name, Some(element), seed).map(Some)
    }
}

/// What is wrong with a value, before its key is known.
#[derive(Debug, Clone)]
struct Wrong {
    what: String,
    help: Option<String>,
}

impl Wrong {
    fn at(self, key: &Key) -> Problem {
        let problem = Problem::new(key, self.what);
        match self.help {
            Some(help) => problem.help(help),
            None => problem,
        }
    }
}

impl de::Error for Wrong {
    /// The first line is what is wrong, the second what to write instead.
    fn custom<T: Display>(text: T) -> Self {
        let text = text.to_string();
        match text.split_once('\n') {
            Some((what, help)) => Self { what: what.to_owned(), help: Some(help.to_owned()) },
            None => Self { what: text, help: None },
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Str(_) | Unexpected::Char(_) => "a text".to_owned(),
            Unexpected::Bool(truth) => truth.to_string(),
            Unexpected::Signed(number) => format!("the number {number}"),
            Unexpected::Unsigned(number) => format!("the number {number}"),
            Unexpected::Float(number) => format!("the number {number}"),
            Unexpected::Map => "a table".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            other => other.to_string(),
        };
        let expected = match expected.to_string() {
            text if text == "a string" => "a text in quotes".to_owned(),
            text if text == "a boolean" => "true or false".to_owned(),
            text => text,
        };
        Self {
            what: format!("is {found}, where {expected} belongs"),
            help: Some(format!("write {expected}")),
        }
    }
}

impl Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl de::StdError for Wrong {}
