//! Histograms of fixed buckets: atomics alone, nothing waits and nothing is lost.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::exemplar::{Exemplar, Exemplars};
use super::family::{self, Family, Kind};
use super::page::{Format, Page};

/// A handle to one series. Recording takes no lock and allocates nothing.
#[derive(Clone)]
pub struct Histogram(Arc<Series>);

/// All histograms: every family of them with its series.
#[derive(Debug)]
pub(super) struct Histograms(Vec<Group>);

#[derive(Debug)]
struct Group {
    family: Family,
    scale: Arc<Scale>,
    /// Ascending by their labels.
    series: Mutex<Vec<Histogram>>,
}

struct Series {
    scale: Arc<Scale>,
    /// As on the page, without braces.
    labels: Box<str>,
    /// Samples in each bucket alone, not below it; the last is for those above every bound. The count is
    /// their sum, so that it never differs from the bucket `+Inf`.
    buckets: Box<[AtomicU64]>,
    /// Of all samples, in [`Unit`]s. Past 2⁶⁴ it begins anew, which Prometheus takes for a restart: with
    /// 10,000 requests always in flight every three weeks.
    sum: AtomicU64,
    exemplars: Exemplars,
}

/// What the series of a family share.
#[derive(Debug)]
struct Scale {
    unit: Unit,
    /// Upper bounds of the buckets, ascending, each within its bucket.
    bounds: Box<[u64]>,
    /// The bounds as on the page, `+Inf` at the end.
    words: Box<[Word]>,
}

/// A bound as each format has it: OpenMetrics asks for one spelling of the usual ones, Prometheus' text format
/// never had it.
#[derive(Debug)]
struct Word {
    text: Box<str>,
    canonical: Box<str>,
}

/// What samples are counted in.
#[derive(Debug, Clone, Copy)]
enum Unit {
    /// On the page these are seconds.
    Nanoseconds,
    Bytes,
}

impl Histogram {
    /// One more sample, of a histogram of seconds.
    pub fn record_duration(&self, duration: Duration) {
        self.record(nanoseconds(duration));
    }

    /// One more sample, of a histogram of bytes.
    pub fn record_bytes(&self, count: u64) {
        self.record(count);
    }

    /// An example of a histogram of seconds, which has been recorded before.
    pub fn exemplify(&self, exemplar: Exemplar) {
        let series = &*self.0;
        let bucket = series.scale.bucket(nanoseconds(exemplar.duration));
        series.exemplars.keep(bucket, series.buckets.len(), exemplar);
    }

    fn record(&self, sample: u64) {
        let series = &*self.0;
        series.sum.fetch_add(sample, Ordering::Relaxed);
        series.buckets[series.scale.bucket(sample)].fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Histogram").field(&self.0.labels).finish()
    }
}

impl Histograms {
    /// Every family of histograms, those of seconds with these bounds.
    pub(super) fn new(seconds: &[f64]) -> Self {
        let (seconds, bytes) = (Arc::new(Scale::seconds(seconds)), Arc::new(Scale::bytes()));
        let group = |family: &Family| {
            let scale = match family.kind {
                Kind::Counter | Kind::Gauge | Kind::Info => return None,
                Kind::Seconds => &seconds,
                Kind::Bytes => &bytes,
            };
            Some(Group { family: *family, scale: Arc::clone(scale), series: Mutex::default() })
        };
        Self(family::ALL.iter().filter_map(group).collect())
    }

    /// The series with these labels, made if it is not there.
    pub(super) fn get(&self, family: Family, labels: &[(&'static str, &str)]) -> Histogram {
        let group = self.0.iter().find(|group| group.family.name == family.name);
        let group = group.expect("only families of seconds and bytes are asked for");
        let labels = label_text(labels);
        let mut series = group.series.lock().unwrap_or_else(PoisonError::into_inner);
        match series.binary_search_by(|known| (*known.0.labels).cmp(&labels)) {
            Ok(place) => series[place].clone(),
            Err(place) => {
                let made = Histogram(Arc::new(Series::new(&group.scale, labels.into())));
                series.insert(place, made.clone());
                made
            }
        }
    }

    /// Writes every family that has series.
    pub(super) fn render(&self, page: &mut Page) {
        for group in &self.0 {
            // copied, so that a new series need not wait for the page
            let series = group.series.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if series.is_empty() {
                continue;
            }
            let Family { name, kind, help } = group.family;
            page.family(name, kind, help);
            for histogram in &series {
                histogram.0.render(page);
            }
        }
    }
}

impl Series {
    fn new(scale: &Arc<Scale>, labels: Box<str>) -> Self {
        let buckets = scale.words.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            scale: Arc::clone(scale),
            labels,
            buckets,
            sum: AtomicU64::new(0),
            exemplars: Exemplars::default(),
        }
    }

    fn render(&self, page: &mut Page) {
        let labels = &self.labels;
        let exemplars = self.exemplars.get();
        let mut count = 0;
        for (place, (bucket, word)) in self.buckets.iter().zip(&self.scale.words).enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let exemplar = exemplars.get(place).and_then(Option::as_ref);
            page.bucket(labels, word.of(page.format), count, exemplar);
        }
        page.sample("_sum", labels, self.scale.unit.word(self.sum.load(Ordering::Relaxed)));
        page.sample("_count", labels, count);
    }
}

