//! Sentences about what is seen of a gateway that says what this one says, and about what keys do.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use serde_json::{Value, json};

use super::data;
use super::draw::draw;
use super::events::Event;
use super::model::{Answer, Ask, MOST_TRACES, Model, News, Then, View};
use super::paint::Theme;
use super::plain;

fn event(model: &mut Model, name: &str, data: &Value) -> Vec<Ask> {
    asks(model.learn(News::Event(Event { name: name.to_owned(), data: data.to_string() })))
}

fn asks(then: Then) -> Vec<Ask> {
    match then {
        Then::Ask(asks) => asks,
        Then::End(why) => panic!("it ended: {why:?}"),
    }
}

fn row(name: &str, level: &str, rate: f64, errors: f64, p95: f64) -> Value {
    let window = json!({
        "seconds": 300, "requests": 1200, "rate": rate, "errors": 3, "error_ratio": errors,
        "reasons": {"upstream_reset": 3}, "p50_ms": p95 / 4.0, "p95_ms": p95, "p99_ms": p95 * 2.0,
    });
    json!({
        "name": name, "template": format!("/{name}/{{id}}"), "methods": ["GET"], "upstreams": ["shop"],
        "operation": null, "maintenance": false, "slow_after_ms": null,
        "trouble": {"level": level, "score": 1.0, "why": format!("why {name} is {level}"),
                    "reason": "upstream_reset", "phase": "wait"},
        "now": window, "recent": window, "hour": window, "phases": {"wait": 0.8, "receive": 0.2}, "phases_of": 9,
    })
}

fn trace(number: u64, route: &str, reason: Option<&str>) -> Value {
    let mut trace = json!({
        "number": number, "trace_id": format!("{number:032x}"), "time": "2026-11-27T16:07:58.123Z", "kept": "error",
        "route": route, "upstream": "shop", "method": "GET", "template": "/orders/{id}", "status": 200,
        "attempts": 2, "duration_ms": 100.0, "stream": false, "sampled": true, "attributes": {"order.id": "4711"},
    });
    if let Some(reason) = reason {
        trace["reason"] = reason.into();
        trace["blame"] = "upstream".into();
        trace["status"] = 502.into();
    }
    trace
}

fn whole_trace() -> Value {
    let mut exchange = trace(7, "order_read", Some("upstream_reset"));
    exchange["listener"] = "public".into();
    exchange["protocol"] = "1.1".into();
    exchange["attempt_list"] = json!([
        {"number": 1, "endpoint": "10.0.0.1:9001", "connection": "new", "reason": "upstream_reset",
         "start_ms": 0.0, "duration_ms": 50.0, "parts": [{"phase": "connect", "start_ms": 0.0, "duration_ms": 25.0}]},
        {"number": 2, "endpoint": "10.0.0.2:9001", "connection": "reused", "status": 502, "reason": "upstream_status",
         "start_ms": 50.0, "duration_ms": 50.0, "parts": [{"phase": "wait", "start_ms": 75.0, "duration_ms": 25.0}]},
    ]);
    json!({"trace_id": "7", "exchanges": [exchange]})
}

fn telemetry(balanced: bool) -> Value {
    let exported = if balanced { 1234 } else { 1200 };
    json!({
        "spans_made": 1234, "balanced": balanced, "access_records_written": 600, "access_records_dropped": 0,
        "spans": {"otlp": {"exported": exported, "unsampled": {"ratio": 0}, "dropped": {"queue_full": 0}, "queued": 0}},
        "recent": {"kept": {"error": 4}, "bytes": 4096, "taken": 4, "displaced": {}},
    })
}

