//! The `tracegate` binary: what may be asked of it, and with which code it ends.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use tracegate::commands::signals::Signals;
use tracegate::commands::{
    check, completions, explain, foreground, healthcheck, reference, run, schema, token, top,
};
use tracegate::{demo, lint};

/// Half the instructions of the system's allocator, and no growth by arenas of many threads.
/// Without transparent huge pages: each that holds one kept object keeps two mebibytes resident.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match line.command.unwrap_or(Command::Run(line.run)) {
        Command::Run(Run { configuration, last_good }) => run::run(&configuration.config, last_good),
        // what the gateway says of its start and its end would stand between the trees
        Command::Demo(arguments) => {
            let work = |mut signals: Signals, _| {
                demo::command::demo(arguments, Box::pin(async move { signals.stop().await }))
            };
            foreground::run(None, "warn", Box::new(work))
        }
        Command::Check(options) => check::check(&options),
        Command::Explain(options) => explain::explain(&options),
        Command::Schema => schema::print(),
        Command::Reference(options) => reference::print(&options),
        Command::Completions(options) => completions::completions(&options, CommandLine::command()),
        Command::LintTelemetry(configuration) => lint::command::lint(&configuration.config),
        Command::Sample { part } => {
            let work = |mut signals: Signals, _| {
                demo::sample::sample(part, Box::pin(async move { signals.stop().await }))
            };
            foreground::run(Some(1), "warn", Box::new(work))
        }
        Command::Top(options) => top::top(&options),
        Command::Token { command } => token::token(&command),
        Command::Healthcheck(options) => healthcheck::healthcheck(&options),
    }
}

/// A tracing-aware reverse-proxy API gateway: every request traced, measured and explained.
///
/// Stands in front of HTTP services, forwards by a route table, continues or starts a W3C trace
/// for every request, sends its spans to an OTLP receiver (Jaeger, the OpenTelemetry Collector)
/// and shows metrics to Prometheus. Without a command it runs the gateway.
#[derive(Debug, Parser)]
#[command(name = "tracegate", version, args_conflicts_with_subcommands = true)]
#[command(after_long_help = AFTER_HELP, verbatim_doc_comment)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (the default)
    ///
    /// SIGTERM or SIGINT: /readyz turns 503, connections are asked to close, requests in flight
    /// finish, telemetry is flushed; a second signal ends it at once. SIGHUP reads the configuration
    /// again, which also happens when one of its files changes. SIGUSR1 reopens the access log's
    /// file. Diagnostics go to standard error, the access log to standard output or the configured
    /// file. Soon after the start one line for each upstream tells how many of its endpoints take
    /// connections.
    #[command(verbatim_doc_comment, after_long_help = RUN_HELP)]
    Run(Run),
    /// See it at work: embedded services, traffic, and each trace as a tree
    ///
    /// Starts a Shop and an MES service, the gateway with its shipped routes before them, and a
    /// gentle customer; prints each trace made from the spans that were received over OTLP. Needs
    /// nothing else installed, and takes free ports on the loopback interface. Ends with Ctrl-C or
    /// after --requests, with a summary: exit code 1 if a request has no trace or a span is missing.
    #[command(verbatim_doc_comment, after_long_help = DEMO_HELP)]
    Demo(demo::command::Arguments),
    /// One part of the demo alone, for containers: see deploy/compose.yaml
    #[command(hide = true)]
    Sample {
        /// Which part
        #[command(subcommand)]
        part: demo::sample::Part,
    },
    /// Check the configuration and tell every problem at once
    ///
    /// Each with file, line, key and what to write instead. Certificates and keys are loaded as
    /// `run` loads them, unless --without-secrets says that they need not be there.
    #[command(verbatim_doc_comment, after_long_help = CHECK_HELP)]
    Check(check::Options),
    /// Explain what becomes of a request, or what a reason means
    ///
    /// Of a URL as pasted: the route that it gets and why not the others, what normalisation does to
    /// its path, the policies in order, timeouts, retries, the upstream; whether its trace is sampled,
    /// what is exported of it attribute by attribute, and what is redacted. Nothing is sent.
    /// Of a reason: what it means, whose fault it is, what usually leads to it, and what to ask
    /// Prometheus, Jaeger and the access log.
    #[command(verbatim_doc_comment, after_long_help = EXPLAIN_HELP)]
    Explain(explain::Options),
    /// Print the JSON Schema of routes.toml, for editors
    ///
    /// With it, editors complete keys and show what they mean (taplo, Even Better TOML).
    #[command(verbatim_doc_comment, after_long_help = SCHEMA_HELP)]
    Schema,
    /// Print a page of the reference as Markdown
    #[command(hide = true)]
    Reference(reference::Options),
    /// Send secrets through every route and look for them in the telemetry
    ///
    /// Starts the configured gateway on free loopback ports, before an upstream and receivers of
    /// its own, sends secrets in every place of requests and answers (path, query, fields, cookies,
    /// tokens, bodies, trace context, errors …) and searches spans, metrics, records and diagnostics
    /// for them, in whatever encoding. Exit code 1 if one came out: signal, field and place are told.
    #[command(verbatim_doc_comment, after_long_help = LINT_HELP)]
    LintTelemetry(Configuration),
    /// Look at a running gateway: its routes, upstreams, traces and telemetry, live
    ///
    /// The live page of the admin address for a terminal: the route in trouble first, with the reason and where
    /// its time goes; endpoints and breakers; traces as they come, each with its attempts; whether telemetry
    /// adds up. `?` tells the keys. A token comes from --token-file or the variable `TRACEGATE_TOKEN`, never from
    /// the command line. With --once, or where standard output is no terminal, everything is printed once.
    #[command(verbatim_doc_comment, after_long_help = TOP_HELP)]
    Top(top::Options),
    /// Tokens for the admin address
    #[command(after_long_help = TOKEN_HELP)]
    Token {
        /// What to do
        #[command(subcommand)]
        command: token::Token,
    },
    /// Ask a running gateway whether it is ready
    ///
    /// Asks /readyz on the probes' address of the configuration, else on the admin address.
    /// Exit code 0 if it answers ok, else 1: made for a container's HEALTHCHECK.
    #[command(verbatim_doc_comment, after_long_help = HEALTHCHECK_HELP)]
    Healthcheck(healthcheck::Options),
    /// Print what a shell needs to complete this command line
    #[command(after_long_help = COMPLETIONS_HELP)]
    Completions(completions::Options),
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    configuration: Configuration,
    /// Where the configuration in force is kept, to start from if the files are broken by then
    ///
    /// Written after the start and after each reload that is not refused; its owner alone can read it. Without
    /// this, a start with broken files ends with exit code 78.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    last_good: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Configuration {
    /// A file of routes and settings; may be repeated, later files win key by key
    #[arg(long, value_name = "FILE", default_value = "routes.toml")]
    config: Vec<PathBuf>,
}

