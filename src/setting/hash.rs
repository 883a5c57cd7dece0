//! The hash of a secret that is random: what a file may hold where the secret itself must not be.

use std::fmt;

use ring::digest;
use serde::{Deserialize, Deserializer};

use super::leaf::{schema, text};

/// The SHA-256 of a secret. The secret is random, 256 bits of it, so that its hash tells nothing; it is still not
/// printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash of this secret.
    pub fn of(secret: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
        Self(hash)
    }

    /// The hash that these hexadecimal digits stand for.
    pub fn parse(digits: &str) -> Option<Self> {
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut hash = [0; 32];
        for (index, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(hash))
    }

    /// Its 64 hexadecimal digits, for the file.
    pub fn digits(&self) -> String {
        self.0.iter().fold(String::with_capacity(64), |digits, byte| digits + &format!("{byte:02x}"))
    }

    /// Whether they are the same. How long it takes tells nothing.
    pub fn matches(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |all, (ours, theirs)| all | (ours ^ theirs));
        std::hint::black_box(difference) == 0
    }

    /// Its first bytes, by which it is found. How long that takes tells of a hash, which nobody can choose.
    pub fn place(&self) -> [u8; 8] {
        let mut place = [0; 8];
        place.copy_from_slice(&self.0[..8]);
        place
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(…)")
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a hash", |digits| {
            // not repeated: it may be the secret itself
            let help = "write the 64 hexadecimal digits that printf %s \"$KEY\" | sha256sum prints";
            Self::parse(digits).ok_or_else(|| format!("is not a SHA-256\n{help}"))
        })
    }
}

schema!(Hash, { "type": "string", "pattern": "^[0-9A-Fa-f]{64}$", "writeOnly": true });

#[cfg(test)]
mod tests {
    use super::Hash;

    #[test]
    fn a_hash_is_what_sha256sum_prints() {
        // printf abc | sha256sum
        let digits = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let hash = Hash::parse(digits).unwrap();
        assert!(hash.matches(&Hash::of("abc")) && !hash.matches(&Hash::of("abd")));
        assert_eq!(hash.digits(), digits);
        for wrong in ["", "ba78", &digits[1..], &digits.replace('b', "g"), &digits.replace("ba", "+1")] {
            assert_eq!(Hash::parse(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{hash:?}"), "Hash(…)");
    }
}
