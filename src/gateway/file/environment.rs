//! Overrides from the environment: `TRACEGATE_UPSTREAMS__SHOP__ENDPOINTS='["http://10.0.0.7:9001"]'`.

use figment::value::{Dict, Value};

use super::layer::{Layer, Places, within};
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
    for path in NAMED {
        let (values, places) = (&mut overrides.values, &overrides.places);
        refuse_new_under(&Key::root(), path, values, Some(merged), places, &mut problems);
    }
    problems
}

/// The same of the tables of tables that this path leads to from here.
fn refuse_new_under(
    here: &Key,
    path: &[&str],
    values: &mut Dict,
    merged: Option<&Dict>,
    places: &Places,
    problems: &mut Vec<Problem>,
) {
    if let [step, path @ ..] = path {
        for (name, value) in values.iter_mut().filter(|(name, _)| [name.as_str(), "*"].contains(step)) {
            if let Value::Dict(_, values) = value {
                let merged = merged.and_then(|merged| merged.get(name)?.as_dict());
                refuse_new_under(&here.child(name), path, values, merged, places, problems);
            }
        }
        return;
    }
    let is_new = |name: &String| !merged.is_some_and(|merged| merged.contains_key(name));
    let new: Vec<String> = values.keys().filter(|name| is_new(name)).cloned().collect();
    values.retain(|name, _| !is_new(name));
    for name in &new {
        let table = here.child(name);
        let names = merged.into_iter().flat_map(Dict::keys).map(String::as_str);
        let help = match nearest(name, names) {
            Some(meant) => format!("name {here}.{meant}, or add the table [{table}] to a file"),
            None => format!("add the table [{table}] to a file"),
        };
        if let Some((key, spot)) = within(places, &table) {
            let what = format!("no file has the table [{table}]");
            problems.push(Problem::new(key, what).help(help).at(spot.key.clone()));
        }
    }
}

/// The tables of tables; `*` is each table of one.
const NAMED: [&[&str]; 10] = [
    &["admin", "certificates"],
    &["admin", "tokens"],
    &["auth"],
    &["auth", "*", "api_keys", "keys"],
    &["listeners"],
    &["listeners", "*", "tls", "certificates"],
    &["rate_limits"],
    &["redis"],
    &["routes"],
    &["upstreams"],
];

const PREFIX: &str = "TRACEGATE_";

fn is_override(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|path| path.contains("__"))
}

/// The place of what an environment variable says.
pub(super) fn place(variable: &str, source: usize) -> Place {
    Place { source, position: None, span: None, origin: variable.to_owned() }
}
