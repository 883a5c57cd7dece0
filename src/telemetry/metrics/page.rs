//! The page as it is written, family by family: Prometheus' text format 0.0.4, or OpenMetrics 1.0.

use std::fmt::{Display, Write as _};

use super::family::{Family, Kind};
use crate::telemetry::exemplar::Exemplar;

/// How the page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What goes into `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A page under way. Each family comes once, its samples after it.
#[derive(Debug)]
pub(super) struct Page {
    /// How it is written.
    pub(super) format: Format,
    text: String,
    family: String,
    /// How many series each family has, so far.
    series: Vec<(String, usize)>,
}

impl Page {
    /// An empty page.
    pub(super) fn new(format: Format) -> Self {
        Self { format, text: String::new(), family: String::new(), series: Vec::new() }
    }

    /// Begins a family. OpenMetrics takes the suffix of counters and infos for a part of the sample's name.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        name.clone_into(&mut self.family);
        self.series.push((name.to_owned(), 0));
        let (told, word) = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Counter) => (name.trim_end_matches("_total"), "counter"),
            (Format::OpenMetrics, Kind::Info) => (name.trim_end_matches("_info"), "info"),
            (Format::Text, Kind::Counter) => (name, "counter"),
            (_, Kind::Gauge | Kind::Info) => (name, "gauge"),
            (_, Kind::Seconds | Kind::Short | Kind::Long | Kind::Bytes) => (name, "histogram"),
        };
        writeln!(self.text, "# HELP {told} {help}\n# TYPE {told} {word}").expect(TO_MEMORY);
        if self.format == Format::OpenMetrics
            && let Some((_, unit)) = told.rsplit_once('_').filter(|(_, last)| UNITS.contains(last))
        {
            writeln!(self.text, "# UNIT {told} {unit}").expect(TO_MEMORY);
        }
    }

    /// A sample of the family, whose name is the family's with this suffix. The labels are as on the page,
    /// without braces.
    pub(super) fn sample(&mut self, suffix: &str, labels: &str, value: impl Display) {
        if let Some((_, series)) = self.series.last_mut().filter(|_| matches!(suffix, "" | "_count")) {
            *series += 1;
        }
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        writeln!(self.text, "{}{suffix}{open}{labels}{close} {value}", self.family).expect(TO_MEMORY);
    }

    /// A bucket of the family, a histogram: what its upper bound is, how many samples are not above it, and
    /// one of those that are above the bound before. (The text format has no place for that one.)
    pub(super) fn bucket(&mut self, labels: &str, bound: &str, count: u64, exemplar: Option<&Exemplar>) {
        let comma = if labels.is_empty() { "" } else { "," };
        let family = &self.family;
        write!(self.text, "{family}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}").expect(TO_MEMORY);
        if let Some(exemplar) = exemplar.filter(|_| self.format == Format::OpenMetrics) {
            write!(self.text, "{exemplar}").expect(TO_MEMORY);
        }
        self.text.push('\n');
    }

    /// A family of its own: how many series each family before it has.
    pub(super) fn count_series(&mut self, family: Family) {
        let counts = self.series.clone();
        self.family(family.name, family.kind, family.help);
        for (metric, series) in counts {
            self.sample("", &format!("metric=\"{metric}\""), series);
        }
    }

    /// The page, once every family is on it.
    pub(super) fn end(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

const TO_MEMORY: &str = "writing to memory does not fail";

/// What a family's name ends with, where its samples have a unit.
const UNITS: [&str; 2] = ["seconds", "bytes"];

#[cfg(test)]
mod tests {
    use super::{Format, Kind, Page};

    fn page(format: Format, name: &str, kind: Kind) -> String {
        let mut page = Page::new(format);
        page.family(name, kind, "Help.");
        page.sample("", "a=\"b\"", 1);
        page.end()
    }

    #[test]
    fn each_format_names_families_its_own_way() {
        for (name, kind, text, told, word, unit) in [
            ("a_total", Kind::Counter, "counter", "a", "counter", ""),
            (
                "a_seconds_total",
                Kind::Counter,
                "counter",
                "a_seconds",
                "counter",
                "# UNIT a_seconds seconds\n",
            ),
            ("a_info", Kind::Info, "gauge", "a", "info", ""),
            ("a", Kind::Gauge, "gauge", "a", "gauge", ""),
            ("a_bytes", Kind::Gauge, "gauge", "a_bytes", "gauge", "# UNIT a_bytes bytes\n"),
        ] {
            let plain = format!("# HELP {name} Help.\n# TYPE {name} {text}\n{name}{{a=\"b\"}} 1\n");
            assert_eq!(page(Format::Text, name, kind), plain);
            let open =
                format!("# HELP {told} Help.\n# TYPE {told} {word}\n{unit}{name}{{a=\"b\"}} 1\n# EOF\n");
            assert_eq!(page(Format::OpenMetrics, name, kind), open);
        }
    }
}
