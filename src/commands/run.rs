//! `tracegate run`: the gateway, from its configuration to its last request.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::signals::{Signal, Signals};
use super::{check, runtime};
use crate::gateway::file::{self, Sources};
use crate::gateway::{Gateway, Settings};
use crate::telemetry::diagnostics;

/// Runs the gateway until a signal ends it.
pub(super) fn run(paths: &[PathBuf]) -> ExitCode {
    let settings = match Sources::read(paths).and_then(|sources| file::load(&sources)) {
        Ok(settings) => settings,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(check::CONFIGURATION);
        }
    };
    if let Err(error) = diagnostics::start(None) {
        return failed(error);
    }
    raise_file_limit();
    let runtime = match runtime::build(settings.workers) {
        Ok(runtime) => runtime,
        Err(error) => return failed(error),
    };
    let ended = runtime.block_on(serve(settings));
    // whatever still blocks a thread (a name being resolved) does not hold up the end
    runtime.shutdown_timeout(LEFTOVERS);
    ended
}

async fn serve(settings: Settings) -> ExitCode {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return failed(format_args!("cannot listen for signals: {error}")),
    };
    let gateway = match Gateway::start(settings, Vec::new()).await {
        Ok(gateway) => gateway,
        Err(error) => return failed(error),
    };
    while signals.next().await == Signal::Reopen {
        gateway.reopen_access_log();
    }
    tracing::info!("stopping, a second signal ends it at once");
    tokio::select! {
        () = gateway.shutdown() => ExitCode::SUCCESS,
        () = signals.stop() => failed("ended by a second signal, requests in flight were cut off"),
    }
}

fn failed(error: impl Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// Every connection is a file; the soft limit is often 1024 where the hard one is far higher.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) => tracing::debug!(files, "limit of open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

const LEFTOVERS: Duration = Duration::from_millis(500);
