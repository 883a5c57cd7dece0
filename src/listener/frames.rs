//! A guard against floods of HTTP/2 frames: what a client may send that asks for nothing and carries nothing.
//!
//! Each such frame costs, and each answer earns. The library bounds what some of them do to memory (CONTINUATION, resets of
//! streams not yet accepted, small DATA), but answers SETTINGS and PING for as long as they come, and starts a
//! request however many were reset before it (CVE-2023-44487). Only the frames' headers are read.

use std::time::Instant;

/// What may be spent at once, and how fast it comes back.
const MOST: u64 = 1000;
const PER_SECOND: u64 = 100;

/// What each piece of an answer earns: a client may give back its window in small steps.
const PER_PROGRESS: u64 = 8;

/// A reset costs more than a ping: a request was begun for it.
const RESET: u64 = 4;

const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// The bytes of a frame's header (RFC 9113 section 4.1).
const HEADER: usize = 9;

/// Reads over the frames of one client.
#[derive(Debug)]
pub struct Guard {
    header: [u8; HEADER],
    read: usize,
    payload: usize,
    left: u64,
    progress: u64,
    filled: Instant,
}

impl Guard {
    /// Nothing has come.
    #[expect(clippy::new_without_default, reason = "it begins now")]
    pub fn new() -> Self {
        Self { header: [0; HEADER], read: 0, payload: 0, left: MOST, progress: 0, filled: Instant::now() }
    }

    /// What may still be spent at once.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// These bytes come next, while answers have made this progress. `false`: it is a flood.
    #[must_use]
    pub fn admits(&mut self, mut bytes: &[u8], progress: u64) -> bool {
        while !bytes.is_empty() {
            let skipped = self.payload.min(bytes.len());
            self.payload -= skipped;
            bytes = &bytes[skipped..];
            let length = (HEADER - self.read).min(bytes.len());
            self.header[self.read..self.read + length].copy_from_slice(&bytes[..length]);
            self.read += length;
            bytes = &bytes[length..];
            if self.read == HEADER {
                self.read = 0;
                let [high, middle, low, kind, flags, ..] = self.header;
                self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                if !self.spend(cost(kind, flags, self.payload), progress) {
                    return false;
                }
            }
        }
        true
    }

    fn spend(&mut self, cost: u64, progress: u64) -> bool {
        if self.left < cost {
            // the clock is read only when something has to come back
            let now = Instant::now();
            let since = now.duration_since(self.filled);
            let by_time =
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_mul(PER_SECOND) / 1000;
            let by_progress = progress.wrapping_sub(self.progress).saturating_mul(PER_PROGRESS);
            (self.filled, self.progress) = (now, progress);
            self.left = self.left.saturating_add(by_time).saturating_add(by_progress).min(MOST);
        }
        match self.left.checked_sub(cost) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }
}

/// What is not free: everything but DATA that carries something or ends its stream.
fn cost(kind: u8, flags: u8, length: usize) -> u64 {
    match kind {
        DATA if length > 0 || flags & END_STREAM != 0 => 0,
        RST_STREAM => RESET,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{Guard, HEADER, MOST};

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER + usize::from(length), 0xff);
        frame
    }

    fn admitted(frame: &[u8], progress: impl Fn(u64) -> u64) -> u64 {
        let mut guard = Guard::new();
        (0..100_000).take_while(|number| guard.admits(frame, progress(*number))).count() as u64
    }

    #[test]
    fn what_carries_nothing_is_a_flood_after_a_while() {
        for (what, kind, flags, length, cost) in [
            ("empty DATA", 0, 0, 0, 1),
            ("HEADERS", 1, 4, 20, 1),
            ("PRIORITY", 2, 0, 5, 1),
            ("RST_STREAM", 3, 0, 4, 4),
            ("SETTINGS", 4, 0, 6, 1),
            ("PING", 6, 0, 8, 1),
            ("WINDOW_UPDATE", 8, 0, 4, 1),
            ("CONTINUATION", 9, 0, 0, 1),
            ("an unknown frame", 77, 0, 200, 1),
        ] {
            let most = admitted(&frame(kind, flags, length), |_| 0);
            // time passes while the test runs
            assert!((MOST / cost..MOST / cost + 50).contains(&most), "{what}: {most}");
        }
    }

    #[test]
    fn what_carries_something_or_is_answered_is_none() {
        for (what, frame) in [("DATA", frame(0, 0, 1)), ("the end of a body", frame(0, 1, 0))] {
            assert_eq!(admitted(&frame, |_| 0), 100_000, "{what}");
        }
        let request = [frame(1, 5, 30), frame(8, 0, 4), frame(8, 0, 4)].concat();
        assert_eq!(admitted(&request, |answered| answered), 100_000, "answered requests");
    }

    #[test]
    fn frames_are_told_apart_however_the_bytes_are_cut() {
        let bytes: Vec<u8> = (0..200).flat_map(|_| [frame(0, 0, 200), frame(6, 0, 8)].concat()).collect();
        for cut in [1, 3, 8, 9, 10, 1000] {
            let mut guard = Guard::new();
            assert!(bytes.chunks(cut).all(|piece| guard.admits(piece, 0)), "in {cut}s");
            assert_eq!(guard.left, MOST - 200, "in {cut}s");
        }
    }
}
