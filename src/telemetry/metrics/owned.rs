//! The series of routes and endpoints: as many as a family may have, and gone when nobody owns them any more.
//!
//! Whoever counts holds a handle, which is a share in its series. A route or an endpoint that is no longer
//! served drops its handles; what has nobody left stays on the page until [`EXPIRE_AFTER`] is over, so that
//! its last values are scraped, and is forgotten then, or before if others need its place: however often names
//! change, a family grows no larger than it may. One that is full of series in use counts further labels in one
//! series, `_other`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::metrics::{Counter, Gauge};

use super::count::Count;
use super::family::{self, Family, Kind};
use super::histogram::{Histogram, Scale};
use super::page::Page;
use crate::telemetry::attribute::Label;

/// Every family with its series.
#[derive(Debug)]
pub(super) struct Owned(Vec<Group>);

#[derive(Debug)]
struct Group {
    family: Family,
    /// The buckets, of a histogram.
    scale: Option<Arc<Scale>>,
    max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// By their labels as on the page.
    series: BTreeMap<Arc<str>, Series>,
    looked_through: Instant,
    /// The last look found somebody who could give way.
    made_room: bool,
    told_full: bool,
}

#[derive(Debug)]
struct Series {
    cell: Cell,
    /// Since when nobody owns it, and what it counted then.
    orphaned: Option<(Instant, u64)>,
}

/// What a series counts in; the clones of one are one.
#[derive(Debug, Clone)]
enum Cell {
    Counter(Arc<AtomicU64>),
    /// The bits of a floating-point number.
    Gauge(Arc<AtomicU64>),
    Histogram(Histogram),
}

impl Owned {
    /// Every family, without series; each may have so many and `_other`. Histograms of seconds have these
    /// bounds.
    pub(super) fn new(seconds: &[f64], max: usize) -> Self {
        let scales = [
            (Kind::Seconds, Scale::seconds(seconds)),
            (Kind::Short, Scale::seconds(&family::SHORT_BUCKETS)),
            (Kind::Long, Scale::seconds(&family::LONG_BUCKETS)),
            (Kind::Bytes, Scale::bytes()),
        ]
        .map(|(kind, scale)| (kind, Arc::new(scale)));
        let group = |family: &Family| {
            let scale = scales.iter().find(|(kind, _)| *kind == family.kind);
            let scale = scale.map(|(_, scale)| Arc::clone(scale));
            let kept = Kept {
                series: BTreeMap::new(),
                looked_through: Instant::now(),
                made_room: true,
                told_full: false,
            };
            Group { family: *family, scale, max, kept: Mutex::new(kept) }
        };
        Self(family::ALL.iter().map(group).collect())
    }

