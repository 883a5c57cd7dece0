//! Which spans are exported: ratio, rules at the end, budget, force, and what is told of how likely it was.

use std::collections::BTreeSet;

use http::Method;

use crate::support::body;
use crate::support::client::request;
use crate::support::gateway::{all_to, route};
use crate::support::link::Refusing;
use crate::support::{Answer, Collector, Gateway, Origin, Reply, Seen, Stage, Told};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const TOKEN: &str = "correct-horse-battery";

/// Nothing is sampled by itself.
const NOTHING: &str = "[telemetry.sampling]\nratio = 0.0\n";

async fn ask(stage: &Stage, path: &str, fields: &[(&str, &str)]) -> (Reply, Seen) {
    let count = stage.origin.seen().len();
    let reply = stage.gateway.ask(request(Method::GET, path, fields, body::empty())).await;
    (reply, stage.origin.seen().remove(count))
}

fn because(told: &Told) -> &str {
    told.server.attribute("tracegate.sampled_because").expect("every exported SERVER span says why")
}

async fn unsampled(gateway: &Gateway, reason: &str) -> u64 {
    let labels = [("outcome", "unsampled"), ("reason", reason)];
    gateway.metrics().await.count("tracegate_telemetry_spans_total", &labels)
}

#[tokio::test]
async fn an_error_is_kept_although_the_flag_sent_upstream_said_no() {
    let stage = Stage::and(Answer::status(500), NOTHING).await;
    let unsampled_parent = format!("00-{TRACE}-{CALLER}-00");
    for fields in [&[][..], &[("traceparent", unsampled_parent.as_str()), ("tracestate", "vendor=1,ot=th:8")]]
    {
        let (reply, seen) = ask(&stage, "/", fields).await;
        let (_, span, flags) = seen.traceparent();
        assert!(["00", "02"].contains(&&*flags), "{flags}");
        assert!(!seen.headers.all("tracestate").concat().contains("th:"), "{seen:?}");
        let told = stage.told(&reply.trace_id(), 1).await;
        assert_eq!((because(&told), &told.attempts[0].id), ("error", &span));
        for span in [&told.server, &told.attempts[0]] {
            assert_eq!(span.trace_state, "ot=th:0", "every error is kept: it stands for itself alone");
        }
        assert_eq!(told.log["sampled"], true);
    }
    stage.origin.answer(Answer::status(404));
    let (reply, _) = ask(&stage, "/", &[]).await;
    assert_eq!(stage.gateway.logged(&reply.trace_id()).await["sampled"], false, "no error of the server's");
    assert_eq!(unsampled(&stage.gateway, "ratio").await, 2);
    assert_eq!(stage.collector.spans().len(), 4);
}

#[tokio::test]
async fn the_gateways_own_failures_are_errors_to_be_kept() {
    let refusing = Refusing::start();
    let collector = Collector::start().await;
    let gateway = Gateway::start(&[&all_to(refusing.address), &collector.grpc(), NOTHING]).await;
    let reply = gateway.get("/").await;
    assert_eq!(reply.status, 502);
    let spans = collector.trace(&reply.trace_id(), 2).await;
    assert_eq!(spans[0].attribute("tracegate.sampled_because"), Some("error"));
    assert_eq!(spans[0].attribute("tracegate.reason"), Some("connect_refused"));
}

#[tokio::test]
async fn what_is_slow_for_its_route_is_kept() {
    let origin = Origin::start(Answer::stall()).await;
    let rules = "[telemetry.sampling]\nratio = 0.0\nkeep_errors = false\n";
    let timeouts = "[defaults.route]\ntimeouts = { attempt = '30ms' }\n";
    let slow = "[routes.slow]\nmatch = { path = '/slow' }\nupstream = 'shop'\nslow_after = '10ms'\n";
    let never = "[routes.never]\nmatch = { path = '/never' }\nupstream = 'shop'\nslow_after = 'off'\n";
    let texts = [&all_to(origin.address), rules, timeouts, slow, never];
    let stage = Stage::around(origin, &texts).await;
    for path in ["/never", "/a-second-is-the-default"] {
        let (reply, _) = ask(&stage, path, &[]).await;
        assert_eq!(
            (reply.status, &stage.gateway.logged(&reply.trace_id()).await["sampled"]),
            (504, &false.into())
        );
    }
    let (reply, _) = ask(&stage, "/slow", &[]).await;
    assert_eq!(because(&stage.told(&reply.trace_id(), 1).await), "slow");
    assert_eq!(unsampled(&stage.gateway, "ratio").await, 4);
}

