//! A counter of the metrics page that others read as well: how much has come since they looked last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A handle to one series.
#[derive(Debug, Clone)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    pub(super) fn new(cell: Arc<AtomicU64>) -> Self {
        Self(cell)
    }

    /// One more.
    pub(super) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there have been.
    pub(in crate::telemetry) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// What tells its series from others.
    pub(in crate::telemetry) fn series(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}
