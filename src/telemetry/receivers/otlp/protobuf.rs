//! Writing protobuf: <https://protobuf.dev/programming-guides/encoding/>.

/// A message that is being written. Fields that hold their default are left out, as proto3 has it, unless
/// said otherwise.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// The message.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Fields that have been written before.
    pub(super) fn fields(&mut self, written: &[u8]) {
        self.0.extend_from_slice(written);
    }

    /// A message in this one, even if it is empty.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.key(field, LENGTH);
        let at = self.0.len();
        self.0.push(0);
        write(self);
        let length = self.0.len() - at - 1;
        if let Ok(digit @ ..0x80) = u8::try_from(length) {
            self.0[at] = digit;
        } else {
            // what was written moves on for a length that takes more than one byte
            let mut digits = [0; MAX_VARINT];
            self.0.splice(at..=at, varint(length as u64, &mut digits).iter().copied());
        }
    }

    /// A text.
    pub(super) fn text(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    /// Bytes, even if there are none.
    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A whole number, even if it is 0.
    pub(super) fn signed(&mut self, field: u32, number: i64) {
        self.unsigned(field, number.cast_unsigned());
    }

    /// A whole number or one of an enumeration, even if it is 0.
    pub(super) fn unsigned(&mut self, field: u32, number: u64) {
        self.key(field, VARINT);
        self.varint(number);
    }

    /// Eight bytes, even if they are 0.
    pub(super) fn fixed64(&mut self, field: u32, number: u64) {
        self.key(field, FIXED64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Four bytes, even if they are 0.
    pub(super) fn fixed32(&mut self, field: u32, number: u32) {
        self.key(field, FIXED32);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn key(&mut self, field: u32, wire_type: u64) {
        self.varint(u64::from(field) << 3 | wire_type);
    }

    fn varint(&mut self, number: u64) {
        let mut digits = [0; MAX_VARINT];
        self.0.extend_from_slice(varint(number, &mut digits));
    }
}

/// Seven bits a byte, the lowest first.
fn varint(mut number: u64, digits: &mut [u8; MAX_VARINT]) -> &[u8] {
    let mut length = 0;
    loop {
        let more = number > 0x7f;
        digits[length] = number.to_le_bytes()[0] & 0x7f | u8::from(more) << 7;
        length += 1;
        number >>= 7;
        if !more {
            return &digits[..length];
        }
    }
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

/// The most bytes of a varint.
const MAX_VARINT: usize = 10;

#[cfg(test)]
mod tests {
    use super::{MAX_VARINT, Writer, varint};

    #[test]
    fn numbers_take_as_many_bytes_as_they_need() {
        let cases: [(u64, &[u8]); 6] = [
            (0, &[0]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (1 << 21, &[0x80, 0x80, 0x80, 1]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ];
        for (number, expected) in cases {
            assert_eq!(varint(number, &mut [0; MAX_VARINT]), expected, "{number}");
        }
    }

    #[test]
    fn a_message_has_its_length_before_it_however_long_it_is() {
        for length in [0, 1, 127, 128, 300, 20_000] {
            let mut writer = Writer::default();
            writer.message(1, |message| message.fields(&vec![7; length]));
            writer.unsigned(2, 9);
            let mut expected = vec![0x0a];
            expected.extend(varint(length as u64, &mut [0; MAX_VARINT]));
            expected.extend(vec![7; length]);
            expected.extend([0x10, 9]);
            assert_eq!(writer.into_bytes(), expected, "{length}");
        }
    }
}
