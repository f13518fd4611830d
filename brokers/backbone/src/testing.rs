//! A broker in memory whose appends can be made to fail in every way that the contract allows, and in some that it does
//! not. For tests alone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::environment::{Clock, Environment, Random};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{Appended, Batch, BoxFuture, LogId, LogInfo, LogSpec, PartitionLog, Position, Record, Stored, Tail};
use crate::{Capability, Durability};

/// What becomes of one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is written and told.
    None,
    /// It is written, but its position is not told.
    Untold,
    /// It is not written, and that is told.
    Refused,
    /// It is not written, but that is not told.
    Lost,
    /// It is written, but that is not told.
    Unknown,
    /// It is written twice; the first position is told.
    Twice,
    /// It is written twice; the second position is told.
    TwiceLate,
    /// Its outcome is told unknown now, and it is written behind the next append to any log.
    Late,
    /// The client dies before it.
    KilledBefore,
    /// The client dies after it was written and before that is told.
    KilledAfter,
}

/// How a client is connected to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Well.
    Up,
    /// Calls fail, appends without being written, though that is not told.
    Cut,
    /// Calls wait, as those of a process do that was stopped; appends are written when it goes on.
    Stalled,
    /// Appends are written, but nothing is heard of them, and nothing can be read.
    Deaf,
    /// What is there can be read, but nothing can be written.
    Mute,
    /// Appends are written and told, but nothing can be read.
    Blind,
    /// Nothing that is asked gets to the broker, and what comes by itself arrives: followers read on.
    Unheard,
}

type Script = Box<dyn FnMut(&LogId, &Record) -> Fault + Send>;

#[derive(Debug, Default)]
struct Contents {
    begin: u64,
    end: u64,
    records: Vec<Stored>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Logs {
    logs: BTreeMap<LogId, Contents>,
    late: Vec<(LogId, Record)>,
    time: u64,
    gaps: bool,
    counts_positions: bool,
}

/// What all clients share.
#[derive(Clone, Debug)]
pub struct MemoryBroker {
    logs: Arc<Mutex<Logs>>,
    changed: watch::Sender<u64>,
    exclusive: bool,
    slots: u32,
}

/// A broker that one process has for itself, with one slot.
impl Default for MemoryBroker {
    fn default() -> Self {
        Self { logs: Arc::default(), changed: watch::Sender::new(0), exclusive: true, slots: 1 }
    }
}

impl MemoryBroker {
    /// One with so many slots, which several processes may share where there is more than one.
    pub fn with_slots(slots: u32) -> Self {
        Self { slots, exclusive: slots == 1, ..Self::default() }
    }

    /// One that several processes share, with so many slots.
    pub fn shared(slots: u32) -> Self {
        Self { exclusive: false, slots, ..Self::default() }
    }

    /// The same broker, for clients that are configured for another number of slots.
    pub fn configured(self, slots: u32) -> Self {
        Self { slots, ..self }
    }

    /// One that leaves out a position of a topic's log around each record, as brokers do that count more than records.
    pub fn with_gaps(self) -> Self {
        self.logs.lock().gaps = true;
        self
    }

    /// One that counts positions for records, as a broker does that cannot count.
    pub fn that_counts_positions(self) -> Self {
        self.logs.lock().counts_positions = true;
        self
    }

    /// A client without faults.
    pub fn client(&self) -> Arc<MemoryLog> {
        self.faulty(|_, _| Fault::None)
    }

    /// A client whose appends meet what the script says.
    pub fn faulty(&self, script: impl FnMut(&LogId, &Record) -> Fault + Send + 'static) -> Arc<MemoryLog> {
        Arc::new(MemoryLog {
            broker: self.clone(),
            capability: Capability {
                broker: "memory",
                durability: Durability::Memory,
                positions_acknowledged: true,
                record_bytes_max: 1024 * 1024,
                slots: self.slots,
                partitions_default: 4,
                exclusive: self.exclusive,
            },
            script: Mutex::new(Box::new(script)),
            killed: Arc::new(AtomicBool::new(false)),
            questions: AtomicUsize::new(0),
            link: watch::Sender::new(Link::Up),
            held: Mutex::default(),
        })
    }

