//! What an operator has changed at run time and the file does not say: until the next reload that changes something.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use tracing::level_filters::LevelFilter;

use crate::telemetry::Recorder;
use crate::telemetry::diagnostics::Levels;

/// What is not as the file has it.
#[derive(Debug)]
pub struct Overrides {
    recorder: Arc<Recorder>,
    levels: Option<Levels>,
    said: Mutex<Said>,
}

/// What was said, for `/status`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Said {
    /// The level of the gateway's own diagnostics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<Change<String>>,
    /// The share of new traces that is exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_ratio: Option<Change<f64>>,
}

/// A value, and since when it counts.
#[derive(Debug, Clone, Serialize)]
pub struct Change<T> {
    /// What it is now.
    pub value: T,
    /// Since when.
    pub since: String,
}

impl<T> Change<T> {
    fn now(value: T) -> Self {
        Self { value, since: humantime::format_rfc3339_millis(SystemTime::now()).to_string() }
    }
}

impl Overrides {
    /// Nothing is overridden; samplings will be at this recorder, the level of diagnostics at these, if they are ours.
    pub fn new(recorder: Arc<Recorder>, levels: Option<Levels>) -> Self {
        Self { recorder, levels, said: Mutex::default() }
    }

    /// Lets diagnostics have this level, or what they had at the start; `false`: they are not ours.
    pub fn set_log_level(&self, level: Option<LevelFilter>) -> bool {
        let Some(levels) = &self.levels else { return false };
        levels.set(level);
        let word = level.map(|level| level.to_string().to_lowercase());
        // told at the level that is in force by now
        tracing::info!(level = word.as_deref().unwrap_or("as started"), "the log level was changed");
        self.said().log_level = word.map(Change::now);
        true
    }

    /// Exports this share of new traces, or what the file says.
    pub fn set_sampling(&self, ratio: Option<f64>) {
        self.recorder.sample(ratio);
        tracing::info!(ratio, "the share of traces that are sampled was changed");
        self.said().sampling_ratio = ratio.map(Change::now);
    }

    /// The file counts again.
    pub fn end(&self) {
        let said = std::mem::take(&mut *self.said());
        if said.log_level.is_some()
            && let Some(levels) = &self.levels
        {
            levels.set(None);
        }
        if said.sampling_ratio.is_some() {
            self.recorder.sample(None);
        }
    }

    /// What is overridden.
    pub fn status(&self) -> Said {
        self.said().clone()
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
