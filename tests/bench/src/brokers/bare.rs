//! A broker by its client library, or the embedded log by its contract, with nothing above.

use std::sync::Arc;

use tidegate::compose::Opened;
use tidegate_backbone::{BoxFuture, LogId, LogSpec, PartitionLog, Position, Record};

use super::{Operation, kafka, nats, rabbitmq};
use crate::Failure;

/// One log of its own on the broker.
pub(super) trait Bare: Send + Sync {
    /// Appends that, an event in the binding of the broker, and waits for the acknowledgement.
    fn append(&self, record: Record) -> Operation;

    /// Reads so many records from the beginning.
    fn read(&self, count: usize) -> BoxFuture<'_, Result<(), Failure>>;
}

/// A new log, by the client library of that backbone.
pub(super) async fn open(backbone: &str, opened: &Opened, name: &str) -> Result<Box<dyn Bare>, Failure> {
    let random = std::process::id();
    let name = format!("bare-{name}-{random}");
    if backbone.starts_with("nats") {
        return Ok(Box::new(nats::Stream::create(backbone, &name).await?));
    }
    if let Some(brokers) = backbone.strip_prefix("kafka://") {
        return Ok(Box::new(kafka::Topic::create(brokers, &name).await?));
    }
    if backbone.starts_with("amqp://") {
        return Ok(Box::new(rabbitmq::Stream::create(backbone, &name).await?));
    }
    let id = LogId::Topic { topic: name.into(), partition: 0 };
    opened.log.create(LogSpec::from(id.clone())).await?;
    Ok(Box::new(Contract { log: Arc::clone(&opened.log), id }))
}

struct Contract {
    log: Arc<dyn PartitionLog>,
    id: LogId,
}

impl Bare for Contract {
    fn append(&self, record: Record) -> Operation {
        let (log, id) = (Arc::clone(&self.log), self.id.clone());
        Arc::new(move |_| {
            let append = log.append(&id, record.clone());
            Box::pin(async move {
                append.await?;
                Ok(())
            })
        })
    }

    fn read(&self, count: usize) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let mut tail = self.log.tail(&self.id, Position::ZERO).await?;
            let mut have = 0;
            while have < count {
                have += tail.next(256 * 1024).await?.records.len();
            }
            Ok(())
        })
    }
}
