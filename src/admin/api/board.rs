//! What people see first: routes with the one in trouble at the top, upstreams, and whether telemetry adds up.

use std::time::SystemTime;

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
    json!({
        "routes": trouble::rank(facts, &figures, &times),
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

/// For how long back the time of exchanges counts.
const RECENT: std::time::Duration = std::time::Duration::from_mins(5);
