//! What became of a client that a cookie may bring back to its endpoint: closed words, for spans and logs.

/// Where a client of a route with stickiness went, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Sticky {
    /// It had no cookie, and was given one.
    New,
    /// To the endpoint that its cookie names.
    Kept,
    /// Elsewhere: its cookie names nothing that the route has, or has any more.
    MovedUnknown,
    /// Elsewhere: its endpoint was not usable.
    MovedUnusable,
    /// Elsewhere: its endpoint was tried, and another one after it.
    MovedRetried,
}

impl Sticky {
    /// Every word, in the order of [`Sticky::index`].
    pub const ALL: [Self; 5] =
        [Self::New, Self::Kept, Self::MovedUnknown, Self::MovedUnusable, Self::MovedRetried];

    /// The word in attributes and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Kept => "kept",
            Self::MovedUnknown => "moved_unknown",
            Self::MovedUnusable => "moved_unusable",
            Self::MovedRetried => "moved_retried",
        }
    }

    pub(super) fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }

    pub(super) fn index(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::Sticky;

    #[test]
    fn every_word_is_found_by_its_index() {
        for word in Sticky::ALL {
            assert_eq!(Sticky::from_index(word.index()), Some(word));
        }
    }
}
