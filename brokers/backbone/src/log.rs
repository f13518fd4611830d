//! The contract of an adapter: partition logs. The promises are in the crate's documentation.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tidegate_schemas::Event;

use crate::capability::{Capability, Durability};
use crate::error::Result;

/// A boxed future: one allocation for each call of a broker is nothing beside the call.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which log is meant. An adapter maps it to a name of its broker's; nothing else invents physical names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogId {
    /// One partition of a topic: users' events, readable by any other client of the broker.
    Topic {
        /// The topic's name, in its one canonical form.
        topic: ByteString,
        /// Zero-based.
        partition: u32,
    },
    /// One generation of a slot's journal: frames.
    Slot {
        /// Zero-based.
        slot: u32,
        /// The epoch of the owner that began the generation; 0 for the first one.
        epoch: u64,
        /// Random, so that two owners that roll at once never write the same log; 0 for the first one.
        suffix: u64,
    },
    /// The outcomes of a slot's deliveries: frames, trimmed by age.
    Outcomes {
        /// Zero-based.
        slot: u32,
    },
}

impl fmt::Display for LogId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic { topic, partition } => write!(formatter, "topic {topic} partition {partition}"),
            Self::Slot { slot, epoch, suffix } => write!(formatter, "slot {slot} generation {epoch}-{suffix:016x}"),
            Self::Outcomes { slot } => write!(formatter, "outcomes of slot {slot}"),
        }
    }
}

/// A place in one log. Positions of one log increase; on some brokers they have gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Where an empty log begins.
    pub const ZERO: Self = Self(0);

    /// The position right behind this one, which is the earliest that the next record can have.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What is appended: an event to a topic log, in the broker's own CloudEvents binding, or a frame of ours to a slot's.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every record is an event, and a box would cost each an allocation"
)]
pub enum Record {
    /// A user's event.
    Event(Event),
    /// An opaque frame of a slot or its outcomes.
    Frame(Bytes),
}

impl Record {
    /// What it counts for where bytes are bounded.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Event(event) => event.bytes(),
            Self::Frame(frame) => frame.len(),
        }
    }
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Where it stands.
    pub position: Position,
    /// When the broker took it, in milliseconds since 1970: not before the append began, never decreasing in a log.
    pub appended_at: u64,
    /// What it is.
    pub record: Record,
}

impl Stored {
    /// What it counts for where bytes are bounded: the record, and about what is kept around it.
    pub fn bytes(&self) -> usize {
        const AROUND_BYTES: usize = 64;
        AROUND_BYTES + self.record.bytes()
    }
}

/// What an acknowledged append tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where the record stands, on brokers that tell it ([`Capability::positions_acknowledged`]).
    pub position: Option<Position>,
}

/// What is created and deleted as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSpec {
    /// A topic with all its partitions.
    Topic {
        /// The topic's name.
        topic: ByteString,
        /// How many partitions it has.
        partitions: u32,
    },
    /// One generation of a slot's journal, or a slot's outcomes.
    Single(LogId),
}

impl LogSpec {
    /// A topic with that many partitions.
    pub fn topic(topic: impl Into<ByteString>, partitions: u32) -> Self {
        Self::Topic { topic: topic.into(), partitions }
    }

    /// The logs that it stands for.
    pub fn logs(&self) -> Vec<LogId> {
        match self {
            Self::Topic { topic, partitions } => {
                (0..*partitions).map(|partition| LogId::Topic { topic: topic.clone(), partition }).collect()
            }
            Self::Single(id) => vec![id.clone()],
        }
    }
}

/// That log by itself; for a topic's partition the topic up to it.
impl From<LogId> for LogSpec {
    fn from(id: LogId) -> Self {
        match id {
            LogId::Topic { topic, partition } => Self::Topic { topic, partitions: partition + 1 },
            id => Self::Single(id),
        }
    }
}

/// What is known of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogInfo {
    /// Which.
    pub id: LogId,
    /// The first position that can be read: [`LogInfo::end`] where the log is empty.
    pub begin: Position,
    /// The position that the next record gets at the earliest: a tail that has given every record stands there, or comes
    /// there with an empty batch.
    pub end: Position,
    /// The bytes that its records take; an estimate, or 0, where the broker does not tell.
    pub bytes: u64,
}

/// Some records in the order of the log.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The records. Empty only where a [`Tail`] has passed places that hold none (see [`Tail::next`]).
    pub records: Vec<Stored>,
}

