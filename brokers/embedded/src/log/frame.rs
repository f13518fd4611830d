//! Frames: the header that every stored thing begins with (FORMAT.md, Frame).

use std::fmt;

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 64;
/// Frames begin at multiples of this.
pub(crate) const ALIGNMENT: u64 = 8;
/// The first bytes of each frame.
pub(crate) const MAGIC: [u8; 4] = *b"TGLF";
const VERSION: u8 = 1;

/// What every header's checksum begins with; from the manifest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) [u8; 16]);

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key")
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Segment = 1,
    Event = 2,
    Frame = 3,
    Create = 4,
    Delete = 5,
    Trim = 6,
    EventCopy = 7,
    FrameCopy = 8,
    Boot = 9,
    Footer = 10,
    Mark = 11,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Segment,
            2 => Self::Event,
            3 => Self::Frame,
            4 => Self::Create,
            5 => Self::Delete,
            6 => Self::Trim,
            7 => Self::EventCopy,
            8 => Self::FrameCopy,
            9 => Self::Boot,
            10 => Self::Footer,
            11 => Self::Mark,
            _ => return None,
        })
    }

    /// Whether it holds a record of a log.
    pub(crate) fn is_record(self) -> bool {
        matches!(self, Self::Event | Self::Frame | Self::EventCopy | Self::FrameCopy)
    }

    /// The kind under which a record is copied forward.
    pub(crate) fn copied(self) -> Self {
        match self {
            Self::Event => Self::EventCopy,
            Self::Frame => Self::FrameCopy,
            other => other,
        }
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) boot: u64,
    pub(crate) lsn: u64,
    pub(crate) durable_upto: u64,
    pub(crate) log: u32,
    pub(crate) length: u32,
    pub(crate) position: u64,
    pub(crate) appended_at: u64,
    pub(crate) body_crc: u32,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// They do not begin as one, or the checksum differs.
    Damaged,
    /// A newer program wrote it: the checksum is right, the version or kind is not known.
    Newer { version: u8, kind: u8 },
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl Header {
    /// The stored form.
    pub(crate) fn encode(&self, key: Key) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.kind as u8;
        bytes[8..16].copy_from_slice(&self.boot.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lsn.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.durable_upto.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.log.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.length.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.position.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.appended_at.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = checksum(key, &bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the stored form; everything in it can be trusted when it is given.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES], key: Key) -> Result<Self, Bad> {
        if bytes[0..4] != MAGIC || u32_at(bytes, 60) != checksum(key, &bytes[..60]) {
            return Err(Bad::Damaged);
        }
        let newer = Bad::Newer { version: bytes[4], kind: bytes[5] };
        if bytes[4] != VERSION || bytes[6..8] != [0, 0] {
            return Err(newer);
        }
        Ok(Self {
            kind: Kind::from_byte(bytes[5]).ok_or(newer)?,
            boot: u64_at(bytes, 8),
            lsn: u64_at(bytes, 16),
            durable_upto: u64_at(bytes, 24),
            log: u32_at(bytes, 32),
            length: u32_at(bytes, 36),
            position: u64_at(bytes, 40),
            appended_at: u64_at(bytes, 48),
            body_crc: u32_at(bytes, 56),
        })
    }

    /// The bytes of the frame: header, body, padding.
    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(self.length as usize)
    }
}

fn checksum(key: Key, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&key.0), bytes)
}

/// The bytes of a frame with a body of that length.
pub(crate) fn frame_bytes(body: usize) -> u64 {
    ((HEADER_BYTES + body) as u64).next_multiple_of(ALIGNMENT)
}

/// Appends a whole frame.
pub(crate) fn put(buffer: &mut Vec<u8>, key: Key, header: &Header, body: &[u8]) {
    buffer.extend_from_slice(&header.encode(key));
    buffer.extend_from_slice(body);
    buffer.resize(buffer.len().next_multiple_of(ALIGNMENT as usize), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let key = Key([7; 16]);
        let header = Header {
            kind: Kind::Event,
            boot: 1,
            lsn: 2,
            durable_upto: 1,
            log: 4,
            length: 5,
            position: 6,
            appended_at: 7,
            body_crc: 8,
        };
        let bytes = header.encode(key);
        assert_eq!(Header::decode(&bytes, key), Ok(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped, key), Err(Bad::Damaged), "bit {bit}");
        }
        assert_eq!(Header::decode(&bytes, Key([8; 16])), Err(Bad::Damaged), "another directory's frame");
    }
}
