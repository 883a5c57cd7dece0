//! Histograms of fixed buckets: atomics alone, nothing waits and nothing is lost.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::exemplars::Exemplars;
use super::family;
use super::page::{Format, Page};
use crate::telemetry::exemplar::{Exemplar, Exemplified};

/// A handle to one series. Recording takes no lock and allocates nothing.
#[derive(Clone)]
pub struct Histogram(Arc<Series>);

struct Series {
    scale: Arc<Scale>,
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
pub(super) struct Scale {
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

impl Exemplified for Series {
    fn exemplify(&self, exemplar: Exemplar) {
        let bucket = self.scale.bucket(nanoseconds(exemplar.duration));
        self.exemplars.keep(bucket, self.buckets.len(), exemplar);
    }
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

    /// What samples of a histogram of seconds are examples of.
    pub fn exemplified(&self) -> Arc<dyn Exemplified> {
        Arc::clone(&self.0) as _
    }

    /// A series without samples.
    pub(super) fn new(scale: &Arc<Scale>) -> Self {
        let buckets = scale.words.iter().map(|_| AtomicU64::new(0)).collect();
        let (sum, exemplars) = (AtomicU64::new(0), Exemplars::default());
        Self(Arc::new(Series { scale: Arc::clone(scale), buckets, sum, exemplars }))
    }

    /// How many handles there are.
    pub(super) fn owners(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// How many samples there have been in each bucket alone; the last is for those above every bound.
    pub(in crate::telemetry) fn buckets(&self) -> impl Iterator<Item = u64> {
        self.0.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed))
    }

    /// What tells its series from others.
    pub(in crate::telemetry) fn series(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// How many samples there have been.
    pub(super) fn count(&self) -> u64 {
        self.0.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Writes the series with these labels.
    pub(super) fn render(&self, labels: &str, page: &mut Page) {
        let series = &*self.0;
        let exemplars = series.exemplars.get();
        let mut count = 0;
        for (place, (bucket, word)) in series.buckets.iter().zip(&series.scale.words).enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let exemplar = exemplars.get(place).and_then(Option::as_ref);
            page.bucket(labels, word.of(page.format), count, exemplar);
        }
        page.sample("_sum", labels, series.scale.unit.word(series.sum.load(Ordering::Relaxed)));
        page.sample("_count", labels, count);
    }

    fn record(&self, sample: u64) {
        let series = &*self.0;
        series.sum.fetch_add(sample, Ordering::Relaxed);
        series.buckets[series.scale.bucket(sample)].fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram").finish_non_exhaustive()
    }
}

impl Scale {
    /// Of seconds, with these bounds.
    pub(super) fn seconds(bounds: &[f64]) -> Self {
        let nanoseconds = |bound: &f64| Duration::try_from_secs_f64(*bound).map_or(u64::MAX, nanoseconds);
        Self::new(Unit::Nanoseconds, bounds.iter().map(nanoseconds).collect(), bounds)
    }

    /// Of bytes.
    pub(super) fn bytes() -> Self {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use std::sync::Arc;

    use super::{Format, Histogram, Page, Scale, canonical};
    use crate::telemetry::metrics::family::{Family, OVERHEAD, REQUEST_SIZE};

    fn seconds(bounds: &[f64]) -> Histogram {
        Histogram::new(&Arc::new(Scale::seconds(bounds)))
    }

    /// The page of one histogram.
    fn page(family: Family, labels: &str, histogram: &Histogram) -> String {
        let mut page = Page::new(Format::Text);
        page.family(family.name, family.kind, family.help);
        histogram.render(labels, &mut page);
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
                OVERHEAD.help
            );
            let histogram = seconds(&[0.001, 0.25, 10.0]);
            histogram.record_duration(sample);
            assert_eq!(page(OVERHEAD, "", &histogram), expected, "{sample:?}");
        }
    }

    #[test]
    fn bounds_that_nanoseconds_cannot_tell_apart_still_count_every_sample() {
        let histogram = seconds(&[1e-12, 1e-10, 1.0, 1e30]);
        for sample in [Duration::ZERO, Duration::from_secs(1), Duration::MAX] {
            histogram.record_duration(sample);
        }
        let page = page(OVERHEAD, "", &histogram);
        let counts: Vec<&str> = page
            .lines()
            .filter(|line| line.contains("_bucket"))
            .filter_map(|line| line.split(' ').nth(1))
            .collect();
        assert_eq!(counts, ["1", "1", "2", "3", "3"], "{page}");
    }

    #[test]
    fn bytes_are_counted_exactly() {
        let histogram = Histogram::new(&Arc::new(Scale::bytes()));
        for count in [0, 256, 257, 1 << 30, (1 << 53) + 1] {
            histogram.record_bytes(count);
        }
        let page = page(REQUEST_SIZE, "http_route=\"/\"", &histogram);
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
    fn nothing_is_lost_however_many_record_and_read_at_once() {
        const THREADS: u64 = 4;
        const SAMPLES: u64 = 100_000;
        let histogram = seconds(&[1e-6, 5e-5]);
        let render = || {
            let page = page(OVERHEAD, "", &histogram);
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
