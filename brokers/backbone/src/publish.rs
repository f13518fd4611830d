//! Publishing: an event into its topic's partition, and a receipt only when it is durable. No owner is in the way.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tidegate_routing::partition::partition_of;
use tidegate_schemas::Event;

use crate::capability::Durability;
use crate::catalogue::{Catalogue, Topic};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{PartitionLog, Position, Record};

/// What a publisher gets when its event is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The event's `id`.
    pub id: ByteString,
    /// The event's `source`.
    pub source: ByteString,
    /// Where it is: topic,
    pub topic: ByteString,
    /// partition,
    pub partition: u32,
    /// and position, where the broker tells it.
    pub position: Option<Position>,
    /// What it survives.
    pub durability: Durability,
}

/// Publishes events. Clones share everything.
#[derive(Clone, Debug)]
pub struct Publisher {
    log: Arc<dyn PartitionLog>,
    catalogue: Arc<Catalogue>,
}

impl Publisher {
    /// A publisher into the topics of that catalogue.
    pub fn new(log: Arc<dyn PartitionLog>, catalogue: Arc<Catalogue>) -> Self {
        Self { log, catalogue }
    }

    /// The topic of that name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn topic(&self, name: &str) -> Result<Arc<Topic>> {
        self.catalogue.topic(name).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no topic {name}")))
    }

    /// Publishes one event. It is queued when this is called, so that events published one after the other by one caller
    /// keep their order.
    ///
    /// # Errors
    /// What the log says; when `timeout` passes the outcome is unknown, and the event may yet be stored.
    pub fn publish(
        &self,
        topic: &Topic,
        event: Event,
        timeout: Duration,
    ) -> impl Future<Output = Result<Receipt>> + Send + 'static + use<> {
        let partition = partition_of(&event, topic.spec.key_from, topic.partitions());
        let receipt = Receipt {
            id: event.id().clone(),
            source: event.source().clone(),
            topic: topic.spec.name.as_byte_string().clone(),
            partition,
            position: None,
            durability: self.log.durability_of(topic.spec.name.as_str()),
        };
        let append = self.log.append(&topic.log(partition), Record::Event(event));
        async move {
            let appended = tokio::time::timeout(timeout, append).await.map_err(|_| {
                Error::new(ErrorKind::Unknown, format!("no acknowledgement came within {} ms", timeout.as_millis()))
            })??;
            Ok(Receipt { position: appended.position, ..receipt })
        }
    }

    /// Publishes many, each by itself: some may be stored and others not. The answers are in the order of the events.
    pub async fn publish_all(&self, topic: &Topic, events: Vec<Event>, timeout: Duration) -> Vec<Result<Receipt>> {
        let published: Vec<_> = events.into_iter().map(|event| self.publish(topic, event, timeout)).collect();
        futures_util::future::join_all(published).await
    }
}
