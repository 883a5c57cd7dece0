//! The outermost stage: an operation is opened with the request's head and ends with the answer's last byte.
//!
//! The operation is owned by the exchange while there is no answer, and by the answer's body from then on.
//! Whatever drops one of the two ends the operation; who does so on purpose has stated the reason before.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version, request};
use http_body::{Body as _, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::body::end::is_last;
use super::body::{Body, BodyError};
use super::context;
use super::exchange::Response;
use super::forward::X_REQUEST_ID;
use super::headers::{Fields, Peer};
use super::in_flight::Places;
use super::streams::{PIECE, Taking};
use super::upgrade::Agreed;
use crate::failure::{Failure, Reason};
use crate::listener::Settings;
use crate::listener::activity::Activity;
use crate::telemetry::attribute::{Configured, Personal};
use crate::telemetry::context::{TraceId, traceparent};
use crate::telemetry::exchange::{Exchange, Method, Version as ProtocolVersion};
use crate::telemetry::{Handle, Operation, Recorder, Start};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The longest `X-Request-Id` that is continued, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// Opens the operation of a request whose head has just been read.
pub(super) fn open(
    recorder: &Arc<Recorder>,
    settings: &Settings,
    peer: &Peer,
    client: std::net::IpAddr,
    head: &mut request::Parts,
    fields: Fields,
) -> Operation {
    let inbound = &settings.context;
    let operation = recorder.start(Start {
        listener: Arc::clone(&settings.name),
        port: settings.address.tcp().map(|address| address.port()),
        context: context::extract(&mut head.headers, fields, inbound, peer.trusted, recorder.force()),
        exchange: Exchange {
            method: Method::new(head.method.as_str()),
            scheme: peer.scheme,
            version: version(head.version),
        },
        request_id: Personal::new(request_id(&head.headers, fields)),
        client: Personal::new(client),
        client_role: peer.role().cloned().map(Configured::new),
        started: Instant::now().into_std(),
    });
    let listed = |name: &str| head.headers.get_all(name).iter().map(HeaderValue::as_bytes);
    if let Some(disclosed) = recorder.privacy().disclose(head.uri.query(), listed) {
        operation.handle().disclose(disclosed);
    }
    operation
}

fn version(version: Version) -> ProtocolVersion {
    match version {
        Version::HTTP_2 => ProtocolVersion::Http2,
        Version::HTTP_10 | Version::HTTP_09 => ProtocolVersion::Http10,
        _ => ProtocolVersion::Http11,
    }
}

/// `X-Request-Id`: the client's, if it is one plain word, else a new one. It is a copy: the record waits for its
/// sinks, and a field as it came holds on to all that was read with it.
fn request_id(headers: &HeaderMap, fields: Fields) -> HeaderValue {
    if !fields.have(Fields::X_REQUEST_ID) {
        return new_request_id();
    }
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(byte);
    let sent = headers
        .get(X_REQUEST_ID)
        .filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(plain));
    let copy = |id: &HeaderValue| HeaderValue::from_bytes(id.as_bytes()).expect("a value of a field");
    sent.map_or_else(new_request_id, copy)
}

/// A random request id.
pub(super) fn new_request_id() -> HeaderValue {
    HeaderValue::from_bytes(&TraceId::random().digits()).expect("hexadecimal digits")
}

/// What every answer tells the client: the trace (`Server-Timing`, the W3C Trace Context response draft) and
/// the request's id.
pub(super) fn tell_trace(headers: &mut HeaderMap, handle: &Handle) {
    let context = &handle.context;
    let mut value = *b"trace;desc=\"00-00000000000000000000000000000000-0000000000000000-00\"";
    let flags = context.flags(handle.decide().sampled());
    value[12..67].copy_from_slice(&traceparent::write(context.trace_id, context.span_id, flags));
    let value = HeaderValue::from_bytes(&value).expect("hexadecimal digits, dashes and a name");
    headers.append(SERVER_TIMING, value);
    headers.insert(X_REQUEST_ID, handle.request_id.for_exchange().clone());
}

