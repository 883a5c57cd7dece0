//! Maintenance: routes that are out of service because somebody wants it so, by the file or at run time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::page::Page;

/// What a route's file says of maintenance.
#[derive(Debug, Clone)]
pub struct Maintenance {
    /// Whether it is out of service, unless somebody says otherwise at run time.
    pub enabled: bool,
    /// What `Retry-After` says meanwhile, in seconds.
    pub retry_after: u64,
    /// The page for people meanwhile.
    pub page: Option<Arc<Page>>,
}

impl Default for Maintenance {
    fn default() -> Self {
        Self { enabled: false, retry_after: RETRY_AFTER, page: None }
    }
}

/// The default of `Retry-After`, in seconds.
pub const RETRY_AFTER: u64 = 60;

/// A route that can be put in maintenance.
#[derive(Debug, Clone, Default)]
pub struct Switched {
    enabled: bool,
    said: Arc<AtomicU8>,
}

/// What was said at run time: nothing, "in maintenance", or "not".
const UNSAID: u8 = 0;
const ON: u8 = 1;
const OFF: u8 = 2;

impl Switched {
    /// A route of which the file says this. What was said at run time of the one before still counts.
    pub fn new(enabled: bool, before: Option<&Self>) -> Self {
        Self { enabled, said: before.map(|before| Arc::clone(&before.said)).unwrap_or_default() }
    }

    /// Whether it is in maintenance now.
    pub fn is_on(&self) -> bool {
        match self.said.load(Ordering::Relaxed) {
            ON => true,
            OFF => false,
            _ => self.enabled,
        }
    }

    /// Says so at run time; `None` takes back what was said.
    pub fn set(&self, wanted: Option<bool>) {
        let said = match wanted {
            None => UNSAID,
            Some(true) => ON,
            Some(false) => OFF,
        };
        self.said.store(said, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Switched;

    #[test]
    fn what_is_said_at_run_time_wins_over_the_file_until_it_is_taken_back() {
        let before = Switched::new(true, None);
        for (said, on, off) in
            [(None, true, false), (Some(true), true, true), (Some(false), false, false), (None, true, false)]
        {
            before.set(said);
            let reloaded = Switched::new(false, Some(&before));
            assert_eq!((before.is_on(), reloaded.is_on()), (on, off), "{said:?}");
        }
    }
}
