//! What the catalogue keeps of a topic and of a subscription.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tidegate_routing::filter::Filter;
use tidegate_routing::partition::KeyFrom;
use tidegate_routing::retry::RetryPolicy;
use tidegate_routing::topic::{TopicName, TopicPattern};
use tidegate_schemas::limits;

use super::ChangeError;
use crate::cursor::Cursor;
use crate::log::{LogId, PartitionLog};

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

/// How long a topic keeps its events. What is not bounded is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// Older ones go; in milliseconds.
    #[serde(with = "optional_milliseconds")]
    pub age: Option<Duration>,
    /// The oldest ones go from a partition that takes more bytes.
    pub bytes: Option<u64>,
}

impl Retention {
    /// What a topic has for which nothing is said.
    pub const DEFAULT: Self = Self { age: Some(limits::RETENTION_AGE), bytes: None };

    /// What a dead-letter topic has that comes with its first letter.
    pub const DEAD_LETTERS: Self = Self { age: Some(limits::RETENTION_DEAD_LETTERS_AGE), bytes: None };
}

/// What becomes of records of a topic that are no CloudEvents; only others than gateways write such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Foreign {
    /// They are delivered, wrapped in an event.
    #[default]
    Wrap,
    /// They go to a topic of their own instead, wrapped likewise: `dead.foreign.` and the name of their topic, which comes
    /// with the first of them. No wildcard of a subscription takes it in, as with every topic that begins with `dead.`.
    DeadLetter,
}

/// Where records of that topic go that are no CloudEvents, where they are not delivered.
///
/// # Errors
/// [`ChangeError::LongName`] where the topic's name is too long for that.
pub fn foreign_topic(of: &TopicName) -> Result<TopicName, ChangeError> {
    TopicName::dead_letter_of(&format!("foreign.{of}")).map_err(|_| ChangeError::LongName { name: of.clone() })
}

impl Foreign {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
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
    /// How long its events are kept. A topic from before there was retention keeps all, until it is declared anew.
    #[serde(default)]
    pub retention: Retention,
    /// The name on the broker of the topic of somebody else's that this is, where it is one: it is read and written as it
    /// is, never created, and stays when this is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<ByteString>,
    /// The broker that it is attached on, by its name in the resources of gateways; the backbone where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<ByteString>,
    /// What becomes of records that are no CloudEvents.
    #[serde(default, skip_serializing_if = "Foreign::is_default")]
    pub foreign: Foreign,
    /// Who declared it.
    pub origin: Origin,
}

impl TopicSpec {
    /// A topic with the defaults.
    pub fn new(name: TopicName, partitions: u32, origin: Origin) -> Self {
        Self {
            name,
            partitions,
            key_from: KeyFrom::PartitionKey,
            dedupe_window: limits::DEDUPE_WINDOW,
            retention: Retention::DEFAULT,
            attached: None,
            broker: None,
            foreign: Foreign::default(),
            origin,
        }
    }

    /// What it is attached to, where it is: the broker, none for the backbone, and its name there.
    pub fn attachment(&self) -> Option<Attachment> {
        self.attached.as_ref().map(|to| Attachment { broker: self.broker.clone(), to: to.clone() })
    }
}

/// What a topic is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The broker; none for the backbone.
    pub broker: Option<ByteString>,
    /// Its name there.
    pub to: ByteString,
}

impl Attachment {
    /// Attaches it under a name; gives its partitions.
    pub(crate) async fn attach(&self, log: &dyn PartitionLog, topic: &str) -> crate::Result<u32> {
        match &self.broker {
            None => log.attach(topic, &self.to).await,
            Some(broker) => log.attach_on(broker, topic, &self.to).await,
        }
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.broker {
            None => self.to.fmt(formatter),
            Some(broker) => write!(formatter, "{} on {broker}", self.to),
        }
    }
}

/// A topic that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Topic {
    pub(crate) v: Version,
    /// Never given twice: a topic that is deleted and created again is another. 0 in entries of early versions.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u64,
    /// How it is.
    pub spec: TopicSpec,
    /// When it was created, in milliseconds since 1970.
    pub created_at: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Topic {
    pub(crate) fn new(uid: u64, spec: TopicSpec, created_at: u64) -> Self {
        Self { v: VERSION, uid, spec, created_at }
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

/// The logs of a topic that are to be deleted, whose entry is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deletion {
    v: Version,
    /// How many it has.
    pub(super) partitions: u32,
}

impl Deletion {
    pub(super) fn new(partitions: u32) -> Self {
        Self { v: VERSION, partitions }
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

/// How an event stands in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Its attributes in headers, its data as the body.
    #[default]
    Binary,
    /// All of it as a JSON document.
    Structured,
}

/// The consent that a sink is asked for before it is sent anything (CloudEvents HTTP web hooks, section 4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HandshakeSpec {
    /// Who asks: a name of the DNS.
    pub origin: String,
    /// The requests per minute that are asked for.
    pub rate: Option<NonZeroU32>,
}

/// How the requests to a sink over HTTP are made. Of secrets it says that there are some; what they are is known only to
/// the process that reads the file which names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestSpec {
    /// How the event stands in it.
    pub mode: Mode,
    /// The schemes of its signatures (`v1`, `v1a`), one for each key; none where it is not signed.
    pub signatures: Vec<String>,
    /// The names of the headers that are added.
    pub headers: Vec<String>,
    /// Whether the sink is asked first.
    pub handshake: Option<HandshakeSpec>,
    /// The file of the certificates that are trusted in place of the machine's.
    pub ca: Option<String>,
}

impl RequestSpec {
    /// Whether requests need what only the file knows that declares the subscription.
    pub fn needs_its_file(&self) -> bool {
        !self.signatures.is_empty() || !self.headers.is_empty() || self.ca.is_some()
    }
}

/// What follows when the attempts of an event are used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnExhausted {
    /// It is dead-lettered, and its key goes on.
    #[default]
    Continue,
    /// Its key stands still until somebody resumes it.
    PauseKey,
}

/// Where a subscription begins in a topic that was there before it read that: in those that it finds when it is created or
/// changed, and in one that is attached. A topic that the gateway creates is read from its start, which all of these come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// With the first event that is still there.
    Earliest,
    /// With what comes after that moment.
    #[default]
    Latest,
    /// With the first event appended at or after that time, in milliseconds since 1970.
    Time(u64),
    /// At that place; for a subscription to one topic.
    At(Cursor),
}

impl Start {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
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
    /// How requests to it are made.
    #[serde(default)]
    pub request: RequestSpec,
    /// Where it begins.
    #[serde(default, skip_serializing_if = "Start::is_default")]
    pub from: Start,
    /// Which events wait for each other.
    pub order: Order,
    /// Deliveries that are out at once.
    pub max_in_flight: u32,
    /// How long one attempt may take.
    #[serde(with = "milliseconds")]
    pub timeout: Duration,
    /// When to try again, and when to stop.
    pub retry: RetryPolicy,
    /// What follows when the attempts of an event are used up.
    #[serde(default)]
    pub on_exhausted: OnExhausted,
    /// Where events go that cannot be delivered.
    pub dead_letter_topic: TopicName,
    /// Where replies go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<TopicName>,
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
    /// When it was created, in milliseconds since 1970; absent in entries of early versions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub created_at: Option<u64>,
    /// When what it asks for was changed last, where it was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub changed_at: Option<u64>,
}

impl Subscription {
    pub(crate) fn new(uid: u64, spec: SubscriptionSpec) -> Self {
        Self { v: VERSION, uid, spec, paused: None, created_at: None, changed_at: None }
    }
}

mod optional_milliseconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
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
