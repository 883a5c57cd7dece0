//! Which endpoint gets the next attempt, out of those that are usable.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

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

/// The endpoints to pick from: made when one of them changes its state, read by every request.
#[derive(Debug, Default)]
pub(super) struct Choices {
    /// Those that are usable, by index, in order.
    usable: Box<[usize]>,
    /// Each as often as its weight says, spread evenly; no others than the usable ones.
    turns: Box<[usize]>,
    /// The weight of every endpoint, usable or not.
    weights: Box<[u32]>,
    /// Those that have just returned, and since when; nearly always none.
    returned: Box<[(usize, Instant)]>,
    slow_start: Duration,
}

impl Choices {
    /// These endpoints are usable. Those that have returned get their full share once `slow_start` is over.
    pub(super) fn new(
        usable: Vec<usize>,
        weights: &[u32],
        returned: Vec<(usize, Instant)>,
        slow_start: Duration,
    ) -> Self {
        Self {
            turns: turns(&usable, weights),
            usable: usable.into(),
            weights: weights.into(),
            returned: returned.into(),
            slow_start,
        }
    }

    /// Those that may be picked, by index, in order.
    pub(super) fn usable(&self) -> &[usize] {
        &self.usable
    }

    /// Whether every usable endpoint has the same weight.
    fn are_even(&self) -> bool {
        self.turns.len() == self.usable.len()
    }

    /// Whether an endpoint that has just returned is taken this time: ever more often until it has its share.
    fn admits(&self, index: usize, rng: &mut impl Rng) -> bool {
        let Some((_, since)) = self.returned.iter().find(|(returned, _)| *returned == index) else {
            return true;
        };
        let share = since.elapsed().as_secs_f64() / self.slow_start.as_secs_f64();
        rng.random::<f64>() < share.max(LEAST_SHARE)
    }

    /// One at random, as often as its weight says, that was not tried before.
    fn draw(&self, tried: &[usize], rng: &mut impl Rng) -> usize {
        for _ in 0..DRAWS {
            let index = self.turns[rng.random_range(0..self.turns.len())];
            if !tried.contains(&index) && self.admits(index, rng) {
                return index;
            }
        }
        let (before, from) = self.usable.split_at(rng.random_range(0..self.usable.len()));
        let untried = from.iter().chain(before).find(|index| !tried.contains(index));
        *untried.unwrap_or(&self.usable[0])
    }

    fn two(&self, tried: &[usize], rng: &mut impl Rng) -> (usize, usize) {
        let count = self.usable.len();
        if self.are_even() && tried.is_empty() && self.returned.is_empty() {
            let first = rng.random_range(0..count);
            let other = rng.random_range(0..count - 1);
            let other = if other < first { other } else { other + 1 };
            return (self.usable[first], self.usable[other]);
        }
        // With unequal weights the same one may come twice: else the lighter of two would always be in the draw.
        let (first, mut other) = (self.draw(tried, rng), self.draw(tried, rng));
        for _ in 0..DRAWS {
            if other != first || !self.are_even() || !self.returned.is_empty() {
                break;
            }
            other = self.draw(tried, rng);
        }
        (first, other)
    }
}

impl Balancer {
    pub(super) fn new(balance: Balance) -> Self {
        Self { balance, turn: AtomicUsize::new(0) }
    }

    /// One of the usable endpoints, or `None` if there are none. Those already tried are avoided as long as
    /// there are others. `load` tells how many requests an endpoint has in flight.
    pub(super) fn pick(
        &self,
        choices: &Choices,
        tried: &[usize],
        load: impl Fn(usize) -> usize,
        rng: &mut impl Rng,
    ) -> Option<usize> {
        let usable = &*choices.usable;
        let all_tried = !tried.is_empty() && usable.iter().all(|index| tried.contains(index));
        let tried = if all_tried { &[] } else { tried };
        match (self.balance, usable) {
            (_, []) => None,
            (_, [only]) => Some(*only),
            (Balance::PowerOfTwoChoices, _) => {
                let (first, other) = choices.two(tried, rng);
                let weighed = |index: usize, by: usize| load(index) as u64 * u64::from(choices.weights[by]);
                Some(if weighed(other, first) < weighed(first, other) { other } else { first })
            }
            (Balance::RoundRobin, _) => {
                let turns = &choices.turns;
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % turns.len();
                let in_turn = || turns[turn..].iter().chain(&turns[..turn]);
                let untried = || in_turn().filter(|index| !tried.contains(index)).copied();
                let admitted = untried().take(MOST_PASSED_OVER).find(|index| choices.admits(*index, rng));
                admitted.or_else(|| untried().next())
            }
        }
    }
}

/// Each usable endpoint as often as its weight says, in lowest terms, and spread evenly.
fn turns(usable: &[usize], weights: &[u32]) -> Box<[usize]> {
    let divisor = usable.iter().fold(0, |divisor, &index| common_divisor(divisor, weights[index])).max(1);
    let mut turns: Vec<(f64, usize)> = Vec::new();
    for &index in usable {
        let weight = weights[index] / divisor;
        turns.extend((0..weight).map(|nth| ((f64::from(nth) + 0.5) / f64::from(weight), index)));
    }
    turns.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    turns.into_iter().map(|(_, index)| index).collect()
}

