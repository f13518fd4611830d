//! Frames to bytes and back. Every number has one spelling, so that decoding and encoding again gives the same bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Commit, Frame, FrameError, Generation, HEADER_BYTES, Kind, Named, Operation, Part, PartCommand, PartHead, VERSION,
};
use crate::log::Position;
use crate::slot::journal::{Change, CommandId};

/// The most bytes of a variable-length number.
pub(super) const VARINT_BYTES: usize = 10;
const CHECKSUM: std::ops::Range<usize> = 4..8;

const ANNOUNCE: u8 = 1;
const COMMIT: u8 = 2;
const HEARTBEAT: u8 = 3;
const RELEASE: u8 = 4;
const SNAPSHOT: u8 = 5;
const OPENED: u8 = 6;
const SEAL: u8 = 7;

/// The commit has a command id. Bit 1 is kept for events to publish and refused until it means something.
const COMMIT_NAMED: u8 = 1;

impl Frame {
    /// The frame as it is stored.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_BYTES + 64);
        out.put_u8(VERSION);
        out.put_u8(match &self.kind {
            Kind::Announce { .. } => ANNOUNCE,
            Kind::Commit { .. } => COMMIT,
            Kind::Heartbeat => HEARTBEAT,
            Kind::Release => RELEASE,
            Kind::Snapshot(_) => SNAPSHOT,
            Kind::Opened { .. } => OPENED,
            Kind::Seal { .. } => SEAL,
        });
        out.put_u16_le(0);
        out.put_u32_le(0);
        out.put_u32_le(self.slot);
        out.put_u64_le(self.epoch);
        out.put_u64_le(self.owner);
        out.put_u64_le(self.sequence);
        out.put_u64_le(self.known);
        out.put_u64_le(self.previous_hash);
        put_body(&mut out, &self.kind);
        let checksum = checksum(&out);
        out[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        out.freeze()
    }

    /// Reads a frame, refusing every byte that [`Frame::encode`] would not have written.
    ///
    /// # Errors
    /// What is wrong with the bytes, and where.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut read = Reader::new(bytes);
        let version = read.u8()?;
        if version != VERSION {
            return Err(FrameError::Version { version });
        }
        if bytes.len() < HEADER_BYTES {
            return Err(FrameError::Truncated { at: bytes.len() });
        }
        let kind = read.u8()?;
        let flags = read.u16()?;
        let (stored, computed) = (read.u32()?, checksum(bytes));
        if stored != computed {
            return Err(FrameError::Checksum { stored, computed });
        }
        if flags != 0 {
            return Err(FrameError::Unsupported { what: "flags", value: flags.into(), at: 2 });
        }
        let (slot, epoch, owner) = (read.u32()?, read.u64()?, read.u64()?);
        let (sequence, known, previous_hash) = (read.u64()?, read.u64()?, read.u64()?);
        let kind = body(&mut read, kind)?;
        read.end()?;
        Ok(Self { slot, epoch, owner, sequence, known, previous_hash, kind })
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let (head, tail) = bytes.split_at(CHECKSUM.start);
    crc32c::crc32c_append(crc32c::crc32c(head), &tail[CHECKSUM.len()..])
}

fn put_body(out: &mut BytesMut, kind: &Kind) {
    match kind {
        Kind::Announce { observed, previous_epoch, previous_last_sequence, previous_hash } => {
            put_option(out, observed.map(|position| position.0));
            put_varint(out, *previous_epoch);
            put_varint(out, *previous_last_sequence);
            out.put_u64_le(*previous_hash);
        }
        Kind::Commit { commits } => {
            put_varint(out, commits.len() as u64);
            for commit in commits {
                put_commit(out, commit);
            }
        }
        Kind::Heartbeat | Kind::Release => {}
        Kind::Snapshot(part) => {
            put_varint(out, part.heads.len() as u64);
            for head in &part.heads {
                out.put_u8(u8::from(head.value.is_some()));
                put_varint(out, head.revision);
                put_bytes(out, &head.key);
                if let Some(value) = &head.value {
                    put_bytes(out, value);
                }
            }
            put_varint(out, part.commands.len() as u64);
            for command in &part.commands {
                put_named(out, &command.named);
                put_varint(out, command.revision);
                put_varint(out, command.time_ms);
            }
        }
        Kind::Opened { revision, ordinal, previous, seal_hash } => {
            put_varint(out, *revision);
            put_varint(out, *ordinal);
            put_generation(out, *previous);
            out.put_u64_le(*seal_hash);
        }
        Kind::Seal { next } => put_generation(out, *next),
    }
}

fn put_commit(out: &mut BytesMut, commit: &Commit) {
    out.put_u8(if commit.command.is_some() { COMMIT_NAMED } else { 0 });
    if let Some(named) = &commit.command {
        put_named(out, named);
    }
    put_varint(out, commit.revision);
    put_varint(out, commit.time_ms);
    put_varint(out, commit.operations.len() as u64);
    for operation in &commit.operations {
        out.put_u8(u8::from(matches!(operation.change, Change::Put(_))));
        put_option(out, operation.expected);
        put_bytes(out, &operation.key);
        if let Change::Put(value) = &operation.change {
            put_bytes(out, value);
        }
    }
}

