//! What is kept: a ring for each reason to keep something, bounded by count, and all together by bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::{Entry, Kept};
use crate::telemetry::settings::Recent as Settings;

/// Why something that was to be kept is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Displaced {
    /// There were as many of its kind as may be.
    Count,
    /// All together took as much memory as they may.
    Bytes,
    /// They came faster than they were taken in.
    QueueFull,
}

impl Displaced {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Count, Self::Bytes, Self::QueueFull];

    /// The label's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::QueueFull => "queue_full",
        }
    }
}

/// The rings, oldest entries first.
#[derive(Debug)]
pub(super) struct Rings {
    kinds: [VecDeque<Arc<Entry>>; Kept::ALL.len()],
    most: [usize; Kept::ALL.len()],
    bytes: usize,
    most_bytes: usize,
    taken: u64,
}

impl Rings {
    pub(super) fn new(settings: &Settings) -> Self {
        let Settings { errors, refused, slow, samples, bytes, .. } = *settings;
        Self {
            kinds: Default::default(),
            most: [errors, refused, slow, samples],
            bytes: 0,
            most_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            taken: 0,
        }
    }

    /// The number of the next one.
    pub(super) fn next_number(&mut self) -> u64 {
        self.taken += 1;
        self.taken
    }

    /// Takes one in, and tells what had to go for it. What is displaced first, for want of memory, is what there is
    /// most likely more of: examples, then slow ones, then what clients did wrong, then errors.
    pub(super) fn keep(&mut self, entry: Arc<Entry>, mut gone: impl FnMut(Kept, Displaced)) {
        let kind = entry.summary.kept;
        self.bytes += entry.bytes();
        self.kinds[kind as usize].push_back(entry);
        if self.kinds[kind as usize].len() > self.most[kind as usize] {
            self.displace(kind);
            gone(kind, Displaced::Count);
        }
        while self.bytes > self.most_bytes {
            let fullest = Kept::ALL.into_iter().rev().find(|kind| !self.kinds[*kind as usize].is_empty());
            let Some(kind) = fullest else { break };
            self.displace(kind);
            gone(kind, Displaced::Bytes);
        }
    }

    fn displace(&mut self, kind: Kept) {
        if let Some(oldest) = self.kinds[kind as usize].pop_front() {
            self.bytes -= oldest.bytes();
        }
    }

    /// All that is kept, the newest first within each ring.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.kinds.iter().flat_map(|ring| ring.iter().rev())
    }

    /// How many are kept, by why.
    pub(super) fn counts(&self) -> [(Kept, usize); Kept::ALL.len()] {
        Kept::ALL.map(|kind| (kind, self.kinds[kind as usize].len()))
    }

    /// The memory that they take, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
