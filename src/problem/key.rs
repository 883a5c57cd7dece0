//! The path of a key: `upstreams.shop.endpoints[0]`.

use std::fmt;

use serde::Deserialize;

/// The path of a key in the configuration, as an operator would write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(transparent)]
pub struct Key(Vec<String>);

impl Key {
    /// The configuration as a whole.
    pub fn root() -> Self {
        Self::default()
    }

    /// The key of this name in this table.
    #[must_use]
    pub fn child(&self, name: impl Into<String>) -> Self {
        let mut segments = self.0.clone();
        segments.push(name.into());
        Self(segments)
    }

    /// The element of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.child(format!("[{index}]"))
    }

    /// The table or list it stands in; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (_, parents) = self.0.split_last()?;
        Some(Self(parents.to_vec()))
    }

    /// Whether it is the configuration as a whole.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and indices (`[0]`), outermost first.
    pub fn segments(&self) -> &[String] {
        &self.0
    }
}

impl<S: Into<String>> FromIterator<S> for Key {
    fn from_iter<I: IntoIterator<Item = S>>(segments: I) -> Self {
        Self(segments.into_iter().map(Into::into).collect())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
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
}
