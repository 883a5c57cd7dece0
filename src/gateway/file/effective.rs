//! Every value in force, and where it comes from: what `tracegate check --effective` tells.

use figment::value::{Dict, Value};
use serde_json::json;

use super::merge::Merged;
use super::schema::{self, Content, Node};
use super::source::Sources;
use crate::problem::{Key, Place};
use crate::telemetry::privacy;

/// One value in force.
#[derive(Debug, Clone)]
pub struct Effective {
    /// Its key.
    pub key: Key,
    /// The value; text for a secret's hash and the like is masked.
    pub value: serde_json::Value,
    /// Where it was written; `None` is the default.
    pub place: Option<Place>,
    /// Whether a route has it from `[defaults.route]`.
    pub inherited: bool,
}

/// The values that are in force by these sources, which have been checked. What is neither written nor has a default
/// is not among them, and a secret is told as where it comes from.
pub fn effective(sources: &Sources) -> Vec<Effective> {
    let merged = Merged::new(sources);
    let mut walk = Walk { merged: &merged, found: Vec::new() };
    let values = merged.values().as_dict();
    if let Content::Table(tables) = schema::root().content {
        for (name, table) in tables.iter().filter(|(name, _)| *name != "defaults") {
            walk.key(table, &Key::root().child(name), values.and_then(|values| values.get(name)));
        }
    }
    walk.found
}

struct Walk<'a> {
    merged: &'a Merged<'a>,
    found: Vec<Effective>,
}

impl Walk<'_> {
    fn key(&mut self, node: &Node, key: &Key, value: Option<&Value>) {
        match (&node.content, value) {
            (Content::Table(keys), Some(Value::Dict(_, table))) => self.table(keys, key, Some(table)),
            (Content::Named(named), Some(Value::Dict(_, table))) => {
                for (name, value) in table {
                    self.key(named, &key.child(name), Some(value));
                }
            }
            (Content::Table(keys), None)
                if node.default.as_ref().map_or(!node.optional, |default| *default == json!({})) =>
            {
                self.table(keys, key, None);
            }
            (_, Some(value)) => {
                let (place, inherited) = self.merged.found_at(key);
                let value = if node.secret || is_credential(key) { "…".into() } else { plain(value) };
                self.found.push(Effective { key: key.clone(), value, place, inherited });
            }
            (_, None) => {
                let default = node.default.clone().map(|value| Effective {
                    key: key.clone(),
                    value,
                    place: None,
                    inherited: false,
                });
                self.found.extend(default);
            }
        }
    }

    fn table(&mut self, keys: &std::collections::BTreeMap<String, Node>, key: &Key, table: Option<&Dict>) {
        for (name, node) in keys {
            self.key(node, &key.child(name), table.and_then(|table| table.get(name)));
        }
    }
}

/// Whether it is the value of a field that holds credentials, which somebody may have written in clear.
fn is_credential(key: &Key) -> bool {
    let mut segments = key.segments().rev();
    let (name, table) = (segments.next(), segments.next());
    matches!(table, Some("set" | "add")) && name.is_some_and(|name| privacy::never_leaves(name).is_some())
}

fn plain(value: &Value) -> serde_json::Value {
    serde_json::to_value(value).expect("plain values become JSON")
}
