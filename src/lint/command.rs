//! `tracegate lint-telemetry`: the lint, on this terminal.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Said, run};
use crate::gateway::Settings;
use crate::gateway::file::{Sources, load};
use crate::telemetry::diagnostics;

/// Looks at the telemetry of a gateway with this configuration. The exit code is 1 if a secret came out, 78 if the
/// configuration is wrong, 2 if the lint could not be run.
pub fn lint(paths: &[PathBuf]) -> ExitCode {
    match Sources::read(paths).and_then(|sources| load(&sources)) {
        Ok(settings) => look(settings),
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::from(CONFIGURATION)
        }
    }
}

fn look(settings: Settings) -> ExitCode {
    let said = Said::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let report = diagnostics::start_into("trace", said.clone())
        .map_err(|error| error.to_string())
        .and_then(|_| runtime.map_err(|error| error.to_string()))
        .and_then(|runtime| runtime.block_on(run(settings, &said)).map_err(|error| error.to_string()));
    match report {
        Ok(report) => {
            println!("{report}");
            if report.leaks.is_empty() {
                println!("nothing came out");
                return ExitCode::SUCCESS;
            }
            println!("{} leaks", report.leaks.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(NOT_RUN)
        }
    }
}

/// `EX_CONFIG` of sysexits.h.
const CONFIGURATION: u8 = 78;
const NOT_RUN: u8 = 2;
