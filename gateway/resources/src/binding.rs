//! The kind `Binding`: a queue or an exchange of somebody else's, as the sink of subscriptions or as the source of a topic.
//!
//! ```yaml
//! apiVersion: tidegate.dev/v1
//! kind: Binding
//! metadata: {name: orders-out}
//! spec:
//!   broker: legacy
//!   output: {exchange: orders, routingKey: "order.{type}"}
//! ---
//! apiVersion: tidegate.dev/v1
//! kind: Binding
//! metadata: {name: orders-in}
//! spec:
//!   broker: legacy
//!   input: {queue: orders, topic: orders.placed, key: routingKey}
//! ```

use tidegate_routing::TopicName;
use tidegate_schemas::{Event, limits};

use super::Origin;
use super::diagnostic::Place;
use super::document::{Header, Mention};
use super::reader::{Field, Fields, Reader};
use super::sink::Sink;

/// A queue or an exchange of a broker, and what it is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its name, by which subscriptions say that it is their sink (`binding://NAME`).
    pub name: String,
    /// Where it is written.
    pub origin: Origin,
    /// The broker, by its name.
    pub broker: String,
    /// Which way events go.
    pub direction: Direction,
}

/// Which way events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Messages come in and become events of a topic.
    Input(Input),
    /// Events of subscriptions go out.
    Output(Output),
}

/// What comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Where messages are taken from.
    pub from: Source,
    /// The topic that they go to.
    pub topic: TopicName,
    /// Messages that the broker gives before they are acknowledged.
    pub prefetch: u16,
    /// Which messages keep their order.
    pub key: Key,
    /// The type of events that messages become which are none and name no type.
    pub kind: Option<String>,
    /// Their source.
    pub source: Option<String>,
    /// What becomes of a message that can never be an event.
    pub on_refused: OnRefused,
}

/// Where messages are taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A queue that is there, left as it is.
    Queue(String),
    /// An exchange, by a queue of the gateway's own that is bound to it.
    Exchange {
        /// Its name.
        exchange: String,
        /// The routing keys by which the queue is bound; at least one.
        keys: Vec<String>,
    },
}

/// Which messages keep their order: those whose events have the same `partitionkey`, which an event that has none is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// None is given.
    #[default]
    None,
    /// One for all messages of the queue.
    Queue,
    /// The message's routing key.
    RoutingKey,
    /// The value of that header of the message, where it has it.
    Header(String),
}

/// What becomes of a message that can never be an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRefused {
    /// It stays in the queue, and the binding stands still until somebody resumes it.
    #[default]
    Pause,
    /// It is given back as refused: to the queue's dead-letter exchange where it has one.
    Reject,
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To an exchange, with that routing key.
    Exchange {
        /// Its name.
        exchange: String,
        /// What its routing key is made of.
        routing_key: RoutingKey,
    },
    /// Into a queue.
    Queue(String),
}

/// A routing key with attributes of the event in it: `order.{type}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingKey {
    written: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Attribute(String),
}

impl RoutingKey {
    /// Reads one. The error has the form `what; how to mend it`.
    pub fn parse(text: &str) -> Result<Self, String> {
        const MEND: &str = "write for example `orders` or `order.{type}`";
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some(start) = rest.find(['{', '}']) {
            let (before, behind) = rest.split_at(start);
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let inside = behind.strip_prefix('{').and_then(|behind| behind.split_once('}'));
            let Some((name, after)) = inside else {
                return Err(format!("has a brace without its other one; {MEND}"));
            };
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
                return Err(format!("has `{{{name}}}`, and no attribute has such a name; {MEND}"));
            }
            parts.push(Part::Attribute(name.to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if text.len() > limits::QUEUE_NAME_BYTES {
            return Err(format!(
                "is longer than {} bytes, which is all that brokers take; shorten it",
                limits::QUEUE_NAME_BYTES
            ));
        }
        Ok(Self { written: text.to_owned(), parts })
    }

    /// The routing key of an event.
    ///
    /// # Errors
    /// Why the event can have none.
    pub fn of(&self, event: &Event) -> Result<String, String> {
        let mut key = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => key.push_str(text),
                Part::Attribute(name) => match event.attribute(name) {
                    Some(value) => key.push_str(&value),
                    None => return Err(format!("the event has no attribute {name}, which the routing key is made of")),
                },
            }
        }
        if key.len() > limits::QUEUE_NAME_BYTES {
            let (bytes, most) = (key.len(), limits::QUEUE_NAME_BYTES);
            return Err(format!("the event's routing key would have {bytes} bytes, and may have {most}"));
        }
        Ok(key)
    }
}

