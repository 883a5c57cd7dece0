//! What a constructor of settings works with: where problems go, and what paths and variables mean.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::problem::{Key, Problem, Problems};

/// Whether secrets have to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    /// They have to: the settings will be used.
    Needed,
    /// They need not: only the configuration is looked at.
    Waived,
}

/// The surroundings of a check. It goes on after a problem, so that all of them are found at once.
#[derive(Debug)]
pub struct Check<'a> {
    directory: &'a Path,
    environment: &'a [(String, String)],
    secrecy: Secrecy,
    problems: RefCell<Problems>,
    files: RefCell<BTreeSet<PathBuf>>,
    looked: Cell<u64>,
}

impl<'a> Check<'a> {
    /// Relative paths begin at this directory; `{ env = "…" }` is looked up here.
    pub fn new(directory: &'a Path, environment: &'a [(String, String)]) -> Self {
        let (problems, files) = (RefCell::default(), RefCell::default());
        Self { directory, environment, secrecy: Secrecy::Needed, problems, files, looked: Cell::new(0) }
    }

    /// The same check, for which secrets have to be there or do not.
    #[must_use]
    pub fn secrecy(self, secrecy: Secrecy) -> Self {
        Self { secrecy, ..self }
    }

    /// Whether this file, which holds a secret or goes with one, is not there and need not be.
    pub fn does_without(&self, path: &Path) -> bool {
        self.look();
        self.secrecy == Secrecy::Waived && !path.exists()
    }

    /// Whether secrets need not be there.
    pub fn waives_secrets(&self) -> bool {
        self.look();
        self.secrecy == Secrecy::Waived
    }

    /// Notes what is wrong at this key and what to write instead.
    pub fn wrong(&self, key: &Key, what: impl Into<String>, help: impl Into<String>) {
        self.note(Problem::new(key, what).help(help));
    }

    /// Notes a problem.
    pub fn note(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// What the path of a file means that is read: it is watched from now on, and what is in it is a part of the
    /// configuration.
    pub fn path(&self, written: impl AsRef<Path>) -> PathBuf {
        self.look();
        let path = self.directory.join(written);
        self.files.borrow_mut().insert(path.clone());
        path
    }

    /// What the path of a file means that is written.
    pub fn output_path(&self, written: impl AsRef<Path>) -> PathBuf {
        self.look();
        self.directory.join(written)
    }

    /// The value of an environment variable; an empty one is as good as none.
    pub fn variable(&self, name: &str) -> Option<&'a str> {
        self.look();
        let found = self.environment.iter().rfind(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The files that are read.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        self.files.borrow().clone()
    }

    /// How often it was asked for what does not stand in the values: files and variables. As often after a check as
    /// before it means that the check comes to the same as long as the values do.
    pub fn looked(&self) -> u64 {
        self.looked.get()
    }

    fn look(&self) {
        self.looked.set(self.looked.get() + 1);
    }

    /// Everything that was noted.
    pub fn into_problems(self) -> Problems {
        self.problems.into_inner()
    }
}

/// Words as a sentence names them: `"a"`, `"b"` or `"c"`.
pub fn alternatives<T: fmt::Display>(words: impl IntoIterator<Item = T>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

/// The known word nearest to a written one, if one is near enough to have been meant.
pub fn nearest<'w>(written: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(written, word), word))
        .filter(|(distance, word)| *distance <= 1.max(word.chars().count() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_one_that_may_have_been_meant() {
        let known = ["endpoints", "balance", "tls"];
        for (written, near) in [
            ("endpoint", Some("endpoints")),
            ("balanse", Some("balance")),
            ("tsl", Some("tls")),
            ("breaker", None),
        ] {
            assert_eq!(nearest(written, known), near, "{written}");
        }
    }

    #[test]
    fn alternatives_read_as_a_sentence() {
        assert_eq!(alternatives(["a"]), r#""a""#);
        assert_eq!(alternatives(["a", "b", "c"]), r#""a", "b" or "c""#);
    }
}
