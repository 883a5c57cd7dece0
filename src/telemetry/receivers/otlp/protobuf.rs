//! Writing protobuf: <https://protobuf.dev/programming-guides/encoding/>.

use bytes::Bytes;

/// A message that is being written. Fields that hold their default are left out, as proto3 has it, unless
/// said otherwise.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

/// A long message that is being enclosed in others. Each begins with its length, so it is written from the inside out,
/// into room that was left for it: nothing that is long moves.
#[derive(Debug)]
pub(super) struct Enclosing {
    bytes: Writer,
    begins: usize,
}

impl Enclosing {
    /// One of about so many bytes, with so much room before it.
    pub(super) fn new(room: usize, about: usize) -> Self {
        let mut bytes = Vec::with_capacity(room + about);
        bytes.resize(room, 0);
        Self { bytes: Writer(bytes), begins: room }
    }

    /// The message itself, until it is enclosed.
    pub(super) fn content(&mut self) -> &mut Writer {
        &mut self.bytes
    }

    /// Bytes before what is there.
    pub(super) fn prepend(&mut self, before: &[u8]) {
        let begins = self.begins.checked_sub(before.len()).expect("there is room");
        self.bytes.0[begins..self.begins].copy_from_slice(before);
        self.begins = begins;
    }

    /// All that is there becomes this field of a message.
    pub(super) fn enclose(&mut self, field: u32) {
        let mut key = Writer::default();
        key.key(field, LENGTH);
        key.varint(self.length() as u64);
        self.prepend(&key.0);
    }

    /// How long it is.
    pub(super) fn length(&self) -> usize {
        self.bytes.0.len() - self.begins
    }

    /// The outermost message.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from(self.bytes.0).slice(self.begins..)
    }
}

impl Writer {
    /// The message.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
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
            let (mut digits, end) = ([0; MAX_VARINT], self.0.len());
            let digits = varint(length as u64, &mut digits);
            self.0.extend_from_slice(&digits[1..]);
            self.0.copy_within(at + 1..end, at + digits.len());
            self.0[at..at + digits.len()].copy_from_slice(digits);
        }
    }

    /// An entry of a map: a message of a text and of another message, in which this field is all there is. All lengths
    /// are known beforehand, so that nothing moves.
    pub(super) fn entry(&mut self, field: u32, key: &str, value: Field<'_>) {
        let length_of_value = value.length();
        let length = length_of_bytes(key.len()) + length_of_bytes(length_of_value);
        self.0.reserve(2 * MAX_VARINT + length);
        if let (Some(field), Some(length), Some(key_length), Some(value_length)) =
            (short_key(field), short(length), short(key.len()), short(length_of_value))
        {
            // what nearly all are
            self.0.extend_from_slice(&[field, length, KEY_OF_KEY, key_length]);
            self.0.extend_from_slice(key.as_bytes());
            self.0.extend_from_slice(&[KEY_OF_VALUE, value_length]);
        } else {
            self.key(field, LENGTH);
            self.varint(length as u64);
            self.bytes(1, key.as_bytes());
            self.key(2, LENGTH);
            self.varint(length_of_value as u64);
        }
        match value {
            Field::Texts(field, texts) => self.texts(field, texts),
            Field::Signed(field, number) => self.signed(field, number),
            Field::Fixed64(field, number) => self.fixed64(field, number),
        }
    }

    /// A text.
    pub(super) fn text(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    /// One text of several, even if it is empty.
    pub(super) fn texts(&mut self, field: u32, texts: &[&str]) {
        self.key(field, LENGTH);
        self.varint(length_of_all(texts) as u64);
        for text in texts {
            self.0.extend_from_slice(text.as_bytes());
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

    fn key(&mut self, field: u32, wire_type: u8) {
        self.varint(u64::from(field) << 3 | u64::from(wire_type));
    }

    fn varint(&mut self, number: u64) {
        if let Ok(digit @ ..0x80) = u8::try_from(number) {
            // what nearly all are: keys, and the lengths of words
            self.0.push(digit);
        } else {
            self.0.extend_from_slice(varint(number, &mut [0; MAX_VARINT]));
        }
    }
}

/// A field that a message has alone. Its number is below 16.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field<'a> {
    Texts(u32, &'a [&'a str]),
    Signed(u32, i64),
    Fixed64(u32, u64),
}