#[tokio::test]
async fn without_the_rules_an_error_is_sampled_like_anything_else() {
    let rules = "[telemetry.sampling]\nratio = 0.0\nkeep_errors = false\n";
    let stage = Stage::and(Answer::status(500), rules).await;
    let (reply, _) = ask(&stage, "/", &[]).await;
    assert_eq!(stage.gateway.logged(&reply.trace_id()).await["sampled"], false);
    assert_eq!(unsampled(&stage.gateway, "ratio").await, 2);
}

#[tokio::test]
async fn a_ratio_keeps_the_traces_that_every_sampler_of_this_ratio_keeps_and_says_so() {
    let stage = Stage::and(Answer::ok(), "[telemetry.sampling]\nratio = 0.5\n").await;
    let mut client = stage.client().await;
    let mut kept = BTreeSet::new();
    for _ in 0..40 {
        let trace = client.get("/").await.trace_id();
        // the right-most 56 bits, of which the threshold rejects the lower half
        if trace.as_bytes()[18] >= b'8' {
            kept.insert(trace);
        }
    }
    for seen in stage.origin.seen() {
        let (trace, _, flags) = seen.traceparent();
        let expected = if kept.contains(&trace) { ("03", Some("ot=th:8")) } else { ("02", None) };
        assert_eq!((&*flags, seen.header("tracestate")), expected, "{trace}");
    }
    let spans = stage.collector.wait_for_spans(2 * kept.len()).await;
    let told: BTreeSet<_> = spans.iter().map(|span| span.trace_id.clone()).collect();
    assert_eq!(told, kept);
    assert!(spans.iter().all(|span| span.trace_state == "ot=th:8"), "{spans:#?}");
    assert_eq!(unsampled(&stage.gateway, "ratio").await, 2 * (40 - kept.len() as u64));
}

#[tokio::test]
async fn a_route_may_have_a_ratio_of_its_own() {
    let origin = Origin::start(Answer::ok()).await;
    let orders = route("orders", "/orders", "shop") + "sampling = { ratio = 1.0 }\n";
    let texts = [&all_to(origin.address), &orders, NOTHING];
    let stage = Stage::around(origin, &texts).await;
    let (reply, seen) = ask(&stage, "/orders", &[]).await;
    assert_eq!((seen.traceparent().2.as_str(), seen.header("tracestate")), ("03", Some("ot=th:0")));
    assert_eq!(because(&stage.told(&reply.trace_id(), 1).await), "ratio");
    let (_, seen) = ask(&stage, "/other", &[]).await;
    assert_eq!((seen.traceparent().2.as_str(), seen.header("tracestate")), ("02", None));
}

#[tokio::test]
async fn a_callers_threshold_goes_on_and_out_if_it_can_be_true() {
    let stage = Stage::new(Answer::ok()).await;
    for (flags, sent, forwarded, exported) in [
        (
            "01",
            "a=1,ot=th:8;rv:c0000000000000;k:v",
            Some("ot=th:8;rv:c0000000000000;k:v,a=1"),
            "ot=th:8;rv:c0000000000000",
        ),
        ("01", "a=1,ot=th:8", Some("ot=th:8,a=1"), "ot=th:8"),
        // this trace's randomness is ...ce929d0e0e4736: it would have been rejected
        ("01", "a=1,ot=th:e", Some("a=1"), ""),
        ("01", "a=1", Some("a=1"), ""),
        ("01", "a=1,ot=nonsense", Some("a=1"), ""),
        ("00", "a=1,ot=th:8;rv:c0000000000000", Some("ot=rv:c0000000000000,a=1"), "-"),
        ("00", "ot=th:8", None, "-"),
    ] {
        stage.collector.forget();
        let traceparent = format!("00-{TRACE}-{CALLER}-{flags}");
        let (_, seen) = ask(&stage, "/", &[("traceparent", &traceparent), ("tracestate", sent)]).await;
        assert_eq!(seen.header("tracestate"), forwarded, "{flags} {sent}");
        if exported != "-" {
            let spans = stage.collector.trace(TRACE, 2).await;
            assert!(spans.iter().all(|span| span.trace_state == exported), "{flags} {sent}: {spans:#?}");
        }
    }
    assert_eq!(unsampled(&stage.gateway, "parent").await, 4);
}

