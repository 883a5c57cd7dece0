//! One file: its values, and where each of its keys stands.

use std::fmt::Write as _;
use std::ops::Range;

use figment::value::{Dict, Value};
use toml::de::{DeTable, DeValue};
use toml_edit::{Document, Item, TableLike, TomlError};

use super::layer::{Places, Spot};
use crate::problem::{Key, Place, Problem, Problems};

/// Reads what a file says, the one of this number and name.
///
/// `toml` has the values in half the time; what it does not take is told by `toml_edit`, which has the same grammar
/// (both stand on `toml_parser`) and keeps where everything stands.
pub(super) fn parse(source: usize, origin: &str, text: &str) -> Result<Dict, Problems> {
    if let Some(values) = DeTable::parse(text).ok().and_then(|table| values(table.into_inner())) {
        return Ok(values);
    }
    let syntax = |error| Problems::from(Lines::new(source, origin, text).syntax(&error));
    let document = Document::parse(text).map_err(syntax)?;
    Ok(dict(document.as_table()))
}

/// Finds where the keys of a file stand; none if it cannot be read. Asked for when something is wrong: of many
/// thousand keys it takes longer than the reading.
pub(super) fn places(source: usize, origin: &str, text: &str) -> Places {
    let lines = Lines::new(source, origin, text);
    let start = lines.place(Some(0..0));
    let mut places = Places::from([(Key::root(), Spot { key: start.clone(), value: start })]);
    if let Ok(document) = Document::parse(text) {
        Walk { lines: &lines, places: &mut places }.table(&Key::root(), document.as_table());
    }
    places
}

/// The same values as a text.
pub(super) fn write(values: &Dict) -> String {
    let mut text = String::new();
    write_table(&mut text, &Key::root(), values);
    text
}

/// What is no table comes first: after the header of another table it would be that one's.
fn write_table(text: &mut String, key: &Key, values: &Dict) {
    let (tables, plain): (Vec<_>, Vec<_>) = values.iter().partition(|(_, value)| value.as_dict().is_some());
    if !key.is_root() {
        writeln!(text, "[{key}]").expect(TO_MEMORY);
    }
    for (name, value) in plain {
        writeln!(text, "{} = {}", Key::root().child(name), written(value)).expect(TO_MEMORY);
    }
    for (name, value) in tables {
        if let Value::Dict(_, table) = value {
            write_table(text, &key.child(name), table);
        }
    }
}

const TO_MEMORY: &str = "writing to memory does not fail";

/// A value within a line.
fn written(value: &Value) -> String {
    match value {
        // TOML's escapes are those of JSON
        Value::String(_, text) => serde_json::Value::from(text.as_str()).to_string(),
        Value::Bool(_, truth) => truth.to_string(),
        Value::Array(_, elements) => {
            format!("[{}]", elements.iter().map(written).collect::<Vec<_>>().join(", "))
        }
        Value::Dict(_, table) => {
            let entry = |(name, value): (&String, &Value)| {
                format!("{} = {}", Key::root().child(name), written(value))
            };
            format!("{{ {} }}", table.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        number => match (number.to_i128(), number.to_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(fraction)) => format!("{fraction:?}"),
            (None, None) => String::from("\"\""),
        },
    }
}

/// The values of a table, unless one of its numbers cannot be held.
fn values(table: DeTable<'_>) -> Option<Dict> {
    table
        .into_iter()
        .map(|(name, value)| Some((name.into_inner().into_owned(), plain(value.into_inner())?)))
        .collect()
}

fn plain(value: DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::from(text.into_owned()),
        DeValue::Integer(number) => Value::from(i64::from_str_radix(number.as_str(), number.radix()).ok()?),
        DeValue::Float(number) => {
            Value::from(number.as_str().parse::<f64>().ok().filter(|number| number.is_finite())?)
        }
        DeValue::Boolean(truth) => Value::from(truth),
        DeValue::Datetime(moment) => Value::from(moment.to_string()),
        DeValue::Table(table) => Value::from(values(table)?),
        DeValue::Array(elements) => {
            let elements = elements.into_iter().map(|element| plain(element.into_inner()));
            Value::from(elements.collect::<Option<Vec<_>>>()?)
        }
    })
}