impl Field<'_> {
    fn length(self) -> usize {
        match self {
            Self::Texts(_, texts) => length_of_bytes(length_of_all(texts)),
            Self::Signed(_, number) => 1 + length_of_varint(number.cast_unsigned()),
            Self::Fixed64(..) => 1 + size_of::<u64>(),
        }
    }
}

/// A number that takes one byte.
fn short(number: usize) -> Option<u8> {
    u8::try_from(number).ok().filter(|digit| *digit < 0x80)
}

/// The key of a field with a length, if it takes one byte.
fn short_key(field: u32) -> Option<u8> {
    u8::try_from(field).ok().filter(|field| *field < 16).map(|field| field << 3 | LENGTH)
}

fn length_of_all(texts: &[&str]) -> usize {
    texts.iter().map(|text| text.len()).sum()
}

/// What a field takes that holds so many bytes and has a number below 16.
fn length_of_bytes(count: usize) -> usize {
    1 + length_of_varint(count as u64) + count
}

fn length_of_varint(number: u64) -> usize {
    // the bits that count, by seven
    (u64::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
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

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

/// The keys of an entry's two fields.
const KEY_OF_KEY: u8 = 1 << 3 | LENGTH;
const KEY_OF_VALUE: u8 = 2 << 3 | LENGTH;

/// The most bytes of a varint.
const MAX_VARINT: usize = 10;

/// The most bytes that [`Enclosing::enclose`] takes of the room, for a field with a number below 16.
pub(super) const MOST_OF_A_FIELD: usize = 1 + MAX_VARINT;

#[cfg(test)]
mod tests {
    use super::{Enclosing, Field, MAX_VARINT, Writer, length_of_varint, varint};

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
            assert_eq!(length_of_varint(number), expected.len(), "{number}");
        }
    }

    #[test]
    fn a_message_has_its_length_before_it_however_long_it_is() {
        for length in [0, 1, 127, 128, 300, 20_000] {
            let mut writer = Writer::default();
            writer.message(1, |message| message.0.extend(vec![7; length]));
            writer.unsigned(2, 9);
            let mut expected = vec![0x0a];
            expected.extend(varint(length as u64, &mut [0; MAX_VARINT]));
            expected.extend(vec![7; length]);
            expected.extend([0x10, 9]);
            assert_eq!(writer.into_bytes(), expected, "{length}");
        }
    }

    #[test]
    fn what_is_written_from_the_inside_out_is_the_same() {
        for length in [0, 127, 128, 20_000] {
            let content = vec![7; length];
            let mut enclosing = Enclosing::new(40, length);
            enclosing.content().0.extend(&content);
            enclosing.enclose(2);
            enclosing.prepend(b"before");
            enclosing.enclose(1);
            let mut writer = Writer::default();
            writer.message(1, |outer| {
                outer.0.extend(b"before");
                outer.message(2, |inner| inner.0.extend(&content));
            });
            assert_eq!(enclosing.length(), writer.0.len());
            assert_eq!(enclosing.into_bytes(), writer.into_bytes(), "{length}");
        }
    }

    #[test]
    fn an_entry_is_written_as_the_messages_that_it_is_made_of() {
        let texts = [0, 1, 127, 128, 20_000].map(|length| "x".repeat(length));
        let texts = texts.each_ref().map(|text| [&**text, ""]);
        let of_texts = texts.iter().flat_map(|texts| [Field::Texts(1, &texts[..1]), Field::Texts(1, texts)]);
        let numbers = [0, 1, 127, 128, i64::MAX, -1].map(|number| Field::Signed(3, number));
        for value in of_texts.chain(numbers).chain([Field::Fixed64(4, 7)]) {
            for key in ["k", &"k".repeat(200)] {
                let (mut entry, mut messages) = (Writer::default(), Writer::default());
                entry.entry(9, key, value);
                messages.message(9, |message| {
                    message.text(1, key);
                    message.message(2, |message| match value {
                        Field::Texts(field, texts) => message.bytes(field, texts.concat().as_bytes()),
                        Field::Signed(field, number) => message.signed(field, number),
                        Field::Fixed64(field, number) => message.fixed64(field, number),
                    });
                });
                assert_eq!(entry.into_bytes(), messages.into_bytes(), "{key}: {value:?}");
            }
        }
    }
}