/// "This connection ends with this answer" (HTTP/1.1 only).
pub(super) fn tell_close(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

pin_project! {
    /// An exchange that has no answer yet. Dropped before its end, it states why before anything below drops.
    pub(super) struct Exchanging<F> {
        #[pin]
        work: F,
        operation: Option<Operation>,
        activity: Option<Open>,
    }

    impl<F> PinnedDrop for Exchanging<F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let (Some(operation), Some(activity)) = (this.operation, this.activity) {
                activity.state_cut(operation.handle());
            }
        }
    }
}

impl<F: Future<Output = Response>> Exchanging<F> {
    pub(super) fn new(operation: Operation, activity: Open, work: F) -> Self {
        Self { work, operation: Some(operation), activity: Some(activity) }
    }
}

impl<F: Future<Output = Response>> Future for Exchanging<F> {
    type Output = http::Response<RecordedBody>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.work.poll(cx));
        let operation = this.operation.take().expect("a future is not polled after its end");
        let activity = this.activity.take().expect("taken together with the operation");
        let handle = operation.handle();
        tell_trace(answer.headers_mut(), handle);
        let status = answer.status();
        if handle.failure().is_none_or(|(reason, _)| reason != Reason::ClientGone) {
            handle.head(status.as_u16());
        }
        if activity.taking.is_some() {
            activity.activity.advance(1);
        }
        let bodyless = handle.exchange.method == Method::Head
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let is_stream = status == StatusCode::SWITCHING_PROTOCOLS || is_stream(answer.headers());
        let mut answer = answer.map(|body| RecordedBody::new(body, operation, activity));
        let recorded = answer.body_mut().0.as_mut().expect("it has just been made of one");
        if bodyless {
            // hyper will not ask for it
            recorded.end();
        } else if is_stream && !recorded.complete {
            recorded.handle().stream();
        }
        Poll::Ready(answer)
    }
}

/// Whether the answer's type says that it has no end. (gRPC says the same of one message and of many: its
/// streams show when they go on for long.)
fn is_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// One open exchange of a connection.
#[derive(Debug)]
pub(super) struct Open {
    activity: Arc<Activity>,
    /// With HTTP/2, how far the client is with taking the answer.
    taking: Option<Arc<Taking>>,
    /// What it has taken of the bounds on requests in flight.
    pub(super) places: Places,
}

impl Open {
    pub(super) fn new(activity: &Arc<Activity>, taking: Option<Arc<Taking>>) -> Self {
        activity.begin();
        Self { activity: Arc::clone(activity), taking, places: Places::default() }
    }

    /// Whoever cuts the connection, or its stream, on purpose has said why.
    fn state_cut(&self, handle: &Handle) {
        if let Some(failure) = self.activity.cut_reason() {
            handle.fail(&failure);
        } else if let Some(detail) = self.taking.as_ref().and_then(|taking| taking.given_up()) {
            handle.fail(&Failure::new(Reason::ClientTimeout).detail(detail));
        }
    }

