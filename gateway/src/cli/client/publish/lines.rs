//! Lines of a file or of standard input, one at a time and of bounded length.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// Reads lines. A call that is given up loses nothing.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    partial: Vec<u8>,
    number: u64,
    consumed_bytes: u64,
    limit_bytes: usize,
}

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: u64,
    /// What stands there.
    pub(super) text: String,
    /// Bytes of the source up to the end of this line.
    pub(super) end_bytes: u64,
}

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// The source cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The line is too long.
    #[error("the line is longer than the {limit_bytes} bytes allowed")]
    TooLong {
        /// Which line.
        number: u64,
        /// The most that is allowed.
        limit_bytes: usize,
    },
    /// The line is no text.
    #[error("the line is not UTF-8")]
    NotText {
        /// Which line.
        number: u64,
    },
}

impl LineError {
    /// The line, where it is one line's fault.
    pub(super) fn line(&self) -> Option<u64> {
        match self {
            Self::Read(_) => None,
            Self::TooLong { number, .. } | Self::NotText { number } => Some(*number),
        }
    }
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads from the beginning of a source.
    pub(super) fn new(source: R, limit_bytes: usize) -> Self {
        Self { reader: BufReader::new(source), partial: Vec::new(), number: 0, consumed_bytes: 0, limit_bytes }
    }

    /// The next line, or `None` at the end. The last line need not have an end.
    pub(super) async fn next(&mut self) -> Result<Option<Line>, LineError> {
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                return if self.partial.is_empty() { Ok(None) } else { self.take().map(Some) };
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let content = &available[..end.unwrap_or(available.len())];
            if self.partial.len() + content.len() > self.limit_bytes {
                return Err(LineError::TooLong { number: self.number + 1, limit_bytes: self.limit_bytes });
            }
            self.partial.extend_from_slice(content);
            let used = content.len() + usize::from(end.is_some());
            self.consumed_bytes += used as u64;
            self.reader.consume(used);
            if end.is_some() {
                return self.take().map(Some);
            }
        }
    }

    fn take(&mut self) -> Result<Line, LineError> {
        const BYTE_ORDER_MARK: char = '\u{feff}';
        self.number += 1;
        let number = self.number;
        let mut text =
            String::from_utf8(std::mem::take(&mut self.partial)).map_err(|_| LineError::NotText { number })?;
        if text.ends_with('\r') {
            text.pop();
        }
        if number == 1 && text.starts_with(BYTE_ORDER_MARK) {
            text.remove(0);
        }
        Ok(Line { number, text, end_bytes: self.consumed_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::{LineError, Lines};

    async fn read(source: &[u8]) -> Result<Vec<String>, LineError> {
        let mut lines = Lines::new(source, 8);
        let mut read = Vec::new();
        while let Some(line) = lines.next().await? {
            assert_eq!(line.number, read.len() as u64 + 1);
            read.push(line.text);
        }
        assert_eq!(lines.consumed_bytes, source.len() as u64);
        Ok(read)
    }

    #[tokio::test]
    async fn lines_are_split() {
        assert_eq!(read(b"").await.unwrap(), Vec::<String>::new());
        assert_eq!(read(b"a\r\n\nb").await.unwrap(), ["a", "", "b"]);
        assert_eq!(read("\u{feff}1\n2\n".as_bytes()).await.unwrap(), ["1", "2"]);
        assert_eq!(read(b"12345678\n").await.unwrap(), ["12345678"]);
        assert_eq!(read(b"a\n123456789\n").await.unwrap_err().line(), Some(2));
        assert_eq!(read(b"a\nb\n\xff\n").await.unwrap_err().line(), Some(3));
    }

    #[tokio::test]
    async fn lines_come_whole_from_pieces() {
        use tokio::io::AsyncWriteExt as _;
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = Lines::new(reader, 8);
        writer.write_all(b"ab").await.unwrap();
        // Given up in the middle of a line, which is not lost.
        let given_up = tokio::time::timeout(std::time::Duration::from_millis(5), lines.next()).await;
        assert!(given_up.is_err());
        writer.write_all(b"cd\ne").await.unwrap();
        assert_eq!(lines.next().await.unwrap().unwrap().text, "abcd");
        drop(writer);
        let last = lines.next().await.unwrap().unwrap();
        assert_eq!((last.text.as_str(), last.number, last.end_bytes), ("e", 2, 6));
        assert_eq!(lines.next().await.unwrap(), None);
    }
}
