//! The formats in which trace context travels, and which of them are read from whom.

/// A format that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `traceparent` and `tracestate`.
    W3c,
    /// `b3`, else `X-B3-…`.
    B3,
    /// `uber-trace-id`.
    Jaeger,
}

impl Format {
    /// The fields of this format.
    pub fn fields(self) -> Formats {
        match self {
            Self::W3c => Formats::W3C,
            Self::B3 => Formats::B3.and(Formats::B3_MULTI),
            Self::Jaeger => Formats::JAEGER,
        }
    }
}

/// A set of formats, told apart by their fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Formats(u8);

impl Formats {
    /// No format: nothing is told.
    pub const NONE: Self = Self(0);
    /// `traceparent` and `tracestate`.
    pub const W3C: Self = Self(1);
    /// `b3`.
    pub const B3: Self = Self(2);
    /// `X-B3-…`.
    pub const B3_MULTI: Self = Self(4);
    /// `uber-trace-id`.
    pub const JAEGER: Self = Self(8);
    /// Every format.
    pub const ALL: Self = Self(15);

    /// These and those.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These but not those.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether all of those are among these.
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What a listener makes of the context that its clients send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// Whose context is believed.
    pub trust: Trust,
    /// The formats that are read, the one that goes first first; at least one.
    pub formats: Box<[Format]>,
}

/// Whose context is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Everybody's trace goes on.
    Continue,
    /// Nobody's: a new trace, linked to the caller's.
    Restart,
    /// That of trusted proxies goes on.
    TrustedOnly,
}

impl Inbound {
    /// Whether the context of such a peer is believed.
    pub fn believes(&self, trusted: bool) -> bool {
        match self.trust {
            Trust::Continue => true,
            Trust::Restart => false,
            Trust::TrustedOnly => trusted,
        }
    }

    /// Every field that is read.
    pub fn fields(&self) -> Formats {
        self.formats.iter().fold(Formats::NONE, |all, format| all.and(format.fields()))
    }
}

impl Default for Inbound {
    fn default() -> Self {
        Self { trust: Trust::Continue, formats: [Format::W3c].into() }
    }
}
