//! The house keeps its order: imports point down and go in no circle, and the map names every file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

mod imports;

use imports::{Sources, Word};

/// Top modules, highest first. A file imports from lower rows and from its own top module.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["commands", "demo", "lint"],
    &["gateway"],
    &["admin"],
    &["http"],
    &["listener", "upstream"],
    &["telemetry"],
    &["net"],
    FOUNDATION,
];

/// The lowest row, whose modules may import each other.
const FOUNDATION: &[&str] = &["setting", "problem", "failure", "view", "worker"];

#[test]
fn no_file_imports_itself_round_a_corner() {
    let cycles = cycles(&sources().imports());
    assert!(cycles.is_empty(), "import cycles:\n{}", cycles.join("\n"));
}

#[test]
fn imports_point_down() {
    let wrong = upward(&sources().imports());
    assert!(wrong.is_empty(), "imports that point up or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_in_its_first_line() {
    let silent = |(module, text): (&String, &String)| (!text.starts_with("//! ")).then(|| module.clone());
    let silent: Vec<_> = sources().texts().iter().filter_map(silent).collect();
    assert!(silent.is_empty(), "files that do not begin with `//! `: {silent:?}");
}

#[test]
fn the_walk_in_lib_names_every_file() {
    let sources = sources();
    let words: BTreeSet<Word> = imports::documented_words(&sources.texts()[""]);
    let missing: Vec<_> = sources.modules().filter(|module| !words.contains(*module)).collect();
    assert!(missing.is_empty(), "src/lib.rs does not name, in backticks, {missing:#?}");
}

/// Where a text is declared to be the configuration's, and so fit for a label of metrics: files that have it from
/// there, and the record, whose rules are keys of it.
const CONFIGURED: &[&str] = &[
    "gateway",
    "gateway::reload",
    "gateway::snapshot",
    "admin::ways",
    "http::auth",
    "http::auth::forward",
    "http::rate_limit",
    "http::record",
    "http::route",
    "telemetry::operation",
    "upstream",
    "upstream::breaker",
    "upstream::standing",
];

#[test]
fn only_files_that_have_it_from_the_configuration_say_that_a_text_is_configured() {
    let declare = using("Configured::new");
    let expected: BTreeSet<_> = CONFIGURED.iter().map(ToString::to_string).collect();
    assert_eq!(declare, expected);
}

#[test]
fn nothing_that_tells_of_an_exchange_looks_at_what_is_personal_in_it() {
    let looking = using(".for_exchange()");
    let told: Vec<_> = looking.iter().filter(|module| module.starts_with("telemetry")).collect();
    assert_eq!(told, ["telemetry::privacy"], "it decides what may be said");
}

/// The files that use these words outside of their tests.
fn using(words: &str) -> BTreeSet<String> {
    let sources = sources();
    let own =
        |text: &str| text.split("#[cfg(test)]\nmod tests").next().is_some_and(|own| own.contains(words));
    let defining = |module: &str| matches!(module, "telemetry::attribute" | "telemetry::testing");
    let all = sources.texts().iter().filter(|(module, text)| own(text) && !defining(module));
    all.map(|(module, _)| module.clone()).collect()
}

#[test]
fn a_planted_cycle_is_found() {
    for (name, planted) in [
        ("between siblings", vec![("a", "use crate::b::B;"), ("b", "use crate::a::A;")]),
        ("through an alias", vec![("a", "use crate::b; fn f() { b::g() }"), ("b", "use super::a::A;")]),
        ("by a path expression", vec![("a", "fn f() -> crate::b::B { b() }"), ("b", "use crate::a::*;")]),
        ("in a macro", vec![("a", "fn f() { format!(\"{}\", crate::b::B) }"), ("b", "use crate::a;")]),
        ("of a child and its parent", vec![("a", "mod b; use b::B;"), ("a::b", "use super::A;")]),
        (
            "of three",
            vec![("a", "use crate::b;"), ("b", "use crate::c;"), ("c", "use crate::{a, d};"), ("d", "")],
        ),
        ("from an inner module", vec![("a", "mod m { use super::super::b::B; }"), ("b", "use crate::a::A;")]),
    ] {
        let found = cycles(&Sources::planted(planted).imports());
        assert_eq!(found.len(), 1, "a cycle {name}: {found:?}");
    }
}

#[test]
fn what_is_no_cycle_is_not_taken_for_one() {
    for (name, planted) in [
        ("re-exporting a child", vec![("a", "mod b; pub use b::B;"), ("a::b", "use super::A;")]),
        (
            "importing a cousin",
            vec![("a", "mod b; mod c; use b::B;"), ("a::b", "use super::c::C;"), ("a::c", "")],
        ),
        ("a crate of the same name", vec![("a", "use b::B;"), ("b", "use crate::a::A;")]),
        ("tests", vec![("a", "#[cfg(test)] mod tests { use crate::b::B; }"), ("b", "use crate::a::A;")]),
    ] {
        let found = cycles(&Sources::planted(planted).imports());
        assert!(found.is_empty(), "{name} is no cycle: {found:?}");
    }
}

#[test]
fn an_import_that_points_up_is_found() {
    for (from, text, wrong) in [
        ("net", "use crate::telemetry::Sink;", true),
        ("telemetry::spans", "use crate::http::route::Route;", true),
        ("listener", "use crate::upstream::Endpoint;", true),
        ("elsewhere", "use crate::net::Dial;", true),
        ("http::pool", "use crate::net::Dial;", false),
        ("problem", "use crate::setting::Secret;", false),
    ] {
        let all = ["net", "telemetry", "http", "http::route", "upstream", "setting"];
        let mut planted: Vec<_> =
            all.iter().filter(|module| **module != from).map(|module| (*module, "")).collect();
        planted.push((from, text));
        assert_eq!(upward(&Sources::planted(planted).imports()).len(), usize::from(wrong), "{from}: {text}");
    }
}

/// The library and the binary.
fn sources() -> Sources {
    let mut files = BTreeMap::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files);
    Sources::new(files)
}

