//! Diagnostics: what the gateway itself has to say, on standard error. Not the access log.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::TryInitError;

/// Why diagnostics could not be set up.
#[derive(Debug)]
pub enum DiagnosticsError {
    /// The level, or `RUST_LOG`, is not a valid filter.
    Filter(ParseError),
    /// They have been set up before.
    Twice(TryInitError),
}

/// Writes diagnostics to standard error from now on. The level is `RUST_LOG` if that is set, else the
/// argument. A bare level is that of tracegate's own messages; libraries stay at `warn`.
pub fn start(level: &str) -> Result<(), DiagnosticsError> {
    let environment = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let filter = filter(environment.as_deref().unwrap_or(level))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    tracing_subscriber::util::SubscriberInitExt::try_init(builder.finish()).map_err(DiagnosticsError::Twice)
}

fn filter(text: &str) -> Result<EnvFilter, DiagnosticsError> {
    let is_level = text.parse::<tracing::level_filters::LevelFilter>().is_ok();
    let directives = if is_level { format!("warn,tracegate={text}") } else { text.to_owned() };
    EnvFilter::builder().parse(directives).map_err(DiagnosticsError::Filter)
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

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn a_bare_level_is_that_of_our_own_messages() {
        let cases = [
            ("debug", Some("tracegate=debug,warn")),
            ("off", Some("tracegate=off,warn")),
            ("hyper=trace,tracegate=info", Some("tracegate=info,hyper=trace")),
            ("tracegate=loud", None),
        ];
        for (text, expected) in cases {
            let filter = filter(text).ok().map(|filter| filter.to_string());
            assert_eq!(filter.as_deref(), expected, "{text}");
        }
    }
}
