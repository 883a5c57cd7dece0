//! Follows `/api/stream` over one connection, and asks again when it ends.

use std::time::Duration;

use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::client::{Client, Refusal};
use super::events::Reader;
use super::model::News;

/// Sends what happens to `news`, for as long as somebody takes it.
pub(super) async fn follow(client: Client, news: mpsc::Sender<News>) {
    let mut failures = 0;
    loop {
        let why = match client.open("/api/stream").await {
            Ok(mut coming) => {
                failures = 0;
                if news.send(News::Connected).await.is_err() {
                    return;
                }
                let mut reader = Reader::default();
                loop {
                    let bytes = match timeout(SILENCE, coming.body.frame()).await {
                        Err(_) => break "the gateway has been silent for too long".to_owned(),
                        Ok(None) => break "the gateway has ended the stream".to_owned(),
                        Ok(Some(Err(_))) => break "the connection was lost".to_owned(),
                        Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                    };
                    let Ok(events) = reader.read(&bytes) else {
                        break "the gateway has sent more than can be shown".to_owned();
                    };
                    for event in events {
                        if news.send(News::Event(event)).await.is_err() {
                            return;
                        }
                    }
                }
            }
            Err(refusal @ Refusal::Forbidden(_)) => {
                // nobody to tell is as good as told
                let _ = news.send(News::Forbidden(refusal.sentence().to_owned())).await;
                return;
            }
            Err(Refusal::Absent) => {
                let why = format!(
                    "{} has no /api/stream: is it an admin address of this version?",
                    client.address()
                );
                let _ = news.send(News::Forbidden(why)).await;
                return;
            }
            Err(Refusal::Later(why)) => why,
        };
        let again = pause(failures);
        failures += 1;
        if news.send(News::Lost { why, again }).await.is_err() {
            return;
        }
        sleep(again).await;
    }
}

/// How long to wait after so many failures in a row: longer each time, and not all at the same moment.
fn pause(failures: u32) -> Duration {
    let most = FIRST.saturating_mul(1 << failures.min(8)).min(LONGEST);
    most.mul_f64(rand::random_range(0.5..1.0))
}

/// The gateway says something every five seconds.
const SILENCE: Duration = Duration::from_secs(40);
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FIRST, LONGEST, pause};

    #[test]
    fn pauses_grow_to_a_bound() {
        for (failures, most) in
            [(0, FIRST), (1, FIRST * 2), (3, FIRST * 8), (4, LONGEST), (u32::MAX, LONGEST)]
        {
            let pause = pause(failures);
            assert!(pause <= most && pause >= most / 2 && pause > Duration::ZERO, "{failures}: {pause:?}");
        }
    }
}
