//! What differs between two configurations: keys that came, went or changed, and files with other contents.

use std::fmt;

use figment::value::{Dict, Value};
use serde::Serialize;

use super::configuration::Configuration;
use crate::problem::Key;

/// What has changed, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Keys that are new: whole tables, such as `routes.order_read`, or values in a table.
    pub added: Listed,
    /// Keys that are gone.
    pub removed: Listed,
    /// Keys with another value. Which values is not told, but for addresses of endpoints.
    pub changed: Listed,
    /// Files with other contents that the configuration names.
    pub files: Listed,
}

/// Some of many, in order: the first [`MOST_LISTED`], and how many there are in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// How many there are.
    pub count: usize,
    /// The first of them.
    pub first: Vec<String>,
}

impl Difference {
    /// What has changed from one to the other.
    pub fn between(old: &Configuration, new: &Configuration) -> Self {
        let mut difference = Self::default();
        difference.compare(&Key::root(), &old.values, &new.values);
        let changed = new.files.iter().filter(|(path, digest)| {
            // a file that is named anew shows in the key that names it
            old.files.get(*path).is_some_and(|before| before != *digest)
        });
        changed.for_each(|(path, _)| difference.files.push(path.display().to_string()));
        difference
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        [&self.added, &self.removed, &self.changed, &self.files].iter().all(|listed| listed.count == 0)
    }

    fn compare(&mut self, key: &Key, old: &Value, new: &Value) {
        match (old, new) {
            // first of all, so that keys are made of what differs alone
            _ if old == new => {}
            (Value::Dict(_, old), Value::Dict(_, new)) => self.compare_tables(key, old, new),
            (Value::Array(_, old), Value::Array(_, new))
                if key.segments().next_back() == Some("endpoints") =>
            {
                let text = |value: &Value| value.as_str().map(str::to_owned);
                let only = |these: &[Value], others: &[Value], sign: &str| -> Vec<String> {
                    let gone = these.iter().filter(|value| !others.contains(value)).filter_map(text);
                    gone.map(|address| format!("{sign}{address}")).collect()
                };
                let all = [only(new, old, "+"), only(old, new, "-")].concat();
                self.changed.push(format!("{key} {}", all.join(" ")).trim_end().to_owned());
            }
            _ => self.changed.push(key.to_string()),
        }
    }

    fn compare_tables(&mut self, key: &Key, old: &Dict, new: &Dict) {
        for (name, value) in new {
            match old.get(name) {
                Some(before) if before == value => {}
                Some(before) => self.compare(&key.child(name), before, value),
                None => self.added.push_tables(key, name, value),
            }
        }
        for (name, value) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
            self.removed.push_tables(key, name, value);
        }
    }
}

impl Listed {
    fn push(&mut self, name: String) {
        self.count += 1;
        if self.first.len() < MOST_LISTED {
            self.first.push(name);
        }
    }

    /// A key; of a whole table of tables at the root, each of these.
    fn push_tables(&mut self, parent: &Key, name: &str, value: &Value) {
        let key = parent.child(name);
        match value.as_dict() {
            Some(tables) if parent.is_root() && !tables.is_empty() => {
                for name in tables.keys() {
                    self.push(key.child(name).to_string());
                }
            }
            _ => self.push(key.to_string()),
        }
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join(", "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// How many of what has changed are named.
const MOST_LISTED: usize = 50;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::gateway::file::{Sources, load};

    fn configuration(text: &str) -> Configuration {
        let text = format!("listeners.public.address = '127.0.0.1:0'\n{text}");
        let sources = Sources { files: vec![("routes.toml".into(), text)], ..Sources::default() };
        load(&sources).expect("a configuration").configuration
    }

    const OLD: &str = "
upstreams.shop.endpoints = ['http://a', 'http://b']
upstreams.shop.pool.idle = '1s'
[routes.one]
match.path = '/one'
upstream = 'shop'
[routes.two]
match.path = '/two'
upstream = 'shop'
timeouts.request = '1s'
";

    #[test]
    fn every_key_that_came_went_or_changed_is_named() {
        for (from, to, added, removed, changed) in [
            ("", "", "", "", ""),
            ("'1s'", "'1000ms'", "", "", "routes.two.timeouts.request, upstreams.shop.pool.idle"),
            ("[routes.two]", "[routes.three]", "routes.three", "routes.two", ""),
            (
                "'http://a', 'http://b'",
                "'http://b', 'http://c'",
                "",
                "",
                "upstreams.shop.endpoints +http://c -http://a",
            ),
            ("'http://a', 'http://b'", "'http://b', 'http://a'", "", "", "upstreams.shop.endpoints"),
            ("upstreams.shop.pool.idle = '1s'", "", "", "upstreams.shop.pool", ""),
            ("[routes.one]", "[routes.one]\nhost = 'keep'", "routes.one.host", "", ""),
            ("[routes.one]", "[defaults.route]\nhost = 'keep'\n[routes.one]", "defaults.route", "", ""),
        ] {
            let difference = Difference::between(&configuration(OLD), &configuration(&OLD.replace(from, to)));
            let told = [&difference.added, &difference.removed, &difference.changed].map(ToString::to_string);
            assert_eq!(told, [added, removed, changed], "{from} → {to}");
            assert_eq!(difference.is_empty(), [added, removed, changed].concat().is_empty());
        }
    }

    #[test]
    fn a_file_with_other_contents_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let read = || {
            Configuration::new(Value::from("").into(), [file.path().to_owned(), PathBuf::from("/nowhere")])
        };
        let before = read();
        assert!(Difference::between(&before, &read()).is_empty());
        std::fs::write(file.path(), "new").expect("written");
        let difference = Difference::between(&before, &read());
        assert_eq!(difference.files.to_string(), file.path().display().to_string());
    }

    #[test]
    fn of_very_many_the_first_are_named_and_all_are_counted() {
        let mut listed = Listed::default();
        (0..MOST_LISTED + 7).for_each(|number| listed.push(number.to_string()));
        assert!(listed.to_string().ends_with("49 and 7 more"), "{listed}");
    }
}