const RUN_HELP: &str = "\
Examples:
  tracegate run --config routes.toml
  tracegate run --config base.toml --config site.toml
  tracegate run --last-good last-good.toml           starts from it, should routes.toml be broken

Exit codes: 0 ended as asked, 1 could not start, 78 the configuration is wrong
Environment: TRACEGATE_SECTION__KEY, OTEL_*, TOKIO_WORKER_THREADS, RUST_LOG, NO_COLOR (see tracegate --help)";

const DEMO_HELP: &str = "\
Examples:
  tracegate demo                                     until Ctrl-C; its first line is the address of the live page
  tracegate demo --requests 20                       ends by itself, with a summary
  tracegate demo --otlp http://localhost:4317        every span to your Jaeger as well
  tracegate top --admin http://127.0.0.1:PORT        beside it, with the port of the live page

Exit codes: 0 every request has its trace, 1 not so, or it could not start
Environment: NO_COLOR turns colours off";

const LINT_HELP: &str = "\
Examples:
  tracegate lint-telemetry
  tracegate lint-telemetry --config base.toml --config site.toml

Exit codes: 0 nothing came out, 1 a secret came out, 2 it could not be run, 78 the configuration is wrong
Environment: what configures the gateway";

const TOP_HELP: &str = "\
Examples:
  tracegate top                                      the gateway of ./routes.toml, else http://127.0.0.1:9901
  tracegate top --admin https://gateway:9901 --ca ca.pem --token-file ~/.tracegate-token
  tracegate top --once | grep -A5 'TRACES THAT FAILED'

Exit codes: 0 ended as asked, 1 the gateway cannot be reached or does not let us in
Environment: TRACEGATE_TOKEN, NO_COLOR";

const TOKEN_HELP: &str = "\
Examples:
  tracegate token new --role developer --name oncall
  tracegate token new --role metrics --name prometheus

