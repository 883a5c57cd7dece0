//! `View<T>`: one module's slice of what a reload replaces.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// A slice of the current snapshot. Readers take what is current; only the gateway replaces it, whole.
#[derive(Debug)]
pub struct View<T>(Arc<ArcSwap<T>>);

impl<T> View<T> {
    /// A view of this value.
    pub fn new(value: Arc<T>) -> Self {
        Self(Arc::new(ArcSwap::new(value)))
    }

    /// What is current now, to keep: whatever a reload does.
    pub fn current(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Replaces the value for every holder of the view.
    pub fn replace(&self, value: Arc<T>) {
        self.0.store(value);
    }
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
