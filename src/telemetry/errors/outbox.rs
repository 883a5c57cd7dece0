//! Lines on their way: what has not been written, and before it what was, as far as it may have been lost.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Lines in the order in which they are sent. What has been written stays for a while: a connection that
/// breaks may take it along.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Written, the oldest first, and when: at most [`WINDOW`] bytes.
    window: VecDeque<(Instant, Bytes)>,
    window_bytes: usize,
    /// Written once, to be written again.
    again: VecDeque<Bytes>,
    /// Never written as a whole.
    fresh: VecDeque<Bytes>,
}

/// How many lines a write was of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// For the first time.
    pub(super) fresh: usize,
    /// Once more.
    pub(super) again: usize,
}

impl Outbox {
    /// Adds a line, which ends with a line break.
    pub(super) fn push(&mut self, line: impl Into<Bytes>) {
        self.fresh.push_back(line.into());
    }

    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.again.is_empty() && self.fresh.is_empty()
    }

    /// How many lines have never been written as a whole.
    pub(super) fn fresh(&self) -> usize {
        self.fresh.len()
    }

    /// Everything there is to send, as one text. It stays here until [`Outbox::written`].
    pub(super) fn text(&self) -> Vec<u8> {
        self.again.iter().chain(&self.fresh).fold(Vec::new(), |mut text, line| {
            text.extend_from_slice(line);
            text
        })
    }

    /// The whole text has been written now.
    pub(super) fn written(&mut self, now: Instant) -> Written {
        let written = Written { fresh: self.fresh.len(), again: self.again.len() };
        for line in self.again.drain(..).chain(self.fresh.drain(..)) {
            self.window_bytes += line.len();
            self.window.push_back((now, line));
        }
        while self.window_bytes > WINDOW {
            self.forget_oldest();
        }
        written
    }

    /// The connection broke, perhaps with what it was given last: that is to be sent again, before the rest.
    pub(super) fn lost(&mut self) {
        let window = std::mem::take(&mut self.window).into_iter().map(|(_, line)| line);
        self.again = window.chain(self.again.drain(..)).collect();
        self.window_bytes = 0;
    }

    /// The receiver closed the connection in order: it has read what was not on its way just then.
    pub(super) fn closed(&mut self, now: Instant) {
        while self.window.front().is_some_and(|(written, _)| now.duration_since(*written) > UNDER_WAY) {
            self.forget_oldest();
        }
        self.lost();
    }

    fn forget_oldest(&mut self) {
        let bytes = self.window.pop_front().map_or(self.window_bytes, |(_, line)| line.len());
        self.window_bytes -= bytes;
    }
}

/// What is sent again after a connection broke, in bytes: at least what our own system had not yet got rid of
/// (twice [`SEND_BUFFER`] on Linux).
const WINDOW: usize = 64 * 1024;

/// How long a line may be under way to a receiver that closes in order. (A system that closes a connection
/// with something unread in it resets it.)
const UNDER_WAY: Duration = Duration::from_secs(30);

/// What the system is asked to keep for a connection that does not move, in bytes.
pub(super) const SEND_BUFFER: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Outbox, UNDER_WAY, WINDOW, Written};

    fn text(outbox: &Outbox) -> String {
        String::from_utf8(outbox.text()).unwrap()
    }

    #[test]
    fn what_a_broken_connection_was_given_is_sent_again_before_the_rest() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        outbox.push("a\n");
        outbox.push("b\n");
        assert_eq!((text(&outbox).as_str(), outbox.fresh()), ("a\nb\n", 2));
        assert_eq!(outbox.written(now), Written { fresh: 2, again: 0 });
        assert!(outbox.is_empty() && outbox.text().is_empty());
        outbox.push("c\n");
        outbox.lost();
        assert_eq!((text(&outbox).as_str(), outbox.fresh()), ("a\nb\nc\n", 1));
        // and again, before it was written
        outbox.lost();
        assert_eq!(text(&outbox), "a\nb\nc\n");
        assert_eq!(outbox.written(now), Written { fresh: 1, again: 2 });
        outbox.lost();
        assert_eq!(text(&outbox), "a\nb\nc\n");
    }

    #[test]
    fn what_was_read_before_an_orderly_close_is_not_sent_again() {
        let (mut outbox, start) = (Outbox::default(), Instant::now());
        let later = start + UNDER_WAY + Duration::from_secs(1);
        outbox.push("a\n");
        outbox.written(start);
        outbox.push("b\n");
        outbox.written(later);
        outbox.push("c\n");
        outbox.closed(later);
        assert_eq!(text(&outbox), "b\nc\n");
    }

    #[test]
    fn only_a_bounded_window_is_kept() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        let line = "x".repeat(999) + "\n";
        for _ in 0..10 {
            (0..32).for_each(|_| outbox.push(line.clone()));
            outbox.written(now);
        }
        outbox.lost();
        assert_eq!(outbox.text().len(), WINDOW / 1000 * 1000);
        outbox.written(now);
        outbox.push("x".repeat(2 * WINDOW));
        outbox.written(now);
        outbox.lost();
        assert!(outbox.is_empty(), "one that is longer than the window is not kept");
    }
}
