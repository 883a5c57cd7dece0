//! An HTTP/1.1 and HTTP/2 server that answers as a test tells it to and keeps what it was asked.
//!
//! HTTP/1.1 is written byte by byte, so that it can break in every way an upstream may break.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificates::Identity;
use super::wire::{Fields, Framing, Piece, Wire};
use super::{body, within};

mod http2;

/// A server in process. It ends, and its connections break, when it drops.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Origin {
    /// Answers every request so, without TLS.
    pub async fn start(script: impl Script) -> Self {
        Self::listen("127.0.0.1:0", None, script).await
    }

    /// Answers every request so, with TLS and this certificate.
    pub async fn start_tls(identity: &Identity, script: impl Script) -> Self {
        Self::listen("127.0.0.1:0", Some(identity), script).await
    }

    /// Answers every request so, at most so many at once on one HTTP/2 connection.
    pub async fn start_with_streams(streams: u32, script: impl Script) -> Self {
        let origin = Self::start(script).await;
        origin.state.streams.store(streams, Ordering::Relaxed);
        origin
    }

    /// Answers every request so, at this very address.
    pub async fn start_at(address: SocketAddr, script: impl Script) -> Self {
        Self::listen(&address.to_string(), None, script).await
    }

    async fn listen(address: &str, identity: Option<&Identity>, script: impl Script) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            script: Mutex::new(Arc::new(script)),
            seen: watch::Sender::new(Vec::new()),
            connections: watch::Sender::new(Connections::default()),
            streams: AtomicU32::new(200),
        });
        let tls = identity.map(|identity| TlsAcceptor::from(identity.server()));
        let task = tokio::spawn(accept(listener, tls, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// Answers so from now on.
    pub fn answer(&self, script: impl Script) {
        *self.state.script.lock().unwrap() = Arc::new(script);
    }

    /// The requests so far, in the order in which their heads came.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.borrow().clone()
    }

    /// The requests so far, as soon as they satisfy this.
    pub async fn seen_when(&self, what: &str, satisfied: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let mut seen = self.state.seen.subscribe();
        within(what, seen.wait_for(|seen| satisfied(seen))).await.unwrap().clone()
    }

    /// The only request, once it has been read whole.
    pub async fn only(&self) -> Seen {
        let mut seen = self.seen_when("a request", |seen| seen.iter().any(|seen| seen.complete)).await;
        assert_eq!(seen.len(), 1, "more than one request came");
        seen.remove(0)
    }

    /// Connections accepted so far and open now.
    pub fn connections(&self) -> Connections {
        *self.state.connections.borrow()
    }

    /// Comes back when this many connections are open.
    pub async fn open_connections(&self, wanted: usize) {
        let mut connections = self.state.connections.subscribe();
        within("connections", connections.wait_for(|connections| connections.open == wanted)).await.unwrap();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request as the origin saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The request target, as sent.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// The header fields; HTTP/2's `:authority` stands here as `host`.
    pub headers: Fields,
    /// The beginning of the body.
    pub body: Vec<u8>,
    /// How long the body was in all.
    pub body_bytes: u64,
    /// The trailer fields.
    pub trailers: Fields,
    /// The whole request was read.
    pub complete: bool,
    /// The other side went away before it had the whole answer.
    pub left: bool,
}

impl Seen {
    /// The first value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The trace id, span id and flags of the only `traceparent`.
    pub fn traceparent(&self) -> (String, String, String) {
        let values = self.headers.all("traceparent");
        let [value] = values[..] else { panic!("one traceparent, not {values:?}") };
        let parts: Vec<&str> = value.split('-').collect();
        let ["00", trace_id, span_id, flags] = parts[..] else { panic!("not version 00: {value}") };
        (trace_id.to_owned(), span_id.to_owned(), flags.to_owned())
    }
}

/// Connections of an origin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connections {
    /// Accepted so far.
    pub accepted: usize,
    /// Open now.
    pub open: usize,
}

