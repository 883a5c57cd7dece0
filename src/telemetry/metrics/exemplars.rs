//! Exemplars: of each bucket the latest sample whose span a receiver has accepted, so that a click on a graph
//! opens a trace that is there.

use std::sync::{Mutex, PoisonError};

use crate::telemetry::exemplar::Exemplar;

/// The exemplars of one series, by bucket: one each, about 1.5 KiB in all once there is one.
#[derive(Debug, Default)]
pub(super) struct Exemplars(Mutex<Box<[Option<Exemplar>]>>);

impl Exemplars {
    /// Keeps this one for its bucket, of so many, unless a later one is there.
    pub(super) fn keep(&self, bucket: usize, buckets: usize, exemplar: Exemplar) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            *all = vec![None; buckets].into();
        }
        if all[bucket].as_ref().is_none_or(|kept| kept.taken <= exemplar.taken) {
            all[bucket] = Some(exemplar);
        }
    }

    /// As they are now; empty where there never was one.
    pub(super) fn get(&self) -> Box<[Option<Exemplar>]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, UNIX_EPOCH};

    use super::Exemplars;
    use crate::telemetry::context::{SpanId, TraceId};
    use crate::telemetry::exemplar::Exemplar;

    /// Taken so many seconds after 1970, and so many after the beginning of the test.
    fn exemplar(second: u64, begun: Instant, after: u64) -> Exemplar {
        Exemplar {
            trace_id: TraceId([0xab; 16]),
            span_id: SpanId([0x1; 8]),
            duration: Duration::from_micros(1500),
            at: UNIX_EPOCH + Duration::from_secs(second),
            taken: begun + Duration::from_secs(after),
        }
    }

    #[test]
    fn the_latest_sample_of_each_bucket_is_kept_though_the_clock_is_set_back() {
        let (exemplars, begun) = (Exemplars::default(), Instant::now());
        assert!(exemplars.get().is_empty());
        for (bucket, second, after) in [(0, 5, 0), (0, 7, 2), (0, 6, 1), (2, 9, 4), (2, 1, 5)] {
            exemplars.keep(bucket, 3, exemplar(second, begun, after));
        }
        let kept = exemplars.get();
        let seconds = kept.iter().map(|kept| kept.as_ref().map(|kept| kept.at));
        let at = |second| Some(UNIX_EPOCH + Duration::from_secs(second));
        assert_eq!(seconds.collect::<Vec<_>>(), [at(7), None, at(1)]);
    }

    #[test]
    fn it_is_written_as_openmetrics_has_it() {
        assert_eq!(
            exemplar(1_700_000_000, Instant::now(), 0).to_string(),
            " # {trace_id=\"abababababababababababababababab\",span_id=\"0101010101010101\"} \
             0.0015 1700000000.000"
        );
    }
}
