//! The Zipkin receiver: JSON of its API v2, posted by HTTP.

mod encode;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use self::encode::List;
use super::client::{Client, Version};
use super::{Answer, Receiver};
use crate::net::gzip::gzip;
use crate::telemetry::settings;
use crate::telemetry::span::Span;

/// A receiver that speaks Zipkin v2.
#[derive(Debug)]
pub struct ZipkinReceiver {
    resource: BTreeMap<String, String>,
    list: List,
    gzip: bool,
    client: Client,
}

impl ZipkinReceiver {
    /// A receiver by these settings for spans of this resource. It connects when there is something to send.
    pub fn new(
        settings: &settings::Receiver,
        resource: &BTreeMap<String, String>,
    ) -> Result<Self, http::Error> {
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if settings.gzip {
            fields.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let client = Client::new(settings, Version::Http1, None, fields)?;
        Ok(Self { resource: resource.clone(), list: List::default(), gzip: settings.gzip, client })
    }

    async fn post(&mut self, batch: Bytes) -> Answer {
        match self.client.post(batch).await {
            Err(why) => Answer::Later { wait: None, why },
            Ok(reply) => {
                let said = || String::from_utf8_lossy(&reply.body).trim().to_owned();
                reply.refusal(said).unwrap_or(Answer::Accepted)
            }
        }
    }
}

impl Receiver for ZipkinReceiver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&mut self, spans: &mut dyn Iterator<Item = Span<'_>>) {
        spans.for_each(|span| self.list.add(&self.resource, &span));
    }

    fn batch(&mut self) -> Bytes {
        let json = std::mem::take(&mut self.list).end();
        if self.gzip { gzip(&json).into() } else { json.into() }
    }

    fn send(&mut self, batch: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(self.post(batch))
    }
}

/// The word for this receiver in labels and logs.
pub const NAME: &str = "zipkin";
