//! The stored form of a run: blocks of sorted entries and a footer. `docs/PASSPORTS.md` describes it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tidegate_routing::TopicName;
use xxhash_rust::xxh3::xxh3_64;

use crate::consume::outcomes::{open_frame, seal_frame};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Position;

pub(super) const BLOCK_MAGIC: &[u8; 4] = b"TGPB";
pub(super) const FOOTER_MAGIC: &[u8; 4] = b"TGPF";
/// Entries of one block.
pub(super) const BLOCK_ENTRIES: usize = 2_048;
const ENTRY_BYTES: usize = 16;
const BLOCK_HEADER_BYTES: usize = 12;
const SOURCE_BITS: u32 = 24;
const HASH_SHIFT: u32 = 72;
const LOG_SHIFT: u32 = 48;
const LOG_MASK: u128 = (1 << (HASH_SHIFT - LOG_SHIFT)) - 1;
const POSITION_MASK: u128 = (1 << LOG_SHIFT) - 1;

/// The 56 bits by which an event is looked up: those of its id above those of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::consume) struct Hash(u64);

impl Hash {
    /// The hash of an event.
    pub(in crate::consume) fn of(source: &str, id: &str) -> Self {
        Self(of_id(id) | xxh3_64(source.as_bytes()) >> (64 - SOURCE_BITS))
    }
}

fn of_id(id: &str) -> u64 {
    (xxh3_64(id.as_bytes()) >> 32) << SOURCE_BITS
}

/// What is looked for: every hash from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) first: Hash,
    pub(super) last: Hash,
}

impl Wanted {
    /// Events of that id, and of that source where it is given.
    pub(super) fn new(id: &str, source: Option<&str>) -> Self {
        match source {
            Some(source) => Self { first: Hash::of(source, id), last: Hash::of(source, id) },
            None => Self { first: Hash(of_id(id)), last: Hash(of_id(id) | ((1 << SOURCE_BITS) - 1)) },
        }
    }

    pub(super) fn takes(&self, entry: Entry) -> bool {
        (self.first..=self.last).contains(&entry.hash())
    }
}

/// Where an event or a frame of outcomes stands: hash, number of the log, position. Entries sort by these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry(u128);

impl Entry {
    pub(super) fn new(hash: Hash, log: u32, position: Position) -> Self {
        let (log, position) = (u128::from(log) & LOG_MASK, u128::from(position.0) & POSITION_MASK);
        Self(u128::from(hash.0) << HASH_SHIFT | log << LOG_SHIFT | position)
    }

    pub(super) fn hash(self) -> Hash {
        Hash((self.0 >> HASH_SHIFT) as u64)
    }

    pub(super) fn log(self) -> u32 {
        ((self.0 >> LOG_SHIFT) & LOG_MASK) as u32
    }

    pub(super) fn position(self) -> Position {
        Position((self.0 & POSITION_MASK) as u64)
    }

    pub(super) fn with_log(self, log: u32) -> Self {
        Self::new(self.hash(), log, self.position())
    }
}

/// A log of a run's table, as the footer names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    /// Absent for the outcomes log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) topic: Option<TopicName>,
    #[serde(skip_serializing_if = "is_zero", default)]
    pub(super) partition: u32,
    #[serde(skip_serializing_if = "is_zero_u64", default)]
    pub(super) created: u64,
    pub(super) upto: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero_u64(number: &u64) -> bool {
    *number == 0
}

/// What is known of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Footer {
    pub(super) run: u64,
    pub(super) previous: Option<u64>,
    pub(super) logs: Vec<Listed>,
    /// The first hash of each block, and where the block stands.
    pub(super) blocks: Vec<(Hash, u64)>,
}

impl Footer {
    pub(super) fn encode(&self) -> Bytes {
        let body = serde_json::to_vec(self).expect("a footer is a struct of strings and numbers");
        seal_frame(FOOTER_MAGIC, &body)
    }

    pub(super) fn decode(frame: &[u8]) -> Result<Self> {
        let body = open_frame(FOOTER_MAGIC, frame)?;
        serde_json::from_slice(body).map_err(|error| refuse("a footer that cannot be read").with_source(error))
    }

    /// The blocks that can hold what is looked for, by number.
    pub(super) fn blocks_of(&self, wanted: Wanted) -> std::ops::Range<usize> {
        let end = self.blocks.partition_point(|(first, _)| *first <= wanted.last);
        // Equal hashes may have begun in the block before the first that starts with one.
        let start = self.blocks.partition_point(|(first, _)| *first < wanted.first).saturating_sub(1);
        start..end
    }
}

