//! The commands as a person or a script calls them: exit codes, standard output, standard error.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::process::Process;
use crate::support::{Answer, Origin, own_ip, within};

const ROUTES: &str = "[listeners.public]\naddress = '127.0.0.1:0'\n[admin]\naddress = '127.0.0.1:0'\n\
    [telemetry]\notlp = 'off'\n[upstreams.shop]\nservice = 'shop-api'\nendpoints = ['http://127.0.0.1:9001']\n\
    [routes.order_read]\nmatch = { methods = ['GET'], path = '/shop/orders/{order_id}' }\nupstream = 'shop'\n\
    strip_prefix = '/shop'\noperation = 'order.read'\nattributes = { 'order.id' = { path = 'order_id' } }\n\
    [routes.canary]\nmatch = { path = '/shop/orders/{id}', headers = { x-canary = true } }\nupstream = 'shop'\n\
    [routes.eu]\nmatch = { hosts = ['eu.example'], path = '/shop/orders/{id}' }\nupstream = 'shop'\n\
    [routes.shop]\nmatch = { path = '/shop/{*rest}' }\nupstream = 'shop'\n\
    [routes.create]\nmatch = { methods = ['POST'], path = '/shop/orders/{id}' }\nupstream = 'shop'\n";

fn directory(text: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("routes.toml"), text).unwrap();
    directory
}

/// Calls it in this directory; its exit code, standard output and standard error.
async fn call(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracegate"));
    command.args(arguments).current_dir(directory);
    let ended = tokio::task::spawn_blocking(move || command.output());
    let Output { status, stdout, stderr } = within("its end", ended).await.unwrap().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn problems_are_shown_as_a_compiler_shows_them_before_the_start_and_by_check() {
    let directory = directory("[listeners.public]\naddress = '127.0.0.1:0'\ntimeouts = { idle = 60 }\n");
    for command in ["run", "check"] {
        let (code, out, error) = call(directory.path(), &[command]).await;
        let shown = "error: listeners.public.timeouts.idle: 60 has no unit\n --> routes.toml:3:21\n  |\n\
                     3 | timeouts = { idle = 60 }\n  |                     ^^\n  |\n  = help: write a whole number";
        assert!(error.contains(shown) && error.ends_with("\nerror: 1 problem\n"), "{error}");
        assert_eq!((code, out.as_str()), (78, ""), "{command}");
        assert!(!error.contains('\u{1b}'), "no colours where there is no terminal");
    }
    let (code, out, error) = call(directory.path(), &["check", "--format", "json"]).await;
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, error.as_str(), &document["ok"]), (78, "", &Value::Bool(false)));
    let problem = &document["problems"][0];
    assert_eq!(problem["key"], "listeners.public.timeouts.idle");
    assert_eq!((&problem["line"], &problem["column"]), (&3.into(), &21.into()));
    assert_eq!((&problem["origin"], &problem["message"]), (&"routes.toml".into(), &"60 has no unit".into()));

    let (code, _, error) = call(directory.path(), &["check", "--config", "gone.toml"]).await;
    assert!(code == 78 && error.contains("cannot be read") && error.contains("--> gone.toml\n"), "{error}");
}

#[tokio::test]
async fn check_tells_every_value_with_its_origin() {
    let directory = directory(ROUTES);
    let (code, out, error) = call(directory.path(), &["check", "--effective"]).await;
    assert_eq!((code, error.as_str()), (0, ""));
    let line =
        |key: &str| out.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap_or_default();
    assert!(
        line("upstreams.shop.service").ends_with("= \"shop-api\"                       # routes.toml:8")
            || line("upstreams.shop.service").ends_with("# routes.toml:8"),
        "{out}"
    );
    assert!(line("upstreams.shop.connect_timeout").ends_with("# default"), "{out}");
    let (code, out, _) = call(directory.path(), &["check", "--effective", "--format", "json"]).await;
    let document: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && document["values"].as_array().unwrap().len() > 100);
}

