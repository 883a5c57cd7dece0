//! The registry: series are made here and rendered from here. It is our own; nothing is installed globally.

use ::metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::family::{self, Family, Kind};
use super::histogram::{Histogram, Histograms};
use super::page::{Format, Page};
use super::process;

/// Makes series and renders them. Histograms are our own: the exporter's lose samples while they are read.
pub struct Registry {
    recorder: PrometheusRecorder,
    exporter: PrometheusHandle,
    histograms: Histograms,
}

impl Registry {
    /// A registry with every family described, and histograms of seconds with these bounds, or without any
    /// the default ones.
    pub(super) fn new(seconds: &[f64]) -> Self {
        let seconds = if seconds.is_empty() { &family::SECOND_BUCKETS } else { seconds };
        let recorder = PrometheusBuilder::new().build_recorder();
        for family in family::ALL {
            let name = KeyName::from_const_str(family.name);
            match family.kind {
                Kind::Counter => recorder.describe_counter(name, None, family.help.into()),
                Kind::Gauge | Kind::Info => recorder.describe_gauge(name, None, family.help.into()),
                Kind::Seconds | Kind::Bytes => {}
            }
        }
        Self { exporter: recorder.handle(), recorder, histograms: Histograms::new(seconds) }
    }

    /// The counter with these labels.
    pub fn counter(&self, family: Family, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder.register_counter(&key(family, labels), &METADATA)
    }

    /// The gauge with these labels.
    pub fn gauge(&self, family: Family, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.register_gauge(&key(family, labels), &METADATA)
    }

    /// The histogram with these labels.
    pub fn histogram(&self, family: Family, labels: &[(&'static str, &str)]) -> Histogram {
        self.histograms.get(family, labels)
    }

    /// A gauge of 1 whose labels are the resource's attributes.
    pub(super) fn target_info<'a>(&self, resource: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let label = |(key, value): (&str, &str)| Label::new(key.replace('.', "_"), value.to_owned());
        let labels: Vec<Label> = resource.into_iter().map(label).collect();
        let key = Key::from_parts(family::TARGET_INFO.name, labels);
        self.recorder.register_gauge(&key, &METADATA).set(1);
    }

    /// The page of all series, the process's own read now. Takes milliseconds at many series.
    pub(super) fn render(&self, format: Format) -> String {
        let mut page = Page::new(format);
        copy(&self.exporter.render(), &mut page);
        self.histograms.render(&mut page);
        process::render(&mut page);
        page.end()
    }
}

/// Copies what the exporter has written, in its text format, onto the page in whichever format that has.
fn copy(text: &str, page: &mut Page) {
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next()) {
            let family = family::ALL.iter().find(|family| family.name == name);
            let Family { name, kind, help } = family.expect("series are made of known families");
            page.family(name, *kind, help);
        } else if !line.starts_with('#')
            && let Some((series, value)) = line.rsplit_once(' ')
        {
            let labels = series.split_once('{').and_then(|(_, labels)| labels.strip_suffix('}'));
            page.sample("", labels.unwrap_or_default(), value);
        }
    }
}

fn key(family: Family, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|&(key, value)| Label::new(key, value.to_owned())).collect();
    Key::from_parts(family.name, labels)
}

static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);
