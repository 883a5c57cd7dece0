//! Who may do what at the admin address: one table, [`Right::roles`].

/// What a token stands for; each later one may do more than those before it that look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A scraper: metrics and nothing else.
    Metrics,
    /// A support person: what runs here and how it is, nothing that changes it.
    Support,
    /// A developer: everything that can be read.
    Developer,
    /// An operator: everything that can be read, and changes.
    Operator,
}

impl Role {
    /// Every role with its word in the file.
    pub const ALL: [(&'static str, Self); 4] = [
        ("metrics", Self::Metrics),
        ("support", Self::Support),
        ("developer", Self::Developer),
        ("operator", Self::Operator),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Support => "support",
            Self::Developer => "developer",
            Self::Operator => "operator",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Whether the process is alive and ready: nothing else is told, so anybody may ask.
    Probe,
    /// The metrics page.
    Scrape,
    /// What runs here and how it is.
    Look,
    /// Who has looked and who has changed what.
    Audit,
    /// A change of what runs: readers do not change production.
    Change,
}

impl Right {
    /// Who has it. [`Right::Probe`] is everybody's.
    pub fn roles(self) -> &'static [Role] {
        use Role::{Developer, Metrics, Operator, Support};
        match self {
            Self::Probe => &[Metrics, Support, Developer, Operator],
            Self::Scrape => &[Metrics, Developer, Operator],
            Self::Look => &[Support, Developer, Operator],
            Self::Audit => &[Developer, Operator],
            Self::Change => &[Operator],
        }
    }

    /// Whether a reader without a token may do it on a loopback address where no tokens are configured.
    pub fn is_reading(self) -> bool {
        self != Self::Change
    }
}
