//! How long a client may take, and how fast bodies have to come.

use std::time::Duration;

use tokio::time::Instant;

/// Waits of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From a head's first byte to its last.
    pub head: Duration,
    /// A connection with no request on it.
    pub idle: Duration,
    /// How fast a client has to send a request's body, and to take an answer.
    pub body: Pace,
    /// How old a connection may become before its client is asked to make a new one; `None` is any age.
    pub connection_age: Option<Duration>,
}

/// How fast a body has to come: whoever sends it may be waited for this long for each so many bytes of it.
///
/// Only time in which nothing comes although it is wanted counts: a body that is slow because nobody takes it is
/// not. With one byte as the least, it is standing still alone that is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How long it may be waited for.
    pub within: Duration,
    /// How many bytes must have come by then.
    pub least: u64,
}

impl Pace {
    /// Any progress will do, as long as it does not stand still for longer than this.
    pub fn standing_still(within: Duration) -> Self {
        Self { within, least: 1 }
    }
}

/// How long something has been waited for, since enough of it came the last time.
#[derive(Debug, Default)]
pub struct Waiting {
    since: Option<Instant>,
    before: Duration,
    bytes: u64,
}

impl Waiting {
    /// So many bytes came: the next wait is a new one, with its full time again if they were enough.
    pub fn came(&mut self, bytes: u64, pace: Pace) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= pace.least {
            *self = Self::default();
        } else if let Some(since) = self.since.take() {
            self.before += since.elapsed();
        }
    }

    /// Nothing has come yet: when it will have been waited for too long.
    pub fn deadline(&mut self, pace: Pace) -> Instant {
        let since = *self.since.get_or_insert_with(Instant::now);
        since + pace.within.saturating_sub(self.before)
    }

    /// Whether what has taken too long came in drops: it has not stood still for most of that time.
    pub fn is_in_drops(&self, pace: Pace) -> bool {
        self.bytes > 0 && self.since.is_some_and(|since| since.elapsed() < pace.within / 2)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::{Pace, Waiting};

    #[tokio::test(start_paused = true)]
    async fn waits_add_up_until_enough_has_come() {
        let second = Duration::from_secs(1);
        let pace = Pace { within: 30 * second, least: 10 };
        let mut waiting = Waiting::default();
        for waited in 0..3 {
            assert_eq!(waiting.deadline(pace), Instant::now() + (30 - waited * 9) * second);
            advance(9 * second).await;
            waiting.came(1, pace);
            // it is somebody else's turn
            advance(100 * second).await;
        }
        waiting.deadline(pace);
        advance(3 * second).await;
        assert!(waiting.is_in_drops(pace));
        advance(20 * second).await;
        assert!(!waiting.is_in_drops(pace), "it stands still");
        waiting.came(7, pace);
        assert_eq!(waiting.deadline(pace), Instant::now() + 30 * second);
    }
}