/// What an origin answers.
pub trait Script: Send + Sync + 'static {
    /// The answer to this request, of which the head has been read.
    fn answer(&self, request: &Seen) -> Answer;
}

impl Script for Answer {
    fn answer(&self, _: &Seen) -> Answer {
        self.clone()
    }
}

impl<F: Fn(&Seen) -> Answer + Send + Sync + 'static> Script for F {
    fn answer(&self, request: &Seen) -> Answer {
        self(request)
    }
}

/// An answer, or what takes its place.
#[derive(Debug, Clone)]
pub struct Answer {
    before: Vec<Bytes>,
    head: Option<Head>,
    early: bool,
    parts: Vec<Part>,
    end: End,
}

#[derive(Debug, Clone)]
struct Head {
    status: u16,
    fields: Vec<(String, String)>,
    framing: Framed,
    trailers: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framed {
    /// By the length of the parts, or a false one.
    Length(Option<u64>),
    Chunked,
    UntilClose,
}

#[derive(Debug, Clone)]
enum Part {
    Data(Bytes),
    Zeros(u64),
    Gate(Gate),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Close,
    Reset,
    Stall,
}

impl Answer {
    /// 200 and a few bytes.
    pub fn ok() -> Self {
        Self::status(200).data("hello")
    }

    /// This status, no body yet.
    pub fn status(status: u16) -> Self {
        let head = Head { status, fields: Vec::new(), framing: Framed::Length(None), trailers: Vec::new() };
        Self { before: Vec::new(), head: Some(head), early: false, parts: Vec::new(), end: End::Complete }
    }

    /// These very bytes, and then a close. HTTP/1.1 only.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { head: None, parts: vec![Part::Data(bytes.into())], end: End::Close, ..Self::ok() }
    }

    /// Nothing, ever.
    pub fn stall() -> Self {
        Self { head: None, parts: Vec::new(), end: End::Stall, ..Self::ok() }
    }

    /// A reset in place of a head: RST, or `RST_STREAM` in HTTP/2.
    pub fn reset() -> Self {
        Self { head: None, parts: Vec::new(), end: End::Reset, early: true, ..Self::ok() }
    }

    /// A close in place of a head.
    pub fn close() -> Self {
        Self { head: None, parts: Vec::new(), end: End::Close, ..Self::ok() }
    }

    /// With this header field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head_mut().fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With these bytes in the body.
    pub fn data(mut self, bytes: impl Into<Bytes>) -> Self {
        self.parts.push(Part::Data(bytes.into()));
        self
    }

    /// With so many zeros in the body.
    pub fn zeros(mut self, count: u64) -> Self {
        self.parts.push(Part::Zeros(count));
        self
    }

    /// What follows waits for this gate; the head too, if nothing stands before.
    pub fn gate(mut self, gate: &Gate) -> Self {
        self.parts.push(Part::Gate(gate.clone()));
        self
    }

    /// In chunks.
    pub fn chunked(mut self) -> Self {
        self.head_mut().framing = Framed::Chunked;
        self
    }

    /// With no length: the close ends the body.
    pub fn until_close(mut self) -> Self {
        self.head_mut().framing = Framed::UntilClose;
        self.end = End::Close;
        self
    }

