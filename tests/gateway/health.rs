//! Endpoints that fail, are taken out or come back: whoever is left serves, and everything is on record.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;

use crate::support::client::{get, request};
use crate::support::gateway::route;
use crate::support::link::{Blackhole, Refusing};
use crate::support::{Answer, Client, Gate, Gateway, Origin, Reply, Seen, TcpLink, body, within};

/// What lets one failure eject, and never comes back by itself.
const STRICT: &str = "[upstreams.shop.outliers]\nconsecutive = 2\nejection = '1h'\nmax_ejection = '1h'\n";

/// An upstream `shop` of these endpoints, in turn, behind a route for every path; and this text merged over it.
async fn gateway(endpoints: &[SocketAddr], text: &str) -> Gateway {
    let listed: Vec<_> = endpoints.iter().map(|endpoint| format!("'http://{endpoint}'")).collect();
    let base = format!("[upstreams.shop]\nbalance = 'round_robin'\nendpoints = [{}]\n", listed.join(", "));
    // each request is one attempt, so that what an endpoint does is seen
    let once = "[routes.all]\nretry = 'off'\n";
    Gateway::start(&[&base, &route("all", "/{*path}", "shop"), once, text]).await
}

async fn named(name: &'static str) -> Origin {
    Origin::start(move |seen: &Seen| {
        if seen.target == "/healthz" { Answer::status(204) } else { Answer::status(200).data(name) }
    })
    .await
}

/// Who answered so many requests, and how often.
async fn spread(gateway: &Gateway, requests: usize) -> BTreeMap<String, usize> {
    let (mut client, mut answered) = (gateway.client().await, BTreeMap::new());
    for _ in 0..requests {
        let reply = client.get("/").await;
        let who = if reply.status == 200 { reply.text() } else { reply.status.to_string() };
        *answered.entry(who).or_default() += 1;
    }
    answered
}

fn only(name: &str, count: usize) -> BTreeMap<String, usize> {
    [(name.to_owned(), count)].into()
}

#[tokio::test]
async fn an_endpoint_that_was_killed_is_ejected_and_comes_back_slowly() {
    let (a, b) = (named("a").await, named("b").await);
    let mut link = TcpLink::to(a.address);
    let text = "[upstreams.shop]\nslow_start = '1h'\n\
                [upstreams.shop.outliers]\nconsecutive = 3\nejection = '500ms'\n";
    let gateway = gateway(&[link.address, b.address], text).await;
    assert_eq!(spread(&gateway, 10).await, [("a".into(), 5), ("b".into(), 5)].into());
    link.refuse().await;
    assert_eq!(spread(&gateway, 6).await, [("502".into(), 3), ("b".into(), 3)].into());
    let dead = link.address.to_string();
    let labels = [("tracegate_endpoint", dead.as_str()), ("tracegate_upstream", "shop")];
    let ejected = [labels[0], labels[1], ("outcome", "ejected")];
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("tracegate_endpoint_ejections_total", &ejected), 1, "{}", metrics.text);
    link.listen_again();
    let status = gateway.states("shop", &["slow_start", "usable"]).await;
    assert!(status["endpoints"][0]["returned_seconds_ago"].is_number(), "{status}");
    // a tenth of its turns: 10 of 100, with a standard deviation of 3
    let answered = spread(&gateway, 200).await;
    assert!((1..40).contains(&answered["a"]), "{answered:?}");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("tracegate_endpoint_ejected", &labels), 0);
    assert_eq!(metrics.count("tracegate_endpoint_usable", &labels), 1);
}

