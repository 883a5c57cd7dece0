//! `tracegate demo`: the gateway at work, on this terminal.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::Uri;

use super::runtime;
use super::signals::Signals;
use crate::demo;
use crate::telemetry::diagnostics;

/// What `tracegate demo` may be told.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// End after this many requests, with a summary
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Requests a second at most; 4 if the demo has no end, else 40
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: Option<u32>,
    #[arg(long, value_name = "URL", help = OTLP_HELP)]
    otlp: Option<Uri>,
}

/// Runs the demo until its last request, or until a signal ends it.
pub(super) fn demo(options: &Options) -> ExitCode {
    // what the gateway says of its start and its end would stand between the trees
    if let Err(error) = diagnostics::start(Some("warn")) {
        return failed(&error.to_string());
    }
    let runtime = match runtime::build(None) {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let rate = options.rate.unwrap_or(if options.requests.is_some() { 40 } else { 4 });
    let options = demo::Options {
        requests: options.requests,
        pause: Duration::from_secs(1) / rate,
        otlp: options.otlp.clone(),
        colour: io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    let summary = runtime.block_on(async {
        let mut signals = Signals::new()?;
        demo::run(options, &mut io::stdout(), async move { signals.stop().await }).await
    });
    runtime.shutdown_timeout(LEFTOVERS);
    match summary {
        Ok(summary) if summary.complete() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

const OTLP_HELP: &str =
    "Send every span there as well, by OTLP over gRPC, such as http://localhost:4317 for Jaeger";
const LEFTOVERS: Duration = Duration::from_millis(500);
