//! `tracegate demo`: the demo, on this terminal.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::future::LocalBoxFuture;
use http::Uri;

use super::{Options, run};

/// What `tracegate demo` may be told.
#[derive(Debug, Args)]
pub struct Arguments {
    /// End after this many requests, with a summary
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Requests a second at most; 4 if the demo has no end, else 40
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: Option<u32>,
    #[arg(long, value_name = "URL", help = OTLP_HELP)]
    otlp: Option<Uri>,
}

/// Runs the demo on standard output until its last request, or until `stop` ends. Boxed, so that the library
/// compiles it and not whoever awaits it.
pub fn demo(arguments: Arguments, stop: LocalBoxFuture<'static, ()>) -> LocalBoxFuture<'static, ExitCode> {
    Box::pin(show(arguments, stop))
}

async fn show(arguments: Arguments, stop: impl Future<Output = ()>) -> ExitCode {
    let rate = arguments.rate.unwrap_or(if arguments.requests.is_some() { 40 } else { 4 });
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let options = Options {
        requests: arguments.requests,
        pause: Duration::from_secs(1) / rate,
        otlp: arguments.otlp,
        colour: io::stdout().is_terminal() && !plain,
    };
    match run(options, &mut io::stdout(), stop).await {
        Ok(summary) if summary.complete() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

const OTLP_HELP: &str =
    "Send every span there as well, by OTLP over gRPC, such as http://localhost:4317 for Jaeger";
