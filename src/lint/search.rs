//! Finds canaries in what telemetry says: as sent, in other letter case, URL-encoded, JSON-escaped, as
//! hexadecimal digits, as base64, whole or cut.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};

use super::canary::{Canaries, Place};

/// A piece of telemetry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Which signal: `spans`, `metrics` ….
    pub signal: &'static str,
    /// The key within it.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// A canary that came out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leak {
    /// The signal it came out of.
    pub signal: &'static str,
    /// The field of that signal.
    pub field: String,
    /// How it was written there.
    pub form: Form,
    /// Where it had been sent.
    pub place: Place,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} holds the {}, {}", self.signal, self.field, self.place, self.form.word())
    }
}

/// How a canary is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// Letter by letter, perhaps in other case.
    Plain,
    /// As digits, perhaps percent-encoded or escaped.
    Hexadecimal,
    /// As base64, of either alphabet.
    Base64,
}

impl Form {
    fn word(self) -> &'static str {
        match self {
            Self::Plain => "as plain text",
            Self::Hexadecimal => "as hexadecimal digits",
            Self::Base64 => "as base64",
        }
    }
}

/// What is looked for: every piece of every canary, in every form.
#[derive(Debug)]
pub struct Search<'a> {
    pieces: [(Form, usize, Pieces<'a>); 3],
    hasher: RandomState,
}

/// Pieces of canaries as they are written in one form, by their hashes: of the millions that there are, no two have
/// the same by chance.
type Pieces<'a> = HashMap<u64, &'a Place>;

impl<'a> Search<'a> {
    /// Looks for these.
    pub fn new(canaries: &'a Canaries) -> Self {
        let hasher = RandomState::new();
        let mut pieces = [
            (Form::Plain, CUT, HashMap::new()),
            (Form::Hexadecimal, 2 * CUT, HashMap::new()),
            (Form::Base64, BASE64_CUT, HashMap::new()),
        ];
        for (text, place) in canaries.iter() {
            for (form, length, known) in &mut pieces {
                for written in written(*form, text) {
                    known.extend(written.windows(*length).map(|piece| (hasher.hash_one(piece), place)));
                }
            }
        }
        Self { pieces, hasher }
    }

    /// The leaks in these fields, each once.
    pub fn leaks<'f>(&self, fields: impl IntoIterator<Item = &'f Field>) -> BTreeSet<Leak> {
        fields.into_iter().flat_map(|field| self.in_field(field)).collect()
    }

    fn in_field(&self, field: &Field) -> BTreeSet<Leak> {
        let found = [&field.name, &field.text].into_iter().flat_map(|text| self.in_text(text));
        found
            .map(|(form, place)| Leak { signal: field.signal, field: shown(&field.name), form, place })
            .collect()
    }

    fn in_text(&self, text: &str) -> BTreeSet<(Form, Place)> {
        let mut found = BTreeSet::new();
        for (form, length, known) in &self.pieces {
            let read = read(*form, text);
            let places = read.windows(*length).filter_map(|piece| known.get(&self.hasher.hash_one(piece)));
            found.extend(places.map(|&place| (*form, place.clone())));
        }
        found
    }
}

/// A canary in a form, as [`read`] reads it. Base64 depends on how many bytes stand before.
fn written(form: Form, text: &str) -> Vec<Vec<u8>> {
    match form {
        Form::Plain => vec![text.to_ascii_lowercase().into_bytes()],
        // the digits of the text as sent, and of the same in lower and in upper case
        Form::Hexadecimal => [text.to_owned(), text.to_ascii_lowercase(), text.to_ascii_uppercase()]
            .iter()
            .map(|text| text.bytes().flat_map(digits).collect())
            .collect(),
        Form::Base64 => (0..3).map(|before| base64(before, text.as_bytes())).collect(),
    }
}

/// The two hexadecimal digits of a byte.
fn digits(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|half| b"0123456789abcdef"[usize::from(half)])
}

/// A text with all that is only the dress of a form taken off.
fn read(form: Form, text: &str) -> Vec<u8> {
    match form {
        Form::Plain => text.to_ascii_lowercase().into_bytes(),
        Form::Hexadecimal => {
            let mut text = text.to_ascii_lowercase();
            for dress in ["\\u00", "\\x", "%", ":", " "] {
                text = text.replace(dress, "");
            }
            text.into_bytes()
        }
        Form::Base64 => text.replace('-', "+").replace('_', "/").into_bytes(),
    }
}

