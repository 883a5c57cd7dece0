//! Public keys as an issuer publishes them (RFC 7517), and what each of them can verify (RFC 7518, RFC 8037).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use serde::Deserialize;

/// The most keys of one set.
const MOST_KEYS: usize = 100;

/// The most keys that a token without a key's name is tried with.
const MOST_TRIED: usize = 4;

/// How a token is signed. What is no signature (`none`) or one by a shared secret (`HS256`) is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA, PKCS #1 v1.5, SHA-256.
    Rs256,
    /// RSA, PKCS #1 v1.5, SHA-384.
    Rs384,
    /// RSA, PKCS #1 v1.5, SHA-512.
    Rs512,
    /// RSA, PSS, SHA-256.
    Ps256,
    /// RSA, PSS, SHA-384.
    Ps384,
    /// RSA, PSS, SHA-512.
    Ps512,
    /// ECDSA, P-256, SHA-256.
    Es256,
    /// ECDSA, P-384, SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm with its name in a token's header.
    pub const ALL: [(&str, Self); 9] = [
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];

    /// The algorithm of this name.
    pub fn named(name: &str) -> Option<Self> {
        // RFC 9864 has a name of its own for the one curve we know
        let name = if name == "Ed25519" { "EdDSA" } else { name };
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    fn kind(self) -> Kind {
        match self {
            Self::Es256 => Kind::P256,
            Self::Es384 => Kind::P384,
            Self::EdDsa => Kind::Ed25519,
            _ => Kind::Rsa,
        }
    }
}

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// A set of keys. What it holds that cannot verify a token is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

#[derive(Clone, PartialEq, Eq)]
struct Key {
    name: Option<Box<str>>,
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Of this curve.
    Point(Kind, Vec<u8>),
}

/// What came of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// It is right.
    Valid,
    /// The set has a key for it, and it is wrong.
    Wrong,
    /// It names no key, and is by none of those that were tried.
    WrongUnnamed,
    /// The key of this name is for other algorithms.
    WrongAlgorithm,
    /// The set has no such key.
    Unknown,
}

impl KeySet {
    /// Reads a set. The error is what is wrong, for the operator.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let written: WrittenSet =
            serde_json::from_slice(text).map_err(|error| format!("it is no JSON Web Key Set: {error}"))?;
        if written.keys.len() > MOST_KEYS {
            return Err(format!("it has {} keys, of which {MOST_KEYS} are allowed", written.keys.len()));
        }
        let read = |key: serde_json::Value| serde_json::from_value(key).ok().and_then(WrittenKey::read);
        let keys: Vec<Key> = written.keys.into_iter().filter_map(read).collect();
        if keys.is_empty() {
            return Err("it has no public key of a known kind that is meant to verify signatures".to_owned());
        }
        Ok(Self(keys))
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Checks a signature over a message by this algorithm and the key of this name; without one, by any key that
    /// fits, if there are few.
    pub fn check(
        &self,
        algorithm: Algorithm,
        name: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Checked {
        let named = |key: &&Key| name.is_none() || key.name.as_deref() == name;
        let mut fitting = self.0.iter().filter(named).filter(|key| key.fits(algorithm)).peekable();
        if fitting.peek().is_none() {
            let known = name.is_some() && self.0.iter().any(|key| named(&key));
            return if known { Checked::WrongAlgorithm } else { Checked::Unknown };
        }
        let right = fitting.take(MOST_TRIED).any(|key| key.is_right(algorithm, message, signature));
        match (right, name) {
            (true, _) => Checked::Valid,
            (false, Some(_)) => Checked::Wrong,
            (false, None) => Checked::WrongUnnamed,
        }
    }
}

impl Key {
    fn fits(&self, algorithm: Algorithm) -> bool {
        self.material.kind() == algorithm.kind() && self.algorithm.is_none_or(|only| only == algorithm)
    }

