//! A command that goes on until a signal ends it: its diagnostics, its threads, its signals.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::runtime;
use super::signals::Signals;
use crate::telemetry::diagnostics::{self, Levels};

/// What a command does until it ends. Boxed, so that it is compiled once: a runtime has three ways to wait for
/// a future, and the binary would compile all that it awaits anew.
pub type Work = Box<dyn FnOnce(Signals, Levels) -> LocalBoxFuture<'static, ExitCode>>;

/// Does this work on so many threads, with diagnostics of this level unless `RUST_LOG` says otherwise.
pub fn run(threads: Option<usize>, level: &str, work: Work) -> ExitCode {
    let levels = match diagnostics::start(level) {
        Ok(levels) => levels,
        Err(error) => return failed(error),
    };
    let runtime = match runtime::build(threads) {
        Ok(runtime) => runtime,
        Err(error) => return failed(error),
    };
    let ended = runtime.block_on(async {
        match Signals::new() {
            Ok(signals) => work(signals, levels).await,
            Err(error) => failed(format_args!("cannot listen for signals: {error}")),
        }
    });
    // whatever still blocks a thread (a name being resolved) does not hold up the end
    runtime.shutdown_timeout(LEFTOVERS);
    ended
}

/// Says on standard error why a command ends without success.
pub fn failed(error: impl Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

const LEFTOVERS: Duration = Duration::from_millis(500);
