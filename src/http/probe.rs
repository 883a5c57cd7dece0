//! Health checks over HTTP and gRPC, each over a connection of its own: what is asked, and what counts as health.
//!
//! A pooled connection would tell less: that the endpoint takes new ones is a part of its health.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use crate::telemetry::metrics::endpoints::CheckOutcome;
use crate::upstream::health::{self, Check, Probing};
use crate::upstream::{self, Endpoint, Probe, Protocol};

/// What a health check says it is.
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("tracegate/", env!("CARGO_PKG_VERSION"), " (health check)"));

/// The most bytes of an answer's body that are read.
const MAX_BODY: usize = 64 << 10;

/// What asks the endpoints of this upstream.
pub fn new(health: &health::Settings, upstream: &upstream::Settings) -> Arc<dyn Probe> {
    let http2 = upstream.protocol == Protocol::Http2;
    let header_bytes = upstream.header_bytes;
    Arc::new(Asking { check: health.check.clone(), http2, header_bytes })
}

#[derive(Debug)]
struct Asking {
    check: Check,
    http2: bool,
    header_bytes: usize,
}

impl Probe for Asking {
    fn probe<'a>(&'a self, endpoint: &'a Endpoint) -> Probing<'a> {
        Box::pin(self.ask(endpoint))
    }
}

impl Asking {
    async fn ask(&self, endpoint: &Endpoint) -> CheckOutcome {
        let connected = match endpoint.dial().await {
            Ok(connected) => connected,
            Err(failure) => {
                let endpoint = &*endpoint.labels.endpoint;
                tracing::debug!(endpoint, %failure, "health check found no connection");
                return CheckOutcome::Unreachable;
            }
        };
        let passed = match &self.check {
            Check::Tcp => Ok(true),
            Check::Http { path, host, statuses } => {
                let request = self.request(endpoint, host.as_deref(), Method::GET, path, Bytes::new());
                self.exchange(connected.stream, request).await.map(|answer| {
                    let status = answer.status().as_u16();
                    statuses.iter().any(|&(first, last)| (first..=last).contains(&status))
                })
            }
            Check::Grpc { service, host } => {
                let mut request =
                    self.request(endpoint, host.as_deref(), Method::POST, GRPC_PATH, grpc_request(service));
                let headers = request.headers_mut();
                headers.insert("content-type", HeaderValue::from_static("application/grpc"));
                headers.insert("te", HeaderValue::from_static("trailers"));
                self.exchange(connected.stream, request).await.map(|answer| is_serving(answer.body()))
            }
        };
        match passed {
            Ok(true) => CheckOutcome::Passed,
            Ok(false) => CheckOutcome::WrongAnswer,
            Err(error) => {
                tracing::debug!(endpoint = &*endpoint.labels.endpoint, %error, "health check broke");
                CheckOutcome::WrongAnswer
            }
        }
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        host: Option<&str>,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        request.headers_mut().insert(USER_AGENT, AGENT);
        let host = host.unwrap_or(&endpoint.authority);
        if self.http2 {
            *request.version_mut() = Version::HTTP_2;
            let scheme = if endpoint.address.https { "https" } else { "http" };
            let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(path);
            *request.uri_mut() = uri.build().unwrap_or_default();
        } else {
            *request.uri_mut() = path.parse().unwrap_or_default();
            if let Ok(host) = HeaderValue::from_str(host) {
                request.headers_mut().insert(HOST, host);
            }
        }
        request
    }

    /// One request and its whole answer. The connection ends with it, and so does its task.
    async fn exchange(
        &self,
        stream: crate::net::Stream,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
        let mut driven = JoinSet::new();
        let io = TokioIo::new(stream);
        let answer: Response<Incoming> = if self.http2 {
            let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
                .max_header_list_size(u32::try_from(self.header_bytes).unwrap_or(u32::MAX))
                .handshake(io)
                .await?;
            driven.spawn(connection);
            sender.send_request(request).await?
        } else {
            let (mut sender, connection) =
                http1::Builder::new().max_header_size(self.header_bytes).handshake(io).await?;
            driven.spawn(connection);
            sender.send_request(request).await?
        };
        let (head, body) = answer.into_parts();
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            // nobody wants to know what else there is
            Err(error) if error.is::<LengthLimitError>() => Bytes::new(),
            Err(error) => return Err(error),
        };
        Ok(Response::from_parts(head, body))
    }
}

const GRPC_PATH: &str = "/grpc.health.v1.Health/Check";

/// `HealthCheckRequest { service }` in gRPC's frame: a flag, a length of four bytes, the message.
fn grpc_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        prost::encoding::encode_varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// Whether it is `HealthCheckResponse { status: SERVING }`, in one uncompressed frame. An error has no message.
fn is_serving(body: &[u8]) -> bool {
    let Some((head, message)) = body.split_at_checked(5) else { return false };
    let &[0, ref length @ ..] = head else { return false };
    // the one field that is known, with the value SERVING; others would be of a later version
    length == u32::to_be_bytes(2) && message == [1 << 3, 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_check_is_written_as_the_protocol_has_it() {
        assert_eq!(&*grpc_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(&*grpc_request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(grpc_request(&"a".repeat(300)).len(), 5 + 3 + 300);
    }

    #[test]
    fn only_serving_is_health() {
        for (body, serving) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], true),
            (&[0, 0, 0, 0, 2, 8, 2], false),
            (&[0, 0, 0, 0, 2, 8, 3], false),
            (&[0, 0, 0, 0, 0], false),
            (&[1, 0, 0, 0, 2, 8, 1], false),
            (&[0, 0, 0, 0, 2, 8], false),
            (&[], false),
        ] {
            assert_eq!(is_serving(body), serving, "{body:?}");
        }
    }
}
