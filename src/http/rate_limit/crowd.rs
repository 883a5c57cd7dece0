//! Notices when one address stands for many clients: a load balancer that is not among `trusted_proxies`, so that
//! a limit of each client would be one of all.
//!
//! The sign is a stranger that says for whom it asks (`X-Forwarded-For`): [`ENOUGH`] such requests in a row, all from
//! one address and for at least two clients. A client that forges the field alone sees itself warned of; so nothing
//! but a warning comes of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, TryLockError};

/// What has been seen of one limit's requests.
#[derive(Debug, Default)]
pub struct Crowd {
    seen: Mutex<Seen>,
    noticed: AtomicBool,
}

#[derive(Debug, Default)]
struct Seen {
    address: u64,
    client: u64,
    several: bool,
    in_a_row: u32,
}

impl Crowd {
    /// A request from this address that says it is for this client, both as numbers. `true` if it is now that the
    /// sign is complete, which is once.
    pub fn saw(&self, address: u64, client: u64) -> bool {
        if self.noticed.load(Ordering::Relaxed) {
            return false;
        }
        // whoever comes second at the same moment is not needed
        let mut seen = match self.seen.try_lock() {
            Ok(seen) => seen,
            Err(TryLockError::Poisoned(seen)) => seen.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        if seen.in_a_row == 0 || seen.address != address {
            *seen = Seen { address, client, several: false, in_a_row: 1 };
            return false;
        }
        seen.in_a_row += 1;
        seen.several |= seen.client != client;
        seen.several && seen.in_a_row >= ENOUGH && !self.noticed.swap(true, Ordering::Relaxed)
    }

    /// Somebody asked without saying for whom: it speaks for itself.
    pub fn saw_a_client(&self) {
        if !self.noticed.load(Ordering::Relaxed)
            && let Ok(mut seen) = self.seen.try_lock()
        {
            seen.in_a_row = 0;
        }
    }

    /// Whether the sign was complete once.
    pub fn is_noticed(&self) -> bool {
        self.noticed.load(Ordering::Relaxed)
    }
}

/// So many requests in a row are no accident.
pub const ENOUGH: u32 = 100;

#[cfg(test)]
mod tests {
    use super::{Crowd, ENOUGH};

    #[test]
    fn one_address_for_many_clients_is_noticed_once() {
        let crowd = Crowd::default();
        let told: Vec<bool> = (0..3 * ENOUGH).map(|turn| crowd.saw(7, u64::from(turn % 5))).collect();
        assert_eq!(told.iter().position(|told| *told), Some(ENOUGH as usize - 1));
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
        assert!(crowd.is_noticed());
    }

    #[test]
    fn nothing_is_noticed_where_clients_have_addresses_of_their_own() {
        let crowd = Crowd::default();
        for turn in 0..3 * ENOUGH {
            assert!(!crowd.saw(u64::from(turn % 2), u64::from(turn)), "two addresses");
        }
        for _ in 0..3 * ENOUGH {
            assert!(!crowd.saw(7, 1), "one client behind its own proxy");
        }
        let crowd = Crowd::default();
        for turn in 0..3 * ENOUGH {
            assert!(!crowd.saw(7, u64::from(turn)));
            if turn % 50 == 0 {
                crowd.saw_a_client();
            }
        }
    }
}
