//! `tracegate check`: every problem of a configuration at once, or every value in force, or who can be reached.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{connect, counted, report, toml};
use crate::gateway::Settings;
use crate::gateway::file::effective::{Effective, effective};
use crate::gateway::file::{self, Sources};
use crate::problem::Problems;

/// What `tracegate check` may be told.
#[derive(Debug, Args)]
pub struct Options {
    /// A file of routes and settings; may be repeated, later files win key by key
    #[arg(long, value_name = "FILE", default_value = "routes.toml")]
    config: Vec<PathBuf>,
    /// Print every value in force with where it comes from, secrets never
    #[arg(long, conflicts_with = "connect")]
    effective: bool,
    /// Try every endpoint, receiver, issuer and Redis; exit code 1 if one cannot be reached
    #[arg(long)]
    connect: bool,
    /// Do without secrets and the files of certificates with their keys: they need not be there (for CI)
    #[arg(long)]
    without_secrets: bool,
    /// How the result is told
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

/// How a result is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// To people
    #[default]
    Text,
    /// To programs: one JSON document on standard output
    Json,
}

/// Checks these files as `run` would. What is wrong goes to standard error, or into the document.
pub fn check(options: &Options) -> ExitCode {
    let (sources, checked) = match Sources::read(&options.config) {
        Ok(sources) => {
            let checked = if options.without_secrets {
                file::load_without_secrets(&sources)
            } else {
                file::load(&sources)
            };
            (sources, checked)
        }
        Err(problems) => (Sources::default(), Err(problems)),
    };
    let told = match &checked {
        Err(problems) => Told { code: CONFIGURATION, ..refused(problems, &sources, options.format) },
        Ok(_) if options.effective => values(&effective(&sources), options.format),
        Ok(settings) if options.connect => reached(settings, options.format),
        Ok(settings) => fine(settings, options.format),
    };
    eprint!("{}", told.error);
    match io::stdout().write_all(told.output.as_bytes()) {
        Ok(()) => ExitCode::from(told.code),
        Err(_) => ExitCode::FAILURE,
    }
}

/// The exit code for a configuration that is wrong (`EX_CONFIG` of sysexits.h).
pub const CONFIGURATION: u8 = 78;

#[derive(Debug, Default)]
struct Told {
    output: String,
    error: String,
    code: u8,
}

/// One document. Its shape: `ok`, `problems`, `warnings`, and what else was asked for. Keys may be added to it.
fn document(ok: bool, more: Value) -> String {
    let mut document = json!({ "ok": ok, "problems": [], "warnings": [] });
    if let (Value::Object(document), Value::Object(more)) = (&mut document, more) {
        document.extend(more);
    }
    format!("{document:#}\n")
}

fn refused(problems: &Problems, sources: &Sources, format: Format) -> Told {
    match format {
        Format::Text => {
            Told { error: report::shown(problems, sources, report::is_colourful()), ..Told::default() }
        }
        Format::Json => {
            let problems: Vec<_> = problems.iter().map(report::object).collect();
            Told { output: document(false, json!({ "problems": problems })), ..Told::default() }
        }
    }
}

fn fine(settings: &Settings, format: Format) -> Told {
    let warnings = warnings(settings);
    let (routes, upstreams) = (settings.routes.len(), settings.upstreams.len());
    match format {
        Format::Text => Told {
            output: format!("{}, {}: fine\n", counted(routes, "route"), counted(upstreams, "upstream")),
            error: warnings.iter().fold(String::new(), |all, warning| all + &format!("warning: {warning}\n")),
            code: 0,
        },
        Format::Json => {
            let more = json!({ "warnings": warnings, "routes": routes, "upstreams": upstreams });
            Told { output: document(true, more), ..Told::default() }
        }
    }
}

/// What may stay as it is for now, but not for long: certificates that expire soon, keys under old names.
fn warnings(settings: &Settings) -> Vec<String> {
    let now = SystemTime::now();
    let listeners = settings.listeners.iter().flat_map(|listener| {
        let soon = listener.tls.iter().flat_map(|tls| tls.expiring(now));
        soon.map(|(certificate, days)| {
            format!("listeners.{}.tls: the certificate \"{certificate}\" {}", listener.name, left(days))
        })
    });
    let upstreams = settings.upstreams.iter().filter_map(|upstream| {
        let days = upstream.tls.as_ref()?.expiring(now)?;
        Some(format!("upstreams.{}.tls: our own certificate {}", upstream.name, left(days)))
    });
    let of_configuration = settings.configuration.warnings.iter().map(ToString::to_string);
    listeners.chain(upstreams).chain(of_configuration).collect()
}

fn left(days: i64) -> String {
    match usize::try_from(days) {
        Ok(days) => format!("expires in {}", counted(days, "day")),
        Err(_) => "has expired".to_owned(),
    }
}

fn values(values: &[Effective], format: Format) -> Told {
    let output = match format {
        Format::Text => {
            let lines = values.iter().map(|effective| {
                let Effective { key, value, .. } = effective;
                (format!("{key} = {}", toml::value(value)), origin(effective))
            });
            let lines: Vec<_> = lines.collect();
            let line = |(line, origin): &(String, String)| format!("{line:<60}  # {origin}");
            lines.iter().map(line).collect::<Vec<_>>().join("\n") + "\n"
        }
        Format::Json => {
            let object = |effective: &Effective| {
                let Effective { key, value, place, inherited } = effective;
                json!({
                    "key": key.to_string(),
                    "value": value,
                    "origin": place.as_ref().map_or("default", |place| &place.origin),
                    "line": place.as_ref().and_then(|place| place.position).map(|(line, _)| line),
                    "inherited": inherited,
                })
            };
            document(true, json!({ "values": values.iter().map(object).collect::<Vec<_>>() }))
        }
    };
    Told { output, ..Told::default() }
}

/// Where a value comes from: `default`, a file and its line, or a variable.
fn origin(effective: &Effective) -> String {
    let Some(place) = &effective.place else { return "default".to_owned() };
    let from = match place.position {
        Some((line, _)) => format!("{}:{line}", place.origin),
        None => place.origin.clone(),
    };
    if effective.inherited { format!("{from} [defaults.route]") } else { from }
}

fn reached(settings: &Settings, format: Format) -> Told {
    let reached = match connect::all(settings) {
        Ok(reached) => reached,
        Err(error) => return Told { error: format!("error: {error}\n"), code: 1, ..Told::default() },
    };
    let ok = reached.iter().all(|reached| reached.outcome.is_ok());
    let output = match format {
        Format::Text => connect::table(&reached),
        Format::Json => {
            document(ok, json!({ "peers": reached.iter().map(connect::object).collect::<Vec<_>>() }))
        }
    };
    Told { output, code: u8::from(!ok), ..Told::default() }
}
