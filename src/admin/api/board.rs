//! What people see first: routes with the one in trouble at the top, upstreams, and whether telemetry adds up.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::{Value, json};

use crate::admin::control::{Control, RouteFacts};
use crate::admin::page::{Page, json as page};
use crate::admin::trouble;
use crate::telemetry::hour::STEP;

/// `/api/routes`: every route with its figures, the one that needs a look first at the top.
pub(in crate::admin) fn routes(control: &dyn Control) -> Value {
    let hour = control.hour();
    let since = SystemTime::now() - RECENT;
    let times = control.recent().times(since);
    let mut facts = control.routes();
    let figures = hour.figures();
    if figures.contains_key("") {
        facts.push(no_route());
    }
    let mut rows = trouble::rank(facts, &figures, &times);
    for row in &mut rows {
        let Some(filter) = row.examples() else { continue };
        // the newest failure; the slowest of the last slow ones
        let (found, _) = control.recent().list(&filter, if filter.failed { 1 } else { SLOW_ONES });
        if let Some(entry) = found.iter().max_by_key(|entry| entry.summary.duration) {
            row.show(entry.summary.clone());
        }
    }
    json!({
        "routes": rows,
        "left_out": hour.left_out(),
        "step_seconds": STEP.as_secs(),
    })
}

/// `/api/routes/NAME`: the charts of one route. `-` is what found no route.
pub(in crate::admin) fn route(control: &dyn Control, name: &str) -> Page {
    let name = if name == "-" { "" } else { name };
    let known = name.is_empty() || control.routes().iter().any(|route| route.name == name);
    if !known {
        return page(StatusCode::NOT_FOUND, &json!({ "problem": "there is no route like that" }));
    }
    let points = control.hour().points(name);
    let (minutes, steps) = points.unzip();
    page(StatusCode::OK, &json!({ "route": name, "minutes": minutes, "steps": steps }))
}

/// Stands for the requests that found no route.
fn no_route() -> RouteFacts {
    RouteFacts {
        name: String::new(),
        template: String::new(),
        methods: Vec::new(),
        upstreams: Vec::new(),
        operation: None,
        maintenance: false,
        slow_after_ms: None,
    }
}

/// Of so many slow exchanges the slowest is shown.
const SLOW_ONES: usize = 20;
/// For how long back the time of exchanges counts.
const RECENT: Duration = Duration::from_mins(5);
