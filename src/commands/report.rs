//! How problems of a configuration are shown: to people as rustc does, to programs as JSON.

use std::io::IsTerminal;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use crate::gateway::file::Sources;
use crate::problem::{Place, Problem, Problems};

/// The problems as rustc would show them: what is wrong, where, the line with the value underlined, and what to write
/// instead. What an environment variable says is not repeated: it may be a secret.
pub(super) fn shown(problems: &Problems, sources: &Sources, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let told = problems.iter().map(|problem| renderer.render(&[group(problem, sources)]));
    let mut told: Vec<String> = told.collect();
    let count = super::counted(problems.len(), "problem");
    told.push(renderer.render(&[Group::with_title(Level::ERROR.primary_title(count))]));
    told.join("\n\n") + "\n"
}

/// Whether standard error shows colours: it is a terminal, and `NO_COLOR` is not set (no-color.org).
pub(super) fn is_colourful() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A problem as an object: what, where, and what to write instead.
pub(super) fn object(problem: &Problem) -> Value {
    let Place { position, span, origin, .. } = &problem.place;
    json!({
        "key": problem.key.to_string(),
        "message": problem.what,
        "help": problem.help,
        "origin": origin,
        "line": position.map(|(line, _)| line),
        "column": position.map(|(_, column)| column),
        "bytes": span.map(|(start, end)| [start, end]),
    })
}

fn group<'a>(problem: &'a Problem, sources: &'a Sources) -> Group<'a> {
    let key = if problem.key.is_root() { String::new() } else { format!("{}: ", problem.key) };
    let group = Group::with_title(Level::ERROR.primary_title(format!("{key}{}", problem.what)));
    let place = &problem.place;
    let text = sources.files.get(place.source).map(|(_, text)| text.as_str());
    let group = match (text, place.span, place.position) {
        (Some(text), Some(span), Some(_)) => {
            let snippet = Snippet::source(text).path(place.origin.as_str());
            group.element(snippet.annotation(AnnotationKind::Primary.span(first_line(text, span))))
        }
        _ if place.origin.is_empty() => group,
        _ => group.element(Origin::path(place.origin.as_str())),
    };
    match &problem.help {
        Some(help) => group.element(Level::HELP.message(help.as_str())),
        None => group,
    }
}

/// As much of it as stands in its first line.
fn first_line(text: &str, (start, end): (usize, usize)) -> std::ops::Range<usize> {
    let value = text.get(start..end).unwrap_or_default();
    let line = value.lines().next().unwrap_or_default().trim_end();
    start.min(text.len())..(start + line.len()).max(start + usize::from(!value.is_empty())).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::shown;
    use crate::gateway::file::{Sources, load};

    #[test]
    fn a_problem_is_shown_with_its_line_its_value_underlined_and_what_to_write() {
        let text = "[listeners.public]\naddress = \"localhost:8080\"\ntimeouts = { idle = 60 }\nadress = 1\n\n\
                    [upstreams.shop]\nendpoints = [\n  \"http://ü:x\",\n]\n";
        let sources = Sources {
            files: vec![("routes.toml".to_owned(), text.to_owned())],
            environment: vec![("TRACEGATE_ADMIN__ADDRESS".to_owned(), "hunter2".to_owned())],
            ..Sources::default()
        };
        let problems = load(&sources).unwrap_err();
        let shown = shown(&problems, &sources, false);
        let expected = r#"error: listeners.public.address: "localhost:8080" is neither an IP address and a port nor a Unix socket
 --> routes.toml:2:11
  |
2 | address = "localhost:8080"
  |           ^^^^^^^^^^^^^^^^
  |
  = help: write "127.0.0.1:8080", "0.0.0.0:8080", "[::]:8080" or "unix:/run/tracegate.sock"

error: listeners.public.timeouts.idle: 60 has no unit
 --> routes.toml:3:21
  |
3 | timeouts = { idle = 60 }
  |                     ^^
  |
  = help: write a whole number and a unit: "250ms", "10s", "5m", "1h" or "14d"

error: listeners.public.adress: is not a key
 --> routes.toml:4:1
  |
4 | adress = 1
  | ^^^^^^
  |
  = help: write address

"#;
        assert!(shown.starts_with(expected), "{shown}");
        assert!(shown.contains("8 |   \"http://ü:x\",\n  |   ^^^^^^^^^^^^\n"), "{shown}");
        assert!(
            shown.contains("--> TRACEGATE_ADMIN__ADDRESS\n") && shown.ends_with("\nerror: 5 problems\n"),
            "{shown}"
        );
    }
}