    /// Every record of a log; none where there is no such log.
    pub fn records(&self, id: &LogId) -> Vec<Stored> {
        self.logs.lock().logs.get(id).map(|contents| contents.records.clone()).unwrap_or_default()
    }

    /// Every log.
    pub fn ids(&self) -> Vec<LogId> {
        self.logs.lock().logs.keys().cloned().collect()
    }

    /// Appends a record past every client, as a foreign writer would.
    pub fn insert(&self, id: &LogId, record: Record) -> Position {
        let position = self.logs.lock().append(id, record).unwrap_or_default();
        self.changed.send_modify(|version| *version += 1);
        position
    }

    /// Loses the last records of a log, as a broker does that acknowledged too early; later appends take their positions.
    pub fn lose(&self, id: &LogId, count: usize) {
        if let Some(contents) = self.logs.lock().logs.get_mut(id) {
            for _ in 0..count {
                if let Some(stored) = contents.records.pop() {
                    contents.end = stored.position.0;
                }
            }
        }
    }

    /// Replaces the bytes of the record at that index of a log.
    pub fn damage(&self, id: &LogId, index: usize, record: Option<Record>) {
        if let Some(contents) = self.logs.lock().logs.get_mut(id) {
            match record {
                Some(record) => contents.records[index].record = record,
                None => {
                    contents.records.remove(index);
                }
            }
        }
    }

    /// Removes a log past every client.
    pub fn remove(&self, id: &LogId) {
        self.logs.lock().logs.remove(id);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Leaves out one position of a log, as brokers do that count more than records.
    pub fn skip_position(&self, id: &LogId) {
        if let Some(contents) = self.logs.lock().logs.get_mut(id) {
            contents.end += 1;
        }
    }
}

impl Logs {
    fn append(&mut self, id: &LogId, record: Record) -> Option<Position> {
        self.time += 1;
        let appended_at = self.time;
        let gap = u64::from(self.gaps && matches!(id, LogId::Topic { .. }));
        let contents = self.logs.get_mut(id)?;
        let position = Position(contents.end + gap);
        contents.end += 1 + 2 * gap;
        if let Record::Frame(bytes) = &record {
            contents.bytes += bytes.len() as u64;
        }
        contents.records.push(Stored { position, appended_at, record });
        Some(position)
    }
}

/// An append of a stalled client, and whoever waits for it.
type Held = (LogId, Record, oneshot::Sender<Result<Appended>>);

/// One process's connection to the broker.
pub struct MemoryLog {
    broker: MemoryBroker,
    capability: Capability,
    script: Mutex<Script>,
    killed: Arc<AtomicBool>,
    questions: AtomicUsize,
    link: watch::Sender<Link>,
    /// Appends that wait until a stalled client goes on.
    held: Mutex<Vec<Held>>,
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MemoryLog").field("killed", &self.killed).finish_non_exhaustive()
    }
}

impl MemoryLog {
    /// From now on nothing that this client asks is done.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.broker.changed.send_modify(|version| *version += 1);
    }

