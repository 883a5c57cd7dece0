//! The threshold of probability sampling: which randomness is rejected (OpenTelemetry's `ot=th:…`).

use std::fmt;

use super::id::digit;

/// Randomness below it is rejected; whoever knows it knows how many traces one that was kept stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold(u64);

impl Threshold {
    /// Nothing is rejected.
    pub const ALWAYS: Self = Self(0);
    /// Everything is rejected. It is never written.
    pub const NEVER: Self = Self(RANGE);

    /// The threshold that keeps this share, 0.0 to 1.0, to four digits beside leading `f`s, as OpenTelemetry's
    /// SDKs have it: all of them keep the same traces.
    pub fn of_ratio(ratio: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "the ratio is between 0 and 1, so the product lies within the range"
        )]
        let kept = (ratio.clamp(0.0, 1.0) * RANGE as f64).round() as u64;
        if kept == 0 {
            return Self::NEVER;
        }
        let exact = RANGE - kept;
        let leading = (exact << 8).leading_ones() / 4;
        let Some(cut) = DIGITS.checked_sub(PRECISION + leading).filter(|cut| *cut > 0) else {
            return Self(exact);
        };
        let rounded = (exact + (1 << (4 * cut - 1))) >> (4 * cut) << (4 * cut);
        Self(rounded.min(RANGE - 1))
    }

    /// Reads what stands after `th:`: one to fourteen digits, with zeros missing on the right.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits = u32::try_from(text.len()).ok().filter(|digits| (1..=DIGITS).contains(digits))?;
        hex(text).map(|number| Self(number << (4 * (DIGITS - digits))))
    }

    /// As a number, from which [`Threshold::of_number`] makes it again.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The threshold of this number.
    pub fn of_number(number: u64) -> Self {
        Self(number.min(RANGE))
    }

    /// Whether this randomness is kept.
    pub fn keeps(self, randomness: u64) -> bool {
        randomness >= self.0
    }
}

/// As it stands after `th:`.
impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zeros = (self.0 | RANGE).trailing_zeros() / 4;
        let digits = (DIGITS - zeros.min(DIGITS)).max(1);
        let shift = 4 * (DIGITS - digits);
        write!(f, "{:0width$x}", self.0 >> shift, width = digits as usize)
    }
}

/// Reads what stands after `rv:`: the trace's randomness, exactly fourteen digits.
pub fn parse_randomness(text: &[u8]) -> Option<u64> {
    if text.len() == DIGITS as usize { hex(text) } else { None }
}

fn hex(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |number, &byte| Some(number << 4 | u64::from(digit(byte)?)))
}

/// How many values the randomness has.
const RANGE: u64 = 1 << 56;

/// In hexadecimal digits.
const DIGITS: u32 = 14;

/// The digits of a threshold that count, beside leading `f`s.
const PRECISION: u32 = 4;

#[cfg(test)]
mod tests {
    use super::{RANGE, Threshold, parse_randomness};

    /// The table under "Converting floating-point probability to threshold value", and its edges.
    #[test]
    fn a_ratio_has_the_threshold_of_the_specification() {
        for (ratio, expected) in [
            (1.0, "0"),
            (1.0 / 2.0, "8"),
            (1.0 / 3.0, "aaab"),
            (1.0 / 4.0, "c"),
            (1.0 / 5.0, "cccd"),
            (1.0 / 8.0, "e"),
            (1.0 / 10.0, "e666"),
            (1.0 / 16.0, "f"),
            (1.0 / 100.0, "fd70a"),
            (1.0 / 1_000.0, "ffbe77"),
            (1.0 / 10_000.0, "fff9724"),
            (1.0 / 100_000.0, "ffff583a"),
            (1.0 / 1_000_000.0, "ffffef39"),
            (1e-16, "fffffffffffff9"),
            (0.999_999_9, "0"),
        ] {
            let threshold = Threshold::of_ratio(ratio);
            assert_eq!(threshold.to_string(), expected, "{ratio}");
            assert_eq!(Threshold::parse(expected.as_bytes()), Some(threshold), "{ratio}");
        }
        assert_eq!(Threshold::of_ratio(0.0), Threshold::NEVER);
        assert!(!Threshold::NEVER.keeps(RANGE - 1) && Threshold::ALWAYS.keeps(0));
    }

    #[test]
    fn only_lower_case_digits_of_the_right_number_are_read() {
        for (text, threshold, randomness) in [
            ("0", Some(0), None),
            ("c", Some(0xc0_0000_0000_0000), None),
            ("0c", Some(0x0c_0000_0000_0000), None),
            ("00000000000001", Some(1), Some(1)),
            ("ffffffffffffff", Some(RANGE - 1), Some(RANGE - 1)),
            ("fffffffffffffff", None, None),
            ("", None, None),
            ("C", None, None),
            ("-1", None, None),
            ("0x1", None, None),
        ] {
            assert_eq!(Threshold::parse(text.as_bytes()), threshold.map(Threshold), "{text}");
            assert_eq!(parse_randomness(text.as_bytes()), randomness, "{text}");
        }
    }
}
