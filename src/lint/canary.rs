//! Canaries: texts that stand nowhere else, each sent in one place, to be looked for wherever telemetry goes.

use std::fmt;

use rand::RngExt;

/// Where a canary was sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The part of the exchange: `query value`, `cookie`, `upstream body` ….
    pub part: &'static str,
    /// The request it was part of: a route and what it was meant to provoke.
    pub request: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.part, self.request)
    }
}

/// Every canary that has been sent.
#[derive(Debug, Default)]
pub struct Canaries(Vec<(String, Place)>);

impl Canaries {
    /// A new one for this place.
    pub fn send(&mut self, part: &'static str, request: &str) -> String {
        let mut rng = rand::rng();
        let text: String =
            (0..LENGTH).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect();
        self.0.push((text.clone(), Place { part, request: request.to_owned() }));
        text
    }

    /// The texts and their places.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.0.iter().map(|(text, place)| (text.as_str(), place))
    }
}

/// Long enough that a part of it stands nowhere by chance.
const LENGTH: usize = 24;

/// No hexadecimal digits, so that no id looks like one; both cases, as telemetry may fold them.
const LETTERS: &[u8] = b"ghjkmnpqrstvwxyzGHJKMNPQRSTVWXYZ";
