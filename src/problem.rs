//! What is wrong in a configuration: where, at which key, and what to write instead.

pub mod key;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

pub use key::Key;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands; unknown until the one who read the sources has looked the key up.
    pub place: Place,
    /// The key it is about.
    pub key: Key,
    /// Whether the key itself is wrong, and not its value.
    pub names_key: bool,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Problem {
    /// A problem with the value of this key, or with its absence.
    pub fn new(key: &Key, what: impl Into<String>) -> Self {
        let (place, key) = (Place::default(), key.clone());
        Self { place, key, names_key: false, what: what.into(), help: None }
    }

    /// A problem with the key itself: nothing here knows it.
    pub fn unknown_key(key: &Key, what: impl Into<String>) -> Self {
        Self { names_key: true, ..Self::new(key, what) }
    }

    /// A problem with a whole source: it cannot be read.
    pub fn in_source(place: Place, what: impl Into<String>) -> Self {
        Self { place, ..Self::new(&Key::root(), what) }
    }

    /// The same problem with what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same problem at this place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = place;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.origin.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        if !self.key.is_root() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// Where a problem stands. Places sort by source, line and column.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The source's number, in the order in which sources are merged.
    pub source: usize,
    /// A file's line and column, both counted from 1, the column in characters.
    pub position: Option<(usize, usize)>,
    /// From which byte to which it stands in the file.
    pub span: Option<(usize, usize)>,
    /// The file's path, or what else the value came from.
    pub origin: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((line, column)) => write!(f, "{}:{line}:{column}", self.origin),
            None => f.write_str(&self.origin),
        }
    }
}

/// Everything that is wrong, at once, sorted by place; the same problem stands in it once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    all: Vec<Problem>,
    files: BTreeSet<PathBuf>,
}

impl Problems {
    /// The same problems, found while these files were read: to mend one of them may be enough.
    #[must_use]
    pub fn found_with(self, files: BTreeSet<PathBuf>) -> Self {
        Self { files, ..self }
    }

    /// The files that were read beside the configuration's own when they were found.
    pub fn files(&self) -> &BTreeSet<PathBuf> {
        &self.files
    }

    /// Adds one, unless it has been said already.
    pub fn push(&mut self, problem: Problem) {
        if !self.all.contains(&problem) {
            let after = self.all.partition_point(|known| known.place <= problem.place);
            self.all.insert(after, problem);
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The problems in order.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.all.iter()
    }
}

impl Extend<Problem> for Problems {
    fn extend<I: IntoIterator<Item = Problem>>(&mut self, problems: I) {
        problems.into_iter().for_each(|problem| self.push(problem));
    }
}

impl FromIterator<Problem> for Problems {
    fn from_iter<I: IntoIterator<Item = Problem>>(problems: I) -> Self {
        let mut all = Self::default();
        all.extend(problems);
        all
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.into_iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { all: vec![problem], files: BTreeSet::new() }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all.iter().enumerate().try_for_each(|(index, problem)| {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")
        })
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_sorted_by_place_and_said_once() {
        let place = |line, column| Place {
            source: 0,
            position: Some((line, column)),
            span: None,
            origin: "routes.toml".to_owned(),
        };
        let key = Key::root().child("workers");
        let mut problems = Problems::default();
        for (line, column) in [(9, 1), (2, 5), (2, 3), (9, 1)] {
            problems.push(Problem::new(&key, "is wrong").help("write it right").at(place(line, column)));
        }
        assert_eq!(
            problems.to_string(),
            "routes.toml:2:3: workers: is wrong\n  help: write it right\n\
             routes.toml:2:5: workers: is wrong\n  help: write it right\n\
             routes.toml:9:1: workers: is wrong\n  help: write it right"
        );
    }
}