    /// Whether it was killed.
    pub fn killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }

    /// How often it asked where a log begins or ends, looked for a time, or began to read.
    pub fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }

    fn asks(&self) {
        self.questions.fetch_add(1, Ordering::SeqCst);
    }

    /// Connects it otherwise from now on.
    pub fn connect(&self, link: Link) {
        // What was held is written before anything that is asked afterwards.
        let mut held = self.held.lock();
        if link != Link::Stalled {
            for (id, record, answer) in held.drain(..) {
                // Who asked may be gone.
                answer.send(self.write(&id, &record)).ok();
            }
        }
        self.link.send_replace(link);
    }

    /// What becomes of its appends from now on.
    pub fn script(&self, script: impl FnMut(&LogId, &Record) -> Fault + Send + 'static) {
        *self.script.lock() = Box::new(script);
    }

    /// Waits while the client is stalled, and tells whether it can read then.
    async fn reads(&self) -> Result<()> {
        let mut link = self.link.subscribe();
        loop {
            self.alive()?;
            match *link.borrow_and_update() {
                Link::Up | Link::Mute => return Ok(()),
                Link::Cut | Link::Deaf | Link::Blind => return Err(away()),
                Link::Stalled | Link::Unheard => {}
            }
            link.changed().await.map_err(|_| dead())?;
        }
    }

    fn alive(&self) -> Result<()> {
        if self.killed() { Err(dead()) } else { Ok(()) }
    }

    fn write(&self, id: &LogId, record: &Record) -> Result<Appended> {
        self.alive()?;
        let fault = (self.script.lock())(id, record);
        let mut logs = self.broker.logs.lock();
        let missing = || Error::new(ErrorKind::NotFound, format!("{id} does not exist"));
        let unknown = || Error::new(ErrorKind::Unknown, format!("{id}: the outcome was lost"));
        if fault == Fault::KilledBefore {
            self.killed.store(true, Ordering::SeqCst);
            return Err(dead().outcome_unknown());
        }
        if !logs.logs.contains_key(id) {
            return Err(missing());
        }
        let result = match fault {
            Fault::Refused => return Err(Error::new(ErrorKind::Unavailable, format!("{id} refuses"))),
            Fault::Lost => return Err(unknown()),
            Fault::Late => {
                logs.late.push((id.clone(), record.clone()));
                return Err(unknown());
            }
            _ => {
                let first = logs.append(id, record.clone());
                let second = if matches!(fault, Fault::Twice | Fault::TwiceLate) {
                    logs.append(id, record.clone())
                } else {
                    None
                };
                match fault {
                    Fault::Untold => Ok(Appended { position: None }),
                    Fault::Unknown => Err(unknown()),
                    Fault::TwiceLate => Ok(Appended { position: second }),
                    Fault::KilledAfter => {
                        self.killed.store(true, Ordering::SeqCst);
                        Err(dead().outcome_unknown())
                    }
                    _ => Ok(Appended { position: first }),
                }
            }
        };
        for (id, record) in std::mem::take(&mut logs.late) {
            logs.append(&id, record);
        }
        drop(logs);
        self.broker.changed.send_modify(|version| *version += 1);
        result
    }
}

fn away() -> Error {
    Error::new(ErrorKind::Unavailable, "the broker cannot be reached")
}

fn dead() -> Error {
    Error::new(ErrorKind::Closed, "the client was killed")
}

