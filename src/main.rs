//! The `tracegate` binary: all it does is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tracegate::commands::main()
}
