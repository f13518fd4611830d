//! As little HTTP/1.1 as a measurement needs, so that the generator takes few of the processors' time.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::Failure;

/// The media type and attributes of the events that are published; about 300 bytes of data.
const DATA_BYTES: usize = 300;
/// Digits of the number in an event's id.
pub(crate) const ID_DIGITS: usize = 16;

/// A request whose bytes are made once; only the digits of the event's id change.
#[derive(Clone, Debug)]
pub(crate) struct Prebuilt {
    bytes: Vec<u8>,
    id_at: usize,
}

impl Prebuilt {
    /// A publish in binary mode.
    pub(crate) fn new(address: SocketAddr, path: &str) -> Self {
        let id = "0".repeat(ID_DIGITS);
        let filler: String = (0..DATA_BYTES).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
        let shell = r#"{"order":"A-1834","amount":1250,"currency":"EUR","note":""}"#;
        let data = shell.replace(r#""""#, &format!("\"{}\"", &filler[shell.len()..]));
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nce-specversion: 1.0\r\n\
             ce-type: com.example.order.placed\r\nce-source: https://shop.example.com/orders\r\nce-id: {id}\r\n\
             content-length: {}\r\n\r\n{data}",
            data.len()
        );
        let id_at = text.find(&id).unwrap_or_default();
        Self { bytes: text.into_bytes(), id_at }
    }

    /// The bytes with this number as the event's id.
    pub(crate) fn with_id(&mut self, number: u64) -> &[u8] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (at, digit) in self.bytes[self.id_at..self.id_at + ID_DIGITS].iter_mut().enumerate() {
            let shift = 4 * (ID_DIGITS - 1 - at);
            *digit = DIGITS[(number >> shift) as usize & 15];
        }
        &self.bytes
    }
}

/// What a buffer begins with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Not a whole message yet.
    Partial,
    /// A message of so many bytes, of which so many are its header.
    Whole { bytes: usize, header_bytes: usize },
}

/// Looks for a whole message with `Content-Length` or without a body.
pub(crate) fn message(buffer: &[u8]) -> Message {
    let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else { return Message::Partial };
    let header_bytes = end + 4;
    let length = field(&buffer[..end], b"content-length").and_then(|value| std::str::from_utf8(value).ok());
    let bytes = header_bytes + length.and_then(|text| text.trim().parse::<usize>().ok()).unwrap_or(0);
    if buffer.len() < bytes { Message::Partial } else { Message::Whole { bytes, header_bytes } }
}

/// The value of a field, by its name in lower case.
pub(crate) fn field<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = header;
    while let Some(line_end) = rest.iter().position(|byte| *byte == b'\n') {
        rest = &rest[line_end + 1..];
        if rest.len() > name.len() && rest[name.len()] == b':' && rest[..name.len()].eq_ignore_ascii_case(name) {
            let value = &rest[name.len() + 1..];
            let end = value.iter().position(|byte| *byte == b'\r').unwrap_or(value.len());
            return Some(value[..end].trim_ascii());
        }
    }
    None
}

/// The status of an answer, 0 where it is none.
pub(crate) fn status(answer: &[u8]) -> u16 {
    let digits = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

/// One request on a connection of its own, for what is not measured; gives the body of a 2xx answer.
pub(crate) fn once(address: SocketAddr, request: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Message::Whole { bytes, header_bytes } = message(&answer) {
            if !(200..300).contains(&status(&answer)) {
                return Err(String::from_utf8_lossy(&answer).into_owned().into());
            }
            return Ok(answer[header_bytes..bytes].to_vec());
        }
        match stream.read(&mut chunk)? {
            0 => return Err(format!("half an answer: {}", String::from_utf8_lossy(&answer)).into()),
            read => answer.extend_from_slice(&chunk[..read]),
        }
    }
}

/// `GET`, as JSON.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<serde_json::Value, Failure> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    Ok(serde_json::from_slice(&once(address, request.as_bytes())?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_where_they_end() {
        let one = b"HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\nx: y\r\n\r\nabcHTTP/1.1 2";
        assert_eq!(message(one), Message::Whole { bytes: one.len() - 10, header_bytes: one.len() - 13 });
        assert_eq!(message(&one[..one.len() - 11]), Message::Partial);
        assert_eq!(message(b"HTTP/1.1 202 Accepted\r\n"), Message::Partial);
        assert_eq!(message(b"HTTP/1.1 204 No Content\r\n\r\n"), Message::Whole { bytes: 27, header_bytes: 27 });
        assert_eq!(status(one), 202);
        assert_eq!(status(b"garbage"), 0);
        assert_eq!(field(b"POST / HTTP/1.1\r\nce-id:  7 \r\nce-idx: 8", b"ce-id"), Some(&b"7"[..]));
    }

    #[test]
    fn only_the_id_of_a_prebuilt_request_changes() {
        let address = "127.0.0.1:1".parse().unwrap();
        let mut request = Prebuilt::new(address, "/topics/t");
        let first = request.with_id(0xab).to_vec();
        let Message::Whole { bytes, header_bytes } = message(&first) else { panic!("it is not whole") };
        assert_eq!(bytes, first.len());
        assert_eq!(bytes - header_bytes, DATA_BYTES);
        assert_eq!(field(&first, b"ce-id"), Some(&b"00000000000000ab"[..]));
        let data: serde_json::Value = serde_json::from_slice(&first[header_bytes..]).unwrap();
        assert_eq!(data["amount"], 1250);
        let second = request.with_id(0xac).to_vec();
        assert_eq!(first.iter().zip(&second).filter(|(one, other)| one != other).count(), 1);
    }
}
