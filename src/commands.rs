//! The commands of the binary, but for the demo and the lint: run, check, explain, schema, reference, completions, top,
//! healthcheck, token, and what those in the foreground share.

pub mod check;
pub mod completions;
mod connect;
pub mod explain;
pub mod foreground;
pub mod healthcheck;
pub mod reference;
mod report;
pub mod run;
mod runtime;
pub mod schema;
pub mod signals;
pub mod token;
mod toml;
pub mod top;

/// `1 route`, `2 routes`.
fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}
