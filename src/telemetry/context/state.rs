//! `tracestate`: several fields are one list, which is forwarded only if it is valid as a whole.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::ot::Ot;
use super::threshold::Threshold;

/// A caller's `tracestate` (W3C Trace Context level 2, section 3.3), OpenTelemetry's member apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// OpenTelemetry's member, which is ours to rewrite.
    pub ot: Ot,
    /// The members of all others, in order, joined to one line.
    others: Box<str>,
}

impl State {
    /// Reads all fields as one list. One that is not valid is dropped, the trace goes on.
    pub fn read<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut members = Members::default();
        for field in fields {
            for member in field.split(|&byte| byte == b',') {
                let member = trim(member);
                if !member.is_empty() && members.push(member).is_none() {
                    return Self::default();
                }
            }
        }
        if members.count == 0 {
            return Self::default();
        }
        let own = members.take(OWN);
        members.shorten(MAX_LENGTH - own.map_or(0, |own| own.len() + 1));
        let ot = own.map(|own| Ot::parse(&own[OWN.len()..])).unwrap_or_default();
        Self { ot, others: members.as_slice().join(",").into() }
    }

    /// Whether there is no list.
    pub fn is_empty(&self) -> bool {
        self.others.is_empty() && self.ot == Ot::default()
    }

    /// The list as it is sent on, with this threshold in our member; empty if there is nothing to send.
    pub fn forwarded(&self, threshold: Option<Threshold>) -> Cow<'_, str> {
        let Some(own) = self.ot.forwarded(threshold) else { return Cow::Borrowed(&self.others) };
        // what is modified stands first (section 3.5), and takes the place of the last if there is no other
        let mut text = own.to_string();
        let mut others = Members::default();
        for member in self.others.split_terminator(',').take(MAX_MEMBERS - 1) {
            others.add(member);
        }
        others.shorten(MAX_LENGTH - text.len() - 1);
        for member in others.as_slice() {
            let _ = write!(text, ",{member}");
        }
        Cow::Owned(text)
    }

    /// What of it is exported: our member's numbers, with this threshold. The rest belongs to others.
    pub fn exported(&self, threshold: Option<Threshold>) -> Cow<'static, str> {
        if threshold == Some(Threshold::ALWAYS) && self.ot.randomness.is_none() {
            return ALWAYS.into();
        }
        self.ot.exported(threshold).map(|own| own.to_string()).unwrap_or_default().into()
    }
}

struct Members<'a> {
    list: [&'a str; MAX_MEMBERS],
    count: usize,
}

impl Default for Members<'_> {
    fn default() -> Self {
        Self { list: [""; MAX_MEMBERS], count: 0 }
    }
}

impl<'a> Members<'a> {
    fn as_slice(&self) -> &[&'a str] {
        &self.list[..self.count]
    }

    /// Adds a member, unless it breaks the grammar or is one too many. Of a key that is repeated the first
    /// member counts, which is the latest (section 3.5).
    fn push(&mut self, member: &'a [u8]) -> Option<()> {
        let equals = member.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (&member[..equals], &member[equals + 1..]);
        if !is_key(key) || !is_value(value) {
            return None;
        }
        let same = |other: &&str| other.as_bytes().get(..=equals) == Some(&member[..=equals]);
        if self.as_slice().iter().any(same) {
            return Some(());
        }
        self.add(std::str::from_utf8(member).ok()?)
    }

    fn add(&mut self, member: &'a str) -> Option<()> {
        *self.list.get_mut(self.count)? = member;
        self.count += 1;
        Some(())
    }