impl std::fmt::Display for RoutingKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.written)
    }
}

/// Where the parts of a binding stand that are compared with other resources.
#[derive(Clone, Debug)]
pub(crate) struct Sites {
    pub(crate) broker: Place,
    /// The topic that messages go to.
    pub(crate) topic: Option<Mention>,
    /// The queue that they come from.
    pub(crate) queue: Option<Place>,
}

pub(super) fn read(reader: &mut Reader<'_>, header: Header<'_>) -> Option<(Binding, Sites)> {
    if !reader.reads_files {
        reader.fault(
            header.name_place,
            format!("the binding `{}` is no resource of requests, because its broker is not", header.name),
            "declare it in the resource files of every gateway",
        );
        return None;
    }
    let spec = header.required_spec(reader, &["broker", "input", "output"])?;
    let broker = spec.require(reader, "broker", "legacy").and_then(|field| {
        // The name of a resource, which takes no variables.
        Some((reader.text(&field)?.value, field.node.place))
    });
    let mut sites = Sites { broker: header.name_place, topic: None, queue: None };
    let direction = match (spec.get("input"), spec.get("output")) {
        (Some(input), None) => read_input(reader, &input, &mut sites).map(Direction::Input),
        (None, Some(output)) => read_output(reader, &output).map(Direction::Output),
        (Some(_), Some(output)) => {
            let what = format!("the binding `{}` has an input and an output", header.name);
            reader.fault(output.key_place, what, "declare two bindings, one for each");
            None
        }
        (None, None) => {
            let what = format!("the binding `{}` has neither an input nor an output", header.name);
            reader.fault(
                header.place,
                what,
                "add `input: {queue: orders, topic: orders}` or `output: {queue: orders}`",
            );
            None
        }
    };
    let ((broker, broker_place), direction) = (broker?, direction?);
    sites.broker = broker_place;
    Some((Binding { name: header.name, origin: header.origin, broker, direction }, sites))
}

/// The name of a queue or an exchange.
fn parse_name(text: &str) -> Result<String, String> {
    let most = limits::QUEUE_NAME_BYTES;
    if text.is_empty() || text.len() > most || text.chars().any(char::is_control) {
        return Err(format!("is no name on a broker; write it as the broker has it, 1 to {most} bytes"));
    }
    Ok(text.to_owned())
}

/// Whether one of the two is there, which must be.
fn one_of_two(reader: &mut Reader<'_>, field: &Field<'_>, fields: &Fields<'_>) -> bool {
    let mend = "name one of them: where it leads decides what the broker is asked for";
    match (fields.get("queue"), fields.get("exchange")) {
        (Some(_), Some(exchange)) => {
            reader.fault(exchange.key_place, format!("`{}` names a queue and an exchange", field.path), mend);
            false
        }
        (None, None) => {
            reader.fault(field.key_place, format!("`{}` names neither a queue nor an exchange", field.path), mend);
            false
        }
        _ => true,
    }
}

