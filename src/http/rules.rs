//! Header rules: fields that a route sets, adds and removes.

use http::header::{Entry, HeaderMap, HeaderName, HeaderValue};

use super::pattern::{Facts, Pattern};

/// What becomes of the fields of one header: removed first, then set, then added.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// These go.
    pub remove: Vec<HeaderName>,
    /// These have one value, whatever they had.
    pub set: Vec<(HeaderName, Value)>,
    /// These have one value more.
    pub add: Vec<(HeaderName, Value)>,
}

/// The value of a rule.
#[derive(Debug, Clone)]
pub enum Value {
    /// Always the same.
    Fixed(HeaderValue),
    /// Made anew each time.
    Filled(Pattern),
}

impl Value {
    fn fill(&self, facts: &Facts<'_>) -> Option<HeaderValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Filled(pattern) => HeaderValue::try_from(pattern.fill(facts)).ok(),
        }
    }

    fn reads_parameters(&self) -> bool {
        matches!(self, Self::Filled(pattern) if pattern.reads_parameters())
    }
}

impl Rules {
    /// Which fields are removed, set and added, in words; their values may be secrets.
    pub fn told(&self) -> String {
        let names = |rules: &[(HeaderName, Value)]| {
            rules.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(", ")
        };
        let removed = self.remove.iter().map(HeaderName::to_string).collect::<Vec<_>>().join(", ");
        let parts = [("removes", removed), ("sets", names(&self.set)), ("adds", names(&self.add))];
        let told = parts.into_iter().filter(|(_, names)| !names.is_empty());
        told.map(|(word, names)| format!("{word} {names}")).collect::<Vec<_>>().join("; ")
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Whether parameters of the path are filled in.
    pub fn reads_parameters(&self) -> bool {
        self.set.iter().chain(&self.add).any(|(_, value)| value.reads_parameters())
    }

    /// The fields of which nothing stays that a client has sent.
    pub(super) fn replaced(&self) -> impl Iterator<Item = &HeaderName> + Clone {
        self.remove.iter().chain(self.set.iter().map(|(name, _)| name))
    }

    /// Applies them.
    pub(super) fn apply(&self, headers: &mut HeaderMap, facts: &Facts<'_>) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            if let Some(value) = value.fill(facts) {
                headers.insert(name, value);
            }
        }
        for (name, value) in &self.add {
            if let Some(value) = value.fill(facts) {
                headers.append(name, value);
            }
        }
    }

    /// Applies them to an answer of the gateway's own, whose fields say what it is: they stay as they are.
    pub(super) fn apply_beside(&self, headers: &mut HeaderMap, facts: &Facts<'_>) {
        for (name, value) in self.set.iter().chain(&self.add) {
            if let (Entry::Vacant(entry), Some(value)) = (headers.entry(name), value.fill(facts)) {
                entry.insert(value);
            }
        }
    }
}