/// Whatever an endpoint does wrong, it does it a few times and no more.
#[tokio::test]
async fn an_endpoint_that_breaks_lies_or_fails_gets_no_more_requests() {
    let refusing = Refusing::start();
    let attempt = "[routes.all.timeouts]\nattempt = '100ms'\n";
    for (answer, text, status) in [
        (Some(Answer::raw("garbage\r\n\r\n")), "", 502),
        (Some(Answer::reset()), "", 502),
        (Some(Answer::status(500)), "", 500),
        (Some(Answer::stall()), attempt, 504),
        (Some(Answer::ok().announced(100).then_close()), "", 200),
        (None, "", 502),
    ] {
        let bad = match answer.clone() {
            Some(answer) => Some(Origin::start(answer).await),
            None => None,
        };
        let good = named("good").await;
        let address = bad.as_ref().map_or(refusing.address, |bad| bad.address);
        let gateway = gateway(&[address, good.address], &format!("{STRICT}{text}")).await;
        let mut statuses = Vec::new();
        for _ in 0..4 {
            // each over a connection of its own: what breaks off breaks it
            let reply = gateway.get("/").await;
            let spoilt = reply.status != 200 || reply.broken;
            statuses.extend(spoilt.then_some(reply.status));
        }
        assert_eq!(statuses, [status, status], "{answer:?}");
        let status = gateway.states("shop", &["ejected", "usable"]).await;
        assert!(status["endpoints"][0]["ejected_for_seconds"].as_f64().unwrap() > 3000.0, "{status}");
        assert_eq!(spread(&gateway, 20).await, only("good", 20), "{answer:?}");
    }
}

#[tokio::test]
async fn the_only_endpoint_is_never_ejected() {
    let origin = Origin::start(Answer::status(500)).await;
    let gateway = gateway(&[origin.address], STRICT).await;
    assert_eq!(spread(&gateway, 20).await, only("500", 20));
    assert_eq!(origin.seen().len(), 20);
    gateway.states("shop", &["usable"]).await;
    let refused = [("tracegate_upstream", "shop"), ("outcome", "refused")];
    assert_eq!(gateway.metrics().await.count("tracegate_endpoint_ejections_total", &refused), 10);
}

#[tokio::test]
async fn no_more_endpoints_are_ejected_than_may_be() {
    let origins = [
        Origin::start(Answer::status(500)).await,
        Origin::start(Answer::status(500)).await,
        Origin::start(Answer::status(500)).await,
    ];
    let gateway = gateway(&origins.each_ref().map(|origin| origin.address), STRICT).await;
    assert_eq!(spread(&gateway, 30).await, only("500", 30));
    gateway.states("shop", &["ejected", "usable", "usable"]).await;
    assert_eq!(origins[0].seen().len(), 2);
}

#[tokio::test]
async fn an_endpoint_that_fails_too_often_is_ejected_though_it_never_fails_in_a_row() {
    // one of so many answers is good
    let failing = |good: usize, of: usize| {
        let count = AtomicUsize::new(0);
        Origin::start(move |_: &Seen| {
            let number = count.fetch_add(1, Ordering::Relaxed) % of;
            if number < good { Answer::status(200).data("now and then") } else { Answer::status(500) }
        })
    };
    let (bad, middling, good) = (failing(1, 3).await, failing(2, 3).await, named("good").await);
    let share = "[upstreams.shop.outliers]\nconsecutive = 'off'\nshare = 0.5\nrequests = 6\nwindow = '300ms'\n\
                 ejection = '1h'\nmax_ejection = '1h'\nmax_ejected = 0.9\n";
    let gateway = gateway(&[bad.address, middling.address, good.address], share).await;
    let ejected = async {
        while gateway.upstream_status("shop").await["endpoints"][0]["state"] != "ejected" {
            spread(&gateway, 9).await;
        }
    };
    within("the ejection", ejected).await;
    let before = bad.seen().len();
    spread(&gateway, 30).await;
    assert_eq!(bad.seen().len(), before, "it gets no more requests");
    gateway.states("shop", &["ejected", "usable", "usable"]).await;
    let middling = middling.address.to_string();
    let metrics = gateway.metrics().await;
    assert_eq!(
        metrics.count("tracegate_endpoint_ejections_total", &[("tracegate_endpoint", middling.as_str())]),
        0,
        "a third is less than a half"
    );
}

