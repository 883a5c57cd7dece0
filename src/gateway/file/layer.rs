//! Values that no file says, and where keys stand.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use crate::problem::{Key, Place};

/// What one source says. Layers are merged key by key.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// The values.
    pub(super) values: Dict,
    /// Where each key stands.
    pub(super) places: Places,
}

/// Where the keys of one source stand.
pub(super) type Places = BTreeMap<Key, Spot>;

/// The key itself, or the first one within it.
pub(super) fn within<'a>(places: &'a Places, key: &Key) -> Option<(&'a Key, &'a Spot)> {
    places.range(key..).next().filter(|(found, _)| found.is_within(key))
}

/// Where a key and its value stand. A table's value is its header or its brace.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) key: Place,
    pub(super) value: Place,
}

impl Layer {
    /// Sets a value at this key; the value and all within it stand at this place.
    pub(super) fn set(&mut self, key: &Key, value: Value, place: &Place) {
        let mut tables = key.segments();
        let Some(name) = tables.next_back() else { return };
        self.mark(key, &value, place);
        let mut table = &mut self.values;
        for segment in tables {
            let next = table.entry(segment.to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if next.as_dict().is_none() {
                *next = Value::from(Dict::new());
            }
            let Value::Dict(_, next) = next else { unreachable!("it has just been made a table") };
            table = next;
        }
        table.insert(name.to_owned(), value);
    }

    fn mark(&mut self, key: &Key, value: &Value, place: &Place) {
        self.places.insert(key.clone(), Spot { key: place.clone(), value: place.clone() });
        match value {
            Value::Dict(_, table) => {
                for (name, value) in table {
                    self.mark(&key.child(name), value, place);
                }
            }
            Value::Array(_, elements) => {
                for (index, value) in elements.iter().enumerate() {
                    self.mark(&key.index(index), value, place);
                }
            }
            _ => {}
        }
    }
}
