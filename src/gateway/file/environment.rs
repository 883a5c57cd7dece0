//! Overrides from the environment: `TRACEGATE_UPSTREAMS__SHOP__ENDPOINTS='["http://10.0.0.7:9001"]'`.

use figment::value::{Dict, Value};

use super::layer::{Layer, within};
use crate::problem::{Key, Place, Problem};
use crate::setting::check::nearest;

/// Reads the overrides. Only variables with `__` count: a Kubernetes service named tracegate sets
/// `TRACEGATE_PORT`.
pub(super) fn overrides(environment: &[(String, String)], source: usize) -> Layer {
    let mut layer = Layer::default();
    let mut variables: Vec<_> = environment.iter().filter(|(name, _)| is_override(name)).collect();
    variables.sort();
    for (name, text) in variables {
        let path = name[PREFIX.len()..].to_lowercase();
        let key: Key = path.split("__").collect();
        let value: Value = text.parse().unwrap_or_else(|never| match never {});
        layer.set(&key, value, &place(name, source));
    }
    layer
}

/// Takes out what would begin a named table that no file has: a misspelt name would else be a new upstream.
pub(super) fn refuse_new_tables(overrides: &mut Layer, merged: &Dict) -> Vec<Problem> {
    let mut problems = Vec::new();
    for parent in NAMED {
        let Some(Value::Dict(_, tables)) = overrides.values.get_mut(parent) else { continue };
        let known = merged.get(parent).and_then(Value::as_dict);
        let is_new = |name: &String| !known.is_some_and(|known| known.contains_key(name));
        let new: Vec<String> = tables.keys().filter(|name| is_new(name)).cloned().collect();
        tables.retain(|name, _| !is_new(name));
        for name in &new {
            let table = Key::root().child(parent).child(name);
            let names = known.into_iter().flat_map(Dict::keys).map(String::as_str);
            let help = match nearest(name, names) {
                Some(meant) => format!("name {parent}.{meant}, or add the table [{table}] to a file"),
                None => format!("add the table [{table}] to a file"),
            };
            if let Some((key, spot)) = within(&overrides.places, &table) {
                let what = format!("no file has the table [{table}]");
                problems.push(Problem::new(key, what).help(help).at(spot.key.clone()));
            }
        }
    }
    problems
}

/// The tables of tables.
const NAMED: [&str; 5] = ["listeners", "rate_limits", "redis", "routes", "upstreams"];

const PREFIX: &str = "TRACEGATE_";

fn is_override(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|path| path.contains("__"))
}

/// The place of what an environment variable says.
pub(super) fn place(variable: &str, source: usize) -> Place {
    Place { source, position: None, span: None, origin: variable.to_owned() }
}
