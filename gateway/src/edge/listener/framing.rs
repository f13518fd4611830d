/// Looks over the header block of an HTTP/1 request, as it comes, for both `Content-Length` and `Transfer-Encoding`.
///
/// Two readers that choose differently between them see two different requests (RFC 9112 6.1). The parser below the
/// gateway keeps the one and drops the other without a word, so they are looked for before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Framing {
    name: [u8; NAME_BYTES],
    length: usize,
    /// Behind the colon of a line, or in a name that is too long to matter.
    skip: bool,
    began: bool,
    content_length: bool,
    transfer_encoding: bool,
    complete: bool,
}

/// The longer of the two names.
const NAME_BYTES: usize = b"transfer-encoding".len();

impl Framing {
    /// Takes the next bytes; what follows the header block is left alone.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.complete {
                return;
            }
            self.step(byte);
        }
    }

    fn step(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                // An empty line ends the block, unless nothing came before it.
                self.complete = self.began && self.length == 0 && !self.skip;
                self.began |= self.length > 0 || self.skip;
                self.length = 0;
                self.skip = false;
            }
            b'\r' => {}
            _ if self.skip => {}
            b':' => {
                let name = &self.name[..self.length];
                self.content_length |= name.eq_ignore_ascii_case(b"content-length");
                self.transfer_encoding |= name.eq_ignore_ascii_case(b"transfer-encoding");
                self.skip = true;
            }
            _ if self.length == NAME_BYTES => self.skip = true,
            _ => {
                self.name[self.length] = byte;
                self.length += 1;
            }
        }
    }

    /// Whether the whole block was seen.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether it gives the body's length in both ways.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.content_length && self.transfer_encoding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lengths_are_found_however_the_bytes_are_cut() {
        let cases = [
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", true, false),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", true, true),
            ("\r\nPOST / HTTP/1.1\r\ntransfer-ENCODING:chunked\r\nx: y\r\ncontent-length:0\r\n\r\n", true, true),
            ("POST / HTTP/1.1\nTransfer-Encoding: chunked\nContent-Length: 1\n\n", true, true),
            ("POST / HTTP/1.1\r\nx: content-length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", true, false),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nContent-Length: 3\r\n\r\n", true, false),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n", false, true),
            ("POST / HTTP/1.1\r\nx-content-length: 3\r\nTransfer-Encoding-Not: chunked\r\n\r\n", true, false),
        ];
        for (text, complete, ambiguous) in cases {
            for cut in 0..text.len() {
                let mut framing = Framing::default();
                framing.read(&text.as_bytes()[..cut]);
                framing.read(&text.as_bytes()[cut..]);
                assert_eq!((framing.is_complete(), framing.is_ambiguous()), (complete, ambiguous), "{text:?} at {cut}");
            }
        }
    }
}
