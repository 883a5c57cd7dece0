//! Reloads: what is new counts, what is equal goes on, what is wrong is refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracegate::gateway::file::{self, Sources};
use tracegate::gateway::reload::Trigger;
use tracegate::gateway::{Means, Settings};
use tracegate::setting::Hash;
use tracegate::telemetry::metrics::reloads::ReloadOutcome;

use crate::support::client::{get, get_admin, request};
use crate::support::gateway::{all_to, route, upstream};
use crate::support::load::{Busy, load};
use crate::support::process::Process;
use crate::support::{
    Answer, Authority, Client, Gate, Gateway, Metrics, Origin, Reply, body, own_ip, within,
};

#[tokio::test]
async fn a_new_route_counts_for_the_next_request_on_a_connection_that_is_open() {
    let origin = Origin::start(Answer::ok()).await;
    let before = upstream("shop", origin.address) + &route("old", "/old", "shop");
    let gateway = Gateway::start(&[&before]).await;
    let mut client = gateway.client().await;
    assert_eq!((client.get("/old").await.status, client.get("/new").await.status), (200, 404));
    let report = gateway.reload(&[&before.replace("old", "new")]);
    assert_eq!(report.outcome, ReloadOutcome::Applied);
    let told = [&report.difference.added, &report.difference.removed].map(ToString::to_string);
    assert_eq!(told, ["routes.new", "routes.old"]);
    assert_eq!((client.get("/old").await.status, client.get("/new").await.status), (404, 200));
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_the_old_stays_in_force() {
    let origin = Origin::start(Answer::ok()).await;
    let gateway = Gateway::before(origin.address).await;
    let report = gateway.reload(&[&all_to(origin.address).replace("endpoints", "endpoint")]);
    assert_eq!((report.outcome, report.generation), (ReloadOutcome::Refused, 1));
    assert!(report.problems[0].contains("write endpoints"), "{:?}", report.problems);
    assert_eq!(gateway.get("/").await.status, 200);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("tracegate_reloads_total", &[("outcome", "refused")]), 1);
    assert_eq!(metrics.count("tracegate_config_last_reload_successful", &[]), 0);
    let status = gateway.admin("/status").await.json();
    assert_eq!(status["configuration"]["reloads"][0]["outcome"], "refused", "{status}");
}

#[tokio::test]
async fn an_unchanged_endpoint_keeps_its_connections_when_all_around_it_changes() {
    let [one, two] = [Origin::start(Answer::ok()).await, Origin::start(Answer::ok()).await];
    let text = |endpoints: &str| {
        format!("[upstreams.shop]\nendpoints = [{endpoints}]\n{}", route("all", "/{*rest}", "shop"))
    };
    let [first, second] = [&one, &two].map(|origin| format!("'http://{}'", origin.address));
    let gateway = Gateway::start(&[&text(&first)]).await;
    assert_eq!(gateway.get("/").await.status, 200);
    let other = route("other", "/other", "shop");
    let balanced = text(&first).replace("[routes", "balance = 'round_robin'\n[routes");
    for texts in [
        text(&first) + "timeouts.request = '5s'\n",
        text(&first) + &other,
        balanced,
        text(&format!("{first}, {second}")),
        text(&first),
    ] {
        let report = gateway.reload(&[&texts]);
        assert_eq!(report.outcome, ReloadOutcome::Applied, "{report:?}\n{texts}");
        for _ in 0..8 {
            assert_eq!(gateway.get("/").await.status, 200);
        }
    }
    assert_eq!(one.connections().accepted, 1, "never dialled again");
    two.open_connections(0).await;
}

