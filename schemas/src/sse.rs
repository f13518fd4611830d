//! Server-sent events (HTML Living Standard, 9.2): how a topic that is followed travels, and how it is read, piece by piece.
//!
//! An event of the topic is a message of the kind [`EVENT`] whose data is the event in the JSON format and whose id is the
//! position behind it, so that `Last-Event-ID` goes on where a client was. A failure is one of the kind [`PROBLEM`], after
//! which the stream ends.

use std::mem;

use crate::event::Event;
use crate::json;

/// The media type of a stream.
pub const MEDIA_TYPE: &str = "text/event-stream";
/// The kind of a message that carries an event.
pub const EVENT: &str = "cloudevent";
/// The kind of a message that says why the stream ends.
pub const PROBLEM: &str = "problem";

/// Appends an event; `id` is the position behind it.
pub fn write_event(event: &Event, id: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("id: {id}\nevent: {EVENT}\ndata: ").as_bytes());
    json::write_line(event, out);
    out.extend_from_slice(b"\n\n");
}

/// Appends why the stream ends: a document on one line.
pub fn write_problem(document: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("event: {PROBLEM}\ndata: ").as_bytes());
    out.extend_from_slice(document);
    out.extend_from_slice(b"\n\n");
}

/// A message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `event`, which is `message` where the stream names none.
    pub kind: String,
    /// `data`, its lines joined.
    pub data: String,
}

/// Takes bytes and gives messages.
#[derive(Debug)]
pub struct Parser {
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
pub struct TooLong {
    /// The most bytes that it may have.
    pub limit_bytes: usize,
}

impl Parser {
    /// A parser at the beginning of a stream.
    pub fn new(limit_bytes: usize) -> Self {
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
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Takes the next bytes of the stream up to the end of a message, and gives it with how many bytes were taken.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(usize, Option<Message>), TooLong> {
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
    use super::*;

    /// Reads a stream in pieces of every size: the messages and the last id are the same.
    fn check(stream: &str, expected: &[(&str, &str)], last_id: Option<&str>) {
        for size in 1..=stream.len() {
            let mut parser = Parser::new(128);
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
    fn what_is_written_is_read() {
        let event = Event::builder("1", "/s", "t").data(crate::Data::Json("{\n\"a\":\r1}".into())).build().unwrap();
        let mut stream = Vec::new();
        write_event(&event, "c7", &mut stream);
        write_problem(b"{}", &mut stream);
        let line = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{ "a": 1}}"#;
        check(std::str::from_utf8(&stream).unwrap(), &[(EVENT, line), (PROBLEM, "{}")], Some("c7"));
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
