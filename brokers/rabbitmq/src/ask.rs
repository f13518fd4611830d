//! Questions to the broker, one at a time on a channel, over a connection of their own: what a refusal costs is the channel, and
//! where the stream goes away that is just asked for, the broker ends the connection.
//!
//! AMQP 0.9.1 does not tell where a stream ends. A reader can begin at the last chunk, but nobody tells it that it has had
//! all. So each question reads with a *fence* behind it: a second reader of the same stream on the same channel, opened and
//! cancelled again. The channel asks the stream's process for the second reader only after it has registered the first, and
//! that process says what is committed to the first before it answers for the second. The channel confirms the second reader
//! when it has that answer, and works off what has come to it in order: so when a cancellation is confirmed that was sent after
//! that confirmation had come, everything that was committed when the question was asked has been delivered. Both readers may be
//! asked for at once, because the channel takes one after the other; the cancellation may not be sent before the second
//! is confirmed, because it would be worked off before what the stream's process said.
//!
//! A reader is given the replica of the node that it is connected to. One that was just started, or follows a leader that
//! died, lacks for a while what others have: so an end before a record that was there is no answer, until it has stayed so
//! for a while ([`Asker::patience`]) and more than half of the nodes do not have it (`nodes`). These are asked too where an
//! end is to be linearizable ([`Asker::agreed_end`]), which costs as many questions as there are nodes; all others go to one.
//!
//! Each reader costs the broker more than what it reads: the coordinator of all streams, one process on a cluster, writes it
//! down and synchronises that to disk, before the next. So what is needed all the time is not asked: where an owner's
//! frames stand is read by a reader that stays (`watch`), and which generations a slot has is told without their ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Confirmation};
use parking_lot::Mutex;
use tidegate_backbone::{Error, ErrorKind, Result};
use tidegate_schemas::limits;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::connection::{Link, State};
use crate::error::{busy, failed, misconfigured, unavailable, unconfirmed};
use crate::nodes::Nodes;
use crate::pool::Pool;

/// Where a reader begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// The first record.
    First,
    /// The last chunk.
    Last,
    /// That record, or the next one to come where it is beyond the end.
    Offset(u64),
}

impl Start {
    /// The arguments of a reader that begins there.
    pub(crate) fn arguments(self) -> FieldTable {
        let value = match self {
            Self::First => AMQPValue::LongString(LongString::from("first")),
            Self::Last => AMQPValue::LongString(LongString::from("last")),
            Self::Offset(offset) => AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX)),
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), value);
        arguments
    }
}

/// Where a record stands in its stream; none where it comes from something else.
pub(crate) fn offset(delivery: &Delivery) -> Option<u64> {
    let value = delivery.properties.headers().as_ref()?.inner().get("x-stream-offset")?;
    match value {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        AMQPValue::LongInt(offset) => u64::try_from(*offset).ok(),
        AMQPValue::LongUInt(offset) => Some((*offset).into()),
        _ => None,
    }
}

/// The settings that a stream is created with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StreamSettings {
    /// The broker's default where it is 0.
    pub(crate) segment_bytes: u64,
    pub(crate) bytes_max: Option<u64>,
    pub(crate) age_max_seconds: Option<u64>,
    /// The nodes that keep it; the broker's default where nothing is said.
    pub(crate) replicas: Option<u32>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Asker {
    link: Arc<Link>,
    permits: Semaphore,
    pool: Pool,
    /// Counts what was read, so that no two readers of a channel have one name.
    reads: AtomicU64,
    /// Of each stream a record that was there: an end is looked for behind it, because the last chunk may be large.
    hints: Mutex<HashMap<String, u64>>,
    /// Streams whose end is before a record that was there, and since when.
    short: Mutex<HashMap<String, Instant>>,
    /// Each node, where there may be others than the one that is asked.
    nodes: Option<Nodes>,
}

