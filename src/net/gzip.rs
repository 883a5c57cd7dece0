//! What is sent at once, as gzip has it (RFC 1952).

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

/// The body, compressed fast rather than well.
pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("it is written to memory")
}
