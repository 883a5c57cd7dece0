//! The threads of a command, beside the [workers](crate::worker) of a gateway.

use tokio::runtime::{Builder, Runtime};

use crate::worker;

/// A runtime with this many threads, else with as many as a gateway would have workers.
pub(super) fn build(threads: Option<usize>) -> Result<Runtime, String> {
    let threads = worker::count(threads)?;
    let built = Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    built.map_err(|error| format!("cannot start {threads} threads: {error}"))
}