/// Where a stream ends.
pub(crate) struct Ending {
    /// The offset that the next record gets.
    pub(crate) end: u64,
    /// What was read to find that out, the last record among it; nothing where the stream is empty.
    pub(crate) records: Vec<Delivery>,
}

/// The most records behind such a record that are read; where there are more, the last chunk is.
const BEHIND_HINT: u16 = 256;

/// What a call of the broker may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Nothing.
    Read,
    /// The same, however often.
    Repeat,
    /// Something each time.
    Once,
}

/// How often something is tried over which the connection is lost.
const ATTEMPTS: u32 = 4;
/// How long before it is tried again where the connection stands.
const PAUSE: Duration = Duration::from_millis(100);

/// The most records that one question reads.
pub(crate) const READ_MAX: u16 = u16::MAX;

impl Asker {
    /// With `nodes` where there may be others than the one that is asked.
    pub(crate) fn new(link: Arc<Link>, nodes: Option<Nodes>) -> Self {
        Self {
            short: Mutex::default(),
            nodes,
            link,
            permits: Semaphore::new(limits::RABBITMQ_QUESTIONS),
            pool: Pool::default(),
            reads: AtomicU64::new(0),
            hints: Mutex::default(),
        }
    }

    /// Does something on a channel on which nothing else is done meanwhile, in bounded time. Where the connection was lost over
    /// it, which the broker also ends when a stream goes away that is just asked for, it is done once more on the next one, if
    /// that changes nothing.
    async fn on_channel<T, W>(&self, action: &str, purpose: Purpose, work: impl Fn(Channel) -> W) -> Result<T>
    where
        W: Future<Output = std::result::Result<T, lapin::Error>>,
    {
        let permit = tokio::time::timeout(limits::RABBITMQ_CALL_TIMEOUT, self.permits.acquire()).await;
        let _permit = permit.map_err(|_| busy("questions"))?;
        let began = tokio::time::Instant::now();
        let mut attempts = if purpose == Purpose::Once { 1 } else { ATTEMPTS };
        loop {
            let used = self.connection();
            attempts -= 1;
            match self.once(action, purpose, &work).await {
                Err(error) if *error.kind() == ErrorKind::Unavailable && attempts > 0 => {
                    if began.elapsed() >= limits::RABBITMQ_CALL_TIMEOUT {
                        return Err(error);
                    }
                    if used.is_some() && self.connection() == used {
                        // A stream that is just created or deleted is refused in other words than it is a moment later.
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    let mut state = self.link.state();
                    let other = |state: &State| {
                        state.closed || state.open.as_ref().is_some_and(|open| Some(open.generation) != used)
                    };
                    let next = async { drop(state.wait_for(other).await) };
                    if tokio::time::timeout(limits::RABBITMQ_RECONNECT_DELAY_MAX, next).await.is_err() {
                        return Err(error);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    async fn once<T, W>(&self, action: &str, purpose: Purpose, work: &impl Fn(Channel) -> W) -> Result<T>
    where
        W: Future<Output = std::result::Result<T, lapin::Error>>,
    {
        let changes = purpose != Purpose::Read;
        let asked = self.pool.take(&self.link, action).await?;
        // Dropping the last handle of a channel closes it, with all that goes on there.
        match tokio::time::timeout(limits::RABBITMQ_CALL_TIMEOUT, work(asked.channel.clone())).await {
            Ok(Ok(value)) => {
                // One that confirms what is written on it is of no use for questions.
                if !changes {
                    self.pool.give_back(asked);
                }
                Ok(value)
            }
            Ok(Err(error)) => Err(failed(action, error, changes)),
            Err(_) => {
                let error = unavailable(format!("{action}: RabbitMQ did not answer in time"));
                Err(if changes { error.outcome_unknown() } else { error })
            }
        }
    }

    /// Whether the node that is asked may not have yet what another one has.
    pub(crate) fn is_cluster(&self) -> bool {
        self.nodes.is_some()
    }

    /// The connection that questions go over; none where there is none just now.
    pub(crate) fn connection(&self) -> Option<u64> {
        self.link.current().map(|open| open.generation)
    }

    /// The connections to all nodes of a cluster.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.nodes.iter().flat_map(Nodes::links)
    }

    /// How long what was there before and is not is looked for again, before it is believed that the broker has lost it. A single
    /// node, too, was seen to give nothing of a stream that was just written to for the first time.
    pub(crate) fn patience(&self) -> Duration {
        if self.is_cluster() { limits::RABBITMQ_REPLICA_PATIENCE } else { limits::RABBITMQ_NODE_PATIENCE }
    }

    /// The error of what needs a record that is not there yet.
    pub(crate) fn lagging(&self, stream: &str, offset: u64) -> Error {
        unavailable(format!(
            "the node of RabbitMQ that is asked has not all of the stream {stream} that was read before, the record at {offset}"
        ))
    }

    /// The record, where the end has been before it for so long that this is to be believed; an error until then.
    fn lacking(&self, stream: &str, hint: Option<u64>, found: Option<u64>) -> Result<Option<u64>> {
        let mut short = self.short.lock();
        let Some(hint) = hint.filter(|hint| found.is_none_or(|found| found < *hint)) else {
            short.remove(stream);
            return Ok(None);
        };
        if short.len() >= limits::RABBITMQ_HINTS_KEPT {
            short.clear();
        }
        if short.entry(stream.to_owned()).or_insert_with(Instant::now).elapsed() < self.patience() {
            return Err(self.lagging(stream, hint));
        }
        short.remove(stream);
        Ok(Some(hint))
    }

    /// Fails where others have a record that the node that is asked does not have.
    pub(crate) async fn none_has(&self, stream: &str, record: u64) -> Result<()> {
        let last = self.agreed_last(stream).await?.as_ref().and_then(offset);
        if last.is_some_and(|last| last >= record) { Err(self.lagging(stream, record)) } else { Ok(()) }
    }

    /// The last record that more than half of the nodes know of; none where the stream is empty, and on a single node.
    pub(crate) async fn agreed_last(&self, stream: &str) -> Result<Option<Delivery>> {
        match &self.nodes {
            Some(nodes) => nodes.last(stream).await,
            None => Ok(None),
        }
    }

    /// What is committed from there on, at most `count` records.
    pub(crate) async fn read(&self, stream: &str, from: Start, count: u16) -> Result<Vec<Delivery>> {
        let action = format!("reading the stream {stream}");
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        tracing::trace!(stream, ?from, count, "asks");
        self.on_channel(&action, Purpose::Read, |channel| async move {
            let (records, fence) = (format!("records-{number}"), format!("fence-{number}"));
            let mut next = FieldTable::default();
            next.insert("x-stream-offset".into(), AMQPValue::LongString(LongString::from("next")));
            let options = BasicConsumeOptions::default();
            // Each is on its way with the first look, in this order.
            let ((), mut records, fenced) = futures_util::try_join!(
                channel.basic_qos(count, BasicQosOptions::default()),
                channel.basic_consume(stream.into(), records.into(), options, from.arguments()),
                channel.basic_consume(stream.into(), fence.as_str().into(), options, next),
            )?;
            channel.basic_cancel(fence.into(), BasicCancelOptions::default()).await?;
            drop(fenced);
            let (mut read, mut last) = (Vec::new(), None);
            while let Some(delivery) = records.next().now_or_never() {
                // One that was ended by the broker has not given all.
                let ended = || std::io::Error::other("the broker ended the reader");
                let delivery = delivery.ok_or_else(ended)??;
                last = Some(delivery.delivery_tag);
                // Chunks come whole.
                if read.len() < usize::from(count) {
                    read.push(delivery);
                }
            }
            // The channel is asked on again, so nothing is left there: neither the reader nor what it was given. Both are on
            // their way with the first look, and nothing waits for them.
            let _ = channel.basic_cancel(records.tag(), BasicCancelOptions { nowait: true }).now_or_never();
            if let Some(last) = last {
                let _ = channel.basic_ack(last, BasicAckOptions { multiple: true }).now_or_never();
            }
            Ok(read)
        })
        .await
    }

    /// The last record; none where the stream is empty.
    pub(crate) async fn last(&self, stream: &str) -> Result<Option<Delivery>> {
        let began = tokio::time::Instant::now();
        loop {
            if let Some(last) = self.read(stream, Start::Last, READ_MAX).await?.pop() {
                return Ok(Some(last));
            }
            // The last chunk may not be committed yet, which an empty stream does not have.
            if self.read(stream, Start::First, 1).await?.is_empty() {
                return Ok(None);
            }
            if began.elapsed() > limits::RABBITMQ_CALL_TIMEOUT {
                return Err(unavailable(format!("the end of the stream {stream} is not committed by its replicas")));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Where the stream ends, which is not before any record that was confirmed when it is asked for.
    pub(crate) async fn agreed_end(&self, stream: &str) -> Result<Ending> {
        if !self.is_cluster() {
            return self.end(stream).await;
        }
        let hint = self.hinted(stream);
        let records = Vec::from_iter(self.agreed_last(stream).await?);
        self.lacking(stream, hint, records.last().and_then(offset))?;
        Ok(self.ending(stream, records))
    }

    /// Where the stream ends, as the node knows that is asked.
    pub(crate) async fn end(&self, stream: &str) -> Result<Ending> {
        let hint = self.hinted(stream);
        let mut records = Vec::new();
        if let Some(hint) = hint {
            records = self.read(stream, Start::Offset(hint), BEHIND_HINT).await?;
            // There may be more.
            if records.len() >= usize::from(BEHIND_HINT) {
                records.clear();
            }
        }
        // None where the stream has lost what was there, or is another one by now.
        if records.is_empty() {
            records.extend(self.last(stream).await?);
        }
        let found = records.last().and_then(offset);
        if let Some(record) = self.lacking(stream, hint, found)? {
            self.none_has(stream, record).await?;
        }
        Ok(self.ending(stream, records))
    }

    fn ending(&self, stream: &str, records: Vec<Delivery>) -> Ending {
        let found = records.last().and_then(offset);
        match found {
            Some(offset) => self.hint(stream, offset),
            None => drop(self.hints.lock().remove(stream)),
        }
        Ending { end: found.map_or(0, |offset| offset + 1), records }
    }

    /// A record that was there, where one is known.
    pub(crate) fn hinted(&self, stream: &str) -> Option<u64> {
        self.hints.lock().get(stream).copied()
    }

    /// Takes notice of a record that was there.
    pub(crate) fn hint(&self, stream: &str, offset: u64) {
        let mut hints = self.hints.lock();
        match hints.get_mut(stream) {
            Some(known) => *known = offset,
            None => {
                if hints.len() >= limits::RABBITMQ_HINTS_KEPT {
                    hints.clear();
                }
                hints.insert(stream.to_owned(), offset);
            }
        }
    }

    /// The first record at that offset or behind it.
    pub(crate) async fn at(&self, stream: &str, from: Start) -> Result<Option<Delivery>> {
        Ok(self.read(stream, from, 1).await?.pop())
    }

    /// Whether there is a queue or stream of that name.
    pub(crate) async fn exists(&self, queue: &str) -> Result<bool> {
        let found = self
            .on_channel(&format!("looking for {queue}"), Purpose::Read, |channel| async move {
                let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
                channel.queue_declare(queue.into(), options, FieldTable::default()).await
            })
            .await;
        match found {
            Ok(_) => Ok(true),
            Err(error) if *error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a queue that is there is a stream.
    pub(crate) async fn is_stream(&self, queue: &str) -> Result<bool> {
        // Declaring it as what it is may be refused for other settings, but only another type is refused for its type.
        let declared = self.declare_anew(queue, StreamSettings::default());
        match declared.await {
            Ok(()) => Ok(true),
            Err(error) if *error.kind() == ErrorKind::Conflict => Ok(!error.to_string().contains("x-queue-type")),
            Err(error) => Err(error),
        }
    }

    /// Creates a stream; one that is there stays as it is.
    pub(crate) async fn declare(&self, stream: &str, settings: StreamSettings) -> Result<()> {
        match self.declare_anew(stream, settings).await {
            // It is there, with other settings.
            Err(error) if *error.kind() == ErrorKind::Conflict && self.is_stream(stream).await? => Ok(()),
            declared => declared,
        }
    }

    async fn declare_anew(&self, stream: &str, settings: StreamSettings) -> Result<()> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(LongString::from("stream")));
        let mut number = |name: &str, value: u64| {
            arguments.insert(name.into(), AMQPValue::LongLongInt(i64::try_from(value).unwrap_or(i64::MAX)));
        };
        if settings.segment_bytes > 0 {
            number("x-stream-max-segment-size-bytes", settings.segment_bytes);
        }
        if let Some(bytes) = settings.bytes_max {
            number("x-max-length-bytes", bytes);
        }
        if let Some(replicas) = settings.replicas {
            number("x-initial-cluster-size", replicas.into());
        }
        if let Some(seconds) = settings.age_max_seconds {
            arguments.insert("x-max-age".into(), AMQPValue::LongString(LongString::from(format!("{seconds}s"))));
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.on_channel(&format!("creating the stream {stream}"), Purpose::Repeat, |channel| {
            let arguments = arguments.clone();
            async move { channel.queue_declare(stream.into(), options, arguments).await.map(|_| ()) }
        })
        .await
    }

    /// Waits until a stream that was declared can be written to. Where somebody else is creating it, the broker takes it for there
    /// before the coordinator of streams knows it, and ends the connection of whoever writes to it then, with all that was
    /// on its way.
    pub(crate) async fn settled(&self, stream: &str) -> Result<()> {
        self.read(stream, Start::First, 1).await.map(|_| ())
    }

    /// Deletes a stream; one that is not there is no error.
    pub(crate) async fn delete(&self, stream: &str) -> Result<()> {
        let deleted = self
            .on_channel(&format!("deleting the stream {stream}"), Purpose::Repeat, |channel| async move {
                channel.queue_delete(stream.into(), QueueDeleteOptions::default()).await.map(|_| ())
            })
            .await;
        self.hints.lock().remove(stream);
        match deleted {
            Err(error) if *error.kind() == ErrorKind::NotFound => Ok(()),
            deleted => deleted,
        }
    }

    /// Appends to a stream of ours, and waits for the confirmation.
    pub(crate) async fn publish(&self, stream: &str, body: &str) -> Result<()> {
        let action = format!("writing to the stream {stream}");
        let confirmed = self
            .on_channel(&action, Purpose::Once, |channel| async move {
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let properties = BasicProperties::default().with_delivery_mode(2);
                let confirm =
                    channel.basic_publish("".into(), stream.into(), options, body.as_bytes(), properties).await?;
                Ok(confirm.await)
            })
            .await?;
        match confirmed {
            Ok(Confirmation::Ack(None)) => Ok(()),
            Ok(Confirmation::Ack(Some(_))) => {
                Err(Error::new(ErrorKind::NotFound, format!("{action}: there is no such stream")))
            }
            Ok(Confirmation::Nack(_)) => Err(unavailable(format!("{action}: RabbitMQ refuses it")).outcome_unknown()),
            Ok(Confirmation::NotRequested) => Err(misconfigured(format!("{action}: RabbitMQ confirms nothing"))),
            Err(error) => Err(unconfirmed(&action, error)),
        }
    }
}
