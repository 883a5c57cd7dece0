//! A value as the file would have it.

use serde_json::Value;

/// Writes a value in TOML, in one line.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::Object(table) if table.is_empty() => "{}".to_owned(),
        Value::Object(table) => {
            let pairs =
                table.iter().map(|(name, value)| format!("{} = {}", name_of(name), self::value(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        Value::Array(elements) => {
            format!("[{}]", elements.iter().map(self::value).collect::<Vec<_>>().join(", "))
        }
        // texts of JSON are texts of TOML
        other => other.to_string(),
    }
}

fn name_of(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { Value::from(name).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::value;

    #[test]
    fn a_value_can_be_put_into_a_file() {
        for (json, toml) in [
            (json!("a\"b"), r#""a\"b""#),
            (json!(0.1), "0.1"),
            (json!(["a", 1, true]), r#"["a", 1, true]"#),
            (json!({ "url": "http://a", "order.id": 3 }), r#"{ "order.id" = 3, url = "http://a" }"#),
            (json!({}), "{}"),
        ] {
            assert_eq!(value(&json), toml);
        }
    }
}
