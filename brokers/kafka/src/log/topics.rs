//! Topics on the broker: which there are, with which settings; creating and deleting them.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Offset, TopicPartitionList};
use tidegate_backbone::{Error, ErrorKind, Result};
use tidegate_schemas::limits;

use super::calls::Calls;
use super::ends::Place;
use super::together::Together;
use crate::context::Context;
use crate::error::{advice, closed, code_of, failed, is_retriable, kind_of, not_found};

/// What a topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Users' events.
    Events,
    /// Frames of a slot, or of its outcomes.
    Frames,
    /// Messages between nodes, which nothing keeps.
    Lanes,
}

/// See the module.
pub(crate) struct Topics {
    pub(crate) admin: AdminClient<Context>,
    pub(crate) ask: Arc<BaseConsumer<Context>>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) replication: u16,
    /// What a batch of records may take.
    pub(crate) batch_bytes: usize,
    /// Topics that are known to be there, with their partitions.
    pub(crate) known: RwLock<BTreeMap<Arc<str>, i32>>,
    /// Topics that are to be created.
    pub(crate) creations: Together<Creation, Created>,
    /// Topics that are looked for.
    pub(crate) looks: Together<Arc<str>, Looked>,
}

/// What the broker says to a topic that is to be created; else why it could not be asked.
pub(crate) type Created = std::result::Result<std::result::Result<(), Code>, KafkaError>;
/// A topic, where it is there; else why the broker could not be asked.
pub(crate) type Looked = std::result::Result<Option<There>, KafkaError>;

/// Looking for so many topics at once costs more than looking at all of them.
const LOOK_AT_ALL: usize = 8;

/// A topic that is to be created.
#[derive(Clone, Debug)]
pub(crate) struct Creation {
    name: Arc<str>,
    partitions: i32,
    of: Use,
}

/// How a topic came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// It was not there.
    New,
    /// It was there, as it should be.
    Found,
}

impl fmt::Debug for Topics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Topics").field("replication", &self.replication).finish_non_exhaustive()
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(limits::KAFKA_ASK_TIMEOUT))
        .operation_timeout(Some(limits::KAFKA_ASK_TIMEOUT - Duration::from_secs(1)))
}

/// The answer of an operation on one topic.
async fn one<T>(
    action: &str,
    answer: impl Future<Output = std::result::Result<Vec<std::result::Result<T, (String, Code)>>, KafkaError>>,
) -> Result<std::result::Result<T, Code>> {
    match answer.await {
        Ok(mut results) => match results.pop() {
            Some(result) => Ok(result.map_err(|(_, code)| code)),
            None => Err(Error::new(ErrorKind::Unknown, format!("Kafka answered nothing when asked to {action}"))),
        },
        Err(KafkaError::Canceled) => Err(closed()),
        Err(error) => Err(failed(action, error, true)),
    }
}

impl Topics {
    /// The settings that a topic of ours is created with: all that matters is said, so that no default of the broker does.
    fn settings(&self, of: Use) -> Vec<(&'static str, String)> {
        let insync = if self.replication >= 3 && of != Use::Lanes { 2 } else { 1 };
        let mut settings = vec![
            ("cleanup.policy", "delete".to_owned()),
            ("min.insync.replicas", insync.to_string()),
            ("message.timestamp.type", "LogAppendTime".to_owned()),
            ("max.message.bytes", self.batch_bytes.to_string()),
        ];
        match of {
            // What is kept how long is decided by the gateway, which deletes records.
            Use::Events => settings.extend([("retention.ms", "-1".to_owned()), ("retention.bytes", "-1".to_owned())]),
            Use::Frames => settings.extend([
                ("retention.ms", "-1".to_owned()),
                ("retention.bytes", "-1".to_owned()),
                // Space is given back by whole segments.
                ("segment.bytes", (64 * 1024 * 1024).to_string()),
            ]),
            Use::Lanes => settings.extend([
                ("retention.ms", "60000".to_owned()),
                ("retention.bytes", (64 * 1024 * 1024).to_string()),
                ("segment.bytes", (16 * 1024 * 1024).to_string()),
                ("segment.ms", "60000".to_owned()),
            ]),
        }
        settings
    }