/// A model of a gateway in which something is the matter.
fn known() -> Model {
    let mut model = Model::default();
    assert_eq!(asks(model.learn(News::Connected)), [Ask::Past, Ask::Certificates]);
    event(&mut model, "hello", &json!({"version": "1.2.3"}));
    let rows = [
        row("order_read", "failing", 4.0, 0.12, 30.0),
        row("order_create", "slow", 1.0, 0.0, 2500.0),
        row("catalogue", "fine", 40.0, 0.0, 9.0),
    ];
    event(&mut model, "routes", &json!({"routes": rows, "left_out": 0, "step_seconds": 5}));
    let endpoint = |name: &str, state: &str, in_use: bool| json!({"endpoint": name, "state": state, "in_flight": 3, "weight": 1.0, "health": "healthy", "in_use": in_use});
    let breaker = json!({"requests": {"most": 10, "now": 10, "refused": 4}});
    let endpoints = [endpoint("10.0.0.1:9001", "usable", true), endpoint("10.0.0.2:9001", "out", false)];
    let upstreams = json!([{"name": "shop", "endpoints": endpoints, "panic": false, "breaker": breaker}]);
    event(&mut model, "upstreams", &json!({"upstreams": upstreams}));
    event(&mut model, "telemetry", &telemetry(true));
    let difference = json!({"added": {"count": 3, "first": ["routes.a", "routes.b"]}, "removed": {"count": 0, "first": []}});
    let reload = json!({"at": "2026-11-27T16:00:00Z", "trigger": "watch", "outcome": "applied", "generation": 2,
                        "took_ms": 1.0, "difference": difference, "problems": []});
    let reloads = json!({"generation": 2, "hash": "abcdef", "awaiting_restart": [], "overrides": {}, "reloads": [reload]});
    event(&mut model, "reloads", &reloads);
    event(&mut model, "trace", &trace(6, "catalogue", None));
    event(&mut model, "trace", &trace(7, "order_read", Some("upstream_reset")));
    model
}

fn press(model: &mut Model, keys: &str) -> Vec<Ask> {
    keys.chars().flat_map(|key| push(model, KeyCode::Char(key))).collect()
}

fn push(model: &mut Model, key: KeyCode) -> Vec<Ask> {
    asks(model.press(KeyEvent::new(key, KeyModifiers::NONE)))
}

fn terminal(model: &Model, (width, height): (u16, u16), colour: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            draw(frame, model, "http://127.0.0.1:9901", Theme { colour });
        })
        .unwrap();
    terminal
}

fn screen(model: &Model, size: (u16, u16)) -> Vec<String> {
    let terminal = terminal(model, size, true);
    let buffer = terminal.backend().buffer();
    let line = |y| (0..size.0).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..size.1).map(line).collect()
}

fn seen(model: &Model, size: (u16, u16), parts: &[&str]) {
    let screen = screen(model, size).join("\n");
    for part in parts {
        assert!(screen.contains(part), "{part:?} is not seen:\n{screen}");
    }
}

fn listed(model: &Model) -> Vec<&str> {
    model.rows().iter().map(|row| row.name.as_str()).collect()
}

const USUAL: (u16, u16) = (80, 24);