#[tokio::test]
async fn outliers_can_be_let_be() {
    let (bad, good) = (Origin::start(Answer::status(500)).await, named("good").await);
    let gateway = gateway(&[bad.address, good.address], "[upstreams.shop]\noutliers = 'off'\n").await;
    assert_eq!(spread(&gateway, 40).await, [("500".into(), 20), ("good".into(), 20)].into());
}

fn checked(check: &str) -> String {
    format!(
        "[upstreams.shop]\nslow_start = 'off'\nhealth = {{ interval = '20ms', rise = 2, fall = 2, {check} }}\n"
    )
}

#[tokio::test]
async fn an_endpoint_whose_health_page_says_no_gets_no_requests_until_it_says_yes() {
    for protocol in ["http/1.1", "h2"] {
        let (a, b) = (named("a").await, named("b").await);
        let text = checked("path = '/healthz?deep=1', host = 'shop.internal', statuses = [200, '204-205']");
        let text = format!("{text}protocol = '{protocol}'\n");
        let gateway = gateway(&[a.address, b.address], &text).await;
        a.answer(Answer::status(200).data("a"));
        let both: BTreeMap<_, _> = [("a".into(), 5), ("b".into(), 5)].into();
        assert_eq!(spread(&gateway, 10).await, both, "unknown counts as usable");

        b.answer(Answer::status(503));
        let status = gateway.states("shop", &["usable", "unhealthy"]).await;
        assert_eq!(
            (&status["endpoints"][1]["health"], &status["panic"]),
            (&"unhealthy".into(), &false.into())
        );
        assert_eq!(spread(&gateway, 10).await, only("a", 10));

        b.answer(Answer::status(200).data("b"));
        gateway.states("shop", &["usable", "usable"]).await;
        assert_eq!(spread(&gateway, 10).await, both);

        // a check is no request, and says what it is
        let seen = b.seen().into_iter().find(|seen| seen.target == "/healthz?deep=1").unwrap();
        let agent = format!("tracegate/{} (health check)", env!("CARGO_PKG_VERSION"));
        assert_eq!((seen.header("user-agent"), seen.header("host")), (Some(&*agent), Some("shop.internal")));
        assert_eq!((seen.header("traceparent"), seen.method.as_str()), (None, "GET"), "{seen:?}");
        let endpoint = b.address.to_string();
        let of_b = [("tracegate_endpoint", endpoint.as_str())];
        let metrics = gateway.metrics().await;
        assert_eq!(metrics.count("tracegate_endpoint_requests_total", &of_b), 10, "of 30");
        assert_eq!(metrics.count("tracegate_endpoint_healthy", &of_b), 1);
        for (outcome, least) in [("passed", 3), ("wrong_answer", 2)] {
            let labels = [of_b[0], ("outcome", outcome)];
            assert!(metrics.count("tracegate_endpoint_health_checks_total", &labels) >= least, "{outcome}");
        }
        assert_eq!(metrics.count("http_server_request_duration_seconds_count", &[]), 30);
    }
}

#[tokio::test]
async fn grpc_health_is_asked_for_by_its_protocol() {
    let answer = |status: u8| {
        let message = vec![0, 0, 0, 0, 2, 8, status];
        Answer::status(200)
            .header("content-type", "application/grpc")
            .data(message)
            .trailer("grpc-status", "0")
    };
    let (a, b) = (Origin::start(answer(1)).await, Origin::start(answer(1)).await);
    let text = checked("check = 'grpc', service = 'shop.Orders'");
    let gateway = gateway(&[a.address, b.address], &format!("{text}protocol = 'h2'\n")).await;
    b.answer(answer(2));
    gateway.states("shop", &["usable", "unhealthy"]).await;
    b.answer(Answer::status(200).header("grpc-status", "12"));
    let asked = b.seen().len();
    let seen = b.seen_when("four more checks", |seen| seen.len() >= asked + 4).await;
    gateway.states("shop", &["usable", "unhealthy"]).await;
    b.answer(answer(1));
    gateway.states("shop", &["usable", "usable"]).await;
    let asked = &seen[0];
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/grpc.health.v1.Health/Check"));
    assert_eq!(
        (asked.header("content-type"), asked.header("te")),
        (Some("application/grpc"), Some("trailers"))
    );
    assert_eq!(asked.body, [&[0, 0, 0, 0, 13, 10, 11][..], b"shop.Orders"].concat());
}

