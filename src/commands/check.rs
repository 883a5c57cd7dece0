//! `tracegate check`: every problem of a configuration at once.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use crate::gateway::file::{Sources, load};

/// Checks these files as `run` would and says what is wrong with them on standard error.
pub fn check(paths: &[PathBuf]) -> ExitCode {
    match Sources::read(paths).and_then(|sources| load(&sources)) {
        Ok(settings) => {
            let routes = counted(settings.routes.len(), "route");
            for listener in &settings.listeners {
                let name = &listener.name;
                for (certificate, days) in listener.tls.iter().flat_map(|tls| tls.expiring(SystemTime::now()))
                {
                    let left = left(days);
                    eprintln!("warning: listeners.{name}.tls: the certificate \"{certificate}\" {left}");
                }
            }
            for upstream in &settings.upstreams {
                if let Some(days) = upstream.tls.as_ref().and_then(|tls| tls.expiring(SystemTime::now())) {
                    let (name, left) = (&upstream.name, left(days));
                    eprintln!("warning: upstreams.{name}.tls: our own certificate {left}");
                }
            }
            for warning in settings.configuration.warnings.iter() {
                eprintln!("warning: {warning}");
            }
            println!("{routes}, {}: fine", counted(settings.upstreams.len(), "upstream"));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}\n{}", counted(problems.len(), "problem"));
            ExitCode::from(CONFIGURATION)
        }
    }
}

/// The exit code for a configuration that is wrong (`EX_CONFIG` of sysexits.h).
pub const CONFIGURATION: u8 = 78;

fn left(days: i64) -> String {
    match usize::try_from(days) {
        Ok(days) => format!("expires in {}", counted(days, "day")),
        Err(_) => "has expired".to_owned(),
    }
}

fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}