#[test]
fn routes_come_with_trouble_first_and_say_why() {
    let model = known();
    seen(
        &model,
        USUAL,
        &[
            "tracegate 1.2.3",
            "live",
            "1 routes",
            "2 upstreams !1",
            "ROUTE",
            "RATE/s",
            "p99",
            "REASON",
            "PHASE",
            "! order_read",
            "12%",
            "2.50s",
            "upstream_reset",
            "why order_read is failing",
            "trouble first",
            "q quit",
        ],
    );
    let lines = screen(&model, USUAL);
    assert!(lines[3].starts_with("! order_read") && lines[4].starts_with("~ order_create"), "{lines:#?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80));
}

#[test]
fn routes_are_sorted_and_filtered_by_keys() {
    let mut model = known();
    let keys: [(&str, &[&str]); 8] = [
        ("a", &["catalogue", "order_read", "order_create"]),
        ("a", &["order_create", "order_read", "catalogue"]),
        ("6", &["order_create", "order_read", "catalogue"]),
        ("r", &["catalogue", "order_read", "order_create"]),
        ("n", &["catalogue", "order_create", "order_read"]),
        ("t", &["order_read", "order_create", "catalogue"]),
        (">", &["catalogue", "order_create", "order_read"]),
        ("<", &["order_read", "order_create", "catalogue"]),
    ];
    for (key, order) in keys {
        press(&mut model, key);
        assert_eq!(listed(&model), order, "after {key}");
    }
    // while one types, keys are text: q does not quit
    press(&mut model, "/CREATEq");
    assert!(model.typing && listed(&model).is_empty());
    push(&mut model, KeyCode::Backspace);
    push(&mut model, KeyCode::Enter);
    assert_eq!((listed(&model), model.typing), (vec!["order_create"], false));
    seen(&model, USUAL, &["only \"CREATE\""]);
    push(&mut model, KeyCode::Esc);
    assert_eq!(listed(&model).len(), 3);
}

#[test]
fn one_stays_on_a_route_when_the_order_changes_under_it() {
    let mut model = known();
    push(&mut model, KeyCode::Down);
    assert_eq!((model.at_route.as_deref(), model.route_index()), (Some("order_create"), 1));
    let rows = [row("order_create", "failing", 4.0, 1.0, 1.0), row("order_read", "fine", 1.0, 0.0, 1.0)];
    event(&mut model, "routes", &json!({"routes": rows}));
    assert_eq!(model.route_index(), 0);
    // and on the first one when it is gone
    event(&mut model, "routes", &json!({"routes": [row("other", "fine", 1.0, 0.0, 1.0)]}));
    assert_eq!(model.route_index(), 0);
}

#[test]
fn a_route_opens_with_its_hour_and_its_failed_traces_and_one_of_them_with_its_attempts() {
    let mut model = known();
    let name = || "order_read".to_owned();
    assert_eq!(push(&mut model, KeyCode::Enter), [Ask::Charts(name()), Ask::Failed(name())]);
    seen(&model, USUAL, &["asking for the last hour"]);
    let points = json!({"minutes": {"from": 0, "step_seconds": 60, "requests": [0, 50, 100], "errors": [0, 0, 4],
                                    "reasons": {}, "p50_ms": [null, 1.0, 2.0], "p95_ms": [null, 5.0, 20.0],
                                    "p99_ms": [null, 6.0, 30.0]}});
    let charts = serde_json::from_value(points).unwrap();
    model.learn(News::Answer(Answer::Charts { route: name(), charts }));
    let failed = json!({"traces": [trace(7, "order_read", Some("upstream_reset"))]});
    let traces = serde_json::from_value(failed).unwrap();
    model.learn(News::Answer(Answer::Failed { route: name(), traces }));
    seen(
        &model,
        USUAL,
        &[
            "of the hour: upstream_reset 3",
            "wait 80%",
            "▄█ most 100",
            "█ most 4",
            "most 20ms",
            "its last 1 failed trace",
            "upstream_reset order.id=4711",
        ],
    );

    let id = format!("{:032x}", 7);
    assert_eq!(push(&mut model, KeyCode::Enter), [Ask::Trace(id.clone())]);
    let trace = serde_json::from_value(whole_trace()).unwrap();
    model.learn(News::Answer(Answer::Trace { trace_id: id, trace }));
    seen(
        &model,
        (100, 40),
        &[
            "GET /orders/{id}",
            "502 upstream_reset, by fault of the upstream",
            "order.id  4711",
            "attempt 1 10.0.0.1:9001",
            "new connection, upstream_reset",
            "by HTTP/1.1",
            "reused connection",
        ],
    );
    let lines = screen(&model, (100, 40));
    let bar = |name: &str| {
        let line = lines.iter().find(|line| line.trim_start().starts_with(name)).unwrap();
        let places = line.char_indices().filter(|(_, mark)| matches!(mark, '█' | '▒')).count();
        (line.chars().position(|mark| matches!(mark, '█' | '▒')).unwrap(), places)
    };
    let (whole, first, second, wait) = (bar("exchange"), bar("attempt 1"), bar("attempt 2"), bar("wait"));
    assert_eq!((first.0, first.0 + first.1), (whole.0, second.0));
    assert_eq!((second.0 + second.1, wait.0 + wait.1), (whole.0 + whole.1, whole.0 + whole.1));

    push(&mut model, KeyCode::Esc);
    assert!(model.trace.is_none() && model.route.is_some());
    push(&mut model, KeyCode::Esc);
    assert!(model.route.is_none());
}

#[test]
fn an_open_route_is_asked_for_again_once_a_minute() {
    let mut model = known();
    push(&mut model, KeyCode::Enter);
    let rows = json!({"routes": [row("order_read", "fine", 1.0, 0.0, 1.0)]});
    let asked: Vec<_> = (0..24).map(|_| event(&mut model, "routes", &rows).len()).collect();
    assert_eq!(asked.iter().sum::<usize>(), 4, "{asked:?}");
}

#[test]
fn upstreams_tell_state_load_breaker_and_what_an_operator_did() {
    let mut model = known();
    press(&mut model, "2");
    seen(
        &model,
        USUAL,
        &[
            "shop  1 of 2 usable",
            "10.0.0.2:9001",
            "by an operator",
            "breaker  requests 10 of 10 OPEN (4 refused)",
        ],
    );
}

#[test]
fn traces_come_live_the_newest_first_and_stay_where_one_stands() {
    let mut model = known();
    press(&mut model, "3");
    seen(&model, USUAL, &["16:07:58  502", "upstream_reset order.id=4711", "16:07:58  200"]);
    push(&mut model, KeyCode::Down);
    assert_eq!((model.at_trace, model.trace_index()), (Some(6), 1));
    event(&mut model, "trace", &trace(8, "catalogue", None));
    assert_eq!(model.trace_index(), 2);
    press(&mut model, "/502");
    assert_eq!(model.traces().len(), 1);
    event(&mut model, "lagged", &json!({"missed": 3}));
    seen(&model, USUAL, &["3 traces came too fast"]);
}

#[test]
fn no_more_traces_are_kept_than_may_be_and_each_once() {
    let mut model = known();
    for number in 0..2 * MOST_TRACES as u64 {
        event(&mut model, "trace", &trace(number, "catalogue", None));
    }
    let past = json!({"traces": [trace(999, "catalogue", None), trace(998, "catalogue", None)]});
    model.learn(News::Answer(Answer::Past(serde_json::from_value(past).unwrap())));
    let numbers: Vec<_> = model.data.traces.iter().map(|trace| trace.number).collect();
    assert_eq!((numbers.len(), numbers[0], numbers[499]), (MOST_TRACES, 999, 500));
    assert!(numbers.windows(2).all(|pair| pair[0] > pair[1]));
}

#[test]
fn telemetry_that_does_not_balance_is_seen_in_every_view() {
    let mut model = known();
    press(&mut model, "4");
    seen(
        &model,
        USUAL,
        &[
            "telemetry balances: 1 234 spans made",
            "otlp",
            "configuration: generation 2",
            "applied by watch",
            "added routes.a, routes.b and 1 more",
        ],
    );
    event(&mut model, "telemetry", &telemetry(false));
    for view in ["1", "2", "3", "4"] {
        press(&mut model, view);
        seen(&model, USUAL, &["TELEMETRY DOES NOT BALANCE", "otlp +34"]);
    }
}

#[test]
fn what_is_paused_stands_still_and_goes_on_with_the_newest() {
    let mut model = known();
    press(&mut model, "p");
    event(&mut model, "trace", &trace(8, "catalogue", None));
    event(&mut model, "routes", &json!({"routes": []}));
    assert_eq!((model.data.traces.len(), model.rows().len()), (2, 3));
    seen(&model, USUAL, &["PAUSED, 2 events since"]);
    press(&mut model, "p");
    assert_eq!((model.data.traces.len(), model.rows().len()), (3, 0));
}

#[test]
fn a_lost_connection_is_said_and_what_was_known_stays() {
    let mut model = known();
    let why = "cannot reach http://127.0.0.1:9901: connection refused".to_owned();
    model.learn(News::Lost { why, again: Duration::from_millis(3100) });
    seen(&model, USUAL, &["not connected", "connection refused; trying again in 4 s", "! order_read"]);
    let forbidden = model.learn(News::Forbidden("a token is needed".to_owned()));
    assert_eq!(forbidden, Then::End(Some("a token is needed".to_owned())));
}

#[test]
fn q_and_control_c_end_it_and_help_tells_the_keys() {
    for key in [
        KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE),
        KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL),
    ] {
        assert_eq!(known().press(key), Then::End(None));
    }
    let mut model = known();
    press(&mut model, "?");
    seen(&model, USUAL, &["sort routes by the next column", "PHASE", "where most of the time goes"]);
    // the key that closes it does nothing else
    press(&mut model, "q");
    assert!(!model.help);
    push(&mut model, KeyCode::Tab);
    assert_eq!(model.view, View::Upstreams);
    push(&mut model, KeyCode::BackTab);
    assert_eq!(model.view, View::Routes);
}

