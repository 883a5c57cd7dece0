//! Metrics as OTLP has them, read off the page for Prometheus: what is pushed and what is scraped is one account.
//!
//! Names are those of OpenTelemetry (`http.server.request.duration`, unit `s`), which a receiver that stores them
//! for Prometheus turns back into those of the page. Sums and histograms are cumulative.

use std::iter;

use super::encode::attribute;
use super::protobuf::Writer;

/// Nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// When counting began.
    pub started: u64,
    /// When the page was written.
    pub now: u64,
}

/// Writes every metric of an OpenMetrics page, as fields of a `ScopeMetrics`.
pub(super) fn write(message: &mut Writer, page: &str, times: Times) {
    for family in page.split("# HELP ").skip(1).filter_map(Family::read) {
        message.message(2, |metric| family.write(metric, times));
    }
}

/// One family of the page.
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: &'a str,
    samples: Vec<Sample<'a>>,
}

struct Sample<'a> {
    /// What the sample's name has more than the family's.
    suffix: &'a str,
    labels: &'a str,
    value: &'a str,
    exemplar: Option<&'a str>,
}

impl<'a> Family<'a> {
    /// The text from a family's help on; `None` for the resource, which is sent on its own.
    fn read(text: &'a str) -> Option<Self> {
        let mut lines = text.lines();
        let (name, help) = lines.next()?.split_once(' ')?;
        let kind = lines.next()?.rsplit_once(' ')?.1;
        let samples = lines.filter(|line| !line.starts_with('#')).filter_map(|line| Sample::read(line, name));
        (name != "target").then(|| Self { name, help, kind, samples: samples.collect() })
    }

    fn write(&self, metric: &mut Writer, times: Times) {
        let (name, unit) = name(self.name);
        metric.text(1, &name);
        metric.text(2, self.help);
        metric.text(3, unit);
        let numbers = |data: &mut Writer| {
            self.samples.iter().for_each(|sample| data.message(1, |point| sample.write(point, times)));
        };
        match self.kind {
            "counter" => metric.message(7, |sum| {
                numbers(sum);
                sum.unsigned(2, CUMULATIVE);
                sum.unsigned(3, 1);
            }),
            "histogram" => metric.message(9, |histogram| {
                for series in self.samples.split_inclusive(|sample| sample.suffix == "_count") {
                    histogram.message(1, |point| write_histogram(point, series, times));
                }
                histogram.unsigned(2, CUMULATIVE);
            }),
            _ => metric.message(5, numbers),
        }
    }
}

impl<'a> Sample<'a> {
    fn read(line: &'a str, family: &str) -> Option<Self> {
        let (sample, exemplar) = match line.split_once(" # ") {
            Some((sample, exemplar)) => (sample, Some(exemplar)),
            None => (line, None),
        };
        let (series, value) = sample.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let (suffix, labels) = (name.strip_prefix(family)?, labels.strip_suffix('}')?);
        Some(Self { suffix, labels, value, exemplar })
    }

    fn write(&self, point: &mut Writer, times: Times) {
        point.fixed64(2, times.started);
        point.fixed64(3, times.now);
        match self.value.parse::<i64>() {
            Ok(whole) => point.fixed64(6, whole.cast_unsigned()),
            Err(_) => point.fixed64(4, double(self.value)),
        }
        write_labels(point, 7, self.labels);
    }
}

