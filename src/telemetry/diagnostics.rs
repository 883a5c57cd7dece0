//! Placeholder.

/// Placeholder.
pub fn start(_level: Option<&str>) -> Result<(), std::io::Error> {
    Ok(())
}
