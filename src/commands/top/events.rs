//! Reads server-sent events (HTML standard, section "Server-sent events") out of bytes as they come, in bounded memory.

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Its `event` field; `message` where there was none.
    pub(super) name: String,
    /// Its `data` lines, joined by line feeds.
    pub(super) data: String,
}

/// What has come of a stream so far.
#[derive(Debug, Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    after_return: bool,
    begun: bool,
    name: String,
    data: String,
    has_data: bool,
}

/// The stream has an event that is larger than any may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Reader {
    /// The events that these bytes complete. What has no end yet waits for more.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLarge> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_return) && first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            let (more, after) = rest.split_at(end.unwrap_or(rest.len()));
            if self.line.len() + more.len() + self.data.len() > MOST {
                return Err(TooLarge);
            }
            self.line.extend_from_slice(more);
            rest = after;
            if let Some((end, after)) = after.split_first() {
                self.after_return = *end == b'\r';
                rest = after;
                events.extend(self.end_of_line());
            }
        }
        Ok(events)
    }

    fn end_of_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = if self.begun { &*line } else { line.strip_prefix('\u{feff}').unwrap_or(&line) };
        self.begun = true;
        if line.is_empty() {
            return self.end_of_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            // comments, and what is of no use here: the caller knows better when to ask again
            _ => {}
        }
        None
    }

    fn end_of_event(&mut self) -> Option<Event> {
        let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        let name = if name.is_empty() { "message".to_owned() } else { name };
        std::mem::take(&mut self.has_data).then_some(Event { name, data })
    }
}

/// The most bytes of one event: the rows of ten thousand routes and more.
const MOST: usize = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::{Event, MOST, Reader, TooLarge};

    fn read(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut reader = Reader::default();
        let events = pieces.iter().flat_map(|piece| reader.read(piece).unwrap());
        events.map(|Event { name, data }| (name, data)).collect()
    }

    #[test]
    fn events_are_read_as_the_standard_has_them() {
        for (text, expected) in [
            ("event: hello\ndata: {}\n\n", vec![("hello", "{}")]),
            ("data: a\ndata:b\n\n", vec![("message", "a\nb")]),
            ("retry: 2000\nevent: a\ndata: 1\n\nevent: b\ndata: 2\n\n", vec![("a", "1"), ("b", "2")]),
            ("event: a\r\ndata: 1\r\n\r\n", vec![("a", "1")]),
            ("event: a\rdata: 1\r\r", vec![("a", "1")]),
            ("\u{feff}data: 1\n\n", vec![("message", "1")]),
            (": still here\n\n", vec![]),
            ("event: forgotten\n\ndata: 1\n\n", vec![("message", "1")]),
            ("data\n\n", vec![("message", "")]),
            ("data:  two spaces: and a colon\n\n", vec![("message", " two spaces: and a colon")]),
            ("data: not ended\n", vec![]),
            ("id: 3\nunknown: 4\ndata: ü\n\n", vec![("message", "ü")]),
        ] {
            let expected: Vec<_> =
                expected.iter().map(|(name, data)| ((*name).to_owned(), (*data).to_owned())).collect();
            assert_eq!(read(&[text.as_bytes()]), expected, "{text:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(read(&bytes), expected, "{text:?}, byte by byte");
        }
    }

    #[test]
    fn what_is_no_utf_8_is_replaced_and_no_event_grows_without_end() {
        assert_eq!(read(&[b"data: \xff\n\n"]), [("message".to_owned(), "\u{fffd}".to_owned())]);
        let mut reader = Reader::default();
        let line = [b"data: ", vec![b'x'; MOST / 4].as_slice(), b"\n"].concat();
        let outcomes: Vec<_> = (0..4).map(|_| reader.read(&line)).collect();
        assert_eq!(outcomes, [Ok(vec![]), Ok(vec![]), Ok(vec![]), Err(TooLarge)]);
    }
}
