//! The commands of the binary, but for the demo: run, check, top, healthcheck, token, and what those in the foreground share.

pub mod check;
pub mod foreground;
pub mod healthcheck;
pub mod run;
mod runtime;
pub mod signals;
pub mod token;
pub mod top;
