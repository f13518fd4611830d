//! The contract, on top of the log: what [`PartitionLog`] promises and how it is kept here.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use tidegate_backbone::budget::{Account, Budget};
use tidegate_backbone::{
    Appended, Batch, BoxFuture, Capability, Environment, Error, ErrorKind, LogId, LogInfo, LogSpec, PartitionLog,
    Position, Record, Result, Stored, Tail,
};
use tidegate_schemas::{compact, limits};
use tokio::sync::{mpsc, oneshot, watch};

use crate::counters::{Counters, CountersSnapshot, add};
use crate::error::{closed, misconfigured, not_found};
use crate::log::pool::Pool;
use crate::log::queue::{Operation, Queue};
use crate::log::reader::position_lost;
use crate::log::recent;
use crate::log::recovery;
use crate::log::shared::{Ended, Log, Shared, Visible};
use crate::log::writer::{Writer, answer_all, kind_of};
use crate::options::{Durability, Options};
use crate::storage::Storage;
use crate::storage::real::RealStorage;

/// The longest segment: offsets in an index are 32 bits wide, in units of 8 bytes, and one commit may exceed the limit.
const SEGMENT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// The embedded broker: one directory, held by one process.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    pool: Pool,
    capability: Capability,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Turns true when the writer has ended.
    ended: watch::Receiver<bool>,
    /// Where commits are made by hand.
    by_hand: Mutex<Option<Writer>>,
    cluster: u128,
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EmbeddedLog")
            .field("directory", &self.shared.storage.describe())
            .field("failed", &self.failed())
            .finish_non_exhaustive()
    }
}

impl EmbeddedLog {
    /// Opens the directory, creating it where it does not exist, and recovers what a crash left. Blocks while it reads.
    ///
    /// Another process that holds it is [`ErrorKind::Unavailable`]; an unknown format is [`ErrorKind::Misconfigured`];
    /// a damaged record that was acknowledged is [`ErrorKind::DataLoss`], and then nothing was changed.
    pub fn open(options: Options, environment: &Environment) -> Result<Arc<Self>> {
        let storage = Arc::new(RealStorage::new(options.directory.clone()));
        Self::open_on(storage, options, environment)
    }

    /// Opens a directory that is somewhere else than in the file system. [`Options::directory`] is not looked at.
    pub fn open_on(storage: Arc<dyn Storage>, options: Options, environment: &Environment) -> Result<Arc<Self>> {
        if options.segment_bytes > SEGMENT_BYTES_MAX || options.segment_bytes == 0 {
            return Err(misconfigured(format!(
                "segment_bytes is {}, and must be between 1 and {SEGMENT_BYTES_MAX}",
                options.segment_bytes
            )));
        }
        let mut recovered = recovery::open(&*storage, &*environment.random)?;
        let start = Writer::start(&recovered);
        let capability = Capability {
            broker: "embedded",
            durability: match options.durability {
                Durability::Group => tidegate_backbone::Durability::Fsync,
                Durability::NoSync => tidegate_backbone::Durability::Os,
            },
            positions_acknowledged: true,
            record_bytes_max: limits::EMBEDDED_RECORD_BYTES,
            slots: 1,
            partitions_default: 1,
            exclusive: true,
        };
        let shared = Arc::new(Shared {
            storage,
            clock: Arc::clone(&environment.clock),
            memory: environment.memory.clone(),
            key: recovered.manifest.key,
            queue: Queue::new(options.queue_records, options.queue_bytes),
            logs: RwLock::new(std::mem::take(&mut recovered.logs)),
            segments: RwLock::new(std::mem::take(&mut recovered.segments)),
            active: RwLock::default(),
            indexes: Mutex::default(),
            files: Mutex::default(),
            counters: Counters::default(),
            failed: Mutex::default(),
            closed: false.into(),
            lock: Mutex::new(Some(recovered.lock)),
            options,
        });
        if let Some((number, index)) = recovered.sealed_index.take() {
            shared.indexes.lock().put(number, Arc::new(index));
        }
        let active = recovered.active.take().map(|(active, index)| {
            shared.keep_open(active.number, Arc::clone(&active.file));
            *shared.active.write() = Some((active.number, index));
            active
        });
        let mut writer = Writer::new(Arc::clone(&shared), environment.random.bits(), active, start);
        if !shared.options.by_hand() && tokio::runtime::Handle::try_current().is_ok() {
            let (answers, told) = mpsc::channel(limits::COMMITS_UNANSWERED);
            writer.answer_through(answers);
            environment.spawn(answer_all(told, environment.stopping().clone()));
        }
        let pool = Pool::new(shared.options.read_threads).map_err(no_thread)?;
        let (end, ended) = watch::channel(false);
        let (thread, by_hand) = if shared.options.by_hand() {
            (None, Some(writer))
        } else {
            let guard = EndGuard { shared: Arc::clone(&shared), end };
            let thread = std::thread::Builder::new().name("tidegate-log".to_owned()).spawn(move || {
                let _guard = guard;
                writer.run();
            });
            (Some(thread.map_err(no_thread)?), None)
        };
        Ok(Arc::new(Self {
            shared,
            pool,
            capability,
            thread: Mutex::new(thread),
            ended,
            by_hand: Mutex::new(by_hand),
            cluster: recovered.manifest.cluster,
        }))
    }

