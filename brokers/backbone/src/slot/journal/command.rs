//! What a journal is asked, and what it answers.

use std::time::Duration;

use bytes::Bytes;

/// The caller's name for one command: the same id is executed once, however often it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u128);

/// What a key must be for the command to take effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Whatever it is.
    #[default]
    Any,
    /// Not there: never written, or deleted.
    Absent,
    /// Last written at that revision, and still there.
    Revision(u64),
}

/// What becomes of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has that value.
    Put(Bytes),
    /// It is not there.
    Delete,
}

/// One key of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which key.
    pub key: Bytes,
    /// What it must be.
    pub expect: Expect,
    /// What it becomes.
    pub change: Change,
}

/// Changes that take effect together or not at all.
///
/// Every expectation is judged against the state before the command; a key stands in it at most once. A command without
/// steps writes nothing but takes a revision, which makes it a barrier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// By which it is recognised when it is sent again.
    pub id: Option<CommandId>,
    /// What it does.
    pub steps: Vec<Step>,
}

impl Command {
    /// A command without id and steps.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the command.
    pub fn id(mut self, id: CommandId) -> Self {
        self.id = Some(id);
        self
    }

    /// Adds a put.
    pub fn put(mut self, key: impl Into<Bytes>, expect: Expect, value: impl Into<Bytes>) -> Self {
        self.steps.push(Step { key: key.into(), expect, change: Change::Put(value.into()) });
        self
    }

    /// Adds a delete. Deleting what is not there is no error unless the expectation says so.
    pub fn delete(mut self, key: impl Into<Bytes>, expect: Expect) -> Self {
        self.steps.push(Step { key: key.into(), expect, change: Change::Delete });
        self
    }
}

/// A command took effect and is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The revision that it made: commits of a slot are numbered 1, 2, 3, over all its owners and generations.
    pub revision: u64,
    /// Whether it had taken effect before, under the same id, and nothing was written now.
    pub repeated: bool,
}

/// Why a command was not committed. Only [`CommitError::Unknown`] leaves open whether it took effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A key is not what was expected.
    #[error("key {key:?} is at revision {current:?}, which is not what the command expects")]
    Conflict {
        /// The first key that differs.
        key: Bytes,
        /// The revision that it has; none where it is not there.
        current: Option<u64>,
    },
    /// The command's id belongs to another command, which took effect.
    #[error("command id {id:?} was used for another command, committed at revision {revision}; take a new id")]
    CommandReused {
        /// The id.
        id: CommandId,
        /// What the other command made.
        revision: u64,
    },
    /// A key stands in the command more than once.
    #[error("key {key:?} stands in the command more than once; merge its steps")]
    RepeatedKey {
        /// The key.
        key: Bytes,
    },
    /// Another owner has taken the slot over; the command had no effect.
    #[error("the slot has another owner since epoch {epoch}; send the command there")]
    Fenced {
        /// The epoch of the new owner.
        epoch: u64,
    },
    /// The command does not fit into one frame.
    #[error("the command takes {bytes} bytes, the most is {limit_bytes}; split it")]
    TooLarge {
        /// What it takes.
        bytes: usize,
        /// The most that it may take.
        limit_bytes: usize,
    },
    /// It may have taken effect, or may yet. Send it again with the same id, to this owner or the next.
    #[error("whether the command took effect is not known: {reason}; send it again under the same id")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// The broker cannot be reached; the command had no effect.
    #[error("the slot's log cannot be reached: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// Too many commands wait; the command had no effect.
    #[error("too many commands wait; try again in {retry_after:?}")]
    Backpressure {
        /// How long to wait before the next try.
        retry_after: Duration,
    },
    /// Records that were acknowledged are gone or damaged; nothing is committed until the slot is opened anew.
    #[error("the slot's log lost records or they are damaged: {reason}")]
    DataLoss {
        /// What differs, and where.
        reason: String,
    },
    /// The journal is closed; the command had no effect.
    #[error("the journal is closed")]
    Closed,
}

/// What a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The revision that wrote it.
    pub revision: u64,
    /// Its value.
    pub value: Bytes,
}
