//! JSON pointers (RFC 6901), and what they find in a document of which only the beginning may be there.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A pointer to a value inside a document, never to the document itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Box<[Box<str>]>);

impl Pointer {
    /// Reads a pointer: `/order/id`, `/items/0`; `~1` is a slash and `~0` a tilde in a name.
    pub fn parse(written: &str) -> Result<Self, String> {
        let Some(rest) = written.strip_prefix('/') else {
            return Err(format!("\"{written}\" does not begin with a slash\nwrite \"/{written}\""));
        };
        let tildes = written.match_indices('~');
        if tildes.into_iter().any(|(at, _)| !matches!(written.as_bytes().get(at + 1), Some(b'0' | b'1'))) {
            let help = "write ~0 for a tilde and ~1 for a slash in a name";
            return Err(format!("\"{written}\" has a tilde that stands for nothing\n{help}"));
        }
        let name = |part: &str| part.replace("~1", "/").replace("~0", "~").into();
        Ok(Self(rest.split('/').map(name).collect()))
    }

    /// The value it points to, if the document has one: a string's characters, else the text as it stands
    /// there. `null` is no value. The first of several members of one name counts.
    ///
    /// What stands behind the value is not read. A document that is not `whole` may end anywhere: a value
    /// that it cuts off is not found.
    pub fn find<'d>(&self, document: &'d [u8], whole: bool) -> Option<Cow<'d, str>> {
        let mut found = None;
        let seek = Seek { path: &self.0, found: &mut found };
        // fails where the document does, or because the rest of it is not read
        let _ = seek.deserialize(&mut serde_json::Deserializer::from_slice(document));
        let text = found?.get();
        // digits may be missing
        let cut = !whole && text.as_bytes().as_ptr_range().end == document.as_ptr_range().end;
        match text.as_bytes().first()? {
            b'"' => serde_json::from_str(text).ok().map(Cow::Owned),
            b'n' => None,
            b'-' | b'0'..=b'9' if cut => None,
            _ => Some(Cow::Borrowed(text)),
        }
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|name| write!(f, "/{}", name.replace('~', "~0").replace('/', "~1")))
    }
}

/// Goes down the path and keeps the value at its end. It never goes on behind that.
struct Seek<'p, 'f, 'd> {
    path: &'p [Box<str>],
    found: &'f mut Option<&'d RawValue>,
}

impl<'d> DeserializeSeed<'d> for Seek<'_, '_, 'd> {
    type Value = ();

    fn deserialize<D: Deserializer<'d>>(self, value: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            *self.found = Some(<&RawValue>::deserialize(value)?);
            return Ok(());
        }
        value.deserialize_any(self)
    }
}

impl<'d> Visitor<'d> for Seek<'_, '_, 'd> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut members: A) -> Result<(), A::Error> {
        let Some((name, path)) = self.path.split_first() else { return Ok(()) };
        while let Some(is_it) = members.next_key_seed(Named(name))? {
            if is_it {
                return members.next_value_seed(Seek { path, found: self.found });
            }
            members.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'d>>(self, mut elements: A) -> Result<(), A::Error> {
        let Some((index, path)) = self.path.split_first() else { return Ok(()) };
        // no leading zeros (RFC 6901 section 4)
        let index = index.parse::<usize>().ok().filter(|number| number.to_string() == **index);
        for _ in 0..index.unwrap_or(usize::MAX) {
            if elements.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        elements.next_element_seed(Seek { path, found: self.found }).map(drop)
    }
}

/// Whether a member has this name.
struct Named<'n>(&'n str);

impl<'d> DeserializeSeed<'d> for Named<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'d>>(self, name: D) -> Result<bool, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for Named<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Pointer;

    #[test]
    fn a_pointer_finds_the_text_of_one_value() {
        let document = br#"{ "skipped": { "id": [1, {"id": "no"}] }, "id": "o-1\u0041", "n": 4711, "big":
            123456789012345678901234567890, "f": 1.50, "t": true, "none": null, "o": { "a/b": { "c~d": "deep" } },
            "list": [ "zero", { "id": "one" } ], "id": "second", "": { "": "empty" } }"#;
        for (pointer, expected) in [
            ("/id", Some("o-1A")),
            ("/n", Some("4711")),
            ("/big", Some("123456789012345678901234567890")),
            ("/f", Some("1.50")),
            ("/t", Some("true")),
            ("/none", None),
            ("/o/a~1b/c~0d", Some("deep")),
            ("/o/a~1b", Some(r#"{ "c~d": "deep" }"#)),
            ("/list/0", Some("zero")),
            ("/list/1/id", Some("one")),
            ("/list/2", None),
            ("/list/01", None),
            ("/list/-", None),
            ("/list/id", None),
            ("/id/x", None),
            ("/absent", None),
            ("//", Some("empty")),
        ] {
            let parsed = Pointer::parse(pointer).unwrap();
            assert_eq!(parsed.find(document, true).as_deref(), expected, "{pointer}");
            assert_eq!(parsed.to_string(), pointer);
        }
    }

    #[test]
    fn a_document_that_is_cut_off_yields_what_is_whole_in_it() {
        let pointer = Pointer::parse("/id").unwrap();
        for (document, expected) in [
            (r#"{"id":"o-1","items":[{"na"#, Some("o-1")),
            (r#"{"id":"o-1""#, Some("o-1")),
            (r#"{"id":"o-1"#, None),
            (r#"{"id":47"#, None),
            (r#"{"id":47,"#, Some("47")),
            (r#"{"id":tru"#, None),
            (r#"{"items":[1,2"#, None),
            (r#"{"i"#, None),
            ("", None),
        ] {
            assert_eq!(pointer.find(document.as_bytes(), false).as_deref(), expected, "{document}");
        }
    }

    #[test]
    fn what_is_no_json_yields_nothing_and_no_depth_hurts() {
        let pointer = Pointer::parse("/a/a").unwrap();
        let deep = [r#"{"b":"#.repeat(3000), r#"{"a":"#.repeat(3000), "[".repeat(16_000)];
        let deep = deep.iter().map(String::as_bytes);
        let other: [&[u8]; 5] = [b"<html>", b"{\"a\" 1}", b"\xff\xfe", b"{\"a\":{\"a\":\"\xff\"}}", b"{}{}"];
        for document in deep.chain(other) {
            for whole in [true, false] {
                assert_eq!(pointer.find(document, whole), None);
            }
        }
    }

    #[test]
    fn a_pointer_begins_with_a_slash() {
        for (written, what) in
            [("id", "slash"), ("", "slash"), ("#/id", "slash"), ("/a~2", "tilde"), ("/~", "tilde")]
        {
            let error = Pointer::parse(written).expect_err(written);
            assert!(error.contains(what) && error.contains('\n'), "{written}: {error}");
        }
    }
}
