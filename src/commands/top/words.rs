//! Figures as people read them, in few characters.

/// Milliseconds, in at most six characters up to a hundred hours.
pub(super) fn duration(milliseconds: f64) -> String {
    let seconds = milliseconds / 1e3;
    match milliseconds {
        ms if ms < 10.0 => format!("{ms:.1}ms"),
        ms if ms < 999.5 => format!("{ms:.0}ms"),
        _ if seconds < 9.995 => format!("{seconds:.2}s"),
        _ if seconds < 99.95 => format!("{seconds:.1}s"),
        _ if seconds < 600.0 => format!("{seconds:.0}s"),
        _ if seconds < 6000.0 => format!("{:.0}min", seconds / 60.0),
        _ => format!("{:.1}h", seconds / 3600.0),
    }
}

/// A duration that may be unknown.
pub(super) fn perhaps(milliseconds: Option<f64>) -> String {
    milliseconds.map_or_else(|| NOTHING.to_owned(), duration)
}

/// A share from 0.0 to 1.0, in at most five characters. What is not nothing is never shown as nothing.
pub(super) fn share(ratio: f64) -> String {
    let percent = ratio * 100.0;
    match percent {
        none if none <= 0.0 => "0%".to_owned(),
        few if few < 0.05 => "<0.1%".to_owned(),
        few if few < 9.95 => format!("{few:.1}%"),
        many => format!("{many:.0}%"),
    }
}

/// So many a second, in at most six characters.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        none if none <= 0.0 => "0".to_owned(),
        few if few < 0.005 => "<0.01".to_owned(),
        few if few < 9.995 => format!("{few:.2}"),
        some if some < 99.95 => format!("{some:.1}"),
        many if many < 99_999.5 => format!("{many:.0}"),
        many => format!("{:.0}k", many / 1e3),
    }
}

/// A count, its thousands apart.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// So many bytes.
pub(super) fn bytes(bytes: u64) -> String {
    let mut figure = bytes;
    for unit in ["B", "KiB", "MiB"] {
        if figure < 10_000 {
            return format!("{figure} {unit}");
        }
        figure = figure.div_ceil(1024);
    }
    format!("{figure} GiB")
}

/// The time of day of an RFC 3339 time.
pub(super) fn clock(time: &str) -> &str {
    time.get(11..19).unwrap_or(time)
}

/// `1 trace`, `2 traces`.
pub(super) fn of(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

/// The text in just so many characters: cut off, and said so, or filled up.
pub(super) fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return format!("{text:<width$}");
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    if width == 0 { kept } else { kept + "…" }
}

/// The same, at the right.
pub(super) fn fit_right(text: &str, width: usize) -> String {
    if text.chars().count() <= width { format!("{text:>width$}") } else { fit(text, width) }
}

/// Stands for a figure that there is none of.
pub(super) const NOTHING: &str = "-";

#[cfg(test)]
mod tests {
    use super::{bytes, clock, count, duration, fit, fit_right, rate, share};

    #[test]
    fn figures_are_short_and_never_nothing_that_is_something() {
        for (figure, text) in [
            (duration(0.0), "0.0ms"),
            (duration(9.94), "9.9ms"),
            (duration(999.4), "999ms"),
            (duration(999.6), "1.00s"),
            (duration(12_340.0), "12.3s"),
            (duration(599_000.0), "599s"),
            (duration(3_600_000.0), "60min"),
            (duration(36_000_000.0), "10.0h"),
            (share(0.0), "0%"),
            (share(0.0001), "<0.1%"),
            (share(0.012), "1.2%"),
            (share(1.0), "100%"),
            (rate(0.0), "0"),
            (rate(0.003), "<0.01"),
            (rate(1.0), "1.00"),
            (rate(23_456.7), "23457"),
            (rate(1_234_567.0), "1235k"),
            (count(1_234_567), "1 234 567"),
            (count(123), "123"),
            (bytes(512), "512 B"),
            (bytes(16 * 1024 * 1024), "16 MiB"),
        ] {
            assert_eq!(figure, text);
        }
    }

    #[test]
    fn texts_have_just_their_width() {
        assert_eq!((fit("ab", 4), fit_right("ab", 4)), ("ab  ".to_owned(), "  ab".to_owned()));
        assert_eq!(
            (fit("abcdef", 4), fit("abc", 0), fit("ü", 1)),
            ("abc…".into(), String::new(), "ü".into())
        );
        assert_eq!((clock("2026-11-27T16:07:58.123Z"), clock("?")), ("16:07:58", "?"));
    }
}
