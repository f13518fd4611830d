//! The kind `Topic`: how a topic is kept.

use std::num::NonZeroU32;
use std::time::Duration;

use tidegate_routing::{KeyFrom, TopicName};
use tidegate_schemas::limits;

use super::Origin;
use super::diagnostic::Place;
use super::document::{Header, Mention};
use super::quantity::{format_duration, format_size, parse_duration, parse_size};
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
    /// The topic of somebody else's that it is, where it is one.
    pub attach: Option<Attach>,
    /// What becomes of its records that are no CloudEvents.
    pub foreign: Foreign,
}

/// A topic of somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Its name on the broker.
    pub name: String,
    /// The broker that it is on, by its name; the backbone where there is none.
    pub broker: Option<String>,
}

/// Where the parts of a topic stand that are compared with other resources.
#[derive(Clone, Debug)]
pub(crate) struct Sites {
    pub(crate) name: Mention,
    /// The broker that it is attached on, as it is written, and where.
    pub(crate) broker: Option<(String, Place)>,
}

/// What becomes of records that are no CloudEvents; only others than gateways write such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Foreign {
    /// They are delivered, wrapped in an event.
    #[default]
    Wrap,
    /// They become dead letters.
    DeadLetter,
}

impl Foreign {
    /// Each with its word.
    pub const ALL: [(&'static str, Self); 2] = [("wrap", Self::Wrap), ("dead-letter", Self::DeadLetter)];
}

/// Reads the name of a topic on a broker, which need not be one of ours. The error has the form `what; how to mend it`.
pub fn parse_attached(text: &str) -> Result<String, String> {
    let most = limits::ATTACHED_NAME_BYTES;
    if text.is_empty() || text.len() > most || text.chars().any(|character| character.is_control()) {
        return Err(format!("is no name of a topic on a broker; write it as the broker has it, 1 to {most} bytes"));
    }
    Ok(text.to_owned())
}

/// When events of a topic go. Without a bound they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Older ones go.
    pub age: Option<Duration>,
    /// The oldest ones of a partition go beyond this many bytes.
    pub bytes: Option<u64>,
}

/// The word for no bound.
const UNLIMITED: &str = "unlimited";

impl Retention {
    /// What a topic has for which nothing is said.
    pub fn default_of(topic: &TopicName) -> Self {
        let age = if topic.is_dead_letter() { limits::RETENTION_DEAD_LETTERS_AGE } else { limits::RETENTION_AGE };
        Self { age: Some(age), bytes: None }
    }

    /// Reads an age, or `unlimited`. The error has the form `what; how to mend it`.
    pub fn parse_age(text: &str) -> Result<Option<Duration>, String> {
        if text == UNLIMITED {
            return Ok(None);
        }
        let age = parse_duration(text).map_err(|reason| format!("{reason}, or `{UNLIMITED}`"))?;
        if (RETENTION_AGE_MIN..=RETENTION_AGE_MAX).contains(&age) {
            return Ok(Some(age));
        }
        let (least, most) = (format_duration(RETENTION_AGE_MIN), format_duration(RETENTION_AGE_MAX));
        Err(format!("is out of range; write a duration from {least} to {most}, or `{UNLIMITED}`"))
    }

    /// Reads a number of bytes, or `unlimited`. The error is as that of [`Retention::parse_age`].
    pub fn parse_bytes(text: &str) -> Result<Option<u64>, String> {
        if text == UNLIMITED {
            return Ok(None);
        }
        let bytes = parse_size(text).map_err(|reason| format!("{reason}, or `{UNLIMITED}`"))?;
        if (RETENTION_BYTES_MIN..=RETENTION_BYTES_MAX).contains(&bytes) {
            return Ok(Some(bytes));
        }
        let (least, most) = (format_size(RETENTION_BYTES_MIN), format_size(RETENTION_BYTES_MAX));
        Err(format!("is out of range; write a size from {least} to {most}, or `{UNLIMITED}`"))
    }

    /// The age as [`Retention::parse_age`] reads it.
    pub fn age_text(age: Option<Duration>) -> String {
        age.map_or_else(|| UNLIMITED.to_owned(), format_duration)
    }

