//! Path templates: `/shop/orders/{order_id}`, `/shop/{*rest}`.

use std::fmt;

use serde::{Deserialize, Deserializer};

use super::super::shape::parameter_names;
use crate::setting::leaf::{schema, text};

/// A path template that the router takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Box<str>);

impl Template {
    /// Checks a template as the router will.
    pub fn parse(written: &str) -> Result<Self, String> {
        let wrong = |what: &str, help: &str| Err(format!("\"{written}\" {what}\nwrite {help}"));
        plain(written)?;
        let template = Self(written.into());
        if let Err(error) = matchit::Router::new().insert(written, ()) {
            use matchit::InsertError;
            return match error {
                InsertError::InvalidParamSegment => {
                    wrong("has a segment of two parameters", "one for each segment")
                }
                InsertError::InvalidCatchAll => {
                    wrong("has more behind a catch-all", "the catch-all last: /shop/{*rest}")
                }
                _ => wrong(
                    "has a parameter without a name or a brace",
                    "parameters in braces: /orders/{order_id}",
                ),
            };
        }
        if written.contains("{{") || written.contains("}}") {
            return wrong("has two braces in a row", "braces around parameters only: /orders/{order_id}");
        }
        if written.split('/').any(|segment| segment.contains("{*") && !(segment.starts_with("{*"))) {
            return wrong("has a catch-all within a segment", "a whole segment: /shop/{*rest}");
        }
        let names: Vec<&str> = template.parameters().collect();
        match names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
            Some((_, name)) => wrong(&format!("has two parameters {name}"), "another name for one of them"),
            None => Ok(template),
        }
    }

    /// The names of its parameters, from left to right.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        parameter_names(&self.0).into_iter()
    }

    /// Whether each path that it matches begins with these segments.
    pub(super) fn begins_with(&self, prefix: &Prefix) -> bool {
        self.0.strip_prefix(&*prefix.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Its first segment, unless it is a parameter.
    pub(super) fn first_segment(&self) -> Option<&str> {
        let end = self.0[1..].find('/').map_or(self.0.len(), |slash| slash + 1);
        Some(&self.0[..end]).filter(|segment| segment.len() > 1 && !segment.contains('{'))
    }

    /// The text.
    pub fn into_text(self) -> Box<str> {
        self.0
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a path", Self::parse)
    }
}

schema!(Template, { "type": "string", "examples": ["/shop/orders/{order_id}", "/shop/{*rest}"], "pattern": "^/[!-~]*$" });

/// Whole segments that a path begins with: `/shop`, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(Box<str>);

impl Prefix {
    /// Checks a prefix.
    pub fn parse(written: &str) -> Result<Self, String> {
        plain(written)?;
        if written.contains(['{', '}']) {
            return Err(format!("\"{written}\" has a parameter\nwrite rewrite_path, which takes parameters"));
        }
        match written.strip_suffix('/') {
            Some("") => Err("\"/\" would strip nothing\nleave it out".to_owned()),
            Some(short) => Err(format!("\"{written}\" ends with a slash\nwrite \"{short}\"")),
            None => Ok(Self(written.into())),
        }
    }

    /// The text.
    pub fn into_text(self) -> Box<str> {
        self.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a path", Self::parse)
    }
}

schema!(Prefix, { "type": "string", "examples": ["/shop"], "pattern": "^/[!-z|~]*[^/{}]$" });

/// Refuses what no normalised path looks like, so that no template waits for a path that never comes.
fn plain(written: &str) -> Result<(), String> {
    let wrong = |what: &str, help: &str| Err(format!("\"{written}\" {what}\nwrite {help}"));
    let Some(path) = written.strip_prefix('/') else {
        return wrong("does not begin with a slash", &format!("\"/{written}\""));
    };
    if written.contains(['?', '#']) {
        return wrong("has a query or a fragment, which are not routed by", "the path alone");
    }
    if written.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'\\') {
        return wrong("has a space, a backslash or a letter that stands in no path", "it percent-encoded");
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) || written.contains("//") {
        return wrong("has an empty or a dot segment, which no normalised path has", "the path without it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_knows_its_parameters() {
        for (template, parameters) in [
            ("/", vec![]),
            ("/shop/orders", vec![]),
            ("/shop/orders/{order_id}/v{n}", vec!["order_id", "n"]),
            ("/shop/{*rest}", vec!["rest"]),
        ] {
            let parsed = Template::parse(template).expect(template);
            assert_eq!(parsed.parameters().collect::<Vec<_>>(), parameters, "{template}");
        }
    }

    #[test]
    fn what_matches_nothing_is_no_template() {
        for (template, what) in [
            ("", "does not begin with a slash"),
            ("shop", "does not begin with a slash"),
            ("/shop?a", "query"),
            ("/shop//orders", "empty or a dot segment"),
            ("/shop/../mes", "empty or a dot segment"),
            ("/sh op", "space"),
            ("/shöp", "letter"),
            ("/shop/{", "without a name or a brace"),
            ("/shop/{}", "without a name or a brace"),
            ("/shop/{a}{b}", "two parameters"),
            ("/shop/{*rest}/orders", "behind a catch-all"),
            ("/shop/x{*rest}", "within a segment"),
            ("/shop/{{a}}", "two braces"),
            ("/{a}/{a}", "two parameters a"),
        ] {
            let error = Template::parse(template).expect_err(template);
            assert!(error.contains(what) && error.contains('\n'), "{template}: {error}");
        }
    }

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        let prefix = Prefix::parse("/shop").expect("a prefix");
        for (template, begins) in [
            ("/shop", true),
            ("/shop/", true),
            ("/shop/{*rest}", true),
            ("/shopping", false),
            ("/{shop}", false),
            ("/", false),
        ] {
            assert_eq!(Template::parse(template).expect(template).begins_with(&prefix), begins, "{template}");
        }
        for wrong in ["shop", "/", "/shop/", "/shop/{id}"] {
            assert!(Prefix::parse(wrong).is_err(), "{wrong}");
        }
    }
}
