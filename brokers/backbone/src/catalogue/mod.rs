//! The catalogue: which topics and subscriptions there are. Its truth is slot 0; this is the view that publishing and
//! delivery read without waiting.
//!
//! | key in the slot | value |
//! |---|---|
//! | `catalogue/topic/NAME` | [`Topic`] |
//! | `catalogue/subscription/NAME` | [`Subscription`] |
//!
//! Values are JSON objects with a version `v`; a reader refuses versions and members that it does not know. An entry is
//! written only after what it speaks of exists (the logs of a topic), and removed before that goes.

mod entry;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use bytestring::ByteString;
use tidegate_routing::topic::TopicName;
use tidegate_schemas::limits;

use crate::error::{Error, ErrorKind};
use crate::log::{LogSpec, PartitionLog};
use crate::slot::{Command, CommitError, Expect, Journal};

pub(crate) use entry::Version;
pub use entry::{
    HandshakeSpec, Mode, OnExhausted, Order, Origin, RequestSpec, Retention, Subscription, SubscriptionSpec, Topic,
    TopicSpec,
};

pub(crate) const TOPIC_PREFIX: &str = "catalogue/topic/";
pub(crate) const SUBSCRIPTION_PREFIX: &str = "catalogue/subscription/";

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
}

/// The catalogue with its view. Changes of one process are made one after the other.
#[derive(Debug)]
pub struct Catalogue {
    log: Arc<dyn PartitionLog>,
    journal: Journal,
    view: ArcSwap<View>,
    changing: tokio::sync::Mutex<()>,
}

impl Catalogue {
    /// Reads the catalogue from its slot.
    ///
    /// # Errors
    /// [`ErrorKind::DataLoss`] where an entry cannot be read.
    pub fn load(log: Arc<dyn PartitionLog>, journal: Journal) -> Result<Self, Error> {
        let mut view = View::default();
        for (key, _, value) in journal.scan(TOPIC_PREFIX.as_bytes()) {
            let topic: Topic = read(&key, &value)?;
            view.topics.insert(topic.spec.name.as_byte_string().clone(), Arc::new(topic));
        }
        for (key, _, value) in journal.scan(SUBSCRIPTION_PREFIX.as_bytes()) {
            let subscription: Subscription = read(&key, &value)?;
            view.subscriptions.insert(subscription.spec.name.clone(), Arc::new(subscription));
        }
        Ok(Self { log, journal, view: ArcSwap::from_pointee(view), changing: tokio::sync::Mutex::new(()) })
    }

    /// What is in it now.
    pub fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.view.load().topics.get(name).cloned()
    }

    /// The subscription of that name.
    pub fn subscription(&self, name: &str) -> Option<Arc<Subscription>> {
        self.view.load().subscriptions.get(name).cloned()
    }

    /// Creates a topic: its logs first, then its entry. One that is there with the same number of partitions is given
    /// as it is (`false`), with its other settings brought to what is asked.
    pub async fn create_topic(&self, spec: TopicSpec, created_at: u64) -> Result<(Arc<Topic>, bool), ChangeError> {
        let _changing = self.changing.lock().await;
        let view = self.view.load_full();
        if let Some(existing) = self.check_topic(&spec)? {
            if existing.spec == spec {
                return Ok((existing, false));
            }
            let topic = Topic { created_at: existing.created_at, ..Topic::new(spec, created_at) };
            return Ok((self.store_topic(&view, topic, Expect::Any).await?, false));
        }
        self.log.create(LogSpec::topic(spec.name.as_byte_string().clone(), spec.partitions)).await?;
        Ok((self.store_topic(&view, Topic::new(spec, created_at), Expect::Absent).await?, true))
    }

    /// Whether a topic could be created with these settings, or the one that is there be brought to them; gives that one.
    pub fn check_topic(&self, spec: &TopicSpec) -> Result<Option<Arc<Topic>>, ChangeError> {
        if !(1..=limits::TOPIC_PARTITIONS).contains(&spec.partitions) {
            return Err(ChangeError::Partitions { wanted: spec.partitions, max: limits::TOPIC_PARTITIONS });
        }
        let view = self.view.load();
        let Some(existing) = view.topics.get(spec.name.as_byte_string()) else {
            let collides = view.topics.values().find(|other| other.spec.name.collides_with(&spec.name));
            return collides.map_or(Ok(None), |other| {
                Err(ChangeError::Collision { name: spec.name.clone(), other: other.spec.name.clone() })
            });
        };
        if existing.spec.partitions != spec.partitions {
            return Err(ChangeError::OtherPartitions {
                name: spec.name.clone(),
                existing: existing.spec.partitions,
                wanted: spec.partitions,
            });
        }
        // Keys that wait for a retry are looked for by what they are now.
        if existing.spec.key_from != spec.key_from {
            return Err(ChangeError::OtherKey { name: spec.name.clone() });
        }
        Ok(Some(Arc::clone(existing)))
    }

    async fn store_topic(&self, view: &View, topic: Topic, expect: Expect) -> Result<Arc<Topic>, ChangeError> {
        let name = topic.spec.name.as_byte_string().clone();
        self.journal.commit(Command::new().put(key(TOPIC_PREFIX, &name), expect, write(&topic))).await?;
        let topic = Arc::new(topic);
        let mut next = view.clone();
        next.topics.insert(name, Arc::clone(&topic));
        self.view.store(Arc::new(next));
        Ok(topic)
    }

    /// Deletes a topic: its entry with the delivery keys in `also` first, then its logs.
    pub async fn delete_topic(&self, name: &TopicName, also: Command) -> Result<(), ChangeError> {
        let _changing = self.changing.lock().await;
        let view = self.view.load_full();
        let Some(topic) = view.topics.get(name.as_byte_string()) else {
            return Err(ChangeError::NotFound { what: "topic", name: name.to_string() });
        };
        self.journal.commit(also.delete(key(TOPIC_PREFIX, name.as_byte_string()), Expect::Any)).await?;
        let mut next = View::clone(&view);
        next.topics.remove(name.as_byte_string());
        self.view.store(Arc::new(next));
        self.log.delete(LogSpec::topic(name.as_byte_string().clone(), topic.spec.partitions)).await?;
        Ok(())
    }

    /// Writes a subscription, new or changed, together with the delivery keys in `also`.
    pub async fn put_subscription(
        &self,
        subscription: Subscription,
        expect: Expect,
        also: Command,
    ) -> Result<Arc<Subscription>, ChangeError> {
        let _changing = self.changing.lock().await;
        let name = subscription.spec.name.clone();
        self.journal.commit(also.put(key(SUBSCRIPTION_PREFIX, &name), expect, write(&subscription))).await?;
        let subscription = Arc::new(subscription);
        let mut next = View::clone(&self.view.load_full());
        next.subscriptions.insert(name, Arc::clone(&subscription));
        self.view.store(Arc::new(next));
        Ok(subscription)
    }

    /// Removes a subscription together with the delivery keys in `also`.
    pub async fn remove_subscription(&self, name: &ByteString, also: Command) -> Result<(), ChangeError> {
        let _changing = self.changing.lock().await;
        self.journal.commit(also.delete(key(SUBSCRIPTION_PREFIX, name), Expect::Any)).await?;
        let mut next = View::clone(&self.view.load_full());
        next.subscriptions.remove(name);
        self.view.store(Arc::new(next));
        Ok(())
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
