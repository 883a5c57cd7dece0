//! The standard `OTEL_*` variables, which count where the files are silent.
//!
//! Sampling is always parent-based, so `always_on` and `parentbased_always_on` mean the same here.

use std::path;

use figment::value::{Dict, Value};
use percent_encoding::percent_decode_str;

use super::environment::place;
use super::layer::Layer;
use crate::problem::{Key, Problem};
use crate::setting::check::alternatives;

/// What the variables say.
#[derive(Debug, Default)]
pub(super) struct Otel {
    /// Their values under our keys.
    pub(super) layer: Layer,
    /// Secrets of theirs, under names that `{ env = "…" }` finds.
    pub(super) secrets: Vec<(String, String)>,
    /// What is wrong with them.
    pub(super) problems: Vec<Problem>,
}

/// Reads the variables. The merged files and overrides tell the protocol that an endpoint is meant for.
pub(super) fn read(environment: &[(String, String)], merged: &Dict, source: usize) -> Otel {
    let mut reader = Reader { environment, source, otel: Otel::default() };
    reader.resource();
    reader.sampling();
    let otlp = reader.is_otlp_on();
    if reader.is_zipkin_on(merged) {
        reader.zipkin();
        reader.batches("zipkin");
    }
    if otlp {
        reader.exporter();
        reader.endpoint(merged);
        reader.headers();
        reader.batches("otlp");
    } else if let Some(name) = reader.first(&["OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"]) {
        reader.set(&["otlp"], "off", name);
    }
    reader.otel
}

struct Reader<'a> {
    environment: &'a [(String, String)],
    source: usize,
    otel: Otel,
}

impl<'a> Reader<'a> {
    fn resource(&mut self) {
        if let Some((name, text)) = self.variable("OTEL_RESOURCE_ATTRIBUTES") {
            for (key, value) in self.pairs(&["resource"], name, text) {
                let path: &[&str] =
                    if key == "service.name" { &["service_name"] } else { &["resource", &key] };
                self.set(path, value, name);
            }
        }
        if let Some((name, text)) = self.variable("OTEL_SERVICE_NAME") {
            self.set(&["service_name"], text, name);
        }
    }

    fn sampling(&mut self) {
        let argument = self.variable("OTEL_TRACES_SAMPLER_ARG");
        let Some((name, sampler)) = self.variable("OTEL_TRACES_SAMPLER") else { return };
        match sampler.strip_prefix("parentbased_").unwrap_or(sampler) {
            "always_on" => self.set(&["sampling", "ratio"], 1.0, name),
            "always_off" => self.set(&["sampling", "ratio"], 0.0, name),
            "traceidratio" => {
                let (name, text) = argument.unwrap_or((name, "1"));
                match text.parse::<f64>() {
                    Ok(ratio) if (0.0..=1.0).contains(&ratio) => {
                        self.set(&["sampling", "ratio"], ratio, name);
                    }
                    _ => self.wrong(&["sampling", "ratio"], name, text, "a number from 0 to 1"),
                }
            }
            _ => {
                let known = ["parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"];
                self.wrong(&["sampling", "ratio"], name, sampler, &alternatives(known));
            }
        }
    }

    /// Whether spans go to an OTLP receiver.
    fn is_otlp_on(&mut self) -> bool {
        match self.variable("OTEL_SDK_DISABLED") {
            Some((_, text)) if text.eq_ignore_ascii_case("true") => return false,
            Some((name, text)) if !text.eq_ignore_ascii_case("false") => {
                self.wrong(&["otlp"], name, text, &alternatives(["true", "false"]));
            }
            _ => {}
        }
        let Some((name, text)) = self.variable("OTEL_TRACES_EXPORTER") else { return true };
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        if words.iter().any(|word| !["otlp", "zipkin", "none"].contains(word)) {
            let known = alternatives(["otlp", "zipkin", "otlp,zipkin", "none"]);
            self.wrong(&["otlp"], name, text, &known);
            return true;
        }
        if words.contains(&"zipkin") {
            self.set(&["zipkin", "endpoint"], ZIPKIN_ENDPOINT, name);
        }
        words.contains(&"otlp")
    }

    /// Whether spans go to a Zipkin receiver.
    fn is_zipkin_on(&self, merged: &Dict) -> bool {
        [merged, &self.otel.layer.values].into_iter().any(|layer| {
            let zipkin = layer.get("telemetry").and_then(|telemetry| telemetry.find_ref("zipkin"));
            zipkin.is_some_and(|zipkin| zipkin.as_dict().is_some())
        })
    }

    fn zipkin(&mut self) {
        if let Some((name, url)) = self.variable("OTEL_EXPORTER_ZIPKIN_ENDPOINT") {
            self.set(&["zipkin", "endpoint"], url, name);
        }
        self.milliseconds(&["zipkin", "timeout"], self.variable("OTEL_EXPORTER_ZIPKIN_TIMEOUT"));
    }

    fn exporter(&mut self) {
        for (key, suffix, words) in [
            ("protocol", "PROTOCOL", ["grpc", "http/protobuf"]),
            ("compression", "COMPRESSION", ["gzip", "none"]),
        ] {
            let Some((name, text)) = self.exporter_variable(suffix) else { continue };
            if words.contains(&text) {
                self.set(&["otlp", key], text, name);
            } else {
                self.wrong(&["otlp", key], name, text, &alternatives(words));
            }
        }
        let timeout = self.exporter_variable("TIMEOUT").or_else(|| self.variable("OTEL_BSP_EXPORT_TIMEOUT"));
        self.milliseconds(&["otlp", "timeout"], timeout);
        for (key, suffix) in [
            ("ca_file", "CERTIFICATE"),
            ("certificate_file", "CLIENT_CERTIFICATE"),
            ("key_file", "CLIENT_KEY"),
        ] {
            if let Some((name, file)) = self.exporter_variable(suffix) {
                // Relative to where the process runs, as everywhere in OpenTelemetry, not to routes.toml.
                let file = path::absolute(file).unwrap_or_else(|_| file.into());
                self.set(&["otlp", "tls", key], file.display().to_string(), name);
            }
        }
    }