    /// Creates a topic, or finds that it is there as it should be.
    pub(crate) async fn create(&self, topic: &str, partitions: i32, of: Use) -> Result<Made> {
        let action = format!("create topic {topic}");
        let creation = Creation { name: topic.into(), partitions, of };
        let created = self.creations.ask(creation, |creations| self.create_all(creations)).await?;
        let made = match created {
            Ok(Ok(())) => {
                self.settle(topic, |found| found == Some(partitions)).await?;
                Made::New
            }
            Ok(Err(Code::TopicAlreadyExists)) => {
                // The controller knows of it a moment before the nodes do.
                let there = self.settle(topic, |found| found.is_some()).await?;
                if let Some(there) = there
                    && there != partitions
                {
                    let context =
                        format!("topic {topic} is there with {there} partitions, and {partitions} were asked for");
                    return Err(Error::new(ErrorKind::Conflict, context));
                }
                self.compare(topic, &self.settings(of), of).await?;
                Made::Found
            }
            Ok(Err(Code::InvalidReplicationFactor)) => {
                let context = format!(
                    "topic {topic} cannot have {} replicas: the broker has fewer nodes; set the replication lower",
                    self.replication
                );
                return Err(Error::new(ErrorKind::Misconfigured, context));
            }
            Ok(Err(code)) => {
                let kind = kind_of(code);
                let advice = advice(&kind);
                return Err(Error::new(kind, format!("Kafka refused to {action}: {code}{advice}")));
            }
            Err(KafkaError::Canceled) => return Err(closed()),
            Err(error) => return Err(failed(&action, error, true)),
        };
        self.known.write().insert(Arc::from(topic), partitions);
        Ok(made)
    }

