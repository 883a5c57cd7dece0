//! What holds of the parsers of what clients, proxies, upstreams and receivers send.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue};
use tracegate::http::headers::Peer;
use tracegate::http::upgrade::frames::{Close, Frames, NO_CODE};
use tracegate::http::{accept, auth, grpc, path};
use tracegate::listener::frames::Guard;
use tracegate::listener::proxy;
use tracegate::net::retry_after;
use tracegate::telemetry::exchange::Scheme;
use tracegate::telemetry::receivers::Answer;
use tracegate::telemetry::receivers::otlp::answer;

/// The path of a request.
pub fn path(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let plain = plain_path(text);
    let normalised = path::normalise(text).ok();
    assert_eq!(normalised.as_deref(), plain.as_deref(), "{text:?}");
    let Some(normalised) = normalised else { return };
    assert!(normalised.len() <= text.len() && normalised.starts_with('/'), "{text:?}");
    assert_eq!(path::normalise(&normalised).ok().as_deref(), Some(&*normalised), "{text:?}");
}

/// The same, one rule after the other.
fn plain_path(text: &str) -> Option<String> {
    if !text.starts_with('/') || !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return None;
    }
    let mut pieces = text.split('%');
    let mut decoded = pieces.next()?.to_owned();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        // from_str_radix would take a sign
        let digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(digits)?;
        match u8::from_str_radix(digits, 16).ok()? {
            byte if byte < 0x20 || matches!(byte, 0x7f | b'/' | b'\\') => return None,
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => decoded.push(byte.into()),
            byte => {
                let _ = write!(decoded, "%{byte:02X}");
            }
        }
        decoded.push_str(rest);
    }
    let mut kept: Vec<String> = Vec::new();
    let mut last = "";
    for segment in decoded[1..].split('/') {
        last = segment;
        let parameters = segment.replace("%3B", ";");
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()?),
            _ if parameters.starts_with(".;") || parameters.starts_with("..;") => return None,
            segment => kept.push(segment.to_owned()),
        }
    }
    let mut path = String::new();
    for segment in &kept {
        path.push('/');
        path.push_str(segment);
    }
    let end = if kept.is_empty() || matches!(last, "" | "." | "..") { "/" } else { "" };
    Some(path + end)
}

/// `X-Forwarded-For`, one field a line, as a trusted proxy sends it and as anybody does.
pub fn forwarded(input: &[u8]) {
    let peer: IpAddr = [10, 0, 0, 1].into();
    let trusts = |address: IpAddr| matches!(address, IpAddr::V4(four) if four.octets()[0] == 10);
    let mut headers = HeaderMap::new();
    let mut stated = Vec::new();
    for line in input.split(|&byte| byte == b'\n').take(100) {
        let Ok(value) = HeaderValue::from_bytes(line) else { continue };
        if let Ok(text) = value.to_str() {
            stated.extend(text.split(',').map(|text| text.trim().to_owned()));
        }
        headers.append("x-forwarded-for", value);
    }
    let anybody = Peer::new(peer, Scheme::Http, false);
    assert_eq!(anybody.client(&headers, trusts), peer, "{input:?}");
    let mut plain = peer;
    while trusts(plain)
        && let Some(Ok(next)) = stated.pop().map(|text| text.parse())
    {
        plain = next;
    }
    assert_eq!(Peer::new(peer, Scheme::Http, true).client(&headers, trusts), plain, "{input:?}");
}

/// A connection that begins with a header of the PROXY protocol.
pub fn proxy(input: &[u8]) {
    let read = |versions| {
        let mut rest = input;
        let client = ready(proxy::read(&mut rest, versions));
        (client.ok(), input.len() - rest.len())
    };
    let (client, length) = read(proxy::Versions::Any);
    assert!(length <= 4096);
    let [(one, of_one), (two, of_two)] = [proxy::Versions::V1, proxy::Versions::V2].map(read);
    assert!(one.is_none() || two.is_none(), "it is of one version or of the other: {input:?}");
    assert_eq!(client, one.or(two), "{input:?}");
    let Some(client) = client else { return };
    if input.starts_with(b"PROXY ") {
        // the whole line and nothing but the line
        assert!(length == of_one && (..=107).contains(&length), "{input:?}");
        let line = std::str::from_utf8(&input[..length]).expect("text");
        assert!(line.ends_with("\r\n") && line.matches('\n').count() == 1, "{line:?}");
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        let plain = match words[..] {
            ["PROXY", "TCP4" | "TCP6", from, _, port, _] => {
                Some(SocketAddr::new(from.parse().expect("an address"), port.parse().expect("a port")))
            }
            _ => None,
        };
        assert_eq!(client, plain, "{line:?}");
    } else {
        let told = usize::from(u16::from_be_bytes([input[14], input[15]]));
        assert!(length == of_two && length == 16 + told, "{input:?}");
        assert_eq!(client.is_none(), input[12].is_multiple_of(16), "{input:?}");
    }
}

