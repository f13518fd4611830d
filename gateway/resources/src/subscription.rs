//! The kind `Subscription`: which events go where, and how they are delivered.

use std::collections::HashSet;
use std::time::Duration;

use tidegate_routing::filter::{Filter, PathSegment, parse_filters};
use tidegate_routing::{RetryPolicy, TopicName, TopicPattern};
use tidegate_schemas::{Timestamp, limits};

use super::Origin;
use super::diagnostic::Place;
use super::document::{Header, Mention};
use super::reader::{Field, Fields, Reader};
use super::request::{self, Mode, Request};
use super::sink::Sink;
use super::yaml::{Content, Node};

/// Which events go where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its name, unique among subscriptions.
    pub name: String,
    /// Where it is written.
    pub origin: Origin,
    /// The topics that it reads; at least one.
    pub topics: Vec<TopicPattern>,
    /// Filters that must all match; none match every event.
    pub filters: Vec<Filter>,
    /// Where its events go.
    pub sink: Sink,
    /// How requests to a sink over HTTP are made.
    pub request: Request,
    /// Where the replies of its sink are published.
    pub reply_to: Option<TopicName>,
    /// How they are delivered.
    pub delivery: Delivery,
}

/// How the events of a subscription are delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Whether events of a key wait for each other.
    pub order: Order,
    /// Deliveries that are out at once.
    pub max_in_flight: u32,
    /// The time for one attempt.
    pub timeout: Duration,
    /// When a failed delivery is attempted again.
    pub retry: RetryPolicy,
    /// What follows when the attempts of an event are used up.
    pub on_exhausted: OnExhausted,
    /// Where events go that cannot be delivered.
    pub dead_letter_topic: TopicName,
    /// Where the subscription begins to read when it is new.
    pub from: StartFrom,
}

/// Whether events of a key wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// One event of a key is out at a time, in the order of the topic. Events without a key wait for nothing.
    #[default]
    Key,
    /// No event waits for another.
    None,
}

/// What follows when the attempts of an event are used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnExhausted {
    /// It is dead-lettered, and its key goes on.
    #[default]
    Continue,
    /// Its key stands still until somebody resumes it.
    PauseKey,
}

/// Where a new subscription begins to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StartFrom {
    /// With the oldest event that is kept.
    Earliest,
    /// With the first event that comes after it.
    #[default]
    Latest,
    /// With the first event that was appended at this time or later, in milliseconds since 1970.
    Time(u64),
}

/// Where the parts stand that are compared with other resources.
#[derive(Debug)]
pub(crate) struct Sites {
    /// The patterns that name one topic.
    pub(crate) literals: Vec<Mention>,
    pub(crate) sink: Place,
    /// The topic of the sink, if it is one.
    pub(crate) sink_topic: Option<Mention>,
    /// The binding of the sink, by its name, if it is one.
    pub(crate) sink_binding: Option<String>,
    /// The topic of replies, where there is one.
    pub(crate) reply_topic: Option<Mention>,
    pub(crate) dead_letter_topic: Mention,
}

impl Sites {
    /// The topics that the subscription publishes to.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Mention> {
        self.sink_topic.iter().chain(&self.reply_topic)
    }
}

