//! Keys that have another name now. The old name still counts for one release, with a warning.

use figment::value::{Dict, Value};

use crate::problem::{Key, Problem};

/// Old and new names; `*` stands for the name of any table. An entry goes with the release after the one that brought
/// it.
const RENAMED: &[(&str, &str)] = &[
    #[cfg(test)]
    ("listeners.*.limits.streams", "listeners.*.limits.http2_streams"),
];

/// What a source called by its old name.
#[derive(Debug, Default)]
pub(super) struct Renamed {
    /// Each key as it is now, and as it was written.
    pub(super) keys: Vec<(Key, Key)>,
    /// One a key.
    pub(super) warnings: Vec<Problem>,
    /// Keys that were written in both ways.
    pub(super) problems: Vec<Problem>,
}

impl Renamed {
    /// Moves what one source calls by an old name to where it stands now.
    pub(super) fn bring_up_to_date(&mut self, values: &mut Dict) {
        for (old, new) in RENAMED {
            let (old, new): (Vec<&str>, Vec<&str>) = (old.split('.').collect(), new.split('.').collect());
            let mut found = Vec::new();
            find(values, &old, &mut Vec::new(), &mut found);
            for names in found {
                self.rename(values, &filled(&old, &names), &filled(&new, &names));
            }
        }
    }

    fn rename(&mut self, values: &mut Dict, old: &Key, new: &Key) {
        let (old_path, new_path): (Vec<&str>, Vec<&str>) =
            (old.segments().collect(), new.segments().collect());
        let Some(value) = take(values, &old_path) else { return };
        if !put(values, &new_path, value) {
            let what = format!("is the old name of {new}, which is written as well");
            self.problems.push(Problem::unknown_key(old, what).help("leave it out"));
            return;
        }
        let help = format!("write {new}: the next release knows the old name no more");
        self.warnings.push(Problem::unknown_key(old, format!("is called {new} now")).help(help));
        self.keys.push((new.clone(), old.clone()));
    }

    /// The key as it was written, if it or what it stands in has another name now.
    pub(super) fn as_written(&self, key: &Key) -> Option<Key> {
        let (new, old) = self.keys.iter().find(|(new, _)| key.is_within(new))?;
        let rest = key.segments().skip(new.segments().count());
        Some(old.segments().chain(rest).collect())
    }
}

/// The names that stand for `*` wherever this pattern is found.
fn find(values: &Dict, pattern: &[&str], names: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let Some((first, rest)) = pattern.split_first() else { return found.push(names.clone()) };
    let here = values.iter().filter(|(name, _)| *first == "*" || **first == ***name);
    for (name, value) in here {
        let depth = names.len();
        if *first == "*" {
            names.push(name.clone());
        }
        match value.as_dict() {
            Some(table) if !rest.is_empty() => find(table, rest, names, found),
            _ if rest.is_empty() => found.push(names.clone()),
            _ => {}
        }
        names.truncate(depth);
    }
}

fn filled(pattern: &[&str], names: &[String]) -> Key {
    let mut names = names.iter();
    let fill = |segment: &&str| match *segment {
        "*" => names.next().map_or("*", String::as_str).to_owned(),
        segment => segment.to_owned(),
    };
    pattern.iter().map(fill).collect()
}

fn take(values: &mut Dict, path: &[&str]) -> Option<Value> {
    match path {
        [] => None,
        [last] => values.remove(*last),
        [first, rest @ ..] => match values.get_mut(*first)? {
            Value::Dict(_, table) => take(table, rest),
            _ => None,
        },
    }
}

/// Whether there was room for it: nothing is there already.
fn put(values: &mut Dict, path: &[&str], value: Value) -> bool {
    match path {
        [] => false,
        [last] => {
            let free = !values.contains_key(*last);
            if free {
                values.insert((*last).to_owned(), value);
            }
            free
        }
        [first, rest @ ..] => {
            let table = values.entry((*first).to_owned()).or_insert_with(|| Value::from(Dict::new()));
            match table {
                Value::Dict(_, table) => put(table, rest, value),
                _ => false,
            }
        }
    }
}