    /// The connection that it is on.
    pub(super) fn connection(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// It must be over by then, even if the client does not take the answer.
    fn end_by(&self, ends: Instant) {
        match &self.taking {
            Some(taking) => taking.end_by(ends),
            None => self.activity.end_by(ends.into_std()),
        }
    }

    /// The answer goes on by so many bytes.
    fn handed(&self, bytes: usize) {
        if let Some(taking) = &self.taking {
            taking.handed();
            self.activity.advance(1 + bytes as u64 / 2048);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.activity.end();
    }
}

/// The answer's body as the connection takes it. Its end is the operation's end.
#[derive(Debug)]
pub struct RecordedBody(Option<Recorded>);

/// What is recorded: dropped before its end, it states why before anything below drops.
#[derive(Debug)]
pub(super) struct Recorded {
    // the fields drop in this order: attempts end before their operation
    body: Body,
    operation: Operation,
    activity: Open,
    complete: bool,
    /// What has come of the body and is still to be handed out.
    rest: Bytes,
    /// What the body broke with.
    broken: Option<BodyError>,
}

impl RecordedBody {
    fn new(body: Body, operation: Operation, activity: Open) -> Self {
        if let Some(ends) = body.ends() {
            activity.end_by(ends);
        }
        let mut recorded =
            Recorded { body, operation, activity, complete: false, rest: Bytes::new(), broken: None };
        if recorded.is_end_stream() {
            recorded.end();
        }
        Self(Some(recorded))
    }

    /// What a tunnel takes over, if this stands for one: the connection gets nothing of it.
    pub(super) fn take_tunnel(&mut self) -> Option<Recorded> {
        self.0.take_if(|recorded| matches!(recorded.body, Body::Tunnel(_)))
    }
}

impl Recorded {
    /// The last byte has been handed to the connection.
    pub(super) fn end(&mut self) {
        self.complete = true;
        self.operation.handle().complete();
    }

    /// Where facts are stated.
    pub(super) fn handle(&self) -> &Handle {
        self.operation.handle()
    }

    /// The upstream's side of a tunnel.
    pub(super) fn agreed(&mut self) -> Option<&mut Agreed> {
        match &mut self.body {
            Body::Tunnel(agreed) => Some(agreed),
            _ => None,
        }
    }

    /// Whoever cuts the connection on purpose has said why.
    pub(super) fn state_cut(&self) {
        self.activity.state_cut(self.operation.handle());
    }

    /// As much of this frame as is handed out at once.
    fn piece(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if self.activity.taking.is_none() || frame.data_ref().is_none_or(|data| data.len() <= PIECE) {
            return frame;
        }
        frame.map_data(|mut data| {
            self.rest = data.split_off(PIECE);
            data
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(taking) = &self.activity.taking {
            taking.asks();
        }
        if let Some(error) = self.broken {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = if self.rest.is_empty() {
            ready!(Pin::new(&mut self.body).poll_frame(cx))
        } else {
            Some(Ok(Frame::data(std::mem::take(&mut self.rest))))
        };
        let frame = frame.map(|frame| frame.map(|frame| self.piece(frame)));
        match &frame {
            None => self.end(),
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                if bytes > 0 {
                    self.operation.handle().response_bytes(bytes);
                }
                self.activity.handed(bytes);
                if self.rest.is_empty() && is_last(frame, &self.body) {
                    self.end();
                }
            }
            Some(Err(error)) => {
                self.operation.handle().fail(&(*error).into());
                // it breaks at the next poll: what came before is written meanwhile, the head above all, which hyper
                // would otherwise drop unwritten
                self.broken = Some(*error);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(frame)
    }
}

impl http_body::Body for RecordedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |recorded| recorded.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Recorded::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(SizeHint::default, |recorded| recorded.body.size_hint())
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if !self.complete {
            self.state_cut();
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{Fields, X_REQUEST_ID, request_id};

    #[test]
    fn a_request_id_is_continued_only_if_it_is_one_plain_word() {
        for (sent, kept) in [
            ("req-42", true),
            ("9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d", true),
            ("", false),
            ("two words", false),
            ("<script>", false),
            (&"a".repeat(128), true),
            (&"a".repeat(129), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", sent.parse().expect("a header value"));
            assert_eq!(request_id(&headers, Fields::of(&headers)) == sent, kept, "{sent}");
        }
        let none = HeaderMap::new();
        assert_eq!(request_id(&none, Fields::of(&none)).len(), 32);
    }

    #[test]
    fn a_request_id_that_is_continued_does_not_hold_on_to_the_whole_head() {
        let headers = HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_static("req-42"))]);
        let id = request_id(&headers, Fields::of(&headers));
        assert_eq!(id, "req-42");
        assert_ne!(id.as_bytes().as_ptr(), headers[X_REQUEST_ID].as_bytes().as_ptr());
    }
}
