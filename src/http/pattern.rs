//! Texts with placeholders: what stands in a path that is rewritten, a redirect's target, a header field.

use super::exchange::Routed;
use super::shape::parameter_names;
use crate::telemetry::Handle;

/// A text with placeholders, taken to pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<[Piece]>);

/// A piece of a [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(Box<str>),
    /// The path parameter at this place of the route's own template.
    Parameter(usize),
    /// `{path}`: the whole path of the request, normalised, before any rewrite.
    Path,
    /// `{host}`: the host of the request, without port.
    Host,
    /// `{request_id}`: what `X-Request-Id` says.
    RequestId,
    /// `{trace_id}`: the trace's id, in hexadecimal digits.
    TraceId,
}

/// The placeholders beside the names of path parameters.
pub const WORDS: [(&str, Piece); 4] = [
    ("host", Piece::Host),
    ("path", Piece::Path),
    ("request_id", Piece::RequestId),
    ("trace_id", Piece::TraceId),
];

impl Pattern {
    /// Takes a text to pieces. A parameter of the route's template hides a word of the same name; `{{` and `}}`
    /// are braces. `Err` is the first name that is neither, or empty for a brace that is none.
    pub fn parse<'t>(text: &'t str, template: &str, words: &[(&str, Piece)]) -> Result<Self, &'t str> {
        let parameters = parameter_names(template);
        let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let (name, after) = after.split_once('}').filter(|_| brace == "{").ok_or("")?;
            let parameter = parameters.iter().position(|known| *known == name.trim_start_matches('*'));
            let word = || words.iter().find(|(word, _)| *word == name).map(|(_, piece)| piece.clone());
            let piece = parameter.map(Piece::Parameter).or_else(word).ok_or(name)?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(piece);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Self(pieces.into()))
    }

    /// Its pieces, from left to right.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// The text, if nothing has to be filled in.
    pub fn fixed(&self) -> Option<&str> {
        match &*self.0 {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether parameters of the path are filled in.
    pub fn reads_parameters(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Parameter(_)))
    }

    /// The text with these facts filled in.
    pub(super) fn fill(&self, facts: &Facts<'_>) -> String {
        let mut text = String::new();
        for piece in &*self.0 {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Parameter(index) => {
                    text.push_str(facts.parameters.get(*index).map_or("", |value| value));
                }
                Piece::Path => text.push_str(facts.path),
                Piece::Host => text.push_str(facts.host),
                Piece::RequestId => {
                    text.push_str(facts.handle.request_id.for_exchange().to_str().unwrap_or_default());
                }
                Piece::TraceId => text.push_str(&facts.handle.context.trace_id.to_string()),
            }
        }
        text
    }
}

/// What a [`Pattern`] is filled with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    handle: &'a Handle,
    parameters: &'a [Box<str>],
    path: &'a str,
    host: &'a str,
}

impl<'a> Facts<'a> {
    /// What a request says.
    pub(super) fn of(request: &'a Routed) -> Self {
        Self {
            handle: &request.handle,
            parameters: &request.parameters,
            path: request.head.uri.path(),
            host: &request.host,
        }
    }

    /// What is known of an exchange whose request has gone its way.
    pub(super) fn of_exchange(handle: &'a Handle) -> Self {
        Self { handle, parameters: &[], path: "", host: "" }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pattern, Piece, WORDS};

    #[test]
    fn a_text_is_taken_to_pieces() {
        let text = |text: &str| Piece::Text(text.into());
        for (written, expected) in [
            ("", Ok(vec![])),
            ("plain", Ok(vec![text("plain")])),
            ("/v2/{id}/{*rest}", Ok(vec![text("/v2/"), Piece::Parameter(0), text("/"), Piece::Parameter(1)])),
            ("{rest}", Ok(vec![Piece::Parameter(1)])),
            ("{{a}} {trace_id}", Ok(vec![text("{a} "), Piece::TraceId])),
            ("{path}", Ok(vec![Piece::Path])),
            ("{nobody}", Err("nobody")),
            ("{id", Err("")),
            ("id}", Err("")),
            ("{}", Err("")),
        ] {
            let pieces = Pattern::parse(written, "/orders/{id}/{*rest}", &WORDS);
            assert_eq!(pieces.map(|pattern| pattern.pieces().to_vec()), expected, "{written}");
        }
    }

    #[test]
    fn a_parameter_hides_a_word() {
        let pattern = Pattern::parse("{host}", "/hosts/{host}", &WORDS).expect("a pattern");
        assert_eq!(pattern.pieces(), [Piece::Parameter(0)]);
        assert!(pattern.reads_parameters());
    }
}
