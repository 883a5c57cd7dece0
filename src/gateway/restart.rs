//! What a reload cannot change: keys whose new values count after a restart only. They are named, not ignored.

use std::sync::Arc;

use figment::value::{Dict, Value};

use super::configuration::Configuration;
use super::difference::Difference;
use crate::problem::Key;

/// The tables and keys at the root that are read at the start alone.
const AT_START: [&str; 6] = ["admin", "dns", "metrics", "probes", "telemetry", "workers"];

/// What of a listener is read at the start alone; the rest counts for new connections.
const OF_LISTENERS: [&str; 3] = ["address", "reuse_port", "socket_mode"];

/// The keys by which these two differ and which cannot be reloaded, in order.
pub(super) fn awaited(started: &Configuration, new: &Configuration) -> Vec<String> {
    let fixed = |configuration: &Configuration| Configuration {
        values: Arc::new(Value::from(fixed(&configuration.values))),
        ..Configuration::default()
    };
    let Difference { added, removed, changed, files: _ } = Difference::between(&fixed(started), &fixed(new));
    let mut keys = [added.first, removed.first, changed.first].concat();
    // a file with other contents, where only its name is read again
    let mut named = Vec::new();
    texts(&Key::root(), &Value::from(at_start(&new.values)), &mut named);
    for (path, digest) in &new.files {
        let before = started.files.get(path).filter(|before| *before != digest);
        if before.is_some() {
            keys.extend(
                named.iter().filter(|(_, text)| path.ends_with(text)).map(|(key, _)| key.to_string()),
            );
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

fn fixed(values: &Value) -> Dict {
    let mut fixed = at_start(values);
    if let Some(listeners) =
        values.as_dict().and_then(|values| values.get("listeners")).and_then(Value::as_dict)
    {
        let of = |(name, listener): (&String, &Value)| {
            let keys = listener.as_dict().into_iter().flatten();
            let keys = keys.filter(|(key, _)| OF_LISTENERS.contains(&key.as_str()));
            (
                name.clone(),
                Value::from(keys.map(|(key, value)| (key.clone(), value.clone())).collect::<Dict>()),
            )
        };
        fixed.insert("listeners".to_owned(), Value::from(listeners.iter().map(of).collect::<Dict>()));
    }
    fixed
}

fn at_start(values: &Value) -> Dict {
    let all = values.as_dict().into_iter().flatten();
    let fixed = all.filter(|(name, _)| AT_START.contains(&name.as_str()));
    let mut fixed: Dict = fixed.map(|(name, value)| (name.clone(), value.clone())).collect();
    if let Some(Value::Dict(_, admin)) = fixed.get_mut("admin") {
        // who may do what counts at once
        admin.remove("tokens");
    }
    fixed
}

/// Every text in it, with its key.
fn texts(key: &Key, value: &Value, found: &mut Vec<(Key, String)>) {
    match value {
        Value::Dict(_, table) => table.iter().for_each(|(name, value)| texts(&key.child(name), value, found)),
        Value::String(_, text) => found.push((key.clone(), text.clone())),
        _ => {}
    }
}
