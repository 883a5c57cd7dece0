//! A size as written: `"64KiB"`, `"1GiB"`, `"10MB"`.

use serde::{Deserialize, Deserializer};

use super::leaf::{quantity, schema};
use super::or_off::OrOff;

/// A size of at least one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(u64);

impl Size {
    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = match unit {
            "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "" => return Err(format!("\"{text}\" has no unit\n{HELP}")),
            _ => return Err(format!("\"{text}\" is not a size\n{HELP}")),
        };
        let number: u64 = number.parse().map_err(|_| format!("\"{text}\" is not a size\n{HELP}"))?;
        match number.checked_mul(unit) {
            Some(0) => Err(format!(
                "\"{text}\" is no room at all\n{HELP}; only where \"off\" is allowed, it disables"
            )),
            Some(bytes) => Ok(Self(bytes)),
            None => Err(format!("\"{text}\" is more than can be counted\n{HELP}")),
        }
    }
}

const HELP: &str = r#"write a whole number and a unit: "512B", "64KiB", "10MB" or "1GiB""#;

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        quantity(deserializer, "a size", HELP, Self::parse)
    }
}

schema!(Size, { "type": "string", "examples": ["512B", "64KiB", "10MB", "1GiB"], "pattern": "^0*[1-9][0-9]*(B|kB|KB|MB|GB|KiB|MiB|GiB)$" });

impl From<Size> for u64 {
    fn from(written: Size) -> Self {
        written.0
    }
}

impl From<Size> for usize {
    fn from(written: Size) -> Self {
        Self::try_from(written.0).unwrap_or(Self::MAX)
    }
}

impl From<OrOff<Size>> for Option<u64> {
    fn from(written: OrOff<Size>) -> Self {
        written.into_option().map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_number_and_a_unit() {
        for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("10MB", 10_000_000), ("1GiB", 1 << 30)] {
            assert_eq!(Size::parse(text), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        for (text, what) in [
            ("64", "has no unit"),
            ("0B", "is no room at all"),
            ("64K", "is not a size"),
            ("KiB", "is not a size"),
            ("64 KiB", "is not a size"),
            ("1.5GiB", "is not a size"),
            ("99999999999999GiB", "is more than can be counted"),
        ] {
            let error = Size::parse(text).expect_err(text);
            assert!(error.contains(what) && error.contains("\nwrite a whole number"), "{text}: {error}");
        }
    }
}
