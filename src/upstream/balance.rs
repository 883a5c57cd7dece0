//! Which endpoint gets the next attempt.

use std::sync::atomic::{AtomicUsize, Ordering};

use rand::{Rng, RngExt};

/// How an endpoint is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Of two taken at random the one with fewer requests in flight.
    PowerOfTwoChoices,
    /// One after the other.
    RoundRobin,
}

/// Picks endpoints by their index.
#[derive(Debug)]
pub(super) struct Balancer {
    balance: Balance,
    turn: AtomicUsize,
}

impl Balancer {
    pub(super) fn new(balance: Balance) -> Self {
        Self { balance, turn: AtomicUsize::new(0) }
    }

    /// One of `count` endpoints, or `None` if there are none. Those already tried are avoided as long as
    /// there are others. `load` tells how many requests an endpoint has in flight.
    pub(super) fn pick(
        &self,
        count: usize,
        tried: &[usize],
        load: impl Fn(usize) -> usize,
        rng: &mut impl Rng,
    ) -> Option<usize> {
        let untried = (0..count).filter(|index| !tried.contains(index)).count();
        let (tried, choices) = if untried > 0 { (tried, untried) } else { (&[][..], count) };
        let choice = |nth| (0..count).filter(|index| !tried.contains(index)).nth(nth);
        match (self.balance, choices) {
            (_, 0) => None,
            (_, 1) => choice(0),
            (Balance::PowerOfTwoChoices, _) => {
                let first = rng.random_range(0..choices);
                let other = rng.random_range(0..choices - 1);
                let other = if other < first { other } else { other + 1 };
                let (first, other) = (choice(first)?, choice(other)?);
                Some(if load(other) < load(first) { other } else { first })
            }
            (Balance::RoundRobin, _) => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % count;
                (turn..count).chain(0..turn).find(|index| !tried.contains(index))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const BOTH: [Balance; 2] = [Balance::PowerOfTwoChoices, Balance::RoundRobin];

    /// How often each endpoint is picked, with these loads and none of these tried.
    fn spread(balance: Balance, loads: &[usize], tried: &[usize], picks: usize) -> Vec<usize> {
        let (balancer, mut rng) = (Balancer::new(balance), StdRng::seed_from_u64(7));
        let mut picked = vec![0; loads.len()];
        for _ in 0..picks {
            picked[balancer.pick(loads.len(), tried, |index| loads[index], &mut rng).unwrap()] += 1;
        }
        picked
    }

    #[test]
    fn round_robin_is_exactly_fair() {
        for count in 1..=7 {
            assert_eq!(spread(Balance::RoundRobin, &vec![9; count], &[], 60 * count), vec![60; count]);
        }
    }

    #[test]
    fn equal_endpoints_get_equal_shares_of_two_random_choices() {
        for count in 2..=7 {
            for picked in spread(Balance::PowerOfTwoChoices, &vec![3; count], &[], 10_000 * count) {
                assert!((9_500..10_500).contains(&picked), "{picked} of {count}");
            }
        }
    }

    #[test]
    fn of_two_random_choices_the_one_with_fewer_requests_in_flight_is_picked() {
        // Each of the three pairs comes up in a third of the picks: the idlest wins two, the busiest none.
        let picked = spread(Balance::PowerOfTwoChoices, &[0, 5, 10], &[], 30_000);
        assert!((19_500..20_500).contains(&picked[0]), "{picked:?}");
        assert!((9_500..10_500).contains(&picked[1]), "{picked:?}");
        assert_eq!(picked[2], 0);
    }

    #[test]
    fn two_random_choices_keep_requests_in_flight_even() {
        // Every pick stays in flight: with one random choice the fullest of 50 would be about 40 above the
        // mean of 200; with two it stays within a few (Mitzenmacher 2001).
        let (balancer, mut rng) = (Balancer::new(Balance::PowerOfTwoChoices), StdRng::seed_from_u64(11));
        let mut loads = [0_usize; 50];
        for _ in 0..50 * 200 {
            let index = balancer.pick(50, &[], |index| loads[index], &mut rng).unwrap();
            loads[index] += 1;
        }
        let fullest = loads.into_iter().max().unwrap();
        assert!(fullest <= 205, "{fullest} in flight where 200 would be even");
    }

    #[test]
    fn endpoints_already_tried_are_avoided_while_there_are_others() {
        // every subset of up to six endpoints, for both ways of picking
        for balance in BOTH {
            for count in 1..=6_usize {
                for subset in 0..1_u32 << count {
                    let tried: Vec<usize> = (0..count).filter(|index| subset & (1 << index) != 0).collect();
                    let picked = spread(balance, &vec![1; count], &tried, 60 * count);
                    for (index, &picked) in picked.iter().enumerate() {
                        let avoided = tried.contains(&index) && tried.len() < count;
                        assert_eq!(picked == 0, avoided, "{balance:?}: {index} of {count}, tried {tried:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn indexes_that_are_no_longer_there_do_not_matter() {
        for balance in BOTH {
            assert!(spread(balance, &[0, 0], &[5, 9], 100).iter().all(|&picked| picked > 0));
        }
    }

    #[test]
    fn of_no_endpoints_none_is_picked() {
        for balance in BOTH {
            let mut rng = StdRng::seed_from_u64(0);
            assert_eq!(Balancer::new(balance).pick(0, &[], |_| 0, &mut rng), None);
        }
    }
}