    /// In chunks, with this trailer field, announced.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.head_mut().trailers.push((name.to_owned(), value.to_owned()));
        self.header("trailer", name).chunked()
    }

    /// Says it is this long, whatever it is.
    pub fn announced(mut self, length: u64) -> Self {
        self.head_mut().framing = Framed::Length(Some(length));
        self
    }

    /// After an informational answer. HTTP/1.1 only.
    pub fn after(mut self, informational: &str) -> Self {
        self.before.push(Bytes::from(format!("HTTP/1.1 {informational}\r\n\r\n")));
        self
    }

    /// Without waiting for the request's body.
    pub fn early(mut self) -> Self {
        self.early = true;
        self
    }

    /// And then closes the connection.
    pub fn then_close(mut self) -> Self {
        self.end = End::Close;
        self
    }

    /// And then resets the connection, or the stream.
    pub fn then_reset(mut self) -> Self {
        self.end = End::Reset;
        self
    }

    /// And then nothing more.
    pub fn then_stall(mut self) -> Self {
        self.end = End::Stall;
        self
    }

    fn head_mut(&mut self) -> &mut Head {
        self.head.as_mut().expect("an answer without a head has no more to say")
    }

    fn length(&self) -> u64 {
        let length = |part: &Part| match part {
            Part::Data(data) => data.len() as u64,
            Part::Zeros(count) => *count,
            Part::Gate(_) => 0,
        };
        self.parts.iter().map(length).sum()
    }

    fn has_body(&self, request: &Seen) -> bool {
        let bodiless = |head: &Head| matches!(head.status, 204 | 304);
        self.head.as_ref().is_none_or(|head| request.method != "HEAD" && !bodiless(head))
    }
}

/// Holds an answer back until it is opened; once open it stays so.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everything through.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Comes back once it is open.
    pub async fn opened(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

struct State {
    script: Mutex<Arc<dyn Script>>,
    seen: watch::Sender<Vec<Seen>>,
    connections: watch::Sender<Connections>,
    streams: AtomicU32,
}

/// How much of a request's body is kept.
const KEPT: usize = 64 * 1024;

impl State {
    fn begin(&self, request: Seen) -> (usize, Answer) {
        let script = Arc::clone(&self.script.lock().unwrap());
        let answer = script.answer(&request);
        let mut index = 0;
        self.seen.send_modify(|seen| {
            index = seen.len();
            seen.push(request);
        });
        (index, answer)
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Seen)) {
        self.seen.send_modify(|seen| change(&mut seen[index]));
    }

    fn data(&self, index: usize, data: &[u8]) {
        self.update(index, |seen| {
            seen.body_bytes += data.len() as u64;
            let room = KEPT.saturating_sub(seen.body.len()).min(data.len());
            seen.body.extend_from_slice(&data[..room]);
        });
    }

    fn end(&self, index: usize, trailers: Fields) {
        self.update(index, |seen| {
            seen.trailers = trailers;
            seen.complete = true;
        });
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        state.connections.send_modify(|connections| {
            connections.accepted += 1;
            connections.open += 1;
        });
        let (state, tls) = (Arc::clone(&state), tls.clone());
        connections.spawn(async move {
            // a connection that breaks is what many a test is about
            let _ = serve(stream, tls, &state).await;
            state.connections.send_modify(|connections| connections.open -= 1);
        });
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, state: &Arc<State>) -> io::Result<()> {
    let Some(tls) = tls else {
        let http2 = speaks_http2(&stream).await?;
        return if http2 { http2::serve(stream, state).await } else { serve_http1(stream, state).await };
    };
    let stream = tls.accept(stream).await?;
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => http2::serve(stream, state).await,
        _ => serve_http1(stream, state).await,
    }
}

