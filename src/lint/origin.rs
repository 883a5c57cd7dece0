//! The upstream of every route while telemetry is looked at: it answers as the request wants it to, with
//! canaries wherever an answer has room for one.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The field of a request that says which bytes to answer with, as hexadecimal digits.
pub(super) const ANSWER: &str = "x-lint-answer";

/// Serves on a free loopback port until told to stop.
pub(super) async fn start(tasks: &TaskTracker, stop: CancellationToken) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let served = tasks.clone();
    tasks.spawn(async move {
        while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
            served.spawn(timeout(PATIENCE, answer(stream)));
        }
    });
    Ok(address)
}

/// Reads one request whole, answers, and closes.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut read = Vec::new();
    let head = loop {
        if let Some(end) = read.windows(4).position(|end| end == b"\r\n\r\n") {
            break end + 4;
        }
        if read.len() > MAX_HEAD || stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
    let field = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.trim().to_owned())
    };
    let body = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0_usize);
    let chunked = field("transfer-encoding").is_some();
    while read.len() < head + body || chunked && !ends(&read[head..]) {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
    let bytes = field(ANSWER).map(|digits| from_digits(&digits)).unwrap_or_default();
    stream.write_all(&bytes).await?;
    if field("upgrade").is_some() {
        // until the client has said what it had to say
        let _ = timeout(TUNNEL, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
    }
    stream.shutdown().await
}

/// Whether a body in chunks is whole: its last chunk is there, and the empty line behind the trailers.
fn ends(body: &[u8]) -> bool {
    let last = body.windows(3).rposition(|end| end == b"0\r\n");
    body.ends_with(b"\r\n\r\n") && last.is_some()
}

/// Bytes as a field's value may hold them.
pub(super) fn to_digits(bytes: &[u8]) -> String {
    // letters a to p, so that a leak of this very field is not taken for one of the answer's
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|half| char::from(b'a' + half)).collect()
}

fn from_digits(digits: &str) -> Vec<u8> {
    digits.as_bytes().chunks_exact(2).map(|pair| (pair[0] - b'a') << 4 | (pair[1] - b'a') & 15).collect()
}

/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a tunnel is open.
const TUNNEL: Duration = Duration::from_millis(500);
/// The most bytes of a head.
const MAX_HEAD: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::{from_digits, to_digits};

    #[test]
    fn an_answer_survives_its_way_through_a_field() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_digits(&to_digits(&bytes)), bytes);
    }
}
