//! How many requests are in flight, and how many may be: of the whole gateway, of a listener, of a route.
//!
//! What comes when all places are taken is refused before any work is done for it. A place is taken with the
//! request's head and given back with the answer's last byte.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::failure::{Failure, Reason};

/// Every bound by its rule, so that a reload finds those that are in use.
#[derive(Debug, Clone, Default)]
pub struct Bounds(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    bounds: BTreeMap<Box<str>, Weak<Bound>>,
    /// With so many, those that nobody holds are thrown away.
    swept_at: usize,
}

impl Bounds {
    /// The bound of this rule, which from now on is so many; `None` is no bound.
    pub fn set(&self, rule: &str, most: Option<usize>) -> Arc<Bound> {
        let most = most.unwrap_or(usize::MAX);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.bounds.len() >= known.swept_at {
            known.bounds.retain(|_, bound| bound.strong_count() > 0);
            known.swept_at = known.bounds.len() * 2 + 1;
        }
        if let Some(bound) = known.bounds.get(rule).and_then(Weak::upgrade) {
            bound.most.store(most, Ordering::Relaxed);
            return bound;
        }
        let bound =
            Arc::new(Bound { rule: rule.into(), most: AtomicUsize::new(most), taken: AtomicUsize::new(0) });
        known.bounds.insert(rule.into(), Arc::downgrade(&bound));
        bound
    }
}

/// Places for requests in flight.
#[derive(Debug)]
pub struct Bound {
    rule: Arc<str>,
    /// `usize::MAX` is no bound: then nobody counts.
    most: AtomicUsize,
    taken: AtomicUsize,
}

/// Places that a request has taken; given back when they drop.
#[derive(Debug, Default)]
pub(super) struct Places([Option<Place>; 3]);

#[derive(Debug)]
struct Place(Arc<Bound>);

impl Places {
    /// One more place; `overloaded` if all are taken.
    pub(super) fn take(&mut self, bound: &Arc<Bound>) -> Result<(), Failure> {
        let most = bound.most.load(Ordering::Relaxed);
        if most == usize::MAX {
            return Ok(());
        }
        if bound.taken.fetch_add(1, Ordering::Relaxed) >= most {
            bound.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(Failure::new(Reason::Overloaded).rule(&bound.rule));
        }
        let place = Place(Arc::clone(bound));
        let free = self.0.iter_mut().find(|place| place.is_none());
        *free.expect("there are three bounds: of the gateway, the listener and the route") = Some(place);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Places};

    #[test]
    fn a_place_is_free_again_when_its_request_is_over() {
        let bound = Bounds::default().set("limits.in_flight", Some(1));
        let (mut one, mut two) = (Places::default(), Places::default());
        assert!(one.take(&bound).is_ok());
        let refused = two.take(&bound).expect_err("all places are taken");
        assert_eq!(refused.rule.as_deref(), Some("limits.in_flight"));
        drop(one);
        assert!(two.take(&bound).is_ok());
    }

    #[test]
    fn bounds_that_nobody_holds_are_thrown_away() {
        let bounds = Bounds::default();
        let held: Vec<_> = (0..3).map(|number| bounds.set(&format!("held {number}"), None)).collect();
        for number in 0..1000 {
            bounds.set(&number.to_string(), None);
        }
        assert!(bounds.0.lock().unwrap().bounds.len() <= 2 * held.len() + 1);
    }

    #[test]
    fn a_bound_that_is_set_anew_counts_for_those_who_hold_it() {
        let bounds = Bounds::default();
        let bound = bounds.set("a", None);
        let (mut one, mut two) = (Places::default(), Places::default());
        assert!(one.take(&bound).is_ok(), "no bound");
        bounds.set("a", Some(1));
        assert!(one.take(&bound).is_ok() && two.take(&bound).is_err());
        drop(bound);
        drop(one);
        assert!(two.take(&bounds.set("a", Some(1))).is_ok());
    }
}
