//! `tracegate run`: the gateway, from its configuration to its last request.

use std::path::PathBuf;
use std::process::ExitCode;

use super::check;
use super::foreground::{self, failed};
use super::signals::{Signal, Signals};
use crate::gateway::reload::Trigger;
use crate::gateway::{Gateway, Settings, file};

/// Runs the gateway until a signal ends it.
pub fn run(paths: &[PathBuf]) -> ExitCode {
    match file::read(paths) {
        Ok(settings) => {
            let (workers, paths) = (settings.workers, paths.to_owned());
            foreground::run(workers, "info", Box::new(|signals| Box::pin(serve(settings, paths, signals))))
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::from(check::CONFIGURATION)
        }
    }
}

async fn serve(settings: Settings, paths: Vec<PathBuf>, mut signals: Signals) -> ExitCode {
    raise_file_limit();
    let gateway = match Gateway::start(settings, Vec::new()).await {
        Ok(gateway) => gateway,
        Err(error) => return failed(error),
    };
    gateway.reload_by(Box::new(move || file::read(&paths)));
    loop {
        match signals.next().await {
            Signal::Stop => break,
            Signal::Reopen => gateway.reopen_access_log(),
            Signal::Reload => drop(gateway.reload(Trigger::Signal).await),
        }
    }
    tracing::info!("stopping, a second signal ends it at once");
    tokio::select! {
        () = gateway.shutdown() => ExitCode::SUCCESS,
        () = signals.stop() => failed("ended by a second signal, requests in flight were cut off"),
    }
}

/// Every connection is a file; the soft limit is often 1024 where the hard one is far higher.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) => tracing::debug!(files, "limit of open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}
