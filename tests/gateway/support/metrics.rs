//! A scraped page of metrics, to be asked for values.

use std::collections::{BTreeMap, BTreeSet};

/// A page in Prometheus's text format.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The page itself.
    pub text: String,
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: String,
    exemplar: Option<BTreeMap<String, String>>,
}

impl Metrics {
    /// Reads a page.
    pub fn parse(text: String) -> Self {
        let samples =
            text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(sample).collect();
        Self { text, samples }
    }

    /// The sum of all samples of this name that have these labels: a count, or a gauge of things.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let has = |sample: &&Sample| {
            let label =
                |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|found| found == value);
            sample.name == name && labels.iter().all(label)
        };
        self.samples.iter().filter(has).map(Sample::count).sum()
    }

    /// Whether there is a sample of this name.
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|sample| sample.name == name)
    }

    /// The labels of every exemplar among the samples of this name.
    pub fn exemplars(&self, name: &str) -> Vec<BTreeMap<String, String>> {
        let samples = self.samples.iter().filter(|sample| sample.name == name);
        samples.filter_map(|sample| sample.exemplar.clone()).collect()
    }

    /// Every series: name and labels.
    pub fn series(&self) -> BTreeSet<String> {
        self.samples.iter().map(|sample| format!("{}{:?}", sample.name, sample.labels)).collect()
    }

    /// The names of the labels of each sample of this name, in order and with commas.
    pub fn label_names(&self, name: &str) -> BTreeSet<String> {
        let samples = self.samples.iter().filter(|sample| sample.name == name);
        samples.map(|sample| sample.labels.keys().cloned().collect::<Vec<_>>().join(",")).collect()
    }

    /// Every value of this label among the samples of this name.
    pub fn label_values(&self, name: &str, label: &str) -> BTreeSet<String> {
        let samples = self.samples.iter().filter(|sample| sample.name == name);
        samples.filter_map(|sample| sample.labels.get(label).cloned()).collect()
    }
}

impl Sample {
    fn count(&self) -> u64 {
        self.value.parse().unwrap_or_else(|_| panic!("{} is {}", self.name, self.value))
    }
}

fn sample(line: &str) -> Sample {
    let (line, exemplar) = line.split_once(" # ").map_or((line, None), |(line, rest)| (line, Some(rest)));
    let exemplar = exemplar.map(|rest| labels(&rest[..=rest.rfind('}').expect("an exemplar's labels")]).1);
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let (name, labels) = labels(series);
    Sample { name: name.to_owned(), labels, value: value.to_owned(), exemplar }
}

/// What stands before the braces, and in them.
fn labels(series: &str) -> (&str, BTreeMap<String, String>) {
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let mut labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("open labels: {series}"));
    let mut found = BTreeMap::new();
    while let Some((key, rest)) = labels.split_once("=\"") {
        let end = closing_quote(rest).unwrap_or_else(|| panic!("open quote: {series}"));
        found.insert(key.to_owned(), rest[..end].to_owned());
        labels = rest[end + 1..].trim_start_matches(',');
    }
    (name, found)
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}
