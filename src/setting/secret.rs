//! Secrets: written as where to find them, never printed.

use std::{fmt, fs};

use schemars::JsonSchema;
use serde::Deserialize;

use super::check::Check;
use super::written::Written;
use crate::problem::Key;

/// A secret. It is never printed; [`Secret::expose`] is the one way to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Whether this is the secret. How long it takes tells nothing but the length.
    pub fn matches(&self, text: &[u8]) -> bool {
        let difference = self.0.bytes().zip(text).fold(0, |all, (ours, theirs)| all | (ours ^ theirs));
        std::hint::black_box(difference) == 0 && self.0.len() == text.len()
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A secret as written: `{ file = "…" }` or `{ env = "…" }`, nothing else.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ file = \"…\" } or { env = \"…\" }")]
pub struct WrittenSecret {
    /// A file that holds it.
    file: Written<String>,
    /// The environment variable that holds it.
    env: Written<String>,
}

impl WrittenSecret {
    /// The key of the secret as a whole.
    pub fn key(&self) -> Key {
        self.file.key().parent().unwrap_or_default()
    }

    /// Reads the secret: a file without its last line break, or a variable.
    pub fn read(&self, check: &Check<'_>) -> Option<Secret> {
        match (self.file.get(), self.env.get()) {
            (Some(file), None) if check.does_without(&check.path(file)) => Some(stand_in()),
            (Some(file), None) => match fs::read_to_string(check.path(file)) {
                Ok(text) if text.trim_end().is_empty() => {
                    check.wrong(
                        self.file.key(),
                        format!("the file \"{file}\" is empty"),
                        "put the secret into it",
                    );
                    None
                }
                Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
                Err(error) => {
                    let what = format!("the file \"{file}\" cannot be read: {error}");
                    check.wrong(self.file.key(), what, "write the path of a file that holds the secret");
                    None
                }
            },
            (None, Some(name)) => {
                let value = check.variable(name);
                if value.is_none() && check.waives_secrets() {
                    return Some(stand_in());
                }
                if value.is_none() {
                    let what = format!("the environment variable {name} is not set");
                    check.wrong(self.env.key(), what, "set it, or name another one");
                }
                value.map(Secret::new)
            }
            (Some(_), Some(_)) => {
                let help = "write { file = \"…\" } or { env = \"…\" }";
                check.wrong(self.env.key(), "a secret comes from one place, not from two", help);
                None
            }
            (None, None) => {
                if self.file.is_absent() && self.env.is_absent() {
                    check.wrong(self.file.key(), "is missing", "write { file = \"…\" } or { env = \"…\" }");
                }
                None
            }
        }
    }
}

/// Stands for a secret that need not be there, and is as good as one in every respect but that it is none.
fn stand_in() -> Secret {
    Secret::new("0123456789abcdef0123456789abcdef")
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn only_the_whole_secret_matches() {
        let secret = Secret::new("open sesame");
        for (text, matches) in [
            ("open sesame", true),
            ("open sesam", false),
            ("open sesame!", false),
            ("Open sesame", false),
            ("", false),
        ] {
            assert_eq!(secret.matches(text.as_bytes()), matches, "{text}");
        }
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