fn read_output(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Output> {
    let fields = reader.map(field, &["queue", "exchange", "routingKey"])?;
    let is_one = one_of_two(reader, field, &fields);
    if let Some(queue) = fields.get("queue") {
        if let Some(key) = fields.get("routingKey") {
            let what = format!("`{}` is for exchanges, and a queue is sent to by its name", key.path);
            reader.fault(key.key_place, what, "remove it, or name an exchange");
            return None;
        }
        return reader.parsed(&queue, parse_name).filter(|_| is_one).map(Output::Queue);
    }
    let exchange = fields.get("exchange").and_then(|field| reader.parsed(&field, parse_name));
    let routing_key = fields.require(reader, "routingKey", "'{type}'");
    let routing_key = routing_key.and_then(|field| reader.parsed(&field, RoutingKey::parse));
    Some(Output::Exchange { exchange: exchange?, routing_key: routing_key? }).filter(|_| is_one)
}

fn read_input(reader: &mut Reader<'_>, field: &Field<'_>, sites: &mut Sites) -> Option<Input> {
    let known = ["queue", "exchange", "topic", "prefetch", "key", "type", "source", "onRefused"];
    let fields = reader.map(field, &known)?;
    let is_one = one_of_two(reader, field, &fields);
    let from = match (fields.get("queue"), fields.get("exchange")) {
        (Some(queue), _) => {
            sites.queue = Some(queue.node.place);
            reader.parsed(&queue, parse_name).map(Source::Queue)
        }
        (None, Some(exchange)) => read_exchange(reader, &exchange),
        (None, None) => None,
    };
    let topic = fields.require(reader, "topic", "orders").and_then(|field| read_topic(reader, &field));
    let faults = reader.faults();
    let mut input = Input {
        from: from.filter(|_| is_one)?,
        topic: topic.as_ref()?.topic.clone(),
        prefetch: limits::BINDING_PREFETCH,
        key: Key::None,
        kind: None,
        source: None,
        on_refused: OnRefused::Pause,
    };
    sites.topic = topic;
    if let Some(field) = fields.get("prefetch") {
        let number = reader.integer_u32(&field, 1..=limits::BINDING_PREFETCH_MAX.into());
        input.prefetch = number.and_then(|number| u16::try_from(number).ok()).unwrap_or(input.prefetch);
    }
    if let Some(field) = fields.get("key") {
        input.key = reader.parsed(&field, parse_key).unwrap_or_default();
    }
    if let Some(field) = fields.get("onRefused") {
        let choices = [("pause", OnRefused::Pause), ("reject", OnRefused::Reject)];
        input.on_refused = reader.choice(&field, &choices).unwrap_or_default();
    }
    // Whatever an event takes as its attribute.
    let is_type = |text: &str| Event::builder("1", "/", text).build().is_ok();
    if let Some(field) = fields.get("type") {
        let mend = "is no type of events; write for example `com.example.order.placed`";
        input.kind = reader.parsed(&field, |text| if is_type(text) { Ok(text.to_owned()) } else { Err(mend) });
    }
    let is_source = |text: &str| Event::builder("1", text, "t").build().is_ok();
    if let Some(field) = fields.get("source") {
        let mend = "is no source of events, which is a reference to a URI; write for example `/legacy/orders`";
        input.source = reader.parsed(&field, |text| if is_source(text) { Ok(text.to_owned()) } else { Err(mend) });
    }
    (reader.faults() == faults).then_some(input)
}

fn read_exchange(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Source> {
    let fields = reader.map(field, &["name", "bind"])?;
    let exchange = fields.require(reader, "name", "orders").and_then(|field| reader.parsed(&field, parse_name));
    let bind = fields.require(reader, "bind", "['order.#']")?;
    let items = reader.list(&bind)?;
    if items.len() > limits::BINDING_KEYS {
        let what =
            format!("`{}` has {} routing keys, and at most {} are bound", bind.path, items.len(), limits::BINDING_KEYS);
        reader.fault(bind.node.place, what, "bind by patterns, or declare several bindings");
        return None;
    }
    let parse = |text: &str| {
        if text.len() <= limits::QUEUE_NAME_BYTES {
            return Ok(text.to_owned());
        }
        Err(format!("is longer than {} bytes, which is all that brokers take; shorten it", limits::QUEUE_NAME_BYTES))
    };
    let keys: Vec<String> = items.iter().filter_map(|item| reader.parsed(item, parse)).collect();
    let exchange = exchange?;
    (keys.len() == items.len()).then_some(Source::Exchange { exchange, keys })
}

fn read_topic(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Mention> {
    let text = reader.text(field)?;
    match Sink::parse(&format!("topic://{}", text.value)) {
        Ok(Sink::Topic(topic)) => Some(Mention { topic, written: text.written, place: field.node.place }),
        Ok(_) => None,
        Err(reason) => {
            reader.fault_of_text(field, &text, &reason);
            None
        }
    }
}

/// `none`, `queue`, `routingKey`, or `header NAME`.
fn parse_key(text: &str) -> Result<Key, &'static str> {
    match text {
        "none" => Ok(Key::None),
        "queue" => Ok(Key::Queue),
        "routingKey" => Ok(Key::RoutingKey),
        _ => match text.strip_prefix("header ").map(str::trim) {
            Some(name) if !name.is_empty() => Ok(Key::Header(name.to_owned())),
            _ => Err("is no key; write none, queue, routingKey, or `header NAME`"),
        },
    }
}
