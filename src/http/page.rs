//! Error pages for people: the built-in one, or an operator's own HTML with placeholders.

use std::fmt::Write;

use bytes::Bytes;
use http::StatusCode;

use crate::failure::Reason;

/// An HTML page that tells of a failure.
#[derive(Debug, Clone)]
pub struct Page(Box<[Part]>);

#[derive(Debug, Clone)]
enum Part {
    Text(Box<str>),
    Status,
    Title,
    Reason,
    Meaning,
    TraceId,
    RequestId,
}

/// What a page tells. Nothing of it is the client's text but the request's id, which is one plain word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) status: StatusCode,
    pub(super) reason: Reason,
    pub(super) trace_id: &'a str,
    pub(super) request_id: &'a str,
}

impl Page {
    /// Takes a page to pieces. Only `{status}`, `{title}`, `{reason}`, `{meaning}`, `{trace_id}` and `{request_id}` are
    /// filled in; any other brace stands as it is, for pages have styles.
    pub fn new(html: &str) -> Self {
        let (mut parts, mut plain) = (Vec::new(), 0);
        let mut at = 0;
        while let Some(brace) = html[at..].find('{').map(|brace| at + brace) {
            let placeholder = PLACEHOLDERS.iter().find(|(word, _)| html[brace..].starts_with(word));
            let Some((word, part)) = placeholder else {
                at = brace + 1;
                continue;
            };
            parts.push(Part::Text(html[plain..brace].into()));
            parts.push(part.clone());
            at = brace + word.len();
            plain = at;
        }
        parts.push(Part::Text(html[plain..].into()));
        Self(parts.into())
    }

    /// The page of who has named none.
    pub(super) fn built_in() -> Self {
        Self::new(include_str!("page/error.html"))
    }

    /// The page that tells this.
    pub(super) fn render(&self, told: Told<'_>) -> Bytes {
        let mut html = String::new();
        for part in &*self.0 {
            match part {
                Part::Text(text) => html.push_str(text),
                Part::Status => {
                    let _ = write!(html, "{}", told.status.as_u16());
                }
                Part::Title => html.push_str(told.status.canonical_reason().unwrap_or("Error")),
                Part::Reason => html.push_str(told.reason.word()),
                Part::Meaning => escape(told.reason.meaning(), &mut html),
                Part::TraceId => escape(told.trace_id, &mut html),
                Part::RequestId => escape(told.request_id, &mut html),
            }
        }
        html.into()
    }
}

/// What would end a text or an attribute of HTML, as a reference.
fn escape(text: &str, html: &mut String) {
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            letter => html.push(letter),
        }
    }
}

const PLACEHOLDERS: [(&str, Part); 6] = [
    ("{status}", Part::Status),
    ("{title}", Part::Title),
    ("{reason}", Part::Reason),
    ("{meaning}", Part::Meaning),
    ("{trace_id}", Part::TraceId),
    ("{request_id}", Part::RequestId),
];

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::{Page, Told};
    use crate::failure::Reason;

    const TOLD: Told<'static> = Told {
        status: StatusCode::BAD_GATEWAY,
        reason: Reason::ConnectRefused,
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
        request_id: "a\"<b>&'c",
    };

    #[test]
    fn only_placeholders_are_filled_in_and_what_is_filled_in_is_no_markup() {
        for (html, expected) in [
            ("{status} {title} {reason}", "502 Bad Gateway connect_refused"),
            ("p { color: red } {unknown} {", "p { color: red } {unknown} {"),
            ("{{status}}", "{502}"),
            ("{meaning}", "The endpoint refused the connection."),
            ("<p id=\"{request_id}\">", "<p id=\"a&quot;&lt;b&gt;&amp;&#39;c\">"),
            ("ü{status}ü", "ü502ü"),
            ("", ""),
        ] {
            assert_eq!(Page::new(html).render(TOLD), expected.as_bytes(), "{html}");
        }
    }

    #[test]
    fn the_built_in_page_tells_status_reason_and_trace() {
        let page = Page::built_in().render(TOLD);
        let page = std::str::from_utf8(&page).expect("text");
        for told in ["502", "Bad Gateway", "connect_refused", TOLD.trace_id] {
            assert!(page.contains(told), "{told}: {page}");
        }
        assert!(!page.contains('{') || page.contains("{ "), "no placeholder is left: {page}");
    }
}
