//! What things look like: few tones, of the terminal's own sixteen colours, each told by a word or sign as well.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::data::Level;

/// How something is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// Titles, and what is first to be read.
    Strong,
    /// What may be passed over.
    Quiet,
    Good,
    /// It wants a look.
    Warn,
    /// It wants a look now.
    Bad,
    /// It is as somebody wanted it.
    Note,
    /// Nobody should miss it.
    Loud,
}

/// How tones become colours, if they do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Theme {
    /// Else there are only bold, dim and reversed.
    pub(super) colour: bool,
}

impl Theme {
    /// What this tone looks like.
    pub(super) fn of(self, tone: Tone) -> Style {
        let plain = Style::new();
        let coloured = |colour| if self.colour { plain.fg(colour) } else { plain };
        match tone {
            Tone::Plain => plain,
            Tone::Strong => plain.add_modifier(Modifier::BOLD),
            Tone::Quiet => plain.add_modifier(Modifier::DIM),
            Tone::Good => coloured(Color::Green),
            Tone::Warn => coloured(Color::Yellow),
            Tone::Bad => coloured(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Note => coloured(Color::Cyan),
            Tone::Loud => coloured(Color::Red).add_modifier(Modifier::BOLD | Modifier::REVERSED),
        }
    }

    /// A piece of text.
    pub(super) fn text<'a>(self, tone: Tone, text: impl Into<String>) -> Span<'a> {
        Span::styled(text.into(), self.of(tone))
    }

    /// A line of one tone.
    pub(super) fn line<'a>(self, tone: Tone, text: impl Into<String>) -> Line<'a> {
        Line::from(self.text(tone, text))
    }
}

/// What the line looks like that the view stands on.
pub(super) fn chosen() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

/// The sign and the tone of a route's trouble.
pub(super) fn sign(level: Level) -> (&'static str, Tone) {
    match level {
        Level::Failing => ("!", Tone::Bad),
        Level::Slow => ("~", Tone::Warn),
        Level::Maintenance => ("m", Tone::Note),
        Level::Refusing => ("x", Tone::Note),
        Level::Fine | Level::Other => (" ", Tone::Plain),
        Level::Idle => (".", Tone::Quiet),
    }
}

/// The tone of a status or, where there is none, of a reason.
pub(super) fn outcome(status: Option<u16>, blame: Option<&str>) -> Tone {
    match (blame, status) {
        (Some("client"), _) | (None, Some(400..=499)) => Tone::Note,
        (Some(_), _) | (None, Some(500..)) => Tone::Bad,
        (None, _) => Tone::Plain,
    }
}