#[tokio::test]
async fn a_route_goes_by_what_it_names_though_it_says_what_it_said_before() {
    let [one, two] = [Origin::start(Answer::ok()).await, Origin::start(Answer::ok()).await];
    let text = |origin: &Origin, requests: u32, answer: u16| {
        let limit = format!("rate_limits.few = {{ requests = {requests}, per = '1h', key = 'route' }}\n");
        let other = format!("[routes.other]\nmatch.path = '/other'\nrespond.status = {answer}\n");
        limit
            + &upstream("shop", origin.address)
            + &route("all", "/{*rest}", "shop")
            + "rate_limit = 'few'\n"
            + &other
    };
    let gateway = Gateway::start(&[&text(&one, 1, 200)]).await;
    let statuses = async || (gateway.get("/").await.status, gateway.get("/").await.status);
    assert_eq!(statuses().await, (200, 429));
    // neither comes back: nothing about the route, and nothing that it names
    gateway.reload(&[&text(&one, 1, 204)]);
    assert_eq!((statuses().await, gateway.get("/other").await.status), ((429, 429), 204));
    assert_eq!(one.seen().len(), 1);
    // another limit, another upstream
    gateway.reload(&[&text(&one, 2, 204)]);
    assert_eq!((statuses().await, one.seen().len()), ((200, 200), 3));
    gateway.reload(&[&text(&two, 3, 204)]);
    assert_eq!((statuses().await, one.seen().len(), two.seen().len()), ((200, 200), 3, 2));
}

