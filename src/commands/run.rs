//! `tracegate run`: the gateway, from its configuration to its last request.

use std::path::PathBuf;
use std::process::ExitCode;

use futures_util::FutureExt;
use sd_notify::NotifyState;

use super::check;
use super::foreground::{self, failed};
use super::signals::{Signal, Signals};
use crate::gateway::last_good::LastGood;
use crate::gateway::reload::Trigger;
use crate::gateway::{Gateway, Settings, file};
use crate::listener::Inherited;
use crate::problem::Problems;
use crate::telemetry::diagnostics::Levels;

/// Runs the gateway until a signal ends it.
pub fn run(paths: &[PathBuf], last_good: Option<PathBuf>) -> ExitCode {
    let last_good = last_good.map(LastGood::at);
    match read(paths, last_good.as_ref()) {
        Ok(settings) => {
            let (workers, paths) = (settings.workers, paths.to_owned());
            // while there is no other thread
            let inherited = Inherited::from_environment();
            let work =
                |signals, levels| serve(settings, paths, last_good, inherited, signals, levels).boxed_local();
            foreground::run(workers, "info", Box::new(work))
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::from(check::CONFIGURATION)
        }
    }
}

/// What these files say; what was good the last time, if they are broken and it has been kept.
fn read(paths: &[PathBuf], last_good: Option<&LastGood>) -> Result<Settings, Problems> {
    let broken = match file::read(paths) {
        Ok(settings) => return Ok(settings),
        Err(broken) => broken,
    };
    let Some(last_good) = last_good.filter(|last_good| last_good.path().exists()) else {
        return Err(broken);
    };
    eprintln!("{broken}");
    let kept = last_good.path().display();
    let settings = last_good.read(paths, broken);
    match &settings {
        Ok(_) => eprintln!("warning: the configuration is broken; starting from the last good one, {kept}"),
        Err(_) => eprintln!("error: the last good configuration, {kept}, will not do either:"),
    }
    settings
}

async fn serve(
    settings: Settings,
    paths: Vec<PathBuf>,
    last_good: Option<LastGood>,
    inherited: Inherited,
    mut signals: Signals,
    levels: Levels,
) -> ExitCode {
    raise_file_limit();
    let gateway = match Gateway::start_on(settings, Vec::new(), inherited).await {
        Ok(gateway) => gateway,
        Err(error) => return failed(error),
    };
    if let Some(last_good) = last_good {
        gateway.keep_last_good(last_good);
    }
    gateway.diagnostics_by(levels);
    gateway.reload_by(Box::new(move || file::read(&paths)));
    tell_service_manager(NotifyState::Ready);
    loop {
        match signals.next().await {
            Signal::Stop => break,
            Signal::Reopen => gateway.reopen_access_log(),
            Signal::Reload => drop(gateway.reload(Trigger::Signal).await),
        }
    }
    tell_service_manager(NotifyState::Stopping);
    tracing::info!("stopping, a second signal ends it at once");
    tokio::select! {
        () = gateway.shutdown() => ExitCode::SUCCESS,
        () = signals.stop() => failed("ended by a second signal, requests in flight were cut off"),
    }
}

/// Tells systemd, or whoever else has set `NOTIFY_SOCKET`; nobody else.
fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Every connection is a file; the soft limit is often 1024 where the hard one is far higher.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) => tracing::debug!(files, "limit of open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}