/// The samples of one histogram: its buckets, its sum, its count.
fn write_histogram(point: &mut Writer, samples: &[Sample<'_>], times: Times) {
    let (mut counts, mut bounds, mut below) = (Vec::new(), Vec::new(), 0);
    point.fixed64(2, times.started);
    point.fixed64(3, times.now);
    for sample in samples {
        match sample.suffix {
            "_bucket" => {
                let count: u64 = sample.value.parse().unwrap_or(below);
                counts.extend((count - below).to_le_bytes());
                below = count;
                let bound = labels(sample.labels).find_map(|(key, bound)| (key == "le").then_some(bound));
                if let Some(bound) = bound.filter(|bound| bound != "+Inf") {
                    bounds.extend(double(&bound).to_le_bytes());
                }
            }
            "_sum" => point.fixed64(5, double(sample.value)),
            _ => {
                point.fixed64(4, sample.value.parse().unwrap_or(below));
                write_labels(point, 9, sample.labels);
            }
        }
        if let Some(exemplar) = sample.exemplar {
            point.message(8, |message| write_exemplar(message, exemplar));
        }
    }
    point.bytes(6, &counts);
    point.bytes(7, &bounds);
}

/// `{trace_id="…",span_id="…"} value seconds`
fn write_exemplar(message: &mut Writer, text: &str) {
    let Some((ids, numbers)) = text.trim_start_matches('{').split_once("} ") else { return };
    let Some((value, seconds)) = numbers.split_once(' ') else { return };
    // three decimals: the page has milliseconds
    let milliseconds: u64 = seconds.replace('.', "").parse().unwrap_or(0);
    message.fixed64(2, milliseconds * 1_000_000);
    message.fixed64(3, double(value));
    for (key, id) in labels(ids) {
        message.bytes(if key == "span_id" { 4 } else { 5 }, &bytes(&id));
    }
}

fn write_labels(point: &mut Writer, field: u32, text: &str) {
    for (key, value) in labels(text).filter(|(key, _)| *key != "le") {
        let key = LABELS.iter().find(|(label, _)| *label == key).map_or(key, |(_, name)| name);
        attribute(point, field, key, &value.into());
    }
}

/// The labels of a series, as on the page: `key="value",…`.
fn labels(mut text: &str) -> impl Iterator<Item = (&str, String)> {
    iter::from_fn(move || {
        let (key, rest) = text.split_once("=\"")?;
        let (mut value, mut escaped) = (String::new(), false);
        for (place, char) in rest.char_indices() {
            match char {
                'n' if escaped => value.push('\n'),
                _ if escaped => value.push(char),
                '"' => {
                    text = rest[place + 1..].trim_start_matches(',');
                    return Some((key, value));
                }
                '\\' => {
                    escaped = true;
                    continue;
                }
                _ => value.push(char),
            }
            escaped = false;
        }
        None
    })
}

/// A metric's name and unit, from the name on the page.
fn name(page: &str) -> (String, &'static str) {
    let (stem, unit) = match page.rsplit_once('_') {
        Some((stem, "seconds")) => (stem, "s"),
        Some((stem, "bytes")) => (stem, "By"),
        _ => (page, ""),
    };
    let known = METRICS.iter().find(|(name, _)| *name == stem).map(|(_, name)| (*name).to_owned());
    (known.unwrap_or_else(|| stem.replacen('_', ".", 1)), unit)
}

fn double(text: &str) -> u64 {
    text.parse().unwrap_or(f64::NAN).to_bits()
}

/// What these hexadecimal digits stand for.
fn bytes(digits: &str) -> Vec<u8> {
    let pairs = (0..digits.len()).step_by(2).map_while(|at| digits.get(at..at + 2));
    pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`
const CUMULATIVE: u64 = 2;

/// The names of the conventions, where a dot does not stand for the first underscore alone.
const METRICS: [(&str, &str); 6] = [
    ("http_server_request_duration", "http.server.request.duration"),
    ("http_server_active_requests", "http.server.active_requests"),
    ("http_server_request_body_size", "http.server.request.body.size"),
    ("http_server_response_body_size", "http.server.response.body.size"),
    ("http_client_request_duration", "http.client.request.duration"),
    ("http_client_active_requests", "http.client.active_requests"),
];

/// The same of labels; others go as they are.
const LABELS: [(&str, &str); 13] = [
    ("http_request_method", "http.request.method"),
    ("http_response_status_code", "http.response.status_code"),
    ("http_route", "http.route"),
    ("url_scheme", "url.scheme"),
    ("error_type", "error.type"),
    ("server_address", "server.address"),
    ("server_port", "server.port"),
    ("tracegate_route", "tracegate.route"),
    ("tracegate_operation", "tracegate.operation"),
    ("tracegate_upstream", "tracegate.upstream"),
    ("tracegate_endpoint", "tracegate.endpoint"),
    ("tracegate_reason", "tracegate.reason"),
    ("tracegate_blame", "tracegate.blame"),
];

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
    use opentelemetry_proto::tonic::metrics::v1::{ScopeMetrics, exemplar};
    use prost::Message as _;

    use super::{Times, Writer, labels, name, write};

    const PAGE: &str = r#"# HELP tracegate_requests Requests.
# TYPE tracegate_requests counter
tracegate_requests_total{tracegate_route="a",status_class="2xx"} 3
# HELP target The resource.
# TYPE target info
target_info{service_name="a"} 1
# HELP http_server_request_duration_seconds Duration.
# TYPE http_server_request_duration_seconds histogram
# UNIT http_server_request_duration_seconds seconds
http_server_request_duration_seconds_bucket{http_route="/",le="0.5"} 1
http_server_request_duration_seconds_bucket{http_route="/",le="1.0"} 4 # {trace_id="0af7651916cd43dd8448eb211c80319c",span_id="b7ad6b7169203331"} 0.75 1700000000.125
http_server_request_duration_seconds_bucket{http_route="/",le="+Inf"} 5
http_server_request_duration_seconds_sum{http_route="/"} 6.5
http_server_request_duration_seconds_count{http_route="/"} 5
# HELP tracegate_streams_active Open streams.
# TYPE tracegate_streams_active gauge
tracegate_streams_active 2.5
# EOF
"#;

    #[test]
    fn the_page_is_told_in_otlp() {
        let mut writer = Writer::default();
        write(&mut writer, PAGE, Times { started: 7, now: 9 });
        let metrics = ScopeMetrics::decode(&writer.into_bytes()[..]).unwrap().metrics;
        let named: Vec<_> = metrics.iter().map(|metric| (&*metric.name, &*metric.unit)).collect();
        let expected = [
            ("tracegate.requests", ""),
            ("http.server.request.duration", "s"),
            ("tracegate.streams_active", ""),
        ];
        assert_eq!(named, expected);

        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
        assert_eq!((sum.is_monotonic, sum.aggregation_temporality), (true, 2));
        let point = &sum.data_points[0];
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (7, 9));
        assert_eq!(point.value, Some(Value::AsInt(3)));
        let keys: Vec<_> = point.attributes.iter().map(|attribute| &*attribute.key).collect();
        assert_eq!(keys, ["tracegate.route", "status_class"]);

        let Some(Data::Histogram(histogram)) = &metrics[1].data else { panic!("{:?}", metrics[1]) };
        assert_eq!((histogram.aggregation_temporality, histogram.data_points.len()), (2, 1));
        let point = &histogram.data_points[0];
        assert_eq!((&point.bucket_counts[..], &point.explicit_bounds[..]), (&[1, 3, 1][..], &[0.5, 1.0][..]));
        assert_eq!((point.count, point.sum, point.attributes.len()), (5, Some(6.5), 1));
        let exemplar = &point.exemplars[0];
        assert_eq!(exemplar.time_unix_nano, 1_700_000_000_125_000_000);
        assert_eq!(exemplar.value, Some(exemplar::Value::AsDouble(0.75)));
        assert_eq!((exemplar.trace_id.len(), exemplar.span_id[0]), (16, 0xb7));

        let Some(Data::Gauge(gauge)) = &metrics[2].data else { panic!("{:?}", metrics[2]) };
        assert_eq!(gauge.data_points[0].value, Some(Value::AsDouble(2.5)));
    }

    #[test]
    fn labels_are_read_as_they_are_written() {
        for (text, expected) in [
            ("", &[][..]),
            (r#"a="",b="1""#, &[("a", ""), ("b", "1")]),
            (r#"a="say \"hi\"\n\\,=",b="c""#, &[("a", "say \"hi\"\n\\,="), ("b", "c")]),
        ] {
            let found: Vec<_> = labels(text).collect();
            let expected: Vec<_> = expected.iter().map(|&(key, value)| (key, value.to_owned())).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn names_are_those_of_the_conventions() {
        for (page, expected) in [
            ("http_server_response_body_size_bytes", ("http.server.response.body.size", "By")),
            ("http_client_active_requests", ("http.client.active_requests", "")),
            ("tracegate_overhead_seconds", ("tracegate.overhead", "s")),
            ("process_cpu_seconds", ("process.cpu", "s")),
        ] {
            assert_eq!(name(page), (expected.0.to_owned(), expected.1));
        }
    }
}