fn put_named(out: &mut BytesMut, named: &Named) {
    out.put_u128_le(named.id.0);
    out.put_u64_le(named.hash);
}

fn put_generation(out: &mut BytesMut, generation: Generation) {
    out.put_u64_le(generation.epoch);
    out.put_u64_le(generation.suffix);
}

pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// None as 0, and a number as one more than it is. No position or revision reaches the largest number.
pub(crate) fn put_option(out: &mut BytesMut, number: Option<u64>) {
    put_varint(out, number.map_or(0, |number| number.saturating_add(1)));
}

pub(crate) fn put_varint(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn body(read: &mut Reader<'_>, kind: u8) -> Result<Kind, FrameError> {
    Ok(match kind {
        ANNOUNCE => Kind::Announce {
            observed: read.option()?.map(Position),
            previous_epoch: read.varint()?,
            previous_last_sequence: read.varint()?,
            previous_hash: read.u64()?,
        },
        COMMIT => {
            let at = read.at;
            let commits = read.list(commit)?;
            if commits.is_empty() {
                return Err(FrameError::Malformed { what: "no commit", at });
            }
            Kind::Commit { commits }
        }
        HEARTBEAT => Kind::Heartbeat,
        RELEASE => Kind::Release,
        SNAPSHOT => Kind::Snapshot(Part {
            heads: read.list(|read| {
                let present = read.bool("presence")?;
                let revision = read.varint()?;
                let key = read.bytes()?;
                let value = if present { Some(read.bytes()?) } else { None };
                Ok(PartHead { key, revision, value })
            })?,
            commands: read.list(|read| {
                Ok(PartCommand { named: read.named()?, revision: read.varint()?, time_ms: read.varint()? })
            })?,
        }),
        OPENED => Kind::Opened {
            revision: read.varint()?,
            ordinal: read.varint()?,
            previous: read.generation()?,
            seal_hash: read.u64()?,
        },
        SEAL => Kind::Seal { next: read.generation()? },
        other => return Err(FrameError::Unsupported { what: "kind", value: other.into(), at: 1 }),
    })
}

fn commit(read: &mut Reader<'_>) -> Result<Commit, FrameError> {
    let at = read.at;
    let flags = read.u8()?;
    if flags & !COMMIT_NAMED != 0 {
        return Err(FrameError::Unsupported { what: "commit flags", value: flags.into(), at });
    }
    Ok(Commit {
        command: if flags & COMMIT_NAMED != 0 { Some(read.named()?) } else { None },
        revision: read.varint()?,
        time_ms: read.varint()?,
        operations: read.list(|read| {
            let put = read.bool("change")?;
            let expected = read.option()?;
            let key = read.bytes()?;
            let change = if put { Change::Put(read.bytes()?) } else { Change::Delete };
            Ok(Operation { key, expected, change })
        })?,
    })
}

/// Bytes that are read from their begin to their end.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Refuses bytes behind what was read.
    pub(crate) fn end(&self) -> Result<(), FrameError> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(FrameError::Malformed { what: "bytes behind its end", at: self.at })
        }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], FrameError> {
        let taken = self.bytes[self.at..].get(..count).ok_or(FrameError::Truncated { at: self.bytes.len() })?;
        self.at += count;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FrameError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FrameError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn bool(&mut self, what: &'static str) -> Result<bool, FrameError> {
        let at = self.at;
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(FrameError::Unsupported { what, value: other.into(), at }),
        }
    }

    pub(crate) fn varint(&mut self) -> Result<u64, FrameError> {
        let at = self.at;
        let mut number = 0_u64;
        for index in 0..VARINT_BYTES {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if index == VARINT_BYTES - 1 && bits > 1 {
                return Err(FrameError::Malformed { what: "a number beyond 64 bits", at });
            }
            number |= bits << (7 * index);
            if byte & 0x80 == 0 {
                if byte == 0 && index > 0 {
                    return Err(FrameError::Malformed { what: "a number with a needless byte", at });
                }
                return Ok(number);
            }
        }
        Err(FrameError::Malformed { what: "a number without end", at })
    }

    pub(crate) fn option(&mut self) -> Result<Option<u64>, FrameError> {
        Ok(self.varint()?.checked_sub(1))
    }

    /// A copy: what stays in memory must not hold the whole frame there.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, FrameError> {
        let length = self.varint()?;
        let length = usize::try_from(length).map_err(|_| FrameError::Truncated { at: self.bytes.len() })?;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    pub(crate) fn named(&mut self) -> Result<Named, FrameError> {
        Ok(Named { id: CommandId(u128::from_le_bytes(self.array()?)), hash: self.u64()? })
    }

    pub(crate) fn generation(&mut self) -> Result<Generation, FrameError> {
        Ok(Generation { epoch: self.u64()?, suffix: self.u64()? })
    }

    /// A count and as many items. The list grows with what is read, never to what the count claims.
    pub(crate) fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, FrameError>) -> Result<Vec<T>, FrameError> {
        let count = self.varint()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}
