//! The kind `Topic`: how a topic is kept.

use std::num::NonZeroU32;
use std::time::Duration;

use tidegate_routing::{KeyFrom, TopicName};
use tidegate_schemas::limits;

use super::Origin;
use super::document::{Header, Mention};
use super::reader::{Field, Reader};

/// The shortest age and the least bytes that a topic may keep; less is a slip of the pen.
const RETENTION_AGE_MIN: Duration = Duration::from_secs(1);
const RETENTION_BYTES_MIN: u64 = 1024 * 1024;
/// A hundred years: what is above is a slip of the pen too, and would not fit the arithmetic of every broker.
const RETENTION_AGE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
const RETENTION_BYTES_MAX: u64 = 1 << 60;

/// How a topic is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// Where it is written.
    pub origin: Origin,
    /// Its partitions; nothing where the backbone's default is meant.
    pub partitions: Option<NonZeroU32>,
    /// When its events go.
    pub retention: Retention,
    /// How long a repeat of an event is recognised; nothing where the default is meant.
    pub dedupe_window: Option<Duration>,
    /// Where the key of its events comes from.
    pub key_from: KeyFrom,
}

/// When events of a topic go. Without a bound they are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Older ones go.
    pub age: Option<Duration>,
    /// The oldest ones go beyond this many bytes.
    pub bytes: Option<u64>,
}

pub(super) fn read(reader: &mut Reader<'_>, header: Header<'_>) -> Option<(Topic, Mention)> {
    let name = TopicName::parse(header.name.as_str()).expect("the reader of the name has checked it");
    if name.is_reserved() {
        let what = format!("the topic `{name}` belongs to the gateway itself");
        reader.fault(header.name_place, what, "choose a name that begins neither with `tidegate.` nor with `state.`");
    }
    let mention = Mention { topic: name.clone(), written: name.to_string(), place: header.name_place };
    let mut topic = Topic {
        name,
        origin: header.origin,
        partitions: None,
        retention: Retention::default(),
        dedupe_window: None,
        key_from: KeyFrom::default(),
    };
    // A topic with nothing to say is still one to create.
    let Some(spec) = header.spec else { return Some((topic, mention)) };
    let fields = reader.map(&spec, &["partitions", "retention", "dedupe", "keyFrom", "schema"])?;
    if let Some(field) = fields.get("schema") {
        reader.not_available(&field, "remove it; data is not checked against schemas");
    }
    if let Some(field) = fields.get("partitions") {
        topic.partitions = reader.integer_u32(&field, 1..=limits::TOPIC_PARTITIONS).and_then(NonZeroU32::new);
    }
    if let Some(field) = fields.get("retention") {
        topic.retention = read_retention(reader, &field).unwrap_or_default();
    }
    if let Some(field) = fields.get("dedupe")
        && let Some(dedupe) = reader.map(&field, &["window"])
        && let Some(window) = dedupe.require(reader, "window", "2m")
    {
        topic.dedupe_window = reader.duration(&window, Duration::ZERO..=limits::DEDUPE_WINDOW_MAX);
    }
    if let Some(field) = fields.get("keyFrom") {
        let choices = [("partitionkey", KeyFrom::PartitionKey), ("subject", KeyFrom::Subject)];
        topic.key_from = reader.choice(&field, &choices).unwrap_or_default();
    }
    Some((topic, mention))
}

fn read_retention(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Retention> {
    let fields = reader.map(field, &["age", "bytes"])?;
    let age = fields.get("age").and_then(|field| reader.duration(&field, RETENTION_AGE_MIN..=RETENTION_AGE_MAX));
    let bytes = fields.get("bytes").and_then(|field| reader.size(&field, RETENTION_BYTES_MIN..=RETENTION_BYTES_MAX));
    // Nothing is lost by keeping more than was asked for, so this is no fault; but nobody may rely on it.
    reader.warn(
        field.key_place,
        format!("`{}` is recorded, and this version keeps events beyond it", field.path),
        "watch the disk; the setting takes effect in a version that trims topics",
    );
    Some(Retention { age, bytes })
}
