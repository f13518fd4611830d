//! Events on their way to exchanges and queues of others. Each exchange has a channel of its own, because the broker ends a
//! channel over one message that it refuses, and with it whatever is on its way there.

use std::collections::HashMap;
use std::sync::Arc;

use lapin::BasicProperties;
use parking_lot::Mutex;
use tidegate_backbone::queues::{Address, Sent};
use tidegate_backbone::{Applied, Error, ErrorKind, Record, Result};
use tidegate_schemas::{Event, limits};

use super::{Door, Lazy};
use crate::connection::Link;
use crate::error::{Right, closed};
use crate::publisher::{Channels, Late, Manner, Message, Publisher, Taken};
use crate::record::encode;

/// What rights call the exchange without a name.
const DEFAULT_EXCHANGE: &str = "amq.default";
/// What AMQP has a short text for is at most so long.
const SHORT_BYTES: usize = 255;

pub(super) struct Outbox {
    door: Arc<Door>,
    connection: Lazy,
    /// By exchange; queues have the one without a name.
    publishers: Mutex<HashMap<String, Arc<Publisher>>>,
}

impl Outbox {
    pub(super) fn new(door: Arc<Door>) -> Self {
        Self { connection: Lazy::new("messages to queues", Arc::clone(&door)), door, publishers: Mutex::default() }
    }

    pub(super) fn unreachable(&self) -> Option<String> {
        let link = self.connection.known()?;
        let blocked = || link.blocked().map(|reason| format!("RabbitMQ takes no messages for now: {reason}"));
        link.unreachable().or_else(blocked)
    }

    pub(super) fn close(&self) {
        self.connection.close();
    }

    pub(super) async fn send(&self, to: Address, event: Event) -> Result<Sent> {
        let what = format!("an event to {to}");
        let link = self.connection.link().await?;
        Lazy::require(&link, &what)?;
        let environment = &self.door.environment;
        let described = described(&event);
        let now = environment.clock.unix_milliseconds();
        let encoded = encode(Record::Event(event), now, &environment.memory)?;
        let (exchange, key) = match &to {
            Address::Exchange { exchange, routing_key } => (exchange.to_string(), routing_key.to_string()),
            Address::Queue(queue) => (String::new(), queue.to_string()),
        };
        let publisher = self.publisher(&link, &exchange);
        let properties = described(encoded.properties);
        let message = Message { exchange, key, mandatory: true, properties, body: encoded.body };
        let answer = publisher.push(message, what.as_str().into(), Some(encoded.permit))?;
        match answer.await.unwrap_or_else(|_| Err(closed())) {
            Ok(Taken::Yes) => Ok(Sent::Stored),
            Ok(Taken::Nobody) => Ok(Sent::Nobody),
            // What it says that it could not do, and nothing else is told like this.
            Err(error) if *error.kind() == ErrorKind::Unavailable && error.applied() == Applied::Unknown => {
                Ok(Sent::Refused)
            }
            Err(error) if *error.kind() == ErrorKind::Denied => {
                let name = match &to {
                    Address::Exchange { exchange, .. } => exchange,
                    Address::Queue(_) => DEFAULT_EXCHANGE,
                };
                let right = Right { right: "write", on: "exchange", name };
                let missing = right.missing(&self.door.options, &error.to_string());
                Err(Error::new(ErrorKind::Denied, format!("{what}: {missing}")).outcome_unknown())
            }
            Err(error) => Err(error),
        }
    }

    fn publisher(&self, link: &Arc<Link>, exchange: &str) -> Arc<Publisher> {
        let mut publishers = self.publishers.lock();
        if let Some(publisher) = publishers.get(exchange) {
            return Arc::clone(publisher);
        }
        let manner = Manner {
            messages_max: limits::RABBITMQ_QUEUE_RECORDS,
            bytes_max: limits::RABBITMQ_QUEUE_BYTES,
            waits: false,
            late: Late::EndsChannel,
            // One of the queues may be a stream.
            channels: if exchange.is_empty() { Channels::EachQueue } else { Channels::One },
        };
        let publisher = Arc::new(Publisher::start(Arc::clone(link), &self.door.environment, manner));
        if publishers.len() > limits::BINDINGS {
            // Of bindings that are gone. What is on its way ends as it would.
            publishers.clear();
        }
        publishers.insert(exchange.to_owned(), Arc::clone(&publisher));
        publisher
    }
}

/// What programs look for that know nothing of CloudEvents: the message's id, type and time, where they fit.
fn described(event: &Event) -> impl FnOnce(BasicProperties) -> BasicProperties + use<> {
    let short = |text: &str| (text.len() <= SHORT_BYTES).then(|| text.to_owned());
    let (id, kind) = (short(event.id()), short(event.kind()));
    let seconds = event.time().map(|time| time.unix_nanoseconds() / 1_000_000_000);
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    move |mut properties: BasicProperties| {
        if let Some(id) = id {
            properties = properties.with_message_id(id.into());
        }
        if let Some(kind) = kind {
            properties = properties.with_type(kind.into());
        }
        if let Some(seconds) = seconds {
            properties = properties.with_timestamp(seconds);
        }
        properties
    }
}
