//! Readers of queues of others: a consumer on a channel of its own, whose messages are the broker's until they are acknowledged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Consumer};
use tidegate_backbone::budget::{Account, Budget};
use tidegate_backbone::queues::{Intake, Received, Source};
use tidegate_backbone::{BoxFuture, Error, ErrorKind, Result};
use tidegate_schemas::amqp::Property;
use tidegate_schemas::limits::{self, Limits};
use tidegate_schemas::message::{Death, Message};
use tokio::sync::watch;

use crate::ask::offset;
use crate::connection::{Link, State};
use crate::error::{Right, failed, failed_for, misconfigured, unavailable};
use crate::options::Options;
use crate::record::{carried, content_type, property};

/// What a farewell waits for.
const GOODBYE: Duration = Duration::from_secs(1);

/// Who reads.
pub(super) struct Reader<'a> {
    pub(super) link: Arc<Link>,
    pub(super) memory: &'a Budget,
    pub(super) options: &'a Options,
    pub(super) name: &'a str,
}

impl Reader<'_> {
    pub(super) async fn open(&self, source: &Source, prefetch: u16) -> Result<RabbitIntake> {
        let what = match source {
            Source::Queue(queue) => format!("reading the queue {queue}"),
            Source::Exchange { exchange, .. } => format!("reading the exchange {exchange}"),
        };
        let opened = tokio::time::timeout(limits::RABBITMQ_CALL_TIMEOUT, self.consume(source, prefetch, &what)).await;
        opened.map_err(|_| unavailable(format!("{what}: RabbitMQ did not answer in time")))?
    }

    async fn consume(&self, source: &Source, prefetch: u16, what: &str) -> Result<RabbitIntake> {
        let open = self.link.require(what)?;
        let queue = match source {
            Source::Queue(queue) => queue.to_string(),
            Source::Exchange { exchange, keys, gone } => {
                let queue = format!("{}~binding~{}", self.options.namespace, self.name);
                self.make(&queue, what).await?;
                let channel = open.channel(what).await?;
                let needs = [
                    Right { right: "write", on: "queue", name: &queue },
                    Right { right: "read", on: "exchange", name: exchange },
                ];
                for key in keys {
                    let options = QueueBindOptions::default();
                    let bound = channel.queue_bind(
                        queue.as_str().into(),
                        (&**exchange).into(),
                        (&**key).into(),
                        options,
                        FieldTable::default(),
                    );
                    bound.await.map_err(|error| failed_for(what, error, self.options, &needs))?;
                }
                for (exchange, key) in gone {
                    let needs = [needs[0], Right { right: "read", on: "exchange", name: exchange }];
                    let (from, key) = ((&**exchange).into(), (&**key).into());
                    // What is not bound, or to an exchange that is not there, is unbound.
                    let unbound = channel.queue_unbind(queue.as_str().into(), from, key, FieldTable::default());
                    unbound.await.map_err(|error| failed_for(what, error, self.options, &needs))?;
                }
                queue
            }
        };
        let channel = open.channel(what).await?;
        let begun = async {
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let tag = format!("tidegate.{}", self.name);
            let options = BasicConsumeOptions::default();
            channel.basic_consume(queue.as_str().into(), tag.as_str().into(), options, FieldTable::default()).await
        };
        let needs = [Right { right: "read", on: "queue", name: &queue }];
        let messages = begun.await.map_err(|error| failed_for(what, error, self.options, &needs))?;
        let (state, generation) = (self.link.state(), open.generation);
        Ok(RabbitIntake { channel, messages, state, generation, memory: self.memory.clone(), what: what.into() })
    }

    /// Creates the reader's own queue where it is not there. One that is there stays as it is.
    async fn make(&self, queue: &str, what: &str) -> Result<()> {
        let open = self.link.require(what)?;
        let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let channel = open.channel(what).await?;
        match channel.queue_declare(queue.into(), look, FieldTable::default()).await {
            Ok(_) => return Ok(()),
            // The broker ends the channel over it.
            Err(error) => match failed(what, error, false) {
                error if *error.kind() == ErrorKind::NotFound => {}
                error => return Err(error),
            },
        }
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(LongString::from("quorum")));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let channel = open.channel(what).await?;
        let made = channel.queue_declare(queue.into(), options, arguments).await;
        let needs = [Right { right: "configure", on: "queue", name: queue }];
        made.map(|_| ()).map_err(|error| failed_for(what, error, self.options, &needs))
    }
}

/// See the module.
pub(super) struct RabbitIntake {
    channel: Channel,
    messages: Consumer,
    state: watch::Receiver<State>,
    /// Of the connection.
    generation: u64,
    memory: Budget,
    what: Arc<str>,
}

impl RabbitIntake {
    fn received(&self, delivery: Delivery) -> Result<Received> {
        if offset(&delivery).is_some() {
            return Err(misconfigured(format!(
                "{}: it is a stream, which keeps what was read; attach it as a topic instead (kind: Topic)",
                self.what
            )));
        }
        let Delivery { delivery_tag, exchange, routing_key, redelivered, properties, data, .. } = delivery;
        let body = self.memory.take(Account::Reads, data.len()).hold(Bytes::from(data));
        let message = message(&properties, body, exchange.as_str(), routing_key.as_str());
        Ok(Received { receipt: delivery_tag, redelivered, message })
    }