#[tokio::test]
async fn check_tries_who_can_be_reached_and_says_so_with_its_code() {
    let origin = Origin::start(Answer::ok()).await;
    let closed = TcpListener::bind((own_ip(), 0)).await.unwrap().local_addr().unwrap();
    let with = |endpoints: &str| ROUTES.replace("'http://127.0.0.1:9001'", endpoints);
    let open = format!("'http://{}'", origin.address);
    let directory = directory(&with(&open));
    let (code, out, error) = call(directory.path(), &["check", "--connect"]).await;
    assert!(code == 0 && out.starts_with("ok ") && out.ends_with("1 of 1 reached\n"), "{out}{error}");

    let more = "[upstreams.shop.health]\npath = '/healthz'\nstatuses = [418]\n\
                [redis.main]\naddress = 'redis://127.0.0.1:1'\n\
                [telemetry.logstash]\naddress = 'tcp://127.0.0.1:1'\n\
                [auth.staff.jwt]\nissuer = 'a'\naudience = 'off'\njwks_url = 'http://127.0.0.1:1/'\n\
                [upstreams.portal]\nendpoints = ['http://127.0.0.1:1']\n\
                [auth.portal.forward]\nupstream = 'portal'\n\
                [admin.jwt]\nissuer = 'a'\naudience = 'admin'\nalgorithms = ['RS256']\n\
                roles = { ops = 'operator' }\njwks_url = 'http://127.0.0.1:1/'\n";
    let text = with(&format!("{open}, 'http://{closed}', 'http://nowhere.invalid'")) + more;
    std::fs::write(directory.path().join("routes.toml"), text).unwrap();
    let (code, out, _) = call(directory.path(), &["check", "--connect", "--format", "json"]).await;
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &document["ok"]), (1, &Value::Bool(false)), "{out}");
    let detail = |table: &str, address: &str| {
        let peers = document["peers"].as_array().unwrap();
        let peer = peers
            .iter()
            .find(|peer| peer["table"] == table && peer["address"].as_str().unwrap().contains(address));
        peer.unwrap_or_else(|| panic!("{table} {address} in {out}"))["detail"].as_str().unwrap().to_owned()
    };
    for (table, address, words) in [
        ("upstreams.shop", origin.address.to_string(), "wrong_answer"),
        ("upstreams.shop", closed.to_string(), "connect_refused"),
        ("upstreams.shop", "nowhere.invalid".to_owned(), "dns_failed"),
        ("redis.main", "127.0.0.1:1".to_owned(), "refused"),
        ("telemetry.logstash", "127.0.0.1:1".to_owned(), "connect_refused"),
        ("auth.staff", "127.0.0.1:1".to_owned(), "connect_refused"),
        ("upstreams.portal", "127.0.0.1:1".to_owned(), "connect_refused"),
        ("admin.jwt", "127.0.0.1:1".to_owned(), "connect_refused"),
    ] {
        let detail = detail(table, &address);
        assert!(detail.contains(words), "{table} {address}: {detail}");
    }
}

#[tokio::test]
async fn soon_after_its_start_the_gateway_says_of_each_upstream_what_is_reachable() {
    let origin = Origin::start(Answer::ok()).await;
    let closed = TcpListener::bind((own_ip(), 0)).await.unwrap().local_addr().unwrap();
    let text = format!(
        "[upstreams.shop]\nendpoints = ['http://{}', 'http://{closed}']\n\
         [routes.all]\nmatch.path = '/{{*rest}}'\nupstream = 'shop'\n",
        origin.address
    );
    let process = Process::start(&text, None).await;
    let told = async {
        while !process.diagnostics().contains("1 of 2") {
            tokio::task::yield_now().await;
        }
    };
    within("the line", told).await;
    let said = process.diagnostics();
    let line = said.lines().find(|line| line.contains("1 of 2")).unwrap();
    assert!(
        line.contains("shop") && line.contains(&closed.to_string()) && line.contains("refused"),
        "{line}"
    );
}