    /// Why the log has failed for good, where it has: nothing is appended any more, what is durable can be read.
    pub fn failed(&self) -> Option<String> {
        self.shared.failed.lock().clone()
    }

    /// What happened since the log was opened.
    pub fn counters(&self) -> CountersSnapshot {
        self.shared.counters.snapshot(self.shared.segments.read().len())
    }

    /// The random number that names the content of this directory for ever.
    pub fn cluster(&self) -> u128 {
        self.cluster
    }

    /// Commits what is queued and does what retention has to do, where commits are made by hand.
    #[cfg(any(test, feature = "test-util"))]
    pub fn drive(&self) {
        if let Some(writer) = &mut *self.by_hand.lock() {
            while writer.step(false) {}
        }
    }

    fn enqueue(
        &self,
        operation: impl FnOnce() -> Result<Operation>,
    ) -> Result<oneshot::Receiver<Result<Option<Position>>>> {
        self.shared.writable()?;
        self.shared.queue.push(operation()?)
    }

    fn perform<'a>(&self, operation: impl FnOnce() -> Result<Operation>) -> BoxFuture<'a, Result<()>> {
        let queued = self.enqueue(operation);
        Box::pin(async move { outcome(queued).await.map(|_| ()) })
    }

    /// Queues them all now, and waits for all of them.
    fn perform_all<'a>(&self, operations: impl Iterator<Item = Operation>) -> BoxFuture<'a, Result<()>> {
        let queued: Vec<_> = operations.map(|operation| self.enqueue(|| Ok(operation))).collect();
        Box::pin(async move {
            for one in queued {
                outcome(one).await?;
            }
            Ok(())
        })
    }

    fn shut(&self) {
        if let Some(mut writer) = self.by_hand.lock().take() {
            writer.finish();
        }
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        self.shared.closed.store(true, Ordering::Release);
        self.shared.wake_readers();
        self.pool.close();
        self.shared.lock.lock().take();
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shut();
    }
}

/// Tells that the writer's thread has ended, and that the log has failed where it ended by a panic.
struct EndGuard {
    shared: Arc<Shared>,
    end: watch::Sender<bool>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.fail("the writer's thread has panicked");
        }
        self.end.send_replace(true);
    }
}

fn no_thread(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "cannot start a thread of the embedded log").with_source(error)
}

async fn outcome(queued: Result<oneshot::Receiver<Result<Option<Position>>>>) -> Result<Option<Position>> {
    match queued?.await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::new(ErrorKind::Unknown, "the embedded log ended before it told the outcome")),
    }
}

