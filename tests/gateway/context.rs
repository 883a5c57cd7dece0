//! Whose trace goes on: formats in and out, callers who are believed or not, upstreams that are told nothing.

use http::Method;

use crate::support::body;
use crate::support::client::request;
use crate::support::gateway::upstream;
use crate::support::{Answer, Gateway, Origin, Reply, Seen, Stage};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SHORT: &str = "a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

type Fields<'a> = &'a [(&'a str, &'a str)];

async fn ask(gateway: &Gateway, fields: Fields<'_>) -> Reply {
    gateway.ask(request(Method::GET, "/orders/42", fields, body::empty())).await
}

/// Asks and says what the origin saw of it.
async fn seen(stage: &Stage, fields: Fields<'_>) -> (Reply, Seen) {
    let count = stage.origin.seen().len();
    let reply = ask(&stage.gateway, fields).await;
    assert_eq!(reply.status, 200, "{fields:?}");
    (reply, stage.origin.seen().remove(count))
}

fn reading(formats: &str) -> String {
    format!("[listeners.public.context]\nformats = {formats}\n")
}

fn telling(propagate: &str) -> String {
    format!("[upstreams.shop]\npropagate = {propagate}\n")
}

async fn contexts(stage: &Stage, outcome: &str) -> u64 {
    stage.gateway.metrics().await.count("tracegate_context_total", &[("outcome", outcome)])
}

#[tokio::test]
async fn every_odd_traceparent_of_the_specification_is_read_as_it_says() {
    let stage = Stage::new(Answer::ok()).await;
    let valid = "00-12345678901234567890123456789012-1234567890123456-01";
    let cases = [
        // names: in any case, but no others
        (&[("TraceParent", valid)][..], true),
        (&[("TRACEPARENT", valid)], true),
        (&[("trace-parent", valid)], false),
        (&[("trace.parent", valid)], false),
        // one, or the same again
        (&[("traceparent", valid), ("traceparent", valid)], true),
        (&[("traceparent", valid), ("traceparent", &valid.replace("12-", "11-"))], false),
        (&[("traceparent", &format!("{valid},{valid}"))], false),
        // white space around it
        (&[("traceparent", &format!(" \t{valid}"))], true),
        (&[("traceparent", &format!("{valid}\t "))], true),
        (&[("traceparent", &valid.replace("00-", "00 -"))], false),
        // version
        (&[("traceparent", &format!("{valid}."))], false),
        (&[("traceparent", &format!("{valid}-what-the-future-will-be-like"))], false),
        (&[("traceparent", &valid.replace("00-", "cc-"))], true),
        (&[("traceparent", &format!("cc{}-what-the-future-will-be-like", &valid[2..]))], true),
        (&[("traceparent", &format!("cc{}.what-the-future-will-be-like", &valid[2..]))], false),
        (&[("traceparent", &valid.replace("00-", "ff-"))], false),
        (&[("traceparent", &valid.replace("00-", ".0-"))], false),
        (&[("traceparent", &valid.replace("00-", "0.-"))], false),
        (&[("traceparent", &valid.replace("00-", "000-"))], false),
        (&[("traceparent", &valid.replace("00-", "0000-"))], false),
        (&[("traceparent", &valid.replace("00-", "0-"))], false),
        (&[("traceparent", &valid.replace("00-", "CC-"))], false),
        // the trace's id
        (&[("traceparent", "00-00000000000000000000000000000000-1234567890123456-01")], false),
        (
            &[(
                "traceparent",
                &valid.replace("-12345678901234567890123456789012", "-.2345678901234567890123456789012"),
            )],
            false,
        ),
        (&[("traceparent", &valid.replace("9012-", "901.-"))], false),
        (&[("traceparent", &valid.replace("9012-", "90123-"))], false),
        (&[("traceparent", &valid.replace("9012-", "901-"))], false),
        (&[("traceparent", &valid.replace("9012-", "901A-"))], false),
        // the parent's id
        (&[("traceparent", &valid.replace("-1234567890123456-", "-0000000000000000-"))], false),
        (&[("traceparent", &valid.replace("-1234567890123456-", "-.234567890123456-"))], false),
        (&[("traceparent", &valid.replace("3456-", "345.-"))], false),
        (&[("traceparent", &valid.replace("3456-", "34567-"))], false),
        (&[("traceparent", &valid.replace("3456-", "345-"))], false),
        // flags
        (&[("traceparent", &valid.replace("-01", "-.0"))], false),
        (&[("traceparent", &valid.replace("-01", "-0."))], false),
        (&[("traceparent", &valid.replace("-01", "-001"))], false),
        (&[("traceparent", &valid.replace("-01", "-1"))], false),
        (&[("traceparent", &valid.replace("-01", "-ff"))], true),
        (&[("traceparent", "")], false),
    ];
    for (fields, continues) in cases {
        let fields = [fields, &[("tracestate", "vendor=1")]].concat();
        let (_, seen) = seen(&stage, &fields).await;
        let (trace_id, span_id, _) = seen.traceparent();
        assert_eq!(trace_id == valid[3..35], continues, "{fields:?}");
        assert_ne!(span_id, valid[36..52], "{fields:?}");
        let vendor = seen.headers.all("tracestate").concat().contains("vendor=1");
        assert_eq!(vendor, continues, "{fields:?}");
    }
    let continued = cases.iter().filter(|(_, continues)| *continues).count() as u64;
    // two had no field of this name
    let malformed = cases.len() as u64 - continued - 2;
    for (outcome, count) in [("continued", continued), ("started", 2), ("malformed", malformed)] {
        assert_eq!(contexts(&stage, outcome).await, count, "{outcome}");
    }
}

