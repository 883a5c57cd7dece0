//! What a reload cannot change: keys whose new values count after a restart only. They are named, not ignored.

use std::sync::Arc;

use figment::value::{Dict, Value};

use super::configuration::Configuration;
use super::difference::Difference;
use crate::problem::Key;

/// The tables and keys at the root that are read at the start alone.
const AT_START: [&str; 5] = ["dns", "metrics", "probes", "telemetry", "workers"];

/// What of `[admin]` is read at the start alone; who may come in counts at once.
const OF_ADMIN: [&str; 4] = ["address", "audit", "plaintext", "tls"];

/// What of `[reload]` is read at the start alone.
const OF_RELOAD: [&str; 1] = ["watch"];

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
    texts(&Key::root(), &Value::from(self::fixed(&new.values)), &mut named);
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
    if let Some(listeners) = values.find_ref("listeners").and_then(Value::as_dict) {
        let of = |(name, listener): (&String, &Value)| {
            let keys = some(listener, &OF_LISTENERS);
            (name.clone(), Value::from(keys))
        };
        fixed.insert("listeners".to_owned(), Value::from(listeners.iter().map(of).collect::<Dict>()));
    }
    for (table, keys) in [("admin", &OF_ADMIN[..]), ("reload", &OF_RELOAD)] {
        // even if it is empty, so that it is compared key by key
        let of = values.find_ref(table).map(|table| some(table, keys)).unwrap_or_default();
        fixed.insert(table.to_owned(), Value::from(of));
    }
    fixed
}

fn at_start(values: &Value) -> Dict {
    some(values, &AT_START)
}

/// These keys of a table.
fn some(table: &Value, keys: &[&str]) -> Dict {
    let all = table.as_dict().into_iter().flatten();
    let some = all.filter(|(name, _)| keys.contains(&name.as_str()));
    some.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Every text in it, with its key.
fn texts(key: &Key, value: &Value, found: &mut Vec<(Key, String)>) {
    match value {
        Value::Dict(_, table) => table.iter().for_each(|(name, value)| texts(&key.child(name), value, found)),
        Value::String(_, text) => found.push((key.clone(), text.clone())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::file::{Sources, load};

    /// The tables that a reload reads, whole or but for the keys above.
    const RELOADED: [&str; 11] = [
        "admin",
        "auth",
        "defaults",
        "limits",
        "listeners",
        "rate_limits",
        "redis",
        "reload",
        "routes",
        "shutdown",
        "upstreams",
    ];

    fn sources(text: &str) -> Sources {
        let text = format!("listeners.public.address = '127.0.0.1:0'\n{text}");
        Sources { files: vec![("routes.toml".into(), text)], ..Sources::default() }
    }

    #[test]
    fn of_every_table_it_is_known_whether_a_reload_reads_it() {
        let problems = load(&sources("[zzzzzzzzzzzzzzzz]")).expect_err("no such table");
        let help = problems.iter().find_map(|problem| problem.help.clone()).expect("the keys there are");
        let tables = help.strip_prefix("the keys here are ").expect("all keys are told");
        for table in tables.split(", ") {
            let known = AT_START.contains(&table) || RELOADED.contains(&table);
            assert!(known, "{table}: is it read at the start alone?");
        }
    }

    #[test]
    fn who_may_come_in_counts_at_once_and_where_that_is_after_a_restart() {
        let read = |text: &str| load(&sources(text)).expect("a configuration").configuration;
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let token = format!("[admin.tokens.ops]\nrole = 'operator'\nsha256 = '{hash}'\n");
        assert!(awaited(&read(""), &read(&token)).is_empty());
        let moved = read(&format!("[admin]\naddress = '127.0.0.1:9911'\n{token}"));
        assert_eq!(awaited(&read(""), &moved), ["admin.address"]);
    }

    #[test]
    fn how_often_files_are_looked_at_counts_after_a_restart_and_the_grace_at_once() {
        let read = |text: &str| load(&sources(text)).expect("a configuration").configuration;
        let (before, after) = (read(""), read("[reload]\nwatch = '5s'\ngrace = '1s'"));
        assert_eq!(awaited(&before, &after), ["reload.watch"]);
        assert!(awaited(&before, &read("[reload]\ngrace = '1s'")).is_empty());
    }
}
