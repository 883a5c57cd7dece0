//! A start with broken files: from the last good configuration where one is kept, else not at all.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::client::get_admin;
use crate::support::gateway::{route, upstream};
use crate::support::process::Process;
use crate::support::{Answer, Client, Metrics, Origin, within};

/// A configuration with this one route.
fn text(origin: &Origin, path: &str) -> String {
    upstream("shop", origin.address) + &route("all", path, "shop") + "[reload]\nwatch = '20ms'\n"
}

/// Waits until this file says so.
async fn says(file: &Path, part: &str) {
    let said = async {
        while !std::fs::read_to_string(file).is_ok_and(|text| text.contains(part)) {
            tokio::task::yield_now().await;
        }
    };
    within("what is kept", said).await;
}

async fn gauge(process: &Process, name: &str) -> u64 {
    Metrics::parse(get_admin(process.admin, "/metrics").await.text()).count(name, &[])
}

#[tokio::test]
async fn a_start_with_a_broken_file_is_one_from_the_last_good_configuration_and_says_so() {
    let origin = Origin::start(Answer::ok()).await;
    let mut process = Process::start_keeping(&text(&origin, "/a"), "last-good.toml").await;
    let kept = process.path("last-good.toml");
    says(&kept, "/a").await;
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    process.replace(&text(&origin, "/b"));
    process.status_when("the reload", |status| status["configuration"]["generation"] == 2).await;
    says(&kept, "/b").await;
    process.replace("nonsense");
    let refused = |status: &serde_json::Value| status["configuration"]["reloads"][0]["outcome"] == "refused";
    let status = process.status_when("the refusal", refused).await;
    assert_eq!(status["configuration"]["last_good"]["in_force"], false);
    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0));

    process.restart(&["--last-good", "last-good.toml"]).await;
    assert_eq!(Client::http1(process.address).await.get("/b").await.status, 200);
    let status = process.status_when("a status", |_| true).await;
    let last_good = &status["configuration"]["last_good"];
    assert_eq!(last_good["in_force"], true, "{status}");
    assert!(last_good["problems"][0].as_str().unwrap().contains("routes.toml:1:"), "{status}");
    assert_eq!(gauge(&process, "tracegate_config_last_good").await, 1);
    assert_eq!(gauge(&process, "tracegate_config_last_reload_successful").await, 0);
    let said = process.diagnostics();
    assert!(said.contains("warning: the configuration is broken; starting from the last good one"), "{said}");
    assert!(std::fs::read_to_string(&kept).unwrap().contains("/b"), "it is kept");

    // mended, and be it as it was, it is in force again
    process.replace(&text(&origin, "/b"));
    process
        .status_when("the mended file", |status| status["configuration"]["last_good"]["in_force"] == false)
        .await;
    assert_eq!(gauge(&process, "tracegate_config_last_good").await, 0);
}

#[tokio::test]
async fn without_a_last_good_configuration_a_broken_file_ends_the_start_with_78() {
    let origin = Origin::start(Answer::ok()).await;
    let mut process = Process::start(&text(&origin, "/a"), None).await;
    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0));
    process.replace("nonsense");
    for arguments in [&[][..], &["--last-good", "never-written.toml"]] {
        process.spawn_again(arguments);
        assert_eq!(process.ended().await, Some(78), "{arguments:?}");
    }
    process.write("last-good.toml", "rubbish");
    process.spawn_again(&["--last-good", "last-good.toml"]);
    assert_eq!(process.ended().await, Some(78));
    assert!(process.diagnostics().contains("last-good.toml:1:"), "{}", process.diagnostics());
}

#[tokio::test]
async fn a_certificate_that_is_mended_is_enough_after_a_new_file_was_refused_for_it() {
    let origin = Origin::start(Answer::ok()).await;
    let authority = crate::support::Authority::new();
    let identity = authority.identity(&["shop.test"]);
    let process = Process::start(&text(&origin, "/a"), None).await;
    let tls = "[listeners.public]\ntls = { certificate_file = 'new.pem', key_file = 'new-key.pem' }\n";
    process.write("new.pem", "half a certificate");
    process.write("new-key.pem", &identity.key);
    process.replace(&(text(&origin, "/b") + tls));
    let outcome = |wanted: &'static str| {
        move |status: &serde_json::Value| status["configuration"]["reloads"][0]["outcome"] == wanted
    };
    process.status_when("the refusal", outcome("refused")).await;
    process.write("new.pem", &identity.certificate);
    process.status_when("the certificate to count", outcome("applied")).await;
    let mut client = Client::tls(process.address, "shop.test", authority.client(&["h2"])).await;
    assert_eq!(client.get("/b").await.status, 200);
}

#[tokio::test]
async fn a_file_that_never_stops_changing_is_read_after_a_while() {
    let origin = Origin::start(Answer::ok()).await;
    let quick = |path: &str| text(&origin, path) + "max_wait = '200ms'\n";
    let process = Process::start(&quick("/a"), None).await;
    let changing = async {
        for number in 0_u64.. {
            process.replace(&format!("{}# {number}\n", quick("/b")));
            let mut client = Client::http1(process.address).await;
            if client.get("/b").await.status == 200 {
                return;
            }
        }
    };
    within("a file that changes at every look", changing).await;
}
