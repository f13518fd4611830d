//! Delivery: durable topics to many subscriptions, at least once each, in key order, isolated from each other.
//!
//! | promise | by |
//! |---|---|
//! | at least once | the cursor passes an event only when it is settled, or when its lane is journalled by reference |
//! | key order, through retries | `progress`: one event of a lane is out at a time; a lane whose head waits reads the rest again |
//! | a slow or stuck subscription delays no other | `router` hands events to those that keep up; one that does not reads for itself (`feeder`) until it has caught up |
//! | memory is bounded | [`tidegate_schemas::limits::DELIVERY_QUEUE_EVENTS`], [`tidegate_schemas::limits::DELIVERY_QUEUE_BYTES`] and [`tidegate_schemas::limits::PARKED_KEYS`] for each subscription and partition; what does not fit stays in the log |
//! | duplicates are dropped | `dedupe`: by (`source`, `id`) within the topic's window, a function of the log alone |
//! | a crash costs redelivery, never loss | `checkpoint`: one commit at most every [`tidegate_schemas::limits::CHECKPOINT_INTERVAL`] |
//! | a sink that is down or fails everything is not the events' failure | [`tidegate_routing::breaker`]: what waits counts nothing, a probe goes out at least every [`tidegate_schemas::limits::SINK_PROBE_INTERVAL`] |
//!
//! A process delivers the partitions of the slots that it owns, and takes part in no others: `slots` and `reconcile`. What
//! is out when a slot is lost settles without effect (`owned`), because its next owner delivers it again.
//!
//! An event whose attempts are used up is dead-lettered, or stops its key until somebody resumes it (`keys`), as the
//! subscription says. One with a `deliverat` is parked by reference and handed out when it is due, without order; one
//! whose `expirytime` has passed is dead-lettered instead of tried.
//!
//! Not promised: exactly once; the number of attempts after a crash (it is at least what is told); order between keys.

pub(crate) mod carry;
mod changes;
mod checkpoint;
mod core;
mod dead_letter;
mod dedupe;
mod delivery;
mod engine;
mod feeder;
mod index;
mod keys;
mod lag;
mod letters;
mod marks;
mod observe;
mod others;
mod outcomes;
mod owned;
mod passport;
mod plan;
mod progress;
mod reconcile;
mod retention;
mod router;
mod slots;
mod starts;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_many;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tidegate_routing::TopicName;
use tidegate_routing::partition::{KeyFrom, partition_of};
use tidegate_schemas::Event;

use crate::catalogue::{Catalogue, ChangeError, Origin, Retention, Subscription, Topic, TopicSpec, foreign_topic};
use crate::environment::Environment;
use crate::log::{LogId, PartitionLog};
use crate::slot::Command;
use crate::slot::placement::slot_of;

pub use self::dead_letter::{ATTRIBUTE as DEAD_LETTER_ATTRIBUTE, Cause, Reason, open as open_dead_letter};
pub use self::delivery::{Attempt, Consumer, Delivery};
pub use self::engine::{Consume, Probing, Standing, Status};
pub use self::keys::{Head, PausedKey, Which};
pub use self::lag::Lag;
pub use self::letters::{
    DeadLetter, Group as DeadLetterGroup, Kind as DeadLetterKind, LetterId, Redrive, Redriven, Selection,
    reason as dead_letter_reason,
};
pub use self::observe::{Observer, Silent};
pub use self::others::{Owners, SERVICE, Whole};
pub use self::outcomes::{Ending, Outcome, decode as decode_outcomes};
pub use self::starts::Moment;
pub use crate::catalogue::Start;

pub use self::passport::{Coverage, Fate, Letter, Passport, Passports, Place, State};
pub use self::plan::{Example, Looked, Prediction, Question, Sample, Tally};

use self::checkpoint::Starts;
pub(crate) use self::checkpoint::split;
use self::core::{Core, Partition};
use self::others::Peers;
use self::owned::Owned;
use self::router::{Router, Routing};