/// A reader that follows one log.
pub trait Tail: Send {
    /// The next records, waiting for one where the log has no more; at most about `bytes_max`, though one record larger
    /// than that is given alone.
    ///
    /// On brokers whose positions have gaps the batch may be empty: then [`Tail::position`] has moved over places that
    /// hold no record. Whoever reads up to an end gets there, and is not left waiting for a record that stands behind it.
    ///
    /// May be dropped while it waits, without losing a record.
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Batch>>;

    /// Where the next record will be looked for.
    fn position(&self) -> Position;
}

/// What an adapter implements: durable, totally ordered, append-only logs.
pub trait PartitionLog: Send + Sync + fmt::Debug {
    /// What this broker can do.
    fn capability(&self) -> &Capability;

    /// Creates what does not exist of it; done durably when it returns. Nothing else ever creates a log. A topic that is
    /// there with another number of partitions is [`crate::ErrorKind::Conflict`].
    fn create(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>>;

    /// Deletes it with its records, durably. What is not there is no error. A topic that was attached is let go of, and
    /// stays on the broker with all that it holds.
    fn delete(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>>;

    /// Makes a topic of somebody else's, by the name that it has on the broker, readable and writable as `topic`; gives its
    /// number of partitions. The adapter remembers it until it is closed, no longer: whoever opens it attaches again.
    /// Attaching is reading: nothing on the broker is created or changed.
    fn attach<'a>(&'a self, topic: &'a str, to: &'a str) -> BoxFuture<'a, Result<u32>> {
        Box::pin(std::future::ready(Err(crate::Error::new(
            crate::ErrorKind::Misconfigured,
            format!(
                "topic {topic} cannot be attached to {to}: the {} backbone holds no topics of others",
                self.capability().broker
            ),
        ))))
    }

    /// As [`PartitionLog::attach`], of a topic on another broker, which has that name here ([`crate::bridge::Bridges`]).
    fn attach_on<'a>(&'a self, broker: &'a str, topic: &'a str, to: &'a str) -> BoxFuture<'a, Result<u32>> {
        Box::pin(std::future::ready(Err(crate::Error::new(
            crate::ErrorKind::Misconfigured,
            format!("topic {topic} cannot be attached to {to} on {broker}: no other brokers are known here"),
        ))))
    }

    /// What an acknowledged append to a topic survives: what the broker can do, where all topics are on one.
    fn durability_of(&self, _topic: &str) -> Durability {
        self.capability().durability
    }

    /// Every log that exists. Begin and end of a topic's partition may be those of the whole topic here, where a broker would
    /// have to be asked for each by itself; [`PartitionLog::info`] is exact.
    fn list(&self) -> BoxFuture<'_, Result<Vec<LogInfo>>>;

    /// The generations of a slot's journal that exist, by name alone. An adapter whose broker has to be asked for the ends of each
    /// log by itself does that here for none: whoever looks for a slot reads those of that slot, and does not want the others.
    fn generations(&self, slot: u32) -> BoxFuture<'_, Result<Vec<LogId>>> {
        Box::pin(async move {
            let ids = self.list().await?.into_iter().map(|info| info.id);
            Ok(ids.filter(|id| matches!(id, LogId::Slot { slot: of, .. } if *of == slot)).collect())
        })
    }

    /// What is known of one log; its end is linearizable with appends.
    fn info<'a>(&'a self, id: &'a LogId) -> BoxFuture<'a, Result<LogInfo>>;

    /// How many records stand at that position or behind it. Where positions have no gaps that is the way to the end, which is
    /// what is given here. An adapter whose broker leaves positions out gives what its broker counts, or this where that
    /// counts nothing: then there are no more records than that.
    fn count<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let info = self.info(id).await?;
            Ok(info.end.0.saturating_sub(from.max(info.begin).0))
        })
    }

    /// Appends a record. It is queued when this is called, not when the future is first polled: calls made one after the
    /// other keep their order. Dropping the future does not undo it.
    fn append(&self, id: &LogId, record: Record) -> BoxFuture<'static, Result<Appended>>;

    /// Follows the log from a position on: inclusive; one beyond the end waits for it.
    fn tail<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<Box<dyn Tail>>>;

    /// The first position whose record was appended at or after that time, or the end; never later than asked.
    fn lookup(&self, id: &LogId, unix_milliseconds: u64) -> BoxFuture<'_, Result<Position>>;

    /// Lets go of every record before that position. Space is given back when the broker finds it convenient.
    fn trim<'a>(&'a self, id: &'a LogId, before: Position) -> BoxFuture<'a, Result<()>>;

    /// Ends what the adapter runs, at the end of all else. Appends that were acknowledged stay; new ones fail.
    fn close(&self) -> BoxFuture<'_, ()>;
}