    /// The counter with these labels, made if it is not there.
    pub(super) fn counter(&self, family: Family, labels: &[Label<'_>]) -> Counter {
        match self.get(family, labels) {
            Cell::Counter(cell) => Counter::from_arc(cell),
            _ => unreachable!("{} is asked for as a counter", family.name),
        }
    }

    /// The same, to be read again.
    pub(super) fn count(&self, family: Family, labels: &[Label<'_>]) -> Count {
        match self.get(family, labels) {
            Cell::Counter(cell) => Count::new(cell),
            _ => unreachable!("{} is asked for as a counter", family.name),
        }
    }

    /// The gauge with these labels, made if it is not there.
    pub(super) fn gauge(&self, family: Family, labels: &[Label<'_>]) -> Gauge {
        match self.get(family, labels) {
            Cell::Gauge(cell) => Gauge::from_arc(cell),
            _ => unreachable!("{} is asked for as a gauge", family.name),
        }
    }

    /// The histogram with these labels, made if it is not there.
    pub(super) fn histogram(&self, family: Family, labels: &[Label<'_>]) -> Histogram {
        match self.get(family, labels) {
            Cell::Histogram(cell) => cell,
            _ => unreachable!("{} is asked for as a histogram", family.name),
        }
    }

    /// Forgets what has had no owner, and no sample, for [`EXPIRE_AFTER`].
    pub(super) fn expire(&self, now: Instant) {
        self.0.iter().for_each(|group| group.lock().expire(now));
    }

    /// Writes every family that has series.
    pub(super) fn render(&self, page: &mut Page) {
        for group in &self.0 {
            // copied, so that a new series need not wait for the page
            let series: Vec<(Arc<str>, Cell)> = {
                let kept = group.lock();
                let copy = |(labels, series): (&Arc<str>, &Series)| (Arc::clone(labels), series.cell.clone());
                kept.series.iter().map(copy).collect()
            };
            if series.is_empty() {
                continue;
            }
            let Family { name, kind, help, .. } = group.family;
            page.family(name, kind, help);
            for (labels, cell) in &series {
                match cell {
                    Cell::Counter(cell) => page.sample("", labels, cell.load(Ordering::Relaxed)),
                    Cell::Gauge(cell) => {
                        page.sample("", labels, f64::from_bits(cell.load(Ordering::Relaxed)));
                    }
                    Cell::Histogram(cell) => cell.render(labels, page),
                }
            }
        }
    }

    fn get(&self, family: Family, labels: &[Label<'_>]) -> Cell {
        let name = family.with(labels).name;
        let group = self.0.iter().find(|group| group.family.name == name);
        group.expect("only known families are asked for").get(labels)
    }
}

impl Group {
    fn get(&self, labels: &[Label<'_>]) -> Cell {
        let mut text: Arc<str> = label_text(labels).into();
        let mut kept = self.lock();
        if let Some(known) = kept.series.get(&text) {
            return known.cell.clone();
        }
        if kept.is_full(self.max) {
            if !kept.told_full {
                let (metric, max) = (self.family.name, self.max);
                tracing::warn!(
                    metric,
                    max,
                    "a metric has as many series as it may: what comes now is _other"
                );
                kept.told_full = true;
            }
            let other: Vec<_> = labels.iter().map(|label| label.but(OTHER)).collect();
            text = label_text(&other).into();
        }
        let made = || Series { cell: self.cell(), orphaned: None };
        kept.series.entry(text).or_insert_with(made).cell.clone()
    }

    fn cell(&self) -> Cell {
        match (self.family.kind, &self.scale) {
            (_, Some(scale)) => Cell::Histogram(Histogram::new(scale)),
            (Kind::Counter, None) => Cell::Counter(Arc::default()),
            (_, None) => Cell::Gauge(Arc::default()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Whether there is no room for another one, even after what nobody owns has gone.
    fn is_full(&mut self, max: usize) -> bool {
        if self.series.len() >= max && (self.made_room || self.looked_through.elapsed() >= LOOK_THROUGH) {
            self.expire(Instant::now());
            self.make_room(max);
        }
        self.series.len() >= max
    }

    /// Those that nobody owns give way to new ones, the longest without an owner first: a tenth of all at once, so that
    /// it is not done for each.
    fn make_room(&mut self, max: usize) {
        let orphan = |(labels, series): (&Arc<str>, &Series)| Some((series.orphaned?.0, Arc::clone(labels)));
        let mut orphans: Vec<(Instant, Arc<str>)> = self.series.iter().filter_map(orphan).collect();
        orphans.sort_unstable();
        let wanted = (self.series.len() + 1).saturating_sub(max - max / 10);
        self.made_room = !orphans.is_empty();
        for (_, labels) in orphans.iter().take(wanted) {
            self.series.remove(labels);
        }
    }

    fn expire(&mut self, now: Instant) {
        self.looked_through = now;
        self.series.retain(|_, series| {
            let count = series.cell.count();
            match series.orphaned {
                _ if series.cell.has_owner() => series.orphaned = None,
                Some((since, counted)) if counted == count => {
                    return now.duration_since(since) < EXPIRE_AFTER;
                }
                // somebody came by who found no place for a handle of its own
                Some(_) | None => series.orphaned = Some((now, count)),
            }
            true
        });
    }
}

impl Cell {
    /// Whether somebody beside the family holds it.
    fn has_owner(&self) -> bool {
        1 < match self {
            Self::Counter(cell) | Self::Gauge(cell) => Arc::strong_count(cell),
            Self::Histogram(cell) => cell.owners(),
        }
    }

    /// A number that changes with every sample.
    fn count(&self) -> u64 {
        match self {
            Self::Counter(cell) | Self::Gauge(cell) => cell.load(Ordering::Relaxed),
            Self::Histogram(cell) => cell.count(),
        }
    }
}

/// Labels as on the page, in this order, without braces.
fn label_text(labels: &[Label<'_>]) -> String {
    let mut text = String::new();
    for label in labels {
        let comma = if text.is_empty() { "" } else { "," };
        let (key, value) = (label.key(), label.value());
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        write!(text, "{comma}{key}=\"{value}\"").expect("writing to memory does not fail");
    }
    text
}

/// How long a series without an owner stays on the page: as long as Prometheus itself looks back for a value.
const EXPIRE_AFTER: Duration = Duration::from_mins(5);

/// How often a full family is looked through for what nobody owns; a scrape does it as well.
const LOOK_THROUGH: Duration = Duration::from_secs(1);

/// The value of every label of the series that counts for those without a place.
const OTHER: &str = "_other";

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{EXPIRE_AFTER, Owned, Page, family, label_text};
    use crate::telemetry::attribute::{Configured, HTTP_ROUTE, Label, OUTCOME, REASON, TRACEGATE_ROUTE};
    use crate::telemetry::metrics::page::Format;

    fn text(owned: &Owned) -> String {
        let mut page = Page::new(Format::Text);
        owned.render(&mut page);
        page.end()
    }

    fn retries(owned: &Owned, route: &str) -> ::metrics::Counter {
        owned.counter(family::RETRIES, &[TRACEGATE_ROUTE.is(&Configured::new(route))])
    }

    #[test]
    fn the_same_labels_are_the_same_series() {
        let owned = Owned::new(&[1.0], 100);
        for route in ["/b", "/a", "/c", "/a"] {
            let labels = [HTTP_ROUTE.is(route)];
            owned.histogram(family::FIRST_BYTE, &labels).record_duration(Duration::ZERO);
        }
        let page = text(&owned);
        let counts: Vec<&str> = page.lines().filter(|line| line.contains("_count")).collect();
        let line = |route, count| {
            format!("tracegate_time_to_first_byte_seconds_count{{http_route=\"{route}\"}} {count}")
        };
        assert_eq!(counts, [line("/a", 2), line("/b", 1), line("/c", 1)]);
    }

    #[test]
    fn a_full_family_counts_further_labels_as_other() {
        let owned = Owned::new(&[1.0], 2);
        let handles = ["a", "b", "c", "d", "a"].map(|route| retries(&owned, route));
        for (handle, count) in handles.iter().zip([1, 2, 4, 8, 16]) {
            handle.increment(count);
        }
        let own = |route, count| format!("tracegate_retries_total{{tracegate_route=\"{route}\"}} {count}");
        let page = text(&owned);
        let lines: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, [own("_other", 12), own("a", 17), own("b", 2)]);
    }

    #[test]
    fn what_nobody_owns_gives_way_before_a_family_is_full() {
        let owned = Owned::new(&[1.0], 10);
        let kept = retries(&owned, "kept");
        for number in 0..1000 {
            retries(&owned, &format!("r{number}")).increment(1);
        }
        kept.increment(1);
        let page = text(&owned);
        let lines: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(lines.len() <= 10 && !page.contains("_other"), "{lines:?}");
        assert!(page.contains("\"kept\"} 1") && page.contains("\"r999\"} 1"), "{lines:?}");
    }

    #[test]
    fn what_nobody_owns_is_shown_once_more_and_then_forgotten() {
        let owned = Owned::new(&[1.0], 100);
        let kept = retries(&owned, "kept");
        let removed = retries(&owned, "removed");
        removed.increment(3);
        let begun = Instant::now();
        let shown = |after: Duration| {
            owned.expire(begun + after);
            text(&owned).contains("removed")
        };
        assert!(shown(EXPIRE_AFTER * 2), "as long as somebody owns it");
        drop(removed);
        assert!(shown(EXPIRE_AFTER * 4), "its last value is to be scraped");
        // without a handle of its own, but still in use
        retries(&owned, "removed").increment(1);
        assert!(shown(EXPIRE_AFTER * 6));
        assert!(shown(EXPIRE_AFTER * 6 + EXPIRE_AFTER / 2));
        assert!(!shown(EXPIRE_AFTER * 7));
        assert!(text(&owned).contains("kept"));
        kept.increment(1);
        retries(&owned, "removed").increment(1);
        assert!(text(&owned).contains("tracegate_retries_total{tracegate_route=\"removed\"} 1"), "anew");
    }

    #[test]
    fn labels_keep_their_order_and_hide_no_quote() {
        let cases: [(&[Label<'_>], &str); 4] = [
            (&[], ""),
            (&[REASON.is("1"), OUTCOME.is("")], r#"reason="1",outcome="""#),
            (&[REASON.is(r#"say "hi""#)], r#"reason="say \"hi\"""#),
            (&[REASON.is("back\\slash\nline")], r#"reason="back\\slash\nline""#),
        ];
        for (labels, text) in cases {
            assert_eq!(label_text(labels), text);
        }
    }
}