#[tokio::test]
async fn a_tcp_check_wants_a_connection_and_nothing_else() {
    let (a, b) = (named("a").await, named("b").await);
    let mut link = TcpLink::to(b.address);
    let gateway = gateway(&[a.address, link.address], &checked("check = 'tcp'")).await;
    gateway.states("shop", &["usable", "usable"]).await;
    link.refuse().await;
    gateway.states("shop", &["usable", "unhealthy"]).await;
    assert_eq!(spread(&gateway, 10).await, only("a", 10));
    link.listen_again();
    gateway.states("shop", &["usable", "usable"]).await;
    assert!(a.seen().len() == 10 && b.seen().is_empty(), "no check asked anything");
}

#[tokio::test]
async fn a_check_that_takes_too_long_has_failed() {
    let (a, stalled, hole) =
        (named("a").await, Origin::start(Answer::stall()).await, Blackhole::start().await);
    let endpoints = [a.address, stalled.address, hole.address];
    let gateway = gateway(&endpoints, &checked("path = '/healthz', timeout = '300ms'")).await;
    gateway.states("shop", &["usable", "unhealthy", "unhealthy"]).await;
    let timeouts = |metrics: &crate::support::Metrics| {
        metrics.count("tracegate_endpoint_health_checks_total", &[("outcome", "timeout")]) >= 2
    };
    gateway.metrics_when("two timeouts", timeouts).await;
}

#[tokio::test]
async fn when_too_few_endpoints_are_healthy_all_are_used() {
    let (a, b, c) = (named("a").await, named("b").await, named("c").await);
    let says_no = |name: &'static str| {
        move |seen: &Seen| {
            if seen.target == "/healthz" { Answer::status(503) } else { Answer::status(200).data(name) }
        }
    };
    a.answer(says_no("a"));
    b.answer(says_no("b"));
    let endpoints = [a.address, b.address, c.address];
    let gateway = gateway(&endpoints, &checked("path = '/healthz'")).await;
    let status = gateway.states("shop", &["unhealthy", "unhealthy", "usable"]).await;
    assert_eq!(status["panic"], true, "one of three is less than half");
    assert_eq!(spread(&gateway, 9).await.len(), 3);
    let labels = [("tracegate_upstream", "shop")];
    assert_eq!(gateway.metrics().await.count("tracegate_upstream_panic", &labels), 1);
    // an operator's word counts for more than need
    assert!(gateway.set_in_use("shop", a.address, false));
    assert_eq!(spread(&gateway, 8).await.keys().collect::<Vec<_>>(), ["c"], "one of two is enough");
    assert!(gateway.set_in_use("shop", c.address, false));
    assert_eq!(spread(&gateway, 8).await, only("b", 8));
}

