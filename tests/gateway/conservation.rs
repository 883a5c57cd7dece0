//! Every span is accounted for, whatever the receiver does: made = exported + unsampled + dropped + queued.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::client::request;
use crate::support::gateway::{all_to, upstream};
use crate::support::load::load;
use crate::support::process::Process;
use crate::support::{
    Answer, Balance, Collector, Gateway, Metrics, Mode, Origin, Protocol, Seen, body, within,
};

/// A gateway between an origin that answers and a collector.
struct Scene {
    collector: Collector,
    gateway: Gateway,
    protocol: Protocol,
    _origin: Origin,
}

impl Scene {
    /// `more` is what the receiver's table says beside the endpoint.
    async fn new(protocol: Protocol, more: &str) -> Self {
        let (origin, collector) = (Origin::start(Answer::ok()).await, Collector::start().await);
        let receiver = format!("{}{more}", collector.table(protocol));
        let gateway = Gateway::start(&[&all_to(origin.address), &receiver]).await;
        Self { collector, gateway, protocol, _origin: origin }
    }

    /// So many requests, each of which makes two spans.
    async fn requests(&self, count: usize) {
        let mut client = self.gateway.client().await;
        for _ in 0..count {
            assert_eq!(client.get("/").await.status, 200);
        }
    }

    async fn balance_when(&self, what: &str, satisfied: impl Fn(&Balance) -> bool) -> Balance {
        let receiver = self.protocol.receiver();
        let what = format!("{what}, {:?}", self.protocol);
        let balance = self.gateway.balance_when(&what, receiver, satisfied).await;
        let status: Value = serde_json::from_str(&self.gateway.admin("/status").await.text()).unwrap();
        let spans = &status["telemetry"]["spans"][receiver];
        // nothing moves any more once all is decided
        if balance.queued == 0 {
            assert_eq!(status["telemetry"]["spans_made"], balance.made);
            assert_eq!((&spans["exported"], &spans["queued"]), (&balance.exported.into(), &0.into()));
            for (reason, count) in &balance.dropped {
                assert_eq!(spans["dropped"][reason], *count, "{status}");
            }
        }
        balance
    }

    /// The balance once every span of so many requests has been decided on.
    async fn settled(&self, requests: u64) -> Balance {
        self.balance_when("every span decided", |balance| balance.made == 2 * requests && balance.queued == 0)
            .await
    }
}

