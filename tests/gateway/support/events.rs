//! The live events of the admin address, as a page or a program hears them.

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::client::{Client, request};
use super::gateway::Gateway;
use super::{body, within};

/// A stream of events, being read.
pub struct Events {
    body: Incoming,
    read: String,
    _client: Client,
}

impl Events {
    /// Those that somebody with these fields gets.
    pub async fn of(gateway: &Gateway, fields: &[(&str, &str)]) -> Self {
        let mut client = Client::http1(gateway.admin_address()).await;
        let fields = [&[("host", "localhost")], fields].concat();
        let asked = request(Method::GET, "/api/stream", &fields, body::empty());
        let answer = client.send(asked).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { body: answer.into_body(), read: String::new(), _client: client }
    }

    /// The data of the next event of this name.
    pub async fn event(&mut self, name: &str) -> Value {
        let reading = async {
            loop {
                while let Some((event, rest)) = self.read.split_once("\n\n") {
                    let (event, rest) = (event.to_owned(), rest.to_owned());
                    self.read = rest;
                    let line =
                        |key: &str| event.lines().find_map(|line| line.strip_prefix(key).map(str::to_owned));
                    if line("event: ").as_deref() == Some(name) {
                        return serde_json::from_str(&line("data: ").unwrap()).unwrap();
                    }
                }
                let frame = self.body.frame().await.expect("the stream goes on").unwrap();
                let data: Bytes = frame.into_data().unwrap();
                self.read += std::str::from_utf8(&data).unwrap();
            }
        };
        within(&format!("the event {name}"), reading).await
    }

    /// Waits for its end.
    pub async fn ended(mut self) {
        let reading = async { while let Some(Ok(_)) = self.body.frame().await {} };
        within("the end of the stream", reading).await;
    }
}