The first line is the token, for its bearer; the rest goes into routes.toml. Exit codes: 0";

const HEALTHCHECK_HELP: &str = "\
Examples:
  tracegate healthcheck                              what ./routes.toml names: [probes], else [admin]
  tracegate healthcheck --url http://127.0.0.1:9902/readyz

Exit codes: 0 ready, 1 not ready, not reached, or the configuration is wrong";

const CHECK_HELP: &str = "\
Examples:
  tracegate check                                    every problem, as a compiler tells it
  tracegate check --without-secrets --format json    in CI: { ok, problems: [{ key, message, help, origin, line, column }] }
  tracegate check --effective                        every value in force, and where it was written
  tracegate check --connect                          who can be reached, and how fast

Exit codes: 0 fine, 1 somebody cannot be reached (--connect), 78 the configuration is wrong
Environment: what configures the gateway; NO_COLOR turns colours off";

const EXPLAIN_HELP: &str = "\
Examples:
  tracegate explain https://shop.example/shop/orders/42
  tracegate explain -X POST -H 'x-canary: 1' /shop/orders
  tracegate explain upstream_timeout

Exit codes: 0 explained (refused requests, too), 1 not a URL or a reason, 78 the configuration is wrong
Environment: what configures the gateway; secrets need not be there";

const SCHEMA_HELP: &str = "\
Example:
  tracegate schema > routes.schema.json              then, as the first line of routes.toml:
  #:schema ./routes.schema.json

Exit codes: 0";

const COMPLETIONS_HELP: &str = "\
Examples:
  source <(tracegate completions bash)
  tracegate completions zsh > ~/.zfunc/_tracegate
  tracegate completions fish > ~/.config/fish/completions/tracegate.fish

Exit codes: 0";

const AFTER_HELP: &str = "\
Examples:
  tracegate demo                                     see it at work, nothing needed
  tracegate                                          run with ./routes.toml
  tracegate --config base.toml --config site.toml    the second file wins
  TRACEGATE_LISTENERS__PUBLIC__ADDRESS=127.0.0.1:8081 tracegate
  tracegate check --config routes.toml
  tracegate explain https://shop.example/shop/orders/42
  tracegate top                                      look at the gateway that runs here

Environment:
  TRACEGATE_SECTION__KEY    overrides a key of the configuration
  OTEL_*                    OpenTelemetry's standard variables, where the configuration is silent
  TOKIO_WORKER_THREADS      worker threads, where the key `workers` is silent
  TRACEGATE_TOKEN           the token with which `top` asks the admin address
  RUST_LOG                  which diagnostics are told
  NO_COLOR                  no colours

Exit codes:
  0   ended as asked
  1   could not start, or did not succeed; standard error says what and where
  2   the command line is wrong
  78  the configuration is wrong";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::{CommandFactory, Parser};

    use super::{Command, CommandLine, Run};

    #[test]
    fn the_definition_holds_together() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn run_is_the_default_command_and_routes_toml_the_default_file() {
        for (line, files) in [
            (&["tracegate"][..], &["routes.toml"][..]),
            (&["tracegate", "run"], &["routes.toml"]),
            (&["tracegate", "--config", "a.toml", "--config", "b.toml"], &["a.toml", "b.toml"]),
            (&["tracegate", "run", "--config", "a.toml"], &["a.toml"]),
        ] {
            let parsed = CommandLine::try_parse_from(line).unwrap();
            let Command::Run(Run { configuration, .. }) = parsed.command.unwrap_or(Command::Run(parsed.run))
            else {
                panic!("{line:?} is not run");
            };
            assert_eq!(configuration.config, files.iter().map(Path::new).collect::<Vec<_>>(), "{line:?}");
        }
    }

    #[test]
    fn every_command_tells_what_it_is_for_how_it_is_used_and_its_exit_codes() {
        let mut whole = CommandLine::command();
        whole.build();
        for command in whole.get_subcommands_mut() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            if !command.is_hide_set() && command.get_name() != "help" {
                let (name, help) = (command.get_name().to_owned(), command.render_long_help().to_string());
                assert!(help.contains("Example") && help.contains("Exit codes: 0"), "{name}: {help}");
            }
        }
        let help = whole.render_long_help().to_string();
        for part in ["demo", "check", "top", "healthcheck", "Exit codes:", "78", "--config"] {
            assert!(help.contains(part), "{part}");
        }
    }
}
