//! Consumers with partitions assigned by hand, shared by many readers. One thread makes them, assigns, takes away, and
//! serves their events; none of that waits for the broker.
//!
//! A consumer holds each partition once, so that several readers of one log are on several consumers. What is read waits in
//! a queue of its partition, bounded in bytes; a reader that does not read is not fetched for. The queue is split off before
//! the partition is assigned: what is fetched in between would go to the consumer's main queue, where nobody looks for it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tidegate_backbone::{Error, ErrorKind, Result};
use tidegate_schemas::limits;
use tokio::sync::{Notify, Semaphore, oneshot};

use super::ends::Place;
use crate::context::{Context, Health};
use crate::error::{busy, closed};

pub(crate) type Consumer = BaseConsumer<Context>;

/// How often the events of consumers are served.
const SERVE_INTERVAL: Duration = Duration::from_millis(100);
/// After how many servings without a reader a consumer is let go of, the first one excepted.
const IDLE_SERVINGS: u32 = 600;
/// Readers that look for their topic's leader at once. Each waits until the client's connection has nothing else to answer.
const FINDING: usize = 2;
/// Clients that stand still beside which another one is made. Where as many do, it is not the clients that are at fault.
const STUCK_CLIENTS: usize = 4;

/// Wakes a reader.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    pub(crate) notify: Notify,
    /// Set by the client when something came into an empty queue.
    pub(crate) came: AtomicBool,
}

enum Command {
    Open { place: Place, offset: i64, wake: Arc<Wake>, opened: oneshot::Sender<Result<Reader>> },
    Close { number: u64, place: Place, queue: PartitionQueue<Context> },
    Stop,
}

/// One partition, assigned to one consumer until this is dropped.
pub(crate) struct Reader {
    /// Whether the consumer had nothing to do with the topic before, and finds its leader only when it is asked for it.
    pub(crate) is_new: bool,
    number: u64,
    place: Place,
    consumer: Arc<Consumer>,
    is_stuck: Arc<AtomicBool>,
    queue: Option<PartitionQueue<Context>>,
    commands: SyncSender<Command>,
}

impl Reader {
    /// Where what is fetched waits.
    pub(crate) fn queue(&self) -> &PartitionQueue<Context> {
        self.queue.as_ref().expect("it is only taken when this is dropped")
    }

    /// Lets the client find the topic's leader now: by itself it looks for new topics once a second. Waits.
    pub(crate) fn find_leader(consumer: &BaseConsumer<Context>, topic: &str) {
        if let Err(error) = consumer.fetch_metadata(Some(topic), limits::KAFKA_ASK_TIMEOUT) {
            tracing::debug!(%error, topic, "the Kafka client looks for a leader by itself");
        }
    }

    /// The consumer does not read what is there: whoever opens a reader from now on is given another one.
    pub(crate) fn mark_stuck(&self) {
        self.is_stuck.store(true, Ordering::Relaxed);
    }

    /// Where the partition ends for those who read with this consumer. Waits.
    pub(crate) fn end(consumer: &BaseConsumer<Context>, place: &Place) -> Option<u64> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&place.0, place.1, Offset::End).ok()?;
        let list = consumer.offsets_for_times(list, limits::KAFKA_ASK_TIMEOUT).ok()?;
        match list.find_partition(&place.0, place.1)?.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        }
    }

    pub(crate) fn consumer(&self) -> Arc<BaseConsumer<Context>> {
        Arc::clone(&self.consumer)
    }

    /// The offset behind everything that was taken out of the queue, places without a record among it; none before the first.
    /// The client forgets where a former reader stood when it stops reading for it, which is done before it begins anew: both
    /// are asked of one thread of the client, which does them in that order.
    pub(crate) fn offset(&self) -> Option<u64> {
        let positions = self.consumer.position().ok()?;
        let element = positions.find_partition(&self.place.0, self.place.1)?;
        match element.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        let close = Command::Close { number: self.number, place: self.place.clone(), queue };
        // The thread only ever does what is done at once, so that there is a place soon. Where it has ended, all consumers
        // are gone but this one, and letting go of it waits: that is left to a thread.
        if let Err(error) = self.commands.send(close) {
            let consumer = Arc::clone(&self.consumer);
            let _ = std::thread::Builder::new().name("tidegate-kafka-end".to_owned()).spawn(move || {
                drop((error, consumer));
            });
        }
    }
}