fn common_divisor(one: u32, other: u32) -> u32 {
    if other == 0 { one } else { common_divisor(other, one % other) }
}

/// How often is drawn anew because an endpoint was tried before, has just returned, or was drawn already.
const DRAWS: usize = 8;

/// How many turns of endpoints that have just returned may be passed over by one request.
const MOST_PASSED_OVER: usize = 64;

/// The least share of its turns that an endpoint gets when it returns.
const LEAST_SHARE: f64 = 0.1;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const BOTH: [Balance; 2] = [Balance::PowerOfTwoChoices, Balance::RoundRobin];

    fn even(count: usize) -> Choices {
        Choices::new((0..count).collect(), &vec![1; count], Vec::new(), Duration::ZERO)
    }

    /// How often each endpoint is picked, with these loads and none of these tried.
    fn spread(balance: Balance, loads: &[usize], tried: &[usize], picks: usize) -> Vec<usize> {
        spread_over(&even(loads.len()), balance, loads, tried, picks)
    }

    fn spread_over(
        choices: &Choices,
        balance: Balance,
        loads: &[usize],
        tried: &[usize],
        picks: usize,
    ) -> Vec<usize> {
        let (balancer, mut rng) = (Balancer::new(balance), StdRng::seed_from_u64(7));
        let mut picked = vec![0; loads.len()];
        for _ in 0..picks {
            picked[balancer.pick(choices, tried, |index| loads[index], &mut rng).unwrap()] += 1;
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
        let (choices, mut loads) = (even(50), [0_usize; 50]);
        for _ in 0..50 * 200 {
            let index = balancer.pick(&choices, &[], |index| loads[index], &mut rng).unwrap();
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
            assert_eq!(Balancer::new(balance).pick(&even(0), &[], |_| 0, &mut rng), None);
        }
    }

    #[test]
    fn an_endpoint_that_is_not_usable_is_never_picked() {
        for balance in BOTH {
            let choices = Choices::new(vec![0, 2], &[1, 1, 1], Vec::new(), Duration::ZERO);
            let picked = spread_over(&choices, balance, &[0, 0, 0], &[], 1000);
            assert!(picked[0] > 400 && picked[1] == 0 && picked[2] > 400, "{picked:?}");
            let picked = spread_over(&choices, balance, &[0, 0, 0], &[0], 100);
            assert_eq!(picked, [0, 0, 100], "nor because the others were tried");
            assert_eq!(spread_over(&choices, balance, &[0, 0, 0], &[0, 2], 100)[1], 0);
        }
    }

    #[test]
    fn turns_by_weight_are_exact_and_spread_evenly() {
        let choices = Choices::new(vec![0, 1, 2], &[6, 2, 4], Vec::new(), Duration::ZERO);
        assert_eq!(&*choices.turns, [0, 2, 0, 1, 2, 0]);
        assert_eq!(spread_over(&choices, Balance::RoundRobin, &[0; 3], &[], 600), [300, 100, 200]);
        let equal = Choices::new(vec![0, 1, 2], &[7, 7, 7], Vec::new(), Duration::ZERO);
        assert_eq!(&*equal.turns, [0, 1, 2]);
    }

    #[test]
    fn two_random_choices_keep_to_weights_when_idle_and_under_load() {
        let choices = Choices::new(vec![0, 1], &[3, 1], Vec::new(), Duration::ZERO);
        let picked = spread_over(&choices, Balance::PowerOfTwoChoices, &[0, 0], &[], 40_000);
        assert!((29_500..30_500).contains(&picked[0]), "{picked:?}");
        let (balancer, mut rng) = (Balancer::new(Balance::PowerOfTwoChoices), StdRng::seed_from_u64(11));
        let mut loads = [0_usize; 2];
        for _ in 0..4000 {
            let index = balancer.pick(&choices, &[], |index| loads[index], &mut rng).unwrap();
            loads[index] += 1;
        }
        assert!((2950..3050).contains(&loads[0]), "{loads:?} in flight");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_has_returned_gets_its_share_little_by_little() {
        let slow_start = Duration::from_secs(10);
        for balance in BOTH {
            let choices = Choices::new(vec![0, 1], &[1, 1], vec![(1, Instant::now())], slow_start);
            let share = || spread_over(&choices, balance, &[0, 0], &[], 10_000)[1];
            let shares = [share(), {
                tokio::time::advance(slow_start / 2).await;
                share()
            }];
            assert!(shares[0] < 1200, "{balance:?} at first {shares:?}");
            assert!((2000..4200).contains(&shares[1]), "{balance:?} half way {shares:?}");
            tokio::time::advance(slow_start / 2).await;
            assert!((4700..5300).contains(&share()), "{balance:?} at last {}", share());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_that_have_all_returned_share_evenly() {
        let (now, slow_start) = (Instant::now(), Duration::from_secs(10));
        for balance in BOTH {
            let choices = Choices::new(vec![0, 1], &[1, 1], vec![(0, now), (1, now)], slow_start);
            let picked = spread_over(&choices, balance, &[0, 0], &[], 10_000);
            assert!((4500..5500).contains(&picked[0]), "{balance:?} {picked:?}");
        }
    }
}
