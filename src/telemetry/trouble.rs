//! Trouble that lasts makes one line of the log, and one a minute with the count.

use std::time::Duration;

use tokio::time::Instant;

/// One kind of trouble.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    said: Option<Instant>,
    count: u64,
    is_open: bool,
}

impl Trouble {
    /// It happened again; how often since it was last said, if it is to be said now.
    pub(crate) fn seen(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.said.is_some_and(|said| now.duration_since(said) < SAY_EVERY) {
            return None;
        }
        self.said = Some(now);
        self.is_open = true;
        Some(std::mem::take(&mut self.count))
    }

    /// It is over; how often it happened since it was last said, if it was said that it began.
    pub(crate) fn over(&mut self) -> Option<u64> {
        std::mem::take(&mut self.is_open).then(|| std::mem::take(&mut self.count))
    }
}

/// How often trouble that lasts, or comes and goes, is said.
const SAY_EVERY: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Trouble;

    #[test]
    fn trouble_that_lasts_is_said_once_a_minute_with_the_count() {
        let (start, mut trouble) = (Instant::now(), Trouble::default());
        let said: Vec<_> = (0..130).map(|second| trouble.seen(start + Duration::from_secs(second))).collect();
        let expected = |second| match second {
            0 => Some(1),
            60 | 120 => Some(60),
            _ => None,
        };
        assert_eq!(said, (0..130).map(expected).collect::<Vec<_>>());
        assert_eq!((trouble.over(), trouble.over()), (Some(9), None));
    }

    #[test]
    fn trouble_that_comes_and_goes_is_said_no_more_often() {
        let (start, mut trouble) = (Instant::now(), Trouble::default());
        for second in 0..60 {
            let said = trouble.seen(start + Duration::from_secs(second)).is_some();
            assert_eq!((said, trouble.over().is_some()), (second == 0, second == 0), "{second}");
        }
    }
}
