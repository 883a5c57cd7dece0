//! Placeholder.

/// Placeholder.
pub fn install() {}