/// How nice the calling thread is to others (`proc_pid_stat(5)`, the nineteenth field).
fn niceness() -> i32 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux tells");
    let (_, after_the_name) = stat.rsplit_once(") ").expect("the name in parentheses");
    after_the_name.split(' ').nth(16).and_then(|nice| nice.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_reload_lets_requests_go_first_on_a_core_that_both_want() {
    let text =
        "listeners.public.address = '127.0.0.1:0'\nadmin.address = '127.0.0.1:0'\ntelemetry.otlp = 'off'";
    let sources = Sources { files: vec![("routes.toml".into(), text.into())], ..Sources::default() };
    let settings = file::load(&sources).expect("a configuration");
    let (tell, mut told) = mpsc::unbounded_channel();
    let load = move |before: &Settings| {
        tell.send(niceness()).expect("it is waited for");
        file::load_after(&sources, before)
    };
    let means = Means { load: Some(Arc::new(load)), ..Means::default() };
    let gateway = tracegate::gateway::Gateway::start_with(settings, means).await.expect("it starts");
    let own = niceness();
    let report = gateway.reload(Trigger::Request).await.expect("it has been read again");
    assert_eq!(report.outcome, ReloadOutcome::Unchanged);
    assert_eq!(told.recv().await, Some((own + 10).min(19)));
    assert_eq!(niceness(), own, "of the thread that requests are answered on");
    gateway.shutdown().await;
}

#[tokio::test]
async fn a_key_that_cannot_be_reloaded_is_named_until_it_is_as_it_was() {
    let origin = Origin::start(Answer::ok()).await;
    let gateway = Gateway::before(origin.address).await;
    let all = all_to(origin.address);
    let other = "[listeners.public]\naddress = '127.0.0.9:0'\nlimits.uri_bytes = '20B'\n[telemetry]\nservice_name = 'x'\n";
    gateway.reload(&[&all, other]);
    let status = gateway.admin("/status").await.json();
    let named = &status["configuration"]["awaiting_restart"];
    assert_eq!(*named, json!(["listeners.public.address", "telemetry.service_name"]));
    assert_eq!(gateway.metrics().await.count("tracegate_config_keys_awaiting_restart", &[]), 2);
    // what can be reloaded of a listener counts for new connections, where it is
    assert_eq!(gateway.get("/a_long_path_of_a_request").await.status, 414);
    gateway.reload(&[&all]);
    assert_eq!(gateway.metrics().await.count("tracegate_config_keys_awaiting_restart", &[]), 0);
    assert_eq!(gateway.get("/a_long_path_of_a_request").await.status, 200);
}

/// A stream that goes on for as long as its gate is closed.
fn stream(gate: &Gate) -> Answer {
    Answer::status(200)
        .header("content-type", "text/event-stream")
        .chunked()
        .data("first")
        .gate(gate)
        .data("last")
}

#[tokio::test]
async fn streams_live_on_while_their_route_and_their_upstream_change() {
    let gate = Gate::new();
    let origin = Origin::start(stream(&gate)).await;
    let gateway = Gateway::before(origin.address).await;
    let mut open = Vec::new();
    for mut client in [gateway.client().await, Client::http2(gateway.address()).await] {
        let answer = client.send(get("/")).await.unwrap();
        open.push((client, answer));
    }
    let elsewhere = Origin::start(Answer::ok()).await;
    let all = all_to(elsewhere.address) + "timeouts.request = '1s'\n[reload]\ngrace = '1ms'\n";
    assert_eq!(gateway.reload(&[&all]).outcome, ReloadOutcome::Applied);
    assert_eq!(gateway.get("/").await.status, 200);
    gateway
        .metrics_when("the gauge of streams", |metrics| metrics.count("tracegate_streams_active", &[]) == 2)
        .await;
    gate.open();
    for (_client, answer) in open {
        let reply = Reply::read(answer).await;
        assert_eq!((reply.text().as_str(), reply.broken), ("firstlast", false));
    }
    // the pool of an endpoint that is gone keeps nothing
    origin.open_connections(0).await;
}

#[tokio::test]
async fn streams_on_a_removed_route_end_after_the_grace_for_a_stated_reason_and_others_live_on() {
    let gate = Gate::new();
    let origin = Origin::start(stream(&gate)).await;
    let shop = upstream("shop", origin.address) + "[reload]\ngrace = '100ms'\n";
    let kept = route("kept", "/kept", "shop");
    let gateway = Gateway::start(&[&shop, &kept, &route("removed", "/removed", "shop")]).await;
    let mut shared = Client::http2(gateway.address()).await;
    let removed = shared.send(get("/removed")).await.unwrap();
    let kept_answer = shared.another().send(get("/kept")).await.unwrap();
    let mut alone = gateway.client().await;
    let alone_answer = alone.send(get("/removed")).await.unwrap();
    gateway.reload(&[&shop, &kept]);
    for answer in [removed, alone_answer] {
        let reply = Reply::read(answer).await;
        assert_eq!((reply.text().as_str(), reply.broken), ("first", true));
    }
    for line in gateway.log(2).await {
        assert_eq!((&line["route"], &line["reason"]), (&"removed".into(), &"route_removed".into()), "{line}");
    }
    gate.open();
    assert_eq!(Reply::read(kept_answer).await.text(), "firstlast");
}

#[tokio::test]
async fn a_route_that_comes_back_within_the_grace_is_a_new_one() {
    let gate = Gate::new();
    let origin = Origin::start(stream(&gate)).await;
    let shop = upstream("shop", origin.address) + "[reload]\ngrace = '100ms'\n";
    let (kept, back) = (route("kept", "/kept", "shop"), route("back", "/back", "shop"));
    let gateway = Gateway::start(&[&shop, &kept, &back]).await;
    let mut client = gateway.client().await;
    let old = client.send(get("/back")).await.unwrap();
    gateway.reload(&[&shop, &kept]);
    gateway.reload(&[&shop, &kept, &back]);
    let mut client = gateway.client().await;
    let new = client.send(get("/back")).await.unwrap();
    assert!(Reply::read(old).await.broken);
    gate.open();
    assert!(!Reply::read(new).await.broken);
}

/// Whether so many reloads have been, the last with this outcome.
fn reloaded(count: usize, outcome: &'static str) -> impl Fn(&Value) -> bool {
    move |status| {
        let reloads = &status["configuration"]["reloads"];
        reloads.as_array().is_some_and(|all| all.len() == count) && reloads[0]["outcome"] == outcome
    }
}

/// The same of so many reloads or more: what is written in place may be seen half written first.
fn at_least(count: usize, outcome: &'static str) -> impl Fn(&Value) -> bool {
    move |status| {
        let reloads = &status["configuration"]["reloads"];
        reloads.as_array().is_some_and(|all| all.len() >= count) && reloads[0]["outcome"] == outcome
    }
}

#[tokio::test]
async fn sighup_reads_the_files_again() {
    let origin = Origin::start(Answer::ok()).await;
    let text = |path: &str| {
        upstream("shop", origin.address) + &route("all", path, "shop") + "[reload]\nwatch = 'off'\n"
    };
    let process = Process::start(&text("/old"), None).await;
    process.replace(&text("/new"));
    assert_eq!(Client::http1(process.address).await.get("/new").await.status, 404, "nobody has asked for it");
    process.signal("HUP");
    let status = process.status_when("the reload", reloaded(1, "applied")).await;
    let reload = &status["configuration"]["reloads"][0];
    assert_eq!((&reload["trigger"], &reload["generation"]), (&"signal".into(), &2.into()), "{status}");
    assert_eq!(reload["difference"]["changed"]["first"], json!(["routes.all.match.path"]));
    assert_eq!(Client::http1(process.address).await.get("/new").await.status, 200);
    process.signal("HUP");
    process.status_when("another one", reloaded(2, "unchanged")).await;
    process.replace("nonsense");
    process.signal("HUP");
    let status = process.status_when("one that is wrong", reloaded(3, "refused")).await;
    assert_eq!(status["configuration"]["generation"], 2);
    assert_eq!(Client::http1(process.address).await.get("/new").await.status, 200);
    for part in ["routes.all.match.path", "routes.toml:1:", "the one before stays in force"] {
        // it is in the status a moment before it is in the log
        within(part, async {
            while !process.diagnostics().contains(part) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn an_operator_has_the_files_read_again_over_the_admin_address() {
    let origin = Origin::start(Answer::ok()).await;
    let hash = Hash::of("the operator's token").digits();
    let text = |path: &str| {
        format!(
            "{}{}[reload]\nwatch = 'off'\n[admin.tokens.op]\nrole = 'operator'\nsha256 = '{hash}'\n",
            upstream("shop", origin.address),
            route("all", path, "shop")
        )
    };
    let process = Process::start(&text("/old"), None).await;
    let host = process.admin.to_string();
    let asking = async |method: Method, path: &str| {
        let fields = [
            ("host", host.as_str()),
            ("authorization", "Bearer the operator's token"),
            ("content-type", "application/json"),
        ];
        let asked = request(method, path, &fields, body::full("{}"));
        Client::http1(process.admin).await.ask(asked).await
    };
    let get = async |path: &str| Client::http1(process.address).await.get(path).await.status;
    process.replace(&text("/new"));
    assert_eq!(get("/new").await, 404, "nobody has asked for it");
    assert_eq!(asking(Method::POST, "/api/reload").await.status, 200);
    assert_eq!((get("/new").await, get("/old").await), (200, 404));
    process.replace("nonsense");
    let refused = asking(Method::POST, "/api/reload").await;
    assert!(refused.status >= 400 && refused.text().contains("routes.toml:1:"), "{}", refused.text());
    assert_eq!(get("/new").await, 200, "the one before stays in force");
    let reloads = asking(Method::GET, "/api/reloads").await.json();
    let outcomes: Vec<_> =
        reloads["reloads"].as_array().unwrap().iter().map(|reload| reload["outcome"].clone()).collect();
    assert_eq!(outcomes, ["refused", "applied"], "{reloads}");
}

#[tokio::test]
async fn files_that_change_are_read_again_however_they_change() {
    let origin = Origin::start(Answer::ok()).await;
    let text = |path: &str| {
        upstream("shop", origin.address) + &route("all", path, "shop") + "[reload]\nwatch = '20ms'\n"
    };
    let process = Process::start(&text("/a"), None).await;
    process.replace(&text("/b"));
    let status = process.status_when("a rename to count", reloaded(1, "applied")).await;
    assert_eq!(status["configuration"]["reloads"][0]["trigger"], "watch");
    process.write("routes.toml", &text("/c"));
    process.status_when("a write to count", at_least(2, "applied")).await;
    within("the whole file to count", async {
        while Client::http1(process.address).await.get("/c").await.status != 200 {}
    })
    .await;
    // what is wrong and then mended
    process.replace("nonsense");
    process.status_when("it to be refused", at_least(3, "refused")).await;
    process.replace(&text("/d"));
    process.status_when("it to be mended", at_least(4, "applied")).await;
    assert_eq!(Client::http1(process.address).await.get("/d").await.status, 200);
}

#[tokio::test]
async fn a_certificate_that_is_renewed_is_shown_to_the_next_client_and_nobody_is_cut_off() {
    let origin = Origin::start(Answer::ok()).await;
    let directory = tempfile::tempdir().unwrap();
    let write = |authority: &Authority| authority.identity(&["shop.test"]).write(directory.path());
    let (old, new) = (Authority::new(), Authority::new());
    write(&old);
    let tls = "[listeners.public.tls]\ncertificate_file = 'server.pem'\nkey_file = 'server-key.pem'\n";
    let texts = all_to(origin.address) + tls;
    let gateway = Gateway::start_in(directory.path(), &[&texts]).await;
    let mut before = Client::tls(gateway.address(), "shop.test", old.client(&["h2"])).await;
    assert_eq!(before.get("/").await.status, 200);
    write(&new);
    let report = gateway.reload(&[&texts]);
    assert_eq!((report.outcome, report.difference.files.count), (ReloadOutcome::Applied, 2), "{report:?}");
    let mut after = Client::tls(gateway.address(), "shop.test", new.client(&["h2"])).await;
    assert_eq!((before.get("/").await.status, after.get("/").await.status), (200, 200));
    assert_eq!(gateway.reload(&[&texts]).outcome, ReloadOutcome::Unchanged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_under_load_fail_no_request_and_leave_nothing_behind() {
    reload_under_load(1_000, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: ten thousand reloads under sixteen clients"]
async fn ten_thousand_reloads_under_load_fail_no_request_and_leave_nothing_behind() {
    reload_under_load(10_000, 16).await;
}

/// So many reloads, each of which adds a route, removes one, changes the endpoints and swaps a certificate, while
/// clients ask without a pause. The first hundred warm up.
async fn reload_under_load(reloads: usize, clients: usize) {
    const NAMES: usize = 50;
    const WARM: usize = 100;
    let [one, two] = [Busy::start().await, Busy::start().await];
    let authorities = [Authority::new(), Authority::new()];
    let identities = authorities.each_ref().map(|authority| authority.identity(&["shop.test"]));
    let secure = SocketAddr::new(own_ip(), 9443);
    let text = |number: usize| {
        let second =
            if number.is_multiple_of(3) { format!(", 'http://{}'", two.address) } else { String::new() };
        let name = number % NAMES;
        format!(
            "[reload]\nwatch = 'off'\n[telemetry.access_log]\nenabled = false\n\
             [listeners.secure]\naddress = '{secure}'\n\
             tls = {{ certificate_file = 'server.pem', key_file = 'server-key.pem' }}\n\
             [upstreams.shop]\nendpoints = ['http://{}'{second}]\n\
             [routes.all]\nmatch.path = '/'\nupstream = 'shop'\n\
             [routes.r{name}]\nmatch.path = '/r{name}'\nupstream = 'shop'\noperation = 'n{name}'\n",
            one.address
        )
    };
    let swap = |process: &Process, number: usize| {
        let identity = &identities[number % 2];
        process.write("server.pem", &identity.certificate);
        process.write("server-key.pem", &identity.key);
    };
    let files = [("server.pem", &*identities[0].certificate), ("server-key.pem", &*identities[0].key)];
    let process = Process::start_beside(&text(0), &files, None).await;
    let mut over_tls = Client::tls(secure, "shop.test", authorities[0].client(&["h2"])).await;
    let going = Arc::new(AtomicBool::new(true));
    let mut asking = load(process.address, clients, &[], {
        let going = Arc::clone(&going);
        move |_| going.load(Ordering::Relaxed)
    });
    let mut client = Client::http1(process.address).await;
    let mut before = (0, 0, 0);
    for number in 1..=reloads {
        swap(&process, number);
        process.replace(&text(number));
        process.signal("HUP");
        let path = format!("/r{}", number % NAMES);
        let in_force = async { while client.get(&path).await.status != 200 {} };
        within("the reload", in_force).await;
        // now the one certificate, now the other
        if number % WARM < 2 && number >= WARM {
            let trusting = authorities[number % 2].client(&["h2"]);
            assert_eq!(Client::tls(secure, "shop.test", trusting).await.get("/").await.status, 200);
        }
        if number.is_multiple_of(WARM) {
            assert_eq!(over_tls.get("/").await.status, 200, "its connection is the first one");
        }
        if number == WARM {
            before = (process.memory(), process.open_files(), tasks(&process).await);
        }
    }
    assert!(asking.try_join_next().is_none(), "no client's connection was cut");
    going.store(false, Ordering::Relaxed);
    let mut answers = 0;
    while let Some(answered) = asking.join_next().await {
        answers += answered.expect("every answer is 200");
    }
    assert!(answers > reloads as u64, "there was load: {answers}");
    // it is counted a moment after it is in force
    let all_counted = async {
        loop {
            let metrics = Metrics::parse(get_admin(process.admin, "/metrics").await.text());
            if metrics.count("tracegate_reloads_total", &[("outcome", "applied")]) >= reloads as u64 {
                return metrics;
            }
        }
    };
    let metrics = within("every reload to be counted", all_counted).await;
    assert_eq!(metrics.count("tracegate_reloads_total", &[]), reloads as u64);
    for failed in ["4xx", "5xx", "none"] {
        let labels = [("tracegate_route", "all"), ("status_class", failed)];
        assert_eq!(metrics.count("tracegate_requests_total", &labels), 0, "{failed}");
    }
    let after = (process.memory(), process.open_files(), tasks(&process).await);
    println!(
        "{reloads} reloads, {answers} answers; memory in KiB, open files, tasks: {before:?} → {after:?}"
    );
    assert!(after.0 < before.0 + (16 << 10), "memory grew: {before:?} → {after:?} KiB, files");
    assert!(after.1 < before.1 + 16, "open files grew: {before:?} → {after:?}");
    // the clients of the load have gone by then
    assert!(after.2 < before.2 + 16, "tasks: {before:?} → {after:?}");
}

/// How many tasks it has.
async fn tasks(process: &Process) -> u64 {
    Metrics::parse(get_admin(process.admin, "/metrics").await.text()).count("tracegate_runtime_tasks", &[])
}

#[tokio::test]
async fn names_that_come_and_go_with_reloads_leave_a_bounded_page_and_bounded_memory() {
    const MOST: usize = 40;
    let origin = Origin::start(Answer::ok()).await;
    // each reload has another operation and another name for the endpoint
    let endpoint = |number: u32| format!("{}:9", std::net::Ipv4Addr::from(0x7f80_0000 | number));
    let text = |number: u32| {
        let endpoint = endpoint(number);
        format!(
            "[metrics]\nmax_series = {MOST}\n[telemetry.access_log]\nenabled = false\n[reload]\nwatch = 'off'\n[upstreams.shop]\n\
             endpoints = ['http://{}', 'http://{endpoint}']\noutliers = 'off'\n[routes.all]\n\
             match.path = '/{{*path}}'\nupstream = 'shop'\noperation = 'op{number}.read'\n\
             [routes.r{number}]\nmatch.path = '/only/{number}'\nupstream = 'shop'\n",
            origin.address
        )
    };
    let process = Process::start(&text(1), None).await;
    let mut client = Client::http1(process.address).await;
    let mut warm = 0;
    for number in 2..=300 {
        process.replace(&text(number));
        process.signal("HUP");
        let generation = u64::from(number);
        process.status_when("the reload", |status| status["configuration"]["generation"] == generation).await;
        for path in ["/".to_owned(), format!("/only/{number}"), "/a".to_owned(), "/b".to_owned()] {
            client.get(&path).await;
        }
        if number == 100 {
            // a page takes memory once
            get_admin(process.admin, "/metrics").await;
            warm = process.memory();
        }
    }
    let page = get_admin(process.admin, "/metrics").await;
    let metrics = Metrics::parse(page.text());
    for (family, label) in [
        ("http_server_request_duration_seconds_count", "tracegate_operation"),
        ("http_client_request_duration_seconds_count", "tracegate_operation"),
        ("tracegate_endpoint_usable", "tracegate_endpoint"),
        ("tracegate_endpoint_requests_total", "tracegate_endpoint"),
        ("tracegate_requests_total", "tracegate_route"),
    ] {
        let values = metrics.label_values(family, label);
        assert!(values.len() <= MOST + 1, "{family}: {}", values.len());
    }
    // those that are in use have not given way
    let usable = metrics.label_values("tracegate_endpoint_usable", "tracegate_endpoint");
    assert!(usable.contains(&endpoint(300)), "{usable:?}");
    let grown = process.memory().saturating_sub(warm);
    assert!(grown < 8 << 10, "{grown} KiB more after 200 reloads");
}