#[tokio::test]
async fn a_budget_bounds_what_is_exported_errors_and_parents_too() {
    let stage = Stage::and(Answer::status(500), "[telemetry.sampling]\nmax_spans_per_second = 1\n").await;
    let mut client = stage.client().await;
    let traceparent = format!("00-{TRACE}-{CALLER}-01");
    let started = std::time::Instant::now();
    let requests = 20;
    for number in 0..requests {
        let fields = [("traceparent", traceparent.as_str())];
        let fields = if number % 2 == 0 { &fields[..] } else { &[] };
        client.ask(request(Method::GET, "/", fields, body::empty())).await;
    }
    stage.gateway.log(requests).await;
    // a second's worth at the beginning, what came in since, and the last one's debt
    let most = 1 + 1 + 2 + started.elapsed().as_secs();
    let over = unsampled(&stage.gateway, "budget").await;
    let all = 2 * requests as u64;
    assert!(over < all && over >= all - most, "{over} of {all}");
    let sampled =
        stage.origin.seen().iter().filter(|seen| seen.traceparent().2.ends_with(['1', '3'])).count();
    assert!((1..=3).contains(&sampled), "the upstream is told: {sampled}");
    stage.collector.wait_for_spans(usize::try_from(all - over).unwrap()).await;
}

#[tokio::test]
async fn one_request_is_traced_by_force_and_nobody_else_learns_how() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let force = format!(
        "[telemetry.sampling]\nratio = 0.0\nmax_spans_per_second = 1\nforce.token.file = '{}'\n
        [telemetry.access_log]\nenabled = true\n",
        file.display()
    );
    let stage = Stage::and(Answer::ok(), &force).await;
    let unsampled_parent = format!("00-{TRACE}-{CALLER}-00");
    for round in 0..3 {
        // beyond ratio and budget
        let (reply, seen) = ask(&stage, "/", &[("x-tracegate-force", TOKEN)]).await;
        assert_eq!((seen.traceparent().2.as_str(), seen.header("tracestate")), ("03", Some("ot=th:0")));
        assert!(!seen.headers.has("x-tracegate-force"));
        let told = stage.told(&reply.trace_id(), 1).await;
        assert_eq!(because(&told), "forced", "{round}");
        assert!(!format!("{:?} {:?} {}", told.server, told.attempts, told.log).contains(TOKEN));
    }
    // beyond what the caller's caller said
    let fields = [("x-tracegate-force", TOKEN), ("traceparent", &unsampled_parent), ("tracestate", "a=1")];
    let (_, seen) = ask(&stage, "/", &fields).await;
    assert_eq!((seen.traceparent().2.as_str(), seen.header("tracestate")), ("01", Some("ot=th:0,a=1")));
    assert_eq!(because(&stage.told(TRACE, 1).await), "forced");
    for wrong in ["", "correct-horse-batterz", "correct-horse-battery-staple"] {
        let (reply, seen) = ask(&stage, "/", &[("x-tracegate-force", wrong)]).await;
        assert_eq!(seen.traceparent().2, "02", "{wrong}");
        assert!(!seen.headers.has("x-tracegate-force"), "a guess does not go on either");
        assert_eq!(stage.gateway.logged(&reply.trace_id()).await["sampled"], false);
    }
    assert!(!stage.gateway.metrics().await.text.contains(TOKEN));
}