impl Scale {
    fn seconds(bounds: &[f64]) -> Self {
        let nanoseconds = |bound: &f64| Duration::try_from_secs_f64(*bound).map_or(u64::MAX, nanoseconds);
        Self::new(Unit::Nanoseconds, bounds.iter().map(nanoseconds).collect(), bounds)
    }

    fn bytes() -> Self {
        let bounds = family::BYTE_BUCKETS;
        Self::new(Unit::Bytes, bounds.map(u64::from).into(), &bounds.map(f64::from))
    }

    fn new(unit: Unit, bounds: Box<[u64]>, told: &[f64]) -> Self {
        let words = told.iter().copied().chain([f64::INFINITY]).map(Word::new).collect();
        Self { unit, bounds, words }
    }

    /// The bucket of this sample: the first whose bound is not below it.
    fn bucket(&self, sample: u64) -> usize {
        self.bounds.partition_point(|bound| *bound < sample)
    }
}

impl Unit {
    fn word(self, sum: u64) -> String {
        match self {
            Self::Nanoseconds => Duration::from_nanos(sum).as_secs_f64().to_string(),
            Self::Bytes => sum.to_string(),
        }
    }
}

impl Word {
    fn new(bound: f64) -> Self {
        if bound.is_infinite() {
            return Self { text: "+Inf".into(), canonical: "+Inf".into() };
        }
        Self { text: bound.to_string().into(), canonical: canonical(bound).into() }
    }

    fn of(&self, format: Format) -> &str {
        match format {
            Format::Text => &self.text,
            Format::OpenMetrics => &self.canonical,
        }
    }
}

