//! The catalogue: which topics and subscriptions there are. Its truth is slot 0; this is the view that publishing and
//! delivery read without waiting.
//!
//! | key in the slot | value |
//! |---|---|
//! | `catalogue/topic/NAME` | [`Topic`] |
//! | `catalogue/subscription/NAME` | [`Subscription`] |
//! | `catalogue/deleting/NAME` | `{v, partitions}`: the logs of a topic without an entry are about to be deleted |
//!
//! Values are JSON objects with a version `v`; a reader refuses versions and members that it does not know. An entry is
//! written only after what it speaks of exists (the logs of a topic), and removed before that goes. A topic is created only
//! where the logs of another of its name are not being deleted: they would go with what was published meanwhile.
//!
//! Every gateway follows the slot. What one changes is in its view when the call returns, and in those of the others a
//! moment later; [`Catalogue::changes`] tells. A change names the revision of the entry that it was made from: where another
//! gateway was faster it is [`CommitError::Conflict`], and changes nothing.

mod change;
mod entry;
mod follow;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use bytestring::ByteString;
use tidegate_routing::topic::TopicName;
use tidegate_schemas::limits;
use tokio::sync::watch;

use crate::environment::Random;
use crate::error::{Error, ErrorKind};
use crate::log::PartitionLog;
use crate::migrate::FROZEN;
use crate::slot::{Command, CommitError, Committed, Expect, SlotHandle};

use entry::Deletion;
pub(crate) use entry::Version;
pub use entry::{
    Attachment, Foreign, HandshakeSpec, Mode, OnExhausted, Order, Origin, RequestSpec, Retention, Start, Subscription,
    SubscriptionSpec, Topic, TopicSpec, foreign_topic,
};
use follow::Attached;

const PREFIX: &str = "catalogue/";
const TOPIC_PREFIX: &str = "catalogue/topic/";
const SUBSCRIPTION_PREFIX: &str = "catalogue/subscription/";
const DELETING_PREFIX: &str = "catalogue/deleting/";

/// Why the catalogue was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// A topic of that name is there with other settings.
    #[error("topic {name} exists with {existing} partitions, not {wanted}; the number of partitions never changes")]
    OtherPartitions {
        /// The topic.
        name: TopicName,
        /// What it has.
        existing: u32,
        /// What was asked for.
        wanted: u32,
    },
    /// A topic of that name is there and takes its keys from another attribute.
    #[error("topic {name} exists with another keyFrom; which attribute is the key never changes")]
    OtherKey {
        /// The topic.
        name: TopicName,
    },
    /// A topic of that name is there and is another one on the broker.
    #[error(
        "topic {name} exists and {is}; delete it first, an attached topic stays on the broker with all that it holds"
    )]
    OtherAttachment {
        /// The topic.
        name: TopicName,
        /// What it is.
        is: String,
    },
    /// There is nothing of that name on the broker.
    #[error(
        "topic {name} cannot be attached: there is nothing named {to} on {broker}; create it there first, or \
         correct the name that is to be attached, which is case-sensitive"
    )]
    NothingToAttach {
        /// The topic that was to be.
        name: TopicName,
        /// What it was to be on the broker.
        to: ByteString,
        /// The broker.
        broker: String,
    },
    /// Another topic differs from this one only in `.` and `_`.
    #[error(
        "topic {name} and the existing topic {other} differ only in '.' and '_'; some brokers cannot hold both, choose \
         another name"
    )]
    Collision {
        /// The topic that was to be created.
        name: TopicName,
        /// The one that is there.
        other: TopicName,
    },
    /// The name leaves no room for the topic that records go to that are no events.
    #[error(
        "topic {name} cannot have `foreign: dead-letter`: its name is too long to have `dead.foreign.` put before it; shorten \
         it by 13 bytes"
    )]
    LongName {
        /// The topic.
        name: TopicName,
    },
    /// The number of partitions is not one that a topic can have.
    #[error("a topic has 1 to {max} partitions, not {wanted}")]
    Partitions {
        /// What was asked for.
        wanted: u32,
        /// The most that there can be.
        max: u32,
    },
    /// There is nothing of that name.
    #[error("there is no {what} {name}")]
    NotFound {
        /// `topic` or `subscription`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Something of that name is there already.
    #[error("{what} {name} exists already")]
    Exists {
        /// `topic` or `subscription`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Where a subscription begins is written with it, and in so many topics that is too much.
    #[error(
        "subscription {name} would begin in {topics} topics at once, and where takes {bytes} bytes; at most {limit_bytes} are \
         written together. Let its patterns take in fewer topics, or make several subscriptions of it"
    )]
    TooManyTopics {
        /// The subscription.
        name: String,
        /// The topics that it reads and did not read before.
        topics: usize,
        /// What was to be written.
        bytes: usize,
        /// The most that may be.
        limit_bytes: usize,
    },
    /// The logs of a topic of that name are being deleted, or were to be by a gateway that is gone.
    #[error(
        "topic {name} is being deleted; try again in a moment. Where a gateway died meanwhile, it can be created after {} s",
        limits::TOPIC_DELETE_TIMEOUT.as_secs() + limits::TOPIC_DELETE_GRACE.as_secs()
    )]
    Deleting {
        /// The topic.
        name: TopicName,
    },
    /// The backbone is being moved, or was moved.
    #[error(
        "nothing can be changed while the backbone is being moved; try again in a moment, or where it was moved to \
         (`tidegate migrate status`)"
    )]
    Moving,
    /// The slot refused or could not be reached.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The broker refused or could not be reached.
    #[error(transparent)]
    Broker(#[from] Error),
}