/// The cases of the W3C's own suite for `tracestate`, in level 2.
#[tokio::test]
async fn every_odd_tracestate_of_the_specification_goes_on_whole_or_not_at_all() {
    let stage = Stage::new(Answer::ok()).await;
    let valid = "00-12345678901234567890123456789012-1234567890123456-00";
    let (key, value) = ("k".repeat(256), "v".repeat(256));
    let tenant = format!("{}@{}", "t".repeat(241), "v".repeat(14));
    let most = |count: usize| (1..=count).map(|n| format!("bar{n:02}={n:02}")).collect::<Vec<_>>().join(",");
    let named = |name: &'static str, value: &str| (name, value.to_owned());
    let sent = |value: &str| vec![named("tracestate", value)];
    let cases = [
        // names: in any case, but no others
        (vec![named("TraceState", "foo=1")], "foo=1"),
        (vec![named("TRACESTATE", "foo=1")], "foo=1"),
        (vec![named("trace-state", "foo=1")], ""),
        (vec![named("trace.state", "foo=1")], ""),
        // empty ones, several
        (sent(""), ""),
        ([sent("foo=1"), sent("")].concat(), "foo=1"),
        ([sent(""), sent("foo=1")].concat(), "foo=1"),
        (
            [sent("foo=1,bar=2"), sent("rojo=1,congo=2"), sent("baz=3")].concat(),
            "foo=1,bar=2,rojo=1,congo=2,baz=3",
        ),
        // one key twice: the latest, which is the first
        (sent("foo=1,foo=1"), "foo=1"),
        (sent("foo=1,foo=2"), "foo=1"),
        ([sent("foo=1"), sent("foo=2")].concat(), "foo=1"),
        // white space
        (sent("foo=1 \t , \t bar=2, \t baz=3"), "foo=1,bar=2,baz=3"),
        (sent(" foo=1"), "foo=1"),
        (sent("\tfoo=1\t"), "foo=1"),
        (sent("foo=1, "), "foo=1"),
        // keys
        (sent("foo =1"), ""),
        (sent("FOO=1"), ""),
        (sent("foo.bar=1"), ""),
        (sent("foo@=1,bar=2"), "foo@=1,bar=2"),
        (sent("@foo=1,bar=2"), ""),
        (sent("foo@@bar=1,bar=2"), "foo@@bar=1,bar=2"),
        (sent("foo@bar@baz=1,bar=2"), "foo@bar@baz=1,bar=2"),
        (sent(&format!("foo=1,{key}=1")), &format!("foo=1,{key}=1")),
        (sent(&format!("foo=1,{key}k=1")), ""),
        (sent(&format!("foo=1,{tenant}=1")), &format!("foo=1,{tenant}=1")),
        // values
        (sent("foo=bar=baz"), ""),
        (sent("foo=,bar=3"), ""),
        (sent(&format!("foo={value}")), &format!("foo={value}")),
        (sent(&format!("foo={value}v")), ""),
        // members
        (sent(&most(32)), &most(32)),
        (sent(&most(33)), ""),
    ];
    for (fields, expected) in &cases {
        let mut fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // without a parent there is nothing that it is the state of
        let (_, alone) = seen(&stage, &fields).await;
        let told = alone.headers.all("tracestate").concat();
        assert!(told.is_empty() || told == "ot=th:0", "{fields:?}: {told}");
        fields.push(("traceparent", valid));
        let (_, seen) = seen(&stage, &fields).await;
        assert_eq!(seen.headers.all("tracestate").join(" | "), *expected, "{fields:?}");
        assert_eq!(seen.traceparent().0, valid[3..35], "a bad state does not end the trace: {fields:?}");
    }
    assert_eq!(contexts(&stage, "malformed").await, 0);
}

