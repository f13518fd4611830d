//! What became of an event: where it stands, and for each subscription that reads there whether it was wanted, every
//! attempt, and where it ended.
//!
//! A passport is put together when it is asked for, from the event itself, the outcomes of its deliveries and how each
//! subscription stands at that moment. Attempts are what happened; whether a filter passes is judged by the
//! subscription as it is now, and [`Fate::changed_after`] says where it was another when the event came.

mod gather;
mod judge;
mod sight;

use std::sync::Arc;

use bytestring::ByteString;
use tidegate_routing::filter::Explanation;
use tidegate_schemas::Event;

use super::dead_letter::Cause;
use super::engine::Standing;
use super::letters::LetterId;
use super::outcomes::Outcome;
use crate::log::Position;

/// The answer to a question for an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Passports {
    /// One for each source that has an event of that id.
    pub passports: Vec<Passport>,
    /// What was searched.
    pub coverage: Coverage,
}

/// What was searched for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Events that were appended before this time, in milliseconds since 1970, are not looked for.
    pub searched_back_to: u64,
    /// Whether everything since then was searched. It is not while the index is read anew, or where a part is damaged.
    pub complete: bool,
    /// Whether there is more than is told.
    pub more: bool,
    /// The slots whose owner did not answer in time, or that have none: what happened in their partitions is not told.
    pub missing: Vec<u32>,
}

/// What became of the events of one id and source.
#[derive(Clone, Debug, PartialEq)]
pub struct Passport {
    /// Their `source`.
    pub source: ByteString,
    /// Their `id`.
    pub id: ByteString,
    /// Where such an event stands, in the order in which they were appended.
    pub places: Vec<Place>,
}

/// An event in a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The topic,
    pub topic: ByteString,
    /// the partition,
    pub partition: u32,
    /// and the position.
    pub position: Position,
    /// When it was appended, in milliseconds since 1970; unknown where it was trimmed.
    pub appended_at: Option<u64>,
    /// The event; nothing where it was trimmed.
    pub event: Option<Arc<Event>>,
    /// Whether it is dropped because an event of the same source and id came shortly before.
    pub duplicate: bool,
    /// Where that one stands, in the same partition.
    pub duplicate_of: Option<Position>,
    /// Why it is here, where it is a dead letter.
    pub dead_letter: Option<Cause>,
    /// What each subscription that reads the topic made of it.
    pub fates: Vec<Fate>,
}

/// What one subscription made of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Fate {
    /// Its name.
    pub subscription: ByteString,
    /// Where it delivers to; nothing where it is not there any more.
    pub sink: Option<String>,
    /// When it was created, in milliseconds since 1970, where that is known.
    pub created_at: Option<u64>,
    /// When it was changed, where that was after the event came: it may have judged by another filter then.
    pub changed_after: Option<u64>,
    /// Where the event is now.
    pub state: State,
    /// How the subscription stands, where that keeps the event waiting.
    pub hold: Option<Standing>,
    /// Every attempt that is known, in order.
    pub attempts: Vec<Outcome>,
    /// Its dead letters, each the one of the one before where it was redriven.
    pub letters: Vec<Letter>,
}

/// Where an event is with a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It came before the subscription began to read.
    NotYetSubscribed {
        /// Where the subscription began.
        begins_at: Position,
    },
    /// The subscription does not want it.
    Filtered(Explanation),
    /// It is dropped as a duplicate.
    Duplicate,
    /// The subscription has not come to it yet.
    Behind {
        /// Where it reads next.
        read: Position,
    },
    /// It waits in memory for a free place.
    Queued,
    /// It is out.
    InFlight {
        /// Which attempt this is, from 1.
        attempt: u32,
    },
    /// It waits for its next attempt.
    Waiting {
        /// Which attempt comes next, from 1.
        attempt: u32,
        /// When, at the earliest, in milliseconds since 1970.
        due: u64,
    },
    /// An event of the same key before it waits for its next attempt.
    KeyWaits {
        /// Where that one stands.
        head: Position,
        /// When it is tried again at the earliest, in milliseconds since 1970.
        due: u64,
    },
    /// The sink took it.
    Delivered {
        /// When, in milliseconds since 1970.
        at: u64,
    },
    /// It could not be delivered; the last of [`Fate::letters`] says why, where it is still there.
    DeadLettered,
    /// Its dead letter was dropped.
    Dropped,
    /// It was trimmed before it was delivered.
    Trimmed,
    /// The subscription is not there any more, or does not read the topic any more.
    Ended,
    /// It is settled, and no outcome tells how: it was lost in a crash, or is older than outcomes are kept.
    Unknown,
}

/// A dead letter of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// Its name.
    pub id: LetterId,
    /// The topic that it is in.
    pub topic: ByteString,
    /// When it was written, in milliseconds since 1970.
    pub at: u64,
    /// Why.
    pub cause: Cause,
    /// Whether it was redriven or dropped.
    pub handled: bool,
    /// Attempts after it was redriven, in order.
    pub redrives: Vec<Outcome>,
}
