//! A stream of RabbitMQ by lapin.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tidegate_backbone::{BoxFuture, Record};
use tidegate_schemas::amqp::Property;

use super::bare::Bare;
use super::{HANG, Operation};
use crate::Failure;

/// Records that the reader is given before it has taken them; it acknowledges half of them at once.
const PREFETCH: u16 = 1_024;

pub(super) struct Stream {
    connection: Connection,
    writes: Channel,
    name: String,
}

impl Stream {
    pub(super) async fn create(url: &str, name: &str) -> Result<Self, Failure> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let writes = connection.create_channel().await?;
        writes.confirm_select(ConfirmSelectOptions::default()).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("stream"));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        writes.queue_declare(name.into(), options, arguments).await?;
        Ok(Self { connection, writes, name: name.to_owned() })
    }
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

fn value(property: &Property) -> AMQPValue {
    match property {
        Property::Text(written) => text(written),
        Property::Boolean(boolean) => AMQPValue::Boolean(*boolean),
        Property::Integer(number) => AMQPValue::LongLongInt(*number),
        // Never written.
        Property::Time(_) | Property::Binary(_) | Property::Other => AMQPValue::Void,
    }
}

impl Bare for Stream {
    fn append(&self, record: Record) -> Operation {
        let (mut headers, mut properties) = (FieldTable::default(), BasicProperties::default().with_delivery_mode(2));
        let body: Bytes = match record {
            Record::Frame(bytes) => bytes,
            Record::Event(event) => {
                let written = tidegate_schemas::amqp::write(&event);
                for (name, property) in &written.properties {
                    headers.insert((&**name).into(), value(property));
                }
                if let Some(content_type) = written.content_type {
                    properties = properties.with_content_type((&*content_type).into());
                }
                written.body
            }
        };
        let properties = properties.with_headers(headers);
        let (channel, name) = (self.writes.clone(), self.name.clone());
        Arc::new(move |_| {
            let (channel, name, properties, body) = (channel.clone(), name.clone(), properties.clone(), body.clone());
            Box::pin(async move {
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let confirm =
                    channel.basic_publish("".into(), name.as_str().into(), options, &body, properties).await?;
                match confirm.await? {
                    Confirmation::Ack(None) => Ok(()),
                    other => Err(format!("RabbitMQ has not taken a record: {other:?}").into()),
                }
            })
        })
    }

    fn read(&self, count: usize) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let channel = self.connection.create_channel().await?;
            channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            let mut arguments = FieldTable::default();
            arguments.insert("x-stream-offset".into(), text("first"));
            let options = BasicConsumeOptions::default();
            let mut records = channel.basic_consume(self.name.as_str().into(), "".into(), options, arguments).await?;
            for number in 1..=count {
                let delivery = tokio::time::timeout(HANG, records.next()).await?.ok_or("the reader was ended")??;
                if number % usize::from(PREFETCH / 2) == 0 || number == count {
                    channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true }).await?;
                }
            }
            Ok(())
        })
    }
}