#[tokio::test]
async fn a_url_is_explained_as_it_would_be_served() {
    let directory = directory(ROUTES);
    let url = "https://shop.example/shop//orders/x/../42?page=2&token=hunter2#top";
    let arguments =
        ["explain", "-H", "authorization: Bearer 1", "-H", "x-tenant: acme", url, "--format", "json"];
    let (code, out, error) = call(directory.path(), &arguments).await;
    assert_eq!(code, 0, "{error}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&told["host"], &told["path"]), (&"shop.example".into(), &"/shop/orders/42".into()));
    assert_eq!(told["route"]["name"], "order_read");
    assert_eq!(told["route"]["parameters"]["order_id"], "42");
    assert_eq!(told["route"]["path"], "/orders/{order_id}");
    assert_eq!(told["route"]["upstreams"][0]["endpoints"][0], "http://127.0.0.1:9001");
    let because = |route: &str| {
        let others = told["others"].as_array().unwrap();
        others.iter().find(|other| other["route"] == route).unwrap()["because"].clone()
    };
    assert_eq!(because("create"), serde_json::json!(["another method"]));
    assert_eq!(because("eu"), serde_json::json!(["another host"]));
    assert_eq!(because("canary"), serde_json::json!(["asks for the header field x-canary"]));
    assert_eq!(because("shop"), serde_json::json!(["would match, but order_read is more exact: path"]));
    assert_eq!(told["sampled"], true);
    let server = &told["spans"][0];
    assert_eq!((&server["kind"], &server["name"]), (&"SERVER".into(), &"GET /shop/orders/{order_id}".into()));
    assert_eq!(server["attributes"]["order.id"], "42");
    assert_eq!(server["attributes"]["url.path"], "/shop/orders/{order_id}");
    let client = &told["spans"][1];
    assert_eq!(client["attributes"]["url.full"], "http://127.0.0.1:9001/orders/{order_id}");
    assert_eq!(client["attributes"]["peer.service"], "shop-api");
    let redacted: Vec<_> = told["redacted"].as_array().unwrap().iter().map(|entry| &entry["what"]).collect();
    for what in ["query page", "query token", "header authorization", "header x-tenant", "client address"] {
        assert!(redacted.iter().any(|known| *known == what), "{what} in {redacted:?}");
    }

    let (code, out, _) = call(directory.path(), &["explain", url]).await;
    assert_eq!(code, 0);
    for part in [
        "order_read",
        "/shop/orders/42  (from /shop//orders/x/../42",
        "timeouts.request",
        "retry",
        "SERVER span",
    ] {
        assert!(out.contains(part), "{part}:\n{out}");
    }
    assert!(!out.contains("Bearer 1") && !out.contains("page=2 "), "{out}");
}

#[tokio::test]
async fn an_explained_url_tells_who_is_asked_and_which_bounds_count() {
    let rule = "[upstreams.portal]\nendpoints = ['http://127.0.0.1:9091']\n\
                [auth.portal.forward]\nupstream = 'portal'\npath = '/verify?key=hunter2'\n\
                [routes.members]\nmatch = { path = '/members' }\nupstream = 'shop'\nauth = 'portal'\n\
                timeouts = { exchange = '90s' }\n\
                [listeners.public.limits]\nrequests_per_connection = 1000\nbody_progress = 'off'\n";
    let directory = directory(&format!("{ROUTES}{rule}"));
    let (code, out, error) = call(directory.path(), &["explain", "/members", "--format", "json"]).await;
    assert_eq!(code, 0, "{error}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        told["route"]["policies"][0]["what"],
        "any of portal (upstream portal is asked for /verify) lets it pass"
    );
    assert_eq!(told["route"]["timeouts"]["timeouts.exchange"], "1m 30s");
    let progress = "1024 bytes within each timeouts.stream_idle";
    assert_eq!(told["route"]["limits"]["limits.answer_progress"], progress);
    assert_eq!(told["connection"]["limits.requests_per_connection"], "1000");
    assert_eq!(told["connection"]["limits.body_progress"], "off");
    assert!(!out.contains("hunter2"), "{out}");
    let (code, out, _) = call(directory.path(), &["explain", "/members"]).await;
    assert!(code == 0 && out.contains("upstream portal is asked for /verify"), "{out}");
    assert!(out.contains(progress) && out.contains("timeouts.connection_age"), "{out}");
}

#[tokio::test]
async fn a_refused_url_is_explained_by_its_reason() {
    let directory = directory(ROUTES);
    for (arguments, reason, words) in [
        (&["/mes"][..], "no_route", "404"),
        (&["-X", "DELETE", "http://a/robots.txt"], "no_route", "404"),
        (&["/shop/%2e%2e/%2e%2e/etc"], "bad_request", "ambiguous_path"),
        (&["/shop%2Forders"], "bad_request", "ambiguous_path"),
        (&["-X", "CONNECT", "/shop"], "unsupported", "501"),
        (&["-H", "host: a b", "/shop"], "bad_request", "invalid_host"),
    ] {
        let (code, out, error) = call(directory.path(), &[&["explain"], arguments].concat()).await;
        assert!(code == 0 && out.contains(reason) && out.contains(words), "{arguments:?}:\n{out}{error}");
        assert!(out.contains(&format!("tracegate explain {reason}")), "{out}");
    }
}

#[tokio::test]
async fn the_lint_of_telemetry_looks_at_every_signal_and_says_what_came_out() {
    let directory = directory(
        "[listeners.public]\naddress = '127.0.0.1:0'\n[upstreams.shop]\nendpoints = ['http://127.0.0.1:9001']\n\
         [routes.shop]\nmatch = { path = '/shop/{*rest}' }\nupstream = 'shop'\n",
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracegate"));
    command.arg("lint-telemetry").current_dir(directory.path());
    // every place of every request is searched for every secret, in every form
    let ended =
        tokio::time::timeout(Duration::from_mins(2), tokio::task::spawn_blocking(move || command.output()));
    let Output { status, stdout, stderr } = ended.await.expect("its end").unwrap().unwrap();
    let (out, error) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!((status.code(), error.as_str()), (Some(0), ""), "{out}");
    assert!(out.ends_with("nothing came out\n"), "{out}");
    for signal in ["access log", "diagnostics", "live page", "metrics", "spans", "status"] {
        assert!(out.contains(&format!(" of {signal}")), "{signal}: {out}");
    }
    let sent: usize = out.split(' ').next().unwrap().parse().unwrap();
    assert!(sent > 20, "{out}");
    let (code, _, error) = call(directory.path(), &["lint-telemetry", "--config", "gone.toml"]).await;
    assert!(code == 78 && error.contains("gone.toml"), "{error}");
}

#[tokio::test]
async fn a_reason_is_explained_and_an_unknown_word_gets_the_nearest() {
    let directory = directory("");
    let (code, out, _) = call(directory.path(), &["explain", "upstream_timeout"]).await;
    assert!(
        code == 0 && out.contains("tracegate_requests_total{tracegate_reason=\"upstream_timeout\"}"),
        "{out}"
    );
    let (code, out, error) = call(directory.path(), &["explain", "upstream_timout"]).await;
    assert!(
        code == 1 && out.is_empty() && error.contains("help: tracegate explain upstream_timeout"),
        "{error}"
    );
}

#[tokio::test]
async fn the_schema_and_the_completions_are_what_editors_and_shells_take() {
    let directory = directory("");
    let (code, out, _) = call(directory.path(), &["schema"]).await;
    let schema: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &schema["$schema"]), (0, &"https://json-schema.org/draft/2020-12/schema".into()));
    let route = &schema["properties"]["routes"]["additionalProperties"]["properties"];
    assert_eq!(route["timeouts"]["properties"]["request"]["default"], "60s");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, _) = call(directory.path(), &["completions", shell]).await;
        assert!(code == 0 && out.contains("lint-telemetry") && out.contains("explain"), "{shell}");
        std::fs::write(directory.path().join(shell), out).unwrap();
    }
    if Command::new("bash").arg("--version").output().is_ok() {
        let script = "source ./bash && complete -p tracegate";
        let output =
            Command::new("bash").args(["-c", script]).current_dir(directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
