//! `tracestate`: several fields are one list, which is forwarded only if it is valid as a whole.

/// The fields' members in order, joined to one line; empty if there are none or any is not valid (W3C Trace
/// Context level 2, section 3.3). An invalid list is dropped, the trace goes on.
pub(super) fn join<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Box<str> {
    let mut members = Members { list: [""; MAX_MEMBERS], count: 0 };
    for field in fields {
        for member in field.split(|&byte| byte == b',') {
            let member = trim(member);
            if !member.is_empty() && members.push(member).is_none() {
                return Box::default();
            }
        }
    }
    if members.count == 0 {
        return Box::default();
    }
    members.shorten();
    members.list[..members.count].join(",").into()
}

struct Members<'a> {
    list: [&'a str; MAX_MEMBERS],
    count: usize,
}

impl<'a> Members<'a> {
    /// Adds a member, unless it breaks the grammar, repeats a key or is one too many.
    fn push(&mut self, member: &'a [u8]) -> Option<()> {
        let equals = member.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (&member[..equals], &member[equals + 1..]);
        let repeated = || {
            let same = |other: &&str| other.as_bytes().get(..=equals) == Some(&member[..=equals]);
            self.list[..self.count].iter().any(same)
        };
        if self.count == MAX_MEMBERS || !is_key(key) || !is_value(value) || repeated() {
            return None;
        }
        self.list[self.count] = std::str::from_utf8(member).ok()?;
        self.count += 1;
        Some(())
    }

    /// Whole members go until the line is short enough: long ones first, then the oldest, at the end
    /// (section 3.3.1.5).
    fn shorten(&mut self) {
        while self.length() > MAX_LENGTH {
            let members = &mut self.list[..self.count];
            let goes =
                members.iter().rposition(|member| member.len() > LONG_MEMBER).unwrap_or(self.count - 1);
            members[goes..].rotate_left(1);
            self.count -= 1;
        }
    }

    fn length(&self) -> usize {
        self.list[..self.count].iter().map(|member| member.len() + 1).sum::<usize>().saturating_sub(1)
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

/// The most members of a list (section 3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// What must be propagated at least, and what we propagate at most (section 3.3.1.5).
const MAX_LENGTH: usize = 512;

/// Members longer than this are the first to go (section 3.3.1.5).
const LONG_MEMBER: usize = 128;

#[cfg(test)]
mod tests {
    use super::join;

    fn joined(fields: &[&str]) -> String {
        join(fields.iter().map(|field| field.as_bytes())).into()
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
            (&["foo=1,foo=1"], ""),
            (&["foo=1,bar=2", "foo=3"], ""),
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
}
