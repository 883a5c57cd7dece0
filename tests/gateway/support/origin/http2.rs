//! The origin's HTTP/2: the same answers through hyper.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

use super::{Answer, End, Framed, Part, Seen, State, Stream, header_map};
use crate::support::body;
use crate::support::wire::Fields;

type Pieces = mpsc::Sender<Result<Frame<Bytes>, h2::Error>>;

pub(super) async fn serve<S>(stream: S, state: &Arc<State>) -> io::Result<()>
where
    S: Stream + Send + 'static,
{
    let state = Arc::clone(state);
    let streams = state.streams.load(std::sync::atomic::Ordering::Relaxed);
    let service = service_fn(move |request| respond(Arc::clone(&state), request));
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(streams)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

async fn respond(
    state: Arc<State>,
    request: http::Request<Incoming>,
) -> Result<http::Response<UnsyncBoxBody<Bytes, h2::Error>>, h2::Error> {
    let (parts, mut incoming) = request.into_parts();
    let mut headers = Fields::from(&parts.headers);
    if let Some(authority) = parts.uri.authority() {
        headers.0.push(("host".to_owned(), authority.to_string()));
    }
    let seen = Seen {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        version: format!("{:?}", parts.version),
        headers,
        body: Vec::new(),
        body_bytes: 0,
        trailers: Fields::default(),
        complete: false,
        left: false,
    };
    let request = seen.clone();
    let (index, answer) = state.begin(seen);
    let leaving = Leaving { state: Arc::clone(&state), index, armed: true };
    if !answer.early {
        while let Some(frame) = incoming.frame().await {
            match frame.map_err(|_| h2::Error::from(h2::Reason::CANCEL))?.into_data() {
                Ok(data) => state.data(index, &data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    state.update(index, |seen| seen.trailers = Fields::from(&trailers));
                }
            }
        }
        state.update(index, |seen| seen.complete = true);
    }
    let mut gates = 0;
    while let Some(Part::Gate(gate)) = answer.parts.get(gates) {
        gate.opened().await;
        gates += 1;
    }
    let Some(head) = &answer.head else {
        if answer.end == End::Stall {
            std::future::pending::<()>().await;
        }
        leaving.stayed();
        return Err(h2::Reason::INTERNAL_ERROR.into());
    };
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(head.status).expect("a test's own status");
    *response.headers_mut() = header_map(&head.fields);
    if let Framed::Length(stated) = head.framing {
        let length = stated.unwrap_or(answer.length());
        response.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
    }
    if !answer.has_body(&request) {
        leaving.stayed();
        return Ok(
            response.map(|()| http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync())
        );
    }
    let (pieces, frames) = mpsc::channel(1);
    tokio::spawn(async move {
        if feed(&pieces, &answer, gates).await.is_some() {
            leaving.stayed();
        }
    });
    let frames =
        stream::unfold(frames, |mut frames| async move { frames.recv().await.map(|frame| (frame, frames)) });
    Ok(response.map(|()| StreamBody::new(frames).boxed_unsync()))
}

/// Feeds the answer's body; `None` if the other side left.
async fn feed(pieces: &Pieces, answer: &Answer, from: usize) -> Option<()> {
    for part in &answer.parts[from..] {
        match part {
            Part::Gate(gate) => tokio::select! {
                () = gate.opened() => {}
                () = pieces.closed() => return None,
            },
            Part::Data(data) => pieces.send(Ok(Frame::data(data.clone()))).await.ok()?,
            Part::Zeros(count) => {
                let mut left = *count;
                while let Some(piece) = body::zero_piece(left) {
                    left -= piece.len() as u64;
                    pieces.send(Ok(Frame::data(piece))).await.ok()?;
                }
            }
        }
    }
    match answer.end {
        End::Stall => {
            pieces.closed().await;
            return None;
        }
        End::Reset | End::Close => pieces.send(Err(h2::Reason::INTERNAL_ERROR.into())).await.ok()?,
        End::Complete => {
            let trailers = answer.head.as_ref().map(|head| header_map(&head.trailers)).unwrap_or_default();
            if !trailers.is_empty() {
                pieces.send(Ok(Frame::trailers(trailers))).await.ok()?;
            }
        }
    }
    Some(())
}

/// Notes that the other side left, unless told that it stayed.
struct Leaving {
    state: Arc<State>,
    index: usize,
    armed: bool,
}

impl Leaving {
    fn stayed(mut self) {
        self.armed = false;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if self.armed {
            self.state.update(self.index, |seen| seen.left = true);
        }
    }
}