#[tokio::test]
async fn a_collector_that_takes_everything_has_everything() {
    for protocol in Protocol::ALL {
        for compression in ["none", "gzip"] {
            let scene = Scene::new(protocol, &format!("compression = '{compression}'\n")).await;
            scene.requests(50).await;
            let balance = scene.settled(50).await;
            assert_eq!((balance.exported, scene.collector.accepted()), (100, 100), "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_collector_that_was_killed_has_everything_once_it_is_back() {
    for protocol in Protocol::ALL {
        let mut scene = Scene::new(protocol, "").await;
        scene.requests(10).await;
        scene.settled(10).await;
        scene.collector.kill().await;
        scene.requests(20).await;
        let balance = scene.balance_when("forty spans waiting", |balance| balance.queued == 40).await;
        assert_eq!((balance.exported, balance.all_dropped()), (20, 0));
        scene.collector.revive().await;
        let balance = scene.settled(30).await;
        assert_eq!((balance.exported, scene.collector.accepted()), (60, 60), "{protocol:?}");
    }
}

#[tokio::test]
async fn what_a_dead_collector_does_not_take_finds_no_room_or_is_given_up() {
    for protocol in Protocol::ALL {
        let small = "queue = 40\nbatch = 10\ngive_up_after = '300ms'\n";
        let mut scene = Scene::new(protocol, small).await;
        scene.collector.kill().await;
        scene.requests(50).await;
        let balance = scene.settled(50).await;
        let (queue_full, gave_up) = (balance.dropped_as("queue_full"), balance.dropped_as("gave_up"));
        assert!(queue_full > 0 && gave_up > 0 && queue_full + gave_up == 100, "{protocol:?} {balance:?}");
        // and it goes on as soon as there is somebody
        scene.collector.revive().await;
        scene.requests(1).await;
        assert_eq!(scene.settled(51).await.exported, 2, "{protocol:?}");
    }
}

#[tokio::test]
async fn what_a_stalled_collector_has_is_queued_until_it_speaks() {
    for protocol in Protocol::ALL {
        let scene = Scene::new(protocol, "").await;
        scene.collector.mode(Mode::Stall);
        scene.requests(20).await;
        scene.collector.wait_for_batches(1).await;
        let balance = scene.balance_when("forty spans queued", |balance| balance.made == 40).await;
        assert_eq!((balance.exported, balance.all_dropped(), balance.queued), (0, 0, 40), "{protocol:?}");
        scene.collector.mode(Mode::Accept);
        let balance = scene.settled(20).await;
        assert_eq!((balance.exported, scene.collector.accepted()), (40, 40), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_batch_that_nobody_answers_in_time_is_sent_again() {
    for protocol in Protocol::ALL {
        let scene = Scene::new(protocol, "timeout = '100ms'\n").await;
        scene.collector.mode(Mode::Stall);
        scene.requests(1).await;
        scene.collector.wait_for_batches(3).await;
        scene.collector.mode(Mode::Accept);
        let balance = scene.settled(1).await;
        assert_eq!((balance.exported, balance.all_dropped()), (2, 0), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_collector_that_is_busy_is_left_alone_for_as_long_as_it_says() {
    for protocol in Protocol::ALL {
        let wait = Duration::from_secs(1);
        let scene = Scene::new(protocol, "").await;
        scene.collector.mode(Mode::Busy(wait));
        scene.requests(1).await;
        scene.collector.wait_for_batches(1).await;
        scene.collector.mode(Mode::Accept);
        scene.requests(1).await;
        let balance = scene.settled(2).await;
        assert_eq!((balance.exported, balance.all_dropped()), (4, 0), "{protocol:?}");
        let batches = scene.collector.batches();
        let waited = batches[1].at.duration_since(batches[0].at);
        assert!((wait..2 * wait).contains(&waited), "{waited:?}, {protocol:?}");
    }
}

#[tokio::test]
async fn what_a_collector_rejects_is_counted_as_that_and_never_sent_again() {
    for (mode, rejected) in [
        (Mode::Refuse, 10),
        (Mode::Partial(3), 3),
        (Mode::Partial(10), 10),
        (Mode::Partial(99), 10),
        // a warning
        (Mode::Partial(0), 0),
    ] {
        for protocol in Protocol::ALL {
            if protocol == Protocol::Zipkin && mode != Mode::Refuse {
                continue;
            }
            let scene = Scene::new(protocol, "batch = 10\ndelay = '1h'\n").await;
            scene.collector.mode(mode);
            scene.requests(15).await;
            let balance = scene.settled(15).await;
            assert_eq!(balance.dropped_as("rejected"), 3 * rejected, "{protocol:?} {mode:?}");
            assert_eq!(balance.exported, 3 * (10 - rejected), "{protocol:?} {mode:?}");
            assert_eq!(scene.collector.accepted(), balance.exported);
            assert_eq!(scene.collector.batches().len(), 3);
        }
    }
}

#[tokio::test]
async fn who_answers_garbage_or_a_page_for_people_has_taken_nothing() {
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 12\r\n\r\n<p>login</p>",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
        "",
    ] {
        for protocol in Protocol::ALL {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut read = [0; 1024];
                    let _ = stream.read(&mut read).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
            let origin = Origin::start(Answer::ok()).await;
            let receiver = match protocol {
                Protocol::Grpc => format!("[telemetry.otlp]\nendpoint = 'http://{address}'\n"),
                Protocol::Http => {
                    format!("[telemetry.otlp]\nendpoint = 'http://{address}'\nprotocol = 'http/protobuf'\n")
                }
                Protocol::Zipkin => {
                    format!("[telemetry.zipkin]\nendpoint = 'http://{address}/api/v2/spans'\n")
                }
            };
            let receiver = format!("{receiver}give_up_after = '300ms'\n");
            let gateway = Gateway::start(&[&all_to(origin.address), &receiver]).await;
            assert_eq!(gateway.get("/").await.status, 200);
            let given_up = |balance: &Balance| balance.dropped_as("gave_up") == 2;
            let what = format!("two spans given up, {protocol:?} {answer:?}");
            let balance = gateway.balance_when(&what, protocol.receiver(), given_up).await;
            assert_eq!((balance.made, balance.exported, balance.queued), (2, 0, 0), "{what}");
        }
    }
}

#[tokio::test]
async fn a_slow_collector_has_everything_in_the_end() {
    for protocol in Protocol::ALL {
        let scene = Scene::new(protocol, "batch = 10\n").await;
        scene.collector.mode(Mode::Slow(Duration::from_millis(20)));
        scene.requests(50).await;
        let balance = scene.settled(50).await;
        assert_eq!((balance.exported, scene.collector.accepted()), (100, 100), "{protocol:?}");
    }
}

#[tokio::test]
async fn spans_that_are_not_to_be_exported_are_counted_with_the_reason() {
    const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let origin = Origin::start(Answer::ok()).await;
    let routes = all_to(origin.address);
    let off = Gateway::start(&[&routes]).await;
    off.get("/").await;
    let balance = off.balance_when("two spans unsampled", "none", |balance| balance.made == 2).await;
    assert_eq!(balance.unsampled, [("off".to_owned(), 2)].into());

    let collector = Collector::start().await;
    let sampling = "[telemetry.sampling]\nratio = 0.0\n";
    let gateway = Gateway::start(&[&routes, &collector.grpc(), sampling]).await;
    gateway.get("/").await;
    let unsampled = request(Method::GET, "/", &[("traceparent", UNSAMPLED)], body::empty());
    gateway.ask(unsampled).await;
    let balance = gateway.balance_when("four spans unsampled", "otlp", |balance| balance.made == 4).await;
    assert_eq!(balance.unsampled, [("parent".to_owned(), 2), ("ratio".to_owned(), 2)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_is_asked_is_a_span_that_is_accounted_for() {
    let (origin, collector) = (Origin::start(Answer::ok()).await, Collector::start().await);
    let portal = Origin::start(|seen: &Seen| match seen.header("cookie") {
        Some("may") => Answer::status(204),
        Some("fails") => Answer::status(500),
        Some("breaks") => Answer::reset(),
        Some("slow") => Answer::stall(),
        _ => Answer::status(401).data("no"),
    })
    .await;
    let text = format!(
        "{}[auth.portal.forward]\nupstream = 'portal'\ntimeout = '250ms'\n[routes.all]\nauth = 'portal'\n",
        upstream("portal", portal.address)
    );
    let bounds = "[upstreams.portal]\noutliers = 'off'\nretry_budget = 'off'\n";
    for (ratio, exported) in [("1.0", true), ("0.0", false)] {
        collector.forget();
        let before = collector.accepted();
        let sampling =
            format!("[telemetry.sampling]\nratio = {ratio}\nkeep_errors = false\nkeep_slow = false\n");
        let gateway =
            Gateway::start(&[&all_to(origin.address), &text, bounds, &collector.grpc(), &sampling]).await;
        // what is asked: its own span, one of the question or two, and the attempt's
        let mut spans = 0;
        for _ in 0..4 {
            for (cookie, status, made) in
                [("may", 200, 3), ("fails", 503, 2), ("breaks", 503, 3), ("slow", 503, 2), ("no", 401, 2)]
            {
                let asked = request(Method::GET, "/", &[("cookie", cookie)], body::empty());
                assert_eq!(gateway.ask(asked).await.status, status, "{cookie}");
                spans += made;
            }
        }
        let balance = gateway
            .balance_when("every span decided", "otlp", |balance| {
                balance.made == spans && balance.queued == 0
            })
            .await;
        let unsampled: u64 = balance.unsampled.values().sum();
        let expected = if exported { (spans, 0) } else { (0, spans) };
        assert_eq!((balance.exported, unsampled, balance.all_dropped()), (expected.0, expected.1, 0));
        assert_eq!(collector.accepted() - before, balance.exported);
    }
}

#[tokio::test]
async fn every_receiver_has_a_balance_of_its_own() {
    let origin = Origin::start(Answer::ok()).await;
    let (mut otlp, zipkin) = (Collector::start().await, Collector::start().await);
    let receivers = [otlp.table(Protocol::Grpc), zipkin.table(Protocol::Zipkin)].concat();
    let gateway = Gateway::start(&[&all_to(origin.address), &receivers]).await;
    otlp.kill().await;
    for _ in 0..10 {
        gateway.get("/").await;
    }
    let balance =
        gateway.balance_when("Zipkin to have all", "zipkin", |balance| balance.exported == 20).await;
    assert_eq!((balance.made, zipkin.accepted()), (20, 20));
    let balance = gateway.balance_when("OTLP's to wait", "otlp", |balance| balance.queued == 20).await;
    assert_eq!((balance.made, balance.exported), (20, 0));
    otlp.revive().await;
    gateway.balance_when("OTLP to have all", "otlp", |balance| balance.exported == 20).await;
    assert_eq!(otlp.accepted(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_balance_is_exact_after_a_collector_was_everything_under_load() {
    let [grpc, http, zipkin] = Protocol::ALL.map(everything_under_load);
    tokio::join!(grpc, http, zipkin);
}

async fn everything_under_load(protocol: Protocol) {
    let mut scene = Scene::new(protocol, "queue = 2000\nbatch = 100\ntimeout = '100ms'\n").await;
    let (stop, stopped) = watch::channel(false);
    let asking = load(scene.gateway.address(), 2, &[], move |_| !*stopped.borrow());
    let mut batches = 0;
    for mode in [
        Mode::Accept,
        Mode::Stall,
        Mode::Accept,
        Mode::Unavailable,
        Mode::Partial(7),
        Mode::Slow(Duration::from_millis(20)),
        Mode::Refuse,
        Mode::Accept,
    ] {
        scene.collector.mode(mode);
        scene.collector.wait_for_batches(batches + 2).await;
        batches = scene.collector.batches().len();
    }
    scene.collector.kill().await;
    let full = |metrics: &Metrics| Balance::of(metrics, protocol.receiver()).dropped_as("queue_full") > 0;
    scene.gateway.metrics_when("the queue to run over", full).await;
    scene.collector.revive().await;
    scene.collector.wait_for_batches(batches + 2).await;
    stop.send_replace(true);
    let answers: u64 = within("the clients' end", asking.join_all()).await.into_iter().sum();
    let balance = scene.settled(answers).await;
    assert!(balance.dropped_as("rejected") > 0 && balance.dropped_as("queue_full") > 0, "{balance:?}");
    assert_eq!(balance.dropped_as("gave_up") + balance.dropped_as("shutdown"), 0, "{balance:?}");
    // what it said too late was sent again
    assert!(balance.exported > 0 && balance.exported <= scene.collector.accepted(), "{balance:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_collector_holds_no_request_and_no_shutdown() {
    for protocol in Protocol::ALL {
        let more = "queue = 100\nbatch = 20\ndelay = '1h'\ntimeout = '1h'\n[shutdown]\nflush = '50ms'\n";
        let scene = Scene::new(protocol, more).await;
        scene.collector.mode(Mode::Stall);
        scene.requests(200).await;
        let balance = scene.balance_when("all spans made", |balance| balance.made == 400).await;
        assert_eq!((balance.exported, balance.queued), (0, 120), "{protocol:?} {balance:?}");
        assert_eq!(balance.dropped_as("queue_full"), 280);
        let leaving = Instant::now();
        scene.gateway.stop().await;
        assert!(leaving.elapsed() < Duration::from_secs(5));
    }
}

/// What the process says of its spans at the end.
#[derive(Debug, PartialEq, Eq)]
struct Last {
    made: u64,
    exported: u64,
    unsampled: u64,
    dropped: u64,
    queued: u64,
}

impl Last {
    fn read(diagnostics: &str) -> Self {
        let line = diagnostics.lines().rfind(|line| line.contains(" spans receiver="));
        let line = line.unwrap_or_else(|| panic!("no balance in\n{diagnostics}"));
        let field = |name: &str| {
            let (_, rest) = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("{name}: {line}"));
            rest.split(' ').next().unwrap().parse().unwrap()
        };
        Self {
            made: field("made"),
            exported: field("exported"),
            unsampled: field("unsampled"),
            dropped: field("dropped"),
            queued: field("queued"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_told_to_end_under_load_accounts_for_every_span() {
    for (mode, protocol) in [
        (Some(Mode::Accept), Protocol::Grpc),
        (Some(Mode::Accept), Protocol::Http),
        (Some(Mode::Accept), Protocol::Zipkin),
        (Some(Mode::Slow(Duration::from_millis(5))), Protocol::Grpc),
        (Some(Mode::Stall), Protocol::Http),
        (None, Protocol::Grpc),
    ] {
        let (origin, mut collector) = (Origin::start(Answer::ok()).await, Collector::start().await);
        let text = format!("{}{}", all_to(origin.address), collector.table(protocol));
        let text = format!("{text}[shutdown]\nflush = '2s'\n");
        let mut process = Process::start(&text, None).await;
        match mode {
            Some(mode) => collector.mode(mode),
            None => collector.kill().await,
        }
        let asking = load(process.address, 4, &[], |_| true);
        origin.seen_when("load", |seen| seen.len() > 300).await;
        process.signal("TERM");
        let answers: u64 = within("the clients' end", asking.join_all()).await.into_iter().sum();
        let (code, logged) = process.counted().await;
        assert_eq!(code, Some(0));
        let last = Last::read(&process.diagnostics());
        assert_eq!(last.made, 2 * logged, "{last:?}");
        assert!(logged >= answers, "{logged} {answers}");
        assert_eq!(last.made, last.exported + last.unsampled + last.dropped + last.queued, "{last:?}");
        assert_eq!((last.unsampled, last.queued), (0, 0), "{last:?}");
        match mode {
            Some(Mode::Accept | Mode::Slow(_)) => {
                assert_eq!((last.exported, last.dropped), (collector.accepted(), 0), "{mode:?} {protocol:?}");
            }
            _ => assert_eq!((last.exported, collector.accepted()), (0, 0), "{mode:?} {protocol:?}"),
        }
    }
}
