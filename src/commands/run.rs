//! `tracegate run`: the gateway, from its configuration to its last request.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use futures_util::FutureExt;
use sd_notify::NotifyState;
use tokio_util::task::AbortOnDropHandle;

use super::foreground::{self, failed};
use super::signals::{Signal, Signals};
use super::{check, report};
use crate::gateway::file::{self, Sources};
use crate::gateway::last_good::LastGood;
use crate::gateway::reload::Trigger;
use crate::gateway::{Gateway, Load, Means, Settings, reach};
use crate::listener::Inherited;
use crate::telemetry::diagnostics::Levels;

/// Runs the gateway until a signal ends it.
pub fn run(paths: &[PathBuf], last_good: Option<PathBuf>) -> ExitCode {
    let last_good = last_good.map(LastGood::at);
    match read(paths, last_good.as_ref()) {
        Ok(settings) => {
            let paths = paths.to_owned();
            // while there is no other thread
            let inherited = Inherited::from_environment();
            let work =
                |signals, levels| serve(settings, paths, last_good, inherited, signals, levels).boxed_local();
            foreground::run(Some(BESIDE_WORKERS), "info", Box::new(work))
        }
        Err(shown) => {
            eprint!("{shown}");
            ExitCode::from(check::CONFIGURATION)
        }
    }
}

/// What these files say; what was good the last time, if they are broken and it has been kept. An error is the
/// problems, as they are shown.
fn read(paths: &[PathBuf], last_good: Option<&LastGood>) -> Result<Settings, String> {
    let (sources, read) = match Sources::read(paths) {
        Ok(sources) => {
            let read = file::read_from(&sources, paths);
            (sources, read)
        }
        Err(problems) => (Sources::default(), Err(problems)),
    };
    let broken = match read {
        Ok(settings) => return Ok(settings),
        Err(broken) => broken,
    };
    let shown = report::shown(&broken, &sources, report::is_colourful());
    let Some(last_good) = last_good.filter(|last_good| last_good.path().exists()) else {
        return Err(shown);
    };
    eprint!("{shown}");
    let kept = last_good.path().display();
    match last_good.read(paths, broken) {
        Ok(settings) => {
            eprintln!("warning: the configuration is broken; starting from the last good one, {kept}");
            Ok(settings)
        }
        Err(problems) => {
            eprintln!("error: the last good configuration, {kept}, will not do either:");
            let sources = Sources::read(&[last_good.path()]).unwrap_or_default();
            Err(report::shown(&problems, &sources, report::is_colourful()))
        }
    }
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
    let known = settings.clone();
    let load: Load = Arc::new(move |before| file::read_after(&paths, before));
    let means = Means { inherited, levels: Some(levels), last_good, load: Some(load), ..Means::default() };
    let gateway = match Gateway::start_with(settings, means).await {
        Ok(gateway) => gateway,
        Err(error) => return failed(error),
    };
    tell_service_manager(NotifyState::Ready);
    // beside what is served already: each try has its bound, and ends with the process
    let _told = AbortOnDropHandle::new(tokio::spawn(async move { reach::tell_upstreams(&known).await }));
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

/// Threads that accept connections and do whatever else is no request.
const BESIDE_WORKERS: usize = 2;
