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
//! An event whose attempts are used up is dead-lettered, or stops its key until somebody resumes it (`keys`), as the
//! subscription says. One with a `deliverat` is parked by reference and handed out when it is due, without order; one
//! whose `expirytime` has passed is dead-lettered instead of tried.
//!
//! Not promised: exactly once; the number of attempts after a crash (it is at least what is told); order between keys.

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
mod observe;
mod outcomes;
mod passport;
mod plan;
mod progress;
mod retention;
mod router;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidegate_routing::partition::{KeyFrom, partition_of};
use tidegate_schemas::Event;

use crate::catalogue::{Catalogue, ChangeError, Origin, Retention, Subscription, TopicSpec};
use crate::environment::Environment;
use crate::log::{LogId, PartitionLog};
use crate::slot::Journal;

pub use self::dead_letter::{ATTRIBUTE as DEAD_LETTER_ATTRIBUTE, Cause, Reason, open as open_dead_letter};
pub use self::delivery::{Attempt, Consumer, Delivery};
pub use self::engine::{Consume, Probing, Standing, Start, Status};
pub use self::keys::{Head, PausedKey, Which};
pub use self::lag::Lag;
pub use self::letters::{
    DeadLetter, Group as DeadLetterGroup, Kind as DeadLetterKind, LetterId, Redrive, Redriven, Selection,
    reason as dead_letter_reason,
};
pub use self::observe::{Observer, Silent};
pub use self::outcomes::{Ending, Outcome, decode as decode_outcomes};

pub use self::passport::{Coverage, Fate, Letter, Passport, Passports, Place, State};
pub use self::plan::{Example, Looked, Prediction, Question, Sample, Tally};

use self::core::{Core, Partition};
use self::index::Index;
use self::outcomes::Outcomes;
use self::router::{Router, Routing};

/// What the parts of delivery share.
#[derive(Debug)]
struct Shared {
    log: Arc<dyn PartitionLog>,
    journal: Journal,
    catalogue: Arc<Catalogue>,
    environment: Environment,
    observer: Arc<dyn Observer>,
    outcomes: Outcomes,
    index: Arc<Index>,
    routing: Arc<ArcSwap<Routing>>,
    routers: Mutex<HashMap<Partition, Arc<Router>>>,
    cores: Mutex<HashMap<u64, Arc<Core>>>,
}

impl Shared {
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
                self.catalogue.create_topic(spec, self.environment.clock.unix_milliseconds()).await?.0
            }
        };
        Ok(topic.log(partition_of(letter, KeyFrom::PartitionKey, topic.partitions())))
    }
}