#[test]
fn every_view_is_drawn_on_every_size_and_a_small_terminal_is_told_so() {
    for keys in ["1", "2", "3", "4", "?"] {
        let mut model = known();
        press(&mut model, keys);
        for width in (1..=120).step_by(7) {
            for height in 1..=30 {
                let lines = screen(&model, (width, height));
                assert!(
                    width < 40 || height < 10 || lines[0].contains("tracegate 1.2.3"),
                    "{width}×{height}"
                );
            }
        }
    }
    seen(&known(), (30, 8), &["needs 40×10"]);
    seen(&Model::default(), USUAL, &["connecting", "waiting for the gateway"]);
}

#[test]
fn colours_are_of_the_sixteen_and_none_where_they_are_not_wanted() {
    let mut model = known();
    event(&mut model, "telemetry", &telemetry(false));
    let colours = |colour| {
        let terminal = terminal(&model, USUAL, colour);
        let cells = terminal.backend().buffer().content().to_vec();
        cells.iter().flat_map(|cell| [cell.fg, cell.bg]).collect::<Vec<_>>()
    };
    assert!(colours(false).iter().all(|colour| *colour == Color::Reset));
    let coloured = colours(true);
    assert!(coloured.contains(&Color::Red));
    assert!(!coloured.iter().any(|colour| matches!(colour, Color::Rgb(..) | Color::Indexed(_))));
}