    /// Creates topics by one request. It is the request that costs: each is agreed upon by the nodes, one after the other.
    async fn create_all(&self, creations: Vec<Creation>) -> Vec<Created> {
        let settings: Vec<_> = creations.iter().map(|creation| self.settings(creation.of)).collect();
        let topics: Vec<NewTopic<'_>> = creations
            .iter()
            .zip(&settings)
            .map(|(creation, settings)| {
                let replication = TopicReplication::Fixed(i32::from(self.replication));
                let topic = NewTopic::new(&creation.name, creation.partitions, replication);
                settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
            })
            .collect();
        match self.admin.create_topics(&topics, &options()).await {
            Ok(results) => {
                let mut results: BTreeMap<String, std::result::Result<(), Code>> = results
                    .into_iter()
                    .map(|result| match result {
                        Ok(name) => (name, Ok(())),
                        Err((name, code)) => (name, Err(code)),
                    })
                    .collect();
                let unsaid = || Err(KafkaError::AdminOp(Code::BadMessage));
                creations.iter().map(|creation| results.remove(&*creation.name).map_or_else(unsaid, Ok)).collect()
            }
            Err(error) => creations.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// Tells of settings that differ; refuses what breaks a promise.
    async fn compare(&self, topic: &str, wanted: &[(&'static str, String)], of: Use) -> Result<()> {
        let found = match self.describe(ResourceSpecifier::Topic(topic)).await {
            Ok(found) => found,
            // Whoever may write to a topic may not always see how it is set up.
            Err(error) if *error.kind() == ErrorKind::Denied => return Ok(()),
            Err(error) => return Err(error),
        };
        for (name, value) in wanted {
            let Some(seen) = found.get(*name) else { continue };
            if seen == value || *name == "segment.bytes" {
                continue;
            }
            if *name == "cleanup.policy" && seen.contains("compact") && of != Use::Lanes {
                let context = format!(
                    "topic {topic} is there with cleanup.policy={seen}, which would delete events that others of the same \
                     key follow; set it to {value}, or attach the topic as one of somebody else's"
                );
                return Err(Error::new(ErrorKind::Misconfigured, context));
            }
            tracing::warn!(
                topic,
                setting = name,
                found = seen,
                expected = value,
                "a topic is there with another setting"
            );
        }
        Ok(())
    }

    /// The settings of a topic or a node, by their names.
    pub(crate) async fn describe(&self, what: ResourceSpecifier<'_>) -> Result<BTreeMap<String, String>> {
        let action = "tell its settings";
        let described =
            self.admin.describe_configs([&what], &AdminOptions::new().request_timeout(Some(limits::KAFKA_ASK_TIMEOUT)));
        let mut described = described.await.map_err(|error| failed(action, error, false))?;
        match described.pop() {
            Some(Ok(resource)) => {
                let entries = resource.entries.into_iter();
                Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
            }
            Some(Err(code)) => Err(failed(action, KafkaError::AdminOp(code), false)),
            None => Ok(BTreeMap::new()),
        }
    }

    /// Deletes a topic; one that is not there is no error.
    pub(crate) async fn delete(&self, topic: &str) -> Result<()> {
        let action = format!("delete topic {topic}");
        match one(&action, self.admin.delete_topics(&[topic], &options())).await? {
            Ok(_) | Err(Code::UnknownTopicOrPartition) => {}
            Err(code) => {
                let kind = kind_of(code);
                let advice = advice(&kind);
                return Err(Error::new(kind, format!("Kafka refused to {action}: {code}{advice}")));
            }
        }
        self.known.write().remove(topic);
        self.settle(topic, |found| found.is_none()).await.map(|_| ())
    }

    /// Waits until the broker shows as many partitions of the topic as are wanted, each with a leader; gives how many it shows.
    async fn settle(&self, topic: &str, wanted: impl Fn(Option<i32>) -> bool) -> Result<Option<i32>> {
        let mut waited = Duration::ZERO;
        loop {
            match self.look(topic).await {
                Ok(there) => {
                    let partitions = there.as_ref().map(There::partitions);
                    if there.as_ref().is_none_or(There::is_led) && wanted(partitions) {
                        return Ok(partitions);
                    }
                }
                // Leaders are found soon.
                Err(error) if *error.kind() == ErrorKind::Unavailable => {}
                Err(error) => return Err(error),
            }
            if waited >= limits::KAFKA_LEADER_TIMEOUT {
                let context = format!("topic {topic} has changed, and the broker does not show it yet");
                return Err(Error::new(ErrorKind::Unavailable, context).outcome_unknown());
            }
            let step = Duration::from_millis(20);
            tokio::time::sleep(step).await;
            waited += step;
        }
    }

    /// The partitions of a topic; none where the broker says that it is not there.
    pub(crate) async fn partitions(&self, topic: &str) -> Result<Option<i32>> {
        Ok(self.look(topic).await?.as_ref().map(There::partitions).filter(|partitions| *partitions > 0))
    }

    /// What the broker says of a topic; none where it says that it is not there.
    pub(crate) async fn look(&self, topic: &str) -> Result<Option<There>> {
        let mut waited = Duration::ZERO;
        loop {
            match self.looks.ask(topic.into(), |topics| self.look_for(topics)).await? {
                Ok(there) => return Ok(there),
                Err(KafkaError::Canceled) => return Err(closed()),
                Err(error) if code_of(&error).is_some_and(is_retriable) && waited < limits::KAFKA_LEADER_TIMEOUT => {}
                Err(error) => return Err(failed(&format!("tell of topic {topic}"), error, false)),
            }
            let step = Duration::from_millis(50);
            tokio::time::sleep(step).await;
            waited += step;
        }
    }

    /// Asks for topics; for all that there are, where that is less work.
    async fn look_for(&self, topics: Vec<Arc<str>>) -> Vec<Looked> {
        let (ask, count) = (Arc::clone(&self.ask), topics.len());
        let looked = self.calls.run(move || {
            if topics.len() < LOOK_AT_ALL {
                return Ok(topics.iter().map(|topic| look(&ask, topic)).collect());
            }
            let metadata = match ask.fetch_metadata(None, limits::KAFKA_ASK_TIMEOUT) {
                Ok(metadata) => metadata,
                Err(error) => return Ok(topics.iter().map(|_| Err(error.clone())).collect()),
            };
            ask.context().health.up();
            let found: BTreeMap<&str, Looked> =
                metadata.topics().iter().map(|topic| (topic.name(), There::of(topic))).collect();
            Ok(topics.iter().map(|topic| found.get(&**topic).cloned().unwrap_or(Ok(None))).collect())
        });
        looked.await.unwrap_or_else(|_: Error| (0..count).map(|_| Err(KafkaError::Canceled)).collect())
    }

    /// Whether the topic is there with that partition, asking where it is not known.
    pub(crate) async fn find(&self, topic: &Arc<str>, partition: i32) -> Result<bool> {
        if self.knows(topic, partition) {
            return Ok(true);
        }
        let Some(partitions) = self.partitions(topic).await? else { return Ok(false) };
        self.known.write().insert(Arc::clone(topic), partitions);
        Ok(partition < partitions)
    }

    /// Whether the topic is known to be there with that partition.
    pub(crate) fn knows(&self, topic: &str, partition: i32) -> bool {
        self.known.read().get(topic).is_some_and(|partitions| partition < *partitions)
    }

    /// Every topic of the broker with its partitions.
    pub(crate) async fn all(&self) -> Result<Vec<(String, i32)>> {
        let ask = Arc::clone(&self.ask);
        self.calls
            .run(move || {
                let metadata = ask
                    .fetch_metadata(None, limits::KAFKA_ASK_TIMEOUT)
                    .map_err(|error| failed("list its topics", error, false))?;
                ask.context().health.up();
                let topics = metadata.topics().iter().filter(|topic| topic.error().is_none());
                let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
                Ok(topics.map(|topic| (topic.name().to_owned(), count(topic.partitions().len()))).collect())
            })
            .await
    }

    /// Deletes the records before an offset.
    pub(crate) async fn trim(&self, place: &Place, before: u64, log: &str) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(1);
        let action = format!("delete records of {log}");
        let before = Offset::Offset(i64::try_from(before).unwrap_or(i64::MAX));
        list.add_partition_offset(&place.0, place.1, before).map_err(|error| failed(&action, error, false))?;
        let deleted = self.admin.delete_records(&list, &options()).await;
        let deleted = deleted.map_err(|error| failed(&action, error, true))?;
        match deleted.find_partition(&place.0, place.1).map(|element| element.error()) {
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(Code::UnknownTopicOrPartition) => Err(not_found(log)),
                _ => Err(failed(&action, error, true)),
            },
            _ => Ok(()),
        }
    }
}

/// What the broker says of a topic that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct There {
    /// The node that leads each partition; below zero where none does.
    pub(crate) leaders: Vec<i32>,
    /// Nodes that each partition is on, of the one that is on the fewest.
    pub(crate) replicas: usize,
}

impl There {
    /// What the broker says of a topic.
    fn of(found: &MetadataTopic) -> Looked {
        match found.error().map(Code::from) {
            None => {}
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => return Ok(None),
            Some(code) => return Err(KafkaError::MetadataFetch(code)),
        }
        let mut leaders = vec![-1; found.partitions().len()];
        for partition in found.partitions() {
            if let Some(leader) = usize::try_from(partition.id()).ok().and_then(|id| leaders.get_mut(id)) {
                *leader = partition.leader();
            }
        }
        let replicas = found.partitions().iter().map(|partition| partition.replicas().len()).min();
        Ok(Some(Self { leaders, replicas: replicas.unwrap_or(0) }))
    }

    pub(crate) fn partitions(&self) -> i32 {
        i32::try_from(self.leaders.len()).unwrap_or(i32::MAX)
    }

    /// Whether each partition has a leader.
    pub(crate) fn is_led(&self) -> bool {
        !self.leaders.is_empty() && self.leaders.iter().all(|leader| *leader >= 0)
    }
}

/// Asks the broker for a topic, once; none only where it says that it is not there. Waits.
pub(crate) fn look(ask: &BaseConsumer<Context>, topic: &str) -> Looked {
    let metadata = ask.fetch_metadata(Some(topic), limits::KAFKA_ASK_TIMEOUT)?;
    ask.context().health.up();
    metadata.topics().iter().find(|found| found.name() == topic).map_or(Ok(None), There::of)
}