/// A block as it is stored.
pub(super) fn encode_block(run: u64, number: u32, entries: &[Entry]) -> Bytes {
    let mut body = BytesMut::with_capacity(BLOCK_HEADER_BYTES + entries.len() * ENTRY_BYTES);
    body.put_u64(run);
    body.put_u32(number);
    for entry in entries {
        body.put_u128(entry.0);
    }
    seal_frame(BLOCK_MAGIC, &body)
}

/// The entries of a block, where the frame is that block of that run; none for any other frame of the log.
pub(super) fn decode_block(run: u64, number: u32, frame: &[u8]) -> Result<Option<Vec<Entry>>> {
    if !frame.starts_with(BLOCK_MAGIC) {
        return Ok(None);
    }
    let mut body = open_frame(BLOCK_MAGIC, frame)?;
    if body.len() < BLOCK_HEADER_BYTES || !(body.len() - BLOCK_HEADER_BYTES).is_multiple_of(ENTRY_BYTES) {
        return Err(refuse("a block of an impossible length"));
    }
    if (body.get_u64(), body.get_u32()) != (run, number) {
        return Ok(None);
    }
    Ok(Some(body.chunks_exact(ENTRY_BYTES).map(|mut entry| Entry(entry.get_u128())).collect()))
}

fn refuse(what: &str) -> Error {
    Error::new(ErrorKind::DataLoss, format!("the index of passports holds {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_parts_and_sort_by_them() {
        let (one, other) = (Hash::of("/a", "1"), Hash::of("/b", "1"));
        let largest = Position(POSITION_MASK as u64);
        for entry in [Entry::new(one, 0, Position(7)), Entry::new(other, LOG_MASK as u32, largest)] {
            assert_eq!(Entry::new(entry.hash(), entry.log(), entry.position()), entry);
        }
        assert_eq!(Entry::new(other, 5, largest).with_log(9), Entry::new(other, 9, largest));
        assert!(Entry::new(one, 1, largest) < Entry::new(one, 2, Position(0)));
        let (of_id, of_pair) = (Wanted::new("1", None), Wanted::new("1", Some("/a")));
        for (hash, by_id, by_pair) in [(one, true, true), (other, true, false), (Hash::of("/a", "2"), false, false)] {
            let entry = Entry::new(hash, 3, Position(1));
            assert_eq!((of_id.takes(entry), of_pair.takes(entry)), (by_id, by_pair));
        }
    }

    #[test]
    fn a_block_is_found_by_its_first_hashes_and_damage_is_refused() {
        let mut entries: Vec<Entry> =
            (0..5_000).map(|n| Entry::new(Hash::of("/s", &(n % 3_000).to_string()), 0, Position(n))).collect();
        entries.sort_unstable();
        let blocks: Vec<&[Entry]> = entries.chunks(100).collect();
        let footer = Footer {
            run: 7,
            previous: None,
            logs: vec![Listed { topic: None, partition: 0, created: 0, upto: Some(9) }],
            blocks: blocks.iter().zip(0..).map(|(block, at)| (block[0].hash(), at)).collect(),
        };
        assert_eq!(Footer::decode(&footer.encode()).unwrap(), footer);
        for n in 0..3_000_u64 {
            let id = n.to_string();
            let wanted = Wanted::new(&id, (n % 2 == 0).then_some("/s"));
            let range = footer.blocks_of(wanted);
            assert!(range.len() <= 2, "{range:?}");
            let found: Vec<u64> = range
                .flat_map(|block| blocks[block])
                .filter(|entry| wanted.takes(**entry))
                .map(|e| e.position().0)
                .collect();
            let expected: Vec<u64> = if n < 2_000 { vec![n, n + 3_000] } else { vec![n] };
            assert_eq!(found, expected);
        }
        let frame = encode_block(7, 3, blocks[3]);
        assert_eq!(decode_block(7, 3, &frame).unwrap().unwrap(), blocks[3]);
        assert!(decode_block(7, 4, &frame).unwrap().is_none() && decode_block(8, 3, &frame).unwrap().is_none());
        for index in 0..frame.len() {
            let mut damaged = frame.to_vec();
            damaged[index] ^= 1;
            assert!(!matches!(decode_block(7, 3, &damaged), Ok(Some(_))), "a flipped bit at {index} was not seen");
        }
    }
}