pub(super) fn dict(table: &dyn TableLike) -> Dict {
    table.iter().map(|(name, item)| (name.to_owned(), item_value(item))).collect()
}

fn item_value(item: &Item) -> Value {
    match item {
        Item::None => Value::from(""),
        Item::Value(written) => value(written),
        Item::Table(table) => Value::from(dict(table)),
        Item::ArrayOfTables(tables) => {
            let tables = tables.iter().map(|table| Value::from(dict(table)));
            Value::from(tables.collect::<Vec<_>>())
        }
    }
}

fn value(value: &toml_edit::Value) -> Value {
    use toml_edit::Value as Written;

    match value {
        Written::String(text) => Value::from(text.value().as_str()),
        Written::Integer(number) => Value::from(*number.value()),
        Written::Float(number) => Value::from(*number.value()),
        Written::Boolean(truth) => Value::from(*truth.value()),
        Written::Datetime(moment) => Value::from(moment.value().to_string()),
        Written::InlineTable(table) => Value::from(dict(table)),
        Written::Array(elements) => Value::from(elements.iter().map(self::value).collect::<Vec<_>>()),
    }
}

/// Walks a document and notes where its keys stand.
struct Walk<'a> {
    lines: &'a Lines<'a>,
    places: &'a mut Places,
}

impl Walk<'_> {
    fn table(&mut self, path: &Key, table: &dyn TableLike) {
        for (name, item) in table.iter() {
            let path = path.child(name);
            let written = table.key(name).and_then(toml_edit::Key::span);
            let key = self.lines.place(written);
            // Tables that only appear in the headers of others have no header of their own.
            let implied = item.as_table().is_some_and(|table| table.is_implicit() || table.is_dotted());
            let value = if implied { key.clone() } else { self.lines.place(item.span()) };
            self.places.insert(path.clone(), Spot { key, value });
            self.item(&path, item);
        }
    }

    fn item(&mut self, path: &Key, item: &Item) {
        match item {
            Item::None => {}
            Item::Value(value) => self.value(path, value),
            Item::Table(table) => self.table(path, table),
            Item::ArrayOfTables(tables) => {
                for (index, table) in tables.iter().enumerate() {
                    let path = path.index(index);
                    self.element(&path, table.span());
                    self.table(&path, table);
                }
            }
        }
    }

    fn value(&mut self, path: &Key, value: &toml_edit::Value) {
        if let Some(table) = value.as_inline_table() {
            self.table(path, table);
        }
        for (index, element) in value.as_array().into_iter().flatten().enumerate() {
            let path = path.index(index);
            self.element(&path, element.span());
            self.value(&path, element);
        }
    }

    fn element(&mut self, path: &Key, span: Option<Range<usize>>) {
        let place = self.lines.place(span);
        self.places.insert(path.clone(), Spot { key: place.clone(), value: place });
    }
}

