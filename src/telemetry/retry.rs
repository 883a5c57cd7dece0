//! Why a request was not sent again: closed words, for spans, metrics and logs.

/// Why a retry that the route's conditions asked for was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NotRetried {
    /// As many attempts were made as may be made.
    AttemptsUsed,
    /// It may have been processed, and to process it twice is not the same as once.
    NotIdempotent,
    /// Its body is longer than what is kept of it.
    BodyNotKept,
    /// The upstream asked for a longer wait than is waited.
    RetryAfter,
    /// The time for the request would be over.
    OutOfTime,
    /// The upstream's retry budget is used up.
    BudgetExhausted,
    /// When its turn came there was no endpoint for it, or no room: the breaker was open.
    NoPlace,
}

impl NotRetried {
    /// Every word, in the order of [`NotRetried::index`].
    pub const ALL: [Self; 7] = [
        Self::AttemptsUsed,
        Self::NotIdempotent,
        Self::BodyNotKept,
        Self::RetryAfter,
        Self::OutOfTime,
        Self::BudgetExhausted,
        Self::NoPlace,
    ];

    /// The word in attributes, labels and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::AttemptsUsed => "attempts_used",
            Self::NotIdempotent => "not_idempotent",
            Self::BodyNotKept => "body_not_kept",
            Self::RetryAfter => "retry_after",
            Self::OutOfTime => "out_of_time",
            Self::BudgetExhausted => "budget_exhausted",
            Self::NoPlace => "no_place",
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
    use super::NotRetried;

    #[test]
    fn every_word_is_found_by_its_index() {
        for word in NotRetried::ALL {
            assert_eq!(NotRetried::from_index(word.index()), Some(word));
        }
    }
}
