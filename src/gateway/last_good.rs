//! The last good configuration, kept in a file: what a gateway starts from when the configured files are broken.
//!
//! What the files said is kept, and nothing else: the environment is read anew, and secrets stay where the files say
//! that they are.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::configuration::{self, Configuration};
use super::file::{self, Sources};
use super::settings::Settings;
use crate::problem::Problems;

/// Where the last good configuration is kept.
#[derive(Debug)]
pub struct LastGood {
    path: PathBuf,
}

impl LastGood {
    /// In this file, which may not be there yet.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps what this configuration's files say, as one file that its owner alone can read. Whatever happens
    /// meanwhile, there is the one before or this one.
    pub fn keep(&self, configuration: &Configuration) -> io::Result<()> {
        let text =
            file::as_one(&configuration.texts).map_err(|problems| io::Error::other(problems.to_string()))?;
        if fs::read_to_string(&self.path).is_ok_and(|kept| kept == text) {
            return Ok(());
        }
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let beside = PathBuf::from(name);
        // one that was left behind may be open to others
        let _ = fs::remove_file(&beside);
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        fs::rename(&beside, &self.path)?;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }

    /// What is kept, in the place of these files, which are broken in this way. Relative paths still begin beside the
    /// first of them, and all of them are watched: mended, they come back.
    pub fn read(&self, configured: &[PathBuf], broken: Problems) -> Result<Settings, Problems> {
        let mut sources = Sources::read(&[&self.path])?;
        let first = configured.first().and_then(|path| path.parent());
        first.unwrap_or(Path::new("")).clone_into(&mut sources.directory);
        let mut settings = file::load(&sources)?;
        let watched = configured.iter().chain(broken.files());
        let as_they_are = watched.map(|path| (path.clone(), configuration::digest(path)));
        settings.configuration.files.extend(as_they_are);
        settings.configuration.texts = sources.files.into_iter().map(|(_, text)| text).collect();
        settings.configuration.in_place_of = Some(broken);
        Ok(settings)
    }
}
