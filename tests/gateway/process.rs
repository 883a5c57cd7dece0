//! The binary as the system sees it: signals, exit codes, memory, open files.

use http::Method;
use tokio::sync::watch;

use crate::support::client::{get, get_admin, request};
use crate::support::gateway::{all_to, route, upstream};
use crate::support::load::load;
use crate::support::process::Process;
use crate::support::{Answer, Client, Collector, Gate, Metrics, Origin, Raw, body, within};

#[tokio::test]
async fn either_signal_ends_it_with_code_0_after_the_requests_in_flight() {
    for signal in ["TERM", "INT"] {
        let gate = Gate::new();
        let origin = Origin::start(Answer::status(200).gate(&gate).data("late")).await;
        let mut process = Process::start(&all_to(origin.address), None).await;
        let mut client = Client::http1(process.address).await;
        let asking = tokio::spawn(async move { client.get("/").await });
        origin.seen_when("the request", |seen| !seen.is_empty()).await;
        process.signal(signal);
        gate.open();
        assert_eq!(within("the answer", asking).await.unwrap().text(), "late");
        let line = process.logged().await;
        assert_eq!((&line["route"], &line["status"]), (&"all".into(), &200.into()));
        assert_eq!(process.ended().await, Some(0), "{signal}");
    }
}

#[tokio::test]
async fn large_bodies_pass_with_flat_memory() {
    bodies_pass_with_flat_memory(40 << 20).await;
}

#[tokio::test]
#[ignore = "takes long without optimisation"]
async fn bodies_of_a_gibibyte_pass_with_flat_memory() {
    bodies_pass_with_flat_memory(1 << 30).await;
}

async fn bodies_pass_with_flat_memory(size: u64) {
    for protocol in ["http/1.1", "h2"] {
        let origin = Origin::start(Answer::status(200).zeros(size)).await;
        let upstream = upstream("shop", origin.address);
        let text = format!("{upstream}protocol = '{protocol}'\n{}", route("all", "/{*path}", "shop"));
        let process = Process::start(&text, None).await;
        for http2 in [false, true] {
            let before = process.peak_memory();
            let mut client = if http2 {
                Client::http2(process.address).await
            } else {
                Client::http1(process.address).await
            };
            let answer = client.send(request(Method::PUT, "/", &[], body::zeros(size))).await.unwrap();
            assert_eq!(within("the body", body::count(answer.into_body())).await.unwrap(), size);
            // the kernel sums per thread and may be a little behind
            let growth = process.peak_memory().saturating_sub(before);
            assert!(growth < 32 << 10, "{growth} KiB more for {size} bytes each way, {protocol}, {http2}");
        }
    }
}

#[tokio::test]
async fn without_free_file_descriptors_requests_fail_as_overloaded_until_there_are_some() {
    let origin = Origin::start(Answer::ok().then_close().header("connection", "close")).await;
    let collector = Collector::start().await;
    let mut process = Process::start(&(all_to(origin.address) + &collector.grpc()), Some(64)).await;
    let mut client = Client::http1(process.address).await;
    let first = client.get("/").await;
    collector.trace(&first.trace_id(), 2).await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(Raw::connect(process.address).await);
    }
    let exhausted = async {
        loop {
            let reply = client.get("/").await;
            if reply.status != 200 {
                return reply;
            }
        }
    };
    let reply = within("no free file descriptor", exhausted).await;
    assert_eq!((reply.status, reply.reason().as_deref()), (503, Some("overloaded")));
    drop(idle);
    let free = async { while client.get("/").await.status != 200 {} };
    within("free file descriptors", free).await;
    assert_eq!(Client::http1(process.address).await.get("/").await.status, 200, "it accepts again");
    for span in collector.trace(&reply.trace_id(), 2).await {
        assert_eq!((span.attribute("error.type"), span.error), (Some("overloaded"), true), "{span:?}");
    }
    let page = get_admin(process.admin, "/metrics").await;
    let labels =
        [("tracegate_reason", "overloaded"), ("tracegate_blame", "gateway"), ("status_class", "5xx")];
    let metrics = Metrics::parse(page.text());
    assert!(metrics.count("tracegate_requests_total", &labels) > 0, "{}", page.text());
    // what could not be accepted meanwhile is counted each time, and said once
    assert!(metrics.count("tracegate_connections_total", &[("outcome", "accept_error")]) > 0);
    assert_eq!(process.diagnostics().matches("cannot accept; backing off").count(), 1);
    let overloaded = async { while process.logged().await["reason"] != "overloaded" {} };
    within("the log line", overloaded).await;
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised_at_the_start() {
    let origin = Origin::start(Answer::ok()).await;
    let process = Process::start_with_soft_limit(&all_to(origin.address), 64).await;
    let page = Metrics::parse(get_admin(process.admin, "/metrics").await.text());
    assert!(page.count("process_max_fds", &[]) > 64);
}

#[tokio::test]
async fn the_access_log_goes_on_in_a_new_file_after_it_was_moved_away() {
    let origin = Origin::start(Answer::ok()).await;
    let directory = tempfile::tempdir().unwrap();
    let (log, moved) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
    let text = format!("[telemetry.access_log]\nfile = '{}'\n", log.display());
    let process = Process::start(&(all_to(origin.address) + &text), None).await;
    let mut client = Client::http1(process.address).await;
    client.ask(get("/")).await;
    std::fs::rename(&log, &moved).unwrap();
    process.signal("USR1");
    let written = async {
        while std::fs::read_to_string(&log).unwrap_or_default().is_empty() {
            client.ask(get("/")).await;
        }
    };
    within("a line in the new file", written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_of_the_access_log_is_lost_while_it_is_moved_away_under_load() {
    let origin = Origin::start(Answer::ok()).await;
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("access.log");
    let text = format!("[telemetry.access_log]\nfile = '{}'\n", log.display());
    let mut process = Process::start(&(all_to(origin.address) + &text), None).await;
    let (stop, stopped) = watch::channel(false);
    let asking = load(process.address, 2, &[], move |_| !*stopped.borrow());
    for number in 0..5 {
        let used = async {
            while std::fs::metadata(&log).map_or(0, |file| file.len()) == 0 {
                tokio::task::yield_now().await;
            }
        };
        within("lines in the new file", used).await;
        std::fs::rename(&log, directory.path().join(format!("access.log.{number}"))).unwrap();
        process.signal("USR1");
    }
    stop.send_replace(true);
    let answers: u64 = within("the clients' end", asking.join_all()).await.into_iter().sum();
    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0));
    let files = std::fs::read_dir(directory.path()).unwrap();
    let text: String = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert_eq!(text.lines().count() as u64, answers);
}

#[tokio::test]
async fn what_stands_in_its_way_at_the_start_is_told_with_an_exit_code() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    for (text, code, word) in [
        (
            format!("[listeners.public]\naddress = '{}'\n[admin]\naddress = '127.0.0.1:0'\n", taken.1),
            1,
            "listeners.public",
        ),
        ("[listeners.public]\nadress = '127.0.0.1:0'\n".to_owned(), 78, "routes.toml:2:1"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("routes.toml");
        std::fs::write(&file, text).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tracegate"));
        let output = tokio::task::spawn_blocking(move || command.arg("--config").arg(&file).output());
        let output = within("its end", output).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(word), "{said}");
    }
}