/// Whether the connection begins like HTTP/2's preface.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; 3];
    loop {
        match stream.peek(&mut start).await? {
            3 => return Ok(start == *b"PRI"),
            0 => return Ok(false),
            _ => stream.readable().await?,
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Stream for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

async fn serve_http1<S: Stream>(stream: S, state: &State) -> io::Result<()> {
    let mut wire = Wire::new(stream);
    while let Some(head) = wire.head().await? {
        let mut words = head.start.split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let request = Seen {
            method: word(),
            target: word(),
            version: word(),
            headers: head.fields.clone(),
            body: Vec::new(),
            body_bytes: 0,
            trailers: Fields::default(),
            complete: false,
            left: false,
        };
        let with_body = request.clone();
        let (index, answer) = state.begin(request);
        match exchange(&mut wire, head.request_framing(), &with_body, index, &answer, state).await {
            Ok(End::Complete) => {}
            Ok(End::Reset) => return wire.stream.tcp().set_zero_linger(),
            Ok(End::Close | End::Stall) => return Ok(()),
            Err(error) => {
                state.update(index, |seen| seen.left = true);
                return Err(error);
            }
        }
    }
    Ok(())
}

async fn exchange<S: Stream>(
    wire: &mut Wire<S>,
    framing: Framing,
    request: &Seen,
    index: usize,
    answer: &Answer,
    state: &State,
) -> io::Result<End> {
    for bytes in &answer.before {
        wire.write(bytes).await?;
    }
    if !answer.early {
        read_body(wire, framing, index, state).await?;
    }
    let mut parts = answer.parts.iter().peekable();
    while let Some(Part::Gate(gate)) = parts.peek() {
        wait(wire, gate).await?;
        parts.next();
    }
    let chunked = answer.head.as_ref().is_some_and(|head| head.framing == Framed::Chunked);
    if let Some(head) = &answer.head {
        wire.write(head_bytes(head, answer.length()).as_bytes()).await?;
    }
    if answer.has_body(request) {
        for part in parts {
            match part {
                Part::Gate(gate) => wait(wire, gate).await?,
                Part::Data(data) => write(wire, chunked, data).await?,
                Part::Zeros(count) => {
                    let mut left = *count;
                    while let Some(piece) = body::zero_piece(left) {
                        left -= piece.len() as u64;
                        write(wire, chunked, &piece).await?;
                    }
                }
            }
        }
        if let (true, End::Complete, Some(head)) = (chunked, answer.end, &answer.head) {
            wire.write(format!("0\r\n{}\r\n", lines(&head.trailers)).as_bytes()).await?;
        }
    }
    if answer.end == End::Stall {
        wire.closed().await?;
        state.update(index, |seen| seen.left = true);
    }
    if answer.early && answer.end == End::Complete {
        read_body(wire, framing, index, state).await?;
    }
    Ok(answer.end)
}

async fn read_body<S: Stream>(
    wire: &mut Wire<S>,
    mut framing: Framing,
    index: usize,
    state: &State,
) -> io::Result<()> {
    loop {
        match wire.piece(&mut framing).await? {
            Piece::Data(data) => state.data(index, &data),
            Piece::End(trailers) => {
                state.end(index, trailers);
                return Ok(());
            }
        }
    }
}

async fn write<S: Stream>(wire: &mut Wire<S>, chunked: bool, data: &[u8]) -> io::Result<()> {
    if !chunked {
        return wire.write(data).await;
    }
    let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
    chunk.extend_from_slice(data);
    chunk.extend_from_slice(b"\r\n");
    wire.write(&chunk).await
}

/// Waits for the gate, or fails when the other side leaves.
async fn wait<S: Stream>(wire: &mut Wire<S>, gate: &Gate) -> io::Result<()> {
    tokio::select! {
        () = gate.opened() => Ok(()),
        closed = wire.closed() => closed.and(Err(io::ErrorKind::ConnectionAborted.into())),
    }
}

fn head_bytes(head: &Head, length: u64) -> String {
    let framing = match head.framing {
        Framed::Length(_) if matches!(head.status, 204 | 304) => String::new(),
        Framed::Length(stated) => format!("content-length: {}\r\n", stated.unwrap_or(length)),
        Framed::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
        Framed::UntilClose => "connection: close\r\n".to_owned(),
    };
    format!("HTTP/1.1 {} Scripted\r\n{}{framing}\r\n", head.status, lines(&head.fields))
}

fn lines(fields: &[(String, String)]) -> String {
    fields.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect()
}

fn header_map(fields: &[(String, String)]) -> HeaderMap {
    let field = |(name, value): &(String, String)| {
        let name: http::HeaderName = name.parse().expect("a test's own field name");
        (name, value.parse().expect("a test's own field value"))
    };
    fields.iter().map(field).collect()
}
