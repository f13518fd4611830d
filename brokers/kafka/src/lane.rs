//! Lanes on a topic of their own: partition 0 is what is broadcast, every other one the inbox of the nodes that fall on it.
//! A message begins with the eight bytes of the node that it is for; a node drops what is for others. Each inbox is a client
//! of its own, which reads from the end on, and waits for nothing else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tidegate_backbone::budget::{Account, Budget};
use tidegate_backbone::{BoxFuture, Error, ErrorKind, Inbox, NodeId, Result};
use tidegate_schemas::limits;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Health};
use crate::log::calls::Calls;
use crate::log::ends::Ends;
use crate::log::producer::Producer;
use crate::log::readers::Wake;
use crate::record::Encoded;

/// The partition of what is broadcast.
const BROADCAST: i32 = 0;
/// The bytes of the node in front of a message.
const ADDRESS_BYTES: usize = 8;
/// Messages for others that are passed over before other tasks have their turn.
const PASSED_OVER: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) topic: Arc<str>,
    pub(crate) partitions: i32,
    pub(crate) producer: Producer,
    pub(crate) reads: ClientConfig,
    pub(crate) ends: Arc<Ends>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) health: Arc<Health>,
    pub(crate) memory: Budget,
    pub(crate) closed: CancellationToken,
}

impl Lanes {
    fn partition_of(&self, node: NodeId) -> i32 {
        // The low bits of a node's id are not drawn.
        let inboxes = u64::try_from(self.partitions - 1).unwrap_or(1).max(1);
        1 + i32::try_from((node.0 >> 16) % inboxes).unwrap_or_default()
    }

    pub(crate) fn send(&self, to: Option<NodeId>, message: &Bytes) -> BoxFuture<'static, Result<()>> {
        let queued = self.queue(to, message);
        Box::pin(async move {
            match queued?.await {
                Ok(outcome) => outcome.map(|_| ()),
                Err(_) => {
                    Err(Error::new(ErrorKind::Unknown, "Kafka was closed before it told what became of a message"))
                }
            }
        })
    }

    fn queue(
        &self,
        to: Option<NodeId>,
        message: &Bytes,
    ) -> Result<tokio::sync::oneshot::Receiver<crate::log::producer::Outcome>> {
        if message.len() > limits::KAFKA_LANE_MESSAGE_BYTES {
            let kind = ErrorKind::TooLarge { limit_bytes: limits::KAFKA_LANE_MESSAGE_BYTES };
            let context = format!(
                "the message has {} bytes, and at most {} fit on a lane",
                message.len(),
                limits::KAFKA_LANE_MESSAGE_BYTES
            );
            return Err(Error::new(kind, context));
        }
        let mut value = BytesMut::with_capacity(ADDRESS_BYTES + message.len());
        value.put_u64(to.map_or(0, |node| node.0));
        value.put_slice(message);
        let value = value.freeze();
        let partition = to.map_or(BROADCAST, |node| self.partition_of(node));
        let permit = self.memory.take(Account::Appends, value.len());
        let encoded = Encoded { headers: None, key: None, bytes: value.len(), value, permit };
        Ok(self.producer.send(&self.topic, partition, &Arc::from("a lane"), encoded))
    }

    pub(crate) async fn receive(&self, node: NodeId) -> Result<Box<dyn Inbox>> {
        let partitions = [BROADCAST, self.partition_of(node)];
        // What is sent from now on stands at these ends or behind them.
        let places = partitions.map(|partition| (Arc::clone(&self.topic), partition)).to_vec();
        let ends = self.ends.ask(places.clone()).await?;
        let mut list = TopicPartitionList::with_capacity(places.len());
        for place in &places {
            let (_, end) = ends.get(place).copied().ok_or_else(|| crate::error::not_found("topic of the lanes"))?;
            let offset = Offset::Offset(i64::try_from(end).unwrap_or(i64::MAX));
            list.add_partition_offset(&place.0, place.1, offset).map_err(no_inbox)?;
        }
        let (reads, context) = (self.reads.clone(), Context::new(&self.health));
        let wake = Arc::<Wake>::default();
        let woken = Arc::clone(&wake);
        let consumer = self
            .calls
            .run(move || {
                let mut consumer = BaseConsumer::from_config_and_context(&reads, context).map_err(no_inbox)?;
                consumer.set_nonempty_callback(move || woken.notify.notify_one());
                consumer.incremental_assign(&list).map_err(no_inbox)?;
                Ok(consumer)
            })
            .await?;
        let consumer = Mutex::new(Some(consumer));
        let (calls, closed) = (Arc::clone(&self.calls), self.closed.clone());
        Ok(Box::new(LaneInbox { node, consumer, wake, calls, closed }))
    }
}

fn no_inbox(error: rdkafka::error::KafkaError) -> Error {
    Error::new(ErrorKind::Misconfigured, "a Kafka client that reads a lane cannot be made").with_source(error)
}

struct LaneInbox {
    node: NodeId,
    consumer: Mutex<Option<BaseConsumer<Context>>>,
    wake: Arc<Wake>,
    calls: Arc<Calls>,
    closed: CancellationToken,
}

impl fmt::Debug for LaneInbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LaneInbox").field("node", &self.node).finish_non_exhaustive()
    }
}

impl LaneInbox {
    /// The next message that has come for this node; whether more may be there where it is none.
    fn take(&mut self) -> (Option<Bytes>, bool) {
        let Some(consumer) = self.consumer.get_mut() else { return (None, false) };
        for _ in 0..PASSED_OVER {
            match consumer.poll(Duration::ZERO) {
                None => return (None, false),
                // The client goes on by itself, and has told its context.
                Some(Err(_)) => {}
                Some(Ok(message)) => {
                    let Some((address, body)) = message.payload().and_then(|payload| payload.split_first_chunk())
                    else {
                        continue;
                    };
                    let to: &[u8; ADDRESS_BYTES] = address;
                    if message.partition() == BROADCAST || u64::from_be_bytes(*to) == self.node.0 {
                        return (Some(Bytes::copy_from_slice(body)), true);
                    }
                }
            }
        }
        (None, true)
    }
}

impl Inbox for LaneInbox {
    fn next(&mut self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async move {
            loop {
                if self.closed.is_cancelled() {
                    return None;
                }
                // No waiting between taking a message and giving it.
                let (message, more) = self.take();
                if message.is_some() {
                    return message;
                }
                if more {
                    tokio::task::yield_now().await;
                    continue;
                }
                tokio::select! {
                    () = self.wake.notify.notified() => {}
                    () = self.closed.cancelled() => {}
                    // It is woken; this is against a wake that was missed.
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
        })
    }
}

impl Drop for LaneInbox {
    fn drop(&mut self) {
        let Some(consumer) = self.consumer.get_mut().take() else { return };
        // Letting go of a client waits, which no task of the runtime may.
        let consumer = Arc::new(Mutex::new(Some(consumer)));
        let job = Arc::clone(&consumer);
        if self.calls.push(move || drop(job.lock().take())).is_err() {
            let _ = std::thread::Builder::new()
                .name("tidegate-kafka-end".to_owned())
                .spawn(move || drop(consumer.lock().take()));
        }
    }
}
