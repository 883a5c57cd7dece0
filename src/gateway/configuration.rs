//! What a configuration says: its values as merged and the files it names, to tell later what has changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::value::{Dict, Value};

use crate::problem::Problems;
use crate::setting::Digest;

/// What was read: values, and what was in the files. Secrets are not among the values, by their type.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// All sources merged, without what routes inherit.
    pub values: Arc<Value>,
    /// What the values come to: equal for gateways that are configured in the same way. What is in the files they
    /// name does not count.
    pub hash: Digest,
    /// The files that it was read from, and those that it names; `None` could not be read.
    pub files: BTreeMap<PathBuf, Option<Digest>>,
    /// What is said in it and will not do for ever.
    pub warnings: Problems,
    /// The texts of its files, in the order in which they are merged, if it was read from files.
    pub texts: Box<[String]>,
    /// What was wrong with the configured files, if this is the last good configuration in their place.
    pub in_place_of: Option<Problems>,
}

impl Default for Configuration {
    /// Nothing at all.
    fn default() -> Self {
        Self::new(Arc::new(Value::from(Dict::new())), [])
    }
}

impl Configuration {
    /// These values, and these files as they are now.
    pub fn new(values: Arc<Value>, files: impl IntoIterator<Item = PathBuf>) -> Self {
        let text = serde_json::to_vec(&*values).expect("plain values become JSON");
        let digest = |path: PathBuf| {
            let digest = digest(&path);
            (path, digest)
        };
        Self {
            values,
            hash: Digest::of([&text[..]]),
            files: files.into_iter().map(digest).collect(),
            warnings: Problems::default(),
            texts: Box::default(),
            in_place_of: None,
        }
    }
}

/// What is in a file, if it can be read.
pub fn digest(path: &Path) -> Option<Digest> {
    fs::read(path).ok().map(|bytes| Digest::of([&bytes[..]]))
}
