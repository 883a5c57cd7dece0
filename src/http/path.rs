//! The path of a request target, normalised once, before anything is decided by it.
//!
//! The rules: percent-encoded unreserved characters are decoded and the digits of all other escapes become
//! upper case (RFC 3986 section 6.2.2), dot segments are resolved (section 5.2.4), runs of slashes become
//! one. What is routed is what is forwarded. Refused, because a server behind might read it otherwise:
//! broken escapes, an encoded slash, NUL or control character, a backslash (plain or encoded), dot segments
//! that leave the root, and dot segments with parameters (`/..;/`).

use std::borrow::Cow;

use crate::failure::{Detail, Failure, Reason};

/// The normalised path; borrowed where nothing had to change.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, Failure> {
    if !path.starts_with('/') {
        return Err(refuse(Detail::InvalidPath));
    }
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path.as_bytes())?;
    resolve(&decoded).map(Cow::Owned)
}

fn refuse(detail: Detail) -> Failure {
    Failure::new(Reason::BadRequest).detail(detail)
}

/// Nothing in it that any rule is about. Errs on the side of "not plain".
fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    for &byte in path {
        match byte {
            b'%' | b'\\' => return false,
            b'/' | b'.' if before == b'/' => return false,
            _ if !byte.is_ascii_graphic() => return false,
            _ => before = byte,
        }
    }
    true
}

fn decode(path: &[u8]) -> Result<String, Failure> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                let (value, tail) = escape(rest).ok_or_else(|| refuse(Detail::InvalidPath))?;
                rest = tail;
                match value {
                    b'/' | b'\\' | 0..=0x1f | 0x7f => return Err(refuse(Detail::AmbiguousPath)),
                    value if is_unreserved(value) => out.push(char::from(value)),
                    value => {
                        out.push('%');
                        out.push(upper_hex(value >> 4));
                        out.push(upper_hex(value & 15));
                    }
                }
            }
            b'\\' => return Err(refuse(Detail::AmbiguousPath)),
            byte if byte.is_ascii_graphic() => out.push(char::from(byte)),
            _ => return Err(refuse(Detail::InvalidPath)),
        }
    }
    Ok(out)
}

fn escape(rest: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], rest) = rest.split_first_chunk()?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((digit(high)? << 4 | digit(low)?, rest))
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn upper_hex(digit: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(digit & 15)])
}

fn resolve(path: &str) -> Result<String, Failure> {
    let mut kept: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in path.split('/').skip(1) {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop().ok_or_else(|| refuse(Detail::AmbiguousPath))?;
            }
            segment if has_parameters(segment) => {
                return Err(refuse(Detail::AmbiguousPath));
            }
            segment => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if directory || kept.is_empty() {
        out.push('/');
    }
    Ok(out)
}

/// A dot segment with parameters, as `/..;/`: some servers cut the parameters off before they resolve.
fn has_parameters(segment: &str) -> bool {
    let rest = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
    rest.is_some_and(|rest| rest.starts_with(';') || rest.starts_with("%3B"))
}

#[cfg(test)]
mod tests {
    use super::normalise;
    use crate::failure::Detail;

    #[test]
    fn a_path_is_normalised_by_the_stated_rules() {
        for (written, expected) in [
            ("/", "/"),
            ("/shop/orders/42", "/shop/orders/42"),
            ("/shop/", "/shop/"),
            ("//shop///orders", "/shop/orders"),
            ("/shop/./orders", "/shop/orders"),
            ("/shop/x/../orders", "/shop/orders"),
            ("/shop/orders/..", "/shop/"),
            ("/shop/orders/.", "/shop/orders/"),
            ("/shop/%2e/orders", "/shop/orders"),
            ("/shop/x/%2E%2e/orders", "/shop/orders"),
            ("/%73hop/%7Euser", "/shop/~user"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/a%2520b", "/a%2520b"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
        ] {
            assert_eq!(normalise(written).expect(written), expected, "{written}");
        }
    }

    #[test]
    fn what_a_server_behind_might_read_otherwise_is_refused() {
        for (written, detail) in [
            ("/shop%2forders", Detail::AmbiguousPath),
            ("/shop%2Forders", Detail::AmbiguousPath),
            ("/shop/%5c..", Detail::AmbiguousPath),
            ("/shop\\orders", Detail::AmbiguousPath),
            ("/shop/%00", Detail::AmbiguousPath),
            ("/shop/%0d%0aX:", Detail::AmbiguousPath),
            ("/..", Detail::AmbiguousPath),
            ("/shop/../../etc", Detail::AmbiguousPath),
            ("/shop/%2e%2e/%2e%2e/etc", Detail::AmbiguousPath),
            ("/shop/..;/admin", Detail::AmbiguousPath),
            ("/shop/%2e%2e;x/admin", Detail::AmbiguousPath),
            ("/shop/%", Detail::InvalidPath),
            ("/shop/%4", Detail::InvalidPath),
            ("/shop/%zz", Detail::InvalidPath),
            ("shop", Detail::InvalidPath),
            ("*", Detail::InvalidPath),
        ] {
            let failure = normalise(written).expect_err(written);
            assert_eq!(failure.detail, Some(detail), "{written}");
        }
    }

    #[test]
    fn normalising_twice_changes_nothing_more() {
        for written in ["/a//b/../c", "/%7e/%C3%a9", "/x/./y/", "/a/b/.."] {
            let once = normalise(written).expect(written).into_owned();
            assert_eq!(normalise(&once).expect(written), once);
        }
    }
}
