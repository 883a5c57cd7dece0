//! Timing: where the time of an attempt went, on its CLIENT span, and what the gateway itself took.

use http::Method;

use crate::support::client::request;
use crate::support::collector::Span;
use crate::support::{Answer, Client, Gate, Reply, Stage, body};

/// The moments of an attempt, in milliseconds from its start, in the order in which they come.
const MOMENTS: [&str; 3] = ["tracegate.request_sent_ms", "tracegate.first_byte_ms", "tracegate.last_byte_ms"];

fn moments(span: &Span) -> Vec<Option<f64>> {
    MOMENTS.map(|key| span.attribute(key).map(|text| text.parse().unwrap())).into()
}

#[tokio::test]
async fn an_attempt_tells_when_each_part_was_over_and_how_many_bytes_passed() {
    let gate = Gate::new();
    let stage = Stage::new(Answer::status(200).chunked().data("first").gate(&gate).data("last")).await;
    let mut client = Client::http1(stage.gateway.address()).await;
    for (connection, path) in [("new", "/1"), ("reused", "/2")] {
        let answer = client.send(request(Method::POST, path, &[], body::full("twelve bytes"))).await.unwrap();
        gate.open();
        let told =
            answer.headers()["server-timing"].to_str().unwrap()["trace;desc=\"00-".len()..][..32].to_owned();
        assert_eq!(Reply::read(answer).await.text(), "firstlast");
        let attempt = stage.told(&told, 1).await.attempts.remove(0);
        assert_eq!(attempt.attribute("tracegate.connection"), Some(connection));
        assert_eq!(attempt.attribute("tracegate.connect_ms").is_some(), connection == "new");
        assert_eq!(attempt.attribute("http.request.body.size"), Some("12"));
        assert_eq!(attempt.attribute("http.response.body.size"), Some("9"));
        let moments = moments(&attempt);
        assert!(moments.iter().all(Option::is_some) && moments.is_sorted(), "{moments:?}");
        // the span ends with the last byte
        #[expect(clippy::cast_precision_loss, reason = "a few milliseconds")]
        let duration = (attempt.end - attempt.start) as f64 / 1e6;
        assert!((duration - moments[2].unwrap()).abs() < 0.001, "{duration} {moments:?}");
    }
}

#[tokio::test]
async fn a_moment_that_never_came_is_not_told() {
    for (answer, known) in [
        (Answer::reset(), [true, false, false]),
        (Answer::ok().announced(100).then_close(), [true, true, false]),
    ] {
        let stage = Stage::new(answer).await;
        let mut client = Client::http1(stage.gateway.address()).await;
        let _ = client.get("/").await;
        let attempt = stage.told_first(1).await.attempts.remove(0);
        let moments: Vec<bool> = moments(&attempt).iter().map(Option::is_some).collect();
        assert_eq!(moments, known, "{attempt:?}");
    }
}

/// The gateway's own time is told in steps that show it.
#[tokio::test]
async fn the_overhead_has_buckets_for_microseconds() {
    let stage = Stage::new(Answer::ok()).await;
    stage.get("/").await;
    stage.gateway.log(1).await;
    let metrics = stage.gateway.metrics().await;
    let bounds = metrics.label_values("tracegate_overhead_seconds_bucket", "le");
    for bound in ["0.00001", "0.000025", "0.0001", "0.001", "1", "+Inf"] {
        assert!(bounds.contains(bound), "{bound}: {bounds:?}");
    }
    assert_eq!(metrics.count("tracegate_overhead_seconds_count", &[]), 1);
}
