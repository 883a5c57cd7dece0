//! A duration as written: `"250ms"`, `"10s"`, `"5m"`, `"1h"`, `"14d"`.

use std::time;

use serde::{Deserialize, Deserializer};

use super::leaf::{quantity, schema};
use super::or_off::OrOff;

/// A duration from one millisecond to one year, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duration(time::Duration);

impl Duration {
    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 24 * 3_600_000,
            "" => return Err(format!("\"{text}\" has no unit\n{HELP}")),
            _ => return Err(format!("\"{text}\" is not a duration\n{HELP}")),
        };
        let number: u64 = number.parse().map_err(|_| format!("\"{text}\" is not a duration\n{HELP}"))?;
        match number.saturating_mul(unit) {
            0 => Err(format!(
                "\"{text}\" is no time at all\n{HELP}; only where \"off\" is allowed, it disables"
            )),
            LONGEST.. => Err(format!("\"{text}\" is more than a year\n{HELP}")),
            milliseconds => Ok(Self(time::Duration::from_millis(milliseconds))),
        }
    }
}

const HELP: &str = r#"write a whole number and a unit: "250ms", "10s", "5m", "1h" or "14d""#;

/// In milliseconds. Within it, adding to an instant never overflows.
const LONGEST: u64 = 366 * 24 * 3_600_000;

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        quantity(deserializer, "a duration", HELP, Self::parse)
    }
}

schema!(Duration, { "type": "string", "examples": ["250ms", "10s", "5m", "1h", "14d"], "pattern": "^0*[1-9][0-9]*(ms|s|m|h|d)$" });

impl From<Duration> for time::Duration {
    fn from(written: Duration) -> Self {
        written.0
    }
}

impl From<OrOff<Duration>> for Option<time::Duration> {
    fn from(written: OrOff<Duration>) -> Self {
        written.into_option().map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        for (text, milliseconds) in [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(
                Duration::parse(text),
                Ok(Duration(time::Duration::from_millis(milliseconds))),
                "{text}"
            );
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        for (text, what) in [
            ("10", "has no unit"),
            ("", "has no unit"),
            ("0s", "is no time at all"),
            ("-1s", "is not a duration"),
            ("1.5s", "is not a duration"),
            ("10 s", "is not a duration"),
            ("10S", "is not a duration"),
            ("s", "is not a duration"),
            ("99999999999999999999s", "is not a duration"),
            ("9000h", "is more than a year"),
        ] {
            let error = Duration::parse(text).expect_err(text);
            assert!(error.contains(what) && error.contains("\nwrite a whole number"), "{text}: {error}");
        }
    }
}
