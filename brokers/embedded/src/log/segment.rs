//! The two frames that only segments have: the one that begins it and the one that seals it (FORMAT.md).

use tidegate_backbone::LogId;

use crate::log::frame::{HEADER_BYTES, frame_bytes};
use crate::name;

/// One log in the directory that begins a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) log: u32,
    pub(crate) begin: u64,
    pub(crate) next: u64,
    pub(crate) appended_last: u64,
    pub(crate) id: LogId,
}

/// The body of a segment frame: the whole state when the segment began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Beginning {
    pub(crate) number: u64,
    pub(crate) next_log: u32,
    pub(crate) logs: Vec<Entry>,
}

/// Takes numbers off the front of a slice.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

impl Beginning {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.logs.len() * 80);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.next_log.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.logs.len()).unwrap_or(u32::MAX).to_le_bytes());
        let mut identity = Vec::new();
        for entry in &self.logs {
            identity.clear();
            name::encode(&entry.id, &mut identity);
            bytes.extend_from_slice(&entry.log.to_le_bytes());
            bytes.extend_from_slice(&entry.begin.to_le_bytes());
            bytes.extend_from_slice(&entry.next.to_le_bytes());
            bytes.extend_from_slice(&entry.appended_last.to_le_bytes());
            bytes.extend_from_slice(&u16::try_from(identity.len()).unwrap_or(u16::MAX).to_le_bytes());
            bytes.extend_from_slice(&identity);
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        let number = cursor.u64()?;
        let next_log = cursor.u32()?;
        let count = cursor.u32()?;
        let mut logs = Vec::new();
        for _ in 0..count {
            let (log, begin, next, appended_last) = (cursor.u32()?, cursor.u64()?, cursor.u64()?, cursor.u64()?);
            let length = usize::from(cursor.u16()?);
            let id = name::decode(cursor.take(length)?)?;
            logs.push(Entry { log, begin, next, appended_last, id });
        }
        cursor.0.is_empty().then_some(Self { number, next_log, logs })
    }
}

/// The body of a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) number: u64,
    pub(crate) first_lsn: u64,
    pub(crate) frames: u64,
    pub(crate) length: u64,
}

impl Footer {
    pub(crate) const BODY_BYTES: usize = 32;

    /// The bytes that the whole frame takes.
    pub(crate) fn frame_bytes() -> u64 {
        frame_bytes(Self::BODY_BYTES)
    }

    pub(crate) fn encode(&self) -> [u8; Self::BODY_BYTES] {
        let mut bytes = [0; Self::BODY_BYTES];
        for (place, value) in bytes.chunks_exact_mut(8).zip([self.number, self.first_lsn, self.frames, self.length]) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        let footer =
            Self { number: cursor.u64()?, first_lsn: cursor.u64()?, frames: cursor.u64()?, length: cursor.u64()? };
        cursor.0.is_empty().then_some(footer)
    }
}

// The footer is found from the end of the file, so its size is fixed.
const _: () = assert!((HEADER_BYTES + Footer::BODY_BYTES).is_multiple_of(8));
