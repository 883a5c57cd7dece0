//! The threads the gateway runs on.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

/// A runtime with this many workers, else `TOKIO_WORKER_THREADS`, else as many as the CPU limit allows.
pub(super) fn build(workers: Option<usize>) -> Result<Runtime, String> {
    let variable = std::env::var("TOKIO_WORKER_THREADS").ok();
    let workers = count(workers, variable.as_deref())?;
    let built = Builder::new_multi_thread()
        .worker_threads(workers)
        .global_queue_interval(SHARED_QUEUE_EVERY)
        .enable_all()
        .build();
    built.map_err(|error| format!("cannot start {workers} worker threads: {error}"))
}

/// `available_parallelism` knows the process's affinity and the CPU limit of its control group.
fn count(setting: Option<usize>, variable: Option<&str>) -> Result<usize, String> {
    match (setting, variable) {
        (Some(workers), _) => Ok(workers.max(1)),
        (None, Some(text)) => text
            .parse::<NonZeroUsize>()
            .map(NonZeroUsize::get)
            .map_err(|_| "TOKIO_WORKER_THREADS must be a whole number from 1 up".into()),
        (None, None) => Ok(available_parallelism().map_or(1, NonZeroUsize::get)),
    }
}

/// Every fourth task that a worker takes up is from the queue that workers share. Connections wait there when more than
/// the worker's own 256 have something to say; by tokio's own measure it was every twentieth, and with a thousand busy
/// connections the last one in a hundred waited for a quarter of a second while others were served again and again.
const SHARED_QUEUE_EVERY: u32 = 4;

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn the_setting_wins_over_the_variable_and_the_variable_over_the_machine() {
        assert_eq!(count(Some(3), Some("5")), Ok(3));
        assert_eq!(count(None, Some("5")), Ok(5));
        assert!(count(None, None).is_ok_and(|workers| workers >= 1));
        for wrong in ["0", "-1", "many", ""] {
            assert!(count(None, Some(wrong)).is_err(), "{wrong:?}");
        }
    }
}
