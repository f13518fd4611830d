//! Server-sent events (HTML Living Standard, 9.2.6), read piece by piece.

use std::mem;

/// A message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// `event`, which is `message` where the stream names none.
    pub(super) kind: String,
    /// `data`, its lines joined.
    pub(super) data: String,
}

/// Takes bytes and gives messages.
#[derive(Debug)]
pub(super) struct Parser {
    line: Vec<u8>,
    kind: String,
    data: String,
    id: Option<String>,
    last_id: Option<String>,
    begun: bool,
    after_return: bool,
    limit_bytes: usize,
}

/// A message is longer than is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than the {limit_bytes} bytes allowed")]
pub(super) struct TooLong {
    limit_bytes: usize,
}

impl Parser {
    /// A parser at the beginning of a stream.
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            line: Vec::new(),
            kind: String::new(),
            data: String::new(),
            id: None,
            last_id: None,
            begun: false,
            after_return: false,
            limit_bytes,
        }
    }

    /// The id of the last complete block, with or without data.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Takes the next bytes of the stream up to the end of a message, and gives it with how many bytes were taken.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> Result<(usize, Option<Message>), TooLong> {
        for (index, byte) in chunk.iter().enumerate() {
            let ends = match byte {
                b'\n' if mem::take(&mut self.after_return) => continue,
                b'\n' | b'\r' => true,
                _ => false,
            };
            self.after_return = *byte == b'\r';
            if !ends {
                if self.line.len() + self.data.len() >= self.limit_bytes {
                    return Err(TooLong { limit_bytes: self.limit_bytes });
                }
                self.line.push(*byte);
            } else if let Some(message) = self.end_of_line() {
                return Ok((index + 1, Some(message)));
            }
        }
        Ok((chunk.len(), None))
    }

    fn end_of_line(&mut self) -> Option<Message> {
        const BYTE_ORDER_MARK: &str = "\u{feff}";
        let bytes = mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let first = !mem::replace(&mut self.begun, true);
        let line = if first { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text) } else { &text };
        if line.is_empty() {
            return self.end_of_block();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // A comment (an empty field), `retry`, or something that the standard does not know.
            _ => {}
        }
        None
    }

    fn end_of_block(&mut self) -> Option<Message> {
        if let Some(id) = self.id.take() {
            self.last_id = Some(id);
        }
        let kind = mem::take(&mut self.kind);
        let mut data = mem::take(&mut self.data);
        data.pop()?;
        Some(Message { kind: if kind.is_empty() { "message".to_owned() } else { kind }, data })
    }
}

#[cfg(test)]
mod tests {
    use super::{Message, Parser};

    /// Reads a stream in pieces of every size: the messages and the last id are the same.
    fn check(stream: &str, expected: &[(&str, &str)], last_id: Option<&str>) {
        for size in 1..=stream.len() {
            let mut parser = Parser::new(64);
            let mut messages = Vec::new();
            for mut piece in stream.as_bytes().chunks(size) {
                while !piece.is_empty() {
                    let (taken, message) = parser.feed(piece).unwrap();
                    messages.extend(message);
                    piece = &piece[taken..];
                }
            }
            let expected: Vec<_> =
                expected.iter().map(|(kind, data)| Message { kind: (*kind).into(), data: (*data).into() }).collect();
            assert_eq!(messages, expected, "{stream:?} by {size}");
            assert_eq!(parser.last_id(), last_id, "{stream:?} by {size}");
        }
    }

    #[test]
    fn streams() {
        check("id: c1-1\nevent: cloudevent\ndata: {\"a\":1}\n\n", &[("cloudevent", "{\"a\":1}")], Some("c1-1"));
        check("data: a\r\ndata:b\r\n\r\ndata\r\r", &[("message", "a\nb"), ("message", "")], None);
        check("\u{feff}data: ä\n\n: keep-alive\n\n:\n\n", &[("message", "ä")], None);
        check("id: 7\n\nevent: x\n\ndata: y\n\n", &[("message", "y")], Some("7"));
        check("id: 1\ndata: a\n\nid\ndata: b\n\n", &[("message", "a"), ("message", "b")], Some(""));
        check("retry: 5\nnonsense: 1\ndata:  two blanks\n\n", &[("message", " two blanks")], None);
        check("data: unfinished\n", &[], None);
        check("id: 2\ndata: unfinished", &[], None);
    }

    #[test]
    fn messages_are_bounded() {
        let mut parser = Parser::new(8);
        assert!(parser.feed(b"data: 12345").is_err());
        let mut parser = Parser::new(10);
        assert!(parser.feed(b"data: 1\ndata: 2\n").is_ok());
        assert!(parser.feed(b"data: 3").is_err());
    }
}