impl PartitionLog for MemoryLog {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn create(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.reads().await?;
            let mut logs = self.broker.logs.lock();
            if let LogSpec::Topic { topic, partitions } = &spec {
                let more = LogId::Topic { topic: topic.clone(), partition: *partitions };
                if logs.logs.contains_key(&more) {
                    let context = format!("topic {topic} exists with more than {partitions} partitions");
                    return Err(Error::new(ErrorKind::Conflict, context));
                }
            }
            for id in spec.logs() {
                logs.logs.entry(id).or_default();
            }
            Ok(())
        })
    }

    /// By its own name only.
    fn attach<'a>(&'a self, topic: &'a str, to: &'a str) -> BoxFuture<'a, Result<u32>> {
        Box::pin(async move {
            self.reads().await?;
            let logs = self.broker.logs.lock();
            let of = |id: &&LogId| matches!(id, LogId::Topic { topic: name, .. } if &**name == to && topic == to);
            match logs.logs.keys().filter(of).count() {
                0 => Err(Error::new(ErrorKind::NotFound, format!("there is no topic {to} to attach {topic} to"))),
                partitions => Ok(u32::try_from(partitions).unwrap_or(u32::MAX)),
            }
        })
    }

    fn delete(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.reads().await?;
            let mut logs = self.broker.logs.lock();
            for id in spec.logs() {
                logs.logs.remove(&id);
            }
            Ok(())
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<LogInfo>>> {
        Box::pin(async move {
            self.reads().await?;
            let logs = self.broker.logs.lock();
            Ok(logs.logs.iter().map(|(id, contents)| info(id, contents)).collect())
        })
    }

    fn info<'a>(&'a self, id: &'a LogId) -> BoxFuture<'a, Result<LogInfo>> {
        self.asks();
        Box::pin(async move {
            self.reads().await?;
            let logs = self.broker.logs.lock();
            let found = logs.logs.get(id).map(|contents| info(id, contents));
            found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{id} does not exist")))
        })
    }

    fn count<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let info = self.info(id).await?;
            if self.broker.logs.lock().counts_positions {
                return Ok(info.end.0.saturating_sub(from.max(info.begin).0));
            }
            Ok(self.broker.records(id).iter().filter(|stored| stored.position >= from).count() as u64)
        })
    }

    fn append(&self, id: &LogId, record: Record) -> BoxFuture<'static, Result<Appended>> {
        let link = *self.link.borrow();
        if link == Link::Stalled {
            let (answer, answered) = oneshot::channel();
            self.held.lock().push((id.clone(), record, answer));
            return Box::pin(async move { answered.await.unwrap_or_else(|_| Err(dead().outcome_unknown())) });
        }
        if link == Link::Unheard {
            // Whoever waits gives up.
            return Box::pin(std::future::pending());
        }
        let mut result = match link {
            Link::Cut | Link::Mute => Err(away().outcome_unknown()),
            _ => self.write(id, &record),
        };
        if link == Link::Deaf {
            result = Err(away().outcome_unknown());
        }
        let killed = Arc::clone(&self.killed);
        Box::pin(async move {
            tokio::task::yield_now().await;
            if killed.load(Ordering::SeqCst) { Err(dead().outcome_unknown()) } else { result }
        })
    }

    fn tail<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<Box<dyn Tail>>> {
        self.asks();
        Box::pin(async move {
            let info = self.info(id).await?;
            if from < info.begin {
                let kind = ErrorKind::PositionLost { earliest: info.begin };
                return Err(Error::new(kind, format!("{id} begins at {}", info.begin)));
            }
            let tail = MemoryTail {
                broker: self.broker.clone(),
                changed: self.broker.changed.subscribe(),
                killed: Arc::clone(&self.killed),
                link: self.link.subscribe(),
                id: id.clone(),
                position: from,
            };
            Ok(Box::new(tail) as Box<dyn Tail>)
        })
    }

    fn lookup(&self, id: &LogId, unix_milliseconds: u64) -> BoxFuture<'_, Result<Position>> {
        self.asks();
        let id = id.clone();
        Box::pin(async move {
            let end = self.info(&id).await?.end;
            let records = self.broker.records(&id);
            let found = records.iter().find(|stored| stored.appended_at >= unix_milliseconds);
            Ok(found.map_or(end, |stored| stored.position))
        })
    }

    fn trim<'a>(&'a self, id: &'a LogId, before: Position) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.reads().await?;
            if let Some(contents) = self.broker.logs.lock().logs.get_mut(id) {
                contents.records.retain(|stored| stored.position >= before);
                contents.begin = contents.begin.max(before.0.min(contents.end));
            }
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.kill() })
    }
}

fn info(id: &LogId, contents: &Contents) -> LogInfo {
    let end = Position(contents.end);
    LogInfo { id: id.clone(), begin: Position(contents.begin), end, bytes: contents.bytes }
}

struct MemoryTail {
    broker: MemoryBroker,
    changed: watch::Receiver<u64>,
    killed: Arc<AtomicBool>,
    link: watch::Receiver<Link>,
    id: LogId,
    position: Position,
}

