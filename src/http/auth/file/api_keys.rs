//! `[auth.NAME.api_keys]` as written, with the keys of its file.

use std::collections::BTreeMap;
use std::fs;

use http::header::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::field::field;
use crate::http::auth::api_key::{self, Key as ApiKey};
use crate::problem::Key;
use crate::setting::{Check, Hash, Moment, Written};

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct WrittenApiKeys {
    /// The field that keys are sent in; "authorization" is for Bearer. Default: `"x-api-key"`.
    header: Written<String>,
    /// The keys, by the name of whom they belong to.
    keys: BTreeMap<String, WrittenKey>,
    /// A file with a name, a hash and perhaps a date on each line.
    keys_file: Written<String>,
}

/// A key, by its hash.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ sha256 = \"…\", expires = \"2030-01-31\" }")]
struct WrittenKey {
    /// The SHA-256 of the key.
    sha256: Written<Hash>,
    /// From when on it opens nothing.
    expires: Written<Moment>,
}

impl WrittenApiKeys {
    pub(super) fn check(self, check: &Check<'_>) -> api_key::Settings {
        let table = self.header.key().parent().unwrap_or_default();
        let mut keys: Vec<(Key, ApiKey)> = Vec::new();
        for (name, written) in self.keys {
            let key = written.sha256.key().clone();
            let hash = written.sha256.required(check, "write the hash: printf %s \"$KEY\" | sha256sum");
            let expires = written.expires.into_option().map(|Moment(expires)| expires);
            keys.extend(hash.map(|hash| (key, ApiKey { name: name.into(), hash, expires })));
        }
        let file_key = self.keys_file.key().clone();
        if let Some(file) = self.keys_file.get().filter(|file| !check.does_without(&check.path(file))) {
            match fs::read_to_string(check.path(file)) {
                Ok(text) => {
                    let read = read_keys(&text, |line, what| {
                        let help = "write a name, its hash and perhaps a date: acme ba78…15ad 2030-01-31";
                        check.wrong(&file_key, format!("line {line} of \"{file}\" {what}"), help);
                    });
                    keys.extend(read.into_iter().map(|key| (file_key.clone(), key)));
                }
                Err(error) => {
                    let what = format!("the file \"{file}\" cannot be read: {error}");
                    check.wrong(&file_key, what, "name a file with a name and a hash on each line");
                }
            }
        }
        if keys.is_empty() && self.keys_file.is_absent() {
            let help = "write [auth.NAME.api_keys.keys.acme] with sha256 = \"…\", or keys_file";
            check.wrong(&table, "has no key: nobody could pass", help);
        }
        for (index, (key, one)) in keys.iter().enumerate() {
            if let Some((_, other)) = keys[..index].iter().find(|(_, other)| other.hash == one.hash) {
                let what = format!("\"{}\" and \"{}\" have the same key", other.name, one.name);
                check.wrong(key, what, "give each a key of its own, or leave one out");
            }
        }
        api_key::Settings {
            header: field(self.header, HeaderName::from_static("x-api-key"), check),
            keys: keys.into_iter().map(|(_, key)| key).collect(),
        }
    }
}

/// The keys of a file: on each line a name, a hash and perhaps a date; `#` begins a remark.
fn read_keys(text: &str, mut wrong: impl FnMut(usize, &str)) -> Vec<ApiKey> {
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_ascii_whitespace().collect();
        let (name, hash, expires) = match words[..] {
            [] => continue,
            [name, hash] => (name, hash, None),
            [name, hash, expires] => (name, hash, Some(expires)),
            _ => {
                wrong(index + 1, "has not two or three words");
                continue;
            }
        };
        let expires = expires.map(Moment::parse).transpose();
        match (Hash::parse(hash), expires) {
            (Some(hash), Ok(expires)) => {
                keys.push(ApiKey { name: name.into(), hash, expires: expires.map(|Moment(at)| at) });
            }
            (None, _) => wrong(index + 1, "has no SHA-256 in 64 hexadecimal digits as its second word"),
            (_, Err(_)) => wrong(index + 1, "has no date as its third word"),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::read_keys;

    #[test]
    fn a_file_of_keys_has_a_name_and_a_hash_on_each_line() {
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let text = format!(
            "# partners\n\nacme {hash}\nother\t{hash} 2030-01-31 # until then\nshort abc\n{hash}\n\
             acme {hash} soon\na b c d\n"
        );
        let mut wrong = Vec::new();
        let keys = read_keys(&text, |line, what| wrong.push((line, what.to_owned())));
        let found: Vec<_> = keys.iter().map(|key| (&*key.name, key.expires.is_some())).collect();
        assert_eq!(found, [("acme", false), ("other", true)]);
        assert_eq!(wrong.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [5, 6, 7, 8], "{wrong:?}");
        assert!(!format!("{wrong:?}").contains(hash), "it may be the key itself");
    }
}
