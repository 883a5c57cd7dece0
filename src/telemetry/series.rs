//! Handles of metric series beside what they are labelled with: filled on first use, found without a lookup.

use std::borrow::Cow;
use std::fmt;
use std::sync::{OnceLock, RwLock};

use ::metrics::{Counter, Gauge};

use super::attribute::Configured;
use super::metrics::count::Count;
use super::metrics::histogram::Histogram;
use super::recent::gate::Gate;
use crate::failure::Reason;

/// The series of one route.
#[derive(Debug, Default)]
pub struct RouteSeries {
    pub(super) durations: Table<Histogram>,
    pub(super) requests: Table<Count>,
    pub(super) retries: Table<Counter>,
    pub(super) rules: RwLock<Vec<RuleSeries>>,
    pub(super) own: OnceLock<RouteHandles>,
    pub(super) streams: OnceLock<StreamHandles>,
    /// Which of its exchanges are kept for people to look at.
    pub(super) recent: Gate,
}

/// The series of one rule and reason. A route meets a few of them.
#[derive(Debug)]
pub(super) struct RuleSeries {
    pub(super) rule: Configured,
    pub(super) reason: Reason,
    pub(super) requests: Counter,
}

/// The series of one endpoint.
#[derive(Debug, Default)]
pub struct EndpointSeries {
    pub(super) durations: Table<Histogram>,
    pub(super) failures: Table<Counter>,
    pub(super) own: OnceLock<EndpointHandles>,
}

/// What a route has one of.
#[derive(Debug)]
pub(super) struct RouteHandles {
    pub(super) request_size: Histogram,
    pub(super) response_size: Histogram,
    pub(super) first_byte: Histogram,
    pub(super) overhead: Histogram,
    /// Stands for the business operation in the keys of [`EndpointSeries::durations`].
    pub(super) operation: u64,
}

/// What a route has one of, once it has had a stream.
#[derive(Debug)]
pub(super) struct StreamHandles {
    pub(super) active: Gauge,
    pub(super) age: Histogram,
}

/// What an endpoint has one of.
#[derive(Debug)]
pub(super) struct EndpointHandles {
    pub(super) requests: Counter,
    pub(super) active: Gauge,
    pub(super) connections: Gauge,
}

/// A few handles by a number made of their labels. Readers take no lock; what finds no place any more is
/// asked of the registry each time, which gives the same series, only slower.
pub(super) struct Table<T> {
    slots: OnceLock<Box<[Slot<T>]>>,
}

type Slot<T> = OnceLock<(u128, T)>;

impl<T: Clone> Table<T> {
    /// The handle of this key, made if it is not there.
    pub(super) fn get(&self, key: u128, make: impl Fn() -> T) -> Cow<'_, T> {
        let slots = self.slots.get_or_init(|| (0..SLOTS).map(|_| OnceLock::new()).collect());
        #[expect(clippy::cast_possible_truncation, reason = "both halves count")]
        let folded = (key >> 64) as u64 ^ key as u64;
        let start = usize::try_from(folded.wrapping_mul(SPREAD) >> (u64::BITS - SLOTS.ilog2())).unwrap_or(0);
        let mut probed = slots[start..].iter().chain(&slots[..start]);
        let found = probed.find_map(|slot| {
            let (owner, handle) = slot.get_or_init(|| (key, make()));
            (*owner == key).then_some(handle)
        });
        found.map_or_else(|| Cow::Owned(make()), Cow::Borrowed)
    }

    /// Every handle that has a place, with its key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, &T)> {
        let slots = self.slots.get().into_iter().flatten();
        slots.filter_map(|slot| slot.get().map(|(key, handle)| (*key, handle)))
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: OnceLock::new() }
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

/// Places of a [`Table`], a power of two: a route answers with a handful of statuses and reasons.
const SLOTS: usize = 64;

/// Spreads keys over the places (Fibonacci hashing: 2⁶⁴ divided by the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::{SLOTS, Table};

    #[test]
    fn a_table_makes_each_handle_once_until_it_is_full() {
        let made = Cell::new(0);
        let table = Table::default();
        let ask = |key: u128| {
            *table.get(key, || {
                made.set(made.get() + 1);
                key * 10
            })
        };
        for _ in 0..3 {
            for key in 0..SLOTS as u128 {
                assert_eq!(ask(key), key * 10);
            }
        }
        assert_eq!(made.get(), SLOTS);
        assert_eq!((ask(1000), ask(1000)), (10_000, 10_000), "beyond its size it still answers");
        assert_eq!(made.get(), SLOTS + 2);
    }
}
