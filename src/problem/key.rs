//! The path of a key: `upstreams.shop.endpoints[0]`.

use std::fmt;

use serde::Deserialize;

/// The path of a key in the configuration, as an operator would write it.
///
/// One text with a [`MARK`] before each segment: a configuration of many routes has a great many keys, and those of
/// values that are absent are made, too.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// The configuration as a whole.
    pub fn root() -> Self {
        Self::default()
    }

    /// The key of this name in this table.
    #[must_use]
    pub fn child(&self, name: impl AsRef<str>) -> Self {
        let name = name.as_ref();
        let mut packed = String::with_capacity(self.0.len() + MARK.len_utf8() + name.len());
        packed.push_str(&self.0);
        let mut key = Self(packed);
        key.push(name);
        key
    }

    /// The element of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.child(element(index))
    }

    /// The table or list it stands in; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (parents, _) = self.0.rsplit_once(MARK)?;
        Some(Self(parents.to_owned()))
    }

    /// Whether it is this key or stands in it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with(MARK))
    }

    /// Whether it is the configuration as a whole.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and indices (`[0]`), outermost first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.strip_prefix(MARK).into_iter().flat_map(|segments| segments.split(MARK))
    }

    /// The text that a key is read from.
    pub fn packed(&self) -> &str {
        &self.0
    }

    /// Goes on to the key of this name in this table; the length is what [`Key::leave`] comes back by.
    pub fn enter(&mut self, name: &str) -> usize {
        let length = self.0.len();
        self.push(name);
        length
    }

    /// Comes back from what was entered.
    pub fn leave(&mut self, length: usize) {
        self.0.truncate(length);
    }

    fn push(&mut self, segment: &str) {
        self.0.push(MARK);
        if segment.contains(MARK) {
            self.0.extend(segment.chars().filter(|character| *character != MARK));
        } else {
            self.0.push_str(segment);
        }
    }
}

impl<S: AsRef<str>> FromIterator<S> for Key {
    fn from_iter<I: IntoIterator<Item = S>>(segments: I) -> Self {
        let mut key = Self::root();
        segments.into_iter().for_each(|segment| key.push(segment.as_ref()));
        key
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.segments().enumerate() {
            if is_index(segment) {
                f.write_str(segment)?;
                continue;
            }
            if position > 0 {
                f.write_str(".")?;
            }
            if is_bare(segment) { f.write_str(segment)? } else { write!(f, "{segment:?}")? }
        }
        Ok(())
    }
}

/// Sorts before everything that stands in a name, so that keys sort segment by segment.
const MARK: char = '\0';

/// The segment of this element of a list.
pub fn element(index: usize) -> String {
    format!("[{index}]")
}

fn is_index(segment: &str) -> bool {
    segment.starts_with('[') && segment.ends_with(']')
}

/// Whether TOML takes the name without quotes.
fn is_bare(segment: &str) -> bool {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !segment.is_empty() && segment.bytes().all(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_as_an_operator_would_write_it() {
        let upstream = Key::root().child("upstreams").child("shop");
        let attribute = Key::root().child("attributes").child("order.id").child("path");
        for (key, text) in [
            (Key::root(), ""),
            (upstream.clone(), "upstreams.shop"),
            (upstream.child("endpoints").index(0), "upstreams.shop.endpoints[0]"),
            (attribute, r#"attributes."order.id".path"#),
        ] {
            assert_eq!(key.to_string(), text);
        }
        assert_eq!(upstream.parent(), Some(Key::root().child("upstreams")));
        assert_eq!(Key::root().parent(), None);
    }

    #[test]
    fn a_key_is_within_those_that_it_begins_with_segment_by_segment() {
        let key = |segments: &[&str]| segments.iter().collect::<Key>();
        for (inner, outer, within) in [
            (&["a", "b"][..], &["a"][..], true),
            (&["a"], &["a"], true),
            (&["ab"], &["a"], false),
            (&["a"], &["a", "b"], false),
            (&["a"], &[], true),
            (&[""], &[], true),
            (&[], &[""], false),
        ] {
            assert_eq!(key(inner).is_within(&key(outer)), within, "{inner:?} {outer:?}");
        }
        assert!(key(&["a", "z"]) < key(&["ab"]), "sorted segment by segment");
        assert_eq!(key(&["a\0b", "c"]).segments().collect::<Vec<_>>(), ["ab", "c"], "no name has it");
        assert_eq!(key(&[""]).segments().count(), 1);
        assert_eq!(Key::root().segments().count(), 0);
    }
}