    /// The bytes as [`Retention::parse_bytes`] reads them.
    pub fn bytes_text(bytes: Option<u64>) -> String {
        bytes.map_or_else(|| UNLIMITED.to_owned(), format_size)
    }
}

pub(super) fn read(reader: &mut Reader<'_>, header: Header<'_>) -> Option<(Topic, Sites)> {
    let name = TopicName::parse(header.name.as_str()).expect("the reader of the name has checked it");
    if name.is_reserved() {
        let what = format!("the topic `{name}` belongs to the gateway itself");
        reader.fault(header.name_place, what, "choose a name that begins neither with `tidegate.` nor with `state.`");
    }
    let mention = Mention { topic: name.clone(), written: name.to_string(), place: header.name_place };
    let mut sites = Sites { name: mention, broker: None };
    let retention = Retention::default_of(&name);
    let mut topic = Topic {
        name,
        origin: header.origin,
        partitions: None,
        retention,
        dedupe_window: None,
        key_from: KeyFrom::default(),
        attach: None,
        foreign: Foreign::default(),
    };
    // A topic with nothing to say is still one to create.
    let Some(spec) = header.spec else { return Some((topic, sites)) };
    let fields = reader.map(&spec, &["partitions", "retention", "dedupe", "keyFrom", "schema", "attach", "foreign"])?;
    if let Some(field) = fields.get("schema") {
        reader.not_available(&field, "remove it; data is not checked against schemas");
    }
    if let Some(field) = fields.get("partitions") {
        topic.partitions = reader.integer_u32(&field, 1..=limits::TOPIC_PARTITIONS).and_then(NonZeroU32::new);
    }
    if let Some(field) = fields.get("retention") {
        topic.retention = read_retention(reader, &field, retention).unwrap_or(retention);
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
    if let Some(field) = fields.get("attach") {
        topic.attach = read_attach(reader, &field, &mut sites);
        for key in ["partitions", "retention"] {
            let Some(other) = fields.get(key) else { continue };
            let what = format!("`{}` is what the topic has on the broker, since it is attached", other.path);
            reader.fault(other.key_place, what, "remove it; whoever owns the topic says it there");
        }
    }
    if let Some(field) = fields.get("foreign") {
        topic.foreign = reader.choice(&field, &Foreign::ALL).unwrap_or_default();
    }
    Some((topic, sites))
}

fn read_attach(reader: &mut Reader<'_>, field: &Field<'_>, sites: &mut Sites) -> Option<Attach> {
    let fields = reader.map(field, &["name", "broker"])?;
    let name = fields.require(reader, "name", "name-on-the-broker");
    let name = name.and_then(|field| reader.parsed(&field, parse_attached));
    let broker = match fields.get("broker") {
        Some(field) => {
            // The name of a resource, which takes no variables either.
            let broker = reader.text(&field)?.value;
            sites.broker = Some((broker.clone(), field.node.place));
            Some(broker)
        }
        None => None,
    };
    Some(Attach { name: name?, broker })
}

fn read_retention(reader: &mut Reader<'_>, field: &Field<'_>, default: Retention) -> Option<Retention> {
    let fields = reader.map(field, &["age", "bytes"])?;
    let mut retention = default;
    if let Some(field) = fields.get("age") {
        retention.age = match field.node.content.kind() {
            // A number lacks its unit, which the reader of durations says best.
            "a number" => reader.duration(&field, RETENTION_AGE_MIN..=RETENTION_AGE_MAX).map(Some),
            _ => reader.parsed(&field, Retention::parse_age),
        }
        .unwrap_or(default.age);
    }
    if let Some(field) = fields.get("bytes") {
        retention.bytes = match field.node.content.kind() {
            "a number" => reader.size(&field, RETENTION_BYTES_MIN..=RETENTION_BYTES_MAX).map(Some),
            _ => reader.parsed(&field, Retention::parse_bytes),
        }
        .unwrap_or(default.bytes);
    }
    Some(retention)
}
