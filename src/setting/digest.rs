//! What something is made of, as a number: equal if made of the same.

use std::fmt;

use ring::digest::{Context, SHA256};

/// The SHA-256 of some parts, in their order. It stays in memory: of a short secret it could be guessed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of these parts. Where one ends and the next begins makes a difference.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Self(digest)
    }

    /// Its first six bytes as a number, which a floating-point number can hold.
    pub fn number(&self) -> u64 {
        self.0[..6].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// The first six bytes as hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.number())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;

    #[test]
    fn the_same_parts_have_the_same_digest_and_others_another() {
        let of = |parts: &[&str]| Digest::of(parts.iter().map(|part| part.as_bytes()));
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        for other in [&["ab"][..], &["a"], &["a", "b", ""], &["b", "a"], &[]] {
            assert_ne!(of(&["a", "b"]), of(other), "{other:?}");
        }
        assert_eq!(of(&["a"]).to_string().len(), 12);
    }
}
