//! What a configuration is read from: files, the environment, the directory of relative paths.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::problem::{Place, Problem, Problems};

/// Everything that a configuration depends on, as text. What the files name (certificates, secrets) is read
/// by the check.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Names, as problems tell them, and texts of the files, in the order in which they are merged.
    pub files: Vec<(String, String)>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Where relative paths begin.
    pub directory: PathBuf,
}

impl Sources {
    /// Reads these files and the process's environment. Relative paths begin beside the first file.
    pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Self, Problems> {
        let mut files = Vec::new();
        let mut problems = Problems::default();
        for (source, path) in paths.iter().map(AsRef::as_ref).enumerate() {
            let origin = path.display().to_string();
            match fs::read_to_string(path) {
                Ok(text) => files.push((origin, text)),
                Err(error) => {
                    let place = Place { source, position: None, span: None, origin };
                    let problem = Problem::in_source(place, format!("cannot be read: {error}"));
                    problems.push(problem.help("name a file with --config"));
                }
            }
        }
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let environment = env::vars_os().filter_map(text).collect();
        let first = paths.first().and_then(|path| path.as_ref().parent());
        let directory = first.unwrap_or(Path::new("")).to_owned();
        if problems.is_empty() { Ok(Self { files, environment, directory }) } else { Err(problems) }
    }
}