    /// The generic endpoint is a base, the one for traces is taken as it is (OTLP exporter specification,
    /// "Endpoint URLs for OTLP/HTTP").
    fn endpoint(&mut self, merged: &Dict) {
        let traces = self.variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let Some((name, url)) = traces.or_else(|| self.variable("OTEL_EXPORTER_OTLP_ENDPOINT")) else {
            return;
        };
        let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        let url = match (self.is_http(merged), traces.is_some()) {
            (true, true) if !has_path => format!("{url}/"),
            (true, false) => format!("{}/v1/traces", url.trim_end_matches('/')),
            _ => url.to_owned(),
        };
        self.set(&["otlp", "endpoint"], url, name);
    }

    fn is_http(&self, merged: &Dict) -> bool {
        let written = |layer: &Dict| {
            let otlp = layer.get("telemetry")?.find_ref("otlp.protocol")?;
            Some(otlp.as_str() == Some("http/protobuf"))
        };
        written(merged).or_else(|| written(&self.otel.layer.values)).unwrap_or(false)
    }

    fn headers(&mut self) {
        let Some((name, text)) = self.exporter_variable("HEADERS") else { return };
        for (header, value) in self.pairs(&["otlp", "headers"], name, text) {
            let header = header.to_lowercase();
            let secret = format!("{name}[{header}]");
            self.set(&["otlp", "headers", &header, "env"], secret.as_str(), name);
            self.otel.secrets.push((secret, value));
        }
    }

    /// The batch processor's variables, which count for every receiver.
    fn batches(&mut self, receiver: &str) {
        self.milliseconds(&[receiver, "delay"], self.variable("OTEL_BSP_SCHEDULE_DELAY"));
        for (key, name) in [("queue", "OTEL_BSP_MAX_QUEUE_SIZE"), ("batch", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE")]
        {
            let Some((name, text)) = self.variable(name) else { continue };
            match text.parse::<u32>() {
                Ok(count @ 1..) => self.set(&[receiver, key], count, name),
                _ => self.wrong(&[receiver, key], name, text, "a whole number from 1"),
            }
        }
    }

    fn milliseconds(&mut self, path: &[&str], variable: Option<(&'a str, &'a str)>) {
        let Some((name, text)) = variable else { return };
        match text.parse::<u64>() {
            Ok(1..) => self.set(path, format!("{text}ms"), name),
            _ => self.wrong(path, name, text, "a whole number of milliseconds from 1"),
        }
    }

    /// `key=value,key=value`, percent-encoded (the W3C Baggage format).
    fn pairs(&mut self, path: &[&str], name: &str, text: &str) -> Vec<(String, String)> {
        let decode = |text: &str| percent_decode_str(text.trim()).decode_utf8().ok().map(String::from);
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=')?;
            Some((decode(key)?, decode(value)?)).filter(|(key, _)| !key.is_empty())
        };
        let pairs: Option<Vec<_>> =
            text.split(',').filter(|text| !text.trim().is_empty()).map(pair).collect();
        pairs.unwrap_or_else(|| {
            // The text is not repeated: header values are secrets.
            self.problem(path, name, "is not a list of pairs", "key=value,key=value, percent-encoded");
            Vec::new()
        })
    }

    /// The variable for traces, else the one for all signals.
    fn exporter_variable(&self, suffix: &str) -> Option<(&'a str, &'a str)> {
        let named = |prefix: &str| self.variable(&format!("{prefix}{suffix}"));
        named("OTEL_EXPORTER_OTLP_TRACES_").or_else(|| named("OTEL_EXPORTER_OTLP_"))
    }

    /// A variable; an empty one is as good as none.
    fn variable(&self, name: &str) -> Option<(&'a str, &'a str)> {
        let (name, text) = self.environment.iter().rfind(|(known, _)| known == name)?;
        Some((name.as_str(), text.trim())).filter(|(_, text)| !text.is_empty())
    }

    fn first(&self, names: &[&str]) -> Option<&'a str> {
        names.iter().find_map(|name| self.variable(name)).map(|(name, _)| name)
    }

    fn set(&mut self, path: &[&str], value: impl Into<Value>, variable: &str) {
        self.otel.layer.set(&key(path), value.into(), &place(variable, self.source));
    }

    fn wrong(&mut self, path: &[&str], variable: &str, text: &str, expected: &str) {
        self.problem(path, variable, &format!("\"{text}\" is not what belongs here"), expected);
    }

    fn problem(&mut self, path: &[&str], variable: &str, what: &str, expected: &str) {
        let problem = Problem::new(&key(path), what).help(format!("set {variable} to {expected}"));
        self.otel.problems.push(problem.at(place(variable, self.source)));
    }
}

fn key(path: &[&str]) -> Key {
    std::iter::once("telemetry").chain(path.iter().copied()).collect()
}

/// Where the standard says that a Zipkin receiver is.
const ZIPKIN_ENDPOINT: &str = "http://localhost:9411/api/v2/spans";
