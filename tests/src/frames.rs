//! HTTP/2 frame by frame (RFC 9113), for what no library would send: floods, bombs, windows that stay shut.
//!
//! Header blocks are written by hand (RFC 7541) with literal names and values, without Huffman codes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

/// Frame types.
pub const DATA: u8 = 0;
/// As above.
pub const HEADERS: u8 = 1;
/// As above.
pub const RST_STREAM: u8 = 3;
/// As above.
pub const SETTINGS: u8 = 4;
/// As above.
pub const PING: u8 = 6;
/// As above.
pub const GOAWAY: u8 = 7;
/// As above.
pub const WINDOW_UPDATE: u8 = 8;
/// As above.
pub const CONTINUATION: u8 = 9;
/// The flags of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// The flag of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;
/// The setting for the window that new streams have.
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// What a client sends first: the preface and its settings.
pub fn preface(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
        .collect();
    bytes.extend(frame(SETTINGS, 0, 0, &payload));
    bytes
}

/// A string of a header block.
pub fn text(text: &str) -> Vec<u8> {
    let mut bytes = integer(0, 7, text.len());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// An integer with a prefix of so many bits (RFC 7541 5.1).
pub fn integer(first: u8, bits: u8, mut value: usize) -> Vec<u8> {
    let most = (1_usize << bits) - 1;
    if value < most {
        return vec![first | value as u8];
    }
    let mut bytes = vec![first | most as u8];
    value -= most;
    while value >= 128 {
        bytes.push((value % 128) as u8 | 128);
        value /= 128;
    }
    bytes.push(value as u8);
    bytes
}

/// A field that neither side keeps.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    [vec![0], text(name), text(value)].concat()
}

/// The header block of a request.
pub fn request(method: &str, path: &str, authority: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", authority)];
    pseudo.iter().chain(fields).flat_map(|(name, value)| field(name, value)).collect()
}

/// What the other side sent on a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// GOAWAY frames.
    pub goaways: usize,
    /// RST_STREAM frames.
    pub resets: usize,
    /// HEADERS frames.
    pub answers: usize,
    /// Payload bytes of DATA frames.
    pub data_bytes: usize,
    /// Whether the connection ended.
    pub ended: bool,
}

/// A connection whose frames are written by hand; what comes is read and counted all the while.
#[derive(Debug)]
pub struct Connection {
    writer: OwnedWriteHalf,
    seen: std::sync::Arc<parking_lot::Mutex<Seen>>,
    reader: JoinHandle<()>,
}

impl Connection {
    /// Connects, and sends the preface with these settings.
    ///
    /// # Panics
    ///
    /// Where the gateway does not accept.
    pub async fn open(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).await.expect("the gateway accepts connections");
        stream.set_nodelay(true).expect("a TCP option");
        let (reader, mut writer) = stream.into_split();
        writer.write_all(&preface(settings)).await.expect("a fresh connection takes bytes");
        let seen = std::sync::Arc::new(parking_lot::Mutex::new(Seen::default()));
        let reader = tokio::spawn(count(reader, std::sync::Arc::clone(&seen)));
        Self { writer, seen, reader }
    }

    /// Writes bytes; false where the other side has closed.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        // One that reads no more and keeps the connection is a fault that the caller's own checks find.
        let written = tokio::time::timeout(Duration::from_secs(10), self.writer.write_all(bytes)).await;
        matches!(written, Ok(Ok(())))
    }

    /// What came until now.
    pub fn seen(&self) -> Seen {
        *self.seen.lock()
    }

    /// Waits until what came fulfils a condition; false where it does not within that time.
    pub async fn wait(&self, patience: Duration, condition: impl Fn(Seen) -> bool) -> bool {
        let until = async {
            while !condition(self.seen()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(patience, until).await.is_ok()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn count(mut reader: OwnedReadHalf, seen: std::sync::Arc<parking_lot::Mutex<Seen>>) {
    let mut head = [0; 9];
    let mut payload = vec![0; 1 << 24];
    loop {
        if reader.read_exact(&mut head).await.is_err() {
            break;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if reader.read_exact(&mut payload[..length]).await.is_err() {
            break;
        }
        let mut seen = seen.lock();
        match head[3] {
            GOAWAY => seen.goaways += 1,
            RST_STREAM => seen.resets += 1,
            HEADERS => seen.answers += 1,
            DATA => seen.data_bytes += length,
            _ => {}
        }
    }
    seen.lock().ended = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_specifications() {
        // RFC 7541 C.1.1 and C.1.2, and C.2.1 without indexing.
        assert_eq!(integer(0, 5, 10), [10]);
        assert_eq!(integer(0, 5, 1337), [31, 154, 10]);
        assert_eq!(
            field("custom-key", "custom-header"),
            [&[0, 10][..], b"custom-key", &[13], b"custom-header"].concat()
        );
        assert_eq!(frame(PING, 1, 0, &[7; 8]), [0, 0, 8, 6, 1, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7]);
        let settings = preface(&[(INITIAL_WINDOW_SIZE, 1)]);
        assert_eq!(settings[24..], [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1]);
    }
}
