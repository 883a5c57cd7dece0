//! A moment as written: a date, or a date and a time.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer};

use super::leaf::{schema, text};

/// A moment: a date alone is its first one, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub SystemTime);

impl Moment {
    /// Reads one. The error is what is wrong and, on a second line, what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
        humantime::parse_rfc3339(&whole).map(Self).map_err(|_| {
            format!("\"{text}\" is not a date\nwrite \"2030-01-31\" or \"2030-01-31T12:00:00Z\"")
        })
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a date in quotes", Self::parse)
    }
}

schema!(Moment, { "type": "string", "examples": ["2030-01-31", "2030-01-31T12:00:00Z"], "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T.+)?$" });

#[cfg(test)]
mod tests {
    use super::Moment;

    #[test]
    fn a_date_is_its_first_moment() {
        let (Ok(Moment(day)), Ok(Moment(noon))) =
            (Moment::parse("2030-01-31"), Moment::parse("2030-01-31T12:00:00Z"))
        else {
            panic!("dates")
        };
        assert_eq!(noon.duration_since(day).unwrap().as_secs(), 12 * 3600);
        for wrong in ["", "soon", "31.01.2030", "2030-13-01", "2030-01-31 12:00"] {
            assert!(Moment::parse(wrong).is_err(), "{wrong}");
        }
    }
}