/// See the module.
pub(crate) struct Readers {
    /// Readers that look for their topic's leader now.
    pub(crate) finding: Semaphore,
    commands: Mutex<Option<SyncSender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl Readers {
    pub(crate) fn new(config: ClientConfig, health: &Arc<Health>) -> Result<Self> {
        let (commands, given) = sync_channel(limits::KAFKA_CALLS);
        let mut driver =
            Driver { config, health: Arc::clone(health), commands: commands.clone(), consumers: Vec::new(), made: 0 };
        let thread = std::thread::Builder::new()
            .name("tidegate-kafka-read".to_owned())
            .spawn(move || driver.run(&given))
            .map_err(|error| {
                Error::new(ErrorKind::Unavailable, "cannot start a thread for readers of Kafka").with_source(error)
            })?;
        let finding = Semaphore::new(FINDING);
        Ok(Self { finding, commands: Mutex::new(Some(commands)), thread: Mutex::new(Some(thread)) })
    }

    /// Begins to read a partition at an offset that is there, or is the next one.
    pub(crate) async fn open(&self, place: Place, offset: u64, wake: &Arc<Wake>) -> Result<Reader> {
        let (opened, reader) = oneshot::channel();
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        match &*self.commands.lock() {
            None => return Err(closed()),
            Some(commands) => {
                let open = Command::Open { place, offset, wake: Arc::clone(wake), opened };
                commands.try_send(open).map_err(|error| match error {
                    TrySendError::Full(_) => busy("readers"),
                    TrySendError::Disconnected(_) => closed(),
                })?;
            }
        }
        reader.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Ends the thread and lets go of the consumers. Waits for both: not for a task of the runtime.
    pub(crate) fn close(&self) {
        if let Some(commands) = self.commands.lock().take() {
            let _ = commands.send(Command::Stop);
        }
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

struct Shared {
    number: u64,
    consumer: Arc<Consumer>,
    assigned: BTreeSet<Place>,
    /// The topics that it has heard of. As many as are read, for as long as it is there.
    topics: BTreeSet<Arc<str>>,
    /// Set by a reader that was given nothing of what is there.
    is_stuck: Arc<AtomicBool>,
    idle: u32,
}

struct Driver {
    config: ClientConfig,
    health: Arc<Health>,
    /// For readers, which give their partition back.
    commands: SyncSender<Command>,
    consumers: Vec<Shared>,
    made: u64,
}

impl Driver {
    fn run(&mut self, given: &Receiver<Command>) {
        loop {
            match given.recv_timeout(SERVE_INTERVAL) {
                Ok(Command::Open { place, offset, wake, opened }) => {
                    // A reader that nobody waits for any more gives its partition back by being dropped.
                    let _ = opened.send(self.open(place, offset, &wake));
                }
                Ok(Command::Close { number, place, queue }) => {
                    drop(queue);
                    self.give_back(number, &place);
                }
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.retire(),
            }
            self.serve();
        }
    }

    /// Serves the events of every consumer: errors, which the context is told.
    fn serve(&self) {
        for shared in &self.consumers {
            while let Some(event) = shared.consumer.poll(Duration::ZERO) {
                if let Ok(record) = event {
                    use rdkafka::Message as _;
                    tracing::error!(
                        topic = record.topic(),
                        partition = record.partition(),
                        offset = record.offset(),
                        "a record of Kafka came where no reader looks for it"
                    );
                }
            }
        }
    }

    fn retire(&mut self) {
        for shared in self.consumers.iter_mut().skip(1) {
            shared.idle = if shared.assigned.is_empty() { shared.idle + 1 } else { 0 };
        }
        // One at a time: letting go of one waits for its connections.
        let goes = |shared: &Shared| {
            shared.idle > IDLE_SERVINGS || (shared.assigned.is_empty() && shared.is_stuck.load(Ordering::Relaxed))
        };
        if let Some(at) = self.consumers.iter().position(goes) {
            drop(self.consumers.swap_remove(at));
        }
    }

    fn open(&mut self, place: Place, offset: i64, wake: &Arc<Wake>) -> Result<Reader> {
        let is_stuck = |shared: &Shared| shared.is_stuck.load(Ordering::Relaxed);
        let spare_stuck = self.consumers.iter().filter(|shared| is_stuck(shared)).count() <= STUCK_CLIENTS;
        let at = match self.consumers.iter().position(|shared| {
            shared.assigned.len() < limits::KAFKA_READERS_PER_CLIENT
                && !shared.assigned.contains(&place)
                && !(spare_stuck && is_stuck(shared))
        }) {
            Some(at) => at,
            None => self.make(&place)?,
        };
        let shared = &mut self.consumers[at];
        let refused = |what: String| Error::new(ErrorKind::Unavailable, what);
        let mut queue = shared
            .consumer
            .split_partition_queue(&place.0, place.1)
            .ok_or_else(|| refused(format!("the Kafka client has no queue for {} partition {}", place.0, place.1)))?;
        let woken = Arc::clone(wake);
        queue.set_nonempty_callback(move || {
            woken.came.store(true, Ordering::Release);
            woken.notify.notify_one();
        });
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&place.0, place.1, Offset::Offset(offset))
            .and_then(|()| shared.consumer.incremental_assign(&list))
            .map_err(|error| {
                refused(format!("the Kafka client cannot read {} partition {}", place.0, place.1)).with_source(error)
            })?;
        shared.assigned.insert(place.clone());
        Ok(Reader {
            is_new: shared.topics.insert(Arc::clone(&place.0)),
            number: shared.number,
            place,
            consumer: Arc::clone(&shared.consumer),
            is_stuck: Arc::clone(&shared.is_stuck),
            queue: Some(queue),
            commands: self.commands.clone(),
        })
    }

    fn make(&mut self, place: &Place) -> Result<usize> {
        if self.consumers.len() >= limits::KAFKA_READ_CLIENTS {
            let kind = ErrorKind::Backpressure { retry_after: limits::MEMORY_RETRY_AFTER };
            let context = format!(
                "{} partition {} has {} readers in this process already, and no more can be had",
                place.0,
                place.1,
                self.consumers.len()
            );
            return Err(Error::new(kind, context));
        }
        let consumer =
            Consumer::from_config_and_context(&self.config, Context::new(&self.health)).map_err(|error| {
                Error::new(ErrorKind::Misconfigured, "a Kafka client that reads cannot be made").with_source(error)
            })?;
        self.made += 1;
        self.consumers.push(Shared {
            number: self.made,
            consumer: Arc::new(consumer),
            assigned: BTreeSet::new(),
            topics: BTreeSet::new(),
            is_stuck: Arc::default(),
            idle: 0,
        });
        Ok(self.consumers.len() - 1)
    }

    fn give_back(&mut self, number: u64, place: &Place) {
        let Some(shared) = self.consumers.iter_mut().find(|shared| shared.number == number) else { return };
        shared.assigned.remove(place);
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&place.0, place.1);
        if let Err(error) = shared.consumer.incremental_unassign(&list) {
            tracing::debug!(%error, topic = &*place.0, partition = place.1, "a partition could not be given back");
        }
    }
}