/// The stored form of a record, counted until nobody holds it any more; an error where it is too large, or an event for
/// which there is no memory. Frames are few, and everything waits for them, so they are always taken.
fn encode(record: &Record, memory: &Budget) -> Result<Bytes> {
    let length = match record {
        Record::Frame(frame) => frame.len(),
        Record::Event(event) => compact::encoded_len(event),
    };
    if length > limits::EMBEDDED_RECORD_BYTES {
        return Err(Error::new(
            ErrorKind::TooLarge { limit_bytes: limits::EMBEDDED_RECORD_BYTES },
            format!("the record takes {length} bytes, and at most {} fit", limits::EMBEDDED_RECORD_BYTES),
        ));
    }
    match record {
        Record::Frame(frame) => Ok(memory.take(Account::Appends, length).hold(frame.clone())),
        Record::Event(event) => {
            let permit = memory.try_take(Account::Appends, length).map_err(|exhausted| {
                let full = ErrorKind::Backpressure { retry_after: limits::MEMORY_RETRY_AFTER };
                Error::new(full, "there is no memory for the event").with_source(exhausted)
            })?;
            let mut body = BytesMut::with_capacity(length);
            compact::encode(event, &mut body);
            Ok(permit.hold(body.freeze()))
        }
    }
}

impl PartitionLog for EmbeddedLog {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn create(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        if let LogSpec::Topic { topic, partitions } = &spec {
            let beyond = LogId::Topic { topic: topic.clone(), partition: *partitions };
            let refusal = if topic.len() > limits::TOPIC_NAME_BYTES {
                let context =
                    format!("the topic's name has {} bytes, and may have {}", topic.len(), limits::TOPIC_NAME_BYTES);
                Some(Error::new(ErrorKind::TooLarge { limit_bytes: limits::TOPIC_NAME_BYTES }, context))
            } else if self.shared.log(&beyond).is_ok() {
                let context = format!("topic {topic} exists with more than {partitions} partitions");
                Some(Error::new(ErrorKind::Conflict, context))
            } else {
                None
            };
            if let Some(error) = refusal {
                return Box::pin(std::future::ready(Err(error)));
            }
        }
        self.perform_all(spec.logs().into_iter().map(|id| Operation::Create { id }))
    }

    fn delete(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        // Whether it exists is decided by the writer, in its turn: a creation may be queued before.
        self.perform_all(spec.logs().into_iter().map(|id| Operation::Delete { id }))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<LogInfo>>> {
        Box::pin(async move {
            self.shared.readable()?;
            let logs: Vec<Arc<Log>> = self.shared.logs.read().by_number.values().cloned().collect();
            let mut infos: Vec<LogInfo> = logs.iter().map(|log| log.info()).collect();
            infos.sort_by(|left, right| left.id.cmp(&right.id));
            Ok(infos)
        })
    }

    fn info<'a>(&'a self, id: &'a LogId) -> BoxFuture<'a, Result<LogInfo>> {
        Box::pin(async move {
            self.shared.readable()?;
            Ok(self.shared.log(id)?.info())
        })
    }

    fn append(&self, id: &LogId, record: Record) -> BoxFuture<'static, Result<Appended>> {
        let queued = self.enqueue(|| {
            let log = self.shared.log(id)?;
            let body = encode(&record, &self.shared.memory)?;
            let (kind, body_crc) = (kind_of(&record), crc32c::crc32c(&body));
            Ok(Operation::Append { log, kind, body, body_crc })
        });
        Box::pin(async move { Ok(Appended { position: outcome(queued).await? }) })
    }

    fn tail<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<Box<dyn Tail>>> {
        Box::pin(async move {
            self.shared.readable()?;
            let log = self.shared.log(id)?;
            let begin = log.state.read().begin;
            if from.0 < begin {
                return Err(position_lost(&log, from.0, begin));
            }
            let visible = log.visible.subscribe();
            let tail: Box<dyn Tail> = Box::new(EmbeddedTail {
                shared: Arc::clone(&self.shared),
                pool: self.pool.clone(),
                log,
                visible,
                position: from.0,
                chunk: limits::READ_BYTES,
            });
            Ok(tail)
        })
    }

