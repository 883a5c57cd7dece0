//! A WebSocket's frames as they pass, in one direction: read for the one thing that tells how it ends.
//!
//! Nothing is held back and nothing is kept but a header in the making and two bytes of a close frame's body.

/// Reads over the frames of one direction (RFC 6455 section 5.2).
#[derive(Debug, Default)]
pub struct Frames {
    /// The header of the frame that has begun.
    header: [u8; LONGEST_HEADER],
    read: usize,
    /// What is still to come of the frame's payload.
    payload: u64,
    /// What came of a close frame's code.
    code: [u8; 2],
    coded: usize,
    close: Option<Close>,
}

/// A close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// Its code; `NO_CODE` if it has none.
    pub code: u16,
}

/// "No status code was present" (RFC 6455 section 7.4.1): it is never sent.
pub const NO_CODE: u16 = 1005;

const LONGEST_HEADER: usize = 14;
const CLOSE: u8 = 8;

impl Frames {
    /// These bytes come next.
    pub fn saw(&mut self, mut bytes: &[u8]) {
        // after a close frame nothing more is sent (RFC 6455 section 5.5.1)
        while !bytes.is_empty() && self.close.is_none() {
            if self.payload > 0 {
                bytes = self.payload(bytes);
            } else {
                self.header[self.read] = bytes[0];
                self.read += 1;
                bytes = &bytes[1..];
                if self.read >= 2 && self.read == self.header_length() {
                    self.begin();
                }
            }
        }
    }

    /// The close frame, if it has come.
    pub fn close(&self) -> Option<Close> {
        self.close
    }

    fn header_length(&self) -> usize {
        let extended = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + extended + if self.is_masked() { 4 } else { 0 }
    }

    fn is_masked(&self) -> bool {
        self.header[1] & 0x80 != 0
    }

    fn is_close(&self) -> bool {
        self.header[0] & 0x0f == CLOSE
    }

    /// The header is complete.
    fn begin(&mut self) {
        self.payload = match self.header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            127 => u64::from_be_bytes(self.header[2..10].try_into().expect("eight bytes")),
            short => u64::from(short),
        };
        self.coded = 0;
        if self.is_close() && self.payload < 2 {
            self.close = Some(Close { code: NO_CODE });
        }
        if self.payload == 0 {
            self.read = 0;
        }
    }

    fn payload<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.is_close() {
            let mask = if self.is_masked() { self.header[self.read - 4 + self.coded] } else { 0 };
            self.code[self.coded] = bytes[0] ^ mask;
            self.coded += 1;
            self.payload -= 1;
            if self.coded == 2 {
                self.close = Some(Close { code: u16::from_be_bytes(self.code) });
            }
            return &bytes[1..];
        }
        let length = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
        self.payload -= length as u64;
        if self.payload == 0 {
            self.read = 0;
        }
        &bytes[length..]
    }
}

#[cfg(test)]
mod tests {
    use super::{Close, Frames, NO_CODE};

    fn frame(opcode: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let bit = if masked { 0x80 } else { 0 };
        match payload.len() {
            length @ ..126 => frame.push(bit | u8::try_from(length).unwrap()),
            length @ ..0x1_0000 => {
                frame.push(bit | 0x7e);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(bit | 0x7f);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        let mask = if masked { [1, 2, 3, 4] } else { [0; 4] };
        if masked {
            frame.extend(mask);
        }
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    #[test]
    fn a_close_frame_is_found_however_the_bytes_are_cut() {
        for masked in [false, true] {
            for length in [0, 1, 125, 126, 300, 70_000] {
                let mut bytes = frame(1, masked, &vec![b'x'; length]);
                bytes.extend(frame(9, masked, b"ping"));
                bytes.extend(frame(8, masked, b"\x03\xf3broken"));
                for cut in [1, 2, 3, 7, 1000, bytes.len()] {
                    let mut frames = Frames::default();
                    bytes[..bytes.len() - 9].chunks(cut).for_each(|piece| frames.saw(piece));
                    assert_eq!(frames.close(), None, "not yet");
                    bytes[bytes.len() - 9..].chunks(cut).for_each(|piece| frames.saw(piece));
                    assert_eq!(frames.close(), Some(Close { code: 1011 }), "{length} bytes in {cut}s");
                }
            }
        }
    }

    #[test]
    fn a_close_frame_may_have_no_code() {
        for payload in [&b""[..], b"x"] {
            let mut frames = Frames::default();
            frames.saw(&frame(8, true, payload));
            assert_eq!(frames.close(), Some(Close { code: NO_CODE }));
            frames.saw(&[0xff; 100]);
            assert_eq!(frames.close(), Some(Close { code: NO_CODE }));
        }
    }

    #[test]
    fn what_is_no_websocket_does_no_harm() {
        let mut frames = Frames::default();
        for byte in 0..=255 {
            frames.saw(&[byte; 97]);
        }
    }
}
