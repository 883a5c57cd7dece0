//! The PROXY protocol: what a proxy of connections says of the client, before the client's own bytes.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Which versions of the PROXY protocol are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// The line of text alone.
    V1,
    /// The binary header alone.
    V2,
    /// Either.
    Any,
}

/// The longest header of version 1, its line break included.
const LONGEST_V1: usize = 107;
/// The longest of version 2 that is read: its addresses, and room for what else a proxy has to say.
const LONGEST_V2: usize = 4096;
/// As much as can be read of either without reading beyond it.
const FIRST: usize = v2::PROTOCOL_PREFIX.len();
/// From the signature of version 2 to the length of what follows.
const FIXED_V2: usize = 16;

/// Reads the header and nothing beyond it; the caller bounds the wait. The client's address is there unless the
/// proxy speaks for itself (`LOCAL`, `UNKNOWN`), as its health checks do.
pub async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    versions: Versions,
) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; FIRST];
    stream.read_exact(&mut header).await?;
    if header == v2::PROTOCOL_PREFIX {
        if versions == Versions::V1 {
            return Err(malformed());
        }
        read_v2(stream, header).await
    } else {
        if versions == Versions::V2 || !header.starts_with(b"PROXY ") {
            return Err(malformed());
        }
        read_v1(stream, header).await
    }
}

async fn read_v1(
    stream: &mut (impl AsyncRead + Unpin),
    mut header: Vec<u8>,
) -> io::Result<Option<SocketAddr>> {
    while !header.ends_with(b"\r\n") {
        // the line break has two bytes, of which one may be there
        let step = if header.ends_with(b"\r") { 1 } else { 2 };
        if header.len() + step > LONGEST_V1 {
            return Err(malformed());
        }
        let read = header.len();
        header.resize(read + step, 0);
        stream.read_exact(&mut header[read..]).await?;
        if header[..header.len() - 1].contains(&b'\n') {
            return Err(malformed());
        }
    }
    client_v1(&header)
}

async fn read_v2(
    stream: &mut (impl AsyncRead + Unpin),
    mut header: Vec<u8>,
) -> io::Result<Option<SocketAddr>> {
    header.resize(FIXED_V2, 0);
    stream.read_exact(&mut header[FIRST..]).await?;
    let rest = usize::from(u16::from_be_bytes([header[FIXED_V2 - 2], header[FIXED_V2 - 1]]));
    if FIXED_V2 + rest > LONGEST_V2 {
        return Err(malformed());
    }
    header.resize(FIXED_V2 + rest, 0);
    stream.read_exact(&mut header[FIXED_V2..]).await?;
    client_v2(&header)
}

/// No client: the proxy speaks for itself.
fn client_v1(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    match v1::Header::try_from(header).map_err(|_| malformed())?.addresses {
        v1::Addresses::Unknown => Ok(None),
        v1::Addresses::Tcp4(ip) => Ok(Some(SocketAddr::new(ip.source_address.into(), ip.source_port))),
        v1::Addresses::Tcp6(ip) => Ok(Some(SocketAddr::new(ip.source_address.into(), ip.source_port))),
    }
}

fn client_v2(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    let header = v2::Header::try_from(header).map_err(|_| malformed())?;
    if header.command == v2::Command::Local {
        return Ok(None);
    }
    if header.protocol != v2::Protocol::Stream {
        return Err(malformed());
    }
    match header.addresses {
        v2::Addresses::IPv4(ip) => Ok(Some(SocketAddr::new(ip.source_address.into(), ip.source_port))),
        v2::Addresses::IPv6(ip) => Ok(Some(SocketAddr::new(ip.source_address.into(), ip.source_port))),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => Err(malformed()),
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a header of the PROXY protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    const FOUR: &[u8] = &[192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 1, 187];

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    /// What is read of these bytes, after which one byte must be left.
    async fn read_all(header: &[u8], versions: Versions) -> Result<Option<String>, io::ErrorKind> {
        let bytes = [header, b"G"].concat();
        let mut stream = &bytes[..];
        let client = read(&mut stream, versions).await.map_err(|error| error.kind())?;
        assert_eq!(stream, b"G", "{:?}", String::from_utf8_lossy(header));
        Ok(client.map(|client| client.to_string()))
    }

    #[tokio::test]
    async fn both_versions_tell_the_client_and_nothing_beyond_is_read() {
        let told = |text: &str| Ok(Some(text.to_owned()));
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 16], &[1, 0], &[0, 80]].concat();
        for (header, expected) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n".to_vec(), told("192.0.2.7:8080")),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n".to_vec(), told("1.1.1.1:1")),
            (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(), told("[2001:db8::1]:1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Ok(None)),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), Ok(None)),
            (v2(0x21, 0x11, FOUR), told("192.0.2.7:8080")),
            (v2(0x21, 0x11, &[FOUR, &[4, 0, 3, 1, 2, 3]].concat()), told("192.0.2.7:8080")),
            (v2(0x21, 0x21, &six), told("[2001:db8::1]:256")),
            (v2(0x20, 0x00, &[]), Ok(None)),
            (v2(0x20, 0x11, FOUR), Ok(None)),
        ] {
            let text = String::from_utf8_lossy(&header).into_owned();
            assert_eq!(read_all(&header, Versions::Any).await, expected, "{text:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_and_so_is_one_of_the_other_version() {
        let line = b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n";
        for (header, versions) in [
            (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], Versions::Any),
            (&line[..], Versions::V2),
            (&v2(0x21, 0x11, FOUR), Versions::V1),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080\r\n", Versions::Any),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 99999\r\n", Versions::Any),
            (b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n", Versions::Any),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\n\n", Versions::Any),
            (b"PROXY UNKNOWN\nGET / HTTP/1.1\r\n", Versions::Any),
            (&[b"PROXY UNKNOWN ".as_slice(), &[b'a'; 200]].concat(), Versions::Any),
            (&v2(0x31, 0x11, FOUR), Versions::Any),
            (&v2(0x22, 0x11, FOUR), Versions::Any),
            (&v2(0x21, 0x12, FOUR), Versions::Any),
            (&v2(0x21, 0x11, &FOUR[..8]), Versions::Any),
            (&v2(0x21, 0x31, &[0; 216]), Versions::Any),
            (&v2(0x21, 0x00, &[]), Versions::Any),
            (&v2(0x21, 0x11, &[0; 5000]), Versions::Any),
        ] {
            let text = String::from_utf8_lossy(header);
            assert_eq!(read_all(header, versions).await, Err(io::ErrorKind::InvalidData), "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_header_that_breaks_off_is_no_header() {
        let whole = [b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n".to_vec(), v2(0x21, 0x11, FOUR)];
        for header in whole {
            for length in 0..header.len() {
                let read = read(&mut &header[..length], Versions::Any).await;
                assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{length}");
            }
        }
    }
}
