//! An issuer of signed tokens: keys of each kind, what is published of them, and what they sign.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use serde_json::{Value, json};

/// A key that signs.
pub struct Signer {
    /// Its name, if it is published with one.
    pub kid: Option<String>,
    key: Key,
}

enum Key {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    /// A new key on the curve P-256.
    pub fn p256(kid: &str) -> Self {
        Self::new(kid, Key::P256(ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)))
    }

    /// A new key on the curve P-384.
    pub fn p384(kid: &str) -> Self {
        Self::new(kid, Key::P384(ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING)))
    }

    /// A new Ed25519 key.
    pub fn ed25519(kid: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::new(kid, Key::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()))
    }

    /// The RSA key of 2048 bits, always the same: to make one takes long.
    pub fn rsa(kid: &str) -> Self {
        let document = STANDARD.decode(RSA_KEY).unwrap();
        Self::new(kid, Key::Rsa(RsaKeyPair::from_der(&document).unwrap()))
    }

    fn new(kid: &str, key: Key) -> Self {
        Self { kid: Some(kid.to_owned()), key }
    }

    /// The same key without a name.
    pub fn unnamed(self) -> Self {
        Self { kid: None, ..self }
    }

    /// What is published of it (RFC 7517).
    pub fn jwk(&self) -> Value {
        let point = |name: &str, key: &EcdsaKeyPair| {
            let (x, y) = key.public_key().as_ref()[1..].split_at((key.public_key().as_ref().len() - 1) / 2);
            json!({ "kty": "EC", "crv": name, "x": encode(x), "y": encode(y), "use": "sig" })
        };
        let mut jwk = match &self.key {
            Key::P256(key) => point("P-256", key),
            Key::P384(key) => point("P-384", key),
            Key::Ed25519(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().as_ref()) })
            }
            Key::Rsa(key) => {
                let public = signature::RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({ "kty": "RSA", "n": encode(&public.n), "e": encode(&public.e) })
            }
        };
        if let Some(kid) = &self.kid {
            jwk["kid"] = kid.as_str().into();
        }
        jwk
    }

    /// A token with these claims, signed by the key's usual algorithm.
    pub fn token(&self, claims: &Value) -> String {
        let algorithm = match &self.key {
            Key::P256(_) => "ES256",
            Key::P384(_) => "ES384",
            Key::Ed25519(_) => "EdDSA",
            Key::Rsa(_) => "RS256",
        };
        self.token_by(algorithm, claims)
    }

    /// The same, signed by this algorithm.
    pub fn token_by(&self, algorithm: &str, claims: &Value) -> String {
        let mut header = json!({ "alg": algorithm, "typ": "JWT" });
        if let Some(kid) = &self.kid {
            header["kid"] = kid.as_str().into();
        }
        self.token_of(&header, claims)
    }

    /// A token with this very header.
    pub fn token_of(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match &self.key {
            Key::P256(key) | Key::P384(key) => {
                key.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec()
            }
            Key::Ed25519(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
            Key::Rsa(key) => {
                let padding: &dyn signature::RsaEncoding = match header["alg"].as_str() {
                    Some("RS384") => &signature::RSA_PKCS1_SHA384,
                    Some("RS512") => &signature::RSA_PKCS1_SHA512,
                    Some("PS256") => &signature::RSA_PSS_SHA256,
                    Some("PS384") => &signature::RSA_PSS_SHA384,
                    Some("PS512") => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        format!("{signed}.{}", encode(signature))
    }
}

/// The set of these keys, as an issuer publishes it.
pub fn jwks(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

/// Base64url without padding.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn ecdsa(algorithm: &'static signature::EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap()
}

/// PKCS #1; it opens nothing but these tests.
const RSA_KEY: &str = "\
    MIIEpAIBAAKCAQEAlgodeYYDVwaMzuTrMb3TGHsgaohI2tqvXc8S1mzhteVKVviRCi4QD8zfGXa1+dhgsXZUYAKAwQesSeVvCEAA\
    eBaB0wCuW5o6qnhxFJZWyQNgesU6kGsp8ymSYxfolCyIxEzJGPB3fzs33vRolrbFhXGjqUkubHdNgc4+C5nXYr42Dhrfkoe1OqNQ\
    LEYH/fO4Z35aMya/g7woyhOfqSSQcbH6hmuVbhQAJrxAf0pS1pH2DJL1CGTpQsLDh3jTUNs1YpO/gbR+ja1CXBISVF4RGYhoOPr/\
    EDA6EnDe4I1EFkBPUmecCrZwRk8Ci3DwM2CtfIyaYap4xiAb+vnZKvwISwIDAQABAoIBAAw9Mv5QwkD9FctivRTHqUqb8J8AEwFX\
    SWrbk2vOYfMWiyPhDuPHsiO30JMhLeL9lZWkU2mpips0Zwd4IcCIiAFDxL9TlOWABT0WqhLF2Lp4/gvFvus88qUVRQ20S5Kat2Vb\
    5iOUqgrE59/WDBoPOrmR9Ym/oHvUl4v5KPKFUB6LyZk4aRGHoou95E15hqkeDaY/CiSb0cxTFvZhzgAn4ljbz12bhFhgqLezhYQT\
    xj6cJhVUcvHWO4anwcAZf1HFOLv1p6KSc8zG/oF3dIYThvIbgkhMo65wYZjiNV20/HRyiKAcIE2tgx1NRyRWlJrC/xJEa/dgSME9\
    Tz0VxzkdpDECgYEAy+BujsexNGKSxqiVrvVGjEgyNOOUeF6d8A28ac+12Z1w2PMv0olNRaXEuziCCwot6RSOlnjl1Kt3TiZr21Eq\
    ypn2+PIUq8+3McIuhFj1YTnGScA06kY7HbGv/n4eCvI7xxzs02+tWzLMBczVSk9UQVqPQbE1LkiatDCFoz6G7zUCgYEAvGYVLDXI\
    OsSylQmWSoqbCN0V63smUqF769sMArVtce7fJSWIGCLicztUK46MylFmaWoOghQVwtrAwqymtiRwm8M7AuMJutX2Smz5Mx3J8WZk\
    h9Sr1yfPwgD9fRKLFdPnjrDMdTJ18BGsVvsNw4QagkqfGFb+n14ayabHIojoiX8CgYB0Xwa8OP/NBvcArfnCg/5g1FTUG5MDof5E\
    p5KEUytZq6ReMXF6mySgPJ6uvvJ7mrPZ9wHsodWOLtFKqmOmLA5g1sFCF+v0pfvLSyuCH8TwWin0ruGFV9EmgeYTPamoVdwJK1mC\
    1pv9EmGibejRIbbWFvruZFgWsxqa/5dINsiOgQKBgQCSLxOWrlSjZSS8iCfZxxrtEb+EbJYb37lsFReIsoYttY/oHusu70KO7yYs\
    dfvAsNCqUuTXAgawn1SauaTSCAxokGAlqU1Pb94fedcTVrXvXef7jYWY+Qc4HdSTS+QoF7jA+2ZqObFRiiUTiNHxN3vqRUSVeksw\
    FbDrb0FtBpaIuQKBgQDEFkdleBDFmQrUJIOjfrEEytB9GDn+CROH7PF9Ys4gcg8nURpU7NvOwn8pA2pHJs6x2RQaKJski0V6tlrL\
    MH55tkDU3UzDry8n/4KKZhd3AJh7r2CSl+jVrmwhXurLibC610sTWND10DEvtN9RtM5A8jCbRrRHc8o8TIYRYhJLuw==\
    ";
