//! What every owner knows for its own partitions alone, asked of all of them and put together: how subscriptions stand, keys
//! that stand still, dead letters, passports.
//!
//! A question goes to each process that owns slots of delivery, as the service [`SERVICE`]; this one answers for its own
//! without being sent anything. A slot whose owner does not answer in time, or that has none, is told as missing: what is
//! given then holds for the others, and nothing is made up for it.
//!
//! A question names the revision of the catalogue that its asker has followed. Who is asked follows as far first, so that
//! nobody is told that what they have just created is not there.

mod answers;
mod ask;
#[cfg(test)]
mod tests;
mod text;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_schemas::limits;

use super::keys::{Head, Which};
use super::letters::{LetterId, Selection};
use crate::claim::{Claims, Ownership};
use crate::lane::NodeId;
use crate::request::Requests;

pub(super) use text::{event as event_text, events as events_text, maybe_event as maybe_event_text};

/// The service that answers for the partitions of a process.
pub const SERVICE: &str = "delivery";

/// What was put together from several owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole<T> {
    /// What those said that answered.
    pub value: T,
    /// The slots of which nothing is known, because their owner did not answer in time or they have none.
    pub missing: Vec<u32>,
}

impl<T> Whole<T> {
    /// Whether every owner answered.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// The same with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Whole<U> {
        Whole { value: change(self.value), missing: self.missing }
    }
}

/// Tells who owns which slot.
pub trait Owners: Send + Sync + fmt::Debug {
    /// Every slot, as far as it is known.
    fn owners(&self) -> Vec<Ownership>;
}

impl Owners for Claims {
    fn owners(&self) -> Vec<Ownership> {
        Self::owners(self)
    }
}

/// The other processes.
#[derive(Debug)]
pub(super) struct Peers {
    pub(super) requests: Requests,
    pub(super) owners: std::sync::Arc<dyn Owners>,
}

impl Peers {
    /// The other processes that own slots of those, in order, each once.
    pub(super) fn nodes(&self, takes: impl Fn(u32) -> bool) -> Vec<NodeId> {
        let here = self.requests.node();
        let owners = self.owners.owners().into_iter().filter(|ownership| takes(ownership.slot));
        let nodes: BTreeSet<NodeId> =
            owners.filter_map(|ownership| ownership.owner).filter(|node| *node != here).collect();
        nodes.into_iter().collect()
    }
}

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Question {
    /// How subscriptions stand, by uid.
    Statuses {
        uids: Vec<u64>,
    },
    PausedKeys {
        uid: u64,
        limit: usize,
    },
    ResumeKeys {
        name: String,
        which: Which,
        head: Head,
    },
    DeadLetters {
        name: String,
        selection: Selection,
        after: Option<LetterId>,
        limit: usize,
    },
    Groups {
        name: String,
        selection: Selection,
    },
    Redrive {
        name: String,
        selection: Selection,
        #[serde(with = "events_text")]
        edits: HashMap<LetterId, tidegate_schemas::Event>,
        /// Milliseconds from one letter to the next.
        interval: u64,
        /// Milliseconds before the first.
        offset: u64,
        dry: bool,
    },
    Drop {
        name: String,
        selection: Selection,
    },
    Passports {
        id: String,
        source: Option<String>,
    },
}

impl Question {
    fn timeout(&self) -> Duration {
        match self {
            Self::Statuses { .. } | Self::PausedKeys { .. } => limits::DELIVERY_ASK_TIMEOUT,
            _ => limits::DELIVERY_SEARCH_TIMEOUT,
        }
    }
}

/// A question with what its asker knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The revision of the catalogue that the asker has followed.
    catalogue: u64,
    question: Question,
}

/// An answer with what it holds for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answered<T> {
    /// The slots that it speaks for.
    slots: Vec<u32>,
    answer: T,
}
