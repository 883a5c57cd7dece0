//! Who may do what at the admin address: one table, [`Right::roles`].

/// What a token stands for; each later one may do more than those before it that look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A scraper: metrics and nothing else.
    Metrics,
    /// A support person: finds what became of a trace or an order, sees what fails and how routes are; changes nothing.
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
    /// The page without anything on it, and the way in: it tells nothing, so anybody may ask.
    Shell,
    /// The metrics page.
    Scrape,
    /// What runs here and how it is: routes, their charts, endpoints.
    Look,
    /// What became of a trace or an order, and all that failed.
    Find,
    /// Every exchange that is kept, certificates, reloads, the balance of telemetry.
    Browse,
    /// Who has looked and who has changed what.
    Audit,
    /// A change of what runs: readers do not change production.
    Change,
}

impl Right {
    /// Every right with its word.
    pub const ALL: [(&'static str, Self); 8] = [
        ("probe", Self::Probe),
        ("shell", Self::Shell),
        ("scrape", Self::Scrape),
        ("look", Self::Look),
        ("find", Self::Find),
        ("browse", Self::Browse),
        ("audit", Self::Audit),
        ("change", Self::Change),
    ];

    /// Who has it. [`Right::Probe`] and [`Right::Shell`] are everybody's.
    pub fn roles(self) -> &'static [Role] {
        use Role::{Developer, Metrics, Operator, Support};
        match self {
            Self::Probe | Self::Shell => &[Metrics, Support, Developer, Operator],
            Self::Scrape => &[Metrics, Developer, Operator],
            Self::Look | Self::Find => &[Support, Developer, Operator],
            Self::Browse | Self::Audit => &[Developer, Operator],
            Self::Change => &[Operator],
        }
    }

    /// Whether nobody is asked who they are.
    pub fn is_everybodys(self) -> bool {
        matches!(self, Self::Probe | Self::Shell)
    }

    /// Whether a reader without a token may do it on a loopback address where no tokens are configured.
    pub fn is_reading(self) -> bool {
        self != Self::Change
    }
}
