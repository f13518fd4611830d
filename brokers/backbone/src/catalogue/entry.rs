//! What the catalogue keeps of a topic and of a subscription.

use std::num::NonZeroU32;
use std::time::Duration;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tidegate_routing::filter::Filter;
use tidegate_routing::partition::KeyFrom;
use tidegate_routing::retry::RetryPolicy;
use tidegate_routing::topic::{TopicName, TopicPattern};
use tidegate_schemas::limits;

use crate::log::LogId;

/// The version of the entries that this build writes and reads.
const VERSION: Version = Version;

/// The number 1, and nothing else, where an entry says its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version;

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(Self),
            other => Err(serde::de::Error::custom(format!("version {other} is not known here, only 1"))),
        }
    }
}

/// Who declared an entry, and so who may change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Origin {
    /// A resource file, by its path as it was given.
    File(String),
    /// A request to the API.
    Api,
    /// The first use of the name, or a subscription that needs it.
    FirstUse,
}

/// How a topic is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopicSpec {
    /// Its name.
    pub name: TopicName,
    /// How many partitions; fixed for its life.
    pub partitions: u32,
    /// Which attribute is the key.
    pub key_from: KeyFrom,
    /// How long ago an event of the same source and id makes one a duplicate; zero turns it off.
    #[serde(with = "milliseconds")]
    pub dedupe_window: Duration,
    /// Who declared it.
    pub origin: Origin,
}

impl TopicSpec {
    /// A topic with the defaults.
    pub fn new(name: TopicName, partitions: u32, origin: Origin) -> Self {
        Self { name, partitions, key_from: KeyFrom::PartitionKey, dedupe_window: limits::DEDUPE_WINDOW, origin }
    }
}

/// A topic that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Topic {
    pub(crate) v: Version,
    /// How it is.
    pub spec: TopicSpec,
    /// When it was created, in milliseconds since 1970.
    pub created_at: u64,
}

impl Topic {
    pub(crate) fn new(spec: TopicSpec, created_at: u64) -> Self {
        Self { v: VERSION, spec, created_at }
    }

    /// How many partitions it has.
    pub fn partitions(&self) -> NonZeroU32 {
        NonZeroU32::new(self.spec.partitions).unwrap_or(NonZeroU32::MIN)
    }

    /// The log of one partition.
    pub fn log(&self, partition: u32) -> LogId {
        LogId::Topic { topic: self.spec.name.as_byte_string().clone(), partition }
    }

    /// The logs of all partitions.
    pub fn logs(&self) -> impl Iterator<Item = LogId> + '_ {
        (0..self.spec.partitions).map(|partition| self.log(partition))
    }
}

/// Which events of a subscription wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Those of one key.
    #[default]
    Key,
    /// None.
    None,
}

/// What a subscription asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubscriptionSpec {
    /// Its name.
    pub name: ByteString,
    /// Which topics.
    pub topics: Vec<TopicPattern>,
    /// Which events; all filters must pass.
    pub filters: Vec<Filter>,
    /// Where to: a URI whose scheme says how.
    pub sink: String,
    /// Which events wait for each other.
    pub order: Order,
    /// Deliveries that are out at once.
    pub max_in_flight: u32,
    /// How long one attempt may take.
    #[serde(with = "milliseconds")]
    pub timeout: Duration,
    /// When to try again, and when to stop.
    pub retry: RetryPolicy,
    /// Where events go that cannot be delivered.
    pub dead_letter_topic: TopicName,
    /// Who declared it.
    pub origin: Origin,
}

/// A subscription that exists. Its progress belongs to its uid: deleted and created again it is a new one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subscription {
    pub(crate) v: Version,
    /// Never given twice.
    pub uid: u64,
    /// What it asks for.
    pub spec: SubscriptionSpec,
    /// Why it stands still, where it does.
    pub paused: Option<String>,
}

impl Subscription {
    pub(crate) fn new(uid: u64, spec: SubscriptionSpec) -> Self {
        Self { v: VERSION, uid, spec, paused: None }
    }
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(deserializer)?))
    }
}