#[tokio::test]
async fn a_callers_trace_goes_on_from_each_format_that_is_read() {
    let stage = Stage::and(Answer::ok(), &reading("['jaeger', 'b3', 'w3c']")).await;
    let (jaeger, b3) = (format!("{TRACE}:{CALLER}:0:1"), format!("{TRACE}-{CALLER}-1"));
    let (short, w3c) = (format!("{}:f067aa0ba902b7:0:3", &SHORT), format!("00-{TRACE}-{CALLER}-01"));
    for (fields, trace) in [
        (&[("uber-trace-id", jaeger.as_str()), ("b3", "0")][..], TRACE),
        (&[("uber-trace-id", &short)], SHORT),
        (&[("b3", &b3)], TRACE),
        (&[("x-b3-traceid", SHORT), ("x-b3-spanid", CALLER), ("x-b3-sampled", "1")], SHORT),
        (&[("traceparent", &w3c), ("uber-trace-id", "nonsense")], TRACE),
    ] {
        stage.collector.forget();
        let (reply, seen) = seen(&stage, fields).await;
        let trace = format!("{trace:0>32}");
        let told = stage.told(&trace, 1).await;
        assert_eq!((&reply.trace_id(), &told.server.parent), (&trace, &CALLER.to_owned()), "{fields:?}");
        let (seen_trace, span, flags) = seen.traceparent();
        assert_eq!((seen_trace, span, &*flags), (trace, told.attempts[0].id.clone(), "01"), "{fields:?}");
        let others = ["b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "uber-trace-id"];
        assert!(others.iter().all(|name| !seen.headers.has(name)), "they have been replaced: {seen:?}");
    }
    assert_eq!(contexts(&stage, "continued").await, 5);
}

#[tokio::test]
async fn a_caller_may_deny_a_trace_or_leave_the_decision_to_the_gateway() {
    let stage = Stage::and(Answer::ok(), &reading("['b3']")).await;
    let deferred = format!("{TRACE}-{CALLER}");
    for (b3, flags) in [("0", "02"), ("1", "03"), (&deferred, "01"), (&format!("{deferred}-0"), "00")] {
        let (_, seen) = seen(&stage, &[("b3", b3)]).await;
        assert_eq!(seen.traceparent().2, flags, "{b3}");
    }
}

#[tokio::test]
async fn an_upstream_is_told_the_trace_in_the_formats_it_reads() {
    let all = telling("['w3c', 'b3', 'b3multi', 'jaeger']");
    let stage = Stage::and(Answer::ok(), &(all + &reading("['b3']"))).await;
    for (fields, wish, b3, jaeger) in [
        (&[][..], ("x-b3-sampled", "1"), "1", "1"),
        (&[("b3", "0")], ("x-b3-sampled", "0"), "0", "0"),
        (&[("x-b3-flags", "1"), ("x-b3-parentspanid", CALLER)], ("x-b3-flags", "1"), "d", "3"),
    ] {
        let (reply, seen) = seen(&stage, fields).await;
        let trace = reply.trace_id();
        let (seen_trace, span, _) = seen.traceparent();
        assert_eq!(trace, seen_trace);
        let one = |name: &str| {
            let values = seen.headers.all(name);
            assert!(values.len() < 2, "{name}: {values:?}");
            values.concat()
        };
        assert_eq!(one("b3"), format!("{trace}-{span}-{b3}"));
        assert_eq!(one("uber-trace-id"), format!("{trace}:{span}:0:{jaeger}"));
        assert_eq!((one("x-b3-traceid"), one("x-b3-spanid")), (trace, span));
        assert_eq!(one(wish.0), wish.1, "{seen:?}");
        let fields = ["x-b3-sampled", "x-b3-flags", "x-b3-parentspanid"];
        assert_eq!(fields.iter().filter(|name| seen.headers.has(name)).count(), 1, "{seen:?}");
    }
    // ids of 64 bits stay as short as they came
    let (_, seen) = seen(&stage, &[("b3", &format!("{SHORT}-{CALLER}-1"))]).await;
    assert_eq!(seen.header("x-b3-traceid"), Some(SHORT));
    assert_eq!(seen.traceparent().0, format!("{SHORT:0>32}"));
}

#[tokio::test]
async fn fields_that_nobody_here_reads_or_writes_pass_as_they_came() {
    let stage = Stage::new(Answer::ok()).await;
    let fields = [("b3", "anything"), ("uber-trace-id", "at all"), ("baggage", "user=1")];
    let (_, seen) = seen(&stage, &fields).await;
    for (name, value) in fields {
        assert_eq!(seen.header(name), Some(value));
    }
}

#[tokio::test]
async fn an_upstream_that_is_told_nothing_hears_nothing_of_the_caller_either() {
    let stage = Stage::and(Answer::ok(), &telling("false")).await;
    let traceparent = format!("00-{TRACE}-{CALLER}-01");
    let fields = [
        ("traceparent", traceparent.as_str()),
        ("tracestate", "vendor=1"),
        ("baggage", "user=1"),
        ("b3", "1"),
        ("x-b3-traceid", TRACE),
        ("x-b3-spanid", CALLER),
        ("x-b3-parentspanid", CALLER),
        ("x-b3-sampled", "1"),
        ("x-b3-flags", "1"),
        ("uber-trace-id", "1:1:0:1"),
        ("uberctx-user", "1"),
        ("jaeger-baggage", "user=1"),
    ];
    let (reply, seen) = seen(&stage, &fields).await;
    assert!(fields.iter().all(|(name, _)| !seen.headers.has(name)), "{seen:?}");
    assert!(seen.headers.has("x-request-id"));
    // the gateway itself goes on with it
    assert_eq!(reply.trace_id(), TRACE);
    assert_eq!(stage.told(TRACE, 1).await.server.parent, CALLER);
}

#[tokio::test]
async fn who_is_not_believed_gets_a_new_trace_that_is_linked_to_his() {
    let strangers = "trusted_proxies = ['192.0.2.0/24']";
    let friends = "trusted_proxies = ['127.0.0.0/8']";
    for (inbound, proxies, believed) in [
        ("continue", strangers, true),
        ("trusted-only", friends, true),
        ("trusted-only", strangers, false),
        ("restart", friends, false),
    ] {
        let context = format!("[listeners.public]\n{proxies}\ncontext = {{ inbound = '{inbound}' }}\n");
        let stage = Stage::and(Answer::ok(), &context).await;
        // its flag says no
        let traceparent = format!("00-{TRACE}-{CALLER}-00");
        let fields = [
            ("traceparent", traceparent.as_str()),
            ("tracestate", "vendor=1"),
            ("baggage", "user=1"),
            ("b3", "0"),
            ("uberctx-user", "1"),
        ];
        let (reply, seen) = seen(&stage, &fields).await;
        let (trace, _, flags) = seen.traceparent();
        assert_eq!((trace == TRACE, &trace), (believed, &reply.trace_id()), "{inbound} {proxies}");
        let passed = ["baggage", "b3", "uberctx-user"].iter().filter(|name| seen.headers.has(name)).count();
        let expected = if believed { ("00", Some("vendor=1"), 3) } else { ("03", Some("ot=th:0"), 0) };
        assert_eq!((&*flags, seen.header("tracestate"), passed), expected, "{inbound} {proxies}");
        if !believed {
            let told = stage.told(&trace, 1).await;
            assert_eq!(told.server.parent, "");
            assert_eq!(told.server.links, [(TRACE.to_owned(), CALLER.to_owned())]);
            assert!(told.attempts[0].links.is_empty(), "once is enough");
        }
        // without any, or with one that cannot be read, there is nothing to link to
        for (fields, outcome) in [(&[][..], "started"), (&[("traceparent", "nonsense")], "malformed")] {
            let reply = ask(&stage.gateway, fields).await;
            assert!(stage.told(&reply.trace_id(), 1).await.server.links.is_empty());
            assert_eq!(contexts(&stage, outcome).await, 1, "{outcome}");
        }
        let outcome = if believed { "continued" } else { "restarted" };
        assert_eq!(contexts(&stage, outcome).await, 1, "{inbound} {proxies}");
    }
}

#[tokio::test]
async fn each_listener_has_its_own_rule_and_each_upstream_its_own_formats() {
    let (shop, mes) = (Origin::start(Answer::ok()).await, Origin::start(Answer::ok()).await);
    let gateway = Gateway::start(&[
        &upstream("shop", shop.address),
        &upstream("mes", mes.address),
        "[upstreams.mes]
        propagate = ['jaeger']
        [listeners.internal]
        address = '127.0.0.1:0'
        [listeners.public]
        context = { inbound = 'restart' }
        [routes.shop]
        match = { path = '/shop' }
        upstream = 'shop'
        [routes.mes]
        match = { path = '/mes' }
        upstream = 'mes'",
    ])
    .await;
    let traceparent = format!("00-{TRACE}-{CALLER}-01");
    for (listener, continues) in [("public", false), ("internal", true)] {
        for path in ["/shop", "/mes"] {
            let fields = [("traceparent", traceparent.as_str())];
            let mut client = crate::support::Client::http1(gateway.listener(listener)).await;
            let reply = client.ask(request(Method::GET, path, &fields, body::empty())).await;
            assert_eq!(reply.trace_id() == TRACE, continues, "{listener}");
        }
    }
    let continues = |seen: Vec<Seen>, name: &str| -> Vec<bool> {
        seen.iter().map(|seen| seen.header(name).is_some_and(|value| value.contains(TRACE))).collect()
    };
    assert_eq!(continues(shop.seen(), "traceparent"), [false, true]);
    assert_eq!(continues(mes.seen(), "uber-trace-id"), [false, true]);
    assert!(
        mes.seen().iter().all(|seen| !seen.headers.has("traceparent") && !seen.headers.has("tracestate"))
    );
}
