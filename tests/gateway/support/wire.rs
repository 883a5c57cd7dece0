//! HTTP/1.1 as bytes: enough of a reader to see exactly what was sent, in either direction.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Header or trailer fields, in the order and spelling in which they came.
#[derive(Debug, Clone, Default)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The first value of this field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every value of this field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.0.iter().filter(named).map(|(_, value)| value.as_str()).collect()
    }

    /// Whether the field is there.
    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }
}

impl From<&http::HeaderMap> for Fields {
    fn from(headers: &http::HeaderMap) -> Self {
        let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.as_str().to_owned(), latin1(value.as_bytes()))
        };
        Self(headers.iter().map(field).collect())
    }
}

/// The start line and the fields of a message.
#[derive(Debug, Clone)]
pub struct Head {
    /// The request line or status line.
    pub start: String,
    /// The header fields.
    pub fields: Fields,
}

impl Head {
    /// How this request's body ends (RFC 9112 section 6.3).
    pub fn request_framing(&self) -> Framing {
        self.stated_framing().unwrap_or(Framing::Length(0))
    }

    /// The status in this status line.
    pub fn status(&self) -> u16 {
        let word = self.start.split(' ').nth(1).and_then(|word| word.parse().ok());
        word.unwrap_or_else(|| panic!("no status line: {:?}", self.start))
    }

    /// How this answer's body ends, if it answers a method that has one.
    pub fn answer_framing(&self) -> Framing {
        match self.status() {
            100..200 | 204 | 304 => Framing::Length(0),
            _ => self.stated_framing().unwrap_or(Framing::UntilClose),
        }
    }

    fn stated_framing(&self) -> Option<Framing> {
        if self.fields.get("transfer-encoding").is_some_and(|value| value.ends_with("chunked")) {
            return Some(Framing::Chunked(0));
        }
        Some(Framing::Length(self.fields.get("content-length")?.parse().ok()?))
    }
}

/// How a body ends, and what is still to come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many more bytes.
    Length(u64),
    /// With the last chunk; so many bytes of the current one are still to come.
    Chunked(u64),
    /// With the connection.
    UntilClose,
}

/// A piece of a body.
pub enum Piece {
    /// Some bytes.
    Data(Bytes),
    /// The end, with the trailers of a chunked body.
    End(Fields),
}

/// A stream that is read as HTTP/1.1 messages.
pub struct Wire<S> {
    /// The stream itself.
    pub stream: S,
    buffer: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Reads messages from this stream.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// Writes these bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next head; `None` if the peer closed before it began.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(broken("closed within a head")) };
            }
        };
        let text = latin1(&self.buffer[..end]);
        self.buffer.advance(end + 4);
        let (start, fields) = text.split_once("\r\n").unwrap_or((&text, ""));
        Ok(Some(Head { start: start.to_owned(), fields: fields_of(fields) }))
    }

    /// The next so many bytes.
    pub async fn bytes(&mut self, count: usize) -> io::Result<Bytes> {
        while self.buffer.len() < count {
            if self.fill().await? == 0 {
                return Err(broken("closed before they came"));
            }
        }
        Ok(self.buffer.split_to(count).freeze())
    }

    /// The next piece of a body that ends so.
    pub async fn piece(&mut self, framing: &mut Framing) -> io::Result<Piece> {
        let mut endless = u64::MAX;
        let left = match framing {
            Framing::Length(0) => return Ok(Piece::End(Fields::default())),
            Framing::Chunked(left @ 0) => {
                let line = self.line().await?;
                let size = line.split(';').next().unwrap_or_default();
                *left = u64::from_str_radix(size.trim(), 16).map_err(|_| broken("no chunk size"))?;
                if *left == 0 {
                    return Ok(Piece::End(self.trailers().await?));
                }
                left
            }
            Framing::Length(left) | Framing::Chunked(left) => left,
            Framing::UntilClose => &mut endless,
        };
        if self.buffer.is_empty() && self.fill().await? == 0 {
            return match framing {
                Framing::UntilClose => Ok(Piece::End(Fields::default())),
                _ => Err(broken("closed within a body")),
            };
        }
        let length = usize::try_from(*left).unwrap_or(usize::MAX).min(self.buffer.len());
        let data = self.buffer.split_to(length).freeze();
        *left -= length as u64;
        if let Framing::Chunked(0) = framing {
            self.line().await?;
        }
        Ok(Piece::Data(data))
    }

    /// A whole body that ends so, and its trailers.
    pub async fn body(&mut self, mut framing: Framing) -> io::Result<(Bytes, Fields)> {
        let mut body = BytesMut::new();
        loop {
            match self.piece(&mut framing).await? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::End(trailers) => return Ok((body.freeze(), trailers)),
            }
        }
    }

    /// Comes back when the peer has closed or reset; what it still sends is dropped.
    pub async fn closed(&mut self) -> io::Result<()> {
        while self.fill().await? > 0 {
            self.buffer.clear();
        }
        Ok(())
    }

    /// Everything up to the peer's close.
    pub async fn rest(&mut self) -> io::Result<Bytes> {
        while self.fill().await? > 0 {}
        Ok(self.buffer.split().freeze())
    }

    async fn trailers(&mut self) -> io::Result<Fields> {
        let mut text = String::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(fields_of(&text));
            }
            text = text + &line + "\r\n";
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = latin1(&self.buffer[..end]);
                self.buffer.advance(end + 2);
                return Ok(line);
            }
            if self.fill().await? == 0 {
                return Err(broken("closed within a body"));
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }
}

fn fields_of(text: &str) -> Fields {
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    };
    Fields(text.split("\r\n").filter_map(field).collect())
}

fn find(buffer: &[u8], wanted: &[u8]) -> Option<usize> {
    buffer.windows(wanted.len()).position(|window| window == wanted)
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, why)
}
