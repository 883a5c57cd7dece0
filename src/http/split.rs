//! Where a request goes, where a route leaves that open: to one of several upstreams by weight, or where its cookie
//! says.

use http::HeaderMap;
use rand::RngExt;

use super::headers::Peer;
use super::sticky::{Place, Sticky};
use crate::telemetry::sticky::Sticky as Went;

/// What chooses for a route of several upstreams, or of one with a cookie.
#[derive(Debug)]
pub struct Choice {
    /// The sums of the weights up to each upstream.
    ends: Box<[u64]>,
    sticky: Option<Sticky>,
}

/// Where one request goes: where nothing chooses, to the first.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Chosen {
    /// Which of the route's upstreams, by index.
    pub(super) upstream: usize,
    /// What its cookie says, and what the next one is like; only where the route asks for it.
    pub(super) returning: Option<Returning>,
}

/// A client that a cookie brings back.
#[derive(Debug, Clone, Copy)]
pub struct Returning {
    /// The endpoint that its cookie names, by index, if it names one that is usable.
    pub(super) endpoint: Option<usize>,
    /// Where it goes, and why, if that is where it is answered.
    pub(super) went: Went,
    /// Whether it came over TLS.
    pub(super) secure: bool,
}

impl Choice {
    /// By these weights, at least one, all positive, and by the cookie.
    pub fn new(weights: impl IntoIterator<Item = u32>, sticky: Option<Sticky>) -> Self {
        let ends = weights.into_iter().scan(0, |sum, weight| {
            *sum += u64::from(weight);
            Some(*sum)
        });
        Self { ends: ends.collect(), sticky }
    }

    /// Chooses for one request. The cookie is taken out of its header.
    pub(super) fn choose(&self, headers: &mut HeaderMap, peer: &Peer) -> Chosen {
        let Some(sticky) = &self.sticky else { return Chosen { upstream: self.draw(), returning: None } };
        let (upstream, endpoint, went) = match sticky.take(headers) {
            Place::New => (None, None, Went::New),
            Place::Unknown => (None, None, Went::MovedUnknown),
            Place::Endpoint(upstream, endpoint) => (Some(upstream), Some(endpoint), Went::Kept),
            Place::Unusable(upstream) => (upstream, None, Went::MovedUnusable),
        };
        let upstream = upstream.unwrap_or_else(|| self.draw());
        let secure = peer.is_https(headers);
        Chosen { upstream, returning: Some(Returning { endpoint, went, secure }) }
    }

    fn draw(&self) -> usize {
        match &self.ends[..] {
            [.., all] if self.ends.len() > 1 => self.at(rand::rng().random_range(0..*all)),
            _ => 0,
        }
    }

    fn at(&self, drawn: u64) -> usize {
        self.ends.partition_point(|end| *end <= drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::Choice;

    #[test]
    fn each_upstream_has_as_many_of_all_draws_as_its_weight() {
        for weights in [&[1][..], &[90, 10], &[1, 2, 3], &[u32::MAX, u32::MAX, 1]] {
            let choice = Choice::new(weights.iter().copied(), None);
            let mut start = 0;
            for (index, weight) in weights.iter().enumerate() {
                let end = start + u64::from(*weight);
                assert_eq!((choice.at(start), choice.at(end - 1)), (index, index), "{weights:?}");
                start = end;
            }
            assert!((0..100).all(|_| choice.draw() < weights.len()));
        }
    }
}