pub(super) fn read(reader: &mut Reader<'_>, header: Header<'_>) -> Option<(Subscription, Sites)> {
    let known = [&["topics", "filters", "sink", "replyTo", "delivery"][..], &request::KEYS].concat();
    let spec = header.required_spec(reader, &known)?;
    let topics = spec.require(reader, "topics", "[orders.placed]").and_then(|field| read_topics(reader, &field));
    let filters = match spec.get("filters") {
        Some(field) => read_filters(reader, &field),
        None => Some(Vec::new()),
    };
    let sink = spec.require(reader, "sink", "http://127.0.0.1:8081/hook").and_then(|field| read_sink(reader, &field));
    let reply_topic = spec.get("replyTo").map(|field| read_reply_to(reader, &field));
    let delivery_field = spec.get("delivery");
    let mode = delivery_field.as_ref().and_then(|field| read_mode(reader, field));
    let request = request::read(reader, &spec, sink.as_ref().map(|(sink, _)| sink), mode);
    let delivery = read_delivery(reader, delivery_field.as_ref(), &header);
    let (topics, (sink, sink_mention)) = (topics?, sink?);
    let (delivery, dead_letter_topic) = delivery?;
    let reply_topic = reply_topic.map_or(Some(None), |read| read.map(Some))?;
    let reply_to = reply_topic.as_ref().map(|mention| mention.topic.clone());
    let sites = Sites {
        literals: topics
            .iter()
            .filter_map(|(pattern, (written, place))| {
                let topic = pattern.literal()?.clone();
                Some(Mention { topic, written: written.clone(), place: *place })
            })
            .collect(),
        sink: sink_mention.1,
        sink_topic: match &sink {
            Sink::Topic(topic) => {
                Some(Mention { topic: topic.clone(), written: sink_mention.0, place: sink_mention.1 })
            }
            Sink::Http(_) | Sink::Binding(_) => None,
        },
        sink_binding: match &sink {
            Sink::Binding(name) => Some(name.clone()),
            Sink::Http(_) | Sink::Topic(_) => None,
        },
        reply_topic,
        dead_letter_topic,
    };
    let topics = topics.into_iter().map(|(pattern, _)| pattern).collect();
    let subscription = Subscription {
        name: header.name,
        origin: header.origin,
        topics,
        filters: filters?,
        sink,
        request: request?,
        reply_to,
        delivery,
    };
    Some((subscription, sites))
}

/// A value as it is written, and where.
type Written = (String, Place);

fn read_topics(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Vec<(TopicPattern, Written)>> {
    let items = reader.list(field)?;
    let count = items.len();
    let mut seen = HashSet::new();
    let mut topics = Vec::with_capacity(count);
    for item in &items {
        let Some(text) = reader.text(item) else { continue };
        match TopicPattern::from_edge(text.value.as_str()) {
            Ok(pattern) => {
                if pattern.literal().is_some_and(TopicName::is_reserved) {
                    let reason = "belongs to the gateway and cannot be read in this version; choose another topic";
                    reader.fault_of_text(item, &text, &reason);
                } else if !seen.insert(pattern.clone()) {
                    reader.fault_of_text(item, &text, &"is named twice; remove one");
                }
                topics.push((pattern, (text.written, item.node.place)));
            }
            Err(reason) => reader.fault_of_text(item, &text, &reason),
        }
    }
    (topics.len() == count).then_some(topics)
}

fn read_filters(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Vec<Filter>> {
    let json = reader.json(field);
    match parse_filters(&json) {
        Ok(filters) => Some(filters),
        Err(faults) => {
            for fault in faults {
                let (what, mend) = fault.reason.split_once("; ").unwrap_or((&fault.reason, "correct the filter"));
                let place = place_of(field.node, &fault.path);
                let path = fault.to_string();
                let path = path.strip_suffix(&fault.reason).unwrap_or(&path).trim_end_matches(": ");
                let path = path.strip_prefix("filters").unwrap_or(path);
                match &node_of(field.node, &fault.path).content {
                    // What is said about an expression may name its parts, and places in it are not those of the file.
                    Content::Scalar { text, .. } if text.contains("${") => reader.fault(
                        place,
                        format!("`{}{path}` is not valid with its variables filled in", field.path),
                        format!("check the variables in `{text}`"),
                    ),
                    _ => reader.fault(place, format!("`{}{path}`: {what}", field.path), mend),
                }
            }
            None
        }
    }
}

/// The place of a fault in a tree, or of the nearest value around it.
fn place_of(node: &Node, path: &[PathSegment]) -> Place {
    if let [above @ .., PathSegment::KeyItself(key)] = path {
        let node = node_of(node, above);
        let Content::Map(entries) = &node.content else { return node.place };
        return entries.iter().find(|entry| entry.key == *key).map_or(node.place, |entry| entry.key_place);
    }
    node_of(node, path).place
}

/// The value that a path leads to, or the nearest around it.
fn node_of<'n>(node: &'n Node, path: &[PathSegment]) -> &'n Node {
    let Some((segment, rest)) = path.split_first() else { return node };
    let below = match (&node.content, segment) {
        (Content::List(items), PathSegment::Index(index)) => items.get(*index),
        (Content::Map(entries), PathSegment::Key(key)) => {
            entries.iter().find(|entry| entry.key == *key).map(|entry| &entry.value)
        }
        _ => None,
    };
    below.map_or(node, |below| node_of(below, rest))
}

