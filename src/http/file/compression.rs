//! `compression` as written, and what it means.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::super::compression::{Coding, Compression, MediaType};
use crate::setting::leaf::{schema, text, words};
use crate::setting::{Check, Count, Size, Written};

/// Compression as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ codings = [\"zstd\", \"br\", \"gzip\"] }, or \"off\"")]
pub(super) struct WrittenCompression {
    /// The codings, the preferred one first. Default: `["zstd", "br", "gzip"]`.
    codings: Written<Vec<Written<Coding>>>,
    /// The types of bodies. Default: `["text/*", "application/json", "application/javascript",
    /// "application/xml", "application/wasm", "*+json", "*+xml"]`.
    types: Written<Vec<Written<MediaType>>>,
    /// From which size on. Default: `"1KiB"`.
    min_size: Written<Size>,
    /// Answers compressed at once; more pass as they are. Default: `256`.
    at_once: Written<Count>,
}

impl WrittenCompression {
    /// What is compressed, as used.
    pub(super) fn check(self, check: &Check<'_>) -> Compression {
        for key in [self.codings.get().filter(|list| list.is_empty()).map(|_| self.codings.key())]
            .into_iter()
            .chain([self.types.get().filter(|list| list.is_empty()).map(|_| self.types.key())])
            .flatten()
        {
            check.wrong(key, "is empty: nothing would be compressed", "write compression = \"off\"");
        }
        let codings: Vec<Coding> = self.codings.into_elements().collect();
        let types: Vec<MediaType> = self.types.into_elements().collect();
        Compression {
            codings: if codings.is_empty() { ALL.to_vec() } else { codings },
            types: if types.is_empty() { usual_types() } else { types },
            min_size: self.min_size.or(1 << 10),
            at_once: self.at_once.or(256),
        }
    }
}

words!(Coding, ALL.map(|coding| (coding.word(), coding)));

impl MediaType {
    fn parse(written: &str) -> Result<Self, String> {
        let help = "write one such as \"application/json\", \"text/*\" or \"*+json\"";
        let wrong = |what: &str| Err(format!("\"{written}\" {what}\n{help}"));
        let plain = |text: &str| {
            let byte =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.+_".contains(&byte);
            !text.is_empty() && text.bytes().all(byte)
        };
        if let Some(end) = written.strip_prefix('*').filter(|end| end.starts_with('+') && plain(end)) {
            return Ok(Self::Like(end.into()));
        }
        match written.split_once('/') {
            Some((kind, "*")) if plain(kind) => Ok(Self::Of(format!("{kind}/").into())),
            Some(("text", "event-stream")) => wrong("is never compressed: events do not wait for more"),
            Some((kind, name)) if plain(kind) && plain(name) => Ok(Self::Exact(written.into())),
            _ => wrong("is not a type of bodies, in lower case"),
        }
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a type", Self::parse)
    }
}

schema!(MediaType, { "type": "string", "examples": ["application/json", "text/*", "*+json"], "pattern": "^([^/]+/[^/]+|\\*\\+.+)$" });

/// The best first.
const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

/// Texts: what else there is, pictures and archives, is compressed by itself.
fn usual_types() -> Vec<MediaType> {
    let exact = |name: &str| MediaType::Exact(name.into());
    vec![
        MediaType::Of("text/".into()),
        exact("application/json"),
        exact("application/javascript"),
        exact("application/xml"),
        exact("application/wasm"),
        MediaType::Like("+json".into()),
        MediaType::Like("+xml".into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::MediaType;

    #[test]
    fn a_type_is_one_or_many() {
        for (written, expected) in [
            ("application/json", Some(MediaType::Exact("application/json".into()))),
            ("text/*", Some(MediaType::Of("text/".into()))),
            ("*+json", Some(MediaType::Like("+json".into()))),
            ("text/event-stream", None),
            ("*/*", None),
            ("*", None),
            ("json", None),
            ("Text/Html", None),
            ("text/html; charset=utf-8", None),
        ] {
            assert_eq!(MediaType::parse(written).ok(), expected, "{written}");
        }
    }
}
