//! The buckets of one limit: a bounded table in many parts, each under a lock of its own.
//!
//! A key is kept only as a number that nobody outside can predict, so that no client's text stays in memory and
//! no client can aim at another one's bucket.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::bucket::{Grant, Rate};

/// Buckets by key.
#[derive(Debug)]
pub struct Table {
    rate: Rate,
    numbers: RandomState,
    parts: Box<[Mutex<Part>]>,
    most_in_part: usize,
    keys: AtomicUsize,
}

/// When each bucket is full, by the number of its key.
type Part = HashMap<u64, u64, BuildHasherDefault<AsItIs>>;

/// What was asked of a table, and what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// What the bucket says.
    pub grant: Grant,
    /// A bucket that was not full had to be forgotten for this one.
    pub evicted: bool,
}

impl Table {
    /// Buckets of this rate for at most about so many keys.
    pub fn new(rate: Rate, most: usize) -> Self {
        let parts = PARTS.min(most.max(1));
        Self {
            rate,
            numbers: RandomState::new(),
            parts: (0..parts).map(|_| Mutex::default()).collect(),
            most_in_part: most.div_ceil(parts).max(1),
            keys: AtomicUsize::new(0),
        }
    }

    /// The number that stands for a key.
    pub fn number(&self, key: &(impl Hash + ?Sized)) -> u64 {
        self.numbers.hash_one(key)
    }

    /// Keys that are in the table.
    pub fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// One request of this key, now, in nanoseconds of a clock that began with the table.
    ///
    /// If there is no room for a new key, buckets that are full again go first, which changes nothing. If there
    /// is none, the one that is nearest to being full goes: the client that has asked least of late.
    pub fn take(&self, number: u64, now: u64) -> Taken {
        let part = usize::try_from(number >> 32).unwrap_or(0) % self.parts.len();
        let mut part = self.parts[part].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at) = part.get_mut(&number) {
            let (next, grant) = self.rate.take(*full_at, now);
            *full_at = next;
            return Taken { grant, evicted: false };
        }
        let evicted = part.len() >= self.most_in_part && self.make_room(&mut part, now);
        let (full_at, grant) = self.rate.take(0, now);
        part.insert(number, full_at);
        self.keys.fetch_add(1, Ordering::Relaxed);
        Taken { grant, evicted }
    }

    fn make_room(&self, part: &mut Part, now: u64) -> bool {
        let before = part.len();
        part.retain(|_, full_at| *full_at > now);
        let evicted = part.len() == before;
        if evicted && let Some(number) = part.iter().min_by_key(|(_, at)| **at).map(|(number, _)| *number) {
            part.remove(&number);
        }
        self.keys.fetch_sub(before - part.len(), Ordering::Relaxed);
        evicted
    }
}

/// Parts of a table: with so many, two workers seldom want the same one.
const PARTS: usize = 64;

/// The numbers are hashes already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Rate, Table};

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn each_key_has_a_bucket_of_its_own() {
        let table = Table::new(Rate::new(1, Duration::from_secs(1), 2), 1000);
        for key in ["a", "b"] {
            let number = table.number(key);
            let allowed = [0, 0, 0].map(|now| table.take(number, now).grant.allowed);
            assert_eq!(allowed, [true, true, false], "{key}");
        }
        assert_eq!(table.keys(), 2);
    }

    #[test]
    fn a_full_table_forgets_full_buckets_first_and_then_who_asked_least() {
        // one part, two keys
        let table = Table::new(Rate::new(1, Duration::from_secs(1), 10), 1);
        assert!(!table.take(1, SECOND).evicted);
        assert!(!table.take(2, 3 * SECOND).evicted, "the first bucket was full again");
        assert!(table.take(3, 3 * SECOND).evicted);
        assert_eq!(table.keys(), 1);

        let table = Table { most_in_part: 2, ..Table::new(Rate::new(1, Duration::from_secs(1), 10), 1) };
        for number in [1, 1, 1, 2] {
            table.take(number, SECOND);
        }
        assert!(table.take(3, SECOND).evicted);
        assert_eq!(table.take(1, SECOND).grant.remaining, 6, "the busy one stays");
        assert_eq!(table.keys(), 2);
    }

    #[test]
    fn a_flood_of_keys_never_takes_more_than_the_bound() {
        let table = Table::new(Rate::new(1, Duration::from_hours(1), 1), 10_000);
        for key in 0..100_000_u32 {
            table.take(table.number(&key), 1);
        }
        assert!(table.keys() <= 10_048, "{}", table.keys());
    }
}
