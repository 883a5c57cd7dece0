//! The ids of traces and spans and the flags beside them, as bytes and as hexadecimal text.

use std::fmt;

/// A trace's id: sixteen random bytes, never all zero (W3C Trace Context section 3.2.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// A span's id: eight random bytes, never all zero (W3C Trace Context section 3.2.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// `trace-flags`: sampled and random are known, the rest is cleared (W3C Trace Context section 3.2.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl TraceId {
    /// A new random id.
    pub fn random() -> Self {
        Self(rand::random::<u128>().max(1).to_be_bytes())
    }

    /// Its 32 lower-case hexadecimal digits.
    pub fn digits(self) -> [u8; 32] {
        let mut digits = [0; 32];
        write_hex(&self.0, &mut digits);
        digits
    }

    /// Its right-most 56 bits, which sampling takes for random (W3C Trace Context level 2, "random").
    pub fn randomness(self) -> u64 {
        let last = self.0.last_chunk().expect("sixteen bytes end with eight");
        u64::from_be_bytes(*last) & ((1 << 56) - 1)
    }

    /// The bytes that an older tracer of 64 bits knows, if that is all there is to the id.
    pub(super) fn as_short(&self) -> Option<&[u8]> {
        let (high, low) = self.0.split_at(8);
        (high == [0; 8]).then_some(low)
    }
}

impl SpanId {
    /// A new random id.
    pub fn random() -> Self {
        Self(rand::random::<u64>().max(1).to_be_bytes())
    }
}

impl Flags {
    /// The caller, or we, may have recorded the trace.
    pub const SAMPLED: u8 = 0b01;
    /// At least the right-most seven bytes of the trace id are random.
    pub const RANDOM: u8 = 0b10;

    /// Whether the sampled flag is set.
    pub fn sampled(self) -> bool {
        self.0 & Self::SAMPLED != 0
    }

    /// The same flags with sampled set or cleared.
    #[must_use]
    pub fn with_sampled(self, sampled: bool) -> Self {
        Self(if sampled { self.0 | Self::SAMPLED } else { self.0 & !Self::SAMPLED })
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(text(&self.digits()))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 16];
        write_hex(&self.0, &mut digits);
        f.write_str(text(&digits))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads exactly two lower-case digits a byte.
pub(super) fn read_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (mut out, mut all) = ([0; N], 0);
    if text.len() != 2 * N {
        return None;
    }
    // no branch a digit: this is on the way of every request
    for (out, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = (VALUES[usize::from(pair[0])], VALUES[usize::from(pair[1])]);
        all |= high | low;
        *out = high << 4 | low;
    }
    (all < 16).then_some(out)
}

/// The value of a lower-case digit.
pub(super) fn digit(byte: u8) -> Option<u8> {
    Some(VALUES[usize::from(byte)]).filter(|value| *value < 16)
}

/// Writes two lower-case digits a byte.
pub(super) fn write_hex(bytes: &[u8], out: &mut [u8]) {
    for (pair, &byte) in out.as_chunks_mut().0.iter_mut().zip(bytes) {
        *pair = HEX[usize::from(byte)];
    }
}

/// Digits as text.
pub(super) fn text(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).expect("digits are ASCII")
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The two digits of every byte.
static HEX: [[u8; 2]; 256] = {
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

/// The value of each byte that is a lower-case digit; more than 15 of any other.
static VALUES: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        values[DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    values
};