    fn lookup(&self, id: &LogId, unix_milliseconds: u64) -> BoxFuture<'_, Result<Position>> {
        let log = self.shared.readable().and_then(|()| self.shared.log(id));
        Box::pin(async move {
            let (log, shared) = (log?, Arc::clone(&self.shared));
            self.pool.run(move || lookup(&shared, &log, unix_milliseconds)).await
        })
    }

    fn trim<'a>(&'a self, id: &'a LogId, before: Position) -> BoxFuture<'a, Result<()>> {
        self.perform(|| Ok(Operation::Trim { log: self.shared.log(id)?, before: before.0 }))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.queue.close();
            if self.by_hand.lock().is_none() {
                // An error means that the thread is gone, which is what is waited for.
                let _ = self.ended.clone().wait_for(|ended| *ended).await;
            }
            self.shut();
        })
    }
}

/// The first position appended at or after that time: by halves, since the times of a log never decrease.
fn lookup(shared: &Shared, log: &Log, unix_milliseconds: u64) -> Result<Position> {
    'anew: loop {
        let (mut low, mut high) = {
            let state = log.state.read();
            if state.appended_last < unix_milliseconds {
                return Ok(Position(state.end));
            }
            (state.begin, state.end)
        };
        while low < high {
            let middle = low + (high - low) / 2;
            match shared.appended_at(log, middle) {
                Ok(time) if time < unix_milliseconds => low = middle + 1,
                Ok(_) => high = middle,
                // Trimmed meanwhile.
                Err(error) if matches!(error.kind(), ErrorKind::PositionLost { .. }) => continue 'anew,
                Err(error) => return Err(error),
            }
        }
        return Ok(Position(low));
    }
}

struct EmbeddedTail {
    shared: Arc<Shared>,
    pool: Pool,
    log: Arc<Log>,
    visible: watch::Receiver<Visible>,
    position: u64,
    /// What is read at once; grows while reading goes on without waiting.
    chunk: usize,
}

impl EmbeddedTail {
    async fn read(&mut self, bytes_max: usize) -> Result<Vec<Stored>> {
        loop {
            self.shared.readable()?;
            let visible = *self.visible.borrow_and_update();
            if visible.ended == Some(Ended::Deleted) {
                return Err(not_found(&self.log.id));
            }
            let begin = self.log.state.read().begin;
            if self.position < begin {
                return Err(position_lost(&self.log, self.position, begin));
            }
            if self.position < visible.end {
                let records = recent::read(&self.log, self.position, visible.end, bytes_max)?;
                if !records.is_empty() {
                    add(&self.shared.counters.recent_hits, 1);
                    return Ok(records);
                }
                let (shared, log) = (Arc::clone(&self.shared), Arc::clone(&self.log));
                let (from, chunk) = (self.position, self.chunk);
                let records = self.pool.run(move || shared.read(&log, from, bytes_max, chunk)).await?;
                self.chunk = (self.chunk * 2).min(limits::READ_BYTES_MAX);
                return Ok(records);
            }
            if visible.ended == Some(Ended::Closed) {
                return Err(closed(self.shared.failed.lock().as_deref()));
            }
            self.chunk = limits::READ_BYTES;
            if self.visible.changed().await.is_err() {
                return Err(closed(None));
            }
        }
    }
}

impl Tail for EmbeddedTail {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Batch>> {
        Box::pin(async move {
            let records = self.read(bytes_max).await?;
            // Only now, behind the last place where this future can be dropped.
            self.position = records.last().map_or(self.position, |stored| stored.position.0 + 1);
            Ok(Batch { records })
        })
    }

    fn position(&self) -> Position {
        Position(self.position)
    }
}