/// What needs to wait for nothing.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("all bytes are there"),
    }
}

/// One direction of a WebSocket; the first byte says how it is cut.
pub fn websocket(input: &[u8]) {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let plain = plain_close(bytes);
    for cut in [1, usize::from(cut).max(1), bytes.len().max(1)] {
        let mut frames = Frames::default();
        bytes.chunks(cut).for_each(|piece| frames.saw(piece));
        assert_eq!(frames.close(), plain, "{bytes:?} in {cut}s");
    }
}

/// The first close frame's code, of bytes that are all there.
fn plain_close(mut bytes: &[u8]) -> Option<Close> {
    loop {
        let (&[first, second], mut rest) = bytes.split_first_chunk()?;
        let mut take = |count: usize| {
            let (taken, after) = rest.split_at_checked(count)?;
            rest = after;
            Some(taken)
        };
        let big = |digits: &[u8]| digits.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        let length = match second & 127 {
            126 => big(take(2)?),
            127 => big(take(8)?),
            short => u64::from(short),
        };
        let mask = if second & 128 == 0 { &[0; 4] } else { take(4)? };
        if first & 15 == 8 {
            return match length {
                0 | 1 => Some(Close { code: NO_CODE }),
                _ => take(2)
                    .map(|code| Close { code: u16::from_be_bytes([code[0] ^ mask[0], code[1] ^ mask[1]]) }),
            };
        }
        bytes = rest.get(usize::try_from(length).ok()?..)?;
    }
}

/// The frames of an HTTP/2 client; the first byte says how they are cut.
pub fn http2(input: &[u8]) {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let mut plain = 0;
    let mut rest = bytes;
    while let Some((header, after)) = rest.split_first_chunk::<9>() {
        let length = header[..3].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        plain += match (header[3], length, header[4] & 1) {
            (0, 0, 0) => 1,
            (0, ..) => 0,
            (3, ..) => 4,
            _ => 1,
        };
        rest = after.get(length..).unwrap_or_default();
    }
    // more may have come back meanwhile, so that only what is far from the bound is sure
    if plain > 900 {
        return;
    }
    for cut in [1, usize::from(cut).max(1), bytes.len().max(1)] {
        let mut guard = Guard::new();
        let before = guard.left();
        assert!(bytes.chunks(cut).all(|piece| guard.admits(piece, 0)), "{bytes:?} in {cut}s");
        assert_eq!(before - guard.left(), plain, "{bytes:?} in {cut}s");
    }
}

/// `Accept` and `Accept-Encoding`, one field a line.
pub fn accept(input: &[u8]) {
    let headers = |change: fn(&str) -> String| {
        let mut headers = HeaderMap::new();
        for line in input.split(|&byte| byte == b'\n').take(100) {
            let Ok(text) = std::str::from_utf8(line) else { continue };
            let Ok(value) = HeaderValue::from_str(&change(text)) else { continue };
            headers.append(ACCEPT, value.clone());
            headers.append(ACCEPT_ENCODING, value);
        }
        headers
    };
    let told = |headers: &HeaderMap| {
        let quality = |coding| accept::coding_quality(headers, coding);
        (accept::prefers_html(headers), [quality("gzip"), quality("br"), quality("zstd")])
    };
    let plain = told(&headers(str::to_owned));
    assert!(plain.1.iter().all(|quality| *quality <= 1000), "{input:?}");
    let text = String::from_utf8_lossy(input).to_ascii_lowercase();
    assert!(!plain.0 || text.contains("html"), "{input:?}");
    for (coding, quality) in ["gzip", "br", "zstd"].into_iter().zip(plain.1) {
        assert!(quality == 0 || text.contains(coding) || text.contains('*'), "{coding} {input:?}");
    }
    // case and white space mean nothing
    for change in [str::to_ascii_uppercase, str::to_ascii_lowercase, |text: &str| text.replace(',', " ,\t")] {
        assert_eq!(told(&headers(change)), plain, "{input:?}");
    }
}