    fn lost(&self, reason: &str) -> Error {
        unavailable(format!("{}: {reason}", self.what))
    }
}

impl Intake for RabbitIntake {
    fn next(&mut self) -> BoxFuture<'_, Result<Received>> {
        Box::pin(async move {
            let generation = self.generation;
            let other =
                |state: &State| state.closed || state.open.as_ref().is_none_or(|open| open.generation != generation);
            let next = tokio::select! {
                next = self.messages.next() => Some(next),
                _ = self.state.wait_for(other) => None,
            };
            match next {
                None => Err(self.lost("the connection was lost")),
                Some(Some(Ok(delivery))) => self.received(delivery),
                Some(Some(Err(error))) => Err(failed(&self.what, error, false)),
                Some(None) => Err(self.lost("RabbitMQ has ended the reader; the queue may have been deleted")),
            }
        })
    }

    fn done(&mut self, receipt: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let told = self.channel.basic_ack(receipt, BasicAckOptions::default()).await;
            told.map_err(|error| failed(&self.what, error, false))
        })
    }

    fn refuse(&mut self, receipt: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let told = self.channel.basic_reject(receipt, BasicRejectOptions { requeue: false }).await;
            told.map_err(|error| failed(&self.what, error, false))
        })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // Where it does not answer the messages are its own again when the connection ends.
            let _ = tokio::time::timeout(GOODBYE, self.channel.close(200, "the reader ends".into())).await;
        })
    }
}

/// A message as it came.
fn message(properties: &BasicProperties, body: Bytes, exchange: &str, routing_key: &str) -> Message {
    // The message is there: whether it can be an event is judged by who reads it.
    let limits = Limits {
        event_bytes: usize::MAX,
        event_attributes_bytes: usize::MAX,
        event_attributes: usize::MAX,
        ..Limits::default()
    };
    let text = |text: &Option<lapin::types::ShortString>| text.as_ref().map(|text| ByteString::from(text.as_str()));
    let headers = properties.headers().iter().flat_map(|headers| headers.inner());
    let written = |value: &AMQPValue| match property(value) {
        Property::Text(text) => Some(text),
        Property::Boolean(boolean) => Some(ByteString::from(boolean.to_string())),
        Property::Integer(number) | Property::Time(number) => Some(ByteString::from(number.to_string())),
        Property::Binary(_) | Property::Other => None,
    };
    Message {
        event: carried(properties, body.clone(), &limits).map_err(|error| error.to_string()).transpose(),
        body,
        content_type: content_type(properties).map(ByteString::from),
        id: text(properties.message_id()),
        kind: text(properties.kind()),
        timestamp: *properties.timestamp(),
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        headers: headers.filter_map(|(name, value)| Some((name.as_str().into(), written(value)?))).collect(),
        death: death(properties),
    }
}

/// What the newest entry of `x-death` says, which stands first.
fn death(properties: &BasicProperties) -> Option<Death> {
    let AMQPValue::FieldArray(deaths) = properties.headers().as_ref()?.inner().get("x-death")? else { return None };
    let AMQPValue::FieldTable(newest) = deaths.as_slice().first()? else { return None };
    let of = |name: &str| newest.inner().get(name).map(property);
    let text = |name: &str| if let Some(Property::Text(text)) = of(name) { Some(text) } else { None };
    let count = if let Some(Property::Integer(count)) = of("count") { u64::try_from(count).ok() } else { None };
    Some(Death { reason: text("reason")?, queue: text("queue")?, count: count.unwrap_or(1) })
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldArray;

    use super::*;

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(LongString::from(text))
    }

    #[test]
    fn what_a_message_says() {
        let mut entry = FieldTable::default();
        for (name, value) in [("reason", text("expired")), ("queue", text("q")), ("count", AMQPValue::LongLongInt(3))] {
            entry.insert(name.into(), value);
        }
        let mut older = FieldTable::default();
        older.insert("reason".into(), text("rejected"));
        let mut deaths = FieldArray::default();
        deaths.push(AMQPValue::FieldTable(entry));
        deaths.push(AMQPValue::FieldTable(older));
        let mut headers = FieldTable::default();
        headers.insert("x-death".into(), AMQPValue::FieldArray(deaths));
        headers.insert("customer".into(), AMQPValue::LongInt(7));
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_message_id("m".into())
            .with_type("T".into())
            .with_content_type("text/plain".into())
            .with_timestamp(9);
        let message = message(&properties, Bytes::from_static(b"x"), "e", "k");
        assert!(message.event.is_none());
        assert_eq!(message.death, Some(Death { reason: "expired".into(), queue: "q".into(), count: 3 }));
        assert_eq!(message.header("customer").map(|it| &**it), Some("7"));
        assert_eq!(
            (message.id.as_deref(), message.kind.as_deref(), message.timestamp),
            (Some("m"), Some("T"), Some(9))
        );
        assert_eq!((&*message.exchange, &*message.routing_key), ("e", "k"));
    }
}
