//! What holds of the parsers of what operators write.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tracegate::gateway::file::{Sources, load};
use tracegate::http::pattern::{Pattern, Piece, WORDS};
use tracegate::http::pointer::Pointer;
use tracegate::setting::network::Network;
use tracegate::setting::{Address, Duration, Hash, Moment, Size};

/// A leaf of the configuration, as each kind of leaf.
pub fn leaf(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let duration = read::<Duration>(text).map(|read| time::Duration::from(read).as_millis());
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let year = 366 * 86_400_000;
    assert_eq!(duration, quantity(text, &units).filter(|number| (1..year).contains(number)), "{text:?}");

    let size = read::<Size>(text).map(|read| u128::from(u64::from(read)));
    let (k, ki) = (1000, 1024);
    let units = [
        ("B", 1),
        ("kB", k),
        ("KB", k),
        ("MB", k * k),
        ("GB", k * k * k),
        ("KiB", ki),
        ("MiB", ki * ki),
        ("GiB", ki * ki * ki),
    ];
    let expected = quantity(text, &units).filter(|bytes| (1..=u64::MAX.into()).contains(bytes));
    assert_eq!(size, expected, "{text:?}");

    if let Some(address) = read::<Address>(text).map(SocketAddr::from) {
        assert_eq!(read::<Address>(&address.to_string()).map(SocketAddr::from), Some(address), "{text:?}");
    }
    if let Some(Network(network)) = read::<Network>(text) {
        let again = read::<Network>(&network.to_string()).expect("what we write can be read");
        assert_eq!(again.0, network, "{text:?}");
        assert!(network.contains(&network.network()), "{text:?}");
    }
    if let Some(moment) = read::<Moment>(text) {
        assert!(moment.0 >= time::SystemTime::UNIX_EPOCH, "{text:?}");
        if text.len() == 10 {
            assert_eq!(read::<Moment>(&format!("{text}T00:00:00Z")), Some(moment), "{text:?}");
        }
    }
    if let Some(hash) = Hash::parse(text) {
        assert_eq!(hash.digits(), text.to_ascii_lowercase());
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(Value::String(text.to_owned())).ok()
}

/// A whole number and one of these units; `None` too if it is too large to be counted by 64 bits.
fn quantity(text: &str, units: &[(&str, u128)]) -> Option<u128> {
    let number = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let (_, unit) = units.iter().find(|(unit, _)| *unit == &text[number.len()..])?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.then(|| number.parse().ok())??;
    Some(u128::from(number) * unit)
}

/// A text with placeholders; the first line is the template that they are of.
pub fn pattern(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (template, text) = text.split_once('\n').unwrap_or(("/{a}/{*rest}", text));
    // with its braces doubled every text stands for itself
    let doubled = text.replace('{', "{{").replace('}', "}}");
    let plain = Pattern::parse(&doubled, template, &WORDS).expect("a text without placeholders");
    assert_eq!(plain.fixed(), Some(text));
    let Ok(pattern) = Pattern::parse(text, template, &WORDS) else {
        assert!(text.contains(['{', '}']), "{text:?}");
        return;
    };
    let holes = pattern.pieces().iter().filter(|piece| !matches!(piece, Piece::Text(_))).count();
    assert!(holes <= text.matches('{').count() && holes <= text.matches('}').count(), "{text:?}");
    assert_eq!(pattern.fixed().is_some(), holes == 0, "{text:?}");
    let most = template.matches('{').count();
    let there = |piece: &Piece| !matches!(piece, Piece::Parameter(index) if *index >= most);
    assert!(pattern.pieces().iter().all(there), "{text:?}");
}

/// A JSON pointer, on the first line, into a document of which any part may have come.
pub fn pointer(input: &[u8]) {
    let line = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let (written, document) = (&input[..line], input.get(line + 1..).unwrap_or_default());
    let Ok(written) = std::str::from_utf8(written) else { return };
    let Ok(pointer) = Pointer::parse(written) else { return };
    assert_eq!(Pointer::parse(&pointer.to_string()).as_ref(), Ok(&pointer), "{written:?}");
    // what is found in a beginning is what is found in the whole
    let whole = pointer.find(document, true);
    for end in 0..=document.len() {
        if let Some(found) = pointer.find(&document[..end], false) {
            assert_eq!(Some(&found), whole.as_ref(), "{written:?} {document:?} {end}");
        }
    }
    // and by the book, where no name is said twice
    let Ok(value) = serde_json::from_slice::<Value>(document) else { return };
    let once = serde_json::to_vec(&value).expect("it was JSON");
    let found = pointer.find(&once, true).map(String::from);
    let expected = value.pointer(written).and_then(|value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    });
    assert_eq!(found, expected, "{written:?} {once:?}");
}

/// A file of the configuration: there are settings, or problems, and the same each time.
pub fn configuration(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let sources = Sources {
        files: vec![("routes.toml".to_owned(), text.to_owned())],
        environment: Vec::new(),
        directory: PathBuf::from("."),
    };
    if let Err(problems) = load(&sources) {
        assert!(!problems.is_empty(), "{text:?}");
        let said = problems.to_string();
        assert!(!said.is_empty() && said.len() < 64 * (text.len() + 1024), "{text:?}: {said}");
        let again = load(&sources).expect_err("it was wrong").to_string();
        assert_eq!(said, again, "{text:?}");
    }
}