#[tokio::test]
async fn an_endpoint_taken_out_gets_nothing_new_and_finishes_what_it_has() {
    let (a, b) = (named("a").await, named("b").await);
    let gateway = gateway(&[a.address, b.address], "[upstreams.shop]\nslow_start = 'off'\n").await;
    let gate = Gate::new();
    a.answer(Answer::status(200).data("a").gate(&gate).data("a"));
    // the two take turns: one of these requests is held
    let mut held = gateway.client().await;
    let answer = held.send(get("/held")).await.unwrap();
    let (held, answer) = if a.seen().is_empty() {
        let mut other = gateway.client().await;
        let answer = other.send(get("/held")).await.unwrap();
        (other, answer)
    } else {
        (held, answer)
    };
    let before = a.seen().len();
    assert!(gateway.set_in_use("shop", a.address, false));
    assert_eq!(spread(&gateway, 10).await, only("b", 10));
    let status = gateway.states("shop", &["out", "usable"]).await;
    assert_eq!(status["endpoints"][0]["in_flight"], 1, "{status}");
    gate.open();
    let reply = Reply::read(answer).await;
    assert_eq!((reply.text().as_str(), reply.broken, a.seen().len()), ("aa", false, before));
    drop(held);
    let endpoint = a.address.to_string();
    let labels = [("tracegate_endpoint", endpoint.as_str())];
    assert_eq!(gateway.metrics().await.count("tracegate_endpoint_in_use", &labels), 0);
    assert!(gateway.set_in_use("shop", a.address, true));
    a.answer(Answer::status(200).data("a"));
    assert_eq!(spread(&gateway, 10).await.len(), 2);
    assert!(!gateway.set_in_use("shop", ([192, 0, 2, 1], 1).into(), false), "nobody like that");
    assert!(!gateway.set_in_use("mes", a.address, false));
}

#[tokio::test]
async fn endpoints_get_requests_by_their_weight() {
    let (a, b) = (named("a").await, named("b").await);
    for (balance, exact) in [("round_robin", true), ("p2c", false)] {
        let text = format!(
            "[upstreams.shop]\nbalance = '{balance}'\n\
             endpoints = [{{ url = 'http://{}', weight = 3 }}, 'http://{}']\n",
            a.address, b.address
        );
        let gateway = gateway(&[], &text).await;
        let answered = spread(&gateway, 400).await;
        if exact {
            assert_eq!(answered, [("a".into(), 300), ("b".into(), 100)].into());
        } else {
            // 300 with a standard deviation of 9
            assert!((250..350).contains(&answered["a"]), "{answered:?}");
        }
        assert_eq!(gateway.upstream_status("shop").await["endpoints"][0]["weight"], 3);
    }
}

/// A request that is held at the origin until the gate opens.
async fn hold(gateway: &Gateway, origin: &Origin) -> tokio::task::JoinHandle<Reply> {
    let before = origin.seen().len();
    let mut client = gateway.client().await;
    let held = tokio::spawn(async move { client.get("/").await });
    origin.seen_when("the held request", |seen| seen.len() > before).await;
    held
}

#[tokio::test]
async fn each_bound_of_a_breaker_refuses_at_once_and_says_its_name() {
    for (text, detail) in [
        ("breaker = { requests = 1 }", "requests"),
        ("breaker = { connections = 1 }", "connections"),
        ("breaker = { connections = 1 }\nprotocol = 'h2'", ""),
        ("breaker = { pending = 1 }\npool = { connections = 1, wait = '20s' }", "queue_full"),
    ] {
        let gate = Gate::new();
        let origin = Origin::start(Answer::status(200).gate(&gate).data("a")).await;
        let gateway = gateway(&[origin.address], &format!("[upstreams.shop]\n{text}\n")).await;
        let first = hold(&gateway, &origin).await;
        if detail.is_empty() {
            // one connection is enough for all
            let second = hold(&gateway, &origin).await;
            gate.open();
            assert_eq!(second.await.unwrap().status, 200);
            continue;
        }
        let mut waiting = None;
        if detail == "queue_full" {
            let mut client = gateway.client().await;
            waiting = Some(tokio::spawn(async move { client.get("/").await }));
            let pending =
                async { while gateway.upstream_status("shop").await["breaker"]["pending"]["now"] != 1 {} };
            within("the second request to wait", pending).await;
        }
        let refused = gateway.ask(request(Method::GET, "/", &[], body::empty())).await;
        assert_eq!((refused.status, refused.reason().as_deref()), (503, Some("breaker_open")), "{text}");
        let problem = refused.json();
        assert_eq!(
            (&problem["rule"], &problem["detail"]),
            (&"upstreams.shop.breaker".into(), &detail.into())
        );
        assert!(refused.headers.has("retry-after"));
        let bound = if detail == "queue_full" { "pending" } else { detail };
        let level = gateway.upstream_status("shop").await["breaker"][bound].clone();
        assert_eq!((&level["most"], &level["now"], &level["refused"]), (&1.into(), &1.into(), &1.into()));
        let labels = [("tracegate_upstream", "shop"), ("bound", bound)];
        assert_eq!(gateway.metrics().await.count("tracegate_breaker_refusals_total", &labels), 1);
        gate.open();
        assert_eq!(first.await.unwrap().status, 200);
        if let Some(waiting) = waiting {
            assert_eq!(waiting.await.unwrap().status, 200);
        }
        assert_eq!(gateway.get("/").await.status, 200, "{text}: closed again");
    }
}

