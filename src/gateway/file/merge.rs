//! Merges the sources key by key and remembers where everything stands.

use std::cell::OnceCell;
use std::sync::Arc;

use figment::value::{Dict, Value};

use super::layer::{Places, Spot, within};
use super::renamed::Renamed;
use super::source::Sources;
use super::{document, environment, otel};
use crate::problem::{Key, Place, Problem, Problems};

/// All sources as one, and where everything in them stands.
pub(super) struct Merged<'a> {
    /// What is written, without what routes inherit.
    pub(super) written: Arc<Value>,
    /// The same with that, if there is any.
    inherited: Option<Value>,
    /// Secrets that the `OTEL_*` variables hold.
    pub(super) secrets: Vec<(String, String)>,
    /// What kept a source from being merged.
    pub(super) problems: Vec<Problem>,
    /// Keys that were called by names that they had before.
    renamed: Renamed,
    /// Whether every file could be merged.
    pub(super) complete: bool,
    sources: &'a Sources,
    /// Where the keys of each file stand, once somebody has asked.
    in_files: OnceCell<Vec<Places>>,
    overrides: Places,
    otel: Places,
}

impl<'a> Merged<'a> {
    /// Merges what can be merged.
    pub(super) fn new(sources: &'a Sources) -> Self {
        let mut problems = Vec::new();
        let mut renamed = Renamed::default();
        let mut merged = Dict::new();
        for (source, (origin, text)) in sources.files.iter().enumerate() {
            match document::parse(source, origin, text) {
                Ok(mut values) => {
                    renamed.bring_up_to_date(&mut values);
                    overlay(&mut merged, values);
                }
                Err(syntax) => problems.extend(syntax),
            }
        }
        let complete = problems.is_empty();

        let source = sources.files.len();
        let mut overrides = environment::overrides(&sources.environment, source);
        renamed.bring_up_to_date(&mut overrides.values);
        if complete {
            problems.extend(environment::refuse_new_tables(&mut overrides, &merged));
        }
        overlay(&mut merged, overrides.values);

        let otel = otel::read(&sources.environment, &merged, source + 1);
        problems.extend(otel.problems);
        fill_table(&mut merged, &otel.layer.values);

        Self {
            inherited: inherit(&merged).map(Value::from),
            written: Arc::new(Value::from(merged)),
            secrets: otel.secrets,
            problems,
            renamed,
            complete,
            sources,
            in_files: OnceCell::new(),
            overrides: overrides.places,
            otel: otel.layer.places,
        }
    }

    /// What is in force, with what routes inherit.
    pub(super) fn values(&self) -> &Value {
        self.inherited.as_ref().unwrap_or(&self.written)
    }

    /// What is to be said of keys that have another name now.
    pub(super) fn warnings(&self) -> Problems {
        self.renamed.warnings.iter().cloned().map(|warning| self.place(warning)).collect()
    }

    /// Keys that were written by their old and by their new name.
    pub(super) fn named_twice(&self) -> impl Iterator<Item = Problem> {
        self.renamed.problems.iter().cloned().map(|problem| self.place(problem))
    }

    /// Gives a problem its place. What a route has inherited is wrong in the defaults.
    pub(super) fn place(&self, problem: Problem) -> Problem {
        let is_written = |key: &Key| self.written(key).is_some();
        let inherited = || inherited(&problem.key).filter(is_written);
        let before = || self.renamed.as_written(&problem.key).filter(is_written);
        let key = if is_written(&problem.key) { None } else { before().or_else(inherited) };
        let problem = Problem { key: key.unwrap_or(problem.key), ..problem };
        let place = match self.written(&problem.key) {
            Some(spot) if problem.names_key => spot.key.clone(),
            Some(spot) => spot.value.clone(),
            None => self.table(&problem.key),
        };
        problem.at(place)
    }

    /// Where the value in force was written, if it was, and whether a route has inherited it.
    pub(super) fn found_at(&self, key: &Key) -> (Option<Place>, bool) {
        let before = || self.renamed.as_written(key).and_then(|key| self.written(&key));
        let own = self.written(key).or_else(before);
        let spot = own.or_else(|| inherited(key).and_then(|key| self.written(&key)));
        (spot.map(|spot| spot.value.clone()), own.is_none() && spot.is_some())
    }

    /// Where the key was written last, which is the value in force, or something in the table that it is.
    fn written(&self, key: &Key) -> Option<&Spot> {
        let mut last_first =
            [&self.overrides].into_iter().chain(self.in_files().iter().rev()).chain([&self.otel]);
        let exactly = last_first.clone().find_map(|places| places.get(key));
        exactly.or_else(|| last_first.find_map(|places| within(places, key)).map(|(_, spot)| spot))
    }

    fn in_files(&self) -> &[Places] {
        self.in_files.get_or_init(|| {
            let files = self.sources.files.iter().enumerate();
            files.map(|(source, (origin, text))| document::places(source, origin, text)).collect()
        })
    }

    /// Where something that is missing belongs: the nearest table around it that was written, where it was
    /// written first.
    fn table(&self, key: &Key) -> Place {
        let tables = std::iter::successors(key.parent(), Key::parent);
        let layers = || self.in_files().iter().chain([&self.overrides, &self.otel]);
        let spot = tables.into_iter().find_map(|table| layers().find_map(|places| places.get(&table)));
        spot.map(|spot| spot.value.clone()).unwrap_or_default()
    }
}

/// What these files say, merged, as one file.
pub(super) fn as_one(texts: &[String]) -> Result<String, Problems> {
    if let [text] = texts {
        return Ok(text.clone());
    }
    let mut merged = Dict::new();
    for (source, text) in texts.iter().enumerate() {
        let mut values = document::parse(source, "", text)?;
        Renamed::default().bring_up_to_date(&mut values);
        overlay(&mut merged, values);
    }
    Ok(document::write(&merged))
}

/// Puts a source over what has been merged, table by table.
fn overlay(merged: &mut Dict, values: Dict) {
    for (name, value) in values {
        match (merged.get_mut(&name), value) {
            (Some(Value::Dict(_, merged)), Value::Dict(_, table)) => overlay(merged, table),
            (_, value) => drop(merged.insert(name, value)),
        }
    }
}

/// The same key of a route in the table that routes inherit.
fn inherited(key: &Key) -> Option<Key> {
    let mut segments = key.segments();
    (segments.next() == Some("routes") && segments.next().is_some())
        .then(|| ["defaults", "route"].into_iter().chain(segments).collect())
}

/// Gives each route what `[defaults.route]` says where the route is silent, key by key, if it says anything.
fn inherit(written: &Dict) -> Option<Dict> {
    let defaults = written.get("defaults")?.find_ref("route")?;
    let mut values = written.clone();
    if let Some(Value::Dict(_, routes)) = values.get_mut("routes") {
        for route in routes.values_mut() {
            fill(route, defaults);
        }
    }
    Some(values)
}

fn fill(value: &mut Value, defaults: &Value) {
    if let (Value::Dict(_, value), Value::Dict(_, defaults)) = (value, defaults) {
        fill_table(value, defaults);
    }
}

fn fill_table(values: &mut Dict, defaults: &Dict) {
    for (name, default) in defaults {
        match values.get_mut(name) {
            Some(written) => fill(written, default),
            None => drop(values.insert(name.clone(), default.clone())),
        }
    }
}
