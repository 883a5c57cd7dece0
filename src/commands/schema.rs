//! `tracegate schema`: the JSON Schema of routes.toml, for editors.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::gateway::file::schema::schema;

/// Prints the schema.
pub fn print() -> ExitCode {
    match io::stdout().write_all(format!("{:#}\n", schema()).as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
