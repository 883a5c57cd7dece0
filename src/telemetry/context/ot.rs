//! OpenTelemetry's member of `tracestate`, `ot=th:c;rv:0123456789abcd` (its "tracestate handling").

use std::fmt;

use super::threshold::{Threshold, parse_randomness};

/// The member, of which the threshold is rewritten and the rest goes on as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ot {
    /// The share of traces that a caller sampled.
    pub threshold: Option<Threshold>,
    /// The trace's randomness, where it is not that of its id.
    pub randomness: Option<u64>,
    /// The sub-keys but for the threshold.
    rest: Box<str>,
}

impl Ot {
    /// Reads the member's value. One that breaks the grammar is none; a threshold or a randomness that cannot
    /// be read is left out.
    pub fn parse(value: &str) -> Self {
        let mut ot = Self::default();
        let mut rest = String::new();
        for pair in value.split(';') {
            let Some((key, text)) = pair.split_once(':').filter(|(key, text)| is_pair(key, text)) else {
                return Self::default();
            };
            match key {
                "th" if ot.threshold.is_none() => ot.threshold = Threshold::parse(text.as_bytes()),
                "rv" if ot.randomness.is_none() => ot.randomness = parse_randomness(text.as_bytes()),
                "th" | "rv" => return Self::default(),
                _ => {}
            }
            if key != "th" && (key != "rv" || ot.randomness.is_some()) {
                if !rest.is_empty() {
                    rest.push(';');
                }
                rest.push_str(pair);
            }
        }
        Self { rest: rest.into(), ..ot }
    }

    /// The member with this threshold in place of its own; `None` if nothing is left of it.
    pub fn forwarded(&self, threshold: Option<Threshold>) -> Option<Member<'_>> {
        let fits = threshold.is_none() || self.rest.len() + LONGEST_THRESHOLD <= MAX_VALUE;
        let rest = if fits { Rest::Text(&self.rest) } else { Rest::Randomness(self.randomness) };
        Member { threshold, rest }.some()
    }

    /// What of the member is exported: this threshold and the randomness, numbers both.
    pub fn exported(&self, threshold: Option<Threshold>) -> Option<Member<'_>> {
        Member { threshold, rest: Rest::Randomness(self.randomness) }.some()
    }
}

/// `key:value`, as the specification has them.
fn is_pair(key: &str, value: &str) -> bool {
    let letter_or_digit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    key.starts_with(|first: char| first.is_ascii_lowercase())
        && key.bytes().all(letter_or_digit)
        && value.bytes().all(allowed)
}

/// The member as it is written, `ot=` included.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    threshold: Option<Threshold>,
    rest: Rest<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Rest<'a> {
    Text(&'a str),
    Randomness(Option<u64>),
}

impl Member<'_> {
    fn some(self) -> Option<Self> {
        let nothing =
            self.threshold.is_none() && matches!(self.rest, Rest::Text("") | Rest::Randomness(None));
        (!nothing).then_some(self)
    }
}

impl fmt::Display for Member<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ot=")?;
        if let Some(threshold) = self.threshold {
            write!(f, "th:{threshold}")?;
        }
        let separator = if self.threshold.is_some() { ";" } else { "" };
        match self.rest {
            Rest::Text("") | Rest::Randomness(None) => Ok(()),
            Rest::Text(text) => write!(f, "{separator}{text}"),
            Rest::Randomness(Some(randomness)) => write!(f, "{separator}rv:{randomness:014x}"),
        }
    }
}

/// The longest value of a member.
const MAX_VALUE: usize = 256;

/// `th:`, fourteen digits, `;`
const LONGEST_THRESHOLD: usize = 18;

#[cfg(test)]
mod tests {
    use super::{Ot, Threshold};

    #[test]
    fn the_threshold_is_rewritten_and_the_rest_goes_on_as_it_came() {
        let long = format!("rv:0123456789abcd;k:{}", "x".repeat(236));
        for (value, rewritten, erased, exported) in [
            ("th:8", "ot=th:c", "", "ot=th:c"),
            (
                "th:c;rv:0123456789abcd",
                "ot=th:c;rv:0123456789abcd",
                "ot=rv:0123456789abcd",
                "ot=th:c;rv:0123456789abcd",
            ),
            ("p:8;th:8;r:62", "ot=th:c;p:8;r:62", "ot=p:8;r:62", "ot=th:c"),
            ("rv:0123456789ABCD;k1:", "ot=th:c;k1:", "ot=k1:", "ot=th:c"),
            ("th:xyz;k:1", "ot=th:c;k:1", "ot=k:1", "ot=th:c"),
            // what breaks the grammar is not ours
            ("th:8;th:8", "ot=th:c", "", "ot=th:c"),
            ("k:1;", "ot=th:c", "", "ot=th:c"),
            ("K:1", "ot=th:c", "", "ot=th:c"),
            ("k:a b", "ot=th:c", "", "ot=th:c"),
            ("k", "ot=th:c", "", "ot=th:c"),
            ("", "ot=th:c", "", "ot=th:c"),
            // no room for another one
            (&long, "ot=th:c;rv:0123456789abcd", &format!("ot={long}"), "ot=th:c;rv:0123456789abcd"),
        ] {
            let ot = Ot::parse(value);
            let threshold = Threshold::parse(b"c");
            let text = |member: Option<super::Member<'_>>| member.map(|m| m.to_string()).unwrap_or_default();
            assert_eq!(text(ot.forwarded(threshold)), rewritten, "{value}");
            assert_eq!(text(ot.forwarded(None)), erased, "{value}");
            assert_eq!(text(ot.exported(threshold)), exported, "{value}");
        }
    }
}
