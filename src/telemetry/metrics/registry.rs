//! The registry: series are made here and rendered from here. It is our own; nothing is installed globally.

use std::sync::OnceLock;
use std::time::Instant;

use ::metrics::{self as library, Counter, Gauge, Key, KeyName, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::count::Count;
use super::family::{self, Family, Kind};
use super::histogram::Histogram;
use super::owned::Owned;
use super::page::{Format, Page};
use super::process;
use crate::telemetry::attribute::Label;
use crate::telemetry::settings;
use crate::worker::Workers;

/// Makes series and renders them.
///
/// The exporter has the series that are there from the start to the end: of listeners, receivers and the process.
/// Those of routes and endpoints have owners, and histograms are our own: the exporter neither caps nor removes
/// series, and its histograms lose samples while they are read.
pub struct Registry {
    recorder: PrometheusRecorder,
    exporter: PrometheusHandle,
    owned: Owned,
    workers: OnceLock<Workers>,
}

impl Registry {
    /// A registry with every family described; without any bounds histograms of seconds have the default ones.
    pub(super) fn new(settings: &settings::Metrics) -> Self {
        let bounds = &settings.buckets[..];
        let bounds = if bounds.is_empty() { &family::SECOND_BUCKETS } else { bounds };
        let recorder = PrometheusBuilder::new().build_recorder();
        for family in family::ALL {
            let name = KeyName::from_const_str(family.name);
            match family.kind {
                Kind::Counter => recorder.describe_counter(name, None, family.help.into()),
                Kind::Gauge | Kind::Info => recorder.describe_gauge(name, None, family.help.into()),
                Kind::Seconds | Kind::Short | Kind::Long | Kind::Bytes => {}
            }
        }
        Self {
            exporter: recorder.handle(),
            recorder,
            owned: Owned::new(bounds, settings.max_series),
            workers: OnceLock::new(),
        }
    }

    /// The counter with these labels.
    pub fn counter(&self, family: Family, labels: &[Label<'_>]) -> Counter {
        self.recorder.register_counter(&key(family, labels), &METADATA)
    }

    /// The gauge with these labels.
    pub fn gauge(&self, family: Family, labels: &[Label<'_>]) -> Gauge {
        self.recorder.register_gauge(&key(family, labels), &METADATA)
    }

    /// The counter with these labels, there for as long as somebody holds it.
    pub fn owned_counter(&self, family: Family, labels: &[Label<'_>]) -> Counter {
        self.owned.counter(family, labels)
    }

    /// The same, to be read again.
    pub fn owned_count(&self, family: Family, labels: &[Label<'_>]) -> Count {
        self.owned.count(family, labels)
    }

    /// The gauge with these labels, there for as long as somebody holds it.
    pub fn owned_gauge(&self, family: Family, labels: &[Label<'_>]) -> Gauge {
        self.owned.gauge(family, labels)
    }

    /// The histogram with these labels, there for as long as somebody holds it.
    pub fn histogram(&self, family: Family, labels: &[Label<'_>]) -> Histogram {
        self.owned.histogram(family, labels)
    }

    /// A gauge of 1 whose labels are the resource's attributes.
    pub(super) fn target_info<'a>(&self, resource: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let label = |(key, value): (&str, &str)| library::Label::new(key.replace('.', "_"), value.to_owned());
        let labels: Vec<_> = resource.into_iter().map(label).collect();
        let key = Key::from_parts(family::TARGET_INFO.name, labels);
        self.recorder.register_gauge(&key, &METADATA).set(1);
    }

    /// The workers to tell of; the first that are told count.
    pub(super) fn show_workers(&self, workers: &Workers) {
        self.workers.get_or_init(|| workers.clone());
    }

    /// The page of all series, the process's own read now; what nobody owns any more is forgotten in time.
    /// Takes milliseconds at many series.
    pub(super) fn render(&self, format: Format) -> String {
        let mut page = Page::new(format);
        copy(&self.exporter.render(), &mut page);
        self.owned.expire(Instant::now());
        self.owned.render(&mut page);
        page.count_series(family::SERIES);
        process::render(&mut page, self.workers.get());
        page.end()
    }
}

/// Copies what the exporter has written, in its text format, onto the page in whichever format that has.
fn copy(text: &str, page: &mut Page) {
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next()) {
            let family = family::ALL.iter().find(|family| family.name == name);
            let Family { name, kind, help, .. } = family.expect("series are made of known families");
            page.family(name, *kind, help);
        } else if !line.starts_with('#')
            && let Some((series, value)) = line.rsplit_once(' ')
        {
            let labels = series.split_once('{').and_then(|(_, labels)| labels.strip_suffix('}'));
            page.sample("", labels.unwrap_or_default(), value);
        }
    }
}

fn key(family: Family, labels: &[Label<'_>]) -> Key {
    let label = |label: &Label<'_>| library::Label::new(label.key(), label.value().into_owned());
    let name = family.with(labels).name;
    Key::from_parts(name, labels.iter().map(label).collect::<Vec<_>>())
}

static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);
