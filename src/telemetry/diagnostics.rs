//! Diagnostics: what the gateway itself has to say, on standard error. Not the access log.

use std::io;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Why diagnostics could not be set up.
#[derive(Debug)]
pub enum DiagnosticsError {
    /// The level, or `RUST_LOG`, is not a valid filter.
    Filter(ParseError),
    /// They have been set up before.
    Twice(TryInitError),
}

/// Writes diagnostics to standard error from now on. The level is `RUST_LOG` if that is set, else the
/// argument. A bare level is that of tracegate's own messages. Libraries stay at `warn`, whatever is asked
/// for: above it hyper, h2 and rustls print what clients send.
pub fn start(level: &str) -> Result<Levels, DiagnosticsError> {
    let environment = std::env::var("RUST_LOG").ok();
    start_into(environment.as_deref().unwrap_or(level), io::stderr)
}

/// Writes diagnostics of this level there from now on.
pub fn start_into<W>(level: &str, to: W) -> Result<Levels, DiagnosticsError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(to).with_ansi(false);
    let as_started = filter(level)?;
    let (filter, handle) = reload::Layer::new(as_started.clone());
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    subscriber.try_init().map_err(DiagnosticsError::Twice)?;
    let replace = move |filter| {
        // fails only where the subscriber is gone, and nobody is told anything any more
        let _ = handle.reload(filter);
    };
    Ok(Levels { as_started, replace: Arc::new(replace) })
}

/// Changes what diagnostics are told while they are told.
#[derive(Clone)]
pub struct Levels {
    as_started: Targets,
    replace: Arc<dyn Fn(Targets) + Send + Sync>,
}

impl Levels {
    /// Lets the gateway's own messages have this level, whatever they had; `None`: what they had at the start.
    /// Libraries stay as they are.
    pub fn set(&self, own: Option<LevelFilter>) {
        let filter = own.map_or_else(|| self.as_started.clone(), |level| with_own(&self.as_started, level));
        (self.replace)(filter);
    }
}

impl std::fmt::Debug for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Levels").field("as_started", &self.as_started).finish_non_exhaustive()
    }
}

/// The same, but for our own targets, which have this level.
fn with_own(filter: &Targets, level: LevelFilter) -> Targets {
    let others = filter.iter().filter(|(target, _)| !is_own(target));
    let default = filter.default_level();
    let filter = Targets::new().with_targets(others).with_target(OWN, level);
    default.map_or_else(|| filter.clone(), |default| filter.clone().with_default(default))
}

fn is_own(target: &str) -> bool {
    target.split("::").next() == Some(OWN)
}

/// The levels of these directives, separated by commas: `level` or `target=level`.
fn filter(text: &str) -> Result<Targets, DiagnosticsError> {
    let directives: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let directives = if directives.is_empty() { "error".to_owned() } else { directives.join(",") };
    let written: Targets = directives.parse().map_err(DiagnosticsError::Filter)?;
    let filter = match written.default_level() {
        Some(level) => Targets::new().with_default(LIBRARIES).with_target(OWN, level),
        None => Targets::new(),
    };
    Ok(filter.with_targets(written.iter().map(|(target, level)| {
        (target.to_owned(), if is_own(target) { level } else { level.min(LIBRARIES) })
    })))
}

impl std::fmt::Display for DiagnosticsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Filter(error) => write!(f, "the log level is not valid: {error}"),
            Self::Twice(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DiagnosticsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Filter(error) => Some(error),
            Self::Twice(error) => Some(error),
        }
    }
}

const OWN: &str = "tracegate";
/// The most that libraries may say.
const LIBRARIES: LevelFilter = LevelFilter::WARN;

#[cfg(test)]
mod tests {
    use super::{LevelFilter, filter, with_own};

    #[test]
    fn a_bare_level_is_that_of_our_own_messages() {
        for (text, expected) in [
            ("debug", Some("tracegate=debug,warn")),
            ("TRACE", Some("tracegate=trace,warn")),
            ("off", Some("tracegate=off,warn")),
            ("", Some("tracegate=error,warn")),
            ("tracegate::net=debug, info", Some("tracegate::net=debug,tracegate=info,warn")),
            ("hyper=error,tracegate=info", Some("tracegate=info,hyper=error")),
            ("tracegate=loud", None),
            ("tracegate=debug=info", None),
        ] {
            let filter = filter(text).ok().map(|filter| filter.to_string());
            assert_eq!(filter.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn at_run_time_only_our_own_messages_get_another_level() {
        for text in ["info", "tracegate::net=trace,warn", "hyper=error,tracegate=off"] {
            let changed = with_own(&filter(text).unwrap(), LevelFilter::DEBUG);
            for target in ["tracegate", "tracegate::net", "tracegate::http::pool"] {
                assert!(changed.would_enable(target, &tracing::Level::DEBUG), "{text}: {target}");
                assert!(!changed.would_enable(target, &tracing::Level::TRACE), "{text}: {target}");
            }
            assert!(!changed.would_enable("hyper", &tracing::Level::INFO), "{text}");
        }
    }

    #[test]
    fn libraries_cannot_be_made_to_print_what_clients_send() {
        for text in
            ["trace", "hyper=trace,h2=debug,rustls", "=trace", "trace,tracegate=off", "hyper=5,h=5,r=5"]
        {
            let filter = filter(text).unwrap();
            for target in ["hyper::proto::h1", "h2::codec", "rustls"] {
                assert!(!filter.would_enable(target, &tracing::Level::INFO), "{text}: {target}");
            }
        }
    }
}