/// What is in the catalogue at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Topics by name.
    pub topics: HashMap<ByteString, Arc<Topic>>,
    /// Subscriptions by name.
    pub subscriptions: HashMap<ByteString, Arc<Subscription>>,
    /// The revision of slot 0 up to which this shows every change; it may show later ones.
    pub revision: u64,
    /// By which revision each entry was written.
    revisions: HashMap<Bytes, u64>,
}

/// The entries of topics and subscriptions in a slot 0.
pub(crate) fn entries(slot0: &dyn SlotHandle) -> Vec<(Bytes, Bytes)> {
    let kinds = [TOPIC_PREFIX, SUBSCRIPTION_PREFIX];
    let all = kinds.iter().flat_map(|prefix| slot0.scan(prefix.as_bytes()));
    all.map(|(key, _, value)| (key, value)).collect()
}

impl View {
    /// Every topic and subscription as it is stored.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        let topics = self.topics.iter().map(|(name, topic)| (key(TOPIC_PREFIX, name), write(topic.as_ref())));
        let subscriptions = self.subscriptions.iter();
        topics.chain(subscriptions.map(|(name, entry)| (key(SUBSCRIPTION_PREFIX, name), write(entry.as_ref()))))
    }

    /// What a change of the topic as it stands here expects.
    fn expect_topic(&self, name: &str) -> Expect {
        self.expect(&key(TOPIC_PREFIX, name))
    }

    /// What a change of the subscription as it stands here expects.
    pub(crate) fn expect_subscription(&self, name: &str) -> Expect {
        self.expect(&key(SUBSCRIPTION_PREFIX, name))
    }

    /// What a change of what is said of a topic's deletion expects.
    fn expect_deletion(&self, name: &str) -> Expect {
        self.expect(&key(DELETING_PREFIX, name))
    }

    fn expect(&self, key: &Bytes) -> Expect {
        self.revisions.get(key).map_or(Expect::Absent, |revision| Expect::Revision(*revision))
    }
}

/// The catalogue with its view. Changes of one process are made one after the other; those of several are told apart by
/// revisions, so that none overwrites what it has not seen.
#[derive(Debug)]
pub struct Catalogue {
    log: Arc<dyn PartitionLog>,
    slot: Arc<dyn SlotHandle>,
    random: Arc<dyn Random>,
    view: ArcSwap<View>,
    changed: watch::Sender<u64>,
    changing: tokio::sync::Mutex<()>,
    /// Deletions of topics that are not finished, each since when it is known here.
    deletions: parking_lot::Mutex<HashMap<Bytes, (u64, tokio::time::Instant)>>,
    /// Held while the view is made anew.
    following: tokio::sync::Mutex<Attached>,
}

impl Catalogue {
    /// Commits a change, unless the backbone is being moved.
    async fn change(&self, command: Command) -> Result<Committed, ChangeError> {
        let frozen = Bytes::from_static(FROZEN.as_bytes());
        self.slot.commit(command.delete(frozen.clone(), Expect::Absent)).await.map_err(|error| match error {
            CommitError::Conflict { key, .. } if key == frozen => ChangeError::Moving,
            error => error.into(),
        })
    }

    /// What is in it now.
    pub fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    /// Tells of every change of the view, wherever it was made.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The slot that holds it.
    pub fn slot(&self) -> &Arc<dyn SlotHandle> {
        &self.slot
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.view.load().topics.get(name).cloned()
    }

    /// The subscription of that name.
    pub fn subscription(&self, name: &str) -> Option<Arc<Subscription>> {
        self.view.load().subscriptions.get(name).cloned()
    }
}

fn key(prefix: &str, name: &str) -> Bytes {
    Bytes::from(format!("{prefix}{name}"))
}

/// An entry as it is stored.
pub(crate) fn write<T: serde::Serialize>(entry: &T) -> Bytes {
    Bytes::from(serde_json::to_vec(entry).expect("entries are structs of strings and numbers, which always serialise"))
}

/// An entry as it was stored; what cannot be read is loss, never skipped.
pub(crate) fn read<T: serde::de::DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(value).map_err(|error| {
        Error::new(
            ErrorKind::DataLoss,
            format!(
                "the journal's entry {} cannot be read; it was written by a newer version or is damaged",
                String::from_utf8_lossy(key)
            ),
        )
        .with_source(error)
    })
}