/// A text as base64url, filled up with spaces instead of padding.
pub fn base64_text(text: &str) -> String {
    let padded = format!("{text:length$}", length = text.len().next_multiple_of(3));
    String::from_utf8(base64(0, padded.as_bytes())).expect("ASCII").replace('+', "-").replace('/', "_")
}

/// The characters that these bytes alone decide where `before` unknown bytes stand before them.
fn base64(before: usize, bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let padded: Vec<u8> = std::iter::repeat_n(0, before).chain(bytes.iter().copied()).collect();
    let all = padded.chunks_exact(3).flat_map(|three| {
        let bits = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
        [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift & 63) as usize])
    });
    // of the first group only the characters after the unknown bits
    all.skip(if before == 0 { 0 } else { before + 1 }).collect()
}

/// The name of a field, cut where a leak made it long.
fn shown(name: &str) -> String {
    name.chars().take(SHOWN).collect()
}

/// A piece of so many letters is a leak.
const CUT: usize = 8;
/// As many characters of base64 hold about as much.
const BASE64_CUT: usize = 10;
/// So much of a field's name is told.
const SHOWN: usize = 120;

#[cfg(test)]
mod tests {
    use super::{Field, Form, Search};
    use crate::lint::canary::Canaries;

    fn base64(text: &str) -> String {
        let whole: Vec<u8> = super::base64(0, text.as_bytes());
        String::from_utf8(whole).expect("ASCII")
    }

    fn found(make: impl Fn(&str) -> String) -> Vec<Form> {
        let mut canaries = Canaries::default();
        let text = canaries.send("cookie", "a request");
        canaries.send("another", "a request");
        let field = Field { signal: "spans", name: "a.key".to_owned(), text: make(&text) };
        let leaks = Search::new(&canaries).leaks([&field]);
        assert!(leaks.iter().all(|leak| leak.place.part == "cookie" && leak.field == "a.key"), "{leaks:?}");
        leaks.into_iter().map(|leak| leak.form).collect()
    }

    fn dressed(text: &str, dress: &str) -> String {
        let digits = text.bytes().flat_map(super::digits).collect::<Vec<_>>();
        digits.chunks(2).flat_map(|pair| [dress.as_bytes(), pair].concat()).map(char::from).collect()
    }

    #[test]
    fn a_canary_is_found_in_every_form_and_by_any_piece_of_it() {
        type Case = (&'static str, fn(&str) -> String, &'static [Form]);
        let cases: [Case; 14] = [
            ("nothing", |_| "0af7651916cd43dd8448eb211c80319c".to_owned(), &[]),
            ("less than a piece", |text| text[..7].to_owned(), &[]),
            ("plain", str::to_owned, &[Form::Plain]),
            ("within", |text| format!("{{\"a\":\"x{text}y\"}}"), &[Form::Plain]),
            ("lower case", str::to_lowercase, &[Form::Plain]),
            ("upper case", str::to_uppercase, &[Form::Plain]),
            ("the beginning", |text| text[..9].to_owned() + "…", &[Form::Plain]),
            ("the end", |text| text[12..].to_owned(), &[Form::Plain]),
            ("hexadecimal", |text| dressed(text, ""), &[Form::Hexadecimal]),
            ("URL-encoded", |text| dressed(text, "%"), &[Form::Hexadecimal]),
            ("JSON-escaped", |text| dressed(text, "\\u00"), &[Form::Hexadecimal]),
            ("base64", base64, &[Form::Base64]),
            ("base64 after one byte", |text| base64(&format!(".{text}..")), &[Form::Base64]),
            ("base64 after two bytes", |text| base64(&format!("..{text}.")), &[Form::Base64]),
        ];
        for (name, make, expected) in cases {
            assert_eq!(found(make), expected, "{name}");
        }
    }

    #[test]
    fn a_canary_in_the_name_of_a_field_is_one_too() {
        let mut canaries = Canaries::default();
        let name = canaries.send("header name", "a request");
        let field = Field { signal: "metrics", name: format!("x_{name}"), text: "1".to_owned() };
        assert_eq!(Search::new(&canaries).leaks([&field]).len(), 1);
    }
}