    /// Takes out the member that begins so.
    fn take(&mut self, prefix: &str) -> Option<&'a str> {
        let at = self.as_slice().iter().position(|member| member.starts_with(prefix))?;
        let taken = self.list[at];
        self.remove(at);
        Some(taken)
    }

    /// Whole members go until the line is no longer than this: long ones first, then the oldest, at the end
    /// (section 3.3.1.5).
    fn shorten(&mut self, most: usize) {
        while self.length() > most {
            let long = |member: &&str| member.len() > LONG_MEMBER;
            self.remove(self.as_slice().iter().rposition(long).unwrap_or(self.count - 1));
        }
    }

    fn remove(&mut self, at: usize) {
        self.list[at..self.count].rotate_left(1);
        self.count -= 1;
    }

    fn length(&self) -> usize {
        self.as_slice().iter().map(|member| member.len() + 1).sum::<usize>().saturating_sub(1)
    }
}

/// `( lcalpha / DIGIT ) 0*255 ( keychar )` (section 3.3.1.3.1).
fn is_key(key: &[u8]) -> bool {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let further = |&byte: &u8| first(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@');
    key.len() <= 256 && key.first().is_some_and(|&byte| first(byte)) && key.iter().all(further)
}

/// Up to 256 printable characters without `,` and `=`, the last of which is no space (section 3.3.1.3.2).
fn is_value(value: &[u8]) -> bool {
    let allowed = |&byte: &u8| matches!(byte, b' '..=b'~') && byte != b'=';
    (1..=256).contains(&value.len()) && value.last() != Some(&b' ') && value.iter().all(allowed)
}

/// Optional white space around a member (RFC 9110 section 5.6.3).
fn trim(mut member: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = member {
        member = rest;
    }
    member
}

/// How our own member begins.
const OWN: &str = "ot=";

/// Our member where nothing was rejected, as nearly always.
const ALWAYS: &str = "ot=th:0";

/// The most members of a list (section 3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// What must be propagated at least, and what we propagate at most (section 3.3.1.5).
const MAX_LENGTH: usize = 512;

/// Members longer than this are the first to go (section 3.3.1.5).
const LONG_MEMBER: usize = 128;

#[cfg(test)]
mod tests {
    use super::{State, Threshold};

    /// Every character that a key and a value may have.
    const EVERYTHING: &str = "abcdefghijklmnopqrstuvwxyz0123456789_-*/@a-z0-9_-*/= !\"#$%&'()*+-./\
                              0123456789:;<>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~";

    fn state(fields: &[&str]) -> State {
        State::read(fields.iter().map(|field| field.as_bytes()))
    }

    fn joined(fields: &[&str]) -> String {
        state(fields).forwarded(None).into()
    }

    #[test]
    fn a_valid_list_is_joined_and_an_invalid_one_is_dropped_whole() {
        let key256 = "k".repeat(256);
        let value256 = "v".repeat(256);
        let cases: &[(&[&str], &str)] = &[
            (&[], ""),
            (&[""], ""),
            (&["foo=1"], "foo=1"),
            (&["foo=1,bar=2"], "foo=1,bar=2"),
            (&["foo=1", "bar=2"], "foo=1,bar=2"),
            (&["foo=1 \t , \t bar=2"], "foo=1,bar=2"),
            (&["foo=1", "", "bar=2"], "foo=1,bar=2"),
            (&["foo=1,,,bar=2,"], "foo=1,bar=2"),
            (&["0foo=1,t_-*/a@v=x"], "0foo=1,t_-*/a@v=x"),
            (&["foo= a b"], "foo= a b"),
            (&[&format!("{key256}=1")], &format!("{key256}=1")),
            (&[&format!("k={value256}")], &format!("k={value256}")),
            (&[&format!("{key256}k=1")], ""),
            (&[&format!("k={value256}v")], ""),
            // level 2 has no rule for what stands around an @
            (&["foo@=1,bar=2"], "foo@=1,bar=2"),
            (&["foo@@bar=1,t@v=2"], "foo@@bar=1,t@v=2"),
            (&[EVERYTHING], EVERYTHING),
            (&["foo=1", "", "rojo=1,congo=2", "baz=3"], "foo=1,rojo=1,congo=2,baz=3"),
            (&["foo"], ""),
            (&["foo="], ""),
            (&["=1"], ""),
            (&["foo =1"], ""),
            (&["FOO=1"], ""),
            (&["_foo=1"], ""),
            (&["@foo=1"], ""),
            (&["foo.bar=1"], ""),
            (&["foo=1=2"], ""),
            (&["foo=a\tb"], ""),
            (&["foo=\u{e9}"], ""),
            (&["foo=1;bar"], "foo=1;bar"),
            (&["foo=1;bar=2"], ""),
            (&["foo=1,bar"], ""),
            (&["foo=1,foo=1"], "foo=1"),
            (&["foo=1,bar=2", "foo=3"], "foo=1,bar=2"),
            (&["foo=1", "foo=2=3"], ""),
            (&["foo=1,fo=2,foob=3"], "foo=1,fo=2,foob=3"),
        ];
        for (fields, expected) in cases {
            assert_eq!(joined(fields), **expected, "{fields:?}");
        }
    }

    #[test]
    fn thirty_two_members_are_a_list_and_thirty_three_are_not() {
        let list = |count: usize| (0..count).map(|n| format!("k{n}=1")).collect::<Vec<_>>().join(",");
        assert_eq!(joined(&[&list(32)]), list(32));
        assert_eq!(joined(&[&list(33)]), "");
        assert_eq!(joined(&[&list(32), "more=1"]), "");
    }

    #[test]
    fn a_list_that_is_too_long_loses_whole_members() {
        let long = format!("long={}", "x".repeat(200));
        let short = |key: char| format!("{key}={}", "y".repeat(98)); // 100 bytes each
        // the long one goes although it is the first
        let list = [long.clone(), short('a'), short('b'), short('c'), short('d')].join(",");
        assert_eq!(joined(&[&list]), [short('a'), short('b'), short('c'), short('d')].join(","));
        // with none that is long, the last ones go
        let list: Vec<String> = ('a'..='f').map(short).collect();
        assert_eq!(joined(&[&list.join(",")]), list[..5].join(","));
        // of two that are long, one may be enough, and it is the later one
        let other = format!("other={}", "z".repeat(200));
        assert_eq!(joined(&[&[long.clone(), other, short('a'), short('b')].join(",")]), {
            [long, short('a'), short('b')].join(",")
        });
    }

    #[test]
    fn our_own_member_is_rewritten_and_stands_first() {
        let members = |count: usize| (0..count).map(|n| format!("k{n}=1")).collect::<Vec<_>>().join(",");
        let (most, full) = (members(31), members(32));
        for (field, kept, unsampled, exported) in [
            ("", "ot=th:c", "", "ot=th:c"),
            ("a=1,b=2", "ot=th:c,a=1,b=2", "a=1,b=2", "ot=th:c"),
            ("a=1,ot=th:8;p:1,b=2", "ot=th:c;p:1,a=1,b=2", "ot=p:1,a=1,b=2", "ot=th:c"),
            ("a=1,ot=nonsense", "ot=th:c,a=1", "a=1", "ot=th:c"),
            ("ot=th:0,ot=th:8", "ot=th:c", "", "ot=th:c"),
            ("ott=th:0", "ot=th:c,ott=th:0", "ott=th:0", "ot=th:c"),
            (&format!("{most},ot=th:0"), &format!("ot=th:c,{most}"), &most, "ot=th:c"),
            (&full, &format!("ot=th:c,{most}"), &full, "ot=th:c"),
        ] {
            let state = state(&[field]);
            let threshold = Threshold::parse(b"c");
            assert_eq!(state.forwarded(threshold), kept, "{field}");
            assert_eq!(state.forwarded(None), unsampled, "{field}");
            assert_eq!(state.exported(threshold), exported, "{field}");
        }
        assert_eq!(state(&["a=1,ot=th:8;rv:00000000000001"]).exported(None), "ot=rv:00000000000001");
        for (field, exported) in [("", "ot=th:0"), ("ot=rv:00000000000001", "ot=th:0;rv:00000000000001")] {
            assert_eq!(state(&[field]).exported(Some(Threshold::ALWAYS)), exported, "{field}");
        }
    }
}