/// A text by lines, to turn an offset into a line and a column.
struct Lines<'a> {
    source: usize,
    origin: &'a str,
    text: &'a str,
    /// Where each line begins.
    begins: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(source: usize, origin: &'a str, text: &'a str) -> Self {
        let after_breaks =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        let begins = std::iter::once(0).chain(after_breaks).collect();
        Self { source, origin, text, begins }
    }

    fn place(&self, span: Option<Range<usize>>) -> Place {
        let bytes = span.as_ref().map(|span| (span.start, span.end));
        let position = span.map(|span| {
            let line = self.begins.partition_point(|begin| *begin <= span.start);
            let before = self.text.get(self.begins[line - 1]..span.start).unwrap_or_default();
            (line, before.chars().count() + 1)
        });
        Place { source: self.source, position, span: bytes, origin: self.origin.to_owned() }
    }

    fn syntax(&self, error: &TomlError) -> Problem {
        let what = error.message().trim().replace('\n', ", ");
        Problem::in_source(self.place(error.span()), format!("is not TOML: {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, path: &[&str], key: (usize, usize), value: (usize, usize)) {
        let spot = &places(0, "routes.toml", text)[&path.iter().copied().collect::<Key>()];
        assert_eq!((spot.key.position, spot.value.position), (Some(key), Some(value)), "{path:?} in\n{text}");
    }

    #[test]
    fn what_is_written_is_read_as_the_same_values() {
        let text = "a = 1\nb = 2.5\nc = true\nd = \"x\\n\\\"é\\u0001\"\ne = [1, [\"y\"], { f = 3 }]\n\
                    [g]\n\"h.i\" = { j = [] }\n[g.k.l]\nm = -4\n[n]\n";
        let values = parse(0, "", text).expect("TOML");
        assert_eq!(
            parse(0, "", &write(&values)),
            Ok(values),
            "{}",
            write(&parse(0, "", text).expect("TOML"))
        );
    }

    #[test]
    fn both_parsers_have_the_same_values_and_refuse_the_same() {
        for text in [
            include_str!("../../../routes.toml"),
            "a = 0x1F\nb = 0o17\nc = 0b11\nd = 1_000\ne = -0\nf = +7\ng = 9223372036854775807",
            "a = 1e3\nb = -0.5\nc = 1_0.2_5\nd = 6.626e-34\ne = true",
            "a = 1979-05-27T07:32:00Z\nb = 07:32:00\nc = 1979-05-27",
            "a = \"\"\"\nx\\\n  y\"\"\"\nb = ['\\', \"\\u00e9\\n\"]\n\"c d\".'e' = 1",
            "a.b.c = 1\na.b.d = 2\n[a.e]\nf = [1, [2], {g = 3}]\n[[h]]\ni = 1\n[[h]]\n[h.j]\nk = 2",
            "[a.b]\n[a]\nc = 1\r\n\"d e\" = 1 # f",
            "a = {b = 1,\nc = 2,}",
            "a = 1\na = 2",
            "[a]\n[a]",
            "a.b = 1\n[a]\nc = 2",
            "a = {b = 1}\n[a.c]",
            "a = [1]\n[[a]]",
            "a = 01",
            "a = \"x",
            "= 1",
        ] {
            let told = Document::parse(text).ok().map(|document| dict(document.as_table()));
            let read = DeTable::parse(text).ok().map(|table| values(table.into_inner()));
            assert_eq!(read, told.map(Some), "{text}");
        }
        // what cannot be held, or may not be, is left to the one that tells why
        for text in ["a = 9223372036854775808", "a = 1e400", "a = inf", "a = [nan]"] {
            let read = DeTable::parse(text).ok().and_then(|table| values(table.into_inner()));
            assert_eq!(read, None, "{text}");
        }
    }

    #[test]
    fn every_key_has_its_line_and_column() {
        let tables =
            "# first\n[upstreams.shop]\nendpoints = [\n  \"a\",\n  \"ü\", \"b\",\n]\n\n  [ admin ]\n";
        check(tables, &["upstreams"], (2, 2), (2, 2));
        check(tables, &["upstreams", "shop"], (2, 12), (2, 1));
        check(tables, &["upstreams", "shop", "endpoints"], (3, 1), (3, 13));
        check(tables, &["upstreams", "shop", "endpoints", "[0]"], (4, 3), (4, 3));
        check(tables, &["upstreams", "shop", "endpoints", "[2]"], (5, 8), (5, 8));
        check(tables, &["admin"], (8, 5), (8, 3));

        let inline = "[routes.a]\nmatch = { path = \"/\", headers = { \"x-a\" = true } }\npool.idle = 4\n";
        check(inline, &["routes", "a", "match"], (2, 1), (2, 9));
        check(inline, &["routes", "a", "match", "path"], (2, 11), (2, 18));
        check(inline, &["routes", "a", "match", "headers", "x-a"], (2, 35), (2, 43));
        check(inline, &["routes", "a", "pool"], (3, 1), (3, 1));
        check(inline, &["routes", "a", "pool", "idle"], (3, 6), (3, 13));

        let lists = "[[rules]]\na = 1\n[[rules]]\na = 2\r\nb = 3\n";
        check(lists, &["rules", "[1]"], (3, 1), (3, 1));
        check(lists, &["rules", "[1]", "b"], (5, 1), (5, 5));
    }

    #[test]
    fn what_is_not_toml_is_told_with_its_place() {
        let text = "[admin]\naddress = 127.0.0.1\n";
        let problem = parse(0, "routes.toml", text).expect_err("no TOML").to_string();
        assert!(problem.starts_with("routes.toml:2:"), "{problem}");
    }
}