fn read_sink(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<(Sink, Written)> {
    let text = reader.text(field)?;
    match Sink::parse_shown(&text.value, &text.written) {
        Ok(sink) => Some((sink, (text.written, field.node.place))),
        Err(reason) => {
            reader.fault_of_text(field, &text, &reason);
            None
        }
    }
}

/// `delivery.mode`, where it is written; that the rest of `delivery` is a map is told by who reads the rest.
fn read_mode<'n>(reader: &mut Reader<'_>, delivery: &Field<'n>) -> Option<(Mode, Field<'n>)> {
    let Content::Map(_) = &delivery.node.content else { return None };
    let field = reader.open_map(delivery)?.get("mode")?;
    let mode = reader.choice(&field, &[("binary", Mode::Binary), ("structured", Mode::Structured)])?;
    Some((mode, field))
}

fn read_reply_to(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Mention> {
    let text = reader.text(field)?;
    let reason = match Sink::parse_shown(&text.value, &text.written) {
        Ok(Sink::Topic(topic)) => return Some(Mention { topic, written: text.written, place: field.node.place }),
        Ok(Sink::Http(_) | Sink::Binding(_)) => {
            "is no topic; replies are published, so write for example `topic://replies`".to_owned()
        }
        Err(reason) => reason,
    };
    reader.fault_of_text(field, &text, &reason);
    None
}

fn read_delivery(
    reader: &mut Reader<'_>,
    field: Option<&Field<'_>>,
    header: &Header<'_>,
) -> Option<(Delivery, Mention)> {
    let topic = TopicName::dead_letter_of(&header.name)
        .expect("the reader of the name has checked that a dead-letter topic can be made of it");
    let mut mention = Mention { written: topic.to_string(), topic, place: header.name_place };
    let mut delivery = Delivery {
        order: Order::Key,
        max_in_flight: limits::DELIVERIES_IN_FLIGHT,
        timeout: limits::DELIVERY_TIMEOUT,
        retry: RetryPolicy::default(),
        on_exhausted: OnExhausted::Continue,
        dead_letter_topic: mention.topic.clone(),
        from: StartFrom::Latest,
    };
    let Some(field) = field else { return Some((delivery, mention)) };
    let known = ["mode", "order", "maxInFlight", "timeout", "retry", "onExhausted", "deadLetterTopic", "from"];
    let fields = reader.map(field, &known)?;
    if let Some(field) = fields.get("order") {
        delivery.order = reader.choice(&field, &[("key", Order::Key), ("none", Order::None)]).unwrap_or_default();
    }
    if let Some(field) = fields.get("maxInFlight") {
        let number = reader.integer_u32(&field, 1..=limits::DELIVERIES_IN_FLIGHT_MAX);
        delivery.max_in_flight = number.unwrap_or(delivery.max_in_flight);
    }
    if let Some(field) = fields.get("timeout") {
        let timeout = reader.duration(&field, Duration::from_millis(1)..=limits::DELIVERY_TIMEOUT_MAX);
        delivery.timeout = timeout.unwrap_or(delivery.timeout);
    }
    if let Some(field) = fields.get("retry") {
        delivery.retry = read_retry(reader, &field).unwrap_or_default();
    }
    if let Some(field) = fields.get("onExhausted") {
        let choices = [("continue", OnExhausted::Continue), ("pauseKey", OnExhausted::PauseKey)];
        delivery.on_exhausted = reader.choice(&field, &choices).unwrap_or_default();
    }
    if let Some(field) = fields.get("deadLetterTopic")
        && let Some(named) = read_dead_letter_topic(reader, &field)
    {
        delivery.dead_letter_topic = named.topic.clone();
        mention = named;
    }
    if let Some(field) = fields.get("from") {
        delivery.from = reader.parsed(&field, parse_from).unwrap_or_default();
    }
    Some((delivery, mention))
}

fn read_dead_letter_topic(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Mention> {
    let text = reader.text(field)?;
    let checked = TopicName::from_edge(text.value.as_str()).map_err(|error| error.to_string()).and_then(|topic| {
        if topic.is_reserved() {
            return Err("belongs to the gateway itself; choose another name".to_owned());
        }
        Ok(topic)
    });
    match checked {
        Ok(topic) => Some(Mention { topic, written: text.written, place: field.node.place }),
        Err(reason) => {
            reader.fault_of_text(field, &text, &reason);
            None
        }
    }
}

fn read_retry(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<RetryPolicy> {
    let fields = reader.map(field, &["maxAttempts", "maxAge", "initial", "max", "policy"])?;
    if let Some(field) = fields.get("policy") {
        reader.not_available(&field, "write maxAttempts, maxAge, initial and max out");
    }
    let mut policy = RetryPolicy::default();
    if let Some(field) = fields.get("maxAttempts") {
        let number = reader.integer_u32(&field, 1..=limits::RETRY_ATTEMPTS_MAX);
        policy.max_attempts = number.unwrap_or(policy.max_attempts);
    }
    let least = Duration::from_millis(1);
    let mut duration = |key: &str, most: Duration, target: &mut Duration| {
        if let Some(field) = fields.get(key) {
            *target = reader.duration(&field, least..=most).unwrap_or(*target);
        }
    };
    duration("maxAge", limits::RETRY_AGE_MAX, &mut policy.max_age);
    duration("initial", limits::RETRY_AGE_MAX, &mut policy.initial);
    duration("max", limits::RETRY_AGE_MAX, &mut policy.max);
    if policy.initial > policy.max {
        at_fault_is_initial_or_max(reader, &fields);
    }
    Some(policy)
}

/// `initial` is above `max`, and the one that is written, or else the other, is to be changed.
fn at_fault_is_initial_or_max(reader: &mut Reader<'_>, fields: &Fields<'_>) {
    let Some(field) = fields.get("initial").or_else(|| fields.get("max")) else { return };
    let (initial, max) = (limits::RETRY_INITIAL.as_secs(), limits::RETRY_MAX.as_secs());
    let mend = format!("write `initial` below `max`; without being written they are {initial}s and {max}s");
    reader.fault(field.node.place, "the first delay `initial` is longer than the longest one, `max`", mend);
}

fn parse_from(text: &str) -> Result<StartFrom, String> {
    const MEND: &str = "write earliest, latest or a time such as `2026-10-21T07:28:00Z`";
    match text {
        "earliest" => return Ok(StartFrom::Earliest),
        "latest" => return Ok(StartFrom::Latest),
        _ => {}
    }
    let time = Timestamp::parse(text.to_owned()).map_err(|_| {
        format!(
            "is neither earliest nor latest nor a time, and positions are not available here in this version; {MEND}"
        )
    })?;
    u64::try_from(time.unix_nanoseconds() / 1_000_000)
        .map(StartFrom::Time)
        .map_err(|_| format!("is before 1970; {MEND}"))
}
