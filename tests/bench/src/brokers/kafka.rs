//! A Kafka topic by librdkafka.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tidegate_backbone::{BoxFuture, Record};

use super::bare::Bare;
use super::{HANG, Operation};
use crate::Failure;

pub(super) struct Topic {
    config: ClientConfig,
    producer: FutureProducer,
    name: String,
}

impl Topic {
    pub(super) async fn create(brokers: &str, name: &str) -> Result<Self, Failure> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        let admin: AdminClient<DefaultClientContext> = config.create()?;
        let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
        for created in admin.create_topics([&topic], &AdminOptions::new()).await? {
            created.map_err(|(topic, code)| format!("topic {topic} cannot be created: {code}"))?;
        }
        let mut writes = config.clone();
        // What durable appends in their order need; nobody waits for a fuller batch.
        writes.set("acks", "all").set("enable.idempotence", "true").set("linger.ms", "0");
        Ok(Self { producer: writes.create()?, config, name: name.to_owned() })
    }
}

impl Bare for Topic {
    fn append(&self, record: Record) -> Operation {
        let (headers, value): (Option<OwnedHeaders>, Bytes) = match record {
            Record::Frame(bytes) => (None, bytes),
            Record::Event(event) => {
                let written = tidegate_schemas::kafka::write(&event);
                let put = |headers: OwnedHeaders, header: &(ByteString, ByteString)| {
                    headers.insert(Header { key: &header.0, value: Some(&*header.1) })
                };
                (Some(written.headers.iter().fold(OwnedHeaders::new(), put)), written.value)
            }
        };
        let (producer, name) = (self.producer.clone(), self.name.clone());
        Arc::new(move |_| {
            let (producer, name, headers, value) = (producer.clone(), name.clone(), headers.clone(), value.clone());
            Box::pin(async move {
                let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&name).partition(0).payload(&value[..]);
                if let Some(headers) = headers {
                    record = record.headers(headers);
                }
                producer.send(record, HANG).await.map_err(|(error, _)| error)?;
                Ok(())
            })
        })
    }

    fn read(&self, count: usize) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let mut reads = self.config.clone();
            reads.set("group.id", &self.name).set("enable.auto.commit", "false");
            let consumer: StreamConsumer = reads.create()?;
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&self.name, 0, Offset::Beginning)?;
            consumer.assign(&list)?;
            for _ in 0..count {
                tokio::time::timeout(HANG, consumer.recv()).await??;
            }
            Ok(())
        })
    }
}