/// What the parts of delivery share.
#[derive(Debug)]
struct Shared {
    log: Arc<dyn PartitionLog>,
    catalogue: Arc<Catalogue>,
    /// How many slots the cluster has.
    slots: u32,
    environment: Environment,
    observer: Arc<dyn Observer>,
    /// The other processes, where there are any.
    peers: ArcSwapOption<Peers>,
    /// The slots that are delivered here.
    owned: Mutex<HashMap<u32, Arc<Owned>>>,
    routing: Arc<ArcSwap<Routing>>,
    routers: Mutex<HashMap<Partition, Arc<Router>>>,
    cores: Mutex<HashMap<u64, Arc<Core>>>,
}

impl Shared {
    fn owned(&self, slot: u32) -> Option<Arc<Owned>> {
        self.owned.lock().get(&slot).cloned()
    }

    /// The ownership of a partition, where it is delivered here.
    fn owned_of(&self, partition: &Partition) -> Option<Arc<Owned>> {
        self.owned(slot_of(partition.topic.as_str(), partition.number, self.slots))
    }

    fn owned_all(&self) -> Vec<Arc<Owned>> {
        self.owned.lock().values().cloned().collect()
    }

    /// Where it stands where subscriptions begin.
    fn starts(&self) -> Starts<'_> {
        Starts { slot0: self.catalogue.slot().as_ref(), only_slot: self.slots == 1 }
    }

    /// What a slot is to say of a topic that its keys name; nothing in the only slot.
    fn incarnation<'a>(&self, topic: &'a Topic) -> Option<(&'a str, u64)> {
        (self.slots > 1).then(|| (topic.spec.name.as_str(), topic.uid))
    }

    /// Whether a partition is on a broker beside the backbone.
    fn is_elsewhere(&self, partition: &Partition) -> bool {
        self.catalogue.topic(partition.topic.as_str()).is_some_and(|topic| topic.spec.broker.is_some())
    }

    fn router(&self, partition: &Partition) -> Option<Arc<Router>> {
        self.routers.lock().get(partition).cloned()
    }

    /// A subscription has lost so many events of a partition to its topic's retention.
    fn tell_trimmed(&self, core: &Core, partition: &Partition, count: u64) {
        core.lose(count);
        let subscription = core.subscription();
        self.observer.trimmed(&subscription.spec.name, partition.topic.as_str(), partition.number, count);
        tracing::warn!(subscription = %subscription.spec.name, topic = %partition.topic, partition = partition.number, count,
            "a subscription has lost events that its topic keeps no longer; it did not read them in time");
    }

    /// The log that a record of a topic goes to that is no event, where the topic says so; its topic is created where it is
    /// missing.
    async fn foreign_log(&self, of: &TopicName, event: &Event) -> Result<LogId, ChangeError> {
        let name = foreign_topic(of)?;
        let topic = match self.catalogue.topic(name.as_str()) {
            Some(topic) => topic,
            None => {
                let mut spec = TopicSpec::new(name, self.log.capability().partitions_default, Origin::FirstUse);
                spec.retention = Retention::DEAD_LETTERS;
                self.catalogue.create_topic(spec, self.environment.clock.unix_milliseconds(), Command::new()).await?.0
            }
        };
        Ok(topic.log(partition_of(event, KeyFrom::PartitionKey, topic.partitions())))
    }

    /// The log that a dead letter goes to; its topic is created where it is missing.
    async fn dead_letter_log(&self, subscription: &Subscription, letter: &Event) -> Result<LogId, ChangeError> {
        let name = &subscription.spec.dead_letter_topic;
        let topic = match self.catalogue.topic(name.as_str()) {
            Some(topic) => topic,
            None => {
                let partitions = self.log.capability().partitions_default;
                let mut spec = TopicSpec::new(name.clone(), partitions, Origin::FirstUse);
                // Two dead letters of one event are two failures.
                spec.dedupe_window = std::time::Duration::ZERO;
                spec.retention = Retention::DEAD_LETTERS;
                self.catalogue.create_topic(spec, self.environment.clock.unix_milliseconds(), Command::new()).await?.0
            }
        };
        Ok(topic.log(partition_of(letter, KeyFrom::PartitionKey, topic.partitions())))
    }
}