impl Tail for MemoryTail {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Batch>> {
        Box::pin(async move {
            loop {
                if self.killed.load(Ordering::SeqCst) {
                    return Err(dead());
                }
                // A reader waits for a broker that is away.
                if !matches!(*self.link.borrow_and_update(), Link::Up | Link::Mute | Link::Unheard) {
                    tokio::select! {
                        changed = self.link.changed() => changed.map_err(|_| dead())?,
                        changed = self.changed.changed() => changed.map_err(|_| dead())?,
                    }
                    continue;
                }
                {
                    self.changed.borrow_and_update();
                    let logs = self.broker.logs.lock();
                    let Some(contents) = logs.logs.get(&self.id) else {
                        return Err(Error::new(ErrorKind::NotFound, format!("{} was deleted", self.id)));
                    };
                    let from = contents.records.partition_point(|stored| stored.position < self.position);
                    let (mut records, mut bytes) = (Vec::new(), 0);
                    for stored in &contents.records[from..] {
                        bytes += if let Record::Frame(frame) = &stored.record { frame.len() } else { 1 };
                        if bytes > bytes_max && !records.is_empty() {
                            break;
                        }
                        records.push(stored.clone());
                    }
                    let before = self.position;
                    if let Some(last) = records.last() {
                        self.position = last.position.next();
                    } else {
                        self.position = self.position.max(Position(contents.end));
                    }
                    // Empty where there was only a gap.
                    if self.position > before {
                        return Ok(Batch { records });
                    }
                }
                tokio::select! {
                    changed = self.link.changed() => changed.map_err(|_| dead())?,
                    changed = self.changed.changed() => changed.map_err(|_| dead())?,
                }
            }
        })
    }

    fn position(&self) -> Position {
        self.position
    }
}

/// A clock that stands still until it is told to go on.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Goes on by that much.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix_milliseconds(&self) -> u64 {
        1_700_000_000_000 + self.0.load(Ordering::SeqCst)
    }

    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A clock that goes with the runtime's time, which tests can pause, and that can jump ahead of it.
#[derive(Debug)]
pub struct RuntimeClock {
    begun: Instant,
    slept: AtomicU64,
    wall: AtomicU64,
}

impl Default for RuntimeClock {
    fn default() -> Self {
        Self { begun: Instant::now(), slept: AtomicU64::new(0), wall: AtomicU64::new(1_700_000_000_000) }
    }
}

impl RuntimeClock {
    /// The machine was suspended for that long.
    pub fn sleep(&self, duration: Duration) {
        self.slept.fetch_add(duration.as_millis() as u64, Ordering::SeqCst);
    }

    /// Somebody set the wall clock to that time.
    pub fn set_wall(&self, unix_milliseconds: u64) {
        self.wall.store(unix_milliseconds, Ordering::SeqCst);
    }
}

impl Clock for RuntimeClock {
    fn unix_milliseconds(&self) -> u64 {
        self.wall.load(Ordering::SeqCst) + self.since_boot().as_millis() as u64
    }

    fn since_boot(&self) -> Duration {
        self.begun.elapsed() + Duration::from_millis(self.slept.load(Ordering::SeqCst))
    }
}

/// Random numbers that are the same for the same seed.
#[derive(Debug)]
pub struct SeededRandom(AtomicU64);

impl SeededRandom {
    /// The sequence of that seed.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Random for SeededRandom {
    fn bits(&self) -> u64 {
        // A Weyl sequence through a hash: every state is met once, and neighbours have nothing in common.
        let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        xxhash_rust::xxh3::xxh3_64(&state.to_le_bytes())
    }
}

/// An environment with a clock that stands still and seeded randomness.
pub fn environment(seed: u64) -> Environment {
    Environment::new(Arc::new(ManualClock::default()), Arc::new(SeededRandom::new(seed)))
}

/// The frame of a record of a slot's log.
pub fn frame_bytes(stored: &Stored) -> Option<&Bytes> {
    if let Record::Frame(bytes) = &stored.record { Some(bytes) } else { None }
}
