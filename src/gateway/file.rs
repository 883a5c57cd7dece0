//! Placeholder.

use std::path::PathBuf;

use crate::gateway::Settings;
use crate::problem::Problems;

/// Placeholder.
#[derive(Debug, Default)]
pub struct Sources {
    /// Name and text.
    pub files: Vec<(String, String)>,
    /// Variables.
    pub environment: Vec<(String, String)>,
    /// Of relative paths.
    pub directory: PathBuf,
}

impl Sources {
    /// Placeholder.
    pub fn read(_paths: &[PathBuf]) -> Result<Self, Problems> {
        Err(Problems)
    }
}

/// Placeholder.
pub fn load(_sources: &Sources) -> Result<Settings, Problems> {
    Err(Problems)
}