#[tokio::test]
async fn an_unused_connection_gives_way_before_a_breaker_refuses() {
    for protocol in ["http/1.1", "h2"] {
        let (a, b) = (named("a").await, named("b").await);
        let text = format!("[upstreams.shop]\nprotocol = '{protocol}'\nbreaker = {{ connections = 1 }}\n");
        let gateway = gateway(&[a.address, b.address], &text).await;
        assert_eq!(spread(&gateway, 10).await, [("a".into(), 5), ("b".into(), 5)].into(), "{protocol}");
    }
}

#[tokio::test]
async fn what_is_known_of_an_endpoint_survives_a_reload_that_changes_its_upstream() {
    let (a, b, c) = (named("a").await, named("b").await, named("c").await);
    let text = |balance: &str, endpoints: &[SocketAddr]| {
        let listed: Vec<_> = endpoints.iter().map(|endpoint| format!("'http://{endpoint}'")).collect();
        let listed = listed.join(", ");
        let all = route("all", "/{*path}", "shop");
        format!("[upstreams.shop]\nbalance = '{balance}'\nendpoints = [{listed}]\n{STRICT}{all}")
    };
    let gateway = Gateway::start(&[&text("round_robin", &[a.address, b.address, c.address])]).await;
    assert!(gateway.set_in_use("shop", a.address, false));
    b.answer(Answer::status(500));
    assert_eq!(spread(&gateway, 8).await, [("500".into(), 2), ("c".into(), 6)].into());
    gateway.reload(&[&text("p2c", &[c.address, b.address, a.address])]);
    gateway.states("shop", &["usable", "ejected", "out"]).await;
    assert_eq!(spread(&gateway, 8).await, only("c", 8));
    assert!(gateway.set_in_use("shop", a.address, true));
    gateway.states("shop", &["usable", "ejected", "slow_start"]).await;
}

#[tokio::test]
async fn a_grpc_server_is_ejected_for_failing_and_not_for_what_it_will_not_do() {
    let says = |status: &'static str| {
        Answer::status(200).header("content-type", "application/grpc").trailer("grpc-status", status)
    };
    for (status, state) in [("13", "ejected"), ("14", "ejected"), ("12", "usable"), ("5", "usable")] {
        let (a, b) = (Origin::start(says(status)).await, Origin::start(says("0")).await);
        let text = format!("{STRICT}[upstreams.shop]\nprotocol = 'h2'\n");
        let gateway = gateway(&[a.address, b.address], &text).await;
        let mut client = Client::http2(gateway.address()).await;
        for _ in 0..4 {
            let call = [("content-type", "application/grpc"), ("te", "trailers")];
            let reply = client.ask(request(Method::POST, "/shop.Orders/Create", &call, body::empty())).await;
            assert_eq!(reply.status, 200);
        }
        gateway.states("shop", &[state, "usable"]).await;
    }
}
