//! The OTLP receiver, over gRPC and over HTTP/protobuf: <https://opentelemetry.io/docs/specs/otlp/>.
//!
//! gRPC is one unary call here: a message with five bytes before it, posted by HTTP/2, and a status in the
//! trailers (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

mod answer;
mod encode;
mod protobuf;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};

use self::encode::Encoder;
use super::client::{Client, Version, gzip};
use super::{Answer, Receiver};
use crate::telemetry::settings::{Otlp, OtlpProtocol};
use crate::telemetry::span::Span;

/// A receiver that speaks OTLP.
#[derive(Debug)]
pub struct OtlpReceiver {
    encoder: Encoder,
    protocol: OtlpProtocol,
    gzip: bool,
    client: Client,
}

impl OtlpReceiver {
    /// A receiver by these settings for spans of this resource. It connects when there is something to send.
    pub fn new(settings: &Otlp, resource: &BTreeMap<String, String>) -> Result<Self, http::Error> {
        let mut fields = HeaderMap::new();
        let (version, path) = match settings.protocol {
            OtlpProtocol::Grpc => {
                fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                fields.insert(TE, HeaderValue::from_static("trailers"));
                (Version::Http2, Some(PathAndQuery::from_static(GRPC_PATH)))
            }
            OtlpProtocol::Http => {
                fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
                (Version::Http1, None)
            }
        };
        if settings.receiver.gzip {
            let encoding = match settings.protocol {
                OtlpProtocol::Grpc => HeaderName::from_static("grpc-encoding"),
                OtlpProtocol::Http => CONTENT_ENCODING,
            };
            fields.insert(encoding, HeaderValue::from_static("gzip"));
        }
        Ok(Self {
            encoder: Encoder::new(resource),
            protocol: settings.protocol,
            gzip: settings.receiver.gzip,
            client: Client::new(&settings.receiver, version, path, fields)?,
        })
    }

    /// An `ExportTraceServiceRequest` that somebody has encoded, as it is sent.
    pub fn pack(&self, message: Vec<u8>) -> Bytes {
        let message = if self.gzip { gzip(&message) } else { message };
        match self.protocol {
            OtlpProtocol::Http => message.into(),
            OtlpProtocol::Grpc => {
                let length = u32::try_from(message.len()).expect("a batch has less than 4 GiB");
                let prefix = [&[u8::from(self.gzip)][..], &length.to_be_bytes()].concat();
                [prefix, message].concat().into()
            }
        }
    }

    async fn post(&mut self, batch: Bytes) -> Answer {
        match self.client.post(batch).await {
            Err(why) => Answer::Later { wait: None, why },
            Ok(reply) => match self.protocol {
                OtlpProtocol::Grpc => answer::grpc(&reply),
                OtlpProtocol::Http => answer::http(&reply),
            },
        }
    }
}

impl Receiver for OtlpReceiver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn encode(&self, spans: &mut dyn Iterator<Item = Span<'_>>) -> Bytes {
        self.pack(self.encoder.encode(spans))
    }

    fn send(&mut self, batch: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(self.post(batch))
    }
}

/// The word for this receiver in labels and logs.
pub const NAME: &str = "otlp";

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