    fn is_right(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let rsa = |parameters| match &self.material {
            Material::Rsa { n, e } => {
                signature::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            Material::Point(..) => false,
        };
        let point = |parameters: &'static dyn VerificationAlgorithm| match &self.material {
            Material::Rsa { .. } => false,
            Material::Point(_, point) => {
                UnparsedPublicKey::new(parameters, point).verify(message, signature).is_ok()
            }
        };
        match algorithm {
            Algorithm::Rs256 => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Rs384 => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::Rs512 => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::Ps256 => rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Algorithm::Ps384 => rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Algorithm::Ps512 => rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Algorithm::Es256 => point(&signature::ECDSA_P256_SHA256_FIXED),
            Algorithm::Es384 => point(&signature::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDsa => point(&signature::ED25519),
        }
    }
}

impl Material {
    fn kind(&self) -> Kind {
        match self {
            Self::Rsa { .. } => Kind::Rsa,
            Self::Point(kind, _) => *kind,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kind", &self.material.kind()).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct WrittenSet {
    keys: Vec<serde_json::Value>,
}

/// A key as published; what other members it has is not for us.
#[derive(Deserialize)]
struct WrittenKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    used_for: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl WrittenKey {
    /// The key, if it can verify tokens.
    fn read(self) -> Option<Key> {
        let signs = self.used_for.as_deref().is_none_or(|used| used == "sig")
            && self.key_ops.as_ref().is_none_or(|all| all.iter().any(|one| one == "verify"));
        let algorithm = match self.alg.as_deref().map(Algorithm::named) {
            None => None,
            Some(Some(algorithm)) => Some(algorithm),
            Some(None) => return None,
        };
        let material = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => {
                let without_zeros = |mut bytes: Vec<u8>| {
                    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                    bytes.drain(..zeros);
                    bytes
                };
                let (n, e) =
                    (without_zeros(bytes(self.n.as_deref())?), without_zeros(bytes(self.e.as_deref())?));
                // what ring can verify
                if !(256..=1024).contains(&n.len()) || e.is_empty() || e.len() > 5 {
                    return None;
                }
                Material::Rsa { n, e }
            }
            ("EC", Some("P-256")) => point(Kind::P256, 32, self.x.as_deref(), self.y.as_deref())?,
            ("EC", Some("P-384")) => point(Kind::P384, 48, self.x.as_deref(), self.y.as_deref())?,
            ("OKP", Some("Ed25519")) => {
                Material::Point(Kind::Ed25519, bytes(self.x.as_deref()).filter(|x| x.len() == 32)?)
            }
            _ => return None,
        };
        let key = Key { name: self.kid.map(Into::into), algorithm, material };
        let fits = algorithm.is_none_or(|algorithm| key.fits(algorithm));
        (signs && fits).then_some(key)
    }
}

fn bytes(text: Option<&str>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}

/// An uncompressed point (SEC 1 section 2.3.3), each coordinate of this length.
fn point(kind: Kind, length: usize, x: Option<&str>, y: Option<&str>) -> Option<Material> {
    let (x, y) = (bytes(x)?, bytes(y)?);
    (x.len() == length && y.len() == length).then(|| Material::Point(kind, [&[4], &x[..], &y[..]].concat()))
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Checked, KeySet, URL_SAFE_NO_PAD};
    use base64::Engine as _;

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    /// The example of RFC 8037, appendix A.
    const ED25519: &str =
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    /// The examples of RFC 7515, appendices A.2 and A.3.
    const RSA: &str = r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#;
    const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    const CLAIMS: &str =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

    fn set(keys: &[&str]) -> KeySet {
        KeySet::parse(format!("{{\"keys\":[{}]}}", keys.join(",")).as_bytes()).unwrap()
    }

    #[test]
    fn the_examples_of_the_rfcs_verify_and_nothing_else_does() {
        let rs256 = format!("eyJhbGciOiJSUzI1NiJ9.{CLAIMS}");
        let es256 = format!("eyJhbGciOiJFUzI1NiJ9.{CLAIMS}");
        let cases = [
            (
                Algorithm::Rs256,
                &*rs256,
                "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            ),
            (
                Algorithm::Es256,
                &*es256,
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
            (
                Algorithm::EdDsa,
                "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
                "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            ),
        ];
        let keys = set(&[RSA, P256, ED25519]);
        for (algorithm, message, signature) in cases {
            let mut signature = bytes(signature);
            let check =
                |algorithm, signature: &[u8]| keys.check(algorithm, None, message.as_bytes(), signature);
            assert_eq!(check(algorithm, &signature), Checked::Valid, "{algorithm:?}");
            for (_, other) in Algorithm::ALL.iter().filter(|(_, other)| *other != algorithm) {
                assert_ne!(check(*other, &signature), Checked::Valid, "{algorithm:?} as {other:?}");
            }
            assert_eq!(check(algorithm, &signature[1..]), Checked::WrongUnnamed);
            assert_eq!(check(algorithm, b""), Checked::WrongUnnamed);
            signature[7] ^= 1;
            assert_eq!(check(algorithm, &signature), Checked::WrongUnnamed, "{algorithm:?}");
        }
    }

    #[test]
    fn a_key_is_known_by_its_name_and_fits_its_own_algorithms() {
        let named = |key: &str, more: &str| format!("{{{more},{}", &key[1..]);
        let (one, two) = (named(P256, r#""kid":"one""#), named(RSA, r#""kid":"two","alg":"PS256""#));
        let keys = set(&[&one, &two]);
        for (algorithm, name, checked) in [
            (Algorithm::Es256, "one", Checked::Wrong),
            (Algorithm::Es384, "one", Checked::WrongAlgorithm),
            (Algorithm::Rs256, "one", Checked::WrongAlgorithm),
            (Algorithm::Ps256, "two", Checked::Wrong),
            (Algorithm::Rs256, "two", Checked::WrongAlgorithm),
            (Algorithm::Es256, "three", Checked::Unknown),
        ] {
            assert_eq!(keys.check(algorithm, Some(name), b"", b""), checked, "{algorithm:?} {name}");
        }
    }

    #[test]
    fn what_cannot_verify_is_left_out_and_a_set_of_nothing_else_is_refused() {
        let secret = r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T"}"#;
        let encrypts = format!("{{\"use\":\"enc\",{}", &RSA[1..]);
        let shared = format!("{{\"alg\":\"HS256\",{}", &RSA[1..]);
        let not_its_own = format!("{{\"alg\":\"ES256\",{}", &RSA[1..]);
        let signs = format!("{{\"key_ops\":[\"sign\"],{}", &RSA[1..]);
        let short = r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#;
        let off = r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#;
        let other = r#"{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}"#;
        let unusable = [secret, &*encrypts, &*shared, &*not_its_own, &*signs, short, off, other, "{}", "7"];
        assert_eq!(set(&[&unusable[..], &[P256]].concat()).count(), 1);
        for key in unusable {
            let alone = KeySet::parse(format!("{{\"keys\":[{key}]}}").as_bytes());
            assert!(alone.is_err(), "{key}");
        }
        let many = vec![P256; super::MOST_KEYS + 1].join(",");
        for text in ["", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[]}", &format!("{{\"keys\":[{many}]}}")] {
            assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
