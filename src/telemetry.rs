//! The one seam between the gateway's work and what is said about it: operations go in, every signal comes out.
//!
//! A protocol starts an [`Operation`] and states facts through its [`Handle`]. When the operation drops, the
//! [`Recorder`] hands the finished [`Record`] to each [`Sink`]: spans, metrics, access log. Telemetry knows
//! no protocol's library.

pub mod access_log;
mod backlog;
pub mod balance;
pub mod context;
pub mod exchange;
pub mod metrics;
pub mod operation;
pub mod outcome;
pub mod privacy;
pub mod receivers;
pub mod recorder;
pub mod resource;
pub mod sampling;
pub mod series;
pub mod settings;
pub mod spans;
#[cfg(test)]
mod testing;

pub use operation::{Attempt, AttemptRecord, Handle, Operation, Record, Sink, Start};
pub use recorder::Recorder;