#[test]
fn a_scrolled_view_ends_where_its_last_line_is_seen() {
    let mut model = known();
    press(&mut model, "4G");
    let mut terminal = Terminal::new(TestBackend::new(80, 10)).unwrap();
    let mut most = 0;
    terminal.draw(|frame| most = draw(frame, &model, "", Theme { colour: true })).unwrap();
    model.bound_scroll(most);
    assert!(model.scroll == most && most < 20, "{most}");
    press(&mut model, "k");
    assert_eq!(model.scroll, most - 1);
}

#[test]
fn an_event_that_cannot_be_read_is_told_and_one_of_a_newer_gateway_passed_over() {
    let mut model = known();
    event(&mut model, "weather", &json!("fine"));
    assert_eq!(model.notice, None);
    event(&mut model, "routes", &json!({"routes": "none"}));
    assert!(model.notice.as_deref().is_some_and(|notice| notice.contains("routes")));
    assert_eq!(model.rows().len(), 3);
    // a word that is not known yet is no trouble
    event(&mut model, "routes", &json!({"routes": [row("a", "puzzled", 1.0, 0.0, 1.0)], "more": 1}));
    assert_eq!(listed(&model), ["a"]);
}

#[test]
fn as_text_it_has_all_views_and_nothing_that_a_terminal_would_obey() {
    let mut model = known();
    let bad = trace(9, "\u{1b}[31mred", Some("upstream_reset"));
    let failed = data::Traces { traces: vec![serde_json::from_value(bad).unwrap()] };
    let text = plain::text(&model, &failed.traces);
    for part in [
        "ROUTES",
        "! order_read",
        "why order_create is slow",
        "UPSTREAMS",
        "by an operator",
        "TRACES",
        "502",
        "TELEMETRY",
        "balances",
        "generation 2",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
    model.data.telemetry = None;
    assert!(plain::text(&model, &[]).contains("for developers and operators"));
}
