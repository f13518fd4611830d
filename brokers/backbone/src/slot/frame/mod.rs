//! The stored format of a slot's log, version 1. `docs/SLOT.md` describes it byte by byte.

pub(crate) mod codec;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::log::{LogId, Position};
use crate::slot::accept::{Link, Step};
use crate::slot::journal::{Change, CommandId};

/// The version that is written, and the only one that is read.
pub const VERSION: u8 = 1;
/// The bytes before a frame's body.
pub const HEADER_BYTES: usize = 52;

/// One generation of a slot: a log of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// The epoch of the owner that began it; 0 for the first.
    pub epoch: u64,
    /// Random; 0 for the first.
    pub suffix: u64,
}

impl Generation {
    /// Where every slot begins.
    pub const FIRST: Self = Self { epoch: 0, suffix: 0 };

    /// The log of this generation.
    pub fn log(self, slot: u32) -> LogId {
        LogId::Slot { slot, epoch: self.epoch, suffix: self.suffix }
    }

    /// What the first frame of the log names as the hash before it: a frame copied into another log is never its first.
    pub fn genesis(self, slot: u32) -> u64 {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&slot.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[12..].copy_from_slice(&self.suffix.to_le_bytes());
        hash(&bytes)
    }
}

/// The hash by which frames are chained: of all their bytes, the hash of the frame before among them.
pub fn hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// A frame: what an owner writes into a slot's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which slot.
    pub slot: u32,
    /// The epoch of the owner that wrote it.
    pub epoch: u64,
    /// The instance that wrote it, random for each attempt to own a slot.
    pub owner: u64,
    /// Within the epoch and the log: 0 for the Announce, or the first snapshot frame of a generation, then 1, 2, 3.
    pub sequence: u64,
    /// The sequence up to which the owner knew its frames accepted when it first sent this one. A reader that misses one
    /// of those has lost a record that may have been acknowledged.
    pub known: u64,
    /// The hash of the accepted frame before this one; [`Generation::genesis`] before the first.
    pub previous_hash: u64,
    /// What it says.
    pub kind: Kind,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Begins an epoch.
    Announce {
        /// The last position that the candidate had read; none in an empty log.
        observed: Option<Position>,
        /// The epoch before, as the candidate saw it.
        previous_epoch: u64,
        /// The sequence of the last frame accepted in that epoch.
        previous_last_sequence: u64,
        /// The hash of that frame, which is the frame's `previous_hash` as well.
        previous_hash: u64,
    },
    /// Changes of keys.
    Commit {
        /// In the order of their revisions, at least one.
        commits: Vec<Commit>,
    },
    /// The owner is alive.
    Heartbeat,
    /// The owner writes no more.
    Release,
    /// A part of what a generation begins with.
    Snapshot(Part),
    /// The snapshot is complete.
    Opened {
        /// The revision that the snapshot stands for.
        revision: u64,
        /// Generations of the slot before this one.
        ordinal: u64,
        /// The generation before.
        previous: Generation,
        /// The hash of the accepted Seal there.
        seal_hash: u64,
    },
    /// The generation ends, and the named one goes on.
    Seal {
        /// Which goes on.
        next: Generation,
    },
}

/// A command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The caller's name for it.
    pub command: Option<Named>,
    /// Commits of the slot are numbered 1, 2, 3, over all epochs and generations.
    pub revision: u64,
    /// When the owner took it, in milliseconds since 1970; for people and for forgetting command ids, never for order.
    pub time_ms: u64,
    /// What it changed.
    pub operations: Vec<Operation>,
}

/// A command's id and the hash of what it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The caller's name for it.
    pub id: CommandId,
    /// The same id with another hash is another command.
    pub hash: u64,
}

/// The change of one key. Its new revision is that of its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which key.
    pub key: Bytes,
    /// The revision that the owner saw before; none where the key was not there. Readers assert it.
    pub expected: Option<u64>,
    /// What becomes of it.
    pub change: Change,
}

/// Some keys and commands of a snapshot. Later parts win over earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Keys.
    pub heads: Vec<PartHead>,
    /// Commands that are remembered.
    pub commands: Vec<PartCommand>,
}

/// A key of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartHead {
    /// Which.
    pub key: Bytes,
    /// The revision that wrote it.
    pub revision: u64,
    /// Its value; none where it was deleted since an earlier part.
    pub value: Option<Bytes>,
}

/// A remembered command of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartCommand {
    /// Which.
    pub named: Named,
    /// The revision that it made.
    pub revision: u64,
    /// When it was taken.
    pub time_ms: u64,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It ends early.
    #[error("the frame ends at byte {at} in the middle of a field")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// Another version wrote it.
    #[error(
        "the frame has version {version}, this program reads {VERSION}; run the program that wrote it or a newer one"
    )]
    Version {
        /// Which.
        version: u8,
    },
    /// The checksum differs.
    #[error("the frame's checksum is {stored:08x} but its bytes give {computed:08x}; it is damaged")]
    Checksum {
        /// What stands in it.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// A kind or bit that this version does not know.
    #[error("the frame has {what} {value:#x} at byte {at}, which this program does not know")]
    Unsupported {
        /// What it is.
        what: &'static str,
        /// Its value.
        value: u64,
        /// Where.
        at: usize,
    },
    /// Bytes behind the end, a number that is written too long, or a count of zero.
    #[error("the frame has {what} at byte {at}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: usize,
    },
}

impl Frame {
    /// What the accept rule looks at. `hash` is that of the encoded frame.
    pub fn link(&self, hash: u64) -> Link {
        let step = match &self.kind {
            Kind::Announce { observed, previous_epoch, previous_last_sequence, previous_hash } => Step::Announce {
                observed: *observed,
                previous_epoch: *previous_epoch,
                previous_last_sequence: *previous_last_sequence,
                previous_hash: *previous_hash,
            },
            Kind::Commit { commits } => Step::Commit {
                revision: commits.first().map_or(0, |commit| commit.revision),
                commits: commits.len() as u64,
            },
            Kind::Heartbeat => Step::Heartbeat,
            Kind::Release => Step::Release,
            Kind::Snapshot(_) => Step::Snapshot,
            Kind::Opened { revision, ordinal, .. } => Step::Opened { revision: *revision, ordinal: *ordinal },
            Kind::Seal { next } => Step::Seal { next: *next },
        };
        Link {
            slot: self.slot,
            epoch: self.epoch,
            owner: self.owner,
            sequence: self.sequence,
            known: self.known,
            previous_hash: self.previous_hash,
            hash,
            step,
        }
    }
}

impl Commit {
    /// The most bytes that it takes in a frame.
    pub fn bytes_bound(&self) -> usize {
        self.operations.iter().map(Operation::bytes_bound).sum::<usize>() + 1 + 24 + 3 * codec::VARINT_BYTES
    }
}

impl Operation {
    fn bytes_bound(&self) -> usize {
        let value = if let Change::Put(value) = &self.change { value.len() } else { 0 };
        self.key.len() + value + 1 + 3 * codec::VARINT_BYTES
    }
}

impl PartHead {
    /// The most bytes that it takes in a frame.
    pub fn bytes_bound(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len) + 1 + 3 * codec::VARINT_BYTES
    }
}

impl PartCommand {
    /// The most bytes that it takes in a frame.
    pub const BYTES_BOUND: usize = 24 + 2 * codec::VARINT_BYTES;
}