/// `Retry-After`.
pub fn retry(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else { return };
    let headers = HeaderMap::from_iter([(RETRY_AFTER, value)]);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
    let Some(wait) = retry_after(&headers, now) else { return };
    let text = std::str::from_utf8(input).expect("it was read").trim();
    match text.trim_start_matches('+').parse() {
        Ok(seconds) => assert_eq!(wait, Duration::from_secs(seconds), "{text:?}"),
        // no date is later than the year 9999
        Err(_) => assert!(wait < Duration::from_hours(8000 * 366 * 24), "{text:?}"),
    }
}

/// `grpc-timeout`.
pub fn grpc_timeout(input: &[u8]) {
    let plain = || {
        let text = std::str::from_utf8(input).ok()?;
        let (at, unit) = text.char_indices().last()?;
        let digits = &text[..at];
        let nanoseconds: u128 = match unit {
            'H' => 3_600_000_000_000,
            'M' => 60_000_000_000,
            'S' => 1_000_000_000,
            'm' => 1_000_000,
            'u' => 1_000,
            'n' => 1,
            _ => return None,
        };
        let fits = (1..=8).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
        fits.then(|| nanoseconds * digits.parse::<u128>().expect("digits"))
    };
    let read = grpc::parse_timeout(input);
    assert_eq!(read.map(|read| read.as_nanos()), plain(), "{input:?}");
    let Some(read) = read else { return };
    let written = grpc::timeout_value(read);
    let again = grpc::parse_timeout(written.as_bytes()).expect("what we write can be read");
    // as exact as eight digits are
    assert!(again <= read.max(Duration::from_micros(1)), "{input:?} {written:?}");
    let lost = read.saturating_sub(again);
    assert!(lost < Duration::from_micros(1) || lost < read / 20_000, "{input:?} {written:?}");
}

/// What an OTLP receiver answers: any bytes, and a number of spans with a text, which these bytes are made to.
pub fn otlp(input: &[u8]) {
    if let Answer::Partly { rejected, .. } = answer::partial_success(input) {
        assert!(i64::try_from(rejected).is_ok());
    }
    let Some((number, text)) = input.split_first_chunk() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let number = i64::from_be_bytes(*number);
    let partial = [
        vec![1 << 3],
        varint(number.cast_unsigned()),
        vec![2 << 3 | 2],
        varint(text.len() as u64),
        text.as_bytes().to_vec(),
    ]
    .concat();
    let message = [vec![1 << 3 | 2], varint(partial.len() as u64), partial].concat();
    let expected = if number <= 0 && text.is_empty() {
        Answer::Accepted
    } else {
        Answer::Partly { rejected: usize::try_from(number).unwrap_or(0), why: text.to_owned() }
    };
    assert_eq!(answer::partial_success(&message), expected, "{number} {text:?}");
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 127 {
        bytes.push(number.to_le_bytes()[0] | 128);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

/// A token, on the first line, and a set of keys behind it.
pub fn jwt(input: &[u8]) {
    let line = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let (token, keys) = (&input[..line], input.get(line + 1..).unwrap_or_default());
    if let Ok(keys) = auth::jwk::KeySet::parse(keys) {
        assert!((1..=100).contains(&keys.count()));
        for (name, algorithm) in auth::jwk::Algorithm::ALL {
            for named in [None, Some("a")] {
                let checked = keys.check(algorithm, named, b"nobody has signed this", token);
                assert!(checked != auth::jwk::Checked::Valid, "{name} {input:?}");
            }
        }
    }
    let mut headers = HeaderMap::new();
    for (field, value) in [(AUTHORIZATION, [b"Bearer ", token].concat()), (KEY, token.to_vec())] {
        let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
        headers.insert(&field, value);
        let Ok(found) = auth::credentials::find(&headers, &field, MOST) else { continue };
        let (shown, plain) = (found.as_bytes().trim_ascii(), token.trim_ascii());
        assert!((1..=MOST).contains(&found.len()) && shown == plain, "{field} {token:?}");
    }
    let Ok(text) = std::str::from_utf8(token) else { return };
    let pieces: Vec<&str> = text.split('.').collect();
    assert!(auth::jwt::Token::read(text).is_err() || pieces.len() == 3, "{text:?}");
    let base64 =
        |piece: &str| piece.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let strange = [pieces.first(), pieces.last()].into_iter().flatten().any(|piece| !base64(piece));
    assert!(auth::jwt::Token::read(text).is_err() || !strange, "{text:?}");
}

const KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The longest credentials.
const MOST: usize = 200;
