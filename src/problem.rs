//! Placeholder.

/// Placeholder.
#[derive(Debug)]
pub struct Problems;

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("placeholder")
    }
}