/// A positive number as OpenMetrics wants bounds: `1.0`, `0.25`, `1e-05`, `1.048576e+06` (OpenMetrics 1.0,
/// "Considerations: Canonical Numbers").
fn canonical(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').expect("it was asked for");
    match exponent.parse().unwrap_or(0) {
        -4..6 if number.fract() == 0.0 => format!("{number}.0"),
        -4..6 => number.to_string(),
        exponent => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, i32::abs(exponent)),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Labels as on the page, in this order, without braces.
fn label_text(labels: &[(&'static str, &str)]) -> String {
    let mut text = String::new();
    for (key, value) in labels {
        let comma = if text.is_empty() { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        write!(text, "{comma}{key}=\"{value}\"").expect(TO_MEMORY);
    }
    text
}

const TO_MEMORY: &str = "writing to memory does not fail";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Format, Histograms, Page, canonical, family, label_text};

    /// The page of one histogram of seconds without labels, bounds 0.001, 0.25 and 10.
    fn page(samples: &[Duration]) -> String {
        let histograms = Histograms::new(&[0.001, 0.25, 10.0]);
        let histogram = histograms.get(family::OVERHEAD, &[]);
        for sample in samples {
            histogram.record_duration(*sample);
        }
        text(&histograms)
    }

    fn text(histograms: &Histograms) -> String {
        let mut page = Page::new(Format::Text);
        histograms.render(&mut page);
        page.end()
    }

    #[test]
    fn a_sample_stands_in_every_bucket_that_it_is_not_above() {
        let cases = [
            (Duration::ZERO, [1, 1, 1, 1], "0"),
            (Duration::from_nanos(1), [1, 1, 1, 1], "0.000000001"),
            (Duration::from_millis(1), [1, 1, 1, 1], "0.001"),
            (Duration::from_nanos(1_000_001), [0, 1, 1, 1], "0.001000001"),
            (Duration::from_millis(250), [0, 1, 1, 1], "0.25"),
            (Duration::from_secs(10), [0, 0, 1, 1], "10"),
            (Duration::from_nanos(10_000_000_001), [0, 0, 0, 1], "10.000000001"),
            (Duration::MAX, [0, 0, 0, 1], "18446744073.709553"),
        ];
        for (sample, [first, second, third, all], sum) in cases {
            let expected = format!(
                "# HELP tracegate_overhead_seconds {}\n\
                 # TYPE tracegate_overhead_seconds histogram\n\
                 tracegate_overhead_seconds_bucket{{le=\"0.001\"}} {first}\n\
                 tracegate_overhead_seconds_bucket{{le=\"0.25\"}} {second}\n\
                 tracegate_overhead_seconds_bucket{{le=\"10\"}} {third}\n\
                 tracegate_overhead_seconds_bucket{{le=\"+Inf\"}} {all}\n\
                 tracegate_overhead_seconds_sum {sum}\n\
                 tracegate_overhead_seconds_count 1\n",
                family::OVERHEAD.help
            );
            assert_eq!(page(&[sample]), expected, "{sample:?}");
        }
    }

    #[test]
    fn bounds_that_nanoseconds_cannot_tell_apart_still_count_every_sample() {
        let histograms = Histograms::new(&[1e-12, 1e-10, 1.0, 1e30]);
        let histogram = histograms.get(family::OVERHEAD, &[]);
        for sample in [Duration::ZERO, Duration::from_secs(1), Duration::MAX] {
            histogram.record_duration(sample);
        }
        let page = text(&histograms);
        let counts: Vec<&str> = page
            .lines()
            .filter(|line| line.contains("_bucket"))
            .filter_map(|line| line.split(' ').nth(1))
            .collect();
        assert_eq!(counts, ["1", "1", "2", "3", "3"], "{page}");
    }

    #[test]
    fn bytes_are_counted_exactly() {
        let histograms = Histograms::new(&[1.0]);
        let histogram = histograms.get(family::REQUEST_SIZE, &[("http_route", "/")]);
        for count in [0, 256, 257, 1 << 30, (1 << 53) + 1] {
            histogram.record_bytes(count);
        }
        let page = text(&histograms);
        let sum = 256 + 257 + (1_u64 << 30) + (1 << 53) + 1;
        for line in [
            "_bucket{http_route=\"/\",le=\"256\"} 2",
            "_bucket{http_route=\"/\",le=\"1024\"} 3",
            "_bucket{http_route=\"/\",le=\"1073741824\"} 4",
            "_bucket{http_route=\"/\",le=\"+Inf\"} 5",
            &format!("_sum{{http_route=\"/\"}} {sum}"),
            "_count{http_route=\"/\"} 5",
        ] {
            let line = format!("http_server_request_body_size_bytes{line}");
            assert!(page.lines().any(|other| other == line), "{line}\n{page}");
        }
    }

    #[test]
    fn bounds_are_spelled_as_openmetrics_wants_them() {
        for (bound, word) in [
            (1.0, "1.0"),
            (2.5, "2.5"),
            (300.0, "300.0"),
            (0.001, "0.001"),
            (0.0001, "0.0001"),
            (0.000_025, "2.5e-05"),
            (0.000_01, "1e-05"),
            (65536.0, "65536.0"),
            (1_048_576.0, "1.048576e+06"),
            (1e30, "1e+30"),
        ] {
            assert_eq!(canonical(bound), word);
        }
    }

    #[test]
    fn labels_keep_their_order_and_hide_no_quote() {
        let cases: [(&[(&'static str, &str)], &str); 4] = [
            (&[], ""),
            (&[("b", "1"), ("a", "")], r#"b="1",a="""#),
            (&[("a", r#"say "hi""#)], r#"a="say \"hi\"""#),
            (&[("a", "back\\slash\nline")], r#"a="back\\slash\nline""#),
        ];
        for (labels, text) in cases {
            assert_eq!(label_text(labels), text);
        }
    }

    #[test]
    fn the_same_labels_are_the_same_series() {
        let histograms = Histograms::new(&[1.0]);
        for route in ["/b", "/a", "/c", "/a"] {
            histograms.get(family::FIRST_BYTE, &[("http_route", route)]).record_duration(Duration::ZERO);
        }
        let page = text(&histograms);
        let counts: Vec<&str> = page.lines().filter(|line| line.contains("_count")).collect();
        let line = |route, count| {
            format!("tracegate_time_to_first_byte_seconds_count{{http_route=\"{route}\"}} {count}")
        };
        assert_eq!(counts, [line("/a", 2), line("/b", 1), line("/c", 1)]);
    }

    #[test]
    fn nothing_is_lost_however_many_record_and_read_at_once() {
        const THREADS: u64 = 4;
        const SAMPLES: u64 = 100_000;
        let histograms = Histograms::new(&[1e-6, 5e-5]);
        let histogram = histograms.get(family::OVERHEAD, &[]);
        let render = || {
            let page = text(&histograms);
            let value = |name: &str| {
                let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                line.trim().to_owned()
            };
            let count = value("tracegate_overhead_seconds_count");
            assert_eq!(count, value("tracegate_overhead_seconds_bucket{le=\"+Inf\"}"));
            (count.parse::<u64>().unwrap(), value("tracegate_overhead_seconds_sum"))
        };
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    (1..=SAMPLES).for_each(|sample| histogram.record_duration(Duration::from_nanos(sample)));
                });
            }
            let mut before = 0;
            while before < THREADS * SAMPLES {
                let (count, _) = render();
                assert!(count >= before, "{count} after {before}");
                before = count;
            }
        });
        let nanoseconds = THREADS * SAMPLES * (SAMPLES + 1) / 2;
        let sum = Duration::from_nanos(nanoseconds).as_secs_f64().to_string();
        assert_eq!(render(), (THREADS * SAMPLES, sum));
    }
}