fn collect(directory: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}::"), files);
        } else if let Some(module) = name.strip_suffix(".rs") {
            let module = if module == "lib" { String::new() } else { format!("{prefix}{module}") };
            files.insert(module, fs::read_to_string(&path).unwrap());
        }
    }
}

type Imports = BTreeMap<String, BTreeSet<String>>;

/// Each cycle once, as `a → b → a`.
fn cycles(imports: &Imports) -> Vec<String> {
    let mut found: BTreeMap<BTreeSet<&str>, String> = BTreeMap::new();
    for start in imports.keys() {
        if let Some(path) = way(imports, start, start) {
            let members = path.iter().copied().collect();
            found.entry(members).or_insert_with(|| path.join(" → ") + " → " + start);
        }
    }
    found.into_values().collect()
}

/// The shortest way along imports from one file to another, without its last step.
fn way<'a>(imports: &'a Imports, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![from]];
    let mut met = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in imports.get(*way.last()?).into_iter().flatten() {
                if next == to {
                    return Some(way);
                }
                if met.insert(next) {
                    longer.push(way.iter().copied().chain([next.as_str()]).collect());
                }
            }
        }
        ways = longer;
    }
    None
}

/// Every import that does not point down.
fn upward(imports: &Imports) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, to) in imports.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to))) {
        let [upper, lower] = [from, to].map(|module| module.split("::").next().unwrap_or_default());
        let allowed = match (layer(upper), layer(lower)) {
            _ if upper == lower || upper.is_empty() => true,
            (Some(upper), Some(lower)) if upper == lower => LAYERS[upper] == FOUNDATION,
            (Some(upper), Some(lower)) => upper < lower,
            // a top module that has no place in the order
            _ => false,
        };
        if !allowed {
            wrong.push(format!("{from} → {to}"));
        }
    }
    wrong
}

fn layer(top: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&top))
}
