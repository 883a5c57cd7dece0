//! `tracegate reference`: the reference of keys, metrics, attributes and reasons as Markdown, made of the code.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::explain::reasons;
use super::toml;
use crate::failure::{Detail, Reason};
use crate::gateway::file::schema::{self, Content, Node};
use crate::telemetry::metrics::family::{self, Kind};
use crate::telemetry::spans::attributes;

/// Of what.
#[derive(Debug, Args)]
pub struct Options {
    /// The page
    #[arg(value_enum)]
    page: Page,
}

/// A page of the reference.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Page {
    /// Every key of the configuration
    Keys,
    /// Every metric
    Metrics,
    /// Every attribute of spans
    Attributes,
    /// Every reason
    Reasons,
}

/// Prints a page.
pub fn print(options: &Options) -> ExitCode {
    match io::stdout().write_all(page(options.page).as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A page as Markdown.
pub fn page(page: Page) -> String {
    let (title, rest) = match page {
        Page::Keys => ("Keys", keys()),
        Page::Metrics => ("Metrics", metrics()),
        Page::Attributes => ("Attributes of spans", of_spans()),
        Page::Reasons => ("Reasons", of_failures()),
    };
    format!("# {title}\n\n{GENERATED}\n\n{rest}")
}

const GENERATED: &str =
    "<!-- Made of the code by `tracegate reference`; a test holds it equal. Do not edit. -->";

fn keys() -> String {
    let mut text =
        "Every key of `routes.toml`. `NAME` is a name of your own; a default holds while the key is not \
                    written.\n"
            .to_owned();
    if let Content::Table(tables) = schema::root().content {
        for (name, node) in tables {
            let _ = write!(
                text,
                "\n## {name}\n\n{}\n\n| key | meaning | default | value |\n|---|---|---|---|\n",
                node.description
            );
            rows(&mut text, &name, &node);
        }
    }
    text
}

/// A row for the key, or for each key in it.
fn rows(text: &mut String, key: &str, node: &Node) {
    let default =
        node.default.as_ref().map_or_else(String::new, |default| format!("`{}`", toml::value(default)));
    let off = if node.off { " or `\"off\"`" } else { "" };
    let mut row = |value: &str| {
        let cells = [format!("`{key}`"), node.description.clone(), default.clone(), value.to_owned()];
        let _ = writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    };
    match &node.content {
        Content::Value(keywords) => row(&format!("{}{off}", value(keywords))),
        Content::Table(_) if key.contains("defaults.route") => row("as `routes.NAME`"),
        Content::Table(keys) => {
            if key.contains('.') {
                row(&format!("a table{off}"));
            }
            for (name, node) in keys {
                rows(text, &format!("{key}.{name}"), node);
            }
        }
        Content::Named(named) => {
            if key.contains('.') {
                row("a table of names");
            }
            rows(text, &format!("{key}.NAME"), named);
        }
    }
}

/// What may stand there, in words.
fn value(keywords: &Value) -> String {
    let list = |values: &Value| {
        let values = values.as_array().into_iter().flatten();
        values.map(|value| format!("`{}`", toml::value(value))).collect::<Vec<_>>().join(", ")
    };
    if let Some(words) = keywords.get("enum") {
        return list(words);
    }
    if let Some(word) = keywords.get("const") {
        return format!("`{}`", toml::value(word));
    }
    if let Some(options) = keywords.get("anyOf").and_then(Value::as_array) {
        return options.iter().map(value).collect::<Vec<_>>().join(" or ");
    }
    let kind = match keywords.get("type").and_then(Value::as_str) {
        Some("string") => "a text",
        Some("integer") => "a whole number",
        Some("number") => "a number",
        Some("boolean") => "`true` or `false`",
        Some("array") => return format!("a list of {}", keywords.get("items").map_or(String::new(), value)),
        _ => "a table",
    };
    match keywords.get("examples") {
        Some(examples) => format!("{kind} such as {}", list(examples)),
        None => kind.to_owned(),
    }
}

fn metrics() -> String {
    let mut text = "Every metric on `/metrics`. A series leaves out the labels of what its exchange had none of. What the \
                    values of `outcome` and the like are: [Metrics](../telemetry/metrics.md).\n\n\
                    | metric | kind | labels | meaning |\n|---|---|---|---|\n"
        .to_owned();
    for family in family::ALL {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Info => "gauge, always 1",
            Kind::Seconds | Kind::Short | Kind::Long => "histogram of seconds",
            Kind::Bytes => "histogram of bytes",
        };
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if family.kind == Kind::Info && labels.is_empty() {
            "the resource's attributes".to_owned()
        } else {
            labels.join(", ")
        };
        let _ = writeln!(text, "| `{}` | {kind} | {labels} | {} |", family.name, family.help);
    }
    text
}

fn of_spans() -> String {
    let mut text = "Every attribute of spans. Beside these stand the business attributes that routes name \
                    (`order.id`) and the header fields that `telemetry.privacy.headers` lists.\n\n\
                    | attribute | spans | meaning |\n|---|---|---|\n"
        .to_owned();
    for attribute in attributes::ALL {
        let _ = writeln!(text, "| `{}` | {} | {} |", attribute.key, attribute.spans, attribute.meaning);
    }
    text
}

fn of_failures() -> String {
    let mut text =
        "The one closed vocabulary of why an exchange did not simply succeed: the same word in metrics, \
                    spans, logs and answers.\n\n| reason | blame | answer | meaning |\n|---|---|---|---|\n"
            .to_owned();
    for &reason in Reason::ALL {
        let (word, blame) = (reason.word(), reason.blame().word());
        let _ = writeln!(
            text,
            "| [`{word}`](#{word}) | {blame} | {} | {} |",
            reasons::answer(reason),
            reason.meaning()
        );
    }
    for &reason in Reason::ALL {
        let _ = write!(text, "\n## {}\n\n{}\n\n", reason.word(), reason.meaning());
        for cause in reasons::causes(reason) {
            let _ = writeln!(text, "- {cause}");
        }
        text.push('\n');
        for (place, query) in reasons::queries(reason) {
            let _ = writeln!(text, "{place}: `{query}`\n");
        }
    }
    let details: Vec<_> = Detail::ALL.iter().map(|detail| format!("`{}`", detail.word())).collect();
    let _ = write!(text, "## Details\n\nThe finer words beside a reason: {}.\n", details.join(", "));
    text
}
