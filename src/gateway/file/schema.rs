//! What may be written: the keys with what they mean, their defaults and their values, made of the file types.
//!
//! Nothing is listed here, so that nothing can be forgotten: the types of the file say it of themselves. A doc
//! comment on a field is the key's description; where it ends in ``Default: `…`.``, that is the value in force while
//! the file is silent, and a test holds it against what the constructors do.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use toml_edit::Document;

use super::{File, document};

/// A key: what it is for, and what may stand there.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is for.
    pub description: String,
    /// The value in force while nothing is written. Of a table, `"off"`, or an empty table if its keys' defaults
    /// count.
    pub default: Option<Value>,
    /// Whether the table means nothing unless it is written.
    pub optional: bool,
    /// Whether `"off"` may stand there.
    pub off: bool,
    /// Whether its value is never told.
    pub secret: bool,
    /// What may stand there.
    pub content: Content,
}

/// What may stand at a key.
#[derive(Debug, Clone)]
pub enum Content {
    /// A table of these keys.
    Table(BTreeMap<String, Node>),
    /// A table of names, each with this.
    Named(Box<Node>),
    /// A value, as these keywords of JSON Schema have it.
    Value(Value),
}

/// The configuration as a whole.
pub fn root() -> Node {
    node(&RAW)
}

/// The JSON Schema (2020-12) of a file.
///
/// No key is required: what one file leaves out may stand in another one, in the environment, or in the defaults of
/// routes.
pub fn schema() -> Value {
    let mut schema = tidy(&RAW);
    let head = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tracegate: routes.toml",
        "description": "The route table of tracegate, a tracing-aware reverse-proxy API gateway.",
    });
    if let (Value::Object(schema), Value::Object(head)) = (&mut schema, head) {
        schema.extend(head);
    }
    schema
}

/// As the types say it of themselves.
static RAW: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<File>().to_value()
});

fn node(raw: &Value) -> Node {
    let (description, default) = described(raw);
    let (raw, optional) = without_null(raw);
    let (on, off) = without_off(raw);
    let content = if let Some(Value::Object(properties)) = on.get("properties") {
        let child = |(name, raw): (&String, &Value)| (name.clone(), node(raw));
        Content::Table(properties.iter().map(child).collect())
    } else if let Some(named @ Value::Object(_)) = on.get("additionalProperties") {
        Content::Named(Box::new(node(named)))
    } else {
        Content::Value(tidy(on))
    };
    let secret = on.get("writeOnly") == Some(&Value::Bool(true));
    let description = if description.is_empty() { described(on).0 } else { description };
    Node { description, default, optional, off, secret, content }
}

/// What a key is for, and its default.
fn described(raw: &Value) -> (String, Option<Value>) {
    let text = raw.get("description").and_then(Value::as_str).unwrap_or_default();
    let text = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    match text.strip_suffix("`.").and_then(|text| text.rsplit_once("Default: `")) {
        Some((what, default)) => (what.trim_end().to_owned(), Some(read(default))),
        None => (text, raw.get("default").cloned()),
    }
}

/// A value as the file would have it.
fn read(written: &str) -> Value {
    let text = format!("value = {written}");
    let document = Document::parse(text.as_str()).expect("a default is written as in the file");
    let values = document::dict(document.as_table());
    serde_json::to_value(&values["value"]).expect("plain values become JSON")
}

/// An optional value without its absence, which no file can write, and whether it was optional.
fn without_null(raw: &Value) -> (&Value, bool) {
    let is_null = |option: &Value| option.get("type") == Some(&json!("null"));
    match raw.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([some, null]) if is_null(null) => (some, true),
        _ => (
            raw,
            raw.get("type").and_then(Value::as_array).is_some_and(|types| types.contains(&json!("null"))),
        ),
    }
}

/// A value without `"off"`, and whether that may stand in its place.
fn without_off(raw: &Value) -> (&Value, bool) {
    let is_off = |option: &Value| option.get("const") == Some(&json!("off"));
    match raw.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([on, off]) if is_off(off) => (on, true),
        _ => (raw, false),
    }
}

/// The schema of a key as others read it: closed tables, no key required, defaults apart from descriptions.
fn tidy(raw: &Value) -> Value {
    if !raw.is_object() {
        return raw.clone();
    }
    let (description, default) = described(raw);
    let (inner, _) = without_null(raw);
    let mut tidied = Map::new();
    for (keyword, value) in inner.as_object().into_iter().flatten() {
        let value = match keyword.as_str() {
            "properties" => {
                let tidied = value.as_object().into_iter().flatten();
                tidied.map(|(name, raw)| (name.clone(), tidy(raw))).collect()
            }
            "additionalProperties" | "items" => tidy(value),
            "anyOf" => value.as_array().into_iter().flatten().map(tidy).collect(),
            "type" => match value.as_array().map(Vec::as_slice) {
                Some([some, _]) => some.clone(),
                _ => value.clone(),
            },
            "required" | "format" | "title" | "$schema" => continue,
            _ => value.clone(),
        };
        tidied.insert(keyword.clone(), value);
    }
    if tidied.contains_key("properties") {
        tidied.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    if !description.is_empty() {
        tidied.insert("description".to_owned(), description.into());
    }
    // an empty table stands for the defaults of its keys
    match default.filter(|default| *default != json!({})) {
        Some(default) => tidied.insert("default".to_owned(), default),
        None => tidied.remove("default"),
    };
    Value::Object(tidied)
}
