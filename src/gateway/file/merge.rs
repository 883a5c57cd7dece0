//! Merges the sources key by key and remembers where everything stands.

use figment::providers::Serialized;
use figment::value::{Dict, Value};
use figment::{Figment, Provider};

use super::layer::{Layer, Spot};
use super::source::Sources;
use super::{document, environment, otel};
use crate::problem::{Key, Place, Problem};

/// All sources as one, and where everything in them stands.
pub(super) struct Merged {
    /// What is in force, with what routes inherit.
    pub(super) values: Value,
    /// The same without that.
    pub(super) written: Value,
    /// Secrets that the `OTEL_*` variables hold.
    pub(super) secrets: Vec<(String, String)>,
    /// The layers that later ones override, first of all the files in order.
    layers: Vec<Layer>,
    /// What kept a source from being merged.
    pub(super) problems: Vec<Problem>,
    /// Whether every file could be merged.
    pub(super) complete: bool,
}

impl Merged {
    /// Merges what can be merged.
    pub(super) fn new(sources: &Sources) -> Self {
        let mut layers = Vec::new();
        let mut problems = Vec::new();
        for (source, (origin, text)) in sources.files.iter().enumerate() {
            match document::parse(source, origin, text) {
                Ok(layer) => layers.push(layer),
                Err(syntax) => problems.extend(syntax),
            }
        }
        let complete = problems.is_empty();
        let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(provider(layer)));

        let source = sources.files.len();
        let mut overrides = environment::overrides(&sources.environment, source);
        if complete {
            problems.extend(environment::refuse_new_tables(&mut overrides, &dict(&figment)));
        }
        let figment = figment.merge(provider(&overrides));

        let otel = otel::read(&sources.environment, &dict(&figment), source + 1);
        problems.extend(otel.problems);
        let figment = figment.join(provider(&otel.layer));
        layers.extend([overrides, otel.layer]);

        let written = dict(&figment);
        let values = Value::from(inherit(written.clone()));
        let written = Value::from(written);
        Self { values, written, secrets: otel.secrets, layers, problems, complete }
    }

    /// Gives a problem its place. What a route has inherited is wrong in the defaults.
    pub(super) fn place(&self, problem: Problem) -> Problem {
        let inherited = || inherited(&problem.key).filter(|key| self.written(key).is_some());
        let key = if self.written(&problem.key).is_some() { None } else { inherited() };
        let problem = Problem { key: key.unwrap_or(problem.key), ..problem };
        let place = match self.written(&problem.key) {
            Some(spot) if problem.names_key => spot.key.clone(),
            Some(spot) => spot.value.clone(),
            None => self.table(&problem.key),
        };
        problem.at(place)
    }

    /// Where the key was written last, which is the value in force, or something in the table that it is.
    fn written(&self, key: &Key) -> Option<&Spot> {
        let (otel, others) = self.layers.split_last()?;
        let mut layers = others.iter().rev().chain([otel]);
        let exactly = layers.clone().find_map(|layer| layer.places.get(key));
        exactly.or_else(|| layers.find_map(|layer| layer.within(key)).map(|(_, spot)| spot))
    }

    /// Where something that is missing belongs: the nearest table around it that was written, where it was
    /// written first.
    fn table(&self, key: &Key) -> Place {
        let tables = std::iter::successors(key.parent(), Key::parent);
        let spot = tables
            .into_iter()
            .find_map(|table| self.layers.iter().find_map(|layer| layer.places.get(&table)));
        spot.map(|spot| spot.value.clone()).unwrap_or_default()
    }
}

fn provider(layer: &Layer) -> impl Provider {
    Serialized::defaults(layer.values.clone())
}

fn dict(figment: &Figment) -> Dict {
    figment.extract().expect("tables of plain values merge into a table of plain values")
}

/// The same key of a route in the table that routes inherit.
fn inherited(key: &Key) -> Option<Key> {
    match key.segments() {
        [routes, _, rest @ ..] if routes == "routes" => {
            Some(["defaults", "route"].into_iter().chain(rest.iter().map(String::as_str)).collect())
        }
        _ => None,
    }
}

/// Gives each route what `[defaults.route]` says where the route is silent, key by key.
fn inherit(mut values: Dict) -> Dict {
    let defaults = values.get("defaults").and_then(|defaults| defaults.find_ref("route")).cloned();
    if let (Some(defaults), Some(Value::Dict(_, routes))) = (defaults, values.get_mut("routes")) {
        for route in routes.values_mut() {
            fill(route, &defaults);
        }
    }
    values
}

fn fill(value: &mut Value, defaults: &Value) {
    if let (Value::Dict(_, value), Value::Dict(_, defaults)) = (value, defaults) {
        for (name, default) in defaults {
            match value.get_mut(name) {
                Some(written) => fill(written, default),
                None => drop(value.insert(name.clone(), default.clone())),
            }
        }
    }
}
